"""Archives and web sites that somebody made to hurt: memory stays flat, and nothing ends but in words.

An archive is read as far as it says that its members go. So time follows from the sizes that it declares, and memory
from nothing at all.
"""

from __future__ import annotations

import dataclasses
import gzip
import io
import random
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.archives import COMPRESSIONS, Member, compressed, put, tar, zipped
from tests.e2e.clouds import files_of
from tests.e2e.conftest import new_disk, settle
from tests.e2e.site import Site
from tests.faults.figures import Figures
from tests.faults.hostile import cases, surroundings, times, typed
from tests.sites import WebSite, web_site
from tests.trees import build

MIB = 1 << 20
MOST_MIB = 64
"""What reading an archive, and sending what is in it, may take more than reading an empty one."""
PATTERN = "{filepath}"


def _site(root: Path, place: str) -> Site:
    """A site whose Images are in an archive, or on a web site; it is sent to a disk."""
    build(root / "about", {"Metadata/README.md": "about"})
    more = f'[site_path.Images]\npath = "{place}"\npattern = "{PATTERN}"\n'
    configuration = 'supported_modalities = "Images"'
    return settle(
        root / "home",
        root / "about",
        new_disk(root / "cloud"),
        patience=0,
        threads=2,
        configuration=configuration,
        more=more,
    )


# The system's own figure for a child has what its parent held at the fork; this one begins with the program.
_TELLING = """
import atexit, os, runpy
def tell():
    with open("/proc/self/status") as status, open(os.environ["PEAK"], "w") as file:
        file.write(next(line.split()[1] for line in status if line.startswith("VmHWM:")))
atexit.register(tell)
runpy.run_module("chorus_upload", run_name="__main__", alter_sys=True)
"""


def _peak_mib(site: Site, *arguments: str, codes: tuple[int, ...] = (0,)) -> int:
    """Type a command, and give how much memory its process had at most."""
    peak = site.home / "peak"
    telling = dataclasses.replace(
        site, program=(sys.executable, "-c", _TELLING), environment={"PEAK": str(peak), "PYTHONWARNINGS": "default"}
    )
    assert telling.run(*arguments, exit_code=None).exit_code in codes
    return int(peak.read_text()) >> 10


class _Zeros(io.RawIOBase):
    """So many bytes of nothing, of which none is held."""

    def __init__(self, size: int) -> None:
        self._left = size

    def read(self, size: int = -1) -> bytes:
        given = self._left if size < 0 else min(size, self._left)
        self._left -= given
        return bytes(given)


def _tar_bomb(path: Path, size: int) -> Path:
    info = tarfile.TarInfo("zeros.dcm")
    info.size, info.mtime = size, 1_740_000_000
    with gzip.open(path, "wb", compresslevel=1) as stream, tarfile.open(fileobj=stream, mode="w|") as archive:
        archive.addfile(info, _Zeros(size))
    return path


def _zip_bomb(path: Path, size: int) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        info = zipfile.ZipInfo("zeros.dcm", (2025, 2, 19, 0, 0, 0))
        info.compress_type = zipfile.ZIP_DEFLATED
        with archive.open(info, "w", force_zip64=True) as member:
            for _ in range(size // MIB):
                member.write(bytes(MIB))
    return path


def _overlapping(path: Path, number: int, size: int) -> Path:
    """A zip archive whose many members are all the same few bytes, each of which becomes `size`."""
    body = bytes(size)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(body) + packer.flush()
    checksum, name = zlib.crc32(body), b"0000.dcm"
    # What says how the member is packed, its time, its checksum and its sizes, is the same in both of its headers.
    state = struct.pack("<HHHHHIII", 20, 0, 8, 0, 0x5A53, checksum, len(packed), size)
    local = b"PK\x03\x04" + state + struct.pack("<HH", len(name), 0) + name + packed
    entries = b"".join(
        b"PK\x01\x02"
        + struct.pack("<H", 20)
        + state
        + struct.pack("<HHHHHII", 8, 0, 0, 0, 0, 0, 0)
        + b"%04d.dcm" % each
        for each in range(number)
    )
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, number, number, len(entries), len(local), 0)
    path.write_bytes(local + entries + end)
    return path


def _sparse(path: Path, size: int) -> Path:
    """A tar archive of a few hundred bytes with a file that is one hole."""
    member = tarfile.TarInfo("hole.dcm")
    member.type, member.size, member.mtime = tarfile.GNUTYPE_SPARSE, 0, 1_740_000_000
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"%011o\0" % size + b"%011o\0" % 0
    header[483:495] = b"%011o\0" % size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path.write_bytes(bytes(header) + bytes(10_240 - 512))
    return path


@pytest.mark.thorough
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["tar.gz", "zip", "overlapping.zip", "sparse.tar"])
def test_bombs_take_no_memory(kind: str, tmp_path: Path, figures: Figures) -> None:
    """A few kilobytes that become far more: all of it is sent, and none of it is held."""
    size = times(quick=96, thorough=1_024) * MIB
    path = tmp_path / f"a.{kind}"
    match kind:
        case "tar.gz":
            _tar_bomb(path, size)
        case "zip":
            _zip_bomb(path, size)
        case "sparse.tar":
            _sparse(path, size)
        case _:
            _overlapping(path, times(quick=64, thorough=512), 2 * MIB)
    packed = path.stat().st_size
    assert packed * 50 < size
    site = _site(tmp_path, f"{kind.partition('.')[0] if kind[0] == 't' else kind[-3:]}://::{path}")
    usual = _peak_mib(site, "journal", "list", codes=(11,))
    for command in (("journal", "update", "--version", "spring"), ("file", "upload")):
        peak = _peak_mib(site, *command)
        figures.measure("peak MB more than usual", max(0, peak - usual))
        assert peak - usual < MOST_MIB, (command, peak, usual)
    central = [each for each in (tmp_path / "cloud" / "data" / "spring" / "Images").iterdir() if each.suffix == ".dcm"]
    assert sum(each.stat().st_size for each in central) == size
    figures.count("MB that came of bombs", size // MIB)
    for each in central:
        each.unlink()


@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_archives_of_many_members(tmp_path: Path, figures: Figures) -> None:
    """A directory of names costs memory for each in a zip archive, whose directory is held, and none in a tar."""
    number = times(quick=20_000, thorough=200_000)
    members = [Member(f"{each % 100}/{each}.dcm") for each in range(number)]
    for kind, data in (("tar", tar(members, compression="gz")), ("zip", zipped(members))):
        path = put(tmp_path / f"many.{kind}", data)
        site = _site(tmp_path / kind, f"{kind}://::{path}")
        usual = _peak_mib(site, "journal", "list", codes=(11,))
        peak = _peak_mib(site, "journal", "update")
        figures.measure(f"peak MB more than usual of a {kind} archive", max(0, peak - usual))
        # A kilobyte for each in a zip archive.
        assert peak - usual < 2 * MOST_MIB + (number >> 10 if kind == "zip" else 0), (kind, peak, usual)
        figures.count("members", number)


HOSTILE = (
    *(
        "../../x",
        "/etc/x",
        "C:\\x",
        "C:/x",
        "a/../../x",
        "..\\x",
        "\\\\h\\x",
        "a//b",
        ".",
        "..",
        "x\0y",
        "\x1b]0;x\x07",
        "x\ny",
    ),
    *(
        "-rf",
        "$(reboot)",
        "n" * 300,
        "d/" * 300 + "x",
        "con",
        "é",
        "e\u0301",
        "[red]x[/]",
        "n" * 5_000,
        "'; DROP TABLE x",
    ),
)


@pytest.mark.timeout(900)
def test_members_that_lead_elsewhere_and_damage(tmp_path: Path, figures: Figures) -> None:
    """Archives of hostile members, damaged here and there: what is good is sent, nothing is written elsewhere."""
    for told, chance in cases(times(quick=6, thorough=300)):
        root = tmp_path / told.rpartition(" ")[2]
        root.mkdir()
        path, kind = _hostile_archive(root, chance)
        site = _site(root, f"{kind}://::{path}")
        around = surroundings(tmp_path, but=(site.home, root / "cloud"))
        updated = typed(site.home, "journal", "update", "--version", "spring", figures=figures)
        assert updated.exit_code in (0, 3, 4, 5, 14, 20), (told, updated)
        if updated.exit_code in (0, 3):
            sent = typed(site.home, "file", "upload", figures=figures)
            assert sent.exit_code in (0, 3), (told, sent)
            assert all(body.startswith(b"good") or not body for body in _sent(site).values()), told
            figures.count("files sent from them", len(_sent(site)))
        assert surroundings(tmp_path, but=(site.home, root / "cloud")) == around, told
        figures.count("hostile archives")


def _sent(site: Site) -> dict[str, bytes]:
    return {key: body for key, body in files_of(site.cloud.objects()).items() if "/Images/" in key}


def _hostile_archive(root: Path, chance: random.Random) -> tuple[Path, str]:
    kinds = (tarfile.REGTYPE, tarfile.REGTYPE, tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE)
    names = chance.sample(HOSTILE, 6)
    members = [Member("1/good.dcm", b"good"), Member("1/good.dcm", b"good again")]
    members += [Member(name, b"good", type=chance.choice(kinds), link="../../../etc/passwd") for name in names]
    # Links and devices have no content.
    members = [
        each if each.type == tarfile.REGTYPE else Member(each.name, type=each.type, link=each.link) for each in members
    ]
    chance.shuffle(members)
    if chance.random() < 0.5:
        data, kind = tar(members, compression=chance.choice(COMPRESSIONS)), "tar"
    else:
        data, kind = _zip_of(members), "zip"
    changed = bytearray(data)
    match chance.randrange(4):
        case 0:
            del changed[chance.randrange(len(changed)) :]
        case 1:
            for _ in range(chance.choice((1, 3, 20))):
                changed[chance.randrange(len(changed))] = chance.randrange(256)
        case 2:
            begin = chance.randrange(len(changed) - 4)
            changed[begin : begin + 4] = chance.choice((b"\xff" * 4, b"\x7f\xff\xff\xff", bytes(4)))
    return put(root / f"a.{kind}", bytes(changed)), kind


def _zip_of(members: list[Member]) -> bytes:
    """With what the library would warn of."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        seen: set[str] = set()
        for each in members:
            if each.name not in seen:
                archive.writestr(zipfile.ZipInfo(each.name, (2025, 2, 19, 0, 0, 0)), each.content)
                seen.add(each.name)
    return buffer.getvalue()


def test_an_archive_in_an_archive_in_an_archive(tmp_path: Path, figures: Figures) -> None:
    """It is one file: nobody unpacks what is inside."""
    data = bytes(MIB)
    for depth in range(6):
        data = zipped([Member(f"{depth}.zip", data)]) if depth % 2 else compressed(data, "gz")
    site = _site(tmp_path, f"zip://::{put(tmp_path / 'a.zip', zipped([Member('inner.zip', data)]))}")
    for command in ("journal update --version spring", "file upload"):
        assert typed(site.home, *command.split(), figures=figures).exit_code == 0
    assert _sent(site) == {"spring/Images/inner.zip": data}
    figures.count("archives in archives", 7)


LINKS = (
    *(
        "//other.example/x",
        "http://[",
        "http://h:port/",
        "javascript:alert(1)",
        "data:text/html,x",
        "file:///etc/passwd",
    ),
    *(
        "..",
        "../",
        "../../x",
        "%2e%2e/",
        "%2e%2e/x",
        "..%2fx",
        "%5cx",
        "x%00y",
        "a/b/c",
        "?C=N;O=D",
        "#x",
        ".",
        "./",
        "",
    ),
    *(
        "x%ff",
        "\u202ex",
        "x\ny",
        "%0d%0aX-Y:%20z",
        "n" * 5_000,
        "%2e/",
        "/",
        "/data/",
        "ü",
        "x%2fy/",
        "%5c/",
        " ",
        "%20",
    ),
)


@contextmanager
def _web() -> Iterator[WebSite]:
    with web_site() as web:
        web.put("data/good.dcm", b"good")
        yield web


def test_a_web_site_that_leads_elsewhere(tmp_path: Path, figures: Figures) -> None:
    """Links of all kinds, redirects to what is no address, and a directory that holds itself."""
    with _web() as web:
        links = "".join(f'<a href="{each}">x</a>' for each in (*LINKS, "good.dcm", "moved.dcm"))
        web.pages["data/"] = f"<title>Index of x</title>{links}"
        web.redirects["data/moved.dcm"] = "http://[::1"
        site = _site(tmp_path, f"{web.url}/data/")
        build(tmp_path, {"secret": "x"})
        around = surroundings(tmp_path, but=(site.home, tmp_path / "cloud"))
        for location in ("http://[::1", "http://h:port/", "file:///etc/passwd", "//", "\xff", "data:x", "moved.dcm"):
            web.redirects["data/moved.dcm"] = location
            ended = typed(site.home, "journal", "update", "--version", "spring", figures=figures)
            assert ended.exit_code in (3, 20, 26), (location, ended)
            figures.count("redirects to what is no place")
        del web.redirects["data/moved.dcm"]
        assert typed(site.home, "journal", "update", "--version", "spring", figures=figures).exit_code == 3
        assert typed(site.home, "file", "upload", figures=figures).exit_code == 0
        assert _sent(site) == {"spring/Images/good.dcm": b"good"}
        assert {target.partition("?")[0] for target, _, _ in web.asked if not target.startswith("/data/")} == set()
        assert surroundings(tmp_path, but=(site.home, tmp_path / "cloud")) == around
        figures.count("links that lead elsewhere", len(LINKS))


def test_a_web_directory_that_holds_itself(tmp_path: Path, figures: Figures) -> None:
    """It is left where nothing in it could have a key any more."""
    again = "again_and_" * 5 + "again/"
    with _web() as web:
        page = f'<title>Index of x</title><a href="good.dcm">x</a><a href="{again}">x</a>'
        for depth in range(200):
            web.pages["data/" + again * depth] = page
        site = _site(tmp_path, f"{web.url}/data/")
        ended = typed(site.home, "journal", "update", "--version", "spring", figures=figures)
        assert ended.exit_code == 3
        assert "it is so deep" in ended.said
        figures.measure("longest way down", max(target.count("/") for target, _, _ in web.asked))
        assert typed(site.home, "file", "upload", figures=figures).exit_code == 0
        assert _sent(site)["spring/Images/good.dcm"] == b"good"
