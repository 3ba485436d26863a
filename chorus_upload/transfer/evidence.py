"""Judges what a store said of an object: does it prove that our bytes arrived, and how?"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from enum import Enum

import xxhash

from chorus_upload.errors import NotAsStored, ObjectNotFound, TransientError
from chorus_upload.model import Evidence
from chorus_upload.storage.store import ComputedBy, ObjectStream, Store, StoredObject
from chorus_upload.transfer.reader import BLOCK, Stopped

_READINGS = 3


class Verdict(Enum):
    """What there is when there is no evidence yet."""

    UNPROVEN = "unproven"
    """Nothing speaks against it, but nothing that counts speaks for it: read it back."""
    WRONG = "wrong"
    """The store holds something else."""


def judge(stored: StoredObject, *, size: int, md5: bytes) -> Evidence | Verdict:
    """Weigh the answer to a `put`. A checksum that a client may have written weighs nothing."""
    if stored.size != size:
        return Verdict.WRONG
    if stored.checksum is not None and stored.checksum.computed_by is ComputedBy.SERVICE:
        return Evidence.SERVER if stored.checksum.md5 == md5 else Verdict.WRONG
    return Evidence.TRANSIT if stored.transit_checked else Verdict.UNPROVEN


def read_surely(store: Store, key: str, take: Callable[[Iterator[bytes]], None]) -> StoredObject:
    """Have `take` take an object, or its beginning, anew each time that it is called; gives what the store says of it.

    What was taken as a whole has to have the MD5 that the store says of the object, or the fingerprint that we have
    written beside it; where the response with the content says neither, a look at the object may. What has not is read
    again, and TransientError in the end. Raises what `Store.open` and its stream raise.
    """
    for _ in range(_READINGS):
        hashes = _Hashes()
        with store.open(key) as stream:
            take(hashes.of(_blocks(stream)))
            stored = stream.stored
        if hashes.size != stored.size:
            return stored
        said = _said_of(store, stored)
        pairs = [(found, each) for found, each in zip(hashes.digests, said, strict=True) if each is not None]
        if not pairs or any(found == each for found, each in pairs):
            return stored
    raise NotAsStored.of(f"{key} in {store.url}", found=pairs[0][0], said=pairs[0][1])


class _Hashes:
    """MD5 and XXH3-128 of blocks on their way."""

    def __init__(self) -> None:
        self.size = 0
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._fingerprint = xxhash.xxh3_128()

    def of(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        for block in blocks:
            self.size += len(block)
            self._md5.update(block)
            self._fingerprint.update(block)
            yield block

    @property
    def digests(self) -> tuple[bytes, bytes]:
        return self._md5.digest(), self._fingerprint.digest()


def _said_of(store: Store, stored: StoredObject) -> tuple[bytes | None, bytes | None]:
    """MD5 and fingerprint that are said of an object that was opened."""
    if stored.md5 is None and stored.fingerprint is None:
        now = store.stat(stored.key)
        stored = now if now is not None and now.etag == stored.etag else stored
    return stored.md5, stored.fingerprint


def with_fingerprint(store: Store, key: str, fingerprint: bytes) -> StoredObject | None:
    """The object under `key` if it has this XXH3-128; None when there is none, or another one.

    What arrives as another one is read again, because it may have changed on the way: it has to arrive in the same way
    twice. TransientError if it does not. Raises what `Store.open` and its stream raise.
    """
    seen: set[bytes] = set()
    for _ in range(_READINGS):
        found = xxhash.xxh3_128()
        try:
            with store.open(key) as stream:
                for block in _blocks(stream):
                    found.update(block)
                stored = stream.stored
        except ObjectNotFound:
            return None
        if found.digest() == fingerprint:
            return stored
        if found.digest() in seen:
            return None
        seen.add(found.digest())
    raise _does_not_arrive(store, key)


def _does_not_arrive(store: Store, key: str) -> TransientError:
    return TransientError(f"{key} in {store.url} does not arrive as it is stored", hint="Repeat the command.")


def _blocks(stream: ObjectStream) -> Iterator[bytes]:
    """What an object holds; of one that grows while it is read no more than shows that it does."""
    got = 0
    while got <= stream.stored.size and (block := stream.read(BLOCK)):
        got += len(block)
        yield block


def read_back(
    store: Store,
    key: str,
    *,
    size: int,
    stop: threading.Event | None = None,
    on_bytes: Callable[[int], None] | None = None,
) -> tuple[bytes, bytes] | None:
    """XXH3-128 and MD5 of what the store gives back; None when it is not of that size.

    `on_bytes` is told of every read. Raises what `Store.open` and its stream raise, and Stopped when `stop` is
    set meanwhile.
    """
    fingerprint = xxhash.xxh3_128()
    md5 = hashlib.md5(usedforsecurity=False)
    got = 0
    with store.open(key) as stream:
        while block := stream.read(BLOCK):
            fingerprint.update(block)
            md5.update(block)
            got += len(block)
            if got > size:
                return None
            if on_bytes is not None:
                on_bytes(len(block))
            if stop is not None and stop.is_set():
                raise Stopped
    return (fingerprint.digest(), md5.digest()) if got == size else None
