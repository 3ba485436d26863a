"""Reading one object of Azure as a stream that survives broken connections."""

from __future__ import annotations

import io
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from azure.storage.blob import BlobClient, StorageStreamDownloader

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
        self._etag, self._size, first = requests.run(self._doing, self._fetch_first)
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

    def _fetch_first(self) -> tuple[str, int, bytes]:
        found = self._download(None, None)
        return bare_etag(found.properties.etag), found.size, found.read(min(found.size, self._chunk))

    def _fetch_next(self) -> bytes:
        return self._download(self._got, min(self._chunk, self._size - self._got)).readall()

    def _download(self, offset: int | None, length: int | None) -> StorageStreamDownloader[bytes]:
        conditions = Conditions(if_match=self._etag if offset else None)
        answers: list[Any] = []
        with ExitStack() as when_unusable:
            when_unusable.callback(_close, answers)
            try:
                found = self._blob.download_blob(
                    offset, length, max_concurrency=1, raw_response_hook=answers.append, **conditions.options
                )
            except ValueError:  # how the SDK takes an answer without a Content-Range
                raise broken_off() from None
            must_be_complete(found.properties.etag)
            when_unusable.pop_all()
        return found


def _close(answers: list[Any]) -> None:
    """Answers that the SDK cannot use it leaves half read, and their connections open."""
    for answer in answers:
        answer.http_response.internal_response.close()
