"""A container of Azure Blob Storage as a store.

What the service proves, and how it is used here:

- A body up to `one_request_limit` is one Put Blob. The service computes the MD5 of what it received, refuses
  it when it differs from the Content-MD5 header of the request, and answers with it.
- A larger body is staged in blocks, each checked by the service in the same way, and then committed. Of the
  whole the service computes nothing: the MD5 property is what we wrote, for those who download it. Blocks that
  another object has are staged from there, inside the service, which checks them against our MD5 as well.
- An object with a block of which no response says the checksum is not `transit_checked`: it has to be read back.
- What a listing or a HEAD shows as MD5 may be either, and is therefore only ever a claim.

When the answer to a write is lost, the request is repeated like any other. A repeated `create_only` then
meets its own object and raises ObjectExists, a repeated `if_match` raises PreconditionFailed: the caller reads
back what is there and decides. A repeated `delete` that finds nothing has succeeded.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, BinaryIO
from urllib.parse import quote, urlsplit

from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import BlobClient, BlobPrefix, BlobProperties

from chorus_upload.errors import IntegrityError, ObjectNotFound, PreconditionFailed, StorageError
from chorus_upload.model import Twin
from chorus_upload.storage.answers import broken_off, must_be_complete
from chorus_upload.storage.azure_client import connect
from chorus_upload.storage.azure_credentials import AzureCredential
from chorus_upload.storage.azure_download import Download, read_range
from chorus_upload.storage.azure_errors import error_code
from chorus_upload.storage.azure_requests import Conditions, DataRequests, Requests, bare_etag
from chorus_upload.storage.azure_upload import Source, Upload, block_size_for, microseconds
from chorus_upload.storage.bodies import whole
from chorus_upload.storage.condition_check import ConditionCheck
from chorus_upload.storage.names import refused_by_azure
from chorus_upload.storage.network import Network
from chorus_upload.storage.retry import Retry
from chorus_upload.storage.service_store import ServiceStore
from chorus_upload.storage.store import (
    FINGERPRINT,
    Capabilities,
    Checksum,
    ComputedBy,
    ObjectStream,
    Origin,
    Properties,
    StoredObject,
    fingerprint_in,
)
from chorus_upload.storage.traffic import Traffic
from chorus_upload.storage.tries import Pages

_MIB = 1 << 20
_NOT_VERIFIED = "CannotVerifyCopySource"
"""Azure's name for a copy source that it could not read, whatever the reason."""
_log = logging.getLogger(__name__)


class AzureStore(ServiceStore):
    """The objects of `container` whose names begin with `prefix` and a slash.

    `account_url` is not needed with a ConnectionString. With `own_url`, the service copies from there what it has
    already: a front host is no copy source. The container has to exist. What a put holds in memory,
    and how much is sent at once, is for `traffic` to say; a stream that was opened holds one block of `block_size`.
    """

    NAME = "Azure"
    MOST_COPIED = 256 * _MIB
    """A larger one is not copied as one block, and nobody knows the MD5s of its parts."""

    def __init__(  # noqa: PLR0913 - each is a choice of its own
        self,
        account_url: str | None,
        container: str,
        *,
        credential: AzureCredential,
        prefix: str = "",
        own_url: str | None = None,
        endpoint_ip: str | None = None,
        network: Network | None = None,
        traffic: Traffic | None = None,
        retry: Retry | None = None,
        block_size: int = 8 * _MIB,
        page_size: int = 5000,
        check: ConditionCheck | None = None,
    ) -> None:
        network = network or Network()
        traffic = traffic or Traffic(network.connections, patience=network.patience)
        self._block_size = block_size
        self._page_size = page_size
        retry = retry or Retry()
        self._check = check
        self._connection = connect(
            account_url,
            container,
            credential,
            network,
            endpoint_ip=endpoint_ip,
            traffic=traffic,
            one_request=block_size,
            moved=retry.liveness.moved,
        )
        self._requests = Requests(retry, self._connection.access)
        self._data = DataRequests(self._connection.http, self._connection.access, traffic)
        self._container = self._connection.client
        self._root = self._container.url.partition("?")[0].rstrip("/")
        self._own_root = f"{own_url.rstrip('/')}/{container}" if own_url else self._root
        self._has_told_of_copies = False
        host = self._container.primary_hostname
        # All accounts of one cloud are one service; what opens an object is shown to no other one.
        name = urlsplit(f"//{host}").hostname or ""
        domain = name.partition(".")[2]
        super().__init__(
            where=f"{self._container.scheme}://{host}/{container}",
            prefix=prefix,
            service=f"Azure: {domain if domain.startswith('blob.') else name}",
            connections=network.connections,
        )

    def use(self, credential: AzureCredential) -> None:
        """Ask with this credential from now on."""
        self._connection.use(credential)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            atomic_create=True, service_checksum=True, transit_checksum=True, one_request_limit=self._block_size
        )

    def probe(self) -> None:
        self._page(self._lead, "", most=1)

    def stat(self, key: str) -> StoredObject | None:
        def look() -> BlobProperties | None:
            try:
                return self._properties(key)
            except ResourceNotFoundError as error:
                if error_code(error) != "BlobNotFound":
                    raise
            return None

        found = self._requests.run(f"looking at {key}", look)
        return None if found is None else _describe(key, found)

    def open(self, key: str, *, offset: int = 0) -> ObjectStream:
        download = Download(
            self._requests,
            self._data,
            self._url_of(self._name(key)),
            key=key,
            chunk=self._block_size,
            offset=offset,
            look=lambda: _describe(key, self._properties(key)),
        )
        return ObjectStream(download, download.stored, buffer_size=_MIB)

    def read_range(self, key: str, *, offset: int, length: int, etag: str) -> bytes:
        url = self._url_of(self._name(key))
        return self._requests.run(
            f"reading {key}", lambda: read_range(self._data, url, offset=offset, length=length, etag=etag)
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
        upload = self._upload(key, Conditions(create_only, if_match), properties)
        if size <= self._block_size and (twin is None or not size):
            stored = upload.at_once(whole(body, size=size))
        else:
            stream = io.BytesIO(body) if isinstance(body, bytes) else body
            block_size = block_size_for(size, at_least=self._block_size)
            stored = upload.in_blocks(
                stream, size=size, block_size=block_size, executor=self._executor, source=self._source(twin)
            )
        if not stored.transit_checked:
            _tell_of_checksums(self._root)
        return stored

    def _address(self, key: str) -> tuple[str, tuple[str, ...]]:
        return self._signed(key), self._connection.access.source_headers()

    def _copy(
        self,
        key: str,
        origin: Origin,
        *,
        create_only: bool,
        if_match: str | None,
        properties: Callable[[], Properties],
    ) -> StoredObject | None:
        """As one block, of which the service compares the MD5."""
        return self._upload(key, Conditions(create_only, if_match), properties).copied(origin)

    def _delete(self, key: str, if_match: str | None, attempted: Callable[[], None]) -> None:
        blob, conditions = self._blob(key), Conditions(if_match=if_match)

        def remove() -> None:
            attempted()
            try:
                blob.delete_blob("include", **conditions.options)
            except ResourceNotFoundError as error:
                if error_code(error) != "BlobNotFound":
                    raise
                if if_match is not None:
                    raise PreconditionFailed(f"{key} is gone") from None

        self._requests.run(f"deleting {key}", remove)

    def _disconnect(self) -> None:
        self._connection.close()

    def _blob(self, key: str) -> BlobClient:
        return self._container.get_blob_client(self._name(key))

    def _properties(self, key: str) -> BlobProperties:
        found = self._blob(key).get_blob_properties()
        must_be_complete(found.etag, found.last_modified)
        return found

    def _url_of(self, name: str, *, root: str | None = None) -> str:
        return f"{root or self._root}/{quote(name, safe='~/')}"

    def _upload(self, key: str, conditions: Conditions, properties: Callable[[], Properties]) -> Upload:
        name = self._name(key)
        return Upload(
            self._requests,
            self._data,
            lambda: self._container.get_blob_client(name),
            self._url_of(name),
            key,
            conditions,
            properties,
            self._tell_of_copy,
            lambda: self.stat(key),
            self._check,
        )

    def _source(self, twin: Twin | None) -> Source | None:
        """From where the service can copy what `twin` has."""
        return None if twin is None else Source(lambda: self._signed(twin.key), twin.etag)

    def _signed(self, key: str) -> str:
        """The address from which the service copies an object, with what opens it."""
        query = self._connection.access.query()
        return self._url_of(self._name(key), root=self._own_root) + (f"?{query}" if query else "")

    def _tell_of_copy(self, error: StorageError) -> None:
        """Say once that nothing is copied, unless it is about one object: that was changed, or is another one."""
        is_usual = isinstance(error, (PreconditionFailed, IntegrityError, ObjectNotFound))
        if self._has_told_of_copies or (is_usual and _NOT_VERIFIED not in error.message):
            return
        self._has_told_of_copies = True
        _log.warning("not copied inside Azure from %s, and sent instead: %s", self._own_root, error.message)

    def _refusal(self, name: str) -> str | None:
        return refused_by_azure(name)

    def _listed(self, start: str, *, delimiter: str) -> Iterator[StoredObject | str]:
        """Directories of accounts with a hierarchical namespace are no objects."""
        pages = Pages(self._url)
        marker: str | None = ""
        while marker is not None:
            found, following = self._page(start, marker, most=self._page_size, delimiter=delimiter)
            marker = pages.following(following)
            for blob in found:
                key = self._key(blob.name)
                if isinstance(blob, BlobPrefix):
                    yield key
                elif key and (blob.metadata or {}).get("hdi_isfolder") != "true":
                    yield _describe(key, blob)

    def _page(
        self, prefix: str, marker: str, *, most: int, delimiter: str = ""
    ) -> tuple[list[BlobProperties | BlobPrefix], str | None]:
        """One page of a listing, of so many objects at most, and what to ask for the next one with.

        Every attempt asks anew with the marker: the SDK's own iterator, when it fails while it reads an
        answer, takes the page for delivered, and the listing would end early without a word.
        """

        def fetch() -> tuple[list[BlobProperties | BlobPrefix], str | None]:
            what: dict[str, Any] = {
                "name_starts_with": prefix or None,
                "include": ["metadata"],
                "results_per_page": most,
            }
            pages: Iterator[Iterator[BlobProperties | BlobPrefix]]
            if delimiter:
                pages = self._container.walk_blobs(delimiter=delimiter, **what).by_page(marker)
            else:
                pages = self._container.list_blobs(**what).by_page(marker)
            try:
                found = list(next(pages, ()))
            except AttributeError:  # how the SDK takes an empty answer
                raise broken_off() from None
            # A page of somebody else (a proxy asks for a log-in) would look like an empty container.
            must_be_complete(getattr(pages, "container", None))
            following: str | None = getattr(pages, "continuation_token", None)
            return found, following or None

        return self._requests.run(f"listing {self._url}", fetch)


@cache
def _tell_of_checksums(place: str) -> None:
    """Say that responses come without checksums, once in a process."""
    _log.warning(
        "something between here and %s removes the service's checksums from its responses, so that what was sent has to"
        " be read back: ask those who run the network to let Content-MD5 and x-ms-content-crc64 pass",
        place,
    )


def _describe(key: str, blob: BlobProperties) -> StoredObject:
    md5 = blob.content_settings.content_md5
    return StoredObject(
        key=key,
        size=blob.size,
        etag=bare_etag(blob.etag),
        time_us=microseconds(blob.last_modified),
        checksum=Checksum(bytes(md5), ComputedBy.UNKNOWN) if md5 else None,
        fingerprint=fingerprint_in((blob.metadata or {}).get(FINGERPRINT)),
    )
