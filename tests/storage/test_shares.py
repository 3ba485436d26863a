"""Directories on other machines: SFTP and SMB, with real servers on this one."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest

from chorus_upload.config.settings import Location, SiteSettings
from chorus_upload.errors import AccessDenied, ConfigError, DeletionRefused, ObjectNotFound, TlsError, TransientError
from chorus_upload.model import ProblemKind
from chorus_upload.storage.network import Network
from chorus_upload.storage.open import open_source
from chorus_upload.storage.source import FileReplaced, Source
from tests.archives import Content, members_of, tar, zipped
from tests.shares import PASSWORD, USER, SftpServer, sftp_server, smb_server
from tests.storage.test_archives import content, problems, walked
from tests.trees import Bytes, Link, build, bytes_of, touch

TREE: dict[str, Content] = {
    "top.csv": "1",
    "1001/Images/a b/scan äö.dcm": Bytes(5_000),
    "1001/Images/empty.dcm": "",
    "1002/Images/large.dcm": Bytes(3_000_001),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("served")
    build(root / "set", TREE)
    (root / "images.zip").write_bytes(zipped(members_of(TREE)))
    (root / "images.tar.gz").write_bytes(tar(members_of(TREE), compression="gz"))
    return root


@pytest.fixture
def sftp(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SftpServer]:
    """A server that the user of this machine knows."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with sftp_server(root) as server:
        (tmp_path / ".ssh").mkdir()
        (tmp_path / ".ssh" / "known_hosts").write_text(server.known_host)
        yield server


@pytest.fixture(scope="module")
def smb(root: Path) -> Iterator[int]:
    with smb_server(root) as port:
        yield port


@pytest.fixture(params=["sftp", "smb"])
def place(request: pytest.FixtureRequest) -> str:
    """The address of what is served."""
    who = f"{USER}:{quote(PASSWORD, safe='')}"
    if request.param == "sftp":
        server: SftpServer = request.getfixturevalue("sftp")
        return f"sftp://{who}@127.0.0.1:{server.port}"
    return f"smb://{who}@127.0.0.1:{request.getfixturevalue('smb')}/DATA"


def opened(
    path: str, *, patience: float = 0, stop: threading.Event | None = None, follow_links: bool | None = None
) -> Source:
    location = Location(path=path)
    settings = SiteSettings(modality="Images", location=location, pattern="{filepath}", follow_links=follow_links)
    return open_source(settings, Network(patience=patience, connections=4), stop=stop)


def test_a_tree(place: str, root: Path) -> None:
    with opened(f"{place}/set") as source:
        found = walked(source)
        assert {path: size for path, (size, _) in found.items()} == {
            path: len(bytes_of(path, body)) for path, body in TREE.items()
        }
        for path, body in TREE.items():
            expected = bytes_of(path, body)
            seconds = int((root / "set" / path).stat().st_mtime)
            assert found[path][1] // 1_000_000 == seconds
            assert content(source, path) == expected
            small = source.read_small(path, size=len(expected))
            assert small == (expected, found[path])
            assert source.stat(path) == found[path]
        assert source.stat("absent") is None
        assert source.stat("1001") is None
        for path in ("absent", "1001"):
            with pytest.raises(OSError):
                source.open(path)
        for path in ("../images.zip", "/etc/passwd", "a//b"):
            with pytest.raises(OSError, match="inside"):
                source.open(path)
        assert PASSWORD not in source.url


def test_many_threads(place: str) -> None:
    with opened(f"{place}/set") as source, ThreadPoolExecutor(12) as pool:
        paths = list(TREE) * 3
        for path, body in zip(paths, pool.map(lambda each: content(source, each), paths), strict=True):
            assert body == bytes_of(path, TREE[path])


@pytest.mark.parametrize("archive", ["zip://::{}/images.zip", "tar://::{}/images.tar.gz"])
def test_an_archive(place: str, archive: str) -> None:
    with opened(archive.format(place)) as source:
        assert walked(source).keys() == TREE.keys()
        for path, body in TREE.items():
            assert content(source, path) == bytes_of(path, body)


def test_a_directory_that_is_not_there(place: str) -> None:
    with opened(f"{place}/nothing") as source, pytest.raises(DeletionRefused):
        walked(source)
    with opened(f"tar://::{place}/nothing.tar") as source, pytest.raises(ObjectNotFound):
        walked(source)


def test_a_wrong_password(place: str) -> None:
    wrong = place.replace(quote(PASSWORD, safe=""), "SECRET")
    with opened(f"{wrong}/set", patience=60) as source, pytest.raises(AccessDenied) as caught:
        walked(source)
    assert "SECRET" not in f"{caught.value} {caught.value.hint}"


def test_nobody_at_home(place: str) -> None:
    scheme, _, rest = place.partition("://")
    who = rest.partition("@")[0]
    with opened(f"{scheme}://{who}@127.0.0.1:1/DATA/set") as source, pytest.raises(TransientError):
        walked(source)


def test_a_file_that_changes(place: str, root: Path) -> None:
    path = build(root / "set", {"changing/x.bin": Bytes(9_000_000)}) / "changing/x.bin"
    try:
        with opened(f"{place}/set") as source, source.open("changing/x.bin") as stream:
            before = source.open_stat(stream)
            assert len(stream.read(1_000)) == 1_000
            with path.open("r+b") as file:
                file.truncate(8_000_000)
            touch(path)
            with pytest.raises(FileReplaced):
                while stream.read(1 << 20):
                    pass
            assert source.stat("changing/x.bin") != before
    finally:
        path.unlink()
        path.parent.rmdir()


def test_links(sftp: SftpServer, root: Path) -> None:
    links = build(root / "links", {"target/file": "12", "to-file": Link("target/file"), "dead": Link("nowhere")})
    (links / "outside").symlink_to("../links-beside/file")
    build(root / "links-beside", {"file": "3"})
    (links / "to-directory").symlink_to("target")
    address = f"sftp://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{sftp.port}/links"
    with opened(address) as source:
        assert walked(source).keys() == {"target/file", "to-file"}
        assert sorted(problems(source)) == [
            (ProblemKind.LINK_TO_DIRECTORY, "to-directory"),
            (ProblemKind.LINK_TO_OUTSIDE, "outside"),
            (ProblemKind.UNREADABLE_FILE, "dead"),
        ]
    with opened(address, follow_links=True) as source:
        assert walked(source).keys() == {"target/file", "to-file", "outside"}
        assert (ProblemKind.SKIPPED_LINK, "to-directory") in problems(source)


def test_a_host_that_nobody_knows(sftp: SftpServer, tmp_path: Path) -> None:
    known = tmp_path / ".ssh" / "known_hosts"
    address = f"sftp://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{sftp.port}/set"
    known.write_text("")
    with opened(address, patience=60) as source, pytest.raises(TlsError, match="SHA256:") as caught:
        walked(source)
    assert "known_hosts" in (caught.value.hint or "")
    assert known.read_text() == ""
    with sftp_server(tmp_path) as other:
        known.write_text(f"[127.0.0.1]:{sftp.port} {other.host_key}\n")
    with opened(address, patience=60) as source, pytest.raises(TlsError):
        walked(source)


def test_a_connection_that_breaks_is_made_again(sftp: SftpServer) -> None:
    address = f"sftp://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{sftp.port}/set"
    with opened(address, patience=30) as source:
        walked(source)
        sftp.cut()
        assert walked(source).keys() == TREE.keys()
        with source.open("1002/Images/large.dcm") as stream:
            body = stream.read(70_000)
            sftp.cut()
            while piece := stream.read(1 << 20):
                body += piece
        assert body == bytes_of("1002/Images/large.dcm", TREE["1002/Images/large.dcm"])
    with opened(address) as source:
        walked(source)
        sftp.cut()
        with pytest.raises(TransientError):
            for _ in range(10):
                walked(source)
                sftp.cut()


def test_a_key_of_the_user(sftp: SftpServer) -> None:
    """Without a password and with no key there is no way in, and the hint says what to do."""
    with opened(f"sftp://{USER}@127.0.0.1:{sftp.port}/set") as source, pytest.raises(AccessDenied) as caught:
        walked(source)
    assert "ssh-add" in (caught.value.hint or "")


@pytest.mark.parametrize(("scheme", "library"), [("sftp", "paramiko"), ("smb", "smbclient")])
def test_without_its_library(monkeypatch: pytest.MonkeyPatch, scheme: str, library: str) -> None:
    monkeypatch.delitem(sys.modules, f"chorus_upload.storage.{scheme}", raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigError, match="not installed") as caught:
        opened(f"{scheme}://host/share/path")
    assert f"chorus-upload[{scheme}]" in (caught.value.hint or "")


def test_where_it_is_not_said() -> None:
    for path in ("sftp:///data", "sftp://host:port/data"):
        with pytest.raises(ConfigError, match="no host"):
            opened(path)
