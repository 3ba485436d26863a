"""Getting in touch with Azure: credentials, TLS, connections. What is sent over them is azure.py's."""

from __future__ import annotations

import io
import ipaddress
import logging
import os
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import requests
from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import ContainerClient
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies
from urllib3.util.retry import Retry as Urllib3Retry

from chorus_upload.errors import ConfigError
from chorus_upload.storage.azure_errors import scrub

if TYPE_CHECKING:
    from azure.identity import DefaultAzureCredential

# Seconds for one step: to connect, to get rid of one piece of a body, and to wait for the answer.
_STEP_TIMEOUT = 60
_ANSWER_TIMEOUT = 180
_PIECE = 128 * 1024


@dataclass(frozen=True, slots=True)
class SasToken:
    """A shared access signature, with or without the leading `?`."""

    token: str = field(repr=False)

    @property
    def expires(self) -> datetime | None:
        """When the token does; None when it does not say (then a policy of the container does)."""
        values = parse_qs(self.token.lstrip("?")).get("se", [])
        with suppress(ValueError, IndexError):
            moment = datetime.fromisoformat(values[0])
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
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
    def expires(self) -> datetime | None:
        """When the SAS token in it does, if there is one."""
        for part in self.text.split(";"):
            name, _, value = part.partition("=")
            if name.strip().lower() == "sharedaccesssignature":
                return SasToken(value).expires
        return None


@dataclass(frozen=True, slots=True)
class Login:
    """Whatever identity this machine has: the environment, a managed identity, `az login`."""


@dataclass(frozen=True, slots=True)
class Anonymous:
    """No credentials: a public container."""


AzureCredential = SasToken | AccountKey | ConnectionString | Login | Anonymous


@dataclass(frozen=True, slots=True)
class Connection:
    """A client for one container, with what it holds open."""

    client: ContainerClient
    login: DefaultAzureCredential | None = None

    def close(self) -> None:
        self.client.close()
        if self.login is not None:
            self.login.close()


def connect(
    account_url: str | None, container: str, credential: AzureCredential, *, connections: int, one_request: int
) -> Connection:
    """A client for one container that may be used by `connections` threads at once. Sends nothing yet.

    It never tries a request twice: waiting is the business of `Retry`. Bodies and answers up to `one_request`
    bytes are sent and fetched with one request. ConfigError when the pieces do not fit together.
    """
    login, session = None, _session(connections)
    try:
        if isinstance(credential, ConnectionString):
            make = partial(ContainerClient.from_connection_string, credential.text, container)
        else:
            login = _login() if isinstance(credential, Login) else None
            make = partial(ContainerClient, account_url or "", container, credential=login or _secret(credential))
        client = make(
            transport=RequestsTransport(
                session=session,
                connection_timeout=_STEP_TIMEOUT,
                read_timeout=_ANSWER_TIMEOUT,
                connection_verify=_trusted(),
            ),
            retry_total=0,
            max_single_put_size=one_request,
            max_single_get_size=one_request,
            max_chunk_get_size=one_request,
        )
    except ValueError as error:
        reason = scrub(str(error))
    else:
        _refuse_plain_http(client)
        session.proxies = get_environ_proxies(f"{client.scheme}://{client.primary_hostname}")
        return Connection(client, login)
    raise ConfigError(
        f"the Azure account or its credentials are not usable: {reason}",
        hint="Check azure_account_url, azure_account_name and the credentials in the configuration.",
    )


def _secret(credential: AzureCredential) -> AzureSasCredential | AzureNamedKeyCredential | None:
    match credential:
        case SasToken(token):
            return AzureSasCredential(token.strip().lstrip("?"))
        case AccountKey(account, key):
            return AzureNamedKeyCredential(account, key)
        case _:
            return None


def _login() -> DefaultAzureCredential:
    # Imported here: it takes long, and few need it.
    from azure.identity import DefaultAzureCredential

    return DefaultAzureCredential()


def _refuse_plain_http(client: ContainerClient) -> None:
    """Patients' data and credentials travel unencrypted only to this very machine (an emulator)."""
    host = urlsplit(f"//{client.primary_hostname}").hostname or ""
    if client.scheme == "https" or host == "localhost":
        return
    with suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return
    raise ConfigError(f"{client.scheme}://{host} is not encrypted", hint="Write https:// in azure_account_url.")


def _session(connections: int) -> requests.Session:
    session = requests.Session()
    # What the environment says of proxies and certificates holds (see `connect`), but is looked up once: doing it
    # for every request is a third of its work. And a ~/.netrc must not replace our credentials.
    session.trust_env = False
    session.mount("https://", _Adapter(connections))
    session.mount("http://", _Adapter(connections))
    return session


def _trusted() -> str | bool:
    """The certificates to trust: a file or directory, or (True) the usual ones."""
    return os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True


class _Adapter(HTTPAdapter):
    """One pooled connection for each thread, no retries, and bodies in pieces.

    A body of bytes is handed to the socket as a whole, under one time-out for all of it: 8 MiB in 20 seconds
    (the SDK's default) is more than many a hospital's uplink gives to one of 16 connections. A stream is sent
    piece by piece, each with the full time.
    """

    def __init__(self, connections: int) -> None:
        never = Urllib3Retry(total=False, redirect=False, raise_on_status=False)
        super().__init__(pool_connections=2, pool_maxsize=connections, max_retries=never)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **pool_kwargs: object) -> None:  # noqa: FBT001, FBT002 - the signature is requests'
        super().init_poolmanager(connections, maxsize, block, blocksize=_PIECE, **pool_kwargs)

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,  # noqa: FBT001, FBT002 - the signature is requests'
        timeout: float | tuple[float | None, float | None] | None = None,
        verify: bool | str = True,  # noqa: FBT001, FBT002
        cert: str | tuple[str, str] | None = None,
        proxies: dict[str, str] | None = None,
    ) -> requests.Response:
        if isinstance(request.body, bytes):
            request.body = io.BytesIO(request.body)
        return super().send(request, stream, timeout, verify, cert, proxies)


class _HideSignatures(logging.Filter):
    """urllib3 logs the path and query of every request when debugging is on; a SAS token is in the query."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg = scrub(record.getMessage())
        record.args = None
        return True


logging.getLogger("urllib3.connectionpool").addFilter(_HideSignatures())
