"""A bucket of Amazon S3, or of a service that speaks its protocol, as a store.

What the service proves, and how it is used here:

| what it says | what it proves | what becomes of it |
|---|---|---|
| it takes a request with a Content-MD5 | it compared that with the bytes that arrived | `transit_checked` |
| the etag of a PUT, of 32 hexadecimal digits | it is the MD5 that the service computed | an MD5 by the service |
| the same, encrypted with a key of KMS or of ours | nothing: it is no MD5 then | only `transit_checked` |
| the etag of a part | as that of a PUT, for the part | not sent again, or taken as copied, if it is our MD5 |
| the etag of an object in parts (`…-12`) | nothing: it is made of those of the parts | compared with other etags only |
| an etag in a listing or a HEAD | nothing: nobody says how it came about | the same |

A body up to `one_request_limit` is one PUT, a larger one a multipart upload of which every part is checked. Of the
latter the service takes metadata and storage class only at its beginning, when the body was not read: it has none.
A session that was interrupted stays, so that the next try goes on there; buckets should have a lifecycle rule that
ends forgotten ones after some days (AbortIncompleteMultipartUpload).

Conditions are the service's (If-None-Match, If-Match), also for deleting. An etag here follows from the content, so
`if_match` tells contents apart and not writes. When the answer to a write is lost, the request is repeated, and may
then meet its own result: the caller reads back what is there and decides.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from botocore.exceptions import ClientError

from chorus_upload.errors import ObjectExists, PreconditionFailed, StoppedAtOnce, StorageError, TransientError
from chorus_upload.model import Twin
from chorus_upload.storage.bodies import whole
from chorus_upload.storage.keys import check_key, clean_prefix, join_key
from chorus_upload.storage.names import refused_by_s3
from chorus_upload.storage.network import Network
from chorus_upload.storage.retry import Retry
from chorus_upload.storage.s3_client import Connection, S3Access, bare, microseconds, quoted
from chorus_upload.storage.s3_errors import Call, Motion, Requests, code_of, must_be_complete, status_of
from chorus_upload.storage.s3_upload import Upload, part_size_for
from chorus_upload.storage.store import Capabilities, Checksum, ComputedBy, ObjectStream, Properties, StoredObject
from chorus_upload.storage.traffic import Traffic

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_MIB = 1 << 20
# What is smaller is sent in less time than it takes to ask for a copy.
_WORTH_COPYING = _MIB
_PIECE = 1 << 16
_LIKE_AN_MD5 = re.compile(r"[0-9a-f]{32}")
_HEAD = ("ETag", "LastModified", "ContentLength")


class S3Store:
    """The objects of `bucket` whose names begin with `prefix` and a slash. The bucket has to exist.

    `endpoint_url` is the address of a service that is not Amazon's. What a put holds in memory, and how much is sent
    at once, is for `traffic` to say; a stream that was opened holds one part of `part_size`.
    """

    def __init__(  # noqa: PLR0913 - each is a choice of its own
        self,
        bucket: str,
        *,
        access: S3Access,
        prefix: str = "",
        endpoint_url: str | None = None,
        network: Network | None = None,
        traffic: Traffic | None = None,
        retry: Retry | None = None,
        part_size: int = 8 * _MIB,
        page_size: int = 1000,
    ) -> None:
        network = network or Network()
        traffic = traffic or Traffic(network.connections)
        self._prefix = clean_prefix(prefix)
        self._part_size = part_size
        self._page_size = page_size
        self._connection = Connection(bucket, access, endpoint_url, network)
        self._requests = Requests(self._connection.call, retry or Retry(), traffic)
        self._executor = ThreadPoolExecutor(network.connections, thread_name_prefix="chorus-parts")
        self._bucket: dict[str, Any] = {"Bucket": bucket}
        if access.requester_pays:
            self._bucket["RequestPayer"] = "requester"
        where = f"{endpoint_url.rstrip('/')}/{bucket}" if endpoint_url else f"s3://{bucket}"
        self._url = join_key(where, self._prefix) if self._prefix else where

    @property
    def url(self) -> str:
        return self._url

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            atomic_create=True,
            service_checksum=True,
            transit_checksum=True,
            one_request_limit=self._part_size,
            etag_follows_content=True,
        )

    def probe(self) -> None:
        self._page(f"{self._prefix}/" if self._prefix else "", None, most=1)

    def scan(self, prefix: str = "") -> Iterator[StoredObject]:
        """See `Store.scan`. What other tools leave to stand for a directory (`dir/`) is no object."""
        lead = f"{self._prefix}/" if self._prefix else ""
        found, following = self._page(lead + prefix, None, most=self._page_size)
        while True:
            for each in found:
                key = each["Key"][len(lead) :]
                if key and not key.endswith("/"):
                    yield _describe(key, each["Size"], each)
            if following is None:
                return
            found, following = self._page(lead + prefix, following, most=self._page_size)

    def stat(self, key: str) -> StoredObject | None:
        at = self._at(key)

        async def look(call: Call, _: Motion) -> dict[str, Any] | None:
            with suppress(ClientError):
                return await call("head_object", *_HEAD, **at)
            return None if await _is_absent(call, at) else await call("head_object", *_HEAD, **at)

        found = self._requests.run(f"looking at {key}", look)
        return None if found is None else _describe(key, found["ContentLength"], found)

    def open(self, key: str) -> ObjectStream:
        download = _Download(self._requests, self._at(key), key=key, chunk=self._part_size)
        return ObjectStream(download, download.stored, buffer_size=_MIB)

    def read_range(self, key: str, *, offset: int, length: int, etag: str) -> bytes:
        """See `RangedStore`."""
        at = self._at(key)

        async def fetch(call: Call, motion: Motion) -> bytearray:
            asked = {**at, "IfMatch": quoted(etag), "Range": f"bytes={offset}-{offset + length - 1}"}
            answer = await call("get_object", "Body", **asked)
            data = await _body_of(answer, motion)
            if len(data) != length:
                raise TransientError("the answer broke off")
            return data

        return bytes(self._requests.run(f"reading {key}", fetch))

    def put(
        self,
        key: str,
        body: bytes | BinaryIO,
        *,
        size: int,
        create_only: bool = False,
        if_match: str | None = None,
        properties: Callable[[], Properties] = Properties,
        twin: Twin | None = None,
    ) -> StoredObject:
        """See `Store.put`, and above for what it means when the answer was lost."""
        upload = Upload(
            self._requests,
            self._bucket,
            self._name(key),
            key,
            lambda: self.stat(key),
            create_only,
            if_match,
            properties,
        )
        part_size = part_size_for(size, at_least=self._part_size)
        try:
            if size <= self._part_size and (twin is None or size < _WORTH_COPYING):
                return upload.at_once(whole(body, size=size))
            stream = io.BytesIO(body) if isinstance(body, bytes) else body
            source = None if twin is None else (self._name(twin.key), twin)
            return upload.in_parts(stream, size=size, part_size=part_size, executor=self._executor, twin=source)
        except PreconditionFailed as error:
            if not create_only:
                raise
            failure = ObjectExists(error.message)
        raise failure

    def delete(self, key: str, *, if_match: str | None = None) -> None:
        """See `Store.delete`. A service that does not know If-Match here compares just before."""
        at = self._at(key)
        attempts = 0

        async def remove(call: Call, _: Motion) -> None:
            nonlocal attempts
            attempts += 1
            if if_match is None:
                await call("delete_object", **at)
                return
            try:
                await call("head_object", **at, IfMatch=quoted(if_match))
                await call("delete_object", **at, IfMatch=quoted(if_match))
            except ClientError as error:
                if status_of(error) == 404 and await _is_absent(call, at):
                    raise PreconditionFailed(f"{key} is gone") from None
                raise

        try:
            self._requests.run(f"deleting {key}", remove)
        except PreconditionFailed:
            # Gone in the second attempt: the first one did it, only its answer was lost.
            if attempts == 1 or self.stat(key) is not None:
                raise

    def close(self) -> None:
        self._executor.shutdown(cancel_futures=True)
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        # Threads may be in the middle of a request then, and are not waited for.
        if not isinstance(exc[1], StoppedAtOnce):
            self.close()

    def _at(self, key: str) -> dict[str, Any]:
        return {**self._bucket, "Key": self._name(key)}

    def _name(self, key: str) -> str:
        """The object's name in the bucket; StorageError when the service would refuse it or bend it."""
        name = join_key(self._prefix, check_key(key))
        if reason := refused_by_s3(name):
            raise StorageError(f"{key!r} cannot be stored in S3: {reason}")
        return name

    def _page(self, prefix: str, token: str | None, *, most: int) -> tuple[list[dict[str, Any]], str | None]:
        """One page of a listing, of so many objects at most, and what to ask for the next one with."""
        after = {"ContinuationToken": token} if token else {}

        async def fetch(call: Call, _: Motion) -> tuple[list[dict[str, Any]], str | None]:
            # A page of somebody else (a proxy asks for a log-in), which has none of that, looks like an empty bucket.
            required = ("Name", "IsTruncated")
            page = await call("list_objects_v2", *required, **self._bucket, Prefix=prefix, MaxKeys=most, **after)
            if not page["IsTruncated"]:
                return page.get("Contents", []), None
            must_be_complete(page, "NextContinuationToken")
            return page.get("Contents", []), page["NextContinuationToken"]

        return self._requests.run(f"listing {self._url}", fetch)


class _Download(io.RawIOBase):
    """The bytes of one object, `stored`, fetched `chunk` at a time; what broke off is fetched again from there on.

    All chunks are of the object as it was when this was made: when it is replaced meanwhile, reading raises
    PreconditionFailed. Making it raises ObjectNotFound.
    """

    def __init__(self, requests: Requests, at: dict[str, Any], *, key: str, chunk: int) -> None:
        super().__init__()
        self._requests = requests
        self._at = at
        self._key = key
        self._chunk = chunk
        self._got = 0
        self.stored, self._buffer = self._fetch({}, chunk)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        if not self._buffer and self._got < self.stored.size:
            most = min(self._chunk, self.stored.size - self._got)
            _, self._buffer = self._fetch({"IfMatch": quoted(self.stored.etag)}, most)
        target = memoryview(buffer).cast("B")
        count = min(len(target), len(self._buffer))
        target[:count] = self._buffer[:count]
        self._buffer = self._buffer[count:]
        return count

    def _fetch(self, conditions: dict[str, str], most: int) -> tuple[StoredObject, memoryview]:
        first = self._got

        async def fetch(call: Call, motion: Motion) -> tuple[StoredObject, bytearray]:
            asked = {**self._at, **conditions, "Range": f"bytes={first}-{first + most - 1}"}
            try:
                answer = await call("get_object", "Body", **asked)
            except ClientError as error:
                if status_of(error) != 416 or first:
                    raise
                # Of an empty object there are no first bytes.
                answer = await call("head_object", *_HEAD, **self._at)
                if answer["ContentLength"]:
                    raise TransientError("it was replaced just now") from None
                return _describe(self._key, 0, answer), bytearray()
            data = await _body_of(answer, motion)
            must_be_complete(answer, "ETag", "LastModified", "ContentRange")
            size = int(answer["ContentRange"].rpartition("/")[2])
            if len(data) != min(most, size - first):
                raise TransientError("the answer broke off")
            return _describe(self._key, size, answer), data

        stored, data = self._requests.run(f"reading {self._key}", fetch)
        self._got += len(data)
        return stored, memoryview(data)


async def _body_of(answer: dict[str, Any], motion: Motion) -> bytearray:
    data = bytearray()
    async with answer["Body"] as stream:
        while piece := await stream.read(_PIECE):
            data += piece
            motion.moved += len(piece)
    return data


async def _is_absent(call: Call, at: dict[str, Any]) -> bool:
    """Whether it is the object that is missing; raises what else is the matter.

    The answer to a HEAD has no place for that: a missing bucket looks the same, and a token that has expired is just
    a bad request.
    """
    try:
        answer = await call("get_object", "Body", **at, Range="bytes=0-0")
    except ClientError as error:
        if status_of(error) == 416:
            return False
        if code_of(error) != "NoSuchKey":
            raise
        return True
    answer["Body"].close()
    return False


def _describe(key: str, size: int, found: dict[str, Any]) -> StoredObject:
    etag = bare(found["ETag"])
    # The MD5 of what was sent at once, but for some encryptions and services: a claim, like that in any listing.
    claim = Checksum(bytes.fromhex(etag), ComputedBy.UNKNOWN) if _LIKE_AN_MD5.fullmatch(etag) else None
    return StoredObject(key=key, size=size, etag=etag, time_us=microseconds(found["LastModified"]), checksum=claim)
