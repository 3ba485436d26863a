"""A bucket of Google Cloud Storage as a store.

What the service proves, and how it is used here:

| what it says | what it proves | what becomes of it |
|---|---|---|
| any response but JSON of the right kind, or with its mark | nothing: somebody else gave it | it is asked again |
| it makes an object of a body that came with an MD5 | nothing: that may have been taken out on the way | |
| the `md5Hash` of an object, in any answer | it is the MD5 that the service computed | an MD5 by the service |
| an object without `md5Hash` | nothing: it was composed, or came in parts by the XML API | it has to be read back |
| the `generation` of an object | it changes with every write of the content | the etag |

No client can write an `md5Hash`: one that comes with a body is compared, and later it cannot be changed. So what a
listing shows is the service's word, too, unlike that of other services.

A body up to `one_request_limit` is one request, a larger one a resumable upload (gs_resumable.py). Of the latter the
service takes metadata and storage class only at its beginning, when the body was not read: it has none. Conditions
are on the generation, for writing and deleting alike. When the answer to a write is lost, the request is repeated,
and may then meet its own result: the caller reads back what is there and decides.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, BinaryIO

from chorus_upload.errors import (
    IntegrityError,
    PreconditionFailed,
    StorageError,
)
from chorus_upload.model import Twin
from chorus_upload.storage.answers import broken_off
from chorus_upload.storage.bodies import whole
from chorus_upload.storage.condition_check import ConditionCheck
from chorus_upload.storage.gs_client import ENDPOINT, OBJECT, Bucket, connect, of_kind
from chorus_upload.storage.gs_credentials import Access
from chorus_upload.storage.gs_download import Download, media_url, read_range
from chorus_upload.storage.gs_errors import Refused
from chorus_upload.storage.gs_sessions import InMemory, Sessions
from chorus_upload.storage.gs_upload import FIELDS, LARGEST, Upload, describe, hash_of
from chorus_upload.storage.names import refused_by_gs
from chorus_upload.storage.network import Network
from chorus_upload.storage.retry import Retry
from chorus_upload.storage.service_mark import Unmarked
from chorus_upload.storage.service_store import ServiceStore
from chorus_upload.storage.store import Capabilities, ObjectStream, Origin, Properties, StoredObject
from chorus_upload.storage.traffic import Traffic
from chorus_upload.storage.tries import Pages

_MIB = 1 << 20
# What is smaller is sent in less time than it takes to ask for a copy.
_WORTH_COPYING = _MIB
_GRANULE = 256 << 10
"""The chunks of a resumable upload are a multiple of this."""
_OBJECTS = "storage#objects"
_GENERATION = re.compile(r"[1-9][0-9]*")


class GsStore(ServiceStore):
    """The objects of `bucket` whose names begin with `prefix` and a slash. The bucket has to exist.

    `project` pays for what is asked, where the bucket's owner wants that. `endpoint` is the address of the service,
    and `endpoint_ip` where its host is connected to. What a put holds in memory, and how much is sent at once, is for
    `traffic` to say; a stream that was opened holds one chunk of `chunk_size`. `sessions` remember what is under way.
    """

    NAME = "Google Cloud Storage"
    MOST_COPIED = LARGEST

    def __init__(  # noqa: PLR0913 - each is a choice of its own
        self,
        bucket: str,
        *,
        access: Access,
        prefix: str = "",
        project: str | None = None,
        endpoint: str | None = None,
        endpoint_ip: str | None = None,
        network: Network | None = None,
        traffic: Traffic | None = None,
        retry: Retry | None = None,
        sessions: Sessions | None = None,
        chunk_size: int = 8 * _MIB,
        page_size: int = 1000,
        check: ConditionCheck | None = None,
    ) -> None:
        if chunk_size % _GRANULE:
            raise ValueError(f"{chunk_size} is not a multiple of {_GRANULE}")
        network = network or Network()
        where = (endpoint or ENDPOINT).rstrip("/")
        self._bucket = Bucket(where, bucket, project)
        self._chunk_size = chunk_size
        self._page_size = page_size
        self._check = check
        self._sessions = sessions or InMemory()
        self._requests = connect(
            where,
            network,
            access,
            traffic=traffic or Traffic(network.connections, patience=network.patience),
            retry=retry or Retry(),
            endpoint_ip=endpoint_ip,
        )
        super().__init__(
            where=f"{where}/{bucket}" if endpoint else f"gs://{bucket}",
            prefix=prefix,
            service=f"Google: {where}",
            connections=network.connections,
        )

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            atomic_create=True,
            service_checksum=True,
            transit_checksum=False,
            one_request_limit=self._chunk_size,
            own_checksums=True,
        )

    def probe(self) -> None:
        self._page(self._lead, "", most=1)

    def stat(self, key: str) -> StoredObject | None:
        name = self._name(key)
        return self._requests.run(f"looking at {key}", lambda: self._find(key, name))

    def open(self, key: str, *, offset: int = 0) -> ObjectStream:
        """See `Store.open`. Where the service gives the bytes it does not say all of the object: it is asked first."""
        name = self._name(key)
        stored = self._requests.run(f"reading {key}", lambda: self._look(key, name))
        download = Download(self._requests, self._bucket, name, stored, self._chunk_size, offset=offset)
        return ObjectStream(download, stored, buffer_size=_MIB)

    def read_range(self, key: str, *, offset: int, length: int, etag: str) -> bytes:
        """See `RangedStore`."""
        if _GENERATION.fullmatch(etag) is None:
            raise PreconditionFailed(f"{key} is not the one that was expected")
        url = media_url(self._bucket, self._name(key), etag)
        return self._requests.run(
            f"reading {key}",
            lambda: read_range(self._requests, url, offset=offset, length=length, etag=etag).body,
        )

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
        if size > LARGEST:
            raise StorageError(f"{size:,} bytes are more than the {LARGEST:,} that an object here can have")
        source = self._twin(twin, size)
        if size <= self._chunk_size:
            data = whole(body, size=size)
            md5 = None if source is None else hash_of(io.BytesIO(data), size)
            return self._copied(upload, twin, source, md5) or upload.at_once(data)
        stream = io.BytesIO(body) if isinstance(body, bytes) else body
        if source is None:
            return upload.in_chunks(stream, size=size, chunk=self._chunk_size, executor=self._executor)
        copied = self._copied(upload, twin, source, hash_of(stream, size))
        if copied is None:
            # The body was read, and cannot be read again.
            raise IntegrityError(f"{key}: the service could not copy what should have the same content")
        return copied

    def _address(self, key: str) -> tuple[str, tuple[str, ...]]:
        return self._bucket.path_of(self._name(key)), ()

    def _copy(
        self,
        key: str,
        origin: Origin,
        *,
        create_only: bool,
        if_match: str | None,
        properties: Callable[[], Properties],
    ) -> StoredObject | None:
        """The service says the MD5 of what it made. Our credentials have to open the origin."""
        upload = self._upload(key, properties, create_only=create_only, if_match=if_match)
        with suppress(IntegrityError):
            return upload.copied(origin.address, generation=origin.etag, size=origin.size, md5=origin.md5)
        return None

    def _delete(self, key: str, if_match: str | None, attempted: Callable[[], None]) -> None:
        name = self._name(key)
        url = self._bucket.at(name, {"ifGenerationMatch": _generation(if_match, key)})

        def remove() -> None:
            attempted()
            try:
                self._requests.ask("DELETE", url, judge=of_kind(None, 204))
            except Unmarked as error:
                # There is nothing else in it by which the service's could be told from another one: look.
                if error.status != 204 or self._find(key, name) is not None:
                    raise
            except Refused as error:
                if not self._is_absent(error, name):
                    raise
                if if_match is not None:
                    raise PreconditionFailed(f"{key} is gone") from None

        self._requests.run(f"deleting {key}", remove)

    def _disconnect(self) -> None:
        self._requests.close()

    def _upload(
        self, key: str, properties: Callable[[], Properties], *, create_only: bool, if_match: str | None
    ) -> Upload:
        generation = 0 if create_only else _generation(if_match, key)
        name = self._name(key)
        return Upload(
            self._requests,
            self._bucket,
            self._sessions,
            name,
            key,
            generation,
            properties,
            lambda: self.stat(key),
            self._check,
        )

    def _find(self, key: str, name: str) -> StoredObject | None:
        try:
            return self._look(key, name)
        except Refused as error:
            if not self._is_absent(error, name):
                raise
        return None

    def _look(self, key: str, name: str) -> StoredObject:
        url = self._bucket.at(name, {"fields": FIELDS})
        return describe(key, self._requests.ask("GET", url, judge=of_kind(OBJECT)))

    def _is_absent(self, error: Refused, name: str) -> bool:
        """Whether it is the object that is missing. Raises Refused when it is the bucket."""
        if error.refusal.status != 404:
            return False
        if error.refusal.is_absent_object:
            return True
        # It may be somebody else who says so. An object of just this name would be the first that is listed.
        parameters = {"prefix": name, "maxResults": 1, "fields": "kind,items(name)"}
        page = self._requests.ask("GET", self._bucket.listing(parameters), judge=of_kind(_OBJECTS))
        if any(each.get("name") == name for each in page.get("items") or []):
            raise broken_off()
        return True

    def _twin(self, twin: Twin | None, size: int) -> StoredObject | None:
        """What is there of a twin, if it is worth copying and still what it was."""
        if twin is None or size < _WORTH_COPYING:
            return None
        found = self.stat(twin.key)
        is_same = found is not None and found.etag == twin.etag and found.size == size
        return found if is_same and found is not None and found.checksum is not None else None

    def _copied(
        self, upload: Upload, twin: Twin | None, source: StoredObject | None, md5: bytes | None
    ) -> StoredObject | None:
        """A copy of the twin, if it has this MD5 and the service makes one."""
        if twin is None or source is None or source.checksum is None or md5 is None or source.checksum.md5 != md5:
            return None
        path = self._bucket.path_of(self._name(twin.key))
        return upload.copied(path, generation=source.etag, size=source.size, md5=md5)

    def _refusal(self, name: str) -> str | None:
        return refused_by_gs(name)

    def _listed(self, start: str, *, delimiter: str) -> Iterator[StoredObject | str]:
        pages = Pages(self._url)
        token: str | None = ""
        while token is not None:
            page, following = self._page(start, token, most=self._page_size, delimiter=delimiter or None)
            token = pages.following(following)
            for each in page.get("items") or []:
                key = self._key(str(each["name"]))
                if key and not key.endswith("/"):
                    yield describe(key, each)
            for each in page.get("prefixes") or []:
                yield self._key(str(each))

    def _page(
        self, prefix: str, token: str, *, most: int, delimiter: str | None = None
    ) -> tuple[dict[str, Any], str | None]:
        """One page of a listing, of so many objects at most, and what to ask for the next one with."""
        url = self._bucket.listing(
            {
                "prefix": prefix or None,
                "delimiter": delimiter,
                "maxResults": most,
                "pageToken": token or None,
                "fields": f"kind,nextPageToken,prefixes,items({FIELDS})",
            }
        )

        def fetch() -> tuple[dict[str, Any], str | None]:
            page = self._requests.ask("GET", url, judge=of_kind(_OBJECTS))
            return page, page.get("nextPageToken") or None

        return self._requests.run(f"listing {self._url}", fetch)


def _generation(etag: str | None, key: str) -> int | None:
    """The generation that an etag is. PreconditionFailed for one that no object here can have."""
    if etag is None:
        return None
    if _GENERATION.fullmatch(etag) is None:
        raise PreconditionFailed(f"{key} is not the one that was expected")
    return int(etag)
