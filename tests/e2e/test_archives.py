"""Datasets that come as archives: journaled from their listing, and sent without being unpacked to a disk."""

from __future__ import annotations

import dataclasses
import ssl
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
from azure.storage.blob import generate_blob_sas

from tests.archives import Content, Member, members_of, put, tar, zipped
from tests.e2e.clouds import Container, Disk, ask, files_of
from tests.e2e.conftest import new_disk, settle
from tests.e2e.site import Site
from tests.e2e.test_cloud_source import _WATCHED
from tests.emulators import Authority
from tests.shares import PASSWORD, USER, smb_server
from tests.sites import web_site
from tests.trees import Bytes, build, bytes_of
from tests.wire import Wire

TREE: dict[str, Content] = {
    "OMOP/person.csv": Bytes(3_000),
    "1002/Images/scan äö.dcm": Bytes(70_000),
    "1001/Images/small.dcm": Bytes(10),
    "1002/Waveforms/large.h5": Bytes(8_500_001),
    "1001/Images/a/b/late.dcm": Bytes(20_000),
    "OMOP/empty.csv": "",
    **{f"1003/Images/{number:03}.dcm": Bytes(number * 31) for number in range(60)},
}


def expected(version: str, tree: dict[str, Content]) -> dict[str, bytes]:
    return {f"{version}/{path}": bytes_of(path, body) for path, body in tree.items()}


def settled(tmp_path: Path, cloud: Disk | Container, path: str, *, more: str = "") -> Site:
    """A site with this source, which is no path of this machine."""
    site = settle(tmp_path / "home", Path("elsewhere"), cloud, more=more)
    site.configure(site.config.read_text().replace('path = "elsewhere"', f'path = "{path}"'))
    return site


@pytest.mark.parametrize(
    ("kind", "where"),
    [
        pytest.param("tar", "disk", marks=pytest.mark.thorough),
        ("tar.gz", "container"),
        pytest.param("tar.zst", "disk", marks=pytest.mark.thorough),
        ("zip", "disk"),
        pytest.param("zip", "container", marks=pytest.mark.thorough),
    ],
)
def test_two_submissions(tmp_path: Path, request: pytest.FixtureRequest, kind: str, where: str) -> None:
    cloud: Disk | Container = request.getfixturevalue(where)
    archive = tmp_path / f"images.{kind}"

    def pack(tree: dict[str, Content], mtime: float) -> None:
        members = members_of(tree, mtime=mtime)
        compression = kind.removeprefix("tar").removeprefix(".")
        put(archive, zipped(members) if kind == "zip" else tar(members, compression=compression))

    pack(TREE, 1_740_000_000)
    site = settled(tmp_path, cloud, f"{kind[:3]}://::{archive}")
    site.run("journal", "update", "--version", "spring")
    assert site.pending() == set(TREE)
    site.run("file", "upload")
    assert files_of(cloud.objects()) == expected("spring", TREE)
    site.run("file", "verify", "--deep")

    # The next release of the dataset: all times are new, little else is.
    changed: dict[str, Content] = {
        "OMOP/person.csv": Bytes(3_000, edition=2),
        "1003/Images/new.dcm": Bytes(5),
        "1001/Images/small.dcm": Bytes(11),
    }
    pack({name: body for name, body in {**TREE, **changed}.items() if name != "OMOP/empty.csv"}, 1_750_000_000)
    site.run("journal", "update", "--version", "autumn", "--confirm-deletions")
    assert site.pending() == set(changed)
    site.run("file", "upload")
    objects = files_of(cloud.objects())
    assert {key: objects[key] for key in expected("autumn", changed)} == expected("autumn", changed)
    assert "autumn/OMOP/empty.csv" not in objects
    site.run("file", "verify")
    assert ask(site.journal, "SELECT count(*) FROM file WHERE retirement = 'gone'") == [(1,)]


def test_an_archive_in_a_container(tmp_path: Path, container: Container, disk: Disk, wire: Wire) -> None:
    """Of a zip archive the listing fetches the directory only, and a file is fetched where it lies."""
    tree: dict[str, Content] = {f"100{n}/Images/{n}.dcm": Bytes(1_000_000 + n) for n in range(8)}
    container.put("given/images.zip", zipped(members_of(tree), method=0))
    container.put("given/images.tar.gz", tar(members_of(tree), compression="gz"))
    token = container.azurite.sas(container.name, permissions="rl")
    url = f"{container.azurite.url_at(wire.port)}/{container.name}/given"
    site = settled(tmp_path, disk, f"zip://::{url}/images.zip?{token}")
    site.run("journal", "update", "--version", "spring")
    assert _fetched(wire) < 200_000
    site.run("file", "upload")
    assert _fetched(wire) < 9_500_000
    assert files_of(disk.objects()) == expected("spring", tree)

    # Whoever gives out one archive may give out a token for that and nothing else.
    token = generate_blob_sas(
        container.azurite.account,
        container.name,
        "given/images.tar.gz",
        account_key=container.azurite.key,
        permission="r",
        expiry=datetime.now(UTC) + timedelta(days=20),
    )
    second = new_disk(tmp_path / "second" / "cloud")
    other = settled(tmp_path / "second", second, f"tar://1001::{url}/images.tar.gz?{token}", more=_PATTERN)
    other.run("journal", "update", "--version", "spring")
    assert other.pending() == {"Images/1.dcm"}
    other.run("file", "upload")
    assert other.run("config", "check").exit_code == 0
    assert token not in other.run("config", "show").out


_PATTERN = """
[site_path.Images]
pattern = "Images/{filepath}"
"""


def _fetched(wire: Wire) -> int:
    """How many bytes were asked for, by ranges."""
    ranges = [
        request.headers.get("x-ms-range") or request.headers.get("range", "")
        for request in wire.requests
        if request.method == "GET" and "comp=" not in request.target
    ]
    assert all(each.startswith("bytes=") for each in ranges)
    bounds = [each.removeprefix("bytes=").split("-") for each in ranges]
    return sum(int(last) - int(first) + 1 for first, last in bounds)


def test_an_archive_without_times(tmp_path: Path, disk: Disk) -> None:
    """Some are made so that the same content is the same archive: what has changed is seen all the same."""
    tree: dict[str, Content] = {"OMOP/a.csv": "one", "OMOP/b.csv": "two"}
    path = put(tmp_path / "a.tar.gz", tar(members_of(tree, mtime=0), compression="gz"))
    site = settled(tmp_path, disk, f"tar://::{path}")
    site.run("journal", "update", "--version", "spring")
    site.run("file", "upload")
    put(path, tar(members_of({**tree, "OMOP/b.csv": "2.0"}, mtime=0), compression="gz"))
    site.run("journal", "update", "--version", "autumn")
    assert site.pending() == {"OMOP/b.csv"}
    site.run("file", "upload")
    assert files_of(disk.objects()) == {**expected("spring", tree), "autumn/OMOP/b.csv": b"2.0"}


def test_what_is_hostile_is_told_and_the_rest_is_sent(tmp_path: Path, disk: Disk) -> None:
    members = [
        Member("OMOP/person.csv", b"1"),
        Member("../OMOP/evil.csv", b"evil"),
        Member("OMOP/../../evil.csv", b"evil"),
        Member("OMOP\\evil.csv", b"evil"),
        Member("OMOP/link.csv", type=b"2", link="/etc/passwd"),
    ]
    site = settled(tmp_path, disk, f"tar://::{put(tmp_path / 'a.tar', tar(members))}")
    ran = site.run("journal", "update", "--version", "spring", exit_code=3)
    for name in ("../OMOP/evil.csv", "OMOP/../../evil.csv", "OMOP\\evil.csv", "OMOP/link.csv"):
        assert name in ran.err
    site.run("file", "upload")
    assert files_of(disk.objects()) == {"spring/OMOP/person.csv": b"1"}


@pytest.mark.parametrize("kind", ["tar", pytest.param("zip", marks=pytest.mark.thorough)])
def test_an_archive_that_is_not_complete_deletes_nothing(tmp_path: Path, disk: Disk, kind: str) -> None:
    data = tar(members_of(TREE), compression="gz") if kind == "tar" else zipped(members_of(TREE))
    path = put(tmp_path / "a", data)
    site = settled(tmp_path, disk, f"{kind}://::{path}")
    site.run("journal", "update", "--version", "spring")
    put(path, data[: len(data) // 2])
    for options in ((), ("--confirm-deletions",)):
        ran = site.run("journal", "update", "--version", "summer", *options, exit_code=20)
        assert "not complete" in ran.err
    assert ask(site.journal, "SELECT count(*) FROM file WHERE retired_by IS NULL") == [(len(TREE),)]
    ran = site.run("file", "upload", exit_code=3)
    assert "not complete" in ran.err or "damaged" in ran.err


def test_a_path_that_is_an_archive(tmp_path: Path, disk: Disk) -> None:
    path = put(tmp_path / "images.tar.gz", tar(members_of(TREE), compression="gz"))
    site = settled(tmp_path, disk, str(path))
    assert f"tar://::{path}" in site.run("journal", "update", exit_code=5).err
    assert f"tar://::{path}" in site.run("config", "check", exit_code=2).out


@pytest.mark.parametrize("place", ["central_path", "journal.source"])
def test_an_archive_is_no_central_store(tmp_path: Path, disk: Disk, place: str) -> None:
    site = settled(tmp_path, disk, str(tmp_path))
    lines = site.config.read_text().split(f"[{place}]\npath = ")
    site.configure(f'{lines[0]}[{place}]\npath = "zip://::{tmp_path}/a.zip"\n' + lines[1].partition("\n")[2])
    assert "zip://" in site.run("journal", "update", exit_code=2).err


def test_nothing_is_put_on_a_disk_on_the_way(tmp_path: Path, container: Container) -> None:
    """Every file that the program opens to write, seen from within."""
    path = put(tmp_path / "a.tar.gz", tar(members_of(TREE), compression="gz"))
    site = settled(tmp_path, container, f"tar://::{path}")
    site.run("journal", "update", "--version", "spring")
    notes = tmp_path / "notes"
    watched = dataclasses.replace(
        site, program=(sys.executable, "-c", _WATCHED), environment={"NOTES": str(notes), "TMPDIR": str(tmp_path)}
    )
    watched.run("file", "upload")
    assert files_of(container.objects()) == expected("spring", TREE)
    written = {Path(line).name for line in notes.read_text().splitlines()}
    written = {name for name in written if not name.startswith("journal.db") and not name.isdigit()}
    assert written <= {"manifest.csv", "null"}


@pytest.mark.parametrize("kind", ["tar.gz", pytest.param("zip", marks=pytest.mark.thorough)])
def test_a_dataset_from_the_web(tmp_path: Path, container: Container, kind: str) -> None:
    """Over https, behind a redirect and a log-in: one pass to list it, one to send it, the next release likewise."""
    authority = Authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("127.0.0.1"))

    def packed(tree: dict[str, Content], mtime: float) -> bytes:
        members = members_of(tree, mtime=mtime)
        return zipped(members) if kind == "zip" else tar(members, compression="gz")

    with web_site(tls=context) as web:
        web.log_in = "me:SECRET-word"
        web.put(f"sets/v1.{kind}", packed(TREE, 1_740_000_000), etag='"1"')
        web.redirects[f"latest.{kind}"] = f"/sets/v1.{kind}"
        address = web.url.replace("//", "//me:SECRET-word@")
        site = settled(tmp_path, container, f"{kind[:3]}://::{address}/latest.{kind}")
        config = site.config.read_text().replace(
            "[configuration]", f'[configuration]\nca_bundle = "{authority.bundle}"'
        )
        site.configure(config.replace("num_threads = 4", "num_threads = 16"))
        told = site.run("journal", "update", "--version", "spring").err
        size = len(web.files[f"sets/v1.{kind}"].content)
        # A little is fetched to see what is there, and of a zip archive the directory only.
        assert web.fetched() < (20_000 if kind == "zip" else size + 100)
        web.asked.clear()
        told += site.run("file", "upload").err
        assert web.fetched() < 1.02 * size + 70_000
        assert files_of(container.objects()) == expected("spring", TREE)

        changed: dict[str, Content] = {"OMOP/person.csv": Bytes(3_001), "1004/Images/new.dcm": Bytes(5)}
        web.put(f"sets/v2.{kind}", packed({**TREE, **changed}, 1_750_000_000), etag='"2"')
        web.redirects[f"latest.{kind}"] = f"/sets/v2.{kind}"
        told += site.run("journal", "update", "--version", "autumn").err
        assert site.pending() == set(changed)
        told += site.run("file", "upload").err
        objects = files_of(container.objects())
        assert {key: objects[key] for key in expected("autumn", changed)} == expected("autumn", changed)
        told += site.run("config", "show").out + site.run("history").out
    assert "SECRET" not in told


def test_a_web_directory_and_a_share(tmp_path: Path, disk: Disk) -> None:
    """Two modalities, each from a place of its own."""
    # The share's server of these tests takes long for each file.
    tree = {path: body for path, body in TREE.items() if not path.startswith("1003/Images/0") or path.endswith("5.dcm")}
    files = {path: bytes_of(path, body) for path, body in tree.items()}
    with web_site() as web, smb_server(build(tmp_path / "served", files)) as port:
        for path, body in files.items():
            web.put(f"set/{path}", body)
        share = f"smb://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{port}/DATA"
        site = settled(tmp_path, disk, f"{web.url}/set/", more=f'[site_path.Images]\npath = "{share}"\n')
        site.run("journal", "update", "--version", "spring")
        site.run("file", "upload")
        assert files_of(disk.objects()) == expected("spring", tree)
        site.run("journal", "update", "--version", "summer")
        assert site.pending() == set()
