"""What every store promises (see `chorus_upload.storage.store`), held against every store there is."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from chorus_upload.errors import (
    ChorusError,
    IntegrityError,
    ObjectExists,
    ObjectNotFound,
    PreconditionFailed,
    StorageError,
)
from chorus_upload.storage.s3 import S3Store
from chorus_upload.storage.store import ComputedBy, Origin, Properties, Store, StoredObject
from tests.contract.conftest import Place

MIB = 1 << 20


def put(store: Store, key: str, content: bytes = b"content") -> StoredObject:
    return store.put(key, content, size=len(content))


def read(store: Store, key: str) -> bytes:
    with store.open(key) as stream:
        return stream.read()


def keys(store: Store, prefix: str = "") -> list[str]:
    return sorted(each.key for each in store.scan(prefix))


class Unbuffered(io.RawIOBase):
    """A body made up on the way, as large as one likes, which may object at its end."""

    def __init__(self, size: int, *, objection: Exception | None = None) -> None:
        super().__init__()
        self._left = size
        self._objection = objection
        self.md5 = hashlib.md5(usedforsecurity=False)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        if not self._left:
            if self._objection is not None:
                raise self._objection
            return b""
        count = min(self._left, size, 100_000)
        self._left -= count
        piece = self._left.to_bytes(8, "big") * (count // 8 + 1)
        self.md5.update(piece[:count])
        return piece[:count]


class TestPut:
    def test_what_was_put_is_there(self, store: Store) -> None:
        before = time.time_ns() // 1000 - 2_000_000
        given = put(store, "a/b.csv", b"some bytes")
        assert (given.key, given.size) == ("a/b.csv", 10)
        assert before < given.time_us < before + 60_000_000
        found = store.stat("a/b.csv")
        assert found is not None
        assert (found.key, found.size, found.etag) == (given.key, 10, given.etag)
        # S3 says the time of a put by the date of its response, which may be of the next second.
        assert abs(found.time_us - given.time_us) <= (1_000_000 if isinstance(store, S3Store) else 0)
        assert read(store, "a/b.csv") == b"some bytes"

    def test_a_listing_agrees_with_it(self, store: Store) -> None:
        given = put(store, "a/b.csv", b"some bytes")
        [listed] = store.scan()
        assert (listed.key, listed.size, listed.etag, listed.time_us) == (
            given.key, given.size, given.etag, given.time_us,
        )  # fmt: skip

    def test_nothing_is_a_content_too(self, store: Store) -> None:
        put(store, "empty", b"")
        assert read(store, "empty") == b""
        found = store.stat("empty")
        assert found is not None
        assert found.size == 0

    def test_replaces(self, store: Store) -> None:
        first, second = put(store, "a", b"first"), put(store, "a", b"other")
        assert read(store, "a") == b"other"
        assert first.etag != second.etag

    def test_the_same_content_put_again_has_another_etag(self, store: Store) -> None:
        etags = {put(store, "a", b"same").etag for _ in range(50)}
        assert len(etags) == (1 if store.capabilities.etag_follows_content else 50)

    def test_an_etag_does_not_come_back_after_a_deletion(self, store: Store) -> None:
        etags = set()
        for _ in range(50):
            etags.add(store.put("a", b"same", size=4, create_only=True).etag)
            store.delete("a")
        assert len(etags) == (1 if store.capabilities.etag_follows_content else 50)

    def test_takes_metadata(self, store: Store) -> None:
        store.put("a", b"1", size=1, properties=lambda: Properties({"patient_count": "3"}))
        assert read(store, "a") == b"1"

    def test_a_large_stream(self, store: Store) -> None:
        body = Unbuffered(20 * MIB + 5)
        given = store.put("large", body, size=20 * MIB + 5)  # type: ignore[arg-type]
        assert given.size == 20 * MIB + 5
        found = store.stat("large")
        assert found is not None
        assert (found.size, found.etag) == (given.size, given.etag)
        whole = hashlib.md5(usedforsecurity=False)
        with store.open("large") as stream:
            while piece := stream.read(MIB):
                whole.update(piece)
        assert whole.digest() == body.md5.digest()

    @pytest.mark.parametrize("offset", [0, 1, 6, 7, 8])
    def test_reads_from_an_offset(self, store: Store, offset: int) -> None:
        stored = put(store, "dir/a", b"content")
        with store.open("dir/a", offset=offset) as stream:
            assert stream.read() == b"content"[offset:]
            assert (stream.stored.size, stream.stored.etag) == (7, stored.etag)

    def test_reads_an_empty_object_from_an_offset(self, store: Store) -> None:
        put(store, "a", b"")
        with store.open("a", offset=3) as stream:
            assert stream.read() == b""

    def test_the_checksums_that_it_claims_to_give(self, store: Store) -> None:
        small = put(store, "small", b"content")
        size = 9 * MIB
        large = store.put("large", Unbuffered(size), size=size)  # type: ignore[arg-type]
        if store.capabilities.service_checksum:
            assert small.checksum is not None
            assert small.checksum.computed_by is ComputedBy.SERVICE
            assert small.checksum.md5 == hashlib.md5(b"content", usedforsecurity=False).digest()
        if store.capabilities.transit_checksum:
            assert large.transit_checked
        of_others = ComputedBy.SERVICE if store.capabilities.own_checksums else ComputedBy.UNKNOWN
        assert large.checksum is None or large.checksum.computed_by is of_others
        for each in store.scan():
            assert each.checksum is None or each.checksum.computed_by is of_others
            assert not each.transit_checked

    def test_a_stream_is_read_from_where_it_stands(self, store: Store) -> None:
        stream = io.BytesIO(b"header|body")
        stream.seek(7)
        store.put("a", stream, size=4)
        assert read(store, "a") == b"body"

    @pytest.mark.parametrize("actual", [0, 3, 5, 9 * MIB - 1, 9 * MIB + 1])
    @pytest.mark.parametrize("promised", [4, 9 * MIB])
    def test_a_body_of_another_size_is_not_stored(self, store: Store, promised: int, actual: int) -> None:
        put(store, "a", b"before")
        with pytest.raises(IntegrityError):
            store.put("a", io.BytesIO(bytes(actual)), size=promised)
        assert read(store, "a") == b"before"

    def test_bytes_of_another_size_are_not_stored(self, store: Store) -> None:
        with pytest.raises(IntegrityError):
            store.put("a", b"12345", size=4)
        assert store.stat("a") is None

    @pytest.mark.parametrize("size", [0, 10, 20 * MIB])
    def test_a_reader_can_veto(self, store: Store, size: int) -> None:
        class Changed(Exception):
            pass

        objection = Changed("the file changed while it was read")
        put(store, "dir/a", b"before")
        for key in ("dir/a", "other/b"):
            with pytest.raises(Changed) as caught:
                store.put(key, Unbuffered(size, objection=objection), size=size)  # type: ignore[arg-type]
            assert caught.value is objection
        assert read(store, "dir/a") == b"before"
        assert keys(store) == ["dir/a"]

    def test_a_reader_that_fails_is_not_the_store_failing(self, store: Store) -> None:
        broken = OSError(5, "Input/output error")
        with pytest.raises(OSError, match="Input/output error") as caught:
            store.put("a", Unbuffered(10, objection=broken), size=10)  # type: ignore[arg-type]
        assert caught.value is broken


class TestConditions:
    def test_create_only(self, store: Store) -> None:
        store.put("a", b"first", size=5, create_only=True)
        with pytest.raises(ObjectExists):
            store.put("a", b"other", size=5, create_only=True)
        assert read(store, "a") == b"first"

    def test_create_only_of_a_large_object(self, store: Store) -> None:
        put(store, "a", b"first")
        with pytest.raises(ObjectExists):
            store.put("a", io.BytesIO(bytes(9 * MIB)), size=9 * MIB, create_only=True)
        assert read(store, "a") == b"first"
        store.put("b", io.BytesIO(bytes(9 * MIB)), size=9 * MIB, create_only=True)

    def test_if_match(self, store: Store) -> None:
        first = put(store, "a", b"first")
        second = store.put("a", b"second", size=6, if_match=first.etag)
        with pytest.raises(PreconditionFailed):
            store.put("a", b"third", size=5, if_match=first.etag)
        assert read(store, "a") == b"second"
        store.put("a", io.BytesIO(bytes(9 * MIB)), size=9 * MIB, if_match=second.etag)
        with pytest.raises(PreconditionFailed):
            store.put("a", io.BytesIO(bytes(9 * MIB)), size=9 * MIB, if_match=second.etag)

    def test_if_match_takes_the_etag_of_a_listing(self, store: Store) -> None:
        put(store, "a", b"first")
        [listed] = store.scan()
        store.put("a", b"second", size=6, if_match=listed.etag)
        assert read(store, "a") == b"second"

    def test_if_match_of_what_is_gone(self, store: Store) -> None:
        with pytest.raises(PreconditionFailed):
            store.put("dir/a", b"1", size=1, if_match=put(store, "other").etag)
        assert store.stat("dir/a") is None

    @pytest.mark.parametrize("size", [4, 9 * MIB])
    def test_of_many_creators_one_wins(self, place: Place, size: int) -> None:
        def create(store: Store, name: int) -> bool:
            try:
                store.put("lock", bytes([name]) * size, size=size, create_only=True)
            except ObjectExists:
                return False
            return True

        won, store = race(place, create, runners=8)
        with store:
            assert len(won) == 1
            assert read(store, "lock") == bytes(won) * size

    def test_of_many_replacers_one_wins(self, place: Place) -> None:
        with place.open() as store:
            before = put(store, "journal", b"before").etag

        def replace(store: Store, name: int) -> bool:
            try:
                store.put("journal", bytes([name]), size=1, if_match=before)
            except PreconditionFailed:
                return False
            return True

        won, store = race(place, replace, runners=8)
        with store:
            assert len(won) == 1
            assert read(store, "journal") == bytes(won)

    def test_a_replacer_and_a_deleter_do_not_both_win(self, place: Place) -> None:
        for _ in range(5):
            with place.open() as store:
                before = put(store, "journal", b"before").etag

            def act(store: Store, name: int, etag: str = before) -> bool:
                try:
                    if name % 2:
                        store.delete("journal", if_match=etag)
                    else:
                        store.put("journal", b"after", size=5, if_match=etag)
                except PreconditionFailed:
                    return False
                return True

            won, store = race(place, act, runners=4)
            with store:
                assert len(won) == 1
                assert (store.stat("journal") is None) == (won[0] % 2 == 1)


def race(place: Place, run: Callable[[Store, int], bool], *, runners: int) -> tuple[list[int], Store]:
    """Who of the runners won, each with a store of its own and all starting at once; and one more store."""
    start = threading.Barrier(runners)

    def runner(name: int) -> bool:
        with place.open() as store:
            start.wait()
            return run(store, name)

    with ThreadPoolExecutor(runners) as pool:
        results = list(pool.map(runner, range(runners)))
    return [name for name, won in enumerate(results) if won], place.open()


class TestStatAndOpen:
    def test_the_absent(self, store: Store) -> None:
        put(store, "dir/a")
        for key in ("b", "dir", "dir/b", "dir/a/b"):
            assert store.stat(key) is None
        for key in ("b", "dir/b"):
            with pytest.raises(ObjectNotFound):
                store.open(key)

    def test_a_missing_place_is_not_an_absent_object(self, place: Place) -> None:
        with place.open_missing() as store:
            for act in (
                lambda: store.stat("a"),
                lambda: store.open("a"),
                lambda: put(store, "a"),
                lambda: store.delete("a"),
                lambda: list(store.scan()),
                lambda: list(store.scan("some/prefix")),
            ):
                with pytest.raises(ObjectNotFound) as caught:
                    act()
                assert caught.value.hint

    def test_reading_in_pieces(self, store: Store) -> None:
        content = bytes(range(256)) * 1000
        put(store, "a", content)
        with store.open("a") as stream:
            assert stream.readable()
            assert stream.read(10) == content[:10]
            assert stream.read(100_000) == content[10:100_010]
            assert stream.read() == content[100_010:]
            assert stream.read(1) == b""

    def test_an_object_that_is_replaced_while_it_is_read_is_not_mixed_up(self, store: Store) -> None:
        old, new = b"o" * (20 * MIB), b"n" * (20 * MIB)
        put(store, "a", old)
        with store.open("a") as stream:
            got = stream.read(1)
            put(store, "a", new)
            try:
                got += stream.read()
            except PreconditionFailed:
                return
        assert got == old


class TestDelete:
    def test_is_idempotent(self, store: Store) -> None:
        put(store, "dir/a")
        store.delete("dir/a")
        assert store.stat("dir/a") is None
        store.delete("dir/a")
        store.delete("never/was")

    def test_if_match(self, store: Store) -> None:
        first = put(store, "a")
        second = put(store, "a", b"other")
        with pytest.raises(PreconditionFailed):
            store.delete("a", if_match=first.etag)
        store.delete("a", if_match=second.etag)
        assert store.stat("a") is None
        with pytest.raises(PreconditionFailed):
            store.delete("a", if_match=second.etag)
        with pytest.raises(PreconditionFailed):
            store.delete("never/was", if_match=second.etag)

    def test_leaves_the_neighbours(self, store: Store) -> None:
        put(store, "dir/a")
        put(store, "dir/ab")
        store.delete("dir/a")
        assert keys(store) == ["dir/ab"]


@pytest.mark.parametrize("place", ["local"], indirect=True)
def test_a_directory_copies_nothing_by_itself(store: Store) -> None:
    put(store, "a")
    assert store.origin("a") is None
    assert store.copy("b", Origin("another", "a", "etag", 7, 0, bytes(16))) is None
    assert keys(store) == ["a"]


@pytest.mark.parametrize("place", ["azure", "s3"], indirect=True)
class TestCopy:
    """What a service does by itself."""

    @pytest.fixture
    def origin(self, store: Store) -> Origin:
        put(store, "dir/a b", b"content")
        origin = store.origin("dir/a b")
        assert origin is not None
        return origin

    def test_it_is_copied_and_proven(self, store: Store, origin: Origin) -> None:
        copied = store.copy("b/ä", origin, create_only=True, properties=lambda: Properties(md5=origin.md5))
        assert copied is not None
        assert read(store, "b/ä") == b"content"
        assert copied.transit_checked or (copied.checksum and copied.checksum.computed_by is ComputedBy.SERVICE)
        found = store.stat("b/ä")
        assert found is not None
        assert (found.size, found.etag) == (copied.size, copied.etag)

    def test_conditions(self, store: Store, origin: Origin) -> None:
        there = put(store, "b", b"other")
        with pytest.raises(ObjectExists):
            store.copy("b", origin, create_only=True)
        assert read(store, "b") == b"other"
        with pytest.raises(PreconditionFailed):
            store.copy("b", origin, if_match=origin.etag)
        assert read(store, "b") == b"other"
        assert store.copy("b", origin, if_match=there.etag) is not None
        assert read(store, "b") == b"content"

    def test_what_cannot_be_proven_is_not_copied(self, store: Store, origin: Origin) -> None:
        lie = dataclasses.replace(origin, md5=bytes(16))
        put(store, "dir/a b", b"changed since")
        for each in (lie, origin, dataclasses.replace(origin, service="another")):
            assert store.copy("b", each, create_only=True) is None
        assert store.stat("b") is None

    def test_of_the_absent_there_is_none(self, store: Store) -> None:
        assert store.origin("absent") is None


class TestBrowse:
    def test_what_is_directly_below(self, store: Store) -> None:
        for key in ("a", "ab/c", "ab/d/e", "ab/d/f", "abc/d/e", "ab.txt"):
            put(store, key)

        def browsed(directory: str = "") -> set[str]:
            return {each if isinstance(each, str) else each.key for each in store.browse(directory)}

        assert browsed() == {"a", "ab.txt", "ab/", "abc/"}
        assert browsed("ab") == {"ab/c", "ab/d/"}
        assert browsed("ab/d") == {"ab/d/e", "ab/d/f"}
        assert browsed("a") == browsed("nothing/here") == set()
        (found,) = [each for each in store.browse("ab") if not isinstance(each, str)]
        assert found == store.stat("ab/c")

    def test_more_than_a_page(self, store: Store) -> None:
        number = 30 if store.capabilities.service_checksum else 3
        for each in range(number):
            put(store, f"dir{each:03}/a", b"")
            put(store, f"file{each:03}", b"")
        assert len(list(store.browse())) == 2 * number

    def test_a_missing_place(self, place: Place) -> None:
        with place.open_missing() as store, pytest.raises(ObjectNotFound):
            list(store.browse())


class TestScan:
    def test_an_empty_store(self, store: Store) -> None:
        assert keys(store) == []
        assert keys(store, "dir/") == []

    def test_prefixes_are_of_text_and_not_of_directories(self, store: Store) -> None:
        for key in ("a", "a/b", "ab/c", "ab/cd/e", "b/a"):
            put_where_possible(store, key)
        assert keys(store, "ab") == ["ab/c", "ab/cd/e"]
        assert keys(store, "ab/c") == ["ab/c", "ab/cd/e"]
        assert keys(store, "ab/") == ["ab/c", "ab/cd/e"]
        assert keys(store, "ab/cd/") == ["ab/cd/e"]
        assert keys(store, "b") == ["b/a"]
        assert keys(store, "nothing") == keys(store, "ab/nothing/at/all") == []

    def test_its_address_ends_without_a_slash(self, store: Store) -> None:
        put(store, "a")
        assert store.url.rstrip("/") == store.url
        assert keys(store) == ["a"]

    def test_many_pages(self, store: Store) -> None:
        names = {f"v1/{number % 7}/{number:03d}" for number in range(350)}
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: put(store, key, b""), names))
        found = [each.key for each in store.scan()]
        assert len(found) == len(names)
        assert set(found) == names
        assert len(keys(store, "v1/3/")) == len({name for name in names if name.startswith("v1/3/")})


def put_where_possible(store: Store, key: str) -> None:
    """A file system cannot have `a` and `a/b`; a store that is one says so clearly."""
    try:
        put(store, key)
    except StorageError as error:
        assert type(error) is StorageError
        assert "a file" in f"{error.message} {error.hint}"


class TestNames:
    @pytest.mark.parametrize(
        "key",
        [
            "with space/and 'quotes' \".csv",
            "ünïcode/é and e\N{COMBINING ACUTE ACCENT}/日本語/\N{GRINNING FACE}",
            "100%/a%20b/%2F%2e%2e",
            "#hash?question&amp;<tag>;semi=x,comma",
            "p+lus/~tilde/$(dollar)/`tick`/!bang/[x]/{y}/^",
            "-dash/--long",
            ".hidden/..double/...",
            "trailing./dot.",
            " leading and trailing ",
            "x" * 200 + "/" + "y" * 200,
            "d/" * 100 + "deep",
            "CON/nul.txt/a:b|c*",
        ],
    )
    def test_hostile_ones_are_kept_as_they_are(self, store: Store, key: str) -> None:
        given = put(store, key, key.encode())
        assert given.key == key
        found = store.stat(key)
        assert found is not None
        assert found.key == key
        assert read(store, key) == key.encode()
        assert keys(store) == [key]
        assert keys(store, key[: len(key) // 2]) == [key]
        store.delete(key)
        assert keys(store) == []

    def test_names_that_only_look_alike_are_different(self, store: Store) -> None:
        alike = ["A", "a", "é", "e\N{COMBINING ACUTE ACCENT}", "%61"]
        for key in alike:
            put(store, key, key.encode())
        assert keys(store) == sorted(alike)
        assert [read(store, key) for key in alike] == [key.encode() for key in alike]

    @pytest.mark.parametrize("key", ["line\nbreak", "tab\t", "\x01", "\x7f", "back\\slash", "\ufffe", "x" * 1100])
    def test_others_are_kept_or_refused_but_never_bent(self, store: Store, key: str) -> None:
        try:
            put(store, key, b"1")
        except StorageError as error:
            assert type(error) is StorageError
            assert keys(store) == []
        else:
            assert keys(store) == [key]
            assert read(store, key) == b"1"

    @pytest.mark.parametrize(
        "key", ["", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", "a/..", "nul\0", "\udcff", "./a"]
    )
    def test_what_is_no_key_is_refused_everywhere(self, store: Store, key: str) -> None:
        for act in (
            lambda: put(store, key),
            lambda: store.stat(key),
            lambda: store.open(key),
            lambda: store.delete(key),
        ):
            with pytest.raises(StorageError):
                act()
        assert keys(store) == []


class TestThreads:
    def test_one_store_serves_many(self, store: Store) -> None:
        def work(number: int) -> bytes:
            content = bytes([number]) * 1000
            put(store, f"dir{number % 3}/{number}", content)
            assert read(store, f"dir{number % 3}/{number}") == content
            store.delete(f"dir{number % 3}/{number}")
            return content

        with ThreadPoolExecutor(16) as pool:
            assert len(set(pool.map(work, range(64)))) == 64
        assert keys(store) == []


def test_errors_are_ours_and_say_what_was_done(store: Store) -> None:
    with pytest.raises(ChorusError, match=r"dir/missing\.csv"):
        store.open("dir/missing.csv")
