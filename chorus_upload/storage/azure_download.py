"""Reading one object of Azure as a stream that survives broken connections."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from azure.storage.blob import BlobClient, BlobProperties, StorageStreamDownloader

from chorus_upload.storage.azure_requests import Conditions, Requests, bare_etag, broken_off, must_be_complete

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class Download(io.RawIOBase):
    """The bytes of one object, fetched `chunk` at a time; what broke off is fetched again from there on.

    All chunks are of the object as it was when this was made: when it is replaced meanwhile, reading raises
    PreconditionFailed. Making it raises ObjectNotFound.
    """

    def __init__(self, requests: Requests, blob: BlobClient, *, key: str, chunk: int) -> None:
        super().__init__()
        self._requests = requests
        self._blob = blob
        self._doing = f"reading {key}"
        self._chunk = chunk
        # Without a range: that is the only way to ask for an empty object, too. One chunk is all it fetches.
        self.properties, first = requests.run(self._doing, self._fetch_first)
        self._etag, self._size = bare_etag(self.properties.etag), self.properties.size
        self._got = len(first)
        self._buffer = memoryview(first)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        if not self._buffer and self._got < self._size:
            data = self._requests.run(self._doing, self._fetch_next)
            self._got += len(data)
            self._buffer = memoryview(data)
        target = memoryview(buffer).cast("B")
        count = min(len(target), len(self._buffer))
        target[:count] = self._buffer[:count]
        self._buffer = self._buffer[count:]
        return count

    def _fetch_first(self) -> tuple[BlobProperties, bytes]:
        found = self._download(None, None)
        first = found.read(min(found.size, self._chunk))
        # Of what is asked for in pieces the SDK knows the whole size, and says that of the piece in its properties.
        found.properties.size = found.size
        return found.properties, _whole(first, min(found.size, self._chunk))

    def _fetch_next(self) -> bytes:
        length = min(self._chunk, self._size - self._got)
        return _whole(self._download(self._got, length).readall(), length)

    def _download(self, offset: int | None, length: int | None) -> StorageStreamDownloader[bytes]:
        return _download(self._blob, offset, length, if_match=self._etag if offset else None)


def read_range(blob: BlobClient, *, offset: int, length: int, etag: str) -> bytes:
    """So many bytes of an object, in one request, if it has that etag. Raises what the SDK raises."""
    return _whole(_download(blob, offset, length, if_match=etag).readall(), length)


def _download(
    blob: BlobClient, offset: int | None, length: int | None, *, if_match: str | None
) -> StorageStreamDownloader[bytes]:
    answers: list[Any] = []
    try:
        # One chunk is one request, and is in memory when this returns.
        found = blob.download_blob(
            offset,
            length,
            max_concurrency=1,
            raw_response_hook=answers.append,
            **Conditions(if_match=if_match).options,
        )
    except ValueError:  # how the SDK takes an answer without a Content-Range
        raise broken_off() from None
    finally:
        # Answers that it cannot use the SDK leaves half read, and their connections open. To an empty
        # object there always is one: a refusal to give the first bytes of nothing.
        for answer in answers:
            answer.http_response.internal_response.close()
    must_be_complete(found.properties.etag, found.properties.last_modified)
    return found


def _whole(data: bytes, length: int) -> bytes:
    if len(data) != length:
        raise broken_off()
    return data
