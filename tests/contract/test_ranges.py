"""What a store promises that gives any part of an object (see `RangedStore`)."""

from __future__ import annotations

import pytest

from chorus_upload.errors import ObjectNotFound, PreconditionFailed
from chorus_upload.storage.store import RangedStore, Store

pytestmark = pytest.mark.parametrize("place", ["azure", "s3", "gs"], indirect=True)

BODY = bytes(range(256)) * 40_000


def test_any_part_of_an_object(store: Store) -> None:
    assert isinstance(store, RangedStore)
    etag = store.put("a/b", BODY, size=len(BODY)).etag
    for offset, length in [(0, 1), (0, len(BODY)), (5, 100), (len(BODY) - 1, 1), (9_000_000, 500_000)]:
        assert store.read_range("a/b", offset=offset, length=length, etag=etag) == BODY[offset : offset + length]


def test_of_that_object_and_no_other(store: Store) -> None:
    assert isinstance(store, RangedStore)
    etag = store.put("a/b", b"first", size=5).etag
    store.put("a/b", b"other", size=5)
    for offset in (0, 2):
        with pytest.raises(PreconditionFailed):
            store.read_range("a/b", offset=offset, length=2, etag=etag)
    store.delete("a/b")
    # Which of the two comes first, services see differently.
    with pytest.raises((ObjectNotFound, PreconditionFailed)):
        store.read_range("a/b", offset=0, length=2, etag=etag)
