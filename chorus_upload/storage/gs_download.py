"""Reading one object of Google Cloud Storage as a stream that survives broken connections."""

from __future__ import annotations

import hashlib
import io
import re
from typing import TYPE_CHECKING

from chorus_upload.errors import PreconditionFailed, TransientError
from chorus_upload.storage.answers import broken_off, md5_in, must_be_complete, size_in
from chorus_upload.storage.curl import Answer
from chorus_upload.storage.gs_client import Bucket, Requests, of_kind
from chorus_upload.storage.store import StoredObject

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_MD5_IN_HASHES = re.compile(r"(?:^|[,\s])md5=([A-Za-z0-9+/]{22}==)")


class Download(io.RawIOBase):
    """The bytes of one object, fetched `chunk` at a time; what broke off is fetched again from there on.

    All chunks are of the object as `stored` says: when it is replaced meanwhile, reading raises PreconditionFailed.
    """

    def __init__(
        self, requests: Requests, bucket: Bucket, name: str, stored: StoredObject, chunk: int, *, offset: int
    ) -> None:
        super().__init__()
        self._requests = requests
        self._url = media_url(bucket, name, stored.etag)
        self._stored = stored
        self._chunk = chunk
        self._got = offset
        self._buffer = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        if not self._buffer and self._got < self._stored.size:
            data = self._requests.run(f"reading {self._stored.key}", self._fetch)
            self._got += len(data)
            self._buffer = memoryview(data)
        target = memoryview(buffer).cast("B")
        count = min(len(target), len(self._buffer))
        target[:count] = self._buffer[:count]
        self._buffer = self._buffer[count:]
        return count

    def _fetch(self) -> bytes:
        stored = self._stored
        length = min(self._chunk, stored.size - self._got)
        answer = read_range(self._requests, self._url, offset=self._got, length=length, etag=stored.etag)
        if len(answer.body) == stored.size and not _is_as_said(answer.body, answer.headers.get("x-goog-hash", "")):
            raise TransientError("it did not arrive as it is stored")
        return answer.body


def media_url(bucket: Bucket, name: str, etag: str) -> str:
    """Where the bytes of an object are, as long as its etag is this one."""
    return bucket.at(name, {"alt": "media", "ifGenerationMatch": etag})


def read_range(requests: Requests, url: str, *, offset: int, length: int, etag: str) -> Answer:
    """So many bytes behind a `media_url`. Raises NoAnswer, Refused, and PreconditionFailed for another object."""
    # What was stored compressed is given as it is stored only to who says that he takes it; else it would be
    # uncompressed on the way, and have another size than the service says.
    headers = [f"Range: bytes={offset}-{offset + length - 1}", "Accept-Encoding: gzip"]
    answer, _ = requests.get("GET", url, headers, judge=of_kind(None, 200, 206))
    must_be_complete(answer.headers.get("x-goog-generation"))
    if answer.headers["x-goog-generation"] != etag:
        raise PreconditionFailed("it was replaced while it was read")
    # Without a range it is all of the object, which has to be what was asked for.
    if offset or "content-range" in answer.headers:
        size_in(answer.headers.get("content-range"), answer.body, offset=offset)
    if len(answer.body) != length:
        raise broken_off()
    return answer


def _is_as_said(data: bytes, hashes: str) -> bool:
    """Whether a whole object is what the service says of it beside; most are small, and have been read as a whole."""
    said = _MD5_IN_HASHES.search(hashes)
    return said is None or md5_in(said[1]) == hashlib.md5(data, usedforsecurity=False).digest()
