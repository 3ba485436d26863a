"""What the stores of all services have in common: how they list, copy, and take the answer to a condition."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import BinaryIO, Self

from chorus_upload.errors import ObjectExists, PreconditionFailed, StoppedAtOnce, StorageError
from chorus_upload.model import Twin
from chorus_upload.storage.keys import check_key, clean_prefix, join_key
from chorus_upload.storage.store import ObjectStream, Origin, Properties, StoredObject

# After so many copies in a row that the service refused, it is not asked any more.
_MOST_REFUSED = 3


class ServiceStore(ABC):
    """The objects of a service whose names begin with `prefix` and a slash. See `Store`, which the subclasses keep.

    `where` is the address of the bucket or container, for people; `service` tells services apart between which nothing
    can be copied by themselves. Parts of large bodies are sent by as many threads as there may be `connections`.
    """

    NAME: str
    """What the service is called."""
    MOST_COPIED: int
    """The largest object, in bytes, that the service copies in a way that proves it."""

    def __init__(self, *, where: str, prefix: str, service: str, connections: int) -> None:
        self._prefix = clean_prefix(prefix)
        self._lead = f"{self._prefix}/" if self._prefix else ""
        self._url = join_key(where, self._prefix) if self._prefix else where
        self._service = service
        self._refused_copies = 0
        self._executor = ThreadPoolExecutor(connections, thread_name_prefix="chorus-parts")

    @property
    def url(self) -> str:
        return self._url

    @property
    def service(self) -> str | None:
        return self._service if self._refused_copies < _MOST_REFUSED else None

    def scan(self, prefix: str = "") -> Iterator[StoredObject]:
        """See `Store.scan`. What other tools leave to stand for a directory (`dir/`) is no object."""
        for found in self._listed(self._lead + prefix, delimiter=""):
            if isinstance(found, StoredObject):
                yield found

    def browse(self, directory: str = "") -> Iterator[StoredObject | str]:
        below = f"{check_key(directory)}/" if directory else ""
        yield from self._listed(self._lead + below, delimiter="/")

    @abstractmethod
    def stat(self, key: str) -> StoredObject | None: ...

    @abstractmethod
    def open(self, key: str, *, offset: int = 0) -> ObjectStream: ...

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
        """See `Store.put`, and the module of the store for what it means when the answer was lost."""
        with _refused_as(create_only=create_only):
            return self._put(
                key, body, size=size, create_only=create_only, if_match=if_match, properties=properties, twin=twin
            )

    def origin(self, key: str) -> Origin | None:
        found = self.stat(key)
        if found is None or found.checksum is None:
            return None
        address, headers = self._address(key)
        return Origin(self._service, address, found.etag, found.size, found.time_us, found.checksum.md5, headers)

    def copy(
        self,
        key: str,
        origin: Origin,
        *,
        create_only: bool = False,
        if_match: str | None = None,
        properties: Callable[[], Properties] = Properties,
    ) -> StoredObject | None:
        if origin.service != self.service or origin.size > self.MOST_COPIED:
            return None
        with _refused_as(create_only=create_only):
            copied = self._copy(key, origin, create_only=create_only, if_match=if_match, properties=properties)
        self._refused_copies = 0 if copied else self._refused_copies + 1
        return copied

    def delete(self, key: str, *, if_match: str | None = None) -> None:
        attempts = 0

        def count() -> None:
            nonlocal attempts
            attempts += 1

        try:
            self._delete(key, if_match, count)
        except PreconditionFailed:
            # Gone in the second attempt: the first one did it, only its answer was lost.
            if attempts == 1 or self.stat(key) is not None:
                raise

    def close(self) -> None:
        self._executor.shutdown(cancel_futures=True)
        self._disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        # Threads may be in the middle of a request then, and are not waited for.
        if not isinstance(exc[1], StoppedAtOnce):
            self.close()

    def _name(self, key: str) -> str:
        """The object's name; StorageError when the service would refuse it or bend it."""
        name = join_key(self._prefix, check_key(key))
        if reason := self._refusal(name):
            raise StorageError(f"{key!r} cannot be stored in {self.NAME}: {reason}")
        return name

    def _key(self, name: str) -> str:
        """The key of an object of that name."""
        return name[len(self._lead) :]

    @abstractmethod
    def _refusal(self, name: str) -> str | None:
        """Why the service would refuse or bend a name; None when it would not."""

    @abstractmethod
    def _listed(self, start: str, *, delimiter: str) -> Iterator[StoredObject | str]:
        """What begins like that; with a delimiter, what has none behind that, and once what is common up to there."""

    @abstractmethod
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
        """As `put`, but a key that is taken may be PreconditionFailed."""

    @abstractmethod
    def _address(self, key: str) -> tuple[str, tuple[str, ...]]:
        """Where the service finds an object by itself, and what opens it there."""

    @abstractmethod
    def _copy(
        self,
        key: str,
        origin: Origin,
        *,
        create_only: bool,
        if_match: str | None,
        properties: Callable[[], Properties],
    ) -> StoredObject | None:
        """As `copy`, of an origin that is of this service and not too large."""

    @abstractmethod
    def _delete(self, key: str, if_match: str | None, attempted: Callable[[], None]) -> None:
        """Delete an object, calling `attempted` before each attempt; PreconditionFailed when it is not `if_match`."""

    @abstractmethod
    def _disconnect(self) -> None:
        """Give back connections."""


@contextmanager
def _refused_as(*, create_only: bool) -> Iterator[None]:
    """Services call it a condition that failed when a key had to be free, and is not."""
    try:
        yield
    except PreconditionFailed as error:
        if not create_only:
            raise
        failure = ObjectExists(error.message)
    else:
        return
    raise failure
