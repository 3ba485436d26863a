"""What is only given out piece by piece, by whoever calls us, as a stream that somebody else reads."""

from __future__ import annotations

import io
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_PIECES_AHEAD = 16

Take = Callable[[bytes], bool]
"""Takes a piece; False when no more is wanted."""


class Flow(io.RawIOBase):
    """What comes in another thread, as a stream; a few pieces of it are held."""

    def __init__(self, run: Callable[[Take], None]) -> None:
        super().__init__()
        self._run = run
        self._pieces: queue.Queue[bytes | BaseException | None] = queue.Queue(_PIECES_AHEAD)
        self._over = threading.Event()
        self._left = memoryview(b"")
        self._has_ended = False
        self._thread = threading.Thread(target=self._flow, name="chorus-flow", daemon=True)
        self._thread.start()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        got = 0
        while got < len(view) and not self._has_ended:
            if not self._left:
                piece = self._pieces.get()
                if isinstance(piece, BaseException):
                    raise piece
                self._has_ended = piece is None
                self._left = memoryview(piece or b"")
                continue
            count = min(len(view) - got, len(self._left))
            view[got : got + count] = self._left[:count]
            self._left = self._left[count:]
            got += count
        return got

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        super().close()

    def _flow(self) -> None:
        try:
            self._run(self._put)
        except BaseException as error:  # noqa: BLE001 - it is raised where the stream is read
            self._put(error)
        else:
            self._put(None)

    def _put(self, piece: bytes | BaseException | None) -> bool:
        while not self._over.is_set():
            with suppress(queue.Full):
                self._pieces.put(piece, timeout=0.2)
                return True
        return False
