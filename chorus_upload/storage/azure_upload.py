"""Sending one body to Azure, so that the service checks every byte of it as it arrives."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache, partial
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import quote

from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import BlobBlock, BlobClient, ContentSettings, StandardBlobTier

from chorus_upload.errors import IntegrityError, ObjectExists, StorageError
from chorus_upload.storage.answers import broken_off, checksum_in, md5_in, moment_in, must_be_complete
from chorus_upload.storage.azure_errors import error_code
from chorus_upload.storage.azure_requests import GARBLED_ATTEMPTS, Conditions, DataRequests, Requests, bare_etag
from chorus_upload.storage.bodies import fill, require_end
from chorus_upload.storage.condition_check import HASTE, ConditionCheck, Kind
from chorus_upload.storage.crc64 import crc64_of
from chorus_upload.storage.curl import Answer
from chorus_upload.storage.retry import Retry
from chorus_upload.storage.store import Checksum, ComputedBy, Origin, Properties, StoredObject
from chorus_upload.storage.traffic import Buffer

_MOST_BLOCKS = 50_000
_LARGEST_BLOCK = 4000 << 20
LARGEST = _MOST_BLOCKS * _LARGEST_BLOCK
"""The largest object, in bytes: 190.7 TiB."""
_MIB = 1 << 20
# A file of no more blocks is sent again as a whole: receipts would cost more requests than they save.
_FEW_BLOCKS = 4
_OTHER_BYTES = "the service received other bytes than were sent"
# For how many seconds a copy is tried that fails: sending does as well.
_COPY_PATIENCE = 60.0
# And how long it is tried to remove an object that arrived as something else.
_REMOVAL_PATIENCE = 60.0


class Source(NamedTuple):
    """Where the service can copy blocks from."""

    url: Callable[[], str]
    etag: str


class _Staged(NamedTuple):
    """One block that the service has; `spared` when it had not to be sent.

    `is_proven`: the service said what it received, and that was what was sent.
    """

    name: str
    size: int
    spared: bool = False
    is_proven: bool = True


_OF_NO_OBJECT = Conditions(if_match="0x0")


@dataclass(frozen=True, slots=True)
class Upload:
    """One write: where to, and under which conditions.

    `url` is the object's, without credentials. `blob` makes the SDK's client for it, which takes a tenth of a
    millisecond, and small bodies do without it.
    """

    requests: Requests
    data: DataRequests
    blob: Callable[[], BlobClient]
    url: str
    key: str
    conditions: Conditions
    properties: Callable[[], Properties]
    copy_refused: Callable[[StorageError], None]
    """It is told of what the service did not copy."""
    look: Callable[[], StoredObject | None]
    check: ConditionCheck | None = None

    def at_once(self, body: bytes) -> StoredObject:
        """Send `body` with one request. See `_put`."""
        return self._checked(
            Kind.SINGLE,
            lambda upload: upload._put(body),
            again=lambda upload, _: upload._put(body),
            wrongly=lambda: replace(self, conditions=_OF_NO_OBJECT)._put(body),
        )

    def _checked(
        self,
        kind: Kind,
        write: Callable[[Upload], StoredObject],
        *,
        again: Callable[[Upload, StoredObject], object],
        wrongly: Callable[[], object],
    ) -> StoredObject:
        """What `write` gives, once it is known that its condition means something."""
        conditions = self.conditions
        if self.check is not None and conditions.create_only:
            return self.check.create(
                self.key,
                lambda: write(self),
                kind=kind,
                first=lambda: write(self._tried(self.requests.retry.sooner_aside(HASTE))),
                look=self.look,
                again=lambda stored: again(self._tried(self.requests.retry.less_patient(HASTE)), stored),
            )
        if self.check is not None and conditions.if_match is not None:
            return self.check.replace(
                self.key,
                partial(write, self),
                kind=kind,
                if_match=conditions.if_match,
                look=self.look,
                wrongly=wrongly,
            )
        return write(self)

    def _tried(self, retry: Retry) -> Upload:
        """The same write, tried as `retry` says."""
        return replace(self, requests=replace(self.requests, retry=retry))

    def _put(self, body: bytes) -> StoredObject:
        """Send `body` with one request. Of the checksum in the result the service is the author.

        It is sent again while that is not the body's. IntegrityError in the end, and an object that had to be new is
        gone then; what has replaced another is for the caller to judge.
        """
        properties = self.properties()
        md5 = _md5(body)
        # Content-MD5 is what the service compares with the bytes that arrive. The property of that name would be
        # set by another header, x-ms-blob-content-md5, which is not sent: what the answer shows is computed there.
        headers = [
            "x-ms-blob-type: BlockBlob",
            f"Content-MD5: {b64encode(md5).decode()}",
            *(f"x-ms-meta-{name}: {value}" for name, value in properties.metadata.items()),
        ]
        if properties.tier:
            headers.append(f"x-ms-access-tier: {properties.tier}")
        conditions = self.conditions
        for _ in range(GARBLED_ATTEMPTS):
            write = partial(self._write, [*headers, *conditions.lines], body)
            stored = self.requests.send(f"writing {self.key}", write)
            if stored.checksum is None or stored.checksum.md5 == md5:
                return stored
            # Something on the way has changed it, and the header that the service would have compared is gone.
            if conditions != Conditions():
                conditions = Conditions(if_match=stored.etag)
        if self.conditions.if_match is not None:
            return stored
        if self.conditions.create_only:
            remove = partial(self.blob().delete_blob, "include", **conditions.options)
            with suppress(StorageError):
                self.requests.less_patient(_REMOVAL_PATIENCE).run(f"deleting {self.key}", remove)
        raise IntegrityError(f"writing {self.key}: {_OTHER_BYTES}")

    def _write(self, headers: list[str], body: bytes) -> StoredObject:
        answer = self.data.put(self.url, "", headers, body)
        must_be_complete(answer.headers.get("etag"))
        computed = md5_in(answer.headers.get("content-md5"))
        return StoredObject(
            key=self.key,
            size=len(body),
            etag=bare_etag(answer.headers["etag"]),
            time_us=_time_in(answer.headers.get("last-modified")),
            checksum=None if computed is None else Checksum(computed, ComputedBy.SERVICE),
            transit_checked=computed is not None,
        )

    def in_blocks(
        self, body: BinaryIO, *, size: int, block_size: int, executor: Executor, source: Source | None
    ) -> StoredObject:
        """Send `body` in blocks, several at a time, then make them the object; nothing is visible before that.

        Each is of `block_size` bytes, the last one shorter. Of each the service says what it received, and it counts
        only when that is what was sent; where nobody says it, the object is not `transit_checked`. Blocks that an
        earlier try left with the service, and saw to be right, are not sent again, and those that `source` has are
        copied there. An exception of `body` passes unchanged; the service keeps what it has for a week, or until the
        object is written after all.
        """
        staging = _Staging(self, executor, self._held(), source, leaves_receipts=size > _FEW_BLOCKS * block_size)
        try:
            for offset in range(0, size, block_size):
                buffer = staging.buffer(min(block_size, size - offset))
                try:
                    fill(buffer.view, body, missing=size - offset)
                    if offset + block_size >= size:
                        require_end(body, size)
                except BaseException:
                    buffer.give_back()
                    raise
                staging.submit(offset, buffer)
            staged = staging.finish()
        except BaseException:
            staging.give_up()
            raise
        return self._made_of(staged, size=size)

    def _made_of(self, staged: list[_Staged], *, size: int) -> StoredObject:
        properties = self.properties()
        # What is an object already can be made it once more of the same blocks.
        return self._checked(
            Kind.PARTS,
            lambda upload: upload._object_of(staged, properties, size=size),
            again=lambda upload, _: upload._object_of(staged, properties, size=size),
            wrongly=lambda: replace(self, conditions=_OF_NO_OBJECT)._object_of(staged, properties, size=size),
        )

    def _object_of(self, staged: list[_Staged], properties: Properties, *, size: int) -> StoredObject:
        answer = self.requests.send(f"writing {self.key}", lambda: self._commit(staged, properties))
        return StoredObject(
            key=self.key,
            size=size,
            etag=bare_etag(answer["etag"]),
            time_us=microseconds(answer["last_modified"]),
            checksum=Checksum(properties.md5, ComputedBy.UNKNOWN) if properties.md5 else None,
            transit_checked=all(block.is_proven for block in staged),
            spared=sum(block.size for block in staged if block.spared),
        )

    def copied(self, origin: Origin) -> StoredObject | None:
        """Have the service copy `origin` as one block, checked against its MD5; None when it does not."""
        name = _block_name(0, origin.md5)
        lines = (
            f"x-ms-copy-source: {origin.address}",
            f"x-ms-source-content-md5: {b64encode(origin.md5).decode()}",
            f'x-ms-source-if-match: "{origin.etag}"',
            *origin.headers,
        )
        try:
            self.stage_copy(name, lines, md5=origin.md5, crc64=None)
        except StorageError as error:
            # It is gone, was written again, has another MD5, or the service may not read it. Whoever reads it will see.
            self.copy_refused(error)
            return None
        return self._made_of([_Staged(name, origin.size, spared=True)], size=origin.size)

    def stage(self, name: str, block: memoryview, *, md5: bytes) -> bool:
        """Give the service one block; tell whether it said what it received. IntegrityError when that is another one.

        It compares the checksum that comes with it; and if something on the way removes that, changes the block, and
        lets it pass, the checksum in the response is not ours.
        """
        crc64 = crc64_of(block)
        named = f"Content-MD5: {_base64(md5)}" if crc64 is None else f"x-ms-content-crc64: {_base64(crc64)}"

        def put() -> bool:
            answer = self._stage(name, (named,), block)
            return _is_received(answer, md5=md5, crc64=crc64, doing=f"writing {self.key}")

        return self.requests.send(f"writing {self.key}", put)

    def stage_copy(self, name: str, headers: tuple[str, ...], *, md5: bytes, crc64: bytes | None) -> None:
        """Have the service copy one block. StorageError when it does not, or does not say what it copied."""
        doing = f"writing {self.key}"

        def put() -> None:
            answer = self._stage(name, headers, b"")
            if not _is_received(answer, md5=md5, crc64=crc64, doing=doing):
                raise StorageError(f"{doing}: the response does not say which bytes the service copied")

        self.requests.less_patient(_COPY_PATIENCE).send(doing, put)

    def leave_receipt(self, name: str) -> None:
        """Note at the service that its block of this name is what was sent, or do not: it only saves work."""
        with suppress(StorageError):
            self.requests.less_patient(0).run(f"writing {self.key}", lambda: self._stage(_receipt_of(name), (), b"1"))

    def _stage(self, name: str, headers: tuple[str, ...], body: bytes | memoryview) -> Answer:
        return self.data.put(self.url, f"comp=block&blockid={quote(_base64(name.encode()), safe='')}", headers, body)

    def _held(self) -> Mapping[str, int]:
        """Names and sizes of the blocks that the service has of this object and that are not part of it yet.

        Raises ObjectExists when the object must not be there, and is: before all of it is sent in vain.
        """

        blob = self.blob()

        def ask() -> dict[str, int]:
            try:
                committed, uncommitted = blob.get_block_list("all")
            except ResourceNotFoundError as error:
                if error_code(error) != "BlobNotFound":
                    raise
                return {}
            except AttributeError:  # how the SDK takes an empty answer
                raise broken_off() from None
            if committed and self.conditions.create_only:
                raise ObjectExists(f"there is a {self.key} already")
            return {str(block.id): int(block.size) for block in uncommitted}

        return self.requests.run(f"looking for parts of {self.key}", ask)

    def _commit(self, staged: list[_Staged], properties: Properties) -> Mapping[str, Any]:
        md5 = properties.md5
        answer: Mapping[str, Any] = self.blob().commit_block_list(
            [BlobBlock(block.name) for block in staged],
            # For those who download; the service does not check it, and it is evidence of nothing.
            content_settings=ContentSettings(
                content_type="application/octet-stream", content_md5=bytearray(md5) if md5 else None
            ),
            metadata=dict(properties.metadata),
            standard_blob_tier=StandardBlobTier(properties.tier) if properties.tier else None,
            **self.conditions.options,
        )
        must_be_complete(answer.get("etag"), answer.get("last_modified"))
        return answer


@dataclass(slots=True)
class _Staging:
    """The blocks of one object on their way; used from one thread, works in those of `executor`."""

    upload: Upload
    executor: Executor
    held: Mapping[str, int]
    source: Source | None
    leaves_receipts: bool
    _under_way: deque[Future[_Staged]] = field(default_factory=deque)
    _staged: list[_Staged] = field(default_factory=list)

    def buffer(self, size: int) -> Buffer:
        """A buffer for the next block, when there is room for one. Raises what went wrong with an earlier one."""
        while self._under_way and self._under_way[0].done():
            self._staged.append(self._under_way.popleft().result())
        return self.upload.data.traffic.buffer(size)

    def submit(self, offset: int, buffer: Buffer) -> None:
        """Have a block staged; its buffer is given back when that is done."""
        number = len(self._staged) + len(self._under_way)
        future = self.executor.submit(self._stage, number, offset, buffer.view)
        future.add_done_callback(lambda _: buffer.give_back())
        self._under_way.append(future)

    def finish(self) -> list[_Staged]:
        """All blocks in order, when the service has them. Raises what went wrong."""
        while self._under_way:
            self._staged.append(self._under_way.popleft().result())
        return self._staged

    def give_up(self) -> None:
        """Forget what has not begun, and wait for what has: it is not lost, the service keeps it."""
        for future in self._under_way:
            future.cancel()
        for future in self._under_way:
            if not future.cancelled():
                future.exception()

    def _stage(self, number: int, offset: int, block: memoryview) -> _Staged:
        md5 = _md5(block)
        name = _block_name(number, md5)
        # A name says what was sent under it, and not what arrived.
        is_held = self.held.get(name) == len(block) and _receipt_of(name) in self.held
        if is_held or self._copied(name, offset, block, md5):
            return _Staged(name, len(block), spared=True)
        is_proven = self.upload.stage(name, block, md5=md5)
        if is_proven and self.leaves_receipts:
            self.upload.leave_receipt(name)
        return _Staged(name, len(block), is_proven=is_proven)

    def _copied(self, name: str, offset: int, block: memoryview, md5: bytes) -> bool:
        source = self.source
        if source is None:
            return False
        headers = (
            f"x-ms-copy-source: {source.url()}",
            f"x-ms-source-range: bytes={offset}-{offset + len(block) - 1}",
            f"x-ms-source-content-md5: {b64encode(md5).decode()}",
            f'x-ms-source-if-match: "{source.etag}"',
            *self.upload.data.access.source_headers(),
        )
        try:
            self.upload.stage_copy(name, headers, md5=md5, crc64=crc64_of(block))
        except StorageError as error:
            # It is gone, was written again, has other content, or the service cannot read it: the file itself is
            # sent, and so are the blocks after this one.
            self.upload.copy_refused(error)
            self.source = None
            return False
        return True


def _block_name(number: int, md5: bytes) -> str:
    """Where the block belongs and what was sent as it. All names of an object have one length."""
    return f"{number:05d}-{md5.hex()}"


def _receipt_of(name: str) -> str:
    """The name of the block that says of another one: it arrived as it was sent. It never becomes part of an object."""
    return name.replace("-", "+")


def _is_received(answer: Answer, *, md5: bytes, crc64: bytes | None, doing: str) -> bool:
    """Tell whether a response says that the service received this block. IntegrityError when it was another one."""
    said = md5_in(answer.headers.get("content-md5"))
    computed = checksum_in(answer.headers.get("x-ms-content-crc64"), size=8) if crc64 is not None else None
    if said not in (None, md5) or computed not in (None, crc64):
        raise IntegrityError(f"{doing}: {_OTHER_BYTES}")
    return said is not None or computed is not None


def block_size_for(size: int, *, at_least: int) -> int:
    """A block size, in whole MiB if it has to grow, with which `size` bytes fit into one object.

    It follows from the size alone, so that a restart cuts a file in the same places. StorageError when no block
    size is large enough.
    """
    if size > LARGEST:
        raise StorageError(f"{size:,} bytes are more than the {LARGEST:,} that an object in Azure can have")
    needed = -(-size // _MOST_BLOCKS)
    return max(at_least, -(-needed // _MIB) * _MIB) if needed > at_least else at_least


def microseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000_000)


@lru_cache(maxsize=16)
def _time_in(header: str | None) -> int:
    """Cached because it is the same second for very many small files."""
    return microseconds(moment_in(header))


def _base64(data: bytes) -> str:
    return b64encode(data).decode()


def _md5(content: bytes | memoryview) -> bytes:
    return hashlib.md5(content, usedforsecurity=False).digest()
