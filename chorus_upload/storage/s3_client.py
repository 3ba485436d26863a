"""Getting in touch with S3: the library's client for one bucket, with one set of credentials."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import AioSession
from botocore.handlers import add_expect_header
from fsspec.asyn import get_loop
from s3fs import S3FileSystem

from chorus_upload.errors import ConfigError
from chorus_upload.storage.curl import NO_CACHE, READS
from chorus_upload.storage.network import Network, is_this_machine
from chorus_upload.storage.replay import RecentResponses, Replayed
from chorus_upload.storage.s3_errors import LedAway, must_be_complete
from chorus_upload.storage.service_mark import S3, require

_CONNECT_SECONDS = 60
_READ_SECONDS = 900
_CLOSE_SECONDS = 10
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SUCCESSES = {"DeleteObject": (204,), "AbortMultipartUpload": (204,), "GetObject": (200, 206)}
"""The statuses of a success, where it is not 200."""


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Access:
    """How a bucket is entered; without any of it as the environment, `~/.aws` or the machine's role say.

    `requester_pays`: whoever asks pays for what is transferred, as some buckets demand.
    """

    key_id: str | None = None
    secret: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    profile: str | None = None
    anonymous: bool = False
    requester_pays: bool = False


@dataclass(frozen=True, slots=True)
class Entrance:
    """A signed address of an object, its region, and the credentials of the moment; None for anonymous access."""

    url: str = field(repr=False)
    region: str
    credentials: Any = field(repr=False)


class Connection:
    """The library's client for one bucket, made when it is first needed, within the library's event loop."""

    def __init__(self, bucket: str, access: S3Access, endpoint_url: str | None, network: Network) -> None:
        if endpoint_url:
            _refuse_plain_http(endpoint_url)
        self._bucket = bucket
        self._is_anonymous = access.anonymous
        url = urlsplit(endpoint_url or f"https://{bucket}.s3.amazonaws.com")
        proxy = network.proxy_for(url.scheme, url.hostname or "")
        if proxy.startswith("socks"):
            raise ConfigError("S3 cannot be reached through a SOCKS proxy", hint="Write http://host:port in `proxy`.")
        config: dict[str, Any] = {
            # Waiting is the business of `Retry`.
            "retries": {"total_max_attempts": 1, "mode": "standard"},
            "max_pool_connections": network.connections + 4,
            "connect_timeout": _CONNECT_SECONDS,
            "read_timeout": _READ_SECONDS,
            "http_session_cls": _Http,
            "proxies": {"http": proxy, "https": proxy} if proxy else {},
            # The checksum that is sent is our Content-MD5.
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
        }
        self._made = partial(self._file_system, endpoint_url=endpoint_url, config=config, network=network)
        self._files = self._made(access)
        self._client: Any = None
        self._old: list[Any] = []

    def use(self, access: S3Access) -> None:
        """Ask with these credentials from now on."""
        files = self._made(access)
        if self._client is not None:
            # Other threads may be in the middle of a request.
            self._old.append(self._client)
        self._files, self._client = files, None

    def _file_system(
        self, access: S3Access, *, endpoint_url: str | None, config: Mapping[str, Any], network: Network
    ) -> S3FileSystem:
        session = AioSession(profile=access.profile)
        session.register_component("data_loader", _loader())
        return S3FileSystem(
            anon=access.anonymous,
            key=access.key_id,
            secret=access.secret,
            token=access.session_token,
            endpoint_url=endpoint_url,
            client_kwargs={"verify": str(network.trusted)},
            config_kwargs=config,
            # In an instance cache the secret would outlive the store.
            skip_instance_cache=True,
            asynchronous=True,
            session=session,
        )

    async def call(self, operation: str, *required: str, **parameters: object) -> dict[str, Any]:
        """Ask for one operation, by the library's name of it. Raises TransientError when the answer is not whole.

        What is not the service's raises NoAnswer, whatever its status.
        """
        client = await self._ready()
        answer: dict[str, Any] = await getattr(client, operation)(**parameters)
        must_be_complete(answer, *required)
        return answer

    async def _ready(self) -> Any:  # noqa: ANN401 - made at run time by the library
        if self._client is None:
            client = await self._files.set_session()
            _refuse_plain_http(client.meta.endpoint_url)
            # Some proxies never answer an "Expect: 100-continue", for which the library would wait.
            client.meta.events.unregister("before-call.s3", add_expect_header)
            # Before the library makes anything of it: it would ask again in another region, say.
            client.meta.events.register_first("before-parse.s3", _require_the_service)
            self._client = client
        return self._client

    async def entrance(self, key: str) -> Entrance:
        """Where an object of that key is, and how requests for it are signed."""
        client = await self._ready()
        # A signed address: nobody but the library knows how a bucket of this name is called in this region.
        url = await client.generate_presigned_url("get_object", Params={"Bucket": self._bucket, "Key": key})
        credentials = None if self._is_anonymous else client._request_signer._credentials
        frozen = None if credentials is None else await credentials.get_frozen_credentials()
        return Entrance(url, client.meta.region_name or "us-east-1", frozen)

    def close(self) -> None:
        """Close all connections; no thread may be using them any more."""
        while self._old:
            asyncio.run_coroutine_threadsafe(self._old.pop().close(), get_loop()).result(_CLOSE_SECONDS)
        if self._client is not None:
            asyncio.run_coroutine_threadsafe(self._client.close(), get_loop()).result(_CLOSE_SECONDS)
            self._client = None


class _Http(AIOHTTPSession):  # type: ignore[misc]  # the library is not typed
    """The library's HTTP, without the second attempts and redirects of its own HTTP client, and with what we trust."""

    def _build_verify_context(self) -> ssl.SSLContext:
        # It knows files only; ours may be a directory of certificates.
        if not Path(self._verify).is_dir():
            context: ssl.SSLContext = super()._build_verify_context()
            return context
        return ssl.create_default_context(capath=self._verify)

    async def _get_session(self, proxy_url: str | None) -> aiohttp.ClientSession:
        session: aiohttp.ClientSession = await super()._get_session(proxy_url)
        # It would repeat a PUT whose answer was lost, and show only what the second one met: its own result.
        session._retry_connection = False
        if "request" not in vars(session):
            ask = partial(_response, session.request, RecentResponses(S3))
            session.request = ask  # type: ignore[assignment, method-assign]
        return session


async def _response(
    request: Callable[..., Awaitable[aiohttp.ClientResponse]],
    recent: RecentResponses,
    method: str,
    *,
    url: str,
    headers: Mapping[str, str],
    **options: object,
) -> aiohttp.ClientResponse:
    """Return the response to a request, which is nothing that a cache has kept. Raises Replayed.

    The HTTP client would follow a redirect to any host, with session tokens, and believe that.
    """
    if method in READS:
        headers = {**headers, **NO_CACHE}
    response = await request(method, url=url, headers=headers, allow_redirects=False, **options)
    try:
        recent.require_new(method, url, {name.lower(): value for name, value in response.headers.items()})
    except Replayed:
        response.close()
        raise
    return response


def _require_the_service(response_dict: dict[str, Any], **_: object) -> None:
    """Raise NoAnswer when a response is not the service's, and LedAway when the service leads to another place.

    To Amazon's "it is in another region" the library itself has an answer; without a region it would ask for that
    again and again.
    """
    status, headers, body = (response_dict[each] for each in ("status_code", "headers", "body"))
    expected = _SUCCESSES.get(response_dict["context"]["operation_name"], (200,))
    # The content of an object is still to come, and no mark.
    require(S3, status, headers, body if isinstance(body, bytes) else b"", expected=expected)
    if status in _REDIRECTS and "x-amz-bucket-region" not in headers:
        raise LedAway(f"it leads to another place ({status})")


@cache
def _loader() -> object:
    """What reads the library's descriptions of the service, which takes a while, and keeps them for the next client."""
    return AioSession().get_component("data_loader")


def _refuse_plain_http(url: str) -> None:
    """Patients' data travel unencrypted only to this very machine (an emulator)."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not is_this_machine(parts.hostname or ""):
        raise ConfigError(f"{parts.scheme}://{parts.hostname} is not encrypted", hint="Write https:// in endpoint_url.")


def microseconds(moment: datetime) -> int:
    """To the second: the service says it more exactly in some answers than in others."""
    return int(moment.timestamp()) * 1_000_000


def bare(etag: str) -> str:
    """The etag without its quotes."""
    return etag.removeprefix("W/").strip('"')


def quoted(etag: str) -> str:
    return f'"{etag}"'
