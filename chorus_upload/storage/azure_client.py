"""Getting in touch with Azure: the SDK's client and our own requests, over one HTTP client with one credential."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import ContainerClient

from chorus_upload.errors import ConfigError
from chorus_upload.storage.azure_credentials import (
    Access,
    AccountKey,
    AzureCredential,
    CachedLogin,
    ConnectionString,
    Login,
    SasToken,
)
from chorus_upload.storage.azure_errors import scrub
from chorus_upload.storage.curl import Answer, HttpClient
from chorus_upload.storage.curl_adapter import CurlAdapter
from chorus_upload.storage.network import Network, is_this_machine
from chorus_upload.storage.replay import require_echo
from chorus_upload.storage.service_mark import AZURE, require
from chorus_upload.storage.traffic import Traffic

if TYPE_CHECKING:
    from azure.identity import DefaultAzureCredential


# The statuses of success, by the methods of the requests that are sent here, the SDK's and our own.
_EXPECTED = {"HEAD": {200}, "GET": {200, 206}, "PUT": {201}, "DELETE": {202}}

# How long a program like `az` may take to give a token; ten seconds, the SDK's default, are few on a busy machine.
_LOGIN_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Connection:
    """A client for one container, and the means to send requests of our own to it."""

    client: ContainerClient
    http: HttpClient
    access: Access
    login: DefaultAzureCredential | None = None
    sas: AzureSasCredential | None = None

    def use(self, credential: AzureCredential) -> None:
        """Ask with this credential from now on, if it is a SAS token as the one before."""
        if (token := self.access.use(credential)) and self.sas is not None:
            self.sas.update(token)

    def close(self) -> None:
        self.client.close()
        self.http.close()
        if self.login is not None:
            self.login.close()


def require_service(method: str, lines: Sequence[str], answer: Answer) -> None:
    """Raise NoAnswer when a response is not the service's to this request: every one passes through here."""
    require(AZURE, answer.status, answer.headers, expected=_EXPECTED.get(method, ()))
    require_echo(lines, answer.headers)


def connect(
    account_url: str | None,
    container: str,
    credential: AzureCredential,
    network: Network,
    *,
    endpoint_ip: str | None = None,
    traffic: Traffic,
    one_request: int,
    moved: Callable[[], None] | None = None,
) -> Connection:
    """The means to reach one container. Sends nothing yet.

    The SDK's client never tries a request twice: waiting is the business of `Retry`. Answers up to `one_request`
    bytes are fetched with one request. ConfigError when the pieces do not fit together.
    """
    login = _login(network) if isinstance(credential, Login) else None
    cached = CachedLogin(login) if login else None
    session = requests.Session()
    # Neither the environment's proxies and certificates, which are the HTTP client's business, nor a ~/.netrc.
    session.trust_env = False
    transport = RequestsTransport(session=session, use_env_settings=False)
    try:
        shown = cached or _secret(credential)
        if isinstance(credential, ConnectionString):
            make = partial(ContainerClient.from_connection_string, credential.text, container, credential=shown)
        else:
            make = partial(ContainerClient, account_url or "", container, credential=shown)
        client = make(
            transport=transport,
            retry_total=0,
            # The service never sends anybody elsewhere; whoever does is to be told nothing, and not to be believed.
            permit_redirects=False,
            max_single_get_size=one_request,
            max_chunk_get_size=one_request,
        )
    except ValueError as error:
        reason = scrub(str(error))
    else:
        _refuse_plain_http(client)
        url = f"{client.scheme}://{client.primary_hostname}"
        http = HttpClient(
            url,
            network,
            endpoint_ip=endpoint_ip,
            throttle=traffic.throttle,
            stop=traffic.stop,
            require=require_service,
            moved=moved,
        )
        for scheme in ("https://", "http://"):
            session.mount(scheme, CurlAdapter(http))
        sas = shown if isinstance(shown, AzureSasCredential) else None
        return Connection(client, http, Access(credential, container, cached), login, sas)
    raise ConfigError(
        f"the Azure account or its credentials are not usable: {reason}",
        hint="Check azure_account_url, azure_account_name and the credentials in the configuration.",
    )


def _secret(credential: AzureCredential) -> AzureSasCredential | AzureNamedKeyCredential | None:
    match credential.secret if isinstance(credential, ConnectionString) else credential:
        case SasToken() as credential:
            return AzureSasCredential(credential.query)
        case AccountKey(account, key):
            return AzureNamedKeyCredential(account, key)
        case _:
            return None


def _login(network: Network) -> DefaultAzureCredential:
    # Imported here: it takes long, and few need it.
    from azure.identity import DefaultAzureCredential

    options: dict[str, Any] = {"connection_verify": str(network.trusted)}
    if network.proxy is not None:
        # Without TLS only the machine's own identity is asked, at an address that no proxy reaches.
        options["proxies"] = {"http": "", "https": network.proxy}
    return DefaultAzureCredential(process_timeout=_LOGIN_SECONDS, **options)


def _refuse_plain_http(client: ContainerClient) -> None:
    """Patients' data and credentials travel unencrypted only to this very machine (an emulator)."""
    host = urlsplit(f"//{client.primary_hostname}").hostname or ""
    if client.scheme != "https" and not is_this_machine(host):
        raise ConfigError(f"{client.scheme}://{host} is not encrypted", hint="Write https:// in azure_account_url.")


class _HideSignatures(logging.Filter):
    """Libraries below us log the path and query of requests when debugging is on; a SAS token is in the query."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg = scrub(record.getMessage())
        record.args = None
        return True


logging.getLogger("urllib3.connectionpool").addFilter(_HideSignatures())
