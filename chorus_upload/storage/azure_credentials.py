"""Ways to show Azure who one is, and what a request of our own carries for that."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qs

from azure.core.credentials import AccessToken, TokenCredential
from azure.core.exceptions import AzureError
from azure.storage.blob import ContainerSasPermissions, generate_container_sas

from chorus_upload.errors import AccessDenied

SCOPE = "https://storage.azure.com/.default"

# A token is renewed so many seconds before it ends, and used to so many before that when it cannot be renewed.
_RENEW_SECONDS = 600
_SPARE_SECONDS = 60
# With a token at hand a login is not asked more often: `az` gives the same one until five minutes before it ends, a
# login that fails once does so again, and of many requests with a refused token each says so.
_ASK_SECONDS = 60
_OWN_SAS = timedelta(hours=12)
_CLOCK_SKEW = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class SasToken:
    """A shared access signature, with or without the leading `?`."""

    token: str = field(repr=False)

    @property
    def query(self) -> str:
        """As it stands in a URL."""
        return self.token.strip().lstrip("?")

    @property
    def expires(self) -> datetime | None:
        """When the token does; None when it does not say (then a policy of the container does)."""
        values = parse_qs(self.query).get("se", [])
        with suppress(ValueError, IndexError, OverflowError):
            moment = datetime.fromisoformat(values[0])
            return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        return None


@dataclass(frozen=True, slots=True)
class AccountKey:
    """The key of the storage account `account`."""

    account: str
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ConnectionString:
    """Account, endpoint and key or SAS token in one text."""

    text: str = field(repr=False)

    @property
    def secret(self) -> SasToken | AccountKey | None:
        """The credential in it; a SAS token comes before a key, as with the SDK."""
        pairs = (part.partition("=") for part in self.text.split(";"))
        values = {name.strip().lower(): value.strip() for name, _, value in pairs}
        if token := values.get("sharedaccesssignature"):
            return SasToken(token)
        if key := values.get("accountkey"):
            return AccountKey(values.get("accountname", ""), key)
        return None

    @property
    def expires(self) -> datetime | None:
        """When the SAS token in it does, if there is one."""
        secret = self.secret
        return secret.expires if isinstance(secret, SasToken) else None


@dataclass(frozen=True, slots=True)
class Login:
    """Whatever identity this machine has: the environment, a managed identity, `az login`."""


@dataclass(frozen=True, slots=True)
class Anonymous:
    """No credentials: a public container."""


AzureCredential = SasToken | AccountKey | ConnectionString | Login | Anonymous


class CachedLogin:
    """A token of a login, kept until shortly before it ends: some ways to get one start a program each time.

    Safe to use from many threads. When it cannot be renewed in time, the old one is used to its end.
    """

    def __init__(self, login: TokenCredential, *, clock: Callable[[], float] = time.time) -> None:
        self._login = login
        self._clock = clock
        self._lock = threading.Lock()
        self._token: AccessToken | None = None
        self._options: dict[str, Any] = {}
        self._asked_at = self._refused_at = float("-inf")

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:  # noqa: ANN401 - the SDK's protocol
        """A token that is good for some time. Raises what the login raises.

        The SDK has `options` when the service refused the last token, and told it of which directory it wants one.
        """
        with self._lock:
            wanted = {**self._options, **options}
            if options:
                self._forget(at_once=wanted != self._options)
            now, token = self._clock(), self._token
            if token is not None and self._is_good(token, now):
                return token
            self._asked_at = now
            try:
                token = self._login.get_token(*(scopes or (SCOPE,)), **wanted)
            except AzureError:
                if token is None or token.expires_on - self._clock() <= _SPARE_SECONDS:
                    raise
            else:
                self._options = wanted
            self._token = token
            return token

    def forget(self) -> None:
        """The service does not take the token: get another one next time."""
        with self._lock:
            self._forget()

    def _is_good(self, token: AccessToken, now: float) -> bool:
        left = token.expires_on - now
        return left > _RENEW_SECONDS or (left > _SPARE_SECONDS and now - self._asked_at < _ASK_SECONDS)

    def _forget(self, *, at_once: bool = False) -> None:
        now = self._clock()
        if at_once or now - self._refused_at >= _ASK_SECONDS:
            self._refused_at = now
            self._token = None


class Access:
    """What the requests carry that we put together ourselves. Safe to use from many threads.

    Of an account's key no request is signed with: it signs a SAS token for the container, which is renewed.
    """

    def __init__(self, credential: AzureCredential, container: str, login: CachedLogin | None) -> None:
        self._container = container
        self.login = login
        self.expires: datetime | None = None
        """When our SAS token does; None when there is none, or it does not say it."""
        self.use(credential)

    def use(self, credential: AzureCredential) -> str:
        """Ask with this credential from now on; gives its SAS token, or ""."""
        secret = credential.secret if isinstance(credential, ConnectionString) else credential
        self._key = secret if isinstance(secret, AccountKey) else None
        self._own: tuple[str, datetime] = "", datetime.min.replace(tzinfo=UTC)
        self._sas = secret.query if isinstance(secret, SasToken) else ""
        self.expires = secret.expires if isinstance(secret, SasToken) else None
        return self._sas

    def query(self) -> str:
        """What belongs behind the question mark of a URL, or ""."""
        return self._signed(self._key) if self._key else self._sas

    def headers(self) -> tuple[str, ...]:
        """Whole lines of headers."""
        if self.login is None:
            return ()
        return (f"Authorization: Bearer {self.login.get_token(SCOPE).token}", f"x-ms-date: {formatdate(usegmt=True)}")

    def source_headers(self) -> tuple[str, ...]:
        """What opens the source of a copy, beside the query of its URL."""
        if self.login is None:
            return ()
        return (f"x-ms-copy-source-authorization: Bearer {self.login.get_token(SCOPE).token}",)

    def _signed(self, key: AccountKey) -> str:
        token, ends = self._own
        now = datetime.now(UTC)
        if ends - now < _OWN_SAS / 2:
            ends = now + _OWN_SAS
            token = self._sign(key, begins=now - _CLOCK_SKEW, ends=ends)
            self._own = token, ends
        return token

    def _sign(self, key: AccountKey, *, begins: datetime, ends: datetime) -> str:
        permission = ContainerSasPermissions(read=True, add=True, create=True, write=True, delete=True)
        with suppress(ValueError):
            return generate_container_sas(
                key.account, self._container, account_key=key.key, permission=permission, start=begins, expiry=ends
            )
        raise AccessDenied("the key of the storage account is none", hint="Is it complete, with the = at its end?")
