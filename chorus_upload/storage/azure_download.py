"""Reading one object of Azure as a stream that survives broken connections."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

from chorus_upload.storage.answers import broken_off, md5_in, moment_in, must_be_complete, size_in
from chorus_upload.storage.azure_errors import Refused
from chorus_upload.storage.azure_requests import DataRequests, Requests, bare_etag
from chorus_upload.storage.azure_upload import microseconds
from chorus_upload.storage.store import FINGERPRINT, Checksum, ComputedBy, StoredObject, fingerprint_in

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class Download(io.RawIOBase):
    """The bytes of one object, fetched `chunk` at a time; what broke off is fetched again from there on.

    All chunks are of the object as it was when this was made (`stored`): when it is replaced meanwhile, reading raises
    PreconditionFailed. Making it raises ObjectNotFound. `url` is the object's, without credentials; `look` says what
    the object is where there are no bytes to fetch.
    """

    def __init__(
        self,
        requests: Requests,
        data: DataRequests,
        url: str,
        *,
        key: str,
        chunk: int,
        offset: int,
        look: Callable[[], StoredObject],
    ) -> None:
        super().__init__()
        self._requests = requests
        self._data = data
        self._url = url
        self._key = key
        self._chunk = chunk
        self._look = look
        self._got = offset
        self.stored, first = self._fetch(chunk, ())
        self._buffer = memoryview(first)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        if not self._buffer and self._got < self.stored.size:
            most = min(self._chunk, self.stored.size - self._got)
            _, data = self._fetch(most, (f'If-Match: "{self.stored.etag}"',))
            self._buffer = memoryview(data)
        target = memoryview(buffer).cast("B")
        count = min(len(target), len(self._buffer))
        target[:count] = self._buffer[:count]
        self._buffer = self._buffer[count:]
        return count

    def _fetch(self, most: int, conditions: tuple[str, ...]) -> tuple[StoredObject, bytes]:
        headers = (f"x-ms-range: bytes={self._got}-{self._got + most - 1}", *conditions)

        def fetch() -> tuple[StoredObject, bytes]:
            try:
                answer = self._data.get(self._url, headers)
            except Refused as error:
                # From there on there is nothing; of an empty object there are not even first bytes.
                if error.refusal.status != 416 or conditions:
                    raise
                return self._look(), b""
            said = answer.headers
            must_be_complete(said.get("etag"))
            size = size_in(said.get("content-range"), answer.body, offset=self._got)
            if len(answer.body) != min(most, size - self._got):
                raise broken_off()
            md5 = md5_in(said.get("x-ms-blob-content-md5"))
            stored = StoredObject(
                key=self._key,
                size=size,
                etag=bare_etag(said["etag"]),
                time_us=microseconds(moment_in(said.get("last-modified"))),
                checksum=Checksum(md5, ComputedBy.UNKNOWN) if md5 else None,
                fingerprint=fingerprint_in(said.get(f"x-ms-meta-{FINGERPRINT}")),
            )
            return stored, answer.body

        stored, data = self._requests.run(f"reading {self._key}", fetch)
        self._got += len(data)
        return stored, data


def read_range(data: DataRequests, url: str, *, offset: int, length: int, etag: str) -> bytes:
    """So many bytes of an object, in one request, if it has that etag. Raises NoAnswer and Refused."""
    answer = data.get(url, (f"x-ms-range: bytes={offset}-{offset + length - 1}", f'If-Match: "{etag}"'))
    size_in(answer.headers.get("content-range"), answer.body, offset=offset)
    if len(answer.body) != length:
        raise broken_off()
    return answer.body
