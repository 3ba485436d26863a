"""Requests for the content of objects in S3, put together here, signed by the library, and sent by our HTTP client.

See "PutObject", "UploadPart" and "GetObject" in the reference of Amazon's S3 REST API, and its Signature Version 4.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import ClientError
from fsspec.asyn import get_loop

from chorus_upload.storage.answers import unescaped
from chorus_upload.storage.curl import SILENCE, Answer, HttpClient
from chorus_upload.storage.network import Network
from chorus_upload.storage.s3_client import Connection
from chorus_upload.storage.service_mark import S3, require
from chorus_upload.storage.traffic import Traffic

# Temporary credentials are renewed by the library, a quarter of an hour before they end.
_ASK_SECONDS = 60.0
_UNSIGNED = "UNSIGNED-PAYLOAD"
_ANY_KEY = "k"
_CODE = re.compile(rb"<Code>([^<]*)</Code>")
_MESSAGE = re.compile(rb"<Message>([^<]*)</Message>")
_REGION = re.compile(r"[a-z0-9-]+")
_REGION_IN_HOST = re.compile(r"(?<=[./]s3)(?:[.-][a-z0-9-]+)?(?=\.amazonaws\.)")


class _Signer(S3SigV4Auth):  # type: ignore[misc]  # the library is not typed
    """Of the content it signs what we have computed of it, or nothing: it is compared with a Content-MD5 anyway."""

    def payload(self, request: AWSRequest) -> str:
        return str(request.context["payload"])


@dataclass(frozen=True, slots=True)
class _Entrance:
    """Where the bucket is, without a slash at its end, and how requests are signed; None for anonymous ones."""

    address: str
    region: str
    credentials: Any
    http: HttpClient


class Direct:
    """Asks for objects of one bucket. May be used by many threads. `headers` go with every request."""

    def __init__(
        self,
        connection: Connection,
        network: Network,
        traffic: Traffic,
        *,
        headers: Mapping[str, str],
        moved: Callable[[], None] | None = None,
    ) -> None:
        self._note_movement = moved
        self._headers = headers
        self._connection = connection
        self._network = network
        self._traffic = traffic
        self._lock = threading.Lock()
        self._entrance: _Entrance | None = None
        self._asked_at = 0.0
        self._clients: list[HttpClient] = []

    def request(
        self,
        method: str,
        name: str,
        *,
        headers: Mapping[str, str],
        parameters: Mapping[str, str] | None = None,
        content: bytes | memoryview = b"",
        silence: float = SILENCE,
        expected: int,
    ) -> Answer:
        """One request for an object, once: the answer of the service, a success only with its `expected` status.

        Raises NoAnswer, which what is not the service's is too, and what the library raises of credentials.
        """
        query = f"?{urlencode(parameters, quote_via=quote)}" if parameters else ""
        path = f"/{quote(name, safe='/~')}{query}"
        headers = {**self._headers, **headers}
        entrance = self._entered()
        answer = _exchange(entrance, method, path, headers, content, silence, expected)
        region = answer.headers.get("x-amz-bucket-region")
        # It becomes part of an address: whatever is no name of a region would lead anywhere.
        if answer.status < 300 or region == entrance.region or not _REGION.fullmatch(region or ""):
            return answer
        # The bucket is elsewhere, and the service says where.
        return _exchange(self._moved(entrance, str(region)), method, path, headers, content, silence, expected)

    def forget_credentials(self) -> None:
        """Ask for the credentials anew before the next request."""
        self._asked_at = float("-inf")

    def close(self) -> None:
        """Close all connections; no thread may be using them any more."""
        while self._clients:
            self._clients.pop().close()

    def _entered(self) -> _Entrance:
        entrance = self._entrance
        if entrance is not None and time.monotonic() - self._asked_at < _ASK_SECONDS:
            return entrance
        with self._lock:
            if self._entrance is None or time.monotonic() - self._asked_at >= _ASK_SECONDS:
                self._entrance = self._asked(self._entrance)
                self._asked_at = time.monotonic()
            return self._entrance

    def _asked(self, known: _Entrance | None) -> _Entrance:
        """What the library knows: of credentials that it renews it is asked again."""
        found = asyncio.run_coroutine_threadsafe(self._connection.entrance(_ANY_KEY), get_loop()).result()
        if known is not None:
            return _Entrance(known.address, known.region, found.credentials, known.http)
        return self._at(found.url.partition("?")[0].removesuffix(f"/{_ANY_KEY}"), found.region, found.credentials)

    def _moved(self, entrance: _Entrance, region: str) -> _Entrance:
        with self._lock:
            if self._entrance is None or self._entrance.region != region:
                self._entrance = self._at(in_region(entrance.address, region), region, entrance.credentials)
            return self._entrance

    def _at(self, address: str, region: str, credentials: object) -> _Entrance:
        traffic = self._traffic
        http = HttpClient(
            address, self._network, throttle=traffic.throttle, stop=traffic.stop, moved=self._note_movement
        )
        self._clients.append(http)
        return _Entrance(address, region, credentials, http)


def _exchange(
    entrance: _Entrance,
    method: str,
    path: str,
    headers: Mapping[str, str],
    content: bytes | memoryview,
    silence: float,
    expected: int,
) -> Answer:
    url = f"{entrance.address}{path}"
    request = AWSRequest(method=method, url=url, headers=dict(headers))
    if entrance.credentials is not None:
        is_protected = url.startswith("https:")
        request.context["payload"] = _UNSIGNED if is_protected else hashlib.sha256(content).hexdigest()
        _Signer(entrance.credentials, "s3", entrance.region).add_auth(request)
    lines = ["Expect:", *(f"{key}: {value}" for key, value in request.headers.items())]
    answer = entrance.http.request(method, url, lines, content, silence=silence)
    require(S3, answer.status, answer.headers, answer.body, expected=(expected,))
    return answer


def in_region(address: str, region: str) -> str:
    """The address of the same bucket in another region of Amazon's; of any other service the same."""
    return _REGION_IN_HOST.sub(f".{region}", address, count=1)


def refused(answer: Answer) -> ClientError:
    """An answer that is no success, as the library tells it."""
    code, message = (found[1].decode("utf-8", "replace") if found else "" for found in _words(answer.body))
    said = {"Code": code or str(answer.status), "Message": unescaped(message) or answer.reason}
    beside = {"HTTPStatusCode": answer.status, "HTTPHeaders": dict(answer.headers)}
    return ClientError({"Error": said, "ResponseMetadata": beside}, "")


def _words(body: bytes) -> tuple[re.Match[bytes] | None, re.Match[bytes] | None]:
    return _CODE.search(body), _MESSAGE.search(body)
