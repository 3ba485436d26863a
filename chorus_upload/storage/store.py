"""The one contract that every central store, journal home and (through `source.py`) cloud source keeps.

A *store* holds objects: immutable byte strings under keys. A key is a non-empty POSIX path without a
leading slash and without `.`, `..` or empty parts, relative to the prefix at which the store was opened.

What callers may rely on, and what `tests/contract/test_store.py` holds every implementation to:

- Only the classes of `chorus_upload.errors` leave a store. What is transient is `TransientError` and has
  been retried already, as patiently as the store was told to be; everything else is final.
- `put` is atomic: a reader sees the whole new object or what was there before, also when the writer dies.
- `create_only` and `if_match` are decided by the service in one step, never by look-then-write.
- `scan` is complete or raises; it never ends early in silence.
- `stat` answers None only when the object is certainly absent; a missing container is an error.
- Methods may be called from several threads at once.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import BinaryIO, Protocol, Self, runtime_checkable

from chorus_upload.model import Twin

_FINGERPRINT_BYTES = 16


class ComputedBy(StrEnum):
    """Who vouches for a checksum."""

    SERVICE = "service"
    """The service computed it over the bytes that it stored."""
    UNKNOWN = "unknown"
    """A property that any client may have written: a claim, never evidence."""


@dataclass(frozen=True, slots=True)
class Checksum:
    """An MD5 that a store reports for an object, and who computed it."""

    md5: bytes
    computed_by: ComputedBy


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What a store says of one object. `time_us` is its last change, microseconds UTC.

    Two say something only in the answer to a `put`: `transit_checked`, that the service checked a
    checksum of every part of the body as it arrived; `spared`, how many bytes of the body had not to be sent,
    because an earlier, interrupted put had sent them or because the service copied them. `fingerprint` is the XXH3-128
    that this program has written beside the object, where a look at it, or its stream, tells of one.
    """

    key: str
    size: int
    etag: str
    time_us: int
    checksum: Checksum | None = None
    transit_checked: bool = False
    spared: int = 0
    fingerprint: bytes | None = None

    @property
    def md5(self) -> bytes | None:
        """The MD5 that is said of it, by whomever."""
        return None if self.checksum is None else self.checksum.md5


@dataclass(frozen=True, slots=True)
class Origin:
    """An object as another store of the same service finds it, in the state that `etag` names.

    `service` tells services apart; `address` and `headers` are in its own words, and may hold a signature. `md5` is
    what is said of the content, by whomever: whoever copies has the service compare it.
    """

    service: str
    address: str = field(repr=False)
    etag: str
    size: int
    time_us: int
    md5: bytes
    headers: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Properties:
    """What is written beside an object; evidence of nothing.

    `metadata` has ASCII letters, digits and underscores in its names and ASCII values. `tier` is a storage class
    in the service's own words, None for its usual one. `md5` is of the whole body, for those who download it, where
    the service does not compute one itself. A store that has no place for them ignores them.

    `Store.put` takes what makes them when the body was read, or these themselves where they are known before that.
    """

    metadata: Mapping[str, str] = field(default_factory=dict)
    tier: str | None = None
    md5: bytes | None = None

    def __call__(self) -> Self:
        return self


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What differs between services and matters to callers."""

    atomic_create: bool
    """`create_only` and `if_match` are honoured; without it a store cannot hold a journal."""
    service_checksum: bool
    """The answer to a one-request `put` carries an MD5 that the service computed."""
    transit_checksum: bool
    """The service checks every part of a large body as it arrives."""
    one_request_limit: int
    """Bodies up to this many bytes are sent with one request (and so get a `service_checksum`); 0 if none are."""
    etag_follows_content: bool = False
    """The same content written again has the same etag, so that `if_match` tells contents apart, and not writes."""
    own_checksums: bool = False
    """Every MD5 that it shows, of large objects and in listings, too, the service computed: no client can write one."""


FINGERPRINT = "fingerprint"
"""The name in `Properties.metadata` of the XXH3-128, in hexadecimal."""


def fingerprint_in(said: str | None) -> bytes | None:
    """Return the fingerprint that metadata say; None for what is none."""
    try:
        found = bytes.fromhex(said or "")
    except ValueError:
        return None
    return found if len(found) == _FINGERPRINT_BYTES else None


class ObjectStream(io.BufferedReader):
    """The bytes of one object, and `stored`: what the store says of it, as it is in this stream."""

    def __init__(self, raw: io.RawIOBase, stored: StoredObject, *, buffer_size: int) -> None:
        super().__init__(raw, buffer_size)
        self.stored = stored


class Store(Protocol):
    """See the module's contract."""

    @property
    def url(self) -> str:
        """Where this store is, for people: never contains a credential."""
        ...

    @property
    def capabilities(self) -> Capabilities: ...

    @property
    def service(self) -> str | None:
        """Which service it is, if that copies by itself what lies in it; None if not, or if it has refused to."""
        ...

    def probe(self) -> None:
        """Make sure, by one small request, that the place is there and the credentials open it; raises as `scan`."""
        ...

    def scan(self, prefix: str = "") -> Iterator[StoredObject]:
        """Yield every object whose key starts with `prefix`, in any order, listing lazily."""
        ...

    def browse(self, directory: str = "") -> Iterator[StoredObject | str]:
        """Yield the objects directly below a key ("" is all of the store), and the directories: keys with a slash.

        In any order, listing lazily, complete as `scan`; nothing where nothing is below that key.
        """
        ...

    def stat(self, key: str) -> StoredObject | None:
        """Describe one object; None when it is certainly absent."""
        ...

    def open(self, key: str, *, offset: int = 0) -> ObjectStream:
        """A stream of the object's bytes as they are now, without the first `offset`. Raises ObjectNotFound at once.

        Where the object is not longer than that, the stream is empty. When a service's object is replaced meanwhile,
        reading on raises PreconditionFailed.
        """
        ...

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
        """Store `size` bytes under `key` and describe what the service then holds.

        A stream is read once, from where it stands to exactly `size` bytes; an exception that it raises
        leaves the store as it was and is passed on unchanged, so a reader can veto the write up to its last
        byte. A stream that ends early or goes on is an IntegrityError, and nothing is stored.

        `create_only` raises ObjectExists when the key is taken; `if_match` raises PreconditionFailed when
        the object's etag is another one or the object is gone. When the answer of a service is lost, a write
        is repeated, and may then meet its own result: ObjectExists and PreconditionFailed do not say whose
        object is there now, so whoever needs to know reads it back.

        `properties` is called when the whole body was read, and before that if it is a Properties. `twin` names an
        object of this store that should have the same content: a service that can, copies what is the same there,
        checking it against the body as if it had been sent. Parts that an interrupted put of the same body under the
        same key left with the service are not sent again, unless properties that are known before have to go with them.
        """
        ...

    def origin(self, key: str) -> Origin | None:
        """How a store of the same service can copy this object; None when it is absent or could not be proven."""
        ...

    def copy(
        self,
        key: str,
        origin: Origin,
        *,
        create_only: bool = False,
        if_match: str | None = None,
        properties: Callable[[], Properties] = Properties,
    ) -> StoredObject | None:
        """Have the service copy an object, and compare its MD5 on the way: no byte of it comes here.

        None when it is another service, or this one cannot or would not do that; it has to be sent then. Conditions
        and what they raise are as with `put`.
        """
        ...

    def delete(self, key: str, *, if_match: str | None = None) -> None:
        """Remove an object; absent is success, unless `if_match` is given (then PreconditionFailed)."""
        ...

    def close(self) -> None:
        """Give back connections. The store is not used afterwards."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


@runtime_checkable
class RangedStore(Store, Protocol):
    """A store that gives any part of an object."""

    def read_range(self, key: str, *, offset: int, length: int, etag: str) -> bytes:
        """So many bytes of the object from `offset` on, all of which have to be in it.

        Raises PreconditionFailed when its etag is another one, and that or ObjectNotFound when it is gone.
        """
        ...
