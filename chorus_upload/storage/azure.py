"""A container of Azure Blob Storage as a store.

What the service proves, and how it is used here:

- A body up to `one_request_limit` is one Put Blob. The service computes the MD5 of what it received, refuses
  it when it differs from the Content-MD5 header of the request, and answers with it.
- A larger body is staged in blocks, each checked by the service in the same way, and then committed. Of the
  whole the service computes nothing: the MD5 property is what we wrote, for those who download it. Blocks that
  another object has are staged from there, inside the service, which checks them against our MD5 as well.
- What a listing or a HEAD shows as MD5 may be either, and is therefore only ever a claim.

When the answer to a write is lost, the request is repeated like any other. A repeated `create_only` then
meets its own object and raises ObjectExists, a repeated `if_match` raises PreconditionFailed: the caller reads
back what is there and decides. A repeated `delete` that finds nothing has succeeded.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, Self
from urllib.parse import quote, urlsplit

from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import BlobClient, BlobPrefix, BlobProperties

from chorus_upload.errors import ObjectExists, PreconditionFailed, StoppedAtOnce, StorageError
from chorus_upload.model import Twin
from chorus_upload.storage.answers import broken_off, must_be_complete
from chorus_upload.storage.azure_client import connect
from chorus_upload.storage.azure_credentials import AzureCredential, ConnectionString, SasToken
from chorus_upload.storage.azure_download import Download, read_range
from chorus_upload.storage.azure_errors import error_code
from chorus_upload.storage.azure_requests import Conditions, DataRequests, Requests, bare_etag
from chorus_upload.storage.azure_upload import Source, Upload, block_size_for, microseconds
from chorus_upload.storage.bodies import whole
from chorus_upload.storage.keys import check_key, clean_prefix, join_key
from chorus_upload.storage.names import refused_by_azure
from chorus_upload.storage.network import Network
from chorus_upload.storage.retry import Retry
from chorus_upload.storage.store import (
    Capabilities,
    Checksum,
    ComputedBy,
    ObjectStream,
    Origin,
    Properties,
    StoredObject,
)
from chorus_upload.storage.traffic import Traffic

_MIB = 1 << 20
# What is larger is not copied as one block: nobody knows the MD5s of its parts.
_MOST_COPIED = 256 * _MIB
# After so many copies in a row that the service refused, it is not asked any more.
_MOST_REFUSED = 3


class AzureStore:
    """The objects of `container` whose names begin with `prefix` and a slash.

    `account_url` is not needed with a ConnectionString. The container has to exist. What a put holds in memory,
    and how much is sent at once, is for `traffic` to say; a stream that was opened holds one block of `block_size`.
    """

    def __init__(  # noqa: PLR0913 - each is a choice of its own
        self,
        account_url: str | None,
        container: str,
        *,
        credential: AzureCredential,
        prefix: str = "",
        endpoint_ip: str | None = None,
        network: Network | None = None,
        traffic: Traffic | None = None,
        retry: Retry | None = None,
        block_size: int = 8 * _MIB,
        page_size: int = 5000,
    ) -> None:
        network = network or Network()
        traffic = traffic or Traffic(network.connections)
        self._prefix = clean_prefix(prefix)
        self._block_size = block_size
        self._page_size = page_size
        expires = credential.expires if isinstance(credential, (SasToken, ConnectionString)) else None
        self._requests = Requests(retry or Retry(), expires)
        self._connection = connect(
            account_url,
            container,
            credential,
            network,
            endpoint_ip=endpoint_ip,
            traffic=traffic,
            one_request=block_size,
        )
        self._data = DataRequests(self._connection.http, self._connection.access, traffic)
        self._executor = ThreadPoolExecutor(network.connections, thread_name_prefix="chorus-blocks")
        self._container = self._connection.client
        host = f"{self._container.scheme}://{self._container.primary_hostname}"
        self._root = self._container.url.partition("?")[0].rstrip("/")
        self._url = f"{host}/{container}" + (f"/{self._prefix}" if self._prefix else "")
        # All accounts of one cloud are one service; what opens an object is shown to no other one.
        name = urlsplit(host).hostname or ""
        domain = name.partition(".")[2]
        self._service = f"Azure: {domain if domain.startswith('blob.') else name}"
        self._refused_copies = 0

    @property
    def url(self) -> str:
        return self._url

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            atomic_create=True, service_checksum=True, transit_checksum=True, one_request_limit=self._block_size
        )

    def probe(self) -> None:
        self._page(f"{self._prefix}/" if self._prefix else "", "", most=1)

    def scan(self, prefix: str = "") -> Iterator[StoredObject]:
        """See `Store.scan`. Directories of accounts with a hierarchical namespace are no objects."""
        for blob in self._listed(prefix):
            if isinstance(blob, StoredObject):
                yield blob

    def browse(self, directory: str = "") -> Iterator[StoredObject | str]:
        yield from self._listed(f"{check_key(directory)}/" if directory else "", delimiter="/")

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
        upload = self._upload(key, Conditions(create_only, if_match), properties)
        block_size = block_size_for(size, at_least=self._block_size)
        try:
            if size <= self._block_size and (twin is None or not size):
                return upload.at_once(whole(body, size=size))
            stream = io.BytesIO(body) if isinstance(body, bytes) else body
            return upload.in_blocks(
                stream, size=size, block_size=block_size, executor=self._executor, source=self._source(twin)
            )
        except PreconditionFailed as error:
            if not create_only:
                raise
            failure = ObjectExists(error.message)
        raise failure

    def origin(self, key: str) -> Origin | None:
        found = self.stat(key)
        if found is None or found.checksum is None:
            return None
        return Origin(
            service=self._service,
            address=self._signed(key),
            etag=found.etag,
            size=found.size,
            time_us=found.time_us,
            md5=found.checksum.md5,
            headers=self._connection.access.source_headers(),
        )

    def copy(
        self,
        key: str,
        origin: Origin,
        *,
        create_only: bool = False,
        if_match: str | None = None,
        properties: Callable[[], Properties] = Properties,
    ) -> StoredObject | None:
        """See `Store.copy`: as one block, of which the service compares the MD5; what is too large for that is sent."""
        if origin.service != self._service or origin.size > _MOST_COPIED or self._refused_copies >= _MOST_REFUSED:
            return None
        try:
            copied = self._upload(key, Conditions(create_only, if_match), properties).copied(origin)
        except PreconditionFailed as error:
            if not create_only:
                raise
            failure = ObjectExists(error.message)
        else:
            self._refused_copies = 0 if copied else self._refused_copies + 1
            return copied
        raise failure

    def delete(self, key: str, *, if_match: str | None = None) -> None:
        blob, conditions = self._blob(key), Conditions(if_match=if_match)
        attempts = 0

        def remove() -> None:
            nonlocal attempts
            attempts += 1
            try:
                blob.delete_blob("include", **conditions.options)
            except ResourceNotFoundError as error:
                if error_code(error) != "BlobNotFound":
                    raise
                if if_match is not None:
                    raise PreconditionFailed(f"{key} is gone") from None

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

    def _blob(self, key: str) -> BlobClient:
        return self._container.get_blob_client(self._name(key))

    def _properties(self, key: str) -> BlobProperties:
        found = self._blob(key).get_blob_properties()
        must_be_complete(found.etag, found.last_modified)
        return found

    def _url_of(self, name: str) -> str:
        return f"{self._root}/{quote(name, safe='~/')}"

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
        )

    def _source(self, twin: Twin | None) -> Source | None:
        """From where the service can copy what `twin` has."""
        return None if twin is None else Source(lambda: self._signed(twin.key), twin.etag)

    def _signed(self, key: str) -> str:
        """The object's address with what opens it."""
        query = self._connection.access.query()
        return self._url_of(self._name(key)) + (f"?{query}" if query else "")

    def _name(self, key: str) -> str:
        """The object's name in the container; StorageError when the service would refuse it or bend it."""
        name = join_key(self._prefix, check_key(key))
        if reason := refused_by_azure(name):
            raise StorageError(f"{key!r} cannot be stored in Azure: {reason}")
        return name

    def _listed(self, prefix: str, *, delimiter: str = "") -> Iterator[StoredObject | str]:
        lead = f"{self._prefix}/" if self._prefix else ""
        marker: str | None = ""
        while marker is not None:
            found, marker = self._page(lead + prefix, marker, most=self._page_size, delimiter=delimiter)
            for blob in found:
                key = blob.name[len(lead) :]
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


def _describe(key: str, blob: BlobProperties) -> StoredObject:
    md5 = blob.content_settings.content_md5
    return StoredObject(
        key=key,
        size=blob.size,
        etag=bare_etag(blob.etag),
        time_us=microseconds(blob.last_modified),
        checksum=Checksum(bytes(md5), ComputedBy.UNKNOWN) if md5 else None,
    )
