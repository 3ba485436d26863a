"""What is read of an object, when reading goes wrong now and then."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import xxhash

from chorus_upload.errors import TransientError
from chorus_upload.storage.local import LocalStore
from chorus_upload.storage.store import ObjectStream
from chorus_upload.transfer.evidence import with_fingerprint

KEY = "journal.db"
OURS, THEIRS = b"ours", b"theirs"


class FlippingStore(LocalStore):
    """A local store of which the readings of `arriving` come first, in the place of what is there."""

    def __init__(self, root: Path, *arriving: bytes) -> None:
        super().__init__(root)
        self.arriving = list(arriving)

    def open(self, key: str, *, offset: int = 0) -> ObjectStream:
        stream = super().open(key, offset=offset)
        if not self.arriving:
            return stream
        with stream:
            return ObjectStream(_Arriving(self.arriving.pop(0)), stream.stored, buffer_size=8)


class _Arriving(io.BytesIO, io.RawIOBase):
    """Bytes in the place of a connection."""


def store_with(tmp_path: Path, content: bytes, *arriving: bytes) -> FlippingStore:
    store = FlippingStore(tmp_path, *arriving)
    store.put(KEY, content, size=len(content))
    return store


@pytest.mark.parametrize("arriving", [(), (b"ou2s",), (b"ou2s", b"our3")])
def test_what_arrives_rightly_once_is_there(tmp_path: Path, arriving: tuple[bytes, ...]) -> None:
    store = store_with(tmp_path, OURS, *arriving)

    found = with_fingerprint(store, KEY, xxhash.xxh3_128_digest(OURS))

    assert found is not None
    assert found == store.stat(KEY)
    assert store.arriving == []


@pytest.mark.parametrize("arriving", [(), (b"t1eirs",)])
def test_another_one_has_to_arrive_twice_in_the_same_way(tmp_path: Path, arriving: tuple[bytes, ...]) -> None:
    store = store_with(tmp_path, THEIRS, *arriving)

    assert with_fingerprint(store, KEY, xxhash.xxh3_128_digest(OURS)) is None
    assert store.arriving == []


def test_what_never_arrives_in_the_same_way_is_no_answer(tmp_path: Path) -> None:
    store = store_with(tmp_path, OURS, b"1urs", b"o2rs", b"ou3s")

    with pytest.raises(TransientError, match="does not arrive as it is stored"):
        with_fingerprint(store, KEY, xxhash.xxh3_128_digest(OURS))


def test_what_is_not_there_is_not_there(tmp_path: Path) -> None:
    store = store_with(tmp_path, OURS)

    assert with_fingerprint(store, "other.db", xxhash.xxh3_128_digest(OURS)) is None
