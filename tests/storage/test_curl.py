"""The one way to the network: whom it trusts, which way it takes, what it takes for an answer, when it gives up."""

from __future__ import annotations

import base64
import gzip
import io
import logging
import mmap
import os
import re
import shutil
import socket
import ssl
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Self

import pytest
import requests

from chorus_upload.config.bandwidth import BandwidthLimit
from chorus_upload.errors import AccessDenied, TlsError, TransientError
from chorus_upload.storage.azure import AzureStore
from chorus_upload.storage.azure_credentials import SasToken
from chorus_upload.storage.bandwidth import Throttle
from chorus_upload.storage.curl import (
    Answer,
    GivenUp,
    HttpClient,
    NoAnswer,
    NotTrusted,
    ProxyRefused,
    TimedOut,
)
from chorus_upload.storage.curl_adapter import CurlAdapter
from chorus_upload.storage.network import Network
from chorus_upload.storage.retry import Retry
from tests.emulators import Authority
from tests.relay import Relay

MIB = 1 << 20
HOST = "storage.hospital.example"
HOST_IN_A_MESSAGE = re.escape(HOST)
SECRET = "VerySecret0123456789"
NO_EXPECT = ("Expect:",)
HASH_OF_ITS_NAME = "f02aea1c.0"
"""What `openssl rehash` calls the certificate of an `Authority`."""


@dataclass(frozen=True, slots=True)
class Heard:
    """One request as it arrived."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def method(self) -> str:
        return self.line.partition(" ")[0]


class Line:
    """One connection, on the service's side."""

    def __init__(self, service: Service, connection: socket.socket) -> None:
        self._service = service
        self.socket = connection
        self._rest = b""

    def hear(self, *, pause: float = 0.0) -> Heard | None:
        """The next request, whose body is taken off the line with a pause before each piece; None at the end."""
        while b"\r\n\r\n" not in self._rest:
            piece = self.socket.recv(65_536)
            if not piece:
                return None
            self._rest += piece
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        size = int(headers.get("content-length", 0))
        while len(self._rest) < size:
            time.sleep(pause)
            piece = self.socket.recv(65_536)
            if not piece:
                return None
            self._rest += piece
        body, self._rest = self._rest[:size], self._rest[size:]
        heard = Heard(first, headers, body)
        self._service.heard.append(heard)
        return heard

    def say(self, text: bytes) -> None:
        self.socket.sendall(text)

    def answer(self, body: bytes = b"", *, status: str = "200 OK", more: str = "") -> None:
        self.say(f"HTTP/1.1 {status}\r\n{more}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    def answer_all(self) -> None:
        """Answer every request with its own body."""
        while (heard := self.hear()) is not None:
            self.answer(heard.body)


Talk = Callable[[Line], object]
Kind = Callable[[bytes], bytes | memoryview]


@dataclass(slots=True)
class Service:
    """Listens on a port of its own, and has `talk` deal with each connection."""

    talk: Talk = Line.answer_all
    tls: ssl.SSLContext | None = None
    address: str = "127.0.0.1"
    heard: list[Heard] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    _server: socket.socket = field(init=False)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __post_init__(self) -> None:
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        self._server = socket.create_server((self.address, 0), family=family)

    @property
    def port(self) -> int:
        return int(self._server.getsockname()[1])

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        if self.tls is not None:
            self.tls.sni_callback = lambda _, name, __: self.names.append(name)
        self._start(self._accept)
        return self

    def __exit__(self, *exc: object) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for line in list(self.lines):
            with suppress(OSError):
                line.socket.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    def _start(self, run: Callable[[], None]) -> None:
        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self._start(partial(self._serve, connection))

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(30)
        try:
            if self.tls is not None:
                connection = self.tls.wrap_socket(connection, server_side=True)
            line = Line(self, connection)
            self.lines.append(line)
            self.talk(line)
        except OSError:  # a client that hangs up is no news here
            pass
        finally:
            connection.close()


def hang_up(_: Line) -> None:
    """An orderly end, without a word."""


def reset(line: Line) -> None:
    """An end that the other side notices as an error."""
    line.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def saying(*answers: bytes, then: Talk = hang_up) -> Talk:
    """Says the answers, whatever is asked, one for each request; then goes on with `then`, or hangs up."""

    def talk(line: Line) -> None:
        for answer in answers:
            if line.hear() is None:
                return
            line.say(answer)
        then(line)

    return talk


def silent(line: Line) -> None:
    """Takes what comes until the client hangs up."""
    while line.socket.recv(65_536):
        pass


@contextmanager
def client_of(
    url: str, network: Network | None = None, *, endpoint_ip: str | None = None, throttle: Throttle | None = None
) -> Iterator[HttpClient]:
    client = HttpClient(url, network or Network(), endpoint_ip=endpoint_ip, throttle=throttle)
    yield client
    client.close()


def get(url: str, network: Network | None = None, *, endpoint_ip: str | None = None, silence: float = 5) -> Answer:
    """One request with a client of its own."""
    with client_of(url, network, endpoint_ip=endpoint_ip) as client:
        return client.request("GET", f"{url}/a", NO_EXPECT, silence=silence)


def texts_of(error: BaseException) -> str:
    """All that anybody could see of an exception."""
    found, pending = "", [error]
    while pending:
        each = pending.pop()
        found += "".join([*traceback.format_exception(each), repr(each), repr(each.args), repr(vars(each))])
        pending += [other for other in (each.__cause__, each.__context__) if other is not None]
    return found


@pytest.fixture
def authority(scratch: Path) -> Authority:
    return Authority(scratch)


@pytest.fixture
def trusting(authority: Authority) -> Network:
    return Network(ca_bundle=authority.bundle)


class TestTrust:
    def test_an_unknown_issuer(self, authority: Authority) -> None:
        with Service(tls=authority.server("127.0.0.1")) as service:
            with pytest.raises(NotTrusted, match=r"not trusted: .*issuer"):
                get(service.url)
            assert service.heard == []

    def test_a_certificate_of_another_host(self, authority: Authority, trusting: Network) -> None:
        with Service(tls=authority.server("127.0.0.2", "localhost")) as service:
            with pytest.raises(NotTrusted, match=r"127\.0\.0\.1"):
                get(service.url, trusting)
            assert service.heard == []

    def test_an_expired_certificate(self, authority: Authority, trusting: Network) -> None:
        with Service(tls=authority.server("127.0.0.1", until=-timedelta(hours=1))) as service:
            with pytest.raises(NotTrusted, match="expired"):
                get(service.url, trusting)
            assert service.heard == []

    def test_the_hospitals_own(self, authority: Authority, trusting: Network) -> None:
        with Service(tls=authority.server("127.0.0.1")) as service:
            assert get(service.url, trusting).status == 200

    def test_it_is_all_that_is_trusted(self, authority: Authority, scratch: Path) -> None:
        (scratch / "other").mkdir()
        other = Authority(scratch / "other")
        with Service(tls=authority.server("127.0.0.1")) as service, pytest.raises(NotTrusted):
            get(service.url, Network(ca_bundle=other.bundle))

    @pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
    def test_named_by_the_environment(
        self, authority: Authority, monkeypatch: pytest.MonkeyPatch, scratch: Path, variable: str
    ) -> None:
        monkeypatch.setenv(variable, str(authority.bundle))
        with Service(tls=authority.server("127.0.0.1")) as service:
            assert get(service.url).status == 200
            with pytest.raises(NotTrusted, match="cannot be read"):
                get(service.url, Network(ca_bundle=scratch / "other.pem"))

    def test_a_file_with_a_name_that_is_not_ascii(self, authority: Authority, scratch: Path) -> None:
        bundle = authority.bundle.rename(scratch / "Charité, Prüfstelle.pem")
        with Service(tls=authority.server("127.0.0.1")) as service:
            assert get(service.url, Network(ca_bundle=bundle)).status == 200

    def test_a_directory_as_openssl_rehash_makes_it(self, authority: Authority, scratch: Path) -> None:
        (scratch / "trusted").mkdir()
        shutil.copy(authority.bundle, scratch / "trusted" / HASH_OF_ITS_NAME)
        with Service(tls=authority.server("127.0.0.1")) as service:
            assert get(service.url, Network(ca_bundle=scratch / "trusted")).status == 200

    def test_an_empty_directory(self, authority: Authority, scratch: Path) -> None:
        (scratch / "trusted").mkdir()
        with Service(tls=authority.server("127.0.0.1")) as service, pytest.raises(NotTrusted, match="issuer"):
            get(service.url, Network(ca_bundle=scratch / "trusted"))

    def test_a_file_that_is_not_there(self, authority: Authority, scratch: Path) -> None:
        with (
            Service(tls=authority.server("127.0.0.1")) as service,
            pytest.raises(NotTrusted, match=r"cannot be read: .*missing\.pem"),
        ):
            get(service.url, Network(ca_bundle=scratch / "missing.pem"))

    def test_a_file_without_certificates(self, authority: Authority, scratch: Path) -> None:
        (scratch / "empty.pem").write_text("nothing of the kind\n")
        with (
            Service(tls=authority.server("127.0.0.1")) as service,
            pytest.raises(NotTrusted, match=r"cannot be read: .*empty\.pem"),
        ):
            get(service.url, Network(ca_bundle=scratch / "empty.pem"))

    def test_a_service_that_does_not_speak_tls(self, trusting: Network) -> None:
        with (
            Service(lambda line: line.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as service,
            pytest.raises(NotTrusted, match="no secure connection"),
        ):
            get(service.url.replace("http:", "https:"), trusting)

    def test_a_service_that_hangs_up_before_it_has_proven_anything_is_asked_again(self, trusting: Network) -> None:
        for end in (hang_up, reset):
            with Service(end) as service, pytest.raises(NoAnswer) as caught:
                get(service.url.replace("http:", "https:"), trusting)
            assert type(caught.value) is NoAnswer


def loopbacks() -> Iterator[str]:
    """The addresses of this machine: one, or two."""
    for address in ("127.0.0.1", "::1"):
        with suppress(OSError), Service(address=address):
            yield address


class TestPrivateEndpoint:
    """The name of the service leads nowhere, or elsewhere: the configuration says at which address it is."""

    @pytest.mark.parametrize("address", list(loopbacks()))
    def test_it_is_asked_under_its_name(self, authority: Authority, trusting: Network, address: str) -> None:
        with Service(tls=authority.server(HOST), address=address) as service:
            for host in (HOST, HOST.upper()):
                assert get(f"https://{host}:{service.port}", trusting, endpoint_ip=address).status == 200
            assert service.heard[0].headers["host"] == f"{HOST}:{service.port}"
            assert service.names[0] == HOST

    @pytest.mark.parametrize("address", list(loopbacks()))
    def test_it_has_to_prove_its_name(self, authority: Authority, trusting: Network, address: str) -> None:
        with Service(tls=authority.server("other.hospital.example", address), address=address) as service:
            with pytest.raises(NotTrusted, match=HOST_IN_A_MESSAGE):
                get(f"https://{HOST}:{service.port}", trusting, endpoint_ip=address)
            assert service.heard == []

    def test_the_connection_is_kept(self, authority: Authority, trusting: Network) -> None:
        with Service(tls=authority.server(HOST)) as service:
            url = f"https://{HOST}:{service.port}"
            with client_of(url, trusting, endpoint_ip="127.0.0.1") as client:
                for _ in range(3):
                    client.request("GET", url, NO_EXPECT)
            assert len(service.lines) == 1

    def test_without_it_the_name_leads_nowhere(self, trusting: Network) -> None:
        with pytest.raises(NoAnswer, match=f"resolve host: {HOST}"):
            get(f"https://{HOST}", trusting)


@pytest.fixture
def hidden(authority: Authority) -> Iterator[Service]:
    """A service whose name does not resolve here: only a proxy can reach it."""
    with Service(tls=authority.server(HOST)) as service:
        yield service


@pytest.fixture
def hidden_url(hidden: Service) -> str:
    return f"https://{HOST}:{hidden.port}"


def through(proxy: str, trusting: Network) -> Network:
    return Network(ca_bundle=trusting.ca_bundle, proxy=proxy)


def forward(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)


class TestProxy:
    def test_the_service_is_asked_through_it(self, hidden: Service, hidden_url: str, trusting: Network) -> None:
        with Relay(hidden.port, is_proxy=True) as relay:
            network = through(f"http://127.0.0.1:{relay.port}", trusting)
            with client_of(hidden_url, network) as client:
                for number in range(3):
                    body = b"x" * number * MIB
                    assert client.request("PUT", f"{hidden_url}/a", NO_EXPECT, body).body == body
        assert relay.asked == [f"CONNECT {HOST}:{hidden.port} HTTP/1.1"]
        assert "Proxy-Authorization" not in relay.heads[0]
        assert hidden.names == [HOST]
        assert [heard.line for heard in hidden.heard] == ["PUT /a HTTP/1.1"] * 3

    def test_the_headers_of_a_request_are_not_for_the_proxy(
        self, hidden: Service, hidden_url: str, trusting: Network
    ) -> None:
        with Relay(hidden.port, is_proxy=True) as relay:
            with client_of(hidden_url, through(f"http://127.0.0.1:{relay.port}", trusting)) as client:
                client.request("GET", f"{hidden_url}/a?sig={SECRET}", (f"Authorization: Bearer {SECRET}",))
            assert SECRET not in relay.heads[0]
        assert hidden.heard[0].headers["authorization"] == f"Bearer {SECRET}"

    def test_the_service_has_to_prove_its_name_all_the_same(self, authority: Authority, trusting: Network) -> None:
        with (
            Service(tls=authority.server("other.hospital.example", "127.0.0.1")) as service,
            Relay(service.port, is_proxy=True) as relay,
        ):
            with pytest.raises(NotTrusted, match=HOST_IN_A_MESSAGE):
                get(f"https://{HOST}:{service.port}", through(f"http://127.0.0.1:{relay.port}", trusting))
            assert service.heard == []

    def test_an_unknown_issuer_behind_it(self, hidden: Service, hidden_url: str) -> None:
        with Relay(hidden.port, is_proxy=True) as relay, pytest.raises(NotTrusted, match="issuer"):
            get(hidden_url, Network(proxy=f"http://127.0.0.1:{relay.port}"))
        assert hidden.heard == []

    def test_it_is_told_the_address_of_a_private_endpoint(
        self, hidden: Service, hidden_url: str, trusting: Network
    ) -> None:
        with Relay(hidden.port, is_proxy=True) as relay:
            network = through(f"http://127.0.0.1:{relay.port}", trusting)
            assert get(hidden_url, network, endpoint_ip="10.1.2.3").status == 200
        assert relay.asked == [f"CONNECT 10.1.2.3:{hidden.port} HTTP/1.1"]
        assert hidden.names == [HOST]

    @pytest.mark.parametrize(
        ("written", "meant"), [("user:pass%40word", "user:pass@word"), ("jörg:käse", "jörg:käse"), ("user", "user:")]
    )
    def test_it_is_told_user_and_password(
        self, hidden: Service, hidden_url: str, trusting: Network, written: str, meant: str
    ) -> None:
        with Relay(hidden.port, is_proxy=True) as relay:
            assert get(hidden_url, through(f"http://{written}@127.0.0.1:{relay.port}", trusting)).status == 200
        assert f"Proxy-Authorization: Basic {base64.b64encode(meant.encode()).decode()}" in relay.heads[0]
        assert "proxy-authorization" not in hidden.heard[0].headers

    def test_one_that_speaks_tls_has_to_be_trusted(
        self, authority: Authority, hidden_url: str, trusting: Network
    ) -> None:
        refusing = saying(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        with Service(refusing, tls=authority.server("127.0.0.1")) as proxy:
            with pytest.raises(NotTrusted, match="issuer"):
                get(hidden_url, Network(proxy=proxy.url))
            assert proxy.heard == []
            with pytest.raises(ProxyRefused, match="403"):
                get(hidden_url, through(proxy.url, trusting))
            assert len(proxy.heard) == 1

    @pytest.mark.parametrize(
        ("refusal", "said"), [("407 Proxy Authentication Required", "user and a password"), ("403 Forbidden", "403")]
    )
    def test_one_that_refuses(
        self, hidden: Service, hidden_url: str, trusting: Network, refusal: str, said: str
    ) -> None:
        with Relay(hidden.port, is_proxy=True, refusal=refusal) as relay:
            network = through(f"http://user:{SECRET}@127.0.0.1:{relay.port}", trusting)
            with pytest.raises(ProxyRefused, match=said) as caught:
                get(hidden_url, network)
            assert SECRET not in texts_of(caught.value)
        assert hidden.heard == []

    @pytest.mark.parametrize("refusal", ["502 Bad Gateway", "503 Busy", "504 Gateway Timeout", "429 Too Many Requests"])
    def test_one_that_is_in_trouble_has_not_refused(
        self, hidden: Service, hidden_url: str, trusting: Network, refusal: str
    ) -> None:
        with Relay(hidden.port, is_proxy=True, refusal=refusal) as relay:
            with pytest.raises(NoAnswer, match=f"proxy.*{refusal[:3]}") as caught:
                get(hidden_url, through(f"http://127.0.0.1:{relay.port}", trusting))
            assert type(caught.value) is NoAnswer

    def test_one_that_speaks_socks_and_knows_the_names(
        self, hidden: Service, hidden_url: str, trusting: Network
    ) -> None:
        asked: list[bytes] = []

        def talk(line: Line) -> None:
            greeting = line.socket.recv(100)
            assert greeting[0] == 5
            line.say(b"\x05\x00")
            asked.append(line.socket.recv(300))
            with socket.create_connection(("127.0.0.1", hidden.port)) as service:
                line.say(b"\x05\x00\x00\x01" + bytes(6))
                threading.Thread(target=forward, args=(service, line.socket), daemon=True).start()
                forward(line.socket, service)

        with Service(talk) as proxy:
            body = os.urandom(MIB)
            with client_of(hidden_url, through(f"socks5h://127.0.0.1:{proxy.port}", trusting)) as client:
                assert client.request("PUT", f"{hidden_url}/a", NO_EXPECT, body).body == body
        assert asked == [b"\x05\x01\x00\x03" + bytes([len(HOST)]) + HOST.encode() + hidden.port.to_bytes(2)]

    def test_no_password_is_ever_shown(self, hidden: Service, hidden_url: str, trusting: Network) -> None:
        with Relay(hidden.port) as gone:
            nobody = gone.port
        with (
            Service(hang_up) as hanging_up,
            Service(saying(b"HTTP/1.1 200")) as breaking_off,
            Service(saying(b"what do you want?\r\n\r\n")) as confused,
        ):
            ports = (nobody, hanging_up.port, breaking_off.port, confused.port)
            places = [f"127.0.0.1:{port}" for port in ports]
            places += ["proxy.invalid:3128", "127.0.0.1:99999", "127.0.0.1:port", "a b:3128", "[::1:3128", ""]
            proxies = [f"http://user:{SECRET}@{place}" for place in places]
            proxies += [f"user:{SECRET}@{places[0]}", f"what://user:{SECRET}@{places[0]}", f"http://u:{SECRET}\n@x"]
            for proxy in proxies:
                with pytest.raises(NoAnswer) as caught:
                    get(hidden_url, through(proxy, trusting))
                assert SECRET not in texts_of(caught.value)
                assert SECRET not in repr(through(proxy, trusting))
        assert hidden.heard == []


class TestProxyOfTheEnvironment:
    @pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
    def test_it_is_used(
        self, hidden: Service, hidden_url: str, trusting: Network, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        with Relay(hidden.port, is_proxy=True) as relay:
            monkeypatch.setenv(name, f"http://127.0.0.1:{relay.port}")
            assert get(hidden_url, trusting).status == 200
        assert relay.asked == [f"CONNECT {HOST}:{hidden.port} HTTP/1.1"]

    def test_one_without_a_scheme(
        self, hidden: Service, hidden_url: str, trusting: Network, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Relay(hidden.port, is_proxy=True) as relay:
            monkeypatch.setenv("HTTPS_PROXY", f"127.0.0.1:{relay.port}")
            assert get(hidden_url, trusting).status == 200
        assert len(relay.asked) == 1

    @pytest.mark.parametrize("exempt", [HOST, ".hospital.example", "hospital.example", "*", f"x.example, {HOST}"])
    def test_some_hosts_are_exempt(
        self, hidden: Service, hidden_url: str, trusting: Network, monkeypatch: pytest.MonkeyPatch, exempt: str
    ) -> None:
        monkeypatch.setenv("NO_PROXY", exempt)
        with Relay(hidden.port, is_proxy=True) as relay:
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{relay.port}")
            assert get(hidden_url, trusting, endpoint_ip="127.0.0.1").status == 200
        assert relay.connections == 0

    @pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost"])
    def test_this_machine_is_never_asked_through_it(
        self, authority: Authority, trusting: Network, monkeypatch: pytest.MonkeyPatch, host: str
    ) -> None:
        with Service(tls=authority.server(host), address="0.0.0.0") as service:  # noqa: S104 - all of 127/8
            for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
                monkeypatch.setenv(name, "http://proxy.invalid:3128")
            assert get(f"https://{host}:{service.port}", trusting).status == 200

    def test_none_is_wanted(
        self, hidden: Service, hidden_url: str, trusting: Network, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTPS_PROXY", "http://proxy.invalid:3128")
        assert get(hidden_url, through("", trusting), endpoint_ip="127.0.0.1").status == 200

    def test_another_one_is_wanted(
        self, hidden: Service, hidden_url: str, trusting: Network, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTPS_PROXY", "http://proxy.invalid:3128")
        for exempt in ("", "*", HOST):
            monkeypatch.setenv("NO_PROXY", exempt)
            with Relay(hidden.port, is_proxy=True) as relay:
                network = through(f"http://127.0.0.1:{relay.port}", trusting)
                assert get(hidden_url, network, endpoint_ip="127.0.0.1").status == 200
            assert len(relay.asked) == 1


class TestAnswers:
    def test_a_whole_one(self) -> None:
        head = b"HTTP/1.1 201 All is well\r\nETag: 1\r\nx-ms-REQUEST-id:  a: b \r\nContent-Length: 4\r\n\r\n"
        with Service(saying(head + b"\0\xff\r\n")) as service:
            found = get(service.url)
        assert (found.status, found.reason, found.body) == (201, "All is well", b"\0\xff\r\n")
        assert found.headers == {"etag": "1", "x-ms-request-id": "a: b", "content-length": "4"}

    @pytest.mark.parametrize("length", ["Content-Length: 0", "Connection: close", "Transfer-Encoding: chunked"])
    def test_one_without_a_body(self, length: str) -> None:
        rest = b"0\r\n\r\n" if "chunked" in length else b""
        with Service(saying(f"HTTP/1.1 200\r\n{length}\r\n\r\n".encode() + rest)) as service:
            found = get(service.url)
        assert (found.status, found.reason, found.body) == (200, "", b"")

    @pytest.mark.parametrize("status", [204, 304])
    def test_one_that_cannot_have_a_body(self, status: int) -> None:
        with Service(saying(f"HTTP/1.1 {status} x\r\nEtag: 1\r\n\r\n".encode(), then=silent)) as service:
            assert get(service.url).status == status

    def test_to_head(self) -> None:
        with (
            Service(saying(b"HTTP/1.1 200 OK\r\nContent-Length: 123456\r\n\r\n", then=Line.answer_all)) as service,
            client_of(service.url) as client,
        ):
            found = client.request("HEAD", f"{service.url}/a", NO_EXPECT, silence=2)
            assert (found.status, found.headers["content-length"], found.body) == (200, "123456", b"")
            assert client.request("PUT", f"{service.url}/a", NO_EXPECT, b"1").body == b"1"
            assert len(service.lines) == 1

    def test_in_chunks(self) -> None:
        chunks = b"4\r\nfirs\r\n3;x=y\r\nt, \r\n6\r\nsecond\r\n0\r\n"
        for trailer in (b"\r\n", b"x-ms-late: 1\r\n\r\n"):
            whole = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + trailer
            with Service(saying(whole, then=silent)) as service:
                assert get(service.url).body == b"first, second"

    @pytest.mark.parametrize("status", ["100 Continue", "102 Processing", "103 Early Hints"])
    def test_one_that_is_announced(self, status: str) -> None:
        announced = f"HTTP/1.1 {status}\r\nEtag: of the announcement\r\nLink: x\r\n\r\n".encode()
        with Service(saying(2 * announced + b"HTTP/1.1 200 OK\r\nEtag: 1\r\nContent-Length: 1\r\n\r\nx")) as service:
            found = get(service.url)
        assert (found.status, found.headers, found.body) == (200, {"etag": "1", "content-length": "1"}, b"x")

    @pytest.mark.parametrize("end", [hang_up, reset])
    @pytest.mark.parametrize("status", ["100 Continue", "103 Early Hints"])
    def test_an_announcement_is_none(self, status: str, end: Talk) -> None:
        with Service(saying(f"HTTP/1.1 {status}\r\n\r\n".encode(), then=end)) as service, pytest.raises(NoAnswer):
            get(service.url)

    WHOLE = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nEtag: 1\r\nContent-Length: 9\r\n\r\n123456789"
    CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n1234\r\n0\r\n\r\n"

    @pytest.mark.parametrize("whole", [WHOLE, CHUNKED])
    @pytest.mark.parametrize("method", ["GET", "PUT"])
    def test_one_that_breaks_off_is_none(self, whole: bytes, method: str) -> None:
        for length in range(len(whole)):
            with Service(saying(whole[:length])) as service, client_of(service.url) as client:
                with pytest.raises(NoAnswer) as caught:
                    client.request(method, f"{service.url}/a", NO_EXPECT, b"1", silence=5)
                assert type(caught.value) is NoAnswer
                assert str(caught.value)

    def test_one_that_breaks_off_with_an_error(self) -> None:
        for length in (0, 5, len(self.WHOLE) - 1):
            with Service(saying(self.WHOLE[:length], then=reset)) as service, pytest.raises(NoAnswer):
                get(service.url)

    @pytest.mark.parametrize("text", [b"what?", b"\r\n\r\n", b"220 mail.example ESMTP\r\n", b"HTTP/1.1 OK\r\n\r\n"])
    def test_what_is_not_http_is_none(self, text: bytes) -> None:
        with Service(saying(text)) as service, pytest.raises(NoAnswer):
            get(service.url)

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    @pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
    def test_a_redirection_is_an_answer_like_any_other(self, status: int, method: str) -> None:
        with Service() as elsewhere:
            head = f"HTTP/1.1 {status} x\r\nLocation: {elsewhere.url}/a\r\nContent-Length: 0\r\n\r\n"
            with Service(saying(head.encode())) as service, client_of(service.url) as client:
                found = client.request(method, f"{service.url}/a", NO_EXPECT, b"1")
            assert (found.status, found.headers["location"]) == (status, f"{elsewhere.url}/a")
            assert elsewhere.lines == []

    def test_an_answer_before_the_whole_body_was_sent(self) -> None:
        early = b"HTTP/1.1 403 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"

        def refuse(line: Line) -> None:
            line.socket.recv(1000)
            line.say(early)
            silent(line)

        with Service(refuse) as service, client_of(service.url) as client:
            found = client.request("PUT", f"{service.url}/a", NO_EXPECT, bytes(20 * MIB))
        assert (found.status, found.body) == (403, b"no")

    @pytest.mark.parametrize("length", ["Content-Length: 1000000000000", "Transfer-Encoding: chunked", "X: close"])
    def test_one_without_an_end_is_none(self, length: str) -> None:
        """It must not fill the memory."""
        chunk = b"10000\r\n" + bytes(65_536) + b"\r\n"
        ended = threading.Event()

        def talk(line: Line) -> None:
            line.hear()
            line.say(f"HTTP/1.1 200 OK\r\n{length}\r\n\r\n".encode())
            with suppress(OSError):
                while not ended.is_set():
                    line.say(chunk)

        with Service(talk) as service:
            with pytest.raises(NoAnswer, match="longer than any"):
                get(service.url)
            ended.set()

    def test_nobody_there(self) -> None:
        with Service() as service:
            url = service.url
        with pytest.raises(NoAnswer, match="refused"):
            get(url)


class TestWhatIsSent:
    @pytest.mark.parametrize("body", [b"", b"1", b"\0\r\n\xff" * 1000, os.urandom(9 * MIB)])
    @pytest.mark.parametrize("method", ["PUT", "POST"])
    @pytest.mark.parametrize("limit", [None, "1 GB/s"])
    @pytest.mark.parametrize("kind", [bytes, memoryview])
    def test_bodies_arrive(self, method: str, body: bytes, limit: str | None, kind: Kind) -> None:
        throttle = Throttle(BandwidthLimit.parse(limit)) if limit else None
        with Service() as service, client_of(service.url, throttle=throttle) as client:
            assert client.request(method, f"{service.url}/a?b", (*NO_EXPECT, "X-a: b"), kind(body)).body == body
            [heard] = service.heard
        assert heard.line == f"{method} /a?b HTTP/1.1"
        assert heard.headers["content-length"] == str(len(body))
        assert heard.headers["x-a"] == "b"
        assert not {"expect", "transfer-encoding"} & heard.headers.keys()

    @pytest.mark.parametrize("line", ["X-a: b\r\nX-c: d", "X-a: b\nX-c: d", "X-a\r: b"])
    def test_a_header_is_one_line(self, line: str) -> None:
        with Service() as service, client_of(service.url) as client:
            with pytest.raises(ValueError, match="more than one line"):
                client.request("PUT", f"{service.url}/a", (*NO_EXPECT, line), b"1")
            assert service.lines == []

    @pytest.mark.parametrize("limit", [None, "1 GB/s"])
    def test_one_request_leaves_nothing_for_the_next(self, limit: str | None) -> None:
        throttle = Throttle(BandwidthLimit.parse(limit)) if limit else None
        bodies = {"PUT": b"1" * 70_000, "POST": b"2", "GET": b"", "HEAD": b"", "DELETE": b""}
        rounds = [(one, other) for one in bodies for other in bodies]
        with Service() as service, client_of(service.url, throttle=throttle) as client:
            for methods in rounds:
                for method in methods:
                    found = client.request(method, f"{service.url}/a", (*NO_EXPECT, f"X-{method}: 1"), bodies[method])
                    assert found.body == bodies[method]
            assert len(service.lines) == 1
        for heard, method in zip(service.heard, (each for both in rounds for each in both), strict=True):
            assert (heard.method, heard.body) == (method, bodies[method])
            assert {name for name in heard.headers if name.startswith("x-")} == {f"x-{method.lower()}"}
            assert ("content-length" in heard.headers) == (method in ("PUT", "POST"))

    def test_bodies_are_forgotten_when_they_are_sent(self) -> None:
        """Else every thread would keep its last block in memory, whatever the budget is."""
        for limit in ("off", "1 GB/s"):
            throttle = Throttle(BandwidthLimit.parse(limit))
            with Service() as service, client_of(service.url, throttle=throttle) as client:
                body = os.urandom(MIB)
                before = sys.getrefcount(body)
                client.request("PUT", f"{service.url}/a", NO_EXPECT, body)
                assert sys.getrefcount(body) == before
                client.stop.set()
                with pytest.raises(GivenUp):
                    client.request("PUT", f"{service.url}/a", NO_EXPECT, body)
                assert sys.getrefcount(body) == before

    def test_views_of_memory_are_forgotten_as_well(self) -> None:
        for limit in ("off", "1 GB/s"):
            throttle = Throttle(BandwidthLimit.parse(limit))
            with Service() as service, client_of(service.url, throttle=throttle) as client:
                for is_to_end in (False, True):
                    memory = mmap.mmap(-1, MIB)
                    view = memoryview(memory)[: MIB - 5]
                    if is_to_end:
                        client.stop.set()
                    with suppress(GivenUp):
                        client.request("PUT", f"{service.url}/a", NO_EXPECT, view)
                    view.release()
                    memory.close()


class TestSilence:
    @pytest.mark.parametrize(("method", "size"), [("GET", 0), ("PUT", 0)])
    def test_a_service_that_says_nothing_is_given_up(self, method: str, size: int) -> None:
        with Service(silent) as service, client_of(service.url) as client:
            begun = time.monotonic()
            with pytest.raises(TimedOut):
                client.request(method, f"{service.url}/a", NO_EXPECT, bytes(size), silence=1)
            assert 0.9 < time.monotonic() - begun < 5

    def test_after_much_was_sent_it_takes_some_seconds_longer(self) -> None:
        with Service(silent) as service, client_of(service.url) as client:
            begun = time.monotonic()
            with pytest.raises(TimedOut):
                client.request("PUT", f"{service.url}/a", NO_EXPECT, bytes(MIB), silence=1)
            assert time.monotonic() - begun < 12

    def test_a_service_that_falls_silent_is_given_up(self) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n123"
        with Service(saying(head, then=silent)) as service:
            begun = time.monotonic()
            with pytest.raises(TimedOut):
                get(service.url, silence=1)
            assert time.monotonic() - begun < 12

    def test_a_service_that_takes_nothing_more_is_given_up(self) -> None:
        enough = threading.Event()
        with Service(lambda _: enough.wait(20)) as service, client_of(service.url) as client:
            begun = time.monotonic()
            with pytest.raises(TimedOut):
                client.request("PUT", f"{service.url}/a", NO_EXPECT, bytes(64 * MIB), silence=1)
            assert time.monotonic() - begun < 12
            enough.set()

    def test_a_slow_body_is_no_silence(self) -> None:
        def talk(line: Line) -> None:
            line.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            line.hear(pause=0.05)
            line.answer(b"thanks")

        with Service(talk) as service, client_of(service.url) as client:
            begun = time.monotonic()
            found = client.request("PUT", f"{service.url}/a", NO_EXPECT, bytes(4 * MIB), silence=1)
            assert time.monotonic() - begun > 2
        assert found.body == b"thanks"

    def test_a_slow_answer_is_no_silence(self) -> None:
        def talk(line: Line) -> None:
            line.hear()
            line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n")
            for _ in range(7):
                time.sleep(0.4)
                line.say(b"x")

        with Service(talk) as service:
            assert get(service.url, silence=1).body == b"xxxxxxx"

    def test_a_large_body_is_given_up_when_the_run_is_to_end(self) -> None:
        with Service(lambda line: line.hear(pause=0.1)) as service, client_of(service.url) as client:
            threading.Timer(0.3, client.stop.set).start()
            begun = time.monotonic()
            with pytest.raises(GivenUp):
                client.request("PUT", f"{service.url}/a", NO_EXPECT, bytes(256 * MIB))
            assert time.monotonic() - begun < 5
            with pytest.raises(GivenUp):
                client.request("PUT", f"{service.url}/a", NO_EXPECT, bytes(MIB))

    def test_what_is_small_is_finished_even_then(self) -> None:
        with Service() as service, client_of(service.url) as client:
            client.stop.set()
            assert client.request("PUT", f"{service.url}/a", NO_EXPECT, b"last words").body == b"last words"

    def test_a_body_that_is_held_back_is_given_up_as_well(self) -> None:
        throttle = Throttle(BandwidthLimit.parse("100 kB/s"))
        with Service(silent) as service, client_of(service.url, throttle=throttle) as client:
            threading.Timer(0.3, client.stop.set).start()
            begun = time.monotonic()
            with pytest.raises(GivenUp):
                client.request("PUT", f"{service.url}/a", NO_EXPECT, bytes(MIB))
            assert time.monotonic() - begun < 5


class TestConnections:
    def test_each_thread_keeps_one(self) -> None:
        with Service() as service, client_of(service.url) as client, ThreadPoolExecutor(8) as pool:
            ready = threading.Barrier(8)

            def work(number: int) -> None:
                ready.wait()
                for _ in range(50):
                    body = bytes([number]) * 1000
                    assert client.request("PUT", f"{service.url}/{number}", NO_EXPECT, body).body == body

            list(pool.map(work, range(8)))
            assert len(service.lines) == 8
        assert len(service.heard) == 400

    @pytest.mark.parametrize("end", [hang_up, reset])
    @pytest.mark.parametrize("limit", [None, "1 GB/s"])
    @pytest.mark.parametrize("size", [0, 10, 70_000, 3 * MIB])
    @pytest.mark.parametrize("kind", [bytes, memoryview])
    def test_one_that_the_service_closed_meanwhile_is_replaced(
        self, end: Talk, limit: str | None, size: int, kind: Kind
    ) -> None:
        throttle = Throttle(BandwidthLimit.parse(limit)) if limit else None
        received, closed = threading.Semaphore(0), threading.Semaphore(0)

        def talk(line: Line) -> None:
            if (heard := line.hear()) is not None:
                line.answer(heard.body)
                received.acquire(timeout=120)
            end(line)
            line.socket.close()
            closed.release()

        with Service(talk) as service, client_of(service.url, throttle=throttle) as client:
            for _ in range(4):
                body = os.urandom(size)
                assert client.request("PUT", f"{service.url}/a", NO_EXPECT, kind(body), silence=5).body == body
                received.release()
                closed.acquire(timeout=120)
            assert len(service.lines) == 4

    @pytest.mark.parametrize("limit", [None, "1 GB/s"])
    @pytest.mark.parametrize("end", [hang_up, reset])
    @pytest.mark.parametrize("kind", [bytes, memoryview])
    def test_one_that_the_service_closes_under_way_is_replaced(self, end: Talk, limit: str | None, kind: Kind) -> None:
        """At once when libcurl meets the end while it listens; at the next try when it meets it while it sends."""
        throttle = Throttle(BandwidthLimit.parse(limit)) if limit else None

        def talk(line: Line) -> None:
            if len(service.lines) > 1:
                line.answer_all()
                return
            line.hear()
            line.answer()
            line.socket.recv(300_000)
            end(line)

        body = os.urandom(3 * MIB)
        with Service(talk) as service, client_of(service.url, throttle=throttle) as client:
            client.request("PUT", f"{service.url}/a", NO_EXPECT)
            try:
                answer = client.request("PUT", f"{service.url}/a", NO_EXPECT, kind(body), silence=5)
            except NoAnswer as failure:
                assert "Send failure" in str(failure)
                answer = client.request("PUT", f"{service.url}/a", NO_EXPECT, kind(body), silence=5)
            assert answer.body == body
            assert len(service.lines) == 2

    def test_one_that_is_closed_by_agreement(self) -> None:
        close = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        with Service(saying(close)) as service, client_of(service.url) as client:
            for _ in range(3):
                assert client.request("PUT", f"{service.url}/a", NO_EXPECT, b"1").status == 200
            assert len(service.lines) == 3

    def test_after_trouble_the_next_request_is_like_any_other(self) -> None:
        def talk(line: Line) -> None:
            faults = [silent, reset, hang_up, saying(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1")]
            (faults[(len(service.lines) - 1) // 2] if len(service.lines) % 2 else Line.answer_all)(line)

        with Service(talk) as service, client_of(service.url) as client:
            for _ in range(4):
                with pytest.raises(NoAnswer):
                    client.request("PUT", f"{service.url}/a", NO_EXPECT, b"1", silence=1)
                assert client.request("PUT", f"{service.url}/a", NO_EXPECT, b"2").body == b"2"
                service.lines[-1].socket.shutdown(socket.SHUT_RDWR)


class TestHoldingBack:
    def test_bytes_flow_at_the_rate(self) -> None:
        throttle = Throttle(BandwidthLimit.parse("1 MB/s"))
        body = os.urandom(2_000_000)
        with Service() as service, client_of(service.url, throttle=throttle) as client:
            begun = time.monotonic()
            assert client.request("PUT", f"{service.url}/a", NO_EXPECT, body, silence=1).body == body
            assert 1.6 < time.monotonic() - begun < 4

    def test_threads_share_it(self) -> None:
        throttle = Throttle(BandwidthLimit.parse("1 MB/s"))
        with Service() as service, client_of(service.url, throttle=throttle) as client, ThreadPoolExecutor(8) as pool:
            bodies = [os.urandom(250_000) for _ in range(8)]

            def send(body: bytes) -> bytes:
                return client.request("PUT", f"{service.url}/a", NO_EXPECT, body, silence=1).body

            begun = time.monotonic()
            assert list(pool.map(send, bodies)) == bodies
            assert 1.6 < time.monotonic() - begun < 4

    def test_what_is_fetched_is_not_held_back(self) -> None:
        throttle = Throttle(BandwidthLimit.parse("1k"))
        whole = f"HTTP/1.1 200 OK\r\nContent-Length: {MIB}\r\n\r\n".encode() + bytes(MIB)
        with Service(saying(whole)) as service, client_of(service.url, throttle=throttle) as client:
            begun = time.monotonic()
            assert len(client.request("GET", f"{service.url}/a", NO_EXPECT).body) == MIB
            assert time.monotonic() - begun < 10


class TestSecrets:
    def test_no_failure_tells_what_was_asked(self, authority: Authority, trusting: Network) -> None:
        with Service() as gone:
            nobody = gone.url
        cut = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1"
        redirected = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nLocation: \0\r\nContent-Length: x\r\n\r\n1"
        with (
            Service(hang_up) as mute,
            Service(reset) as rude,
            Service(saying(cut)) as broken,
            Service(saying(redirected)) as odd,
            Service(silent) as quiet,
            Service(tls=authority.server("127.0.0.2")) as other,
            Service(tls=authority.server("127.0.0.1", until=-timedelta(days=1))) as old,
        ):
            urls = [each.url for each in (mute, rude, broken, odd, other, old)]
            urls += [nobody, "https://x.invalid", mute.url.replace("http:", "https:"), "ftp://127.0.0.1", "http://[:"]
            requests = [(f"{url}/a", method) for url in urls for method in ("GET", "PUT")]
            requests += [(f"{quiet.url}/a", "GET"), (f"{mute.url}/a b", "GET")]
            for target, method in requests:
                body = bytes(300_000) if method == "PUT" else b""
                with client_of(mute.url, trusting) as client, pytest.raises(NoAnswer) as caught:
                    client.request(
                        method, f"{target}?sv=1&sig={SECRET}", (f"Authorization: {SECRET}",), body, silence=1
                    )
                assert SECRET not in texts_of(caught.value)


class TestForTheSdk:
    """The same client below `requests`, as the SDK uses it."""

    @pytest.fixture
    def session(self) -> Iterator[requests.Session]:
        with requests.Session() as session:
            session.trust_env = False
            yield session

    def test_what_it_signs_is_what_is_sent(self, session: requests.Session) -> None:
        """A signature covers headers: none may be missing, changed or added."""
        with Service() as service, client_of(service.url) as client:
            session.mount("http://", CurlAdapter(client))
            for method in ("PUT", "POST", "DELETE", "GET"):
                mine = {"x-ms-a": "1", "x-ms-empty": "", "x-ms-meta-b": "x; y=z", "Content-MD5": "MQ=="}
                with session.request(method, f"{service.url}/a?b=c%20d", data=b"1", headers=mine) as found:
                    assert found.status_code == 200
                heard = service.heard[-1].headers
                assert {name: heard.get(name.lower()) for name in mine} == mine
                assert not {"content-type", "expect", "authorization"} & heard.keys()

    @pytest.mark.parametrize("body", [b"", b"text", "täxt", io.BytesIO(b"a stream")])
    def test_bodies_of_all_kinds(self, session: requests.Session, body: bytes | str | io.BytesIO) -> None:
        expected = body.encode() if isinstance(body, str) else body if isinstance(body, bytes) else body.getvalue()
        with Service() as service, client_of(service.url) as client:
            session.mount("http://", CurlAdapter(client))
            with session.put(f"{service.url}/a", data=body, stream=True) as found:
                assert found.content == expected

    def test_answers_of_all_kinds(self, session: requests.Session) -> None:
        head, packed = b"HTTP/1.1 200 OK\r\n", gzip.compress(b"body")
        answers = [
            head + b"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
            head + b"Content-Length: 4\r\nContent-Type: text/plain\r\n\r\nbody",
            head + f"Content-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n".encode() + packed,
        ]
        with Service(saying(*answers)) as service, client_of(service.url) as client:
            session.mount("http://", CurlAdapter(client))
            for _ in answers:
                with session.get(f"{service.url}/a", stream=True) as found:
                    assert b"".join(found.iter_content(2)) == b"body"


class TestForAStore:
    """What the user is told."""

    def store(self, url: str, network: Network, *, endpoint_ip: str | None = None) -> AzureStore:
        return AzureStore(
            url,
            "container",
            credential=SasToken(f"sv=1&sig={SECRET}"),
            network=network,
            endpoint_ip=endpoint_ip,
            retry=Retry(patience=0),
        )

    def each_request(self, store: AzureStore) -> list[Callable[[], object]]:
        return [
            lambda: list(store.scan()),
            lambda: store.stat("a"),
            lambda: store.open("a"),
            lambda: store.put("a", b"1", size=1),
            lambda: store.put("a", bytes(9 * MIB), size=9 * MIB),
            lambda: store.delete("a"),
        ]

    @pytest.mark.parametrize("refusal", ["407 Proxy Authentication Required", "403 Forbidden"])
    def test_a_proxy_that_refuses(
        self, hidden: Service, hidden_url: str, trusting: Network, refusal: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        with Relay(hidden.port, is_proxy=True, refusal=refusal) as relay:
            network = through(f"http://user:{SECRET}@127.0.0.1:{relay.port}", trusting)
            with self.store(hidden_url, network) as store:
                for act in self.each_request(store):
                    with pytest.raises(AccessDenied, match="proxy") as caught:
                        act()
                    assert "`proxy`" in (caught.value.hint or "")
                    assert SECRET not in texts_of(caught.value)
        assert SECRET not in caplog.text

    def test_a_proxy_in_trouble_is_met_with_patience(self, hidden: Service, hidden_url: str, trusting: Network) -> None:
        with (
            Relay(hidden.port, is_proxy=True, refusal="503 Busy") as relay,
            self.store(hidden_url, through(f"http://127.0.0.1:{relay.port}", trusting)) as store,
        ):
            for act in self.each_request(store):
                with pytest.raises(TransientError, match="proxy"):
                    act()

    def test_a_private_endpoint(self, authority: Authority, trusting: Network) -> None:
        def talk(line: Line) -> None:
            while line.hear() is not None:
                line.answer(status="503 Busy")

        with Service(talk, tls=authority.server(HOST)) as service:
            with self.store(f"https://{HOST}:{service.port}", trusting, endpoint_ip="127.0.0.1") as store:
                for act in self.each_request(store):
                    with pytest.raises(TransientError, match="503"):
                        act()
            assert [heard.headers["host"] for heard in service.heard] == [f"{HOST}:{service.port}"] * 6

    def test_somebody_else_at_a_private_endpoint(self, authority: Authority, trusting: Network) -> None:
        with Service(tls=authority.server("127.0.0.1")) as service:
            with self.store(f"https://{HOST}:{service.port}", trusting, endpoint_ip="127.0.0.1") as store:
                for act in self.each_request(store):
                    with pytest.raises(TlsError, match=HOST_IN_A_MESSAGE):
                        act()
            assert service.heard == []
