"""A bucket of Amazon S3, or of a service that speaks its protocol, as a store.

What the service proves, and how it is used here:

| what it says | what it proves | what becomes of it |
|---|---|---|
| any response without its mark (service_mark.py) | nothing: somebody else gave it | the request is repeated |
| it takes a request with a Content-MD5 | nothing: that may have been taken off on the way | |
| the etag of a PUT, of 32 hexadecimal digits | it is the MD5 that the service computed | an MD5 by the service |
| the same, encrypted with a key of KMS or of ours | nothing: it is no MD5 then | it is asked for a SHA-256 |
| `x-amz-checksum-sha256` of a PUT or a part | the service computed it over what it received | `transit_checked` |
| the etag of a part | as that of a PUT, for the part | `transit_checked`, if it is our MD5 |
| the etag of an object in parts (`…-12`) | nothing: it is made of those of the parts | compared with other etags only |
| an etag in a listing or a HEAD | nothing: nobody says how it came about | the same |

A body up to `one_request_limit` is one PUT, a larger one a multipart upload of which every part is checked; where the
service says of one part no checksum at all, the object has to be read back. Of an upload in parts the service takes
metadata and storage class only at its beginning, when the body was not read: it has the metadata that are known before.
A session that was interrupted stays, so that the next try goes on there; buckets should have a lifecycle rule that ends
forgotten ones after some days (AbortIncompleteMultipartUpload).

Conditions are the service's (If-None-Match, If-Match), also for deleting. An etag here follows from the content, so
`if_match` tells contents apart and not writes. When the answer to a write is lost, the request is repeated, and may
then meet its own result: the caller reads back what is there and decides.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from chorus_upload.errors import PreconditionFailed
from chorus_upload.model import Twin
from chorus_upload.storage.answers import broken_off, size_in
from chorus_upload.storage.bodies import whole
from chorus_upload.storage.condition_check import ConditionCheck
from chorus_upload.storage.curl import Answer
from chorus_upload.storage.names import refused_by_s3
from chorus_upload.storage.network import Network
from chorus_upload.storage.retry import Retry
from chorus_upload.storage.s3_client import Connection, S3Access, quoted
from chorus_upload.storage.s3_direct import Direct, refused
from chorus_upload.storage.s3_download import HEAD, Download, describe
from chorus_upload.storage.s3_errors import code_of, must_be_complete, status_of
from chorus_upload.storage.s3_requests import Call, Requests
from chorus_upload.storage.s3_upload import Upload, part_size_for
from chorus_upload.storage.service_store import ServiceStore
from chorus_upload.storage.store import (
    Capabilities,
    ObjectStream,
    Origin,
    Properties,
    StoredObject,
)
from chorus_upload.storage.traffic import Traffic
from chorus_upload.storage.tries import Pages

if TYPE_CHECKING:
    pass

_MIB = 1 << 20
# What is smaller is sent in less time than it takes to ask for a copy.
_WORTH_COPYING = _MIB


class S3Store(ServiceStore):
    """The objects of `bucket` whose names begin with `prefix` and a slash. The bucket has to exist.

    `endpoint_url` is the address of a service that is not Amazon's. What a put holds in memory, and how much is sent
    at once, is for `traffic` to say; a stream that was opened holds one part of `part_size`.
    """

    NAME = "S3"
    MOST_COPIED = 5 << 30
    """The service copies no larger part."""

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
        check: ConditionCheck | None = None,
    ) -> None:
        network = network or Network()
        traffic = traffic or Traffic(network.connections, patience=network.patience)
        self._part_size = part_size
        self._page_size = page_size
        self._check = check
        self._connection = Connection(bucket, access, endpoint_url, network)
        headers = {"x-amz-request-payer": "requester"} if access.requester_pays else {}
        retry = retry or Retry()
        self._direct = Direct(self._connection, network, traffic, headers=headers, moved=retry.liveness.moved)
        self._requests = Requests(self._connection.call, self._direct, retry, traffic)
        self._bucket: dict[str, Any] = {"Bucket": bucket}
        if access.requester_pays:
            self._bucket["RequestPayer"] = "requester"
        super().__init__(
            where=f"{endpoint_url.rstrip('/')}/{bucket}" if endpoint_url else f"s3://{bucket}",
            prefix=prefix,
            service=f"S3: {urlsplit(endpoint_url).netloc if endpoint_url else 'Amazon'}",
            connections=network.connections,
        )

    def use(self, access: S3Access) -> None:
        """Ask with these credentials from now on."""
        self._connection.use(access)
        self._direct.forget_credentials()

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
        self._page(self._lead, "", most=1)

    def stat(self, key: str) -> StoredObject | None:
        at = self._at(key)

        async def look(call: Call) -> dict[str, Any] | None:
            with suppress(ClientError):
                return await call("head_object", *HEAD, **at)
            return None if await _is_absent(call, at) else await call("head_object", *HEAD, **at)

        found = self._requests.run(f"looking at {key}", look)
        return None if found is None else describe(key, found["ContentLength"], found)

    def open(self, key: str, *, offset: int = 0) -> ObjectStream:
        download = Download(self._requests, self._at(key), key=key, chunk=self._part_size, offset=offset)
        return ObjectStream(download, download.stored, buffer_size=_MIB)

    def read_range(self, key: str, *, offset: int, length: int, etag: str) -> bytes:
        """See `RangedStore`."""
        headers = {"If-Match": quoted(etag), "Range": f"bytes={offset}-{offset + length - 1}"}

        def judge(answer: Answer) -> bytes:
            if answer.status >= 300:
                raise refused(answer)
            size_in(answer.headers.get("content-range"), answer.body, offset=offset)
            if len(answer.body) != length:
                raise broken_off()
            return answer.body

        return self._requests.get(f"reading {key}", self._name(key), headers, judge)

    def _put(
        self,
        key: str,
        body: bytes | BinaryIO,
        *,
        size: int,
        create_only: bool,
        if_match: str | None,
        properties: Callable[[], Properties],
        twin: Twin | None,
    ) -> StoredObject:
        upload = self._upload(key, properties, create_only=create_only, if_match=if_match)
        part_size = part_size_for(size, at_least=self._part_size)
        if size <= self._part_size and (twin is None or size < _WORTH_COPYING):
            return upload.at_once(whole(body, size=size))
        stream = io.BytesIO(body) if isinstance(body, bytes) else body
        source = None if twin is None else (self._name(twin.key), twin)
        return upload.in_parts(stream, size=size, part_size=part_size, executor=self._executor, twin=source)

    def _address(self, key: str) -> tuple[str, tuple[str, ...]]:
        return f"{self._bucket['Bucket']}/{self._name(key)}", ()

    def _copy(
        self,
        key: str,
        origin: Origin,
        *,
        create_only: bool,
        if_match: str | None,
        properties: Callable[[], Properties],
    ) -> StoredObject | None:
        """As one part, of which the service says the MD5. Our credentials have to open the origin."""
        return self._upload(key, properties, create_only=create_only, if_match=if_match).copied(origin)

    def _delete(self, key: str, if_match: str | None, attempted: Callable[[], None]) -> None:
        """A service that does not know If-Match here compares just before."""
        at = self._at(key)

        async def remove(call: Call) -> None:
            attempted()
            try:
                if if_match is None:
                    await call("delete_object", **at)
                else:
                    await call("head_object", *HEAD, **at, IfMatch=quoted(if_match))
                    await call("delete_object", **at, IfMatch=quoted(if_match))
            except ClientError as error:
                if if_match is not None and status_of(error) == 404 and await _is_absent(call, at):
                    raise PreconditionFailed(f"{key} is gone") from None
                raise

        self._requests.run(f"deleting {key}", remove)

    def _disconnect(self) -> None:
        self._direct.close()
        self._connection.close()

    def _upload(
        self, key: str, properties: Callable[[], Properties], *, create_only: bool, if_match: str | None
    ) -> Upload:
        return Upload(
            self._requests,
            self._bucket,
            self._name(key),
            key,
            lambda: self.stat(key),
            create_only,
            if_match,
            properties,
            self._check,
        )

    def _at(self, key: str) -> dict[str, Any]:
        return {**self._bucket, "Key": self._name(key)}

    def _refusal(self, name: str) -> str | None:
        return refused_by_s3(name)

    def _listed(self, start: str, *, delimiter: str) -> Iterator[StoredObject | str]:
        pages = Pages(self._url)
        token: str | None = ""
        while token is not None:
            page, following = self._page(start, token, most=self._page_size, delimiter=delimiter)
            token = pages.following(following)
            for each in page.get("Contents", []):
                key = self._key(each["Key"])
                if key and not key.endswith("/"):
                    yield describe(key, each["Size"], each)
            for each in page.get("CommonPrefixes", []):
                yield self._key(each["Prefix"])

    def _page(self, prefix: str, token: str, *, most: int, delimiter: str = "") -> tuple[dict[str, Any], str | None]:
        """One page of a listing, of so many objects at most, and what to ask for the next one with."""
        what: dict[str, Any] = {"Prefix": prefix, "MaxKeys": most}
        what |= {"ContinuationToken": token} if token else {}
        what |= {"Delimiter": delimiter} if delimiter else {}

        async def fetch(call: Call) -> tuple[dict[str, Any], str | None]:
            page = await call("list_objects_v2", "Name", "IsTruncated", **self._bucket, **what)
            if not page["IsTruncated"]:
                return page, None
            must_be_complete(page, "NextContinuationToken")
            return page, page["NextContinuationToken"]

        return self._requests.run(f"listing {self._url}", fetch)


async def _is_absent(call: Call, at: dict[str, Any]) -> bool:
    """Whether it is the object that is missing; raises what else is the matter.

    The answer to a HEAD has no place for that: a missing bucket looks the same, and a token that has expired is just
    a bad request.
    """
    try:
        answer = await call("get_object", "Body", "ETag", **at, Range="bytes=0-0")
    except ClientError as error:
        if status_of(error) == 416:
            return False
        if code_of(error) != "NoSuchKey":
            raise
        return True
    answer["Body"].close()
    return False
