"""Reading large objects while the next parts of them are already on their way."""

from __future__ import annotations

import io
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from chorus_upload.storage.store import RangedStore, StoredObject

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class ReadAhead:
    """Fetches parts of `part` bytes for all streams of one store, at most `most` of them ahead of their readers.

    That bounds the memory: what a reader waits for itself it fetches in any case.
    """

    def __init__(self, store: RangedStore, *, part: int, most: int) -> None:
        self._store = store
        self.part = part
        self._free = threading.BoundedSemaphore(most)
        self._executor = ThreadPoolExecutor(most, thread_name_prefix="chorus-ahead")

    def fetch(self, stored: StoredObject, offset: int) -> bytes:
        """The part that begins there, of the object in that state. Raises what `RangedStore.read_range` raises."""
        length = min(self.part, stored.size - offset)
        return self._store.read_range(stored.key, offset=offset, length=length, etag=stored.etag)

    def begin(self, stored: StoredObject, offset: int) -> Future[bytes] | None:
        """The same, to be had later; None when enough is on its way."""
        if not self._free.acquire(blocking=False):
            return None
        return self._executor.submit(self.fetch, stored, offset)

    def taken(self) -> None:
        """A part that was begun is in its reader's hands, or is not wanted any more."""
        self._free.release()

    def close(self, *, wait: bool = True) -> None:
        """Begin nothing more, and `wait` for what has begun; no stream may be read any more."""
        self._executor.shutdown(wait=wait, cancel_futures=True)


class AheadStream(io.RawIOBase):
    """The bytes of one object, of which `first` are there already. Reading raises what `ReadAhead.fetch` does."""

    MOST = 3
    """So many parts of one object are on their way at once."""

    def __init__(self, ahead: ReadAhead, stored: StoredObject, first: bytes) -> None:
        super().__init__()
        self._ahead = ahead
        self.stored = stored
        self._buffer = memoryview(first)
        self._got = self._begun = len(first)
        self._under_way: deque[Future[bytes]] = deque()
        self._begin()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        if not self._buffer and self._got < self.stored.size:
            data = self._next()
            self._got += len(data)
            self._buffer = memoryview(data)
            self._begin()
        target = memoryview(buffer).cast("B")
        count = min(len(target), len(self._buffer))
        target[:count] = self._buffer[:count]
        self._buffer = self._buffer[count:]
        return count

    def close(self) -> None:
        while self._under_way:
            self._under_way.popleft().cancel()
            self._ahead.taken()
        super().close()

    def _next(self) -> bytes:
        if not self._under_way:
            data = self._ahead.fetch(self.stored, self._got)
            self._begun = self._got + len(data)
            return data
        # One that failed stays in front: who reads on after that must not get what follows it.
        data = self._under_way[0].result()
        self._under_way.popleft()
        self._ahead.taken()
        return data

    def _begin(self) -> None:
        while len(self._under_way) < self.MOST and self._begun < self.stored.size:
            future = self._ahead.begin(self.stored, self._begun)
            if future is None:
                return
            self._under_way.append(future)
            self._begun += min(self._ahead.part, self.stored.size - self._begun)
