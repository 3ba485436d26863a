"""Lets `requests`, and with it the Azure SDK, send through our HTTP client: one way to the network for all."""

from __future__ import annotations

import io
from collections.abc import Mapping

import requests
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict
from urllib3 import HTTPHeaderDict, HTTPResponse

from chorus_upload.storage.curl import HttpClient

# Headers that libcurl writes itself.
_OWN_HEADERS = frozenset({"content-length", "host", "transfer-encoding"})


class CurlAdapter(BaseAdapter):
    """For bodies and answers that fit into memory, which those of the SDK's requests do (see azure.py)."""

    def __init__(self, http: HttpClient) -> None:
        super().__init__()
        self._http = http

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,  # noqa: FBT001, FBT002 - the signature is requests'
        timeout: float | tuple[float | None, float | None] | None = None,
        verify: bool | str = True,  # noqa: FBT001, FBT002
        cert: bytes | str | tuple[bytes | str, bytes | str] | None = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """Time-outs, certificates and proxies are those of the client; what the caller says of them is ignored."""
        lines = ["Expect:"]
        if "Content-Type" not in request.headers:
            # libcurl would add one, and a signature may cover it.
            lines.append("Content-Type:")
        for name, value in request.headers.items():
            if name.lower() not in _OWN_HEADERS:
                # Of a header that is empty libcurl believes that it is not to be sent, unless it is written like this.
                text = _text(value)
                lines.append(f"{name}: {text}" if text else f"{name};")
        answer = self._http.request(request.method or "GET", request.url or "", lines, _bytes(request.body))
        response = requests.Response()
        response.status_code = answer.status
        response.reason = answer.reason
        response.url = request.url or ""
        response.request = request
        response.headers = CaseInsensitiveDict(answer.headers)
        response.raw = HTTPResponse(
            io.BytesIO(answer.body),
            headers=HTTPHeaderDict(answer.headers),
            status=answer.status,
            preload_content=False,
            request_method=request.method,
        )
        return response

    def close(self) -> None:
        """The client belongs to whoever made it."""


def _bytes(body: object) -> bytes:
    match body:
        case None:
            return b""
        case str():
            return body.encode()
        case bytes():
            return body
    read: bytes = body.read()  # type: ignore[attr-defined]  # the SDK's other kind of body: a stream
    return read


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
