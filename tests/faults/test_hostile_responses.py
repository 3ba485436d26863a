"""Responses that no service gives: whatever stands in head and body, errors of ours leave, and no other.

Numbers of 5,000 digits, dates that no calendar has, bytes that are no text. The responses come over a real connection,
so that libcurl, the libraries and their parsers are part of what is attacked.
"""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self
from urllib.parse import quote

import paramiko
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from chorus_upload.config.sas import errors_of, in_words, read_sas, warnings_of
from chorus_upload.errors import ChorusError, StorageError
from chorus_upload.storage.azure import AzureStore
from chorus_upload.storage.azure_credentials import SasToken
from chorus_upload.storage.gs import GsStore
from chorus_upload.storage.gs_credentials import Anonymous
from chorus_upload.storage.network import Network
from chorus_upload.storage.retry import Retry
from chorus_upload.storage.s3 import S3Store
from chorus_upload.storage.s3_client import S3Access
from chorus_upload.storage.sftp import _described as described_by_sftp
from chorus_upload.storage.source import FileStat
from chorus_upload.storage.store import Origin, StoredObject
from chorus_upload.storage.web import Web, WebAccess
from chorus_upload.storage.web_source import WebSource
from tests.faults.figures import THOROUGH, Figures

MOST = 2**63
DIGITS = "9" * 5_000
NUMBERS = ("0", "1", "7", "-1", "1e999", "0x10", "\xb2", "\u0661", "9" * 18, "9" * 19, DIGITS, "")
OFFSET = f"Wed, 01 Jan 2025 00:00:00 +{10**14}"
DATES = (
    "Wed, 01 Jan 2025 00:00:00 GMT",
    "Fri, 31 Dec 9999 23:59:59 -2359",
    "Mon, 01 Jan 0001 00:00:00 +2359",
    "Mon, 01 Jan 0000 00:00:00 GMT",
    "Sat, 30 Feb 2025 25:61:61 GMT",
    f"Wed, 01 Jan {DIGITS} 00:00:00 GMT",
    f"Wed, 01 Jan 2025 00:00:00 +{DIGITS}",
    OFFSET,
    "Wed, 01 Jan 2025 00:00:00 -0000",
    "9999-12-31T23:59:59.999999-23:59",
    "0001-01-01T00:00:00",
    "",
)
TOKENS = ('"0x8D"', 'W/"0x8D"', '"' + "a" * 32 + '"', "0", "AAAAAAAAAAAAAAAAAAAAAA==", "no base64", "\xe4\xff", "")
NAMES = (
    *("Content-Length", "Content-Range", "Content-MD5", "Content-Type", "ETag", "Last-Modified", "Date", "Retry-After"),
    *("Location", "Range", "x-ms-error-code", "x-ms-blob-content-md5", "x-ms-content-crc64", "x-ms-creation-time"),
    *("x-ms-lease-duration", "x-ms-tag-count", "x-ms-blob-committed-block-count", "x-ms-server-encrypted"),
    *("x-ms-access-tier-change-time", "x-ms-last-access-time", "x-ms-copy-completion-time", "x-ms-legal-hold"),
    *("x-amz-bucket-region", "x-amz-mp-parts-count", "x-amz-missing-meta", "x-amz-object-lock-retain-until-date"),
    *(
        "x-amz-restore",
        "x-amz-expiration",
        "Expires",
        "x-goog-hash",
        "x-goog-generation",
        "x-goog-stored-content-length",
    ),
    *("Transfer-Encoding", "Content-Encoding", "Connection", "WWW-Authenticate"),
)
MARKS = "x-ms-request-id: 1\r\nx-amz-request-id: 1\r\nx-guploader-uploadid: 1\r\n"
WORTHS = st.sampled_from(
    [
        *(NUMBERS + DATES + TOKENS),
        *(f"bytes {one}-{two}/{all_}" for one in ("0", DIGITS) for two in ("0", DIGITS) for all_ in ("1", "*", DIGITS)),
        *(f"bytes=0-{number}" for number in NUMBERS),
        *("chunked", "gzip", "close", "text/html", "application/xml", "application/json", "http://[", "//x:99999999/"),
    ]
)
HEADERS = st.lists(st.tuples(st.sampled_from(NAMES), WORTHS), max_size=6)
STATUSES = st.sampled_from(
    [
        *("200", "201", "202", "204", "206", "304", "308", "400", "401", "403", "404", "409", "412", "416", "503"),
        *("99", "2", "20000", DIGITS, "abc", ""),
    ]
)
FIELD = st.sampled_from((*NUMBERS, *DATES, *TOKENS, f"&#{DIGITS};", "&#x110000;", "<b/>", "]]>"))


def xml(root: str, element: str, names: tuple[str, ...]) -> st.SearchStrategy[bytes]:
    """A document of a service, with something in each place."""

    def write(fields: list[str]) -> bytes:
        inner = "".join(f"<{name}>{value}</{name}>" for name, value in zip(names, fields, strict=True))
        return f'<?xml version="1.0" encoding="utf-8"?><{root}>{element % inner}</{root}>'.encode()

    return st.lists(FIELD, min_size=len(names), max_size=len(names)).map(write)


def json_of(kind: str, *, items: bool) -> st.SearchStrategy[bytes]:
    values = st.sampled_from(
        [*(f'"{each}"' for each in ("0", "9" * 19, "x")), DIGITS, "1e999", "null", "[]", "{}", "-1"]
    )

    def write(fields: list[str]) -> bytes:
        names = ("size", "generation", "timeCreated", "md5Hash", "name", "nextPageToken")
        inner = ", ".join(f'"{name}": {value}' for name, value in zip(names, fields, strict=True))
        found = f'"items": [{{{inner}}}]' if items else inner
        return f'{{"kind": "{kind}", {found}}}'.encode()

    return st.lists(values, min_size=6, max_size=6).map(write)


def error_json(code: str) -> bytes:
    return f'{{"error": {{"code": {code}, "message": 5, "errors": [1, {{"reason": []}}]}}}}'.encode()


BODIES = st.one_of(
    st.binary(max_size=200),
    xml("Error", "%s", ("Code", "Message", "AuthenticationErrorDetail")),
    st.sampled_from(DATES).map(
        lambda date: (
            f"<Error><Code>AuthenticationFailed</Code><AuthenticationErrorDetail>Expiry [{date}] - "
            f"Current [{date}]</AuthenticationErrorDetail></Error>".encode()
        )
    ),
    xml(
        'EnumerationResults ContainerName="c"',
        "<Blobs><Blob><Name>p/a</Name><Properties>%s</Properties></Blob></Blobs><NextMarker/>",
        ("Content-Length", "Last-Modified", "Creation-Time", "Etag", "Content-MD5", "TagCount", "AccessTierChangeTime"),
    ),
    xml("BlockList", "<UncommittedBlocks><Block>%s</Block></UncommittedBlocks>", ("Name", "Size")),
    xml(
        "ListBucketResult",
        "<IsTruncated>false</IsTruncated><Contents>%s</Contents>",
        ("Key", "Size", "LastModified", "ETag"),
    ),
    xml("ListMultipartUploadsResult", "<Upload>%s</Upload>", ("Key", "UploadId", "Initiated")),
    json_of("storage#object", items=False),
    json_of("storage#objects", items=True),
    st.sampled_from(["404", "403", DIGITS, "[]"]).map(error_json),
    st.just(b"[" * 5_000),
    st.sampled_from(
        [b"<title>Index of /</title><a href='a'>&#%s;</a>" % DIGITS.encode(), b"<title>Index of</title><![x["]
    ),
)


@dataclass(slots=True)
class Liar:
    """A server that gives every request the same response, whatever that is."""

    response: bytes = b""
    _server: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))

    @property
    def port(self) -> int:
        return int(self._server.getsockname()[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def say(self, status: str, headers: list[tuple[str, str]], body: bytes, *, marked: bool) -> None:
        """The response from now on. Its length is said unless a header says another one."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers) + (MARKS if marked else "")
        if not any(name in ("Content-Length", "Transfer-Encoding") for name, _ in headers):
            lines += f"Content-Length: {len(body)}\r\n"
        head = f"HTTP/1.1 {status} Said\r\n{lines}Connection: close\r\n\r\n"
        self.response = head.encode("latin-1", "replace") + body

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            with client, suppress(OSError):
                client.settimeout(5)
                head = client.recv(65_536)
                size = next(
                    (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
                )
                left = size - len(head.partition(b"\r\n\r\n")[2])
                while left > 0 and (piece := client.recv(65_536)):
                    left -= len(piece)
                client.sendall(self.response)
                client.shutdown(socket.SHUT_WR)


Stored = AzureStore | S3Store | GsStore
NOW = Retry(patience=0, sleep=lambda _: None)


@contextmanager
def azure(port: int) -> Iterator[AzureStore]:
    url = f"http://127.0.0.1:{port}/account"
    with AzureStore(url, "container", credential=SasToken("sig=x"), prefix="p", retry=NOW, block_size=1_000) as store:
        yield store


@contextmanager
def s3(port: int) -> Iterator[S3Store]:
    access, url = S3Access(key_id="AKIA", secret="x"), f"http://127.0.0.1:{port}"
    with S3Store("bucket", access=access, endpoint_url=url, prefix="p", retry=NOW) as store:
        yield store


@contextmanager
def google(port: int) -> Iterator[GsStore]:
    with GsStore(
        "bucket", access=Anonymous(), endpoint=f"http://127.0.0.1:{port}", prefix="p", retry=NOW, chunk_size=256 << 10
    ) as store:
        yield store


def operations(store: Stored) -> list[Callable[[], object]]:
    """Everything that a store is asked for, with what is small and what goes in parts."""
    large = bytes(store.capabilities.one_request_limit + 1)

    def read() -> object:
        with store.open("a") as stream:
            return stream.read(3)

    found: list[Callable[[], object]] = [
        store.probe,
        lambda: list(store.scan()),
        lambda: list(store.browse("dir")),
        lambda: store.stat("a"),
        read,
        lambda: store.read_range("a", offset=0, length=1, etag="0x8D"),
        lambda: store.put("a", b"1", size=1),
        lambda: store.put("a", b"1", size=1, create_only=True),
        lambda: store.put("a", b"1", size=1, if_match="1"),
        lambda: store.put("a", io.BytesIO(large), size=len(large), create_only=True),
        lambda: store.origin("a"),
        lambda: store.copy("b", Origin(store.service or "", "/b/o/a", "1", 1, 0, bytes(16)), create_only=True),
        lambda: store.delete("a"),
        lambda: store.delete("a", if_match="1"),
    ]
    return found


def require_possible(found: object) -> None:
    """What a store gives can be entered into a journal: sizes and times of at most 63 bits, MD5s of 16 bytes."""
    for each in found if isinstance(found, list) else [found]:
        if isinstance(each, StoredObject):
            assert 0 <= each.size < MOST
            assert -MOST < each.time_us < MOST
            assert each.checksum is None or len(each.checksum.md5) == 16


FUZZED = settings(
    max_examples=400 if THOROUGH else 60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def liar() -> Iterator[Liar]:
    with Liar() as liar:
        yield liar


OPENED: dict[str, Callable[[int], AbstractContextManager[Stored]]] = {"azure": azure, "s3": s3, "google": google}


@pytest.fixture(scope="module", params=OPENED)
def store(request: pytest.FixtureRequest, liar: Liar) -> Iterator[Stored]:
    with OPENED[request.param](liar.port) as store:
        yield store


def documents(number: str, date: str) -> list[bytes]:
    """What the services say, as they say it, but for a number and a date."""
    blob = f"<Content-Length>{number}</Content-Length><Last-Modified>{date}</Last-Modified><Etag>0x8D</Etag>"
    entry = f"<Key>p/a</Key><Size>{number}</Size><LastModified>{date}</LastModified><ETag>0</ETag>"
    detail = f"Signature not valid in the specified time frame: Expiry [{date}] - Current [{date}]"
    said = f'"size": "{number}", "generation": "1", "timeCreated": "{date}", "name": "p/a"'
    bare = f'"size": {number or 0}, "generation": "1", "timeCreated": "{date}", "name": "p/a"'
    return [
        b"1",
        f"<Error><Code>AuthenticationFailed</Code><Message>&#{number};</Message>"
        f"<AuthenticationErrorDetail>{detail}</AuthenticationErrorDetail></Error>".encode(),
        f'<EnumerationResults ContainerName="c"><Blobs><Blob><Name>p/a</Name><Properties>{blob}</Properties></Blob>'
        "</Blobs><NextMarker/></EnumerationResults>".encode(),
        f"<ListBucketResult><IsTruncated>false</IsTruncated><Contents>{entry}</Contents></ListBucketResult>".encode(),
        f'{{"kind": "storage#object", {said}}}'.encode(),
        f'{{"kind": "storage#object", {bare}}}'.encode(),
        f'{{"kind": "storage#objects", "items": [{{{said}}}]}}'.encode(),
    ]


IMPOSSIBLE = [(DIGITS, DATES[0]), *(("1", each) for each in (DATES[1], DATES[2], OFFSET))]
if THOROUGH:
    IMPOSSIBLE = [*((each, DATES[0]) for each in NUMBERS), *(("1", each) for each in DATES)]


@pytest.mark.parametrize(("number", "date"), IMPOSSIBLE)
def test_one_thing_that_cannot_be(store: Stored, liar: Liar, figures: Figures, number: str, date: str) -> None:
    """Everything else is as the service says it, so that it is believed up to there."""
    asked = number if date == DATES[0] else date
    given = [("ETag", '"1"'), ("Last-Modified", date), ("Date", date), ("Retry-After", asked)]
    given += [("Content-Range", f"bytes 0-0/{number}"), ("Range", f"bytes=0-{number}"), ("x-goog-generation", "1")]
    content, refusal, *rest = documents(number, date)
    said = [*((each, content) for each in ("200", "201", "206")), ("403", refusal), ("503", refusal)]
    for status, body in [*said, *(("200", each) for each in rest)]:
        liar.say(status, given, body, marked=True)
        for ask in operations(store)[:8]:
            figures.count("hostile responses of a service")
            try:
                require_possible(ask())
            except StorageError as error:
                assert str(error)


@FUZZED
@given(which=st.integers(0, 13), status=STATUSES, headers=HEADERS, body=BODIES, marked=st.booleans())
def test_only_errors_of_ours_leave_a_store(
    store: Stored,
    liar: Liar,
    figures: Figures,
    which: int,
    status: str,
    headers: list[tuple[str, str]],
    body: bytes,
    marked: bool,  # noqa: FBT001
) -> None:
    liar.say(status, headers, body, marked=marked)
    figures.count("hostile responses of a service")
    ask = operations(store)[which]
    try:
        require_possible(ask())
    except StorageError as error:
        assert str(error)


@FUZZED
@given(status=STATUSES, headers=HEADERS, body=BODIES, size=st.sampled_from(NUMBERS), date=st.sampled_from(DATES))
def test_only_errors_of_ours_leave_a_web_site(
    liar: Liar, figures: Figures, status: str, headers: list[tuple[str, str]], body: bytes, size: str, date: str
) -> None:
    told = [("Content-Range", f"bytes 0-0/{size}"), ("Last-Modified", date)]
    liar.say(status, [*told, *headers], body, marked=False)
    figures.count("hostile responses of a web site")
    for root in (f"http://127.0.0.1:{liar.port}/data/", f"http://127.0.0.1:{liar.port}/data/a"):
        with WebSource(Web(root, WebAccess(), Network(), NOW), connections=1) as source:
            for ask in (lambda: source.stat("a"), lambda: list(source.walk())):
                try:
                    found = ask()
                except (ChorusError, OSError) as error:
                    assert str(error)
                    continue
                for each in found if isinstance(found, list) else []:
                    assert all(0 <= entry.size < MOST and abs(entry.mtime_us) < MOST for entry in each.entries)


@pytest.mark.parametrize("moment", DATES)
def test_a_token_that_ends_when_there_is_no_day(moment: str) -> None:
    token = f"sv=2025-01-05&se={quote(moment)}&st={quote(moment)}&sp=racwdl&sr=c&sig=x"
    read = read_sas(SecretStr(token))
    assert SasToken(token).expires == read.expires
    if read.expires is not None:
        assert in_words(read.expires)
    said = [*errors_of(read, needs="r", now=datetime.now(UTC)), *warnings_of(read, now=datetime.now(UTC))]
    assert said or read.expires is not None


def test_what_a_share_says_of_a_file_fits_into_a_journal() -> None:
    assert FileStat.told(2**64 - 1, 2**64 * 1_000_000) == FileStat(MOST - 1, MOST - 1)
    assert FileStat.told(-1, -(2**70)) == FileStat(0, 1 - MOST)
    huge = paramiko.SFTPAttributes()
    huge.st_size, huge.st_mtime, huge.st_mode = 2**64 - 1, 2**63, 0o100644
    assert described_by_sftp("a", huge).state == FileStat(MOST - 1, MOST - 1)
