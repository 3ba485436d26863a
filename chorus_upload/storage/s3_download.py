"""Reading one object of S3 as a stream that survives broken connections."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from chorus_upload.errors import TransientError
from chorus_upload.storage.answers import broken_off, moment_in, size_in
from chorus_upload.storage.curl import Answer
from chorus_upload.storage.s3_client import bare, microseconds, quoted
from chorus_upload.storage.s3_direct import refused
from chorus_upload.storage.s3_errors import must_be_complete
from chorus_upload.storage.s3_parts import computed_md5, encryption_in
from chorus_upload.storage.s3_requests import Call, Requests
from chorus_upload.storage.store import FINGERPRINT, Checksum, ComputedBy, StoredObject, fingerprint_in

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

HEAD = ("ETag", "LastModified", "ContentLength")
"""What the answer to a HEAD has to have."""


class Download(io.RawIOBase):
    """The bytes of one object, `stored`, fetched `chunk` at a time; what broke off is fetched again from there on.

    All chunks are of the object as it was when this was made: when it is replaced meanwhile, reading raises
    PreconditionFailed. Making it raises ObjectNotFound.
    """

    def __init__(self, requests: Requests, at: dict[str, Any], *, key: str, chunk: int, offset: int) -> None:
        super().__init__()
        self._requests = requests
        self._at = at
        self._key = key
        self._chunk = chunk
        self._got = offset
        self.stored, self._buffer = self._fetch({}, chunk)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        if not self._buffer and self._got < self.stored.size:
            most = min(self._chunk, self.stored.size - self._got)
            _, self._buffer = self._fetch({"If-Match": quoted(self.stored.etag)}, most)
        target = memoryview(buffer).cast("B")
        count = min(len(target), len(self._buffer))
        target[:count] = self._buffer[:count]
        self._buffer = self._buffer[count:]
        return count

    def _fetch(self, conditions: dict[str, str], most: int) -> tuple[StoredObject, memoryview]:
        first = self._got

        def judge(answer: Answer) -> tuple[StoredObject, bytes]:
            said = answer.headers
            if answer.status == 416 and not conditions:
                # There is nothing from there on; of an empty object there are not even first bytes.
                return self._requests.run(f"reading {self._key}", look), b""
            if answer.status >= 300:
                raise refused(answer)
            must_be_complete({"etag": said.get("etag")}, "etag")
            size = size_in(said.get("content-range"), answer.body, offset=first)
            if len(answer.body) != min(most, size - first):
                raise broken_off()
            found = {
                "ETag": said["etag"],
                "LastModified": moment_in(said.get("last-modified")),
                "Metadata": {FINGERPRINT: said.get(f"x-amz-meta-{FINGERPRINT}")},
                **encryption_in(answer),
            }
            return describe(self._key, size, found), answer.body

        async def look(call: Call) -> StoredObject:
            answer = await call("head_object", *HEAD, **self._at)
            if answer["ContentLength"] > first:
                raise TransientError("it was replaced just now")
            return describe(self._key, answer["ContentLength"], answer)

        headers = {"Range": f"bytes={first}-{first + most - 1}", **conditions}
        stored, data = self._requests.get(f"reading {self._key}", str(self._at["Key"]), headers, judge)
        self._got += len(data)
        return stored, memoryview(data)


def describe(key: str, size: int, found: dict[str, Any]) -> StoredObject:
    """An object as an answer to GET or HEAD, or a listing, tells of it."""
    # The MD5 of what was sent at once, but for some encryptions, of which a listing says nothing, and some services.
    claim = computed_md5(found)
    return StoredObject(
        key=key,
        size=size,
        etag=bare(found["ETag"]),
        time_us=microseconds(found["LastModified"]),
        checksum=Checksum(claim, ComputedBy.UNKNOWN) if claim else None,
        fingerprint=fingerprint_in((found.get("Metadata") or {}).get(FINGERPRINT)),
    )
