"""`auth_mode = "login"`: the token that `az` gives is asked for once, renewed in time, and never shown."""

from __future__ import annotations

import base64
import io
import json
import logging
import os
import socket
import ssl
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import CredentialUnavailableError

from chorus_upload.errors import AccessDenied, CredentialsExpired, StorageError
from chorus_upload.model import Twin
from chorus_upload.storage import azure_credentials
from chorus_upload.storage.azure import AzureStore
from chorus_upload.storage.azure_credentials import SCOPE, Access, AccountKey, CachedLogin, Login, SasToken
from chorus_upload.storage.network import Network
from chorus_upload.storage.retry import Retry
from tests.emulators import MARK, Authority, Azurite, EmulatorMissing, running_azurite
from tests.relay import Relay
from tests.wire import Answer, Fault, Request, Wire

MIB = 1 << 20
TENANT = "11111111-2222-3333-4444-555555555555"


def token_of(name: str, *, valid_for: float = 3600) -> str:
    """A token as Entra ID gives it, except that nobody signed it."""
    now = int(time.time())
    claims = {
        "aud": "https://storage.azure.com",
        "iss": f"https://sts.windows.net/{TENANT}/",
        "iat": now - 3600,
        "nbf": now - 3600,
        "exp": now + int(valid_for),
        "name": name,
    }
    parts = (json.dumps({"alg": "none", "typ": "JWT"}), json.dumps(claims), "signature")
    return ".".join(base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts)


@dataclass(frozen=True, slots=True)
class Az:
    """A program `az` on the path. It says what it is told to, and notes how it was started."""

    directory: Path

    def install(self) -> None:
        program = self.directory / "az"
        program.write_text(
            f"""#!/bin/sh
echo "$*" >>'{self.directory}/starts'
sleep "$(cat '{self.directory}/pause')"
if [ -e '{self.directory}/failure' ]; then cat '{self.directory}/failure' >&2; exit 1; fi
cat '{self.directory}/answer'
"""
        )
        program.chmod(0o755)
        self.is_slow(0)

    def gives(self, token: str, *, valid_for: float = 3600) -> None:
        """Let it give this token and say that it lives for so many seconds."""
        (self.directory / "failure").unlink(missing_ok=True)
        ends = time.time() + valid_for
        answer = {
            "accessToken": token,
            "expiresOn": time.strftime("%Y-%m-%d %H:%M:%S.000000", time.localtime(ends)),
            "expires_on": int(ends),
            "subscription": "22222222-2222-3333-4444-555555555555",
            "tenant": TENANT,
            "tokenType": "Bearer",
        }
        self.says(json.dumps(answer, indent=2))

    def says(self, text: str) -> None:
        (self.directory / "answer").write_text(text)

    def fails(self, text: str) -> None:
        (self.directory / "failure").write_text(text)

    def is_slow(self, seconds: float) -> None:
        (self.directory / "pause").write_text(str(seconds))

    @property
    def starts(self) -> list[str]:
        file = self.directory / "starts"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """An Azurite that speaks TLS and accepts logins."""
    directory = tmp_path_factory.mktemp("azurite-with-login")
    try:
        with running_azurite(directory, authority=Authority(directory)) as started:
            yield started
    except EmulatorMissing as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture
def container(service: Azurite) -> str:
    return service.create_container()


@pytest.fixture
def az(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Az:
    """Somebody is logged in with `az`, and in no other way."""
    for name in [each for each in os.environ if each.startswith(("AZURE_", "IDENTITY_", "MSI_", "IMDS_"))]:
        monkeypatch.delenv(name)
    # Without this, other ways to log in are tried first, and one of them asks the network.
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "AzureCliCredential")
    (tmp_path / "az").mkdir()
    program = Az(tmp_path / "az")
    program.install()
    program.gives(token_of("first"))
    monkeypatch.setenv("PATH", f"{program.directory}:{os.environ['PATH']}")
    return program


def open_store(service: Azurite, container: str, *, port: int | None = None, retry: Retry | None = None) -> AzureStore:
    assert service.authority is not None
    return AzureStore(
        service.url_at(port or service.port, scheme="https"),
        container,
        credential=Login(),
        network=Network(ca_bundle=service.authority.bundle),
        retry=retry or Retry(patience=0),
        block_size=MIB,
    )


@pytest.fixture
def store(az: Az, service: Azurite, container: str) -> Iterator[AzureStore]:
    assert az.starts == []
    with open_store(service, container) as opened:
        yield opened


def each_request(store: AzureStore) -> list[Callable[[], object]]:
    """Some are put together by us and some by the SDK: there must be no difference."""
    return [
        lambda: store.put("small", b"1", size=1),
        lambda: store.put("large", io.BytesIO(bytes(3 * MIB)), size=3 * MIB),
        lambda: store.stat("small"),
        lambda: list(store.scan()),
        lambda: store.open("small").close(),
        lambda: store.delete("large"),
    ]


def everything_in(error: BaseException) -> str:
    found, pending = "", [error]
    while pending:
        each = pending.pop()
        found += "".join(traceback.format_exception(each)) + repr(vars(each))
        pending += [other for other in (each.__cause__, each.__context__) if other is not None]
    return found


class TestOneStart:
    def test_is_enough_for_all_kinds_of_requests(
        self, az: Az, store: AzureStore, service: Azurite, container: str
    ) -> None:
        with service.service() as client, client.get_container_client(container) as opened:
            # Azurite does not look at the login for the source of a copy.
            opened.set_container_access_policy({}, public_access="blob")
        content = os.urandom(3 * MIB + 1)
        store.put("small", b"content", size=7, create_only=True)
        large = store.put("large", io.BytesIO(content), size=len(content), create_only=True)
        copy = store.put("copy", io.BytesIO(content), size=len(content), twin=Twin("large", large.etag))
        assert copy.spared == len(content)
        found = store.stat("large")
        assert found is not None
        assert found.etag == large.etag
        assert {each.key for each in store.scan()} == {"small", "large", "copy"}
        for key in ("large", "copy"):
            with store.open(key) as stream:
                assert stream.read() == content
        store.delete("small")
        assert store.stat("small") is None
        assert az.starts == ["account get-access-token --output json --resource https://storage.azure.com"]

    def test_is_enough_for_many_threads(self, az: Az, store: AzureStore) -> None:
        az.is_slow(0.3)
        with ThreadPoolExecutor(12) as pool:
            futures = [pool.submit(act) for number in range(4) for act in each_request(store)[: 4 if number else 2]]
            for each in futures:
                each.result(30)
        assert len(az.starts) == 1

    def test_is_not_made_before_something_is_asked(self, az: Az, service: Azurite, container: str) -> None:
        with open_store(service, container):
            pass
        assert az.starts == []


class TestRenewal:
    def test_comes_before_the_end(self, az: Az, store: AzureStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(azure_credentials, "_ASK_SECONDS", 0)
        az.gives(token_of("first"), valid_for=500)
        store.put("a", b"1", size=1)
        assert len(az.starts) == 1
        az.gives(token_of("second"))
        for act in each_request(store):
            act()
        assert len(az.starts) == 2

    def test_is_not_asked_for_with_every_request(self, az: Az, store: AzureStore) -> None:
        """`az` keeps tokens as well, and gives the same one until five minutes before it ends."""
        az.gives(token_of("first"), valid_for=400)
        for act in each_request(store) * 3:
            act()
        assert len(az.starts) == 1

    def test_that_fails_is_no_harm_while_the_old_one_lives(
        self, az: Az, store: AzureStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(azure_credentials, "_ASK_SECONDS", 0)
        az.gives(token_of("first"), valid_for=500)
        store.put("a", b"1", size=1)
        az.fails("ERROR: Please run 'az login' to setup account.\n")
        for act in each_request(store):
            act()
        assert len(az.starts) > 1
        az.gives(token_of("second"))
        for act in each_request(store):
            act()


class TestNoLogin:
    @pytest.mark.parametrize(
        "text",
        [
            "ERROR: Please run 'az login' to setup account.\n",
            "ERROR: The subscription of '' doesn't exist in cloud 'AzureCloud'.\n",
            "",
        ],
    )
    def test_says_what_to_do(self, az: Az, store: AzureStore, text: str) -> None:
        az.fails(text)
        for act in each_request(store):
            with pytest.raises(AccessDenied) as caught:
                act()
            assert "az login" in (caught.value.hint or "")

    @pytest.mark.parametrize(
        "text",
        [
            "ERROR: AADSTS70043: The refresh token has expired or is invalid due to sign-in frequency checks.\n",
            "ERROR: AADSTS700082: The refresh token has expired due to inactivity.\n",
            "ERROR: AADSTS50173: The provided grant has expired due to it being revoked.\n",
        ],
    )
    def test_one_that_has_ended_says_so(self, az: Az, store: AzureStore, text: str) -> None:
        az.fails(text + "Interactive authentication is needed. Please run:\naz login\n")
        for act in each_request(store):
            with pytest.raises(CredentialsExpired) as caught:
                act()
            assert "az login" in (caught.value.hint or "")

    def test_az_is_not_there(self, az: Az, store: AzureStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(az.directory / "nowhere"))
        for act in each_request(store):
            with pytest.raises(AccessDenied) as caught:
                act()
            assert "az login" in (caught.value.hint or "")

    @pytest.mark.parametrize(
        "text", ["", "WARNING: {}", "{}", '{"accessToken": "VerySecret", "expiresOn": "tomorrow"}']
    )
    def test_az_talks_nonsense(self, az: Az, store: AzureStore, text: str) -> None:
        az.says(text)
        for act in each_request(store):
            with pytest.raises(AccessDenied) as caught:
                act()
            assert "VerySecret" not in everything_in(caught.value)

    def test_somebody_logs_in_meanwhile(self, az: Az, store: AzureStore) -> None:
        az.fails("ERROR: Please run 'az login' to setup account.\n")
        with pytest.raises(AccessDenied):
            store.put("a", b"1", size=1)
        az.gives(token_of("first"))
        store.put("a", b"1", size=1)

    def test_the_service_takes_the_token_for_expired(self, az: Az, store: AzureStore) -> None:
        """The clocks disagree, for instance."""
        az.gives(token_of("old", valid_for=-100))
        for act in each_request(store):
            with pytest.raises(StorageError, match="403"):
                act()


CHALLENGE = (
    "WWW-Authenticate",
    f"Bearer authorization_uri=https://login.microsoftonline.com/{TENANT}/oauth2/authorize "
    "resource_id=https://storage.azure.com",
)
EXPIRED = Answer(
    401,
    (MARK, ("x-ms-error-code", "InvalidAuthenticationInfo"), ("Content-Type", "application/xml"), CHALLENGE),
    b'<?xml version="1.0" encoding="utf-8"?><Error><Code>InvalidAuthenticationInfo</Code><Message>Server failed to '
    b"authenticate the request. Please refer to the information in the www-authenticate header.\n</Message>"
    b"<AuthenticationErrorDetail>Lifetime validation failed. The token is expired.</AuthenticationErrorDetail></Error>",
)


def name_in(request: Request) -> str:
    """The name in the token with which a request came."""
    claims = request.headers["authorization"].removeprefix("Bearer ").split(".")[1]
    return str(json.loads(base64.urlsafe_b64decode(claims + "=="))["name"])


class WireOfTls(Wire):
    """A wire to a service that speaks TLS itself. Requests with the token called `refused` are refused."""

    refused = ""

    def _take(self, request: Request) -> Fault | None:
        return EXPIRED if self.refused and name_in(request) == self.refused else super()._take(request)

    def _ask(self, head: bytes, body: bytes) -> bytes:
        line, _, headers = head.partition(b"\r\n")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with (
            socket.create_connection(("127.0.0.1", self.upstream), timeout=30) as plain,
            context.wrap_socket(plain) as service,
        ):
            service.sendall(line + b"\r\nConnection: close\r\n" + headers + body)
            return b"".join(iter(lambda: service.recv(1 << 20), b""))


@pytest.fixture
def wire(service: Azurite) -> Iterator[WireOfTls]:
    assert service.authority is not None
    with WireOfTls(service.port, tls=service.authority.server("127.0.0.1")) as opened:
        yield opened


@pytest.fixture
def watched(az: Az, service: Azurite, container: str, wire: WireOfTls) -> Iterator[AzureStore]:
    """A store that is reached over the wire."""
    assert az.starts == []
    with open_store(service, container, port=wire.port) as opened:
        yield opened


class TestARefusedToken:
    """Access was taken back, the clocks disagree: the service knows better when a token ends."""

    @pytest.mark.parametrize("number", range(6))
    def test_is_replaced(self, az: Az, watched: AzureStore, wire: WireOfTls, number: int) -> None:
        for act in each_request(watched):
            act()
        wire.requests.clear()
        az.gives(token_of("second"))
        wire.script(EXPIRED)
        each_request(watched)[number]()
        assert len(az.starts) == 2
        assert [name_in(request) for request in wire.requests[:2]] == ["first", "second"]

    @pytest.mark.parametrize("number", range(6))
    def test_is_replaced_only_once(self, az: Az, watched: AzureStore, wire: WireOfTls, number: int) -> None:
        for act in each_request(watched):
            act()
        wire.script(EXPIRED, times=2)
        with pytest.raises((CredentialsExpired, AccessDenied), match="401") as caught:
            each_request(watched)[number]()
        # An answer to HEAD has no room for the reason.
        if wire.requests[-1].method != "HEAD":
            assert isinstance(caught.value, CredentialsExpired)
            assert "az login" in (caught.value.hint or "")
        assert len(az.starts) == 2

    @pytest.mark.parametrize(("numbers", "starts"), [((0,), 2), ((2,), 2), ((0, 2), 3)])
    def test_of_many_requests_is_replaced_once(
        self, az: Az, watched: AzureStore, wire: WireOfTls, numbers: tuple[int, ...], starts: int
    ) -> None:
        """Twice if the SDK is told of a directory after we have asked without one."""
        watched.put("small", b"1", size=1)
        az.gives(token_of("second"))
        wire.refused = "first"
        together = threading.Barrier(8)

        def act(number: int) -> None:
            together.wait()
            each_request(watched)[numbers[number % len(numbers)]]()

        with ThreadPoolExecutor(8) as pool:
            for each in [pool.submit(act, number) for number in range(8)]:
                each.result(30)
        assert 2 <= len(az.starts) <= starts

    def test_of_a_guest_is_replaced_by_one_of_the_right_directory(
        self, az: Az, watched: AzureStore, wire: WireOfTls
    ) -> None:
        wire.script(EXPIRED)
        watched.stat("small")
        assert az.starts[1].endswith(f"--tenant {TENANT}")
        for act in each_request(watched):
            act()
        assert len(az.starts) == 2


class TestACopy:
    def test_the_source_is_opened_with_the_same_token(self, az: Az, watched: AzureStore, wire: WireOfTls) -> None:
        content = os.urandom(2 * MIB)
        original = watched.put("original", io.BytesIO(content), size=len(content))
        wire.requests.clear()
        watched.put("copy", io.BytesIO(content), size=len(content), twin=Twin("original", original.etag))
        asked = [each.headers for each in wire.requests if "x-ms-copy-source" in each.headers]
        assert asked
        assert all(each["x-ms-copy-source-authorization"] == each["authorization"] for each in asked)
        assert all("?" not in each["x-ms-copy-source"] for each in asked)
        with watched.open("copy") as stream:
            assert stream.read() == content
        assert len(az.starts) == 1


class MachineIdentity(BaseHTTPRequestHandler):
    """Gives a token to whatever runs on this machine, as a machine in Azure does."""

    def do_GET(self) -> None:
        ends = int(time.time()) + 3600
        token = {"access_token": token_of("machine"), "expires_on": str(ends), "token_type": "Bearer", "resource": "x"}
        body = json.dumps(token).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class TestBehindAProxy:
    """The service is reached through the proxy, what is on this machine is not."""

    def open(self, service: Azurite, container: str, relay: Relay) -> AzureStore:
        assert service.authority is not None
        network = Network(ca_bundle=service.authority.bundle, proxy=f"http://127.0.0.1:{relay.port}")
        retry = Retry(patience=0)
        return AzureStore(service.account_url, container, credential=Login(), network=network, retry=retry)

    def test_the_identity_of_the_machine(
        self, az: Az, service: Azurite, container: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with HTTPServer(("127.0.0.1", 0), MachineIdentity) as machine, Relay(service.port, is_proxy=True) as relay:
            threading.Thread(target=machine.serve_forever).start()
            monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")
            monkeypatch.setenv("IDENTITY_ENDPOINT", f"http://127.0.0.1:{machine.server_port}/token")
            monkeypatch.setenv("IDENTITY_HEADER", "x")
            try:
                with self.open(service, container, relay) as store:
                    store.put("a", b"1", size=1)
                    assert store.stat("a") is not None
            finally:
                machine.shutdown()
        assert set(relay.asked) == {f"CONNECT 127.0.0.1:{service.port} HTTP/1.1"}
        assert az.starts == []

    def test_az(self, az: Az, service: Azurite, container: str) -> None:
        with Relay(service.port, is_proxy=True) as relay, self.open(service, container, relay) as store:
            store.put("a", b"1", size=1)
            assert store.stat("a") is not None
        assert set(relay.asked) == {f"CONNECT 127.0.0.1:{service.port} HTTP/1.1"}
        assert len(az.starts) == 1


class TestSecrets:
    def test_the_token_is_never_shown(
        self, az: Az, watched: AzureStore, wire: WireOfTls, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        secret = token_of("first")
        az.gives(secret)
        for answer in (EXPIRED, Answer(403, (MARK,)), Answer(503), Answer(404, (MARK,))):
            for act in each_request(watched):
                wire.script(answer, times=2 if answer is EXPIRED else 1)
                with pytest.raises(StorageError) as caught:
                    act()
                assert secret not in everything_in(caught.value)
                wire._script.clear()
        assert secret not in caplog.text


class TestAKey:
    """Of an account's key, what carries content is not signed with: it signs a token for that."""

    @pytest.mark.parametrize("key", ["A", "not base64!", "QUFBQQ="])
    def test_one_that_is_none(self, service: Azurite, container: str, key: str) -> None:
        assert service.authority is not None
        network, credential = Network(ca_bundle=service.authority.bundle), AccountKey(service.account, key)
        with AzureStore(
            service.account_url, container, credential=credential, network=network, block_size=MIB
        ) as store:
            for act in each_request(store):
                with pytest.raises(AccessDenied, match="key") as caught:
                    act()
                assert key not in str(caught.value)

    def test_what_it_signs_is_renewed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        key = AccountKey("account", base64.b64encode(b"key").decode())
        access = Access(key, "container", None)
        assert access.query() == access.query()
        first = access.query()
        monkeypatch.setattr(azure_credentials, "_OWN_SAS", timedelta(hours=30))
        assert access.query() != first
        ends = SasToken(access.query()).expires
        assert ends is not None
        assert ends - datetime.now(UTC) > timedelta(hours=29)


# --- The keeper of the token alone, on a clock that the test turns


@dataclass
class Entra:
    """Gives a new token each time, which lives for `lifetime` seconds, or the same again; or nothing."""

    lifetime: float = 3600.0
    now: float = 1_000_000.0
    error: Exception | None = None
    pause: float = 0.0
    is_stubborn: bool = False
    asked: list[tuple[tuple[str, ...], dict[str, object]]] = field(default_factory=list)
    given: list[AccessToken] = field(default_factory=list)

    def get_token(self, *scopes: str, **options: object) -> AccessToken:
        self.asked.append((scopes, options))
        time.sleep(self.pause)
        if self.error is not None:
            raise self.error
        if not (self.is_stubborn and self.given and self.given[-1].expires_on - self.now > 300):
            self.given.append(AccessToken(f"token {len(self.given) + 1}", int(self.now + self.lifetime)))
        return self.given[-1]


@pytest.fixture
def entra() -> Entra:
    return Entra()


@pytest.fixture
def login(entra: Entra) -> CachedLogin:
    return CachedLogin(entra, clock=lambda: entra.now)


class TestKeeping:
    def test_a_token_is_kept_until_shortly_before_its_end(self, entra: Entra, login: CachedLogin) -> None:
        for _ in range(50):
            assert login.get_token(SCOPE).token == "token 1"
            entra.now += 60
        assert len(entra.asked) == 1
        entra.now += 60
        assert login.get_token(SCOPE).token == "token 2"

    def test_it_is_for_storage(self, entra: Entra, login: CachedLogin) -> None:
        login.get_token()
        assert entra.asked == [((SCOPE,), {})]

    def test_nobody_ever_gets_one_that_is_about_to_end(self, entra: Entra, login: CachedLogin) -> None:
        for _ in range(1000):
            assert login.get_token(SCOPE).expires_on - entra.now >= 540
            entra.now += 17
        assert len(entra.asked) < 10

    def test_one_that_is_not_renewed_yet_is_asked_for_once_a_minute(self, entra: Entra, login: CachedLogin) -> None:
        entra.is_stubborn = True
        for _ in range(3500):
            assert login.get_token(SCOPE).expires_on > entra.now
            entra.now += 1
        assert 2 <= len(entra.asked) <= 8

    def test_short_lives_are_lived_as_well(self, entra: Entra, login: CachedLogin) -> None:
        entra.lifetime = 300
        for _ in range(600):
            assert login.get_token(SCOPE).expires_on > entra.now
            entra.now += 1
        assert len(entra.asked) <= 11

    def test_one_that_has_ended_when_it_comes_is_passed_on(self, entra: Entra, login: CachedLogin) -> None:
        entra.lifetime = -10
        assert login.get_token(SCOPE).token == "token 1"
        assert login.get_token(SCOPE).token == "token 2"

    @pytest.mark.parametrize("kind", [ClientAuthenticationError, CredentialUnavailableError])
    def test_failing_to_renew_is_no_harm_until_the_end(
        self, entra: Entra, login: CachedLogin, kind: type[ClientAuthenticationError]
    ) -> None:
        login.get_token(SCOPE)
        entra.error = kind("no")
        while entra.given[0].expires_on - entra.now > 60:
            assert login.get_token(SCOPE).token == "token 1"
            entra.now += 1
        assert len(entra.asked) <= 11, "the first time, and once in each of the last ten minutes"
        with pytest.raises(kind):
            login.get_token(SCOPE)
        entra.error = None
        assert login.get_token(SCOPE).token == "token 2"

    def test_failing_at_first_is_passed_on(self, entra: Entra, login: CachedLogin) -> None:
        entra.error = CredentialUnavailableError("no")
        for _ in range(3):
            with pytest.raises(CredentialUnavailableError):
                login.get_token(SCOPE)

    @pytest.mark.parametrize("state", ["none", "old"])
    def test_of_many_threads_one_asks(self, entra: Entra, login: CachedLogin, state: str) -> None:
        if state == "old":
            login.get_token(SCOPE)
            entra.now += 3300
        entra.asked.clear()
        entra.pause = 0.05
        together = threading.Barrier(32)

        def ask(_: int) -> str:
            together.wait()
            return login.get_token(SCOPE).token

        with ThreadPoolExecutor(32) as pool:
            assert len(set(pool.map(ask, range(32)))) == 1
        assert len(entra.asked) == 1


class TestForgetting:
    def test_the_next_one_is_another(self, entra: Entra, login: CachedLogin) -> None:
        login.get_token(SCOPE)
        login.forget()
        assert [login.get_token(SCOPE).token for _ in range(3)] == ["token 2"] * 3

    def test_many_that_were_refused_with_the_same_get_the_same(self, entra: Entra, login: CachedLogin) -> None:
        login.get_token(SCOPE)
        together = threading.Barrier(32)

        def refused(_: int) -> str:
            together.wait()
            login.forget()
            return login.get_token(SCOPE).token

        with ThreadPoolExecutor(32) as pool:
            assert set(pool.map(refused, range(32))) == {"token 2"}
        entra.now += 120
        login.forget()
        assert login.get_token(SCOPE).token == "token 3"

    def test_the_sdk_is_given_another_one_when_it_was_refused(self, entra: Entra, login: CachedLogin) -> None:
        """It asks for one of the directory that the service named; so do all from then on."""
        login.get_token(SCOPE)
        assert login.get_token(SCOPE, tenant_id=TENANT).token == "token 2"
        assert login.get_token(SCOPE, tenant_id=TENANT).token == "token 2"
        assert login.get_token(SCOPE).token == "token 2"
        entra.now += 3300
        assert login.get_token(SCOPE).token == "token 3"
        assert login.get_token(SCOPE, tenant_id=TENANT).token == "token 4"
        assert [options for _, options in entra.asked] == [{}] + [{"tenant_id": TENANT}] * 3

    def test_a_directory_that_the_login_does_not_want_is_not_asked_for_again(
        self, entra: Entra, login: CachedLogin
    ) -> None:
        login.get_token(SCOPE)
        entra.error = ClientAuthenticationError("not configured for that tenant")
        with pytest.raises(ClientAuthenticationError):
            login.get_token(SCOPE, tenant_id=TENANT)
        entra.error = None
        assert login.get_token(SCOPE).token == "token 2"
        assert entra.asked[-1] == ((SCOPE,), {})
