"""Bringing one file back well: fetched where an earlier run stopped, and shown to nobody before it is proven."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable, Iterator
from typing import BinaryIO

import xxhash

from chorus_upload.errors import (
    AccessDenied,
    CredentialsExpired,
    NotAsStored,
    ObjectExists,
    ObjectNotFound,
    StorageError,
    TlsError,
    TransientError,
)
from chorus_upload.model import NotRetrieved, Retrieval, RetrievalFailure, Retrieved
from chorus_upload.storage.source import FileStat
from chorus_upload.storage.store import Store
from chorus_upload.storage.target import Target, Unfinished
from chorus_upload.transfer.reader import BLOCK, Stopped

KEPT_BYTES = 8 << 20
"""What is larger is not begun anew after an interruption."""


class _Hash:
    """Both checksums of what was seen so far; `said` is the MD5 that the store says of the object, if it does."""

    def __init__(self) -> None:
        self.said: bytes | None = None
        self._fingerprint = xxhash.xxh3_128()
        self._md5 = hashlib.md5(usedforsecurity=False)
        self.size = 0

    def update(self, block: bytes) -> None:
        self._fingerprint.update(block)
        self._md5.update(block)
        self.size += len(block)

    def is_of(self, wanted: Retrieval) -> bool:
        """Whether that is all of the file, by every checksum that the journal has of it, or else by the store's."""
        return (
            self.size == wanted.size
            and wanted.fingerprint in (None, self._fingerprint.digest())
            and wanted.md5 in (None, self._md5.digest())
            and (not _is_unknown(wanted) or self.said in (None, self._md5.digest()))
        )

    def difference(self, wanted: Retrieval) -> str:
        """Why it is not the file."""
        if _is_unknown(wanted) and self.said is not None and self.size == wanted.size:
            failure = NotAsStored.of(wanted.key or wanted.path, found=self._md5.digest(), said=self.said)
            return f"{failure.message}. {failure.hint}"
        return f"{wanted.key} is not what was delivered; nothing of it was kept"


def _is_unknown(wanted: Retrieval) -> bool:
    """Whether nobody but the store knows what the file has to be."""
    return wanted.fingerprint is None and wanted.md5 is None


class _NotFetched(Exception):
    """The store does not give one object away."""

    def __init__(self, kind: RetrievalFailure, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail


class Receiver:
    """Brings files from `store` into `target`. Used by many threads at once.

    With `overwrite` other files in the target give way. With `reread` a file that is there is not taken for the
    right one because of its size and time. `on_bytes` is told how far each file has come.
    """

    def __init__(
        self,
        store: Store,
        target: Target,
        *,
        overwrite: bool,
        reread: bool,
        stop: threading.Event,
        on_bytes: Callable[[Retrieval, int], None],
    ) -> None:
        self._store = store
        self._target = target
        self._overwrite = overwrite
        self._reread = reread
        self._stop = stop
        self._on_bytes = on_bytes

    def receive(self, wanted: Retrieval) -> Retrieved | NotRetrieved | None:
        """Bring back one file; None when the run was stopped before that.

        Raises StorageError for what concerns every file: expired credentials, a target that cannot be written to.
        """
        if self._stop.is_set():
            return None
        try:
            return self._received(wanted)
        except Stopped:
            return None
        except _NotFetched as failure:
            return NotRetrieved(wanted, failure.kind, failure.detail)

    def _received(self, wanted: Retrieval) -> Retrieved | NotRetrieved:
        try:
            found = self._target.find(wanted.path)
        except StorageError as error:
            return NotRetrieved(wanted, RetrievalFailure.REFUSED, error.message)
        if found is not None and (there := self._there(wanted, found)):
            return there
        if found is not None and not self._overwrite:
            return _taken(wanted)
        try:
            return self._fetched(wanted)
        except ObjectExists:
            # Another process was faster; if it is one of ours, it brought the same.
            found = self._target.find(wanted.path)
        return (found and self._there(wanted, found)) or _taken(wanted)

    def _there(self, wanted: Retrieval, found: FileStat) -> Retrieved | None:
        """The outcome when the file in the target is the one that is wanted; its time is set right then."""
        there = Retrieved(wanted, 0, was_there=True)
        if found.size != wanted.size:
            return None
        is_timely = found.mtime_us == wanted.mtime_us
        if is_timely and not self._reread:
            return there
        seen = _Hash()
        with self._target.open(wanted.path) as stream:
            self._read(stream, seen, wanted)
        if not seen.is_of(wanted):
            return None
        if not is_timely:
            self._target.set_time(wanted.path, wanted.mtime_us)
        return there

    def _fetched(self, wanted: Retrieval) -> Retrieved | NotRetrieved:
        content = wanted.fingerprint or wanted.md5 or b""
        # Where nobody knows what it has to be, two halves would pass for a whole.
        is_kept = wanted.size > KEPT_BYTES and bool(content)
        with self._target.unfinished(wanted.path, content=content, is_kept=is_kept) as unfinished:
            seen = _Hash()
            if unfinished.size <= wanted.size:
                self._read(unfinished.file, seen, wanted)
            else:
                unfinished.begin_again()
            begun_at = seen.size
            self._append(wanted, unfinished, seen)
            fetched = seen.size - begun_at
            if not seen.is_of(wanted):
                # The object, or what was kept of it, may have changed since; or it became another one on its way.
                unfinished.begin_again()
                seen = _Hash()
                self._append(wanted, unfinished, seen)
                fetched += seen.size
            if seen.is_of(wanted):
                try:
                    # Fetching may have taken hours, in which somebody may have put a link to elsewhere in its way.
                    self._target.require_inside(wanted.path)
                except StorageError as error:
                    return NotRetrieved(wanted, RetrievalFailure.REFUSED, error.message)
                unfinished.publish(mtime_us=wanted.mtime_us, replace=self._overwrite)
                return Retrieved(wanted, fetched)
            unfinished.begin_again()
        return NotRetrieved(wanted, RetrievalFailure.WRONG, seen.difference(wanted))

    def _append(self, wanted: Retrieval, unfinished: Unfinished, seen: _Hash) -> None:
        """Write what follows of the object."""
        for block in self._blocks(wanted, seen):
            unfinished.write(block)
            seen.update(block)
            self._on_bytes(wanted, seen.size)
            if seen.size > wanted.size:
                return
            if self._stop.is_set():
                raise Stopped

    def _blocks(self, wanted: Retrieval, seen: _Hash) -> Iterator[bytes]:
        """What the store has from there on. _NotFetched when it is about this object, StorageError otherwise."""
        if wanted.key is None:
            raise _NotFetched(RetrievalFailure.NOT_DELIVERED, "the central store never got it")
        try:
            with self._store.open(wanted.key, offset=seen.size) as stream:
                seen.said = stream.stored.md5
                while block := stream.read(BLOCK):
                    yield block
        except (CredentialsExpired, TlsError):
            raise
        except TransientError as error:
            # A wait is given up when the run is stopped, which says nothing about the object.
            if self._stop.is_set():
                raise Stopped from None
            failure = _NotFetched(RetrievalFailure.TRANSIENT, error.message)
        except ObjectNotFound:
            failure = _NotFetched(RetrievalFailure.MISSING, f"{wanted.key} is not in the central store any more")
        except AccessDenied as error:
            failure = _NotFetched(RetrievalFailure.DENIED, error.message)
        except StorageError as error:
            failure = _NotFetched(RetrievalFailure.UNREADABLE, error.message)
        else:
            return
        raise failure

    def _read(self, stream: BinaryIO | io.FileIO, seen: _Hash, wanted: Retrieval) -> None:
        """Take in what is on the disk; of a file that grows meanwhile no more than shows that it is another one."""
        while seen.size <= wanted.size and (block := stream.read(BLOCK)):
            seen.update(block)
            self._on_bytes(wanted, seen.size)
            if self._stop.is_set():
                raise Stopped


def _taken(wanted: Retrieval) -> NotRetrieved:
    return NotRetrieved(
        wanted, RetrievalFailure.TAKEN, "there is another file in its place; --overwrite would replace it"
    )
