"""Web servers as sources, and archives on them."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from chorus_upload.config.settings import Auth, Location, SiteSettings
from chorus_upload.errors import (
    AccessDenied,
    DeletionRefused,
    ObjectNotFound,
    StorageError,
    TlsError,
    TransientError,
)
from chorus_upload.model import ProblemKind
from chorus_upload.storage.network import Network
from chorus_upload.storage.open import open_source
from chorus_upload.storage.source import FileReplaced, FileStat, Source
from tests.archives import Content, members_of, tar, zipped
from tests.emulators import Authority
from tests.sites import SPRING, WebSite, web_site
from tests.storage.test_archives import content, problems, walked
from tests.trees import Bytes, bytes_of

TREE: dict[str, Content] = {
    "top.csv": "1",
    "1001/Images/a b/scan äö#?.dcm": Bytes(5_000),
    "1001/Images/empty.dcm": "",
    "1002/Images/large.dcm": Bytes(300_001),
}
SPRING_US = SPRING * 1_000_000


@pytest.fixture
def site() -> Iterator[WebSite]:
    with web_site() as site:
        for path, body in TREE.items():
            site.put(f"data/set/{path}", bytes_of(path, body))
        yield site


def opened(path: str, *, patience: float = 0, ca: Path | None = None, stop: threading.Event | None = None) -> Source:
    settings = SiteSettings(modality="Images", location=Location(path=path), pattern="{filepath}")
    return open_source(settings, Network(patience=patience, connections=4, ca_bundle=ca), stop=stop)


@pytest.mark.parametrize("has_ranges", [True, False])
def test_a_directory(site: WebSite, *, has_ranges: bool) -> None:
    site.has_ranges = has_ranges
    with opened(f"{site.url}/data/set/") as source:
        assert walked(source) == {path: (len(bytes_of(path, body)), SPRING_US) for path, body in TREE.items()}
        assert problems(source) == []
        for path, body in TREE.items():
            expected = bytes_of(path, body)
            assert content(source, path) == expected
            assert source.read_small(path, size=len(expected)) == (expected, FileStat(len(expected), SPRING_US))
            assert source.stat(path) == (len(expected), SPRING_US)
        assert source.stat("absent") is None
        with pytest.raises(FileNotFoundError):
            source.open("absent")
        with pytest.raises(OSError, match="inside"):
            source.open("../other")


def test_a_single_file(site: WebSite) -> None:
    with opened(f"{site.url}/data/set/1002/Images/large.dcm") as source:
        assert walked(source) == {"large.dcm": (300_001, SPRING_US)}
        assert len(content(source, "large.dcm")) == 300_001
        with pytest.raises(FileNotFoundError):
            source.open("other.dcm")
    with opened(f"{site.url}/data/set/absent") as source, pytest.raises(DeletionRefused):
        walked(source)


def test_a_page_that_is_no_listing(site: WebSite) -> None:
    """A page that asks for a log-in must not pass for an empty directory."""
    site.pages["data/other/"] = "<title>Welcome</title><a href='a.csv'>a</a>"
    with opened(f"{site.url}/data/other/") as source, pytest.raises(StorageError, match="no listing"):
        walked(source)
    with opened(f"{site.url}/nothing/") as source, pytest.raises(ObjectNotFound):
        walked(source)


def test_links_that_lead_elsewhere(site: WebSite) -> None:
    links = ["/data/set/top.csv", "//example.org/data/set/x", "..%2Fevil", "a%5Cb", "1/2/3", "javascript:x", "gone.csv"]
    site.pages["data/set/"] = "<title>Index of x</title>" + "".join(f"<a href='{each}'>x</a>" for each in links)
    with opened(f"{site.url}/data/set/") as source:
        assert walked(source).keys() == {"top.csv"}
        assert sorted(problems(source)) == [
            (ProblemKind.INVALID_NAME, "a\\b"),
            (ProblemKind.VANISHED, "gone.csv"),
        ]


@pytest.mark.parametrize("etag", ['"one"', None])
@pytest.mark.parametrize("has_ranges", [True, False])
def test_a_file_that_is_replaced(site: WebSite, etag: str | None, *, has_ranges: bool) -> None:
    site.has_ranges = has_ranges
    body = bytes(9_000_000)
    site.put("data/x", body, etag=etag)
    with opened(f"{site.url}/data/x") as source, source.open("x") as stream:
        if has_ranges:
            assert len(stream.read(1_000)) == 1_000
        else:
            site.cut.append(2_000_000)
            stream.read(1_000)
        site.put("data/x", body, etag=etag and '"two"', changed=SPRING + (0 if etag else 5))
        if not has_ranges:
            return
        with pytest.raises(FileReplaced):
            while stream.read(1 << 20):
                pass


@pytest.mark.parametrize("has_ranges", [True, False])
def test_a_download_that_breaks_off_goes_on(site: WebSite, *, has_ranges: bool) -> None:
    site.has_ranges = has_ranges
    body = bytes_of("x", Bytes(3_000_000))
    site.put("data/x", body)
    with opened(f"{site.url}/data/x", patience=20) as source:
        walked(source)
        site.cut += [100_000, 60_000, 1_000_000] if not has_ranges else [50_000, 60_000]
        site.failing += [503]
        assert content(source, "x") == body
    assert not site.cut


def test_a_server_that_fails_for_too_long(site: WebSite) -> None:
    site.failing += [503] * 3
    with opened(f"{site.url}/data/set/") as source, pytest.raises(TransientError):
        walked(source)


def test_log_ins_and_signatures_go_to_the_site_and_nowhere_else(site: WebSite) -> None:
    site.put("archive.bin", b"12345")
    with web_site() as other:
        other.put("cdn/file", b"12345")
        site.log_in = "me:p@ss word"
        site.query = "sig=SECRET"
        url = f"{site.url.replace('//', '//me:p%40ss%20word@')}/archive.bin?sig=SECRET"
        with opened(url) as source:
            assert content(source, "archive.bin") == b"12345"
            assert "SECRET" not in source.url
            assert "p@ss" not in source.url
            site.redirects["archive.bin"] = f"{other.url}/cdn/file"
            assert content(source, "archive.bin") == b"12345"
            # Where it leads is remembered for a while, and asked for again when that is gone.
            with source.open("archive.bin") as stream:
                other.files.clear()
                other.put("cdn/other", b"12345")
                site.redirects["archive.bin"] = f"{other.url}/cdn/other"
                assert stream.read(10) == b"12345"
        assert {(target, log_in) for target, _, log_in in other.asked} == {("/cdn/file", ""), ("/cdn/other", "")}
    with opened(f"{site.url}/data/set/") as source, pytest.raises(AccessDenied) as caught:
        walked(source)
    assert "SECRET" not in f"{caught.value} {caught.value.hint}"


def test_redirects(site: WebSite, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("127.0.0.1"))
    site.redirects |= {"round": f"{site.url}/round", "up": "data/set/top.csv"}
    with opened(f"{site.url}/up") as source:
        assert walked(source) == {"up": (1, SPRING_US)}
    with opened(f"{site.url}/round") as source, pytest.raises(StorageError, match="redirects"):
        walked(source)
    with web_site(tls=context) as safe:
        safe.put("file", b"12")
        safe.redirects["down"] = f"{site.url}/data/set/top.csv"
        with opened(f"{safe.url}/file", ca=authority.bundle) as source:
            assert walked(source) == {"file": (2, SPRING_US)}
        with opened(f"{safe.url}/down", ca=authority.bundle) as source, pytest.raises(StorageError, match="without"):
            walked(source)
        with opened(f"{safe.url}/file") as source, pytest.raises(TlsError):
            walked(source)


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
@pytest.mark.parametrize("server", ["ranges", "none", "no size"])
def test_archives(site: WebSite, kind: str, server: str) -> None:
    site.has_ranges, site.says_size = server == "ranges", server != "no size"
    members = members_of(TREE)
    data = zipped(members) if kind == "zip" else tar(members, compression=kind.removeprefix("tar").removeprefix("."))
    site.put("sets/images", data, etag='"1"')
    with opened(f"{kind[:3]}://::{site.url}/sets/images") as source:
        assert walked(source).keys() == TREE.keys()
        for path, body in TREE.items():
            assert content(source, path) == bytes_of(path, body)
        site.put("sets/images", data, etag='"2"')
        if server == "ranges":
            with pytest.raises(FileReplaced):
                content(source, "1002/Images/large.dcm")


def test_of_a_zip_only_what_is_needed_is_fetched(site: WebSite) -> None:
    tree: dict[str, Content] = {f"{number}.dcm": Bytes(500_000) for number in range(10)}
    site.put("images.zip", zipped(members_of(tree), method=0))
    with opened(f"zip://::{site.url}/images.zip") as source:
        assert len(walked(source)) == 10
        assert site.fetched() < 150_000
        asked = len(site.asked)
        assert source.read_small("3.dcm", size=500_000).data == bytes_of("3.dcm", Bytes(500_000))
        assert len(site.asked) == asked + 1
        assert site.fetched() < 700_000


def test_an_archive_that_is_not_there(site: WebSite) -> None:
    for kind in ("zip", "tar"):
        with opened(f"{kind}://::{site.url}/nothing") as source, pytest.raises(ObjectNotFound):
            walked(source)


def test_a_zip_without_ranges_that_is_too_large(site: WebSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chorus_upload.storage.zip_source._HELD_WHOLE", 1_000)
    site.has_ranges = False
    site.put("images.zip", zipped(members_of(TREE)))
    with opened(f"zip://::{site.url}/images.zip") as source, pytest.raises(StorageError, match="from its beginning"):
        walked(source)


def test_nothing_of_a_log_in_is_shown() -> None:
    location = Location(path="tar://::https://me:SECRET@host/x.tar?key=SECRET")
    assert location.auth == Auth(username="me", password=SecretStr("SECRET"), url_query=SecretStr("key=SECRET"))
    assert "SECRET" not in f"{location!r} {location}"
