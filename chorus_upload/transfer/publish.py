"""Puts a file of our own making (a journal, a manifest) into a store, and proves that it arrived."""

from __future__ import annotations

import hashlib
from pathlib import Path

import xxhash

from chorus_upload.errors import IntegrityError
from chorus_upload.model import Twin
from chorus_upload.storage.store import FINGERPRINT, Properties, Store, StoredObject
from chorus_upload.transfer.evidence import Verdict, judge, with_fingerprint
from chorus_upload.transfer.reader import BLOCK


def hash_file(path: Path) -> tuple[bytes, bytes]:
    """XXH3-128 and MD5 of a local file."""
    fingerprint = xxhash.xxh3_128()
    md5 = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            fingerprint.update(block)
            md5.update(block)
    return fingerprint.digest(), md5.digest()


def publish(
    store: Store,
    key: str,
    path: Path,
    *,
    create_only: bool = False,
    if_match: str | None = None,
    twin: Twin | None = None,
) -> StoredObject:
    """Store the local file `path` under `key`, and prove it. The last three are as for `Store.put`.

    Raises ObjectExists or PreconditionFailed as `Store.put` does, IntegrityError when the store holds
    something else afterwards.
    """
    content = hash_file(path)
    size = path.stat().st_size
    with path.open("rb") as stream:
        small = size <= store.capabilities.one_request_limit
        body = stream.read() if small else stream
        stored = store.put(
            key,
            body,
            size=size,
            create_only=create_only,
            if_match=if_match,
            properties=Properties({FINGERPRINT: content[0].hex()}, md5=content[1]),
            twin=twin,
        )
    verdict = judge(stored, size=size, md5=content[1])
    if not isinstance(verdict, Verdict):
        return stored
    # Where the answer speaks against it, it may be the answer that is wrong.
    there = with_fingerprint(store, key, content[0])
    if there is None:
        raise IntegrityError(f"{key} in {store.url} is not what was written", hint="Repeat the command.")
    return there
