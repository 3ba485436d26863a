"""Who asks Google Cloud Storage: nobody, whoever holds a token in a file, or one of Google's credentials.

Tokens live for about an hour. Those of Google's own credentials are renewed here, through our own HTTP client; those
in a file are renewed by somebody else, so the file is looked at before every request.
"""

from __future__ import annotations

import json
import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from chorus_upload.config.local_paths import read_regular
from chorus_upload.errors import AccessDenied, ConfigError, CredentialsExpired, StorageError, TransientError
from chorus_upload.storage.answers import no_answer
from chorus_upload.storage.curl import HttpClient, NoAnswer
from chorus_upload.storage.gs_errors import scrub
from chorus_upload.storage.network import Network, is_this_machine

if TYPE_CHECKING:
    import requests
    from google.auth.credentials import Credentials

_SCOPES = ("https://www.googleapis.com/auth/devstorage.read_write",)
_TOKEN_SERVICE = "https://oauth2.googleapis.com"  # noqa: S105 - an address
# The machine's own identity is asked for without TLS, at addresses that lead nowhere else.
_METADATA_HOSTS = frozenset({"metadata.google.internal", "metadata.google.internal.", "169.254.169.254"})
_LONGEST_TOKEN = 1 << 16
_LOG_IN = "Log in again: gcloud auth application-default login"
_NOT_USABLE = "Name a credentials file of Google's (JSON) in google_application_credentials."

Headers = list[str]


class Access(Protocol):
    """Where requests get their credentials. May be used by many threads at once."""

    @property
    def renewal(self) -> str | None:
        """What the user can do when the credentials are not accepted any more; None if there are none."""
        ...

    def headers(self) -> Headers:
        """The lines of headers that say who asks. Raises StorageError when there is nothing to say."""
        ...

    def renew(self, refused: Headers) -> bool:
        """Whether there are other headers than these now, which were refused."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Anonymous:
    """Nobody; for public buckets."""

    renewal: None = None

    def headers(self) -> Headers:
        return []

    def renew(self, refused: Headers) -> bool:
        return False

    def close(self) -> None: ...


@dataclass(slots=True)
class TokenFile:
    """An access token in a text file, which is read again whenever the file is another one."""

    path: Path
    _state: tuple[int, int, int] | None = None
    _line: str = field(default="", repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def renewal(self) -> str:
        return f"Write a new access token into {self.path} (google_token_file), and run the same command again."

    def headers(self) -> Headers:
        with self._lock:
            try:
                found = self.path.stat()
                state = (found.st_mtime_ns, found.st_size, found.st_ino)
                if state != self._state:
                    self._line = f"Authorization: Bearer {self._read()}"
                    self._state = state
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else str(error)
            else:
                return [self._line]
        raise AccessDenied(f"{self.path}: no access token can be read from it: {reason}", hint=self.renewal)

    def renew(self, refused: Headers) -> bool:
        with self._lock:
            # A file system with coarse times may hide that it was written again.
            self._state = None
        return self.headers() != refused

    def close(self) -> None: ...

    def _read(self) -> str:
        token = read_regular(self.path, most=_LONGEST_TOKEN).strip()
        if not token or not token.isascii() or len(token.split()) != 1:
            raise ValueError("it is to hold one token and nothing else")
        return token.decode()


class GoogleLogin:
    """One of the credentials of Google's library: of a file, or whatever this machine or user has.

    With `path` None they are looked for when they are first needed, as Google's programs do: what `gcloud auth
    application-default login` has left, and the identity of a machine in Google's cloud. Raises ConfigError when
    the library is not installed or cannot make sense of the file.
    """

    def __init__(self, path: Path | None, network: Network) -> None:
        self._lock = threading.Lock()
        self._http = HttpClient(_TOKEN_SERVICE, network)
        self._path = path
        try:
            self._session = _session(self._http)
            self._credentials = None if path is None else self._of_file(path)
        except ModuleNotFoundError as error:
            missing = error.name
        else:
            return
        raise ConfigError(
            f"logging in to gs:// places needs a library that is not installed ({missing})",
            hint='Install it: pip install "chorus-upload[gcs]"',
        )

    @property
    def renewal(self) -> str:
        if self._path is not None:
            return f"Is the key or login in {self._path} still valid? Make a new one, or log in again."
        return _LOG_IN

    def headers(self) -> Headers:
        with self._lock:
            if self._credentials is None:
                self._credentials = self._ask(self._of_this_machine)
            if not self._credentials.valid:
                self._refresh()
            return self._lines()

    def renew(self, refused: Headers) -> bool:
        with self._lock:
            if self._lines() == refused:
                self._refresh()
            return self._lines() != refused

    def close(self) -> None:
        self._session.close()
        self._http.close()

    def _lines(self) -> Headers:
        said: dict[str, str] = {}
        if self._credentials is not None:
            # With it comes the project whose quota is used, if the credentials name one.
            self._credentials.apply(said)  # type: ignore[no-untyped-call]
        return [f"{name}: {value}" for name, value in said.items()]

    def _refresh(self) -> None:
        from google.auth.transport.requests import Request

        credentials, request = self._credentials, Request(session=self._session)
        if credentials is not None:
            self._ask(lambda: credentials.refresh(request))  # type: ignore[no-untyped-call]

    def _of_file(self, path: Path) -> Credentials:
        import google.auth
        from google.auth.exceptions import GoogleAuthError
        from google.auth.transport.requests import Request

        found: Credentials
        reason = ""
        try:
            info = json.loads(read_regular(path))
            _require_encrypted(info, path)
            with warnings.catch_warnings():
                # That such a file should be one's own: it is the one that the configuration names.
                warnings.simplefilter("ignore")
                request = Request(session=self._session)
                found, _ = google.auth.load_credentials_from_dict(info, scopes=_SCOPES, request=request)  # type: ignore[no-untyped-call]
        except OSError as error:
            reason = error.strerror or type(error).__name__
        except (GoogleAuthError, ValueError, TypeError, AttributeError, KeyError, RecursionError):
            # The texts of these show the file.
            reason = "it holds no credentials of Google's"
        else:
            return found
        raise ConfigError(f"{path}: the credentials cannot be used: {reason}", hint=_NOT_USABLE)

    def _of_this_machine(self) -> Credentials:
        import google.auth

        found: Credentials
        with warnings.catch_warnings():
            # That a user's own login has no project for its quota.
            warnings.simplefilter("ignore")
            found, _ = google.auth.default(scopes=_SCOPES)
        return found

    def _ask(self, action: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever it gives
        from google.auth.exceptions import GoogleAuthError

        try:
            return action()
        except NoAnswer as error:
            failure = no_answer(error, doing="logging in to Google")
        except GoogleAuthError as error:
            failure = _no_identity(error, self.renewal)
        except (ValueError, ArithmeticError, AttributeError, LookupError, TypeError, RecursionError) as error:
            # Its text may show what was received, a token among it.
            failure = TransientError(f"logging in to Google: the response cannot be read ({type(error).__name__})")
        try:
            raise failure
        finally:
            del failure


def _session(http: HttpClient) -> requests.Session:
    """What Google's library asks for tokens with: our HTTP client, and without TLS only the machine's own service."""
    import requests
    from requests.adapters import HTTPAdapter

    from chorus_upload.storage.curl_adapter import CurlAdapter

    class MetadataOnly(HTTPAdapter):
        def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:  # noqa: ANN401 - requests' own
            host = urlsplit(request.url or "").hostname or ""
            if host not in _METADATA_HOSTS and not is_this_machine(host):
                raise ConfigError(f"http://{host} is not encrypted", hint="A token_uri begins with https://.")
            return super().send(request, *args, **options)

    session = requests.Session()
    # Neither the environment's proxies and certificates, which are the HTTP client's business, nor a ~/.netrc.
    session.trust_env = False
    session.mount("https://", CurlAdapter(http))
    session.mount("http://", MetadataOnly())
    return session


def _require_encrypted(info: Mapping[str, object], path: Path) -> None:
    for name in ("token_uri", "token_url"):
        address = urlsplit(str(info.get(name) or _TOKEN_SERVICE))
        if address.scheme != "https" and not is_this_machine(address.hostname or ""):
            raise ConfigError(f"{path}: its {name} is not encrypted", hint="It begins with https://.")


def _no_identity(error: Exception, renewal: str) -> StorageError:
    from google.auth.exceptions import DefaultCredentialsError, RefreshError, TransportError

    line = scrub(str(error.args[0] if error.args else error).partition("\n")[0])[:200]
    if isinstance(error, DefaultCredentialsError):
        return AccessDenied(
            "this machine has no Google identity",
            hint="Log in first (gcloud auth application-default login), or configure a credentials file or token.",
        )
    if isinstance(error, TransportError) or getattr(error, "retryable", False):
        return TransientError(f"logging in to Google: {line}")
    if isinstance(error, RefreshError) and "invalid_grant" in line:
        return CredentialsExpired(f"logging in to Google: {line}", hint=renewal)
    return AccessDenied(f"logging in to Google: {line}", hint=renewal)
