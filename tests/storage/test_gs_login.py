"""Google's own credentials: where tokens come from, how they are renewed, and what is said when they are not."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from chorus_upload.errors import AccessDenied, ConfigError, CredentialsExpired, StorageError, TlsError, TransientError
from chorus_upload.storage.gs import GsStore
from chorus_upload.storage.gs_credentials import GoogleLogin
from chorus_upload.storage.network import Network
from chorus_upload.storage.retry import Retry
from tests.emulators import Authority
from tests.gs import MARK, Service
from tests.relay import Relay
from tests.wire import Answer, Wire

Write = Callable[..., Path]


@dataclass
class TokenService:
    """Gives a new token at each request, which lives for `seconds`."""

    port: int = 0
    seconds: int = 3600
    refusal: tuple[int, dict[str, object]] | None = None
    asked: list[dict[str, list[str]]] = field(default_factory=list)


@pytest.fixture
def tokens() -> Iterator[TokenService]:
    service = TokenService()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            service.asked.append(parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode()))
            token = f"SECRET-{len(service.asked)}"
            given: dict[str, object] = {"access_token": token, "expires_in": service.seconds, "token_type": "Bearer"}
            status, said = service.refusal or (200, given)
            body = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield service
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def way_to_tokens(tokens: TokenService, authority: Authority) -> Iterator[Wire]:
    """The token service, with TLS of the hospital's own authority, by Google's name for it."""
    with Wire(tokens.port, tls=authority.server("127.0.0.1", "oauth2.googleapis.com")) as wire:
        yield wire


@pytest.fixture
def proxy(way_to_tokens: Wire) -> Iterator[Relay]:
    """The hospital's proxy, behind which Google is."""
    with Relay(way_to_tokens.port, is_proxy=True) as relay:
        yield relay


@pytest.fixture(scope="module")
def key() -> str:
    made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return made.private_bytes(encoding, form, serialization.NoEncryption()).decode()


@pytest.fixture
def write(tmp_path: Path, key: str, way_to_tokens: Wire) -> Write:
    """Writes the key of a service account, or a user's own login."""

    def write(*, kind: str = "service_account", token_uri: str | None = None) -> Path:
        uri = token_uri or f"https://127.0.0.1:{way_to_tokens.port}/token"
        said = {"type": kind, "token_uri": uri, "client_email": "uploader@hospital.iam.example", "private_key": key}
        if kind == "authorized_user":
            said = {
                "type": kind,
                "token_uri": uri,
                "client_id": "id",
                "client_secret": "SECRET",
                "refresh_token": "SECRET",
            }
            said["quota_project_id"] = "our-quota"
        file = tmp_path / "key.json"
        file.write_text(json.dumps(said))
        return file

    return write


@pytest.fixture
def wire(gcs: Service) -> Iterator[Wire]:
    with Wire(gcs.port) as wire:
        yield wire


def open_gs(
    bucket: str, wire: Wire, file: Path | None, authority: Authority, *, patience: float = 5, proxy: Relay | None = None
) -> GsStore:
    way = f"http://127.0.0.1:{proxy.port}" if proxy else ""
    return GsStore(
        bucket,
        access=GoogleLogin(file, Network(ca_bundle=authority.bundle, proxy=way)),
        endpoint=f"http://127.0.0.1:{wire.port}",
        retry=Retry(patience=patience, first=0.01, longest=0.05),
    )


def said_by(wire: Wire) -> list[str]:
    return [each.headers["authorization"] for each in wire.requests]


def test_the_key_of_a_service_account(
    gs_bucket: str, wire: Wire, write: Write, authority: Authority, tokens: TokenService, way_to_tokens: Wire
) -> None:
    """Its token comes through our own HTTP client: no other knows the hospital's authority and says that it is ours."""
    with open_gs(gs_bucket, wire, write(), authority) as store:
        store.put("a", b"1", size=1)
        store.put("b", b"1", size=1)
    assert said_by(wire) == ["Bearer SECRET-1"] * 2
    assert [each["grant_type"] for each in tokens.asked] == [["urn:ietf:params:oauth:grant-type:jwt-bearer"]]
    assert way_to_tokens.requests[0].headers["host"] == f"127.0.0.1:{way_to_tokens.port}"


def test_the_login_of_a_user_names_its_quota(
    gs_bucket: str, wire: Wire, write: Write, authority: Authority, tokens: TokenService, proxy: Relay
) -> None:
    with open_gs(gs_bucket, wire, write(kind="authorized_user"), authority, proxy=proxy) as store:
        store.put("a", b"1", size=1)
    assert proxy.asked == ["CONNECT oauth2.googleapis.com:443 HTTP/1.1"]
    assert tokens.asked[0]["refresh_token"] == ["SECRET"]
    assert wire.requests[0].headers["x-goog-user-project"] == "our-quota"


def test_a_token_that_ends_is_renewed(
    gs_bucket: str, wire: Wire, write: Write, authority: Authority, tokens: TokenService
) -> None:
    tokens.seconds = 1
    with open_gs(gs_bucket, wire, write(), authority) as store:
        store.put("a", b"1", size=1)
        store.put("b", b"1", size=1)
    assert said_by(wire) == ["Bearer SECRET-1", "Bearer SECRET-2"]


def test_a_token_that_is_refused_is_renewed_once(
    gs_bucket: str, wire: Wire, write: Write, authority: Authority
) -> None:
    with open_gs(gs_bucket, wire, write(), authority) as store:
        wire.script(Answer(401, (MARK,)), method="POST")
        store.put("a", b"1", size=1)
        wire.script(Answer(401, (MARK,)), method="POST", times=2)
        with pytest.raises(CredentialsExpired):
            store.put("b", b"1", size=1)
    assert said_by(wire) == [f"Bearer SECRET-{number}" for number in (1, 2, 2, 3)]


def test_many_threads_ask_for_one_token(
    gs_bucket: str, wire: Wire, write: Write, authority: Authority, tokens: TokenService
) -> None:
    with open_gs(gs_bucket, wire, write(), authority) as store:
        threads = [
            threading.Thread(target=store.put, args=(f"{number}", b"1"), kwargs={"size": 1}) for number in range(8)
        ]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    assert len(tokens.asked) == 1
    assert len(wire.requests) == 8


@pytest.mark.parametrize(
    ("reason", "kind"), [("invalid_grant", CredentialsExpired), ("unauthorized_client", AccessDenied)]
)
def test_a_login_that_is_refused(
    gs_bucket: str,
    wire: Wire,
    write: Write,
    authority: Authority,
    tokens: TokenService,
    reason: str,
    kind: type[StorageError],
) -> None:
    tokens.refusal = (400, {"error": reason, "error_description": "Bad Request"})
    file = write()
    with open_gs(gs_bucket, wire, file, authority) as store, pytest.raises(kind, match=reason) as caught:
        store.probe()
    assert str(file) in (caught.value.hint or "")
    assert "SECRET" not in str(caught.value)
    assert wire.requests == []


def test_a_token_service_that_is_away(gs_bucket: str, wire: Wire, write: Write, authority: Authority) -> None:
    file = write(token_uri="https://127.0.0.1:1/token")
    with (
        open_gs(gs_bucket, wire, file, authority, patience=0) as store,
        pytest.raises(TransientError, match="logging in"),
    ):
        store.probe()


def test_a_token_service_that_nobody_vouches_for(
    gs_bucket: str, wire: Wire, write: Write, tmp_path_factory: pytest.TempPathFactory
) -> None:
    stranger = Authority(tmp_path_factory.mktemp("stranger"))
    with open_gs(gs_bucket, wire, write(), stranger) as store, pytest.raises(TlsError, match="logging in"):
        store.probe()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"type": "unheard-of"}', '{"type": "service_account", "private_key": "SECRET"}']
)
def test_a_file_that_holds_no_credentials(tmp_path: Path, content: str) -> None:
    file = tmp_path / "key.json"
    file.write_text(content)
    with pytest.raises(ConfigError, match="no credentials of Google") as caught:
        GoogleLogin(file, Network())
    assert "SECRET" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        GoogleLogin(tmp_path / "key.json", Network())


def test_a_key_is_shown_to_nobody_without_tls(write: Write) -> None:
    with pytest.raises(ConfigError, match="not encrypted"):
        GoogleLogin(write(token_uri="http://tokens.example/token"), Network())


def test_a_machine_without_an_identity(
    gcs: Service, gs_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    with (
        GsStore(gs_bucket, access=GoogleLogin(None, Network()), endpoint=gcs.url) as store,
        pytest.raises(AccessDenied, match="no Google identity") as caught,
    ):
        store.probe()
    assert "gcloud auth application-default login" in (caught.value.hint or "")


def test_the_login_that_a_user_has_made(
    gs_bucket: str,
    wire: Wire,
    write: Write,
    authority: Authority,
    proxy: Relay,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As `gcloud auth application-default login` leaves it."""
    write(kind="authorized_user").rename(tmp_path / "application_default_credentials.json")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    with open_gs(gs_bucket, wire, None, authority, proxy=proxy) as store:
        store.put("a", b"1", size=1)
    assert said_by(wire) == ["Bearer SECRET-1"]
