"""Archives as sources: what is in them, what must not be, and what reading them takes."""

from __future__ import annotations

import io
import struct
import sys
import tarfile
import threading
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chorus_upload.errors import ConfigError, DeletionRefused, ObjectNotFound, StorageError
from chorus_upload.model import ProblemKind
from chorus_upload.storage.outer import LocalOuter, OpenedFile, RangeStream
from chorus_upload.storage.source import Directory, FileReplaced, FileStat, Source
from chorus_upload.storage.tar_source import TarSource
from chorus_upload.storage.zip_source import ZipSource
from tests.archives import COMPRESSIONS, SPRING, Content, Member, compressed, members_of, put, tar, zipped
from tests.randomness import examples
from tests.trees import Bytes, bytes_of

TREE: dict[str, Content] = {
    "top.csv": "1",
    "1001/Images/a b/scan äö.dcm": Bytes(5_000),
    "1001/Images/empty.dcm": "",
    "1002/Images/large.dcm": Bytes(600_001),
    "1001/Images/late.dcm": Bytes(10),
}
SPRING_US = SPRING * 1_000_000

Make = Callable[[Path], Source]


def opened(path: Path, inner: str = "") -> Source:
    return (ZipSource if path.suffix == ".zip" else TarSource)(LocalOuter(path), inner)


def walked(source: Source) -> dict[str, tuple[int, int]]:
    found = {}
    for directory in source.walk():
        for name, size, mtime_us in directory.entries:
            path = f"{directory.path}/{name}" if directory.path else name
            assert path not in found
            found[path] = (size, mtime_us)
    return found


def problems(source: Source) -> list[tuple[ProblemKind, str]]:
    return [(each.kind, each.path) for directory in source.walk() for each in directory.problems]


def content(source: Source, path: str) -> bytes:
    with source.open(path) as stream:
        pieces = []
        while piece := stream.read(100_000):
            pieces.append(piece)
        return b"".join(pieces)


@pytest.fixture(params=[*COMPRESSIONS, "zip", "stored.zip"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The tree as an archive of every kind."""
    kind: str = request.param
    members = members_of(TREE)
    if kind.endswith("zip"):
        method = zipfile.ZIP_STORED if kind == "stored.zip" else zipfile.ZIP_DEFLATED
        return put(tmp_path / "a.zip", zipped(members, method=method))
    return put(tmp_path / "a.tar", tar(members, compression=kind))


def test_the_members_are_the_files(archive: Path) -> None:
    expected = {path: bytes_of(path, body) for path, body in TREE.items()}
    with opened(archive) as source:
        assert walked(source) == {path: (len(body), SPRING_US) for path, body in expected.items()}
        for path, body in expected.items():
            assert content(source, path) == body
            assert source.read_small(path, size=len(body)) == (body, FileStat(len(body), SPRING_US))
            assert source.stat(path) == (len(body), SPRING_US)
        # In another order, and from the middle of one.
        with source.open("1002/Images/large.dcm") as stream:
            assert stream.read(10) == expected["1002/Images/large.dcm"][:10]
            assert content(source, "1001/Images/late.dcm") == expected["1001/Images/late.dcm"]
            assert source.open_stat(stream) == (600_001, SPRING_US)
        for path in reversed(TREE):
            assert content(source, path) == expected[path]
        assert source.stat("absent") is None
        with pytest.raises(FileNotFoundError):
            source.open("absent")
        # One byte more is read, so that growth would show.
        assert source.read_small("1001/Images/late.dcm", size=5).data == expected["1001/Images/late.dcm"][:6]


def test_a_directory_of_an_archive(archive: Path) -> None:
    with opened(archive, "1001/Images") as source:
        assert walked(source).keys() == {"a b/scan äö.dcm", "empty.dcm", "late.dcm"}
        assert content(source, "late.dcm") == bytes_of("1001/Images/late.dcm", Bytes(10))
        assert source.stat("large.dcm") is None
    with opened(archive, "nowhere") as source, pytest.raises(DeletionRefused, match="below nowhere"):
        list(source.walk())
    # The beginning of a name is no directory.
    with opened(archive, "1001/Image") as source, pytest.raises(DeletionRefused):
        list(source.walk())


def test_what_is_unpacked_for_the_listing_is_hashed(tmp_path: Path) -> None:
    import hashlib

    expected = {path: hashlib.md5(bytes_of(path, body)).digest() for path, body in TREE.items()}  # noqa: S324
    for compression in COMPRESSIONS:
        with opened(put(tmp_path / "a.tar", tar(members_of(TREE), compression=compression))) as source:
            claims = {
                f"{each.path}/{name}".lstrip("/"): md5 for each in source.walk() for name, md5 in each.claims.items()
            }
        assert claims == (expected if compression else {})


def test_the_order_of_the_walk_is_that_of_the_archive(tmp_path: Path) -> None:
    names = ["b/1", "a/2", "b/3", "c", "a/4"]
    with opened(put(tmp_path / "a.tar", tar(Member(name) for name in names))) as source:
        assert list(walked(source)) == names


def test_an_archive_without_files(tmp_path: Path) -> None:
    for path, data in ((tmp_path / "a.tar", tar([])), (tmp_path / "a.zip", zipped([]))):
        with opened(put(path, data)) as source:
            assert walked(source) == {}


def test_an_archive_that_is_not_there(tmp_path: Path) -> None:
    for name in ("a.tar", "a.zip"):
        with opened(tmp_path / name) as source:
            with pytest.raises(DeletionRefused, match="no such archive"):
                list(source.walk())
            with pytest.raises(FileNotFoundError):
                source.open("a")


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_names_that_lead_elsewhere(tmp_path: Path, kind: str) -> None:
    names = ["../evil", "/etc/evil", "a/../../evil", "a//evil", "win\\evil", "C:\\evil", "a/./evil", "."]
    members = [*(Member(name, b"evil") for name in names), Member("./fine", b"1"), Member("a/dir/", b"")]
    members[-1:] = [Member("a/dir", type=tarfile.DIRTYPE)] if kind == "tar" else members[-1:]
    data = tar(members) if kind == "tar" else zipped(members)
    with opened(put(tmp_path / f"a.{kind}", data)) as source:
        assert walked(source).keys() == {"fine"}
        assert {path for found, path in problems(source) if found is ProblemKind.INVALID_NAME} == set(names)
        for name in names:
            with pytest.raises(OSError):
                content(source, name)
    assert not (tmp_path.parent / "evil").exists()


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    data = tar([Member("x" * 8, b"1"), Member("fine", b"1")]).replace(b"x" * 8, b"caf\xe9 x.x")
    # The checksum of the header has to be right again.
    header = bytearray(data[:512])
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    with opened(put(tmp_path / "a.tar", bytes(header) + data[512:])) as source:
        assert walked(source).keys() == {"fine"}
        assert problems(source) == [(ProblemKind.INVALID_NAME, "caf\\udce9 x.x")]


def test_what_is_no_file_in_a_tar(tmp_path: Path) -> None:
    odd = {
        "link": Member("link", type=tarfile.SYMTYPE, link="/etc/passwd"),
        "hard": Member("hard", type=tarfile.LNKTYPE, link="fine"),
        "pipe": Member("pipe", type=tarfile.FIFOTYPE),
        "device": Member("device", type=tarfile.CHRTYPE),
        "block": Member("block", type=tarfile.BLKTYPE),
    }
    with opened(put(tmp_path / "a.tar", tar([Member("fine", b"1"), *odd.values()]))) as source:
        assert walked(source).keys() == {"fine"}
        assert sorted(problems(source)) == [(ProblemKind.NOT_A_FILE, name) for name in sorted(odd)]
        for name in odd:
            with pytest.raises(FileNotFoundError):
                source.open(name)


def test_what_cannot_be_read_in_a_zip(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(link, "/etc/passwd")
        for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
            archive.writestr(f"method-{method}", b"1" * 100, compress_type=method)
        archive.writestr("secret", b"1")
    data = bytearray(buffer.getvalue())
    at = data.rindex(b"PK\x01\x02", 0, data.rindex(b"secret"))
    data[at + 8] |= 1
    with opened(put(tmp_path / "a.zip", bytes(data))) as source:
        assert walked(source) == {}
        assert sorted(problems(source)) == [
            (ProblemKind.NOT_A_FILE, "link"),
            (ProblemKind.UNREADABLE_FILE, "method-12"),
            (ProblemKind.UNREADABLE_FILE, "method-14"),
            (ProblemKind.UNREADABLE_FILE, "secret"),
        ]
        for name in ("link", "method-12", "secret"):
            assert source.stat(name) is None
            with pytest.raises(OSError, match=r"link|compressed|encrypted"):
                source.open(name)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_is_there_twice(tmp_path: Path) -> None:
    members = [Member("a", b"first"), Member("b", b"1"), Member("a", b"second one")]
    for path, data, expected in (
        (tmp_path / "a.tar", tar(members), b"first"),
        (tmp_path / "a.zip", zipped(members), b"second one"),
    ):
        with opened(put(path, data)) as source:
            assert walked(source)["a"][0] == len(expected)
            assert problems(source) == [(ProblemKind.INVALID_NAME, "a")]
            assert content(source, "a") == expected


def test_times(tmp_path: Path) -> None:
    times = {"whole": 1.0, "parts": 1_700_000_000.25, "before": -5.5, "none": 0.0}
    with opened(put(tmp_path / "a.tar", tar(Member(name, mtime=time) for name, time in times.items()))) as source:
        assert {name: time for name, (_, time) in walked(source).items()} == {
            name: int(time * 1_000_000) for name, time in times.items()
        }
    extras = {
        "unix": struct.pack("<HHBi", 0x5455, 5, 1, 1_700_000_000),
        "ntfs": struct.pack("<HHIHHQQQ", 0x000A, 32, 0, 1, 24, (1_700_000_000 + 11_644_473_600) * 10_000_000 + 5, 0, 0),
        "dos": b"",
        "cut": b"\x55\x54\x05",
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, extra in extras.items():
            info = zipfile.ZipInfo(name, (2023, 11, 14, 22, 13, 20))
            info.extra = extra
            archive.writestr(info, b"1")
        archive.writestr(zipfile.ZipInfo("never", (1980, 0, 0, 0, 0, 0)), b"1")
    with opened(put(tmp_path / "a.zip", buffer.getvalue())) as source:
        found = {name: time for name, (_, time) in walked(source).items()}
    assert found == {**dict.fromkeys(extras, 1_700_000_000_000_000), "never": 0}


def test_an_archive_that_ends_too_early(archive: Path) -> None:
    """Wherever it is cut off: it never passes for a whole one."""
    data = archive.read_bytes()
    is_plain = data[257:262] == b"ustar"
    # The library fills plain archives up with zeros; they end with the first 512 of those.
    length = len(data.rstrip(b"\0")) // 512 * 512 + 512 if is_plain else len(data)
    for cut in {0, 1, 511, 512, 1_000, length // 2, length - 20, length - 1}:
        put(archive, data[: min(cut, length)])
        with opened(archive) as source, pytest.raises(StorageError, match=r"damaged|not complete"):
            list(source.walk())


def test_a_tar_that_is_cut_off_between_two_members(tmp_path: Path) -> None:
    data = tar([Member("a", b"1" * 512), Member("b", b"2" * 512)])
    for compression in COMPRESSIONS:
        with opened(put(tmp_path / "a.tar", compressed(data[:1024], compression))) as source:
            with pytest.raises(StorageError, match="not complete"):
                list(source.walk())
            # What is before that can be read; what is behind is looked for once.
            assert content(source, "a") == b"1" * 512
            for _ in range(3):
                with pytest.raises(OSError, match="not complete"):
                    source.open("b")


def test_damage_inside(tmp_path: Path) -> None:
    body = bytes_of("x", Bytes(300_000))
    for compression in ("gz", "bz2", "xz", "zst"):
        data = bytearray(tar([Member("a", body)], compression=compression))
        data[len(data) // 2] ^= 0xFF
        # Their checksums stand behind all of it: what is looked at when it is listed.
        with opened(put(tmp_path / "a.tar", bytes(data))) as source, pytest.raises(StorageError):
            list(source.walk())
    data = bytearray(zipped([Member("a", body), Member("b", b"fine")], method=zipfile.ZIP_STORED))
    data[1000] ^= 0xFF
    with opened(put(tmp_path / "a.zip", bytes(data))) as source:
        assert walked(source).keys() == {"a", "b"}
        with pytest.raises(OSError, match="CRC"):
            content(source, "a")
        with pytest.raises(OSError, match="CRC"):
            source.read_small("a", size=len(body))
        assert content(source, "b") == b"fine"


def test_sizes_that_lie(tmp_path: Path) -> None:
    """Never more than is declared, and never more memory for it."""
    data = bytearray(zipped([Member("bomb", bytes(50_000_000))]))
    for at in (22, data.rindex(b"PK\x01\x02") + 24):
        data[at : at + 4] = struct.pack("<I", 1_000)
    with opened(put(tmp_path / "a.zip", bytes(data))) as source:
        tracemalloc.start()
        assert walked(source)["bomb"][0] == 1_000
        with pytest.raises(OSError, match="CRC"):
            source.read_small("bomb", size=1_000)
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
        tracemalloc.stop()


@pytest.mark.parametrize(
    "compression",
    ["gz", "zst", pytest.param("bz2", marks=pytest.mark.thorough), pytest.param("xz", marks=pytest.mark.thorough)],
)
def test_memory_stays_bounded_however_much_is_packed(tmp_path: Path, compression: str) -> None:
    path = put(tmp_path / "a.tar", tar([Member("zeros", bytes(40_000_000))], compression=compression))
    with opened(path) as source:
        tracemalloc.start()
        assert walked(source)["zeros"][0] == 40_000_000
        assert tracemalloc.get_traced_memory()[1] < 16_000_000
        tracemalloc.stop()


def test_zstandard_without_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path / "a.tar", tar([Member("a")], compression="zst"))
    monkeypatch.setitem(sys.modules, "compression", None)
    monkeypatch.setitem(sys.modules, "backports", None)
    with opened(path) as source, pytest.raises(ConfigError, match="not installed") as caught:
        list(source.walk())
    assert "chorus-upload[zst]" in (caught.value.hint or "")


def test_a_header_of_enormous_size_is_not_read_into_memory(tmp_path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 1 << 40
    path = put(tmp_path / "a.tar", header.tobuf(tarfile.GNU_FORMAT) + bytes(100_000))
    with opened(path) as source, pytest.raises(StorageError, match="header of"):
        list(source.walk())


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_garbage_gets_through(tmp_path: Path, data: st.DataObject) -> None:
    """Whatever is turned round in an archive: our own errors, and nothing else."""
    kind = data.draw(st.sampled_from(["tar", "zip"]))
    whole = bytearray((tar if kind == "tar" else zipped)(members_of({"a/b": "1", "c": Bytes(600)})))
    for at in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=4)):
        whole[at] = data.draw(st.integers(0, 255))
    with opened(put(tmp_path / f"a.{kind}", bytes(whole))) as source:
        try:
            found = walked(source)
        except (StorageError, DeletionRefused):
            return
        for path in found:
            try:
                content(source, path)
            except OSError:
                continue


@pytest.mark.parametrize("compression", ["", "gz"])
def test_many_threads_in_any_order(tmp_path: Path, compression: str) -> None:
    tree: dict[str, Content] = {f"{number % 7}/{number}": Bytes(number * 37 % 5_000) for number in range(60)}
    for path in (
        put(tmp_path / "a.tar", tar(members_of(tree), compression=compression)),
        put(tmp_path / "a.zip", zipped(members_of(tree))),
    ):
        with opened(path) as source, ThreadPoolExecutor(8) as pool:
            for order in (list(tree), sorted(tree), list(tree)[::-1]):
                for name, body in zip(order, pool.map(lambda each: content(source, each), order), strict=True):
                    assert body == bytes_of(name, tree[name])


def test_a_stream_that_is_never_closed_keeps_nobody(tmp_path: Path) -> None:
    with opened(put(tmp_path / "a.tar", tar(members_of(TREE), compression="gz"))) as source:
        first = source.open("1002/Images/large.dcm")
        done = threading.Event()

        def read() -> None:
            assert content(source, "1001/Images/late.dcm") == bytes_of("1001/Images/late.dcm", Bytes(10))
            done.set()

        thread = threading.Thread(target=read)
        thread.start()
        assert done.wait(20)
        thread.join()
        first.close()


def test_what_is_read_in_order_is_read_once(tmp_path: Path) -> None:
    """However small the pieces: a pass for the listing, and one for all of the files."""
    path = put(tmp_path / "a.tar", tar(members_of({f"{n}": Bytes(1_000) for n in range(200)}), compression="gz"))
    counting = _Counting(LocalOuter(path))
    with TarSource(counting, "") as source:
        names = list(walked(source))
        assert counting.streams == 1
        for name in names[::3]:
            content(source, name)
        assert counting.streams == 2
        content(source, names[0])
        assert counting.streams == 3


class _Counting:
    """Counts how often an archive is begun."""

    def __init__(self, outer: LocalOuter) -> None:
        self._outer = outer
        self.url = outer.url
        self.is_remote = False
        self.streams = 0

    def open(self) -> OpenedFile:
        return _CountingFile(self, self._outer.open())

    def close(self) -> None:
        self._outer.close()


class _CountingFile:
    def __init__(self, counting: _Counting, file: OpenedFile) -> None:
        self._counting = counting
        self._file = file
        self.size = file.size
        self.require_same = file.require_same
        self.close = file.close

    def stream(self, *, start: int = 0, end: int | None = None) -> BinaryIO:
        self._counting.streams += 1
        return self._file.stream(start=start, end=end)


def test_an_archive_that_is_replaced(archive: Path) -> None:
    with opened(archive) as source:
        content(source, "top.csv")
        data = archive.read_bytes()
        put(archive, data)  # the same bytes, and another file all the same
        with pytest.raises(FileReplaced):
            content(source, "1002/Images/large.dcm")
        with pytest.raises(FileReplaced):
            source.read_small("top.csv", size=1)
    with opened(archive) as source, source.open("1002/Images/large.dcm") as stream:
        stream.read(10)
        put(archive, data)
        with pytest.raises(FileReplaced):
            source.stat("1002/Images/large.dcm")


def test_an_archive_that_is_replaced_while_it_is_listed(tmp_path: Path) -> None:
    path = put(tmp_path / "a.tar", tar(members_of({f"{n}/x": Bytes(200_000) for n in range(20)}), compression="gz"))
    with opened(path) as source:
        walk: Iterator[Directory] = source.walk()
        next(walk)
        put(path, path.read_bytes())
        with pytest.raises(StorageError, match="replaced"):
            list(walk)


@given(st.integers(0, 500_000), st.lists(st.tuples(st.integers(0, 500_000), st.integers(1, 200_000)), max_size=6))
@settings(max_examples=examples(50), deadline=None)
def test_ranges(size: int, reads: list[tuple[int, int]]) -> None:
    whole = bytes_of("x", Bytes(size))
    stream = RangeStream(lambda offset, length: whole[offset : offset + length], size)
    for offset, length in reads:
        stream.seek(offset)
        expected = whole[offset : offset + length]
        assert _all(stream, length) == expected


def _all(stream: RangeStream, length: int) -> bytes:
    data = b""
    while len(data) < length and (piece := stream.read(length - len(data))):
        data += piece
    return data


def test_errors_of_a_remote_archive() -> None:
    class Nowhere:
        url = "az://nowhere/a.tar"
        is_remote = True

        def open(self) -> OpenedFile:
            raise ObjectNotFound("no such container")

        def close(self) -> None: ...

    for kind in (TarSource, ZipSource):
        with kind(Nowhere(), "") as source, pytest.raises(ObjectNotFound):
            list(source.walk())
