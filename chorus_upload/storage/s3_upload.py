"""Sending one body to S3, so that the service checks every byte of it as it arrives."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any, BinaryIO, NamedTuple

from chorus_upload.errors import (
    AccessDenied,
    IntegrityError,
    ObjectExists,
    PreconditionFailed,
    StorageError,
    TransientError,
)
from chorus_upload.model import Twin
from chorus_upload.storage.bodies import fill, require_end
from chorus_upload.storage.condition_check import HASTE, ConditionCheck, Kind, Untested
from chorus_upload.storage.curl import Answer
from chorus_upload.storage.retry import Retry
from chorus_upload.storage.s3_client import bare, microseconds, quoted
from chorus_upload.storage.s3_errors import SessionLost, must_be_complete
from chorus_upload.storage.s3_parts import (
    SHA256,
    Part,
    base64_of,
    computed_md5,
    computed_md5_in,
    etag_in,
    etag_of,
    is_encrypted,
    md5_of,
    moment_of,
    sha256_of,
    time_in,
)
from chorus_upload.storage.s3_requests import Call, Requests
from chorus_upload.storage.store import Checksum, ComputedBy, Origin, Properties, StoredObject
from chorus_upload.storage.traffic import Buffer
from chorus_upload.storage.tries import Pages

_MOST_PARTS = 10_000
_PROBE = b"\0"
_LARGEST_COPIED = 64 << 20
"""The largest object, in bytes, that is copied onto itself to see whether the service honours conditions."""
_NO_ETAG = "0" * 32
"""No object has it: its content would have to be found first."""
LARGEST = 5 << 40
"""The largest object, in bytes: 5 TiB."""
_MIB = 1 << 20
# For how many seconds a copy is tried that fails: sending does as well.
_COPY_PATIENCE = 60.0
# For how many seconds a question is asked to which there is another answer.
_LOOK_PATIENCE = 30.0
# The service may take minutes to put an object together.
_COMPLETION_SILENCE = 900.0
_TYPE = "application/octet-stream"

# What is not one (the configuration may name an access tier of Azure) is ignored.
_STORAGE_CLASS = re.compile(r"[A-Z][A-Z0-9_]*")


class _Session(NamedTuple):
    """A multipart upload, the etags and sizes of the parts that it has, and other ones of the same key.

    `has_sha256`: the service says the SHA-256 of each part.
    """

    upload_id: str
    held: Mapping[int, tuple[str, int]]
    others: list[str]
    has_sha256: bool = False


_NO_SESSION = _Session("", {}, [])


@dataclass(frozen=True, slots=True)
class Upload:
    """One write: to `name` in `bucket` (as requests name one), under at most one condition.

    `look` says what is there now.
    """

    requests: Requests
    bucket: Mapping[str, Any]
    name: str
    key: str
    look: Callable[[], StoredObject | None]
    create_only: bool
    if_match: str | None
    properties: Callable[[], Properties]
    check: ConditionCheck | None = None

    @property
    def at(self) -> dict[str, Any]:
        return {**self.bucket, "Key": self.name}

    @property
    def doing(self) -> str:
        return f"writing {self.key}"

    @property
    def _conditions(self) -> dict[str, str]:
        """As the library wants them said."""
        if self.create_only:
            return {"IfNoneMatch": "*"}
        return {"IfMatch": quoted(self.if_match)} if self.if_match is not None else {}

    @property
    def _condition_headers(self) -> dict[str, str]:
        """The same as headers."""
        if self.create_only:
            return {"If-None-Match": "*"}
        return {"If-Match": quoted(self.if_match)} if self.if_match is not None else {}

    def at_once(self, body: bytes) -> StoredObject:
        """Send `body` with one request. Of the checksum in the result, if there is one, the service is the author."""
        return self._checked(
            Kind.SINGLE,
            lambda upload: upload._put(body),
            again=lambda upload, _: upload._put(body),
            wrongly=lambda: replace(self, if_match=_NO_ETAG)._put(body),
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
        if self.check is not None and self.create_only:
            return self.check.create(
                self.key,
                lambda: write(self),
                kind=kind,
                first=lambda: write(self._tried(self.requests.retry.sooner_aside(HASTE))),
                look=self.look,
                again=lambda stored: again(self._tried(self.requests.retry.less_patient(HASTE)), stored),
            )
        if self.check is not None and self.if_match is not None:
            return self.check.replace(
                self.key, partial(write, self), kind=kind, if_match=self.if_match, look=self.look, wrongly=wrongly
            )
        return write(self)

    def _tried(self, retry: Retry) -> Upload:
        """The same write, tried as `retry` says."""
        return replace(self, requests=replace(self.requests, retry=retry))

    def _put(self, body: bytes) -> StoredObject:
        properties = self.properties()
        md5 = md5_of(body)
        headers = {
            **{f"x-amz-meta-{name}": value for name, value in properties.metadata.items()},
            **self._condition_headers,
        }
        if properties.tier and _STORAGE_CLASS.fullmatch(properties.tier):
            headers["x-amz-storage-class"] = properties.tier
        sha256 = sha256_of(body) if self.requests.checksums.are_asked else None
        answer, is_said = self.sent(body, md5, headers=headers, sha256=sha256)
        # Whether it is the body's is for the caller to judge: if it is not, something else is there now.
        computed = computed_md5_in(answer)
        return StoredObject(
            key=self.key,
            size=len(body),
            etag=etag_in(answer),
            time_us=time_in(answer),
            checksum=None if computed is None else Checksum(computed, ComputedBy.SERVICE),
            transit_checked=is_said,
        )

    def sent(
        self,
        content: bytes | memoryview,
        md5: bytes,
        *,
        headers: Mapping[str, str] = MappingProxyType({}),
        parameters: Mapping[str, str] | None = None,
        sha256: str | None,
    ) -> tuple[Answer, bool]:
        """The answer to a PUT of `content`, and whether it says a checksum of what was received, which is ours.

        The service compares the MD5 with what arrives; the SHA-256, if there is one, it compares and says.
        """
        said = {"Content-Type": _TYPE, "Content-MD5": base64_of(md5), **({SHA256: sha256} if sha256 else {})}
        answer = self.requests.put(self.doing, self.name, content, headers={**said, **headers}, parameters=parameters)
        computed = computed_md5_in(answer)
        if computed is None:
            self.requests.checksums.are_asked = True
        return answer, computed == md5 or (sha256 is not None and answer.headers.get(SHA256) == sha256)

    def in_parts(
        self, body: BinaryIO, *, size: int, part_size: int, executor: Executor, twin: tuple[str, Twin] | None
    ) -> StoredObject:
        """Send `body` in parts, several at a time, then make them the object; nothing is visible before that.

        Each is of `part_size` bytes, the last one shorter. Parts that an earlier try left with the service are not
        sent again, and those of `twin` (a name in the bucket, and its state) are copied there. An exception of
        `body` passes unchanged; the service keeps what it has, for the next try.
        """
        self._require_free()
        staging = _Staging(self, executor, twin if size > _MIB else None, is_whole=size <= part_size)
        try:
            return self._staged(staging, body, size, part_size)
        except SessionLost as error:
            failure = StorageError(error.message, hint=error.hint)
        # By now it may be clear what the other one has made of the object.
        self._require_free()
        raise failure

    def _staged(self, staging: _Staging, body: BinaryIO, size: int, part_size: int) -> StoredObject:
        try:
            for offset in range(0, size, part_size):
                buffer = staging.buffer(min(part_size, size - offset))
                try:
                    fill(buffer.view, body, missing=size - offset)
                    if offset + part_size >= size:
                        require_end(body, size)
                    if offset == 0:
                        staging.session = self._session(buffer.view)
                except BaseException:
                    buffer.give_back()
                    raise
                staging.submit(offset, buffer)
            parts = staging.finish()
        except BaseException:
            staging.give_up()
            raise
        return self._made_of(staging.session, parts, size=size)

    def _made_of(self, session: _Session, parts: list[Part], *, size: int) -> StoredObject:
        # What is beside an object has to be said before its first part is sent, when hardly anybody knows it yet.
        properties = self.properties()
        return self._checked(
            Kind.PARTS,
            lambda upload: upload._object_of(session, parts, properties, size=size),
            again=Upload._made_again,
            wrongly=lambda: replace(self, if_match=_NO_ETAG)._complete(session, parts, is_last=False),
        )

    def _made_again(self, stored: StoredObject) -> None:
        """Try to make the object once more, in a session of its own. Raises Untested when that cannot be tried.

        It is made of itself, so that it stays what it is where the condition is ignored. The service takes a minute to
        copy a few GiB, and others wait: a larger one is made of one byte, and removed if that is accepted.
        """
        session = self._begun([])
        try:
            copied = None if stored.size > _LARGEST_COPIED else self._copy_of_itself(session, stored)
            part = copied or self._part_of_one_byte(session)
        except StorageError as error:
            self._abort(session.upload_id)
            if isinstance(error, TransientError):
                raise
            raise Untested from None
        try:
            self._complete(session, [part])
        except (SessionLost, TransientError):
            # The answer may have been lost, and only that.
            self._abort(session.upload_id)
            if copied is not None or self._is_there(stored):
                raise Untested from None
        if copied is None:
            self._remove_one_byte()

    def _part_of_one_byte(self, session: _Session) -> Part:
        sha256 = sha256_of(_PROBE) if session.has_sha256 else None
        parameters = {"partNumber": "1", "uploadId": session.upload_id}
        answer, _ = self.sent(_PROBE, md5_of(_PROBE), parameters=parameters, sha256=sha256)
        return Part(1, etag_in(answer), len(_PROBE), sha256=sha256)

    def _is_there(self, stored: StoredObject) -> bool:
        """Whether the object is still what was written. IntegrityError when that cannot be told."""
        try:
            there = self.look()
        except StorageError as error:
            raise IntegrityError(f"{self.doing}: nobody says whether it is there ({error.message})") from None
        return there is not None and there.etag == stored.etag

    def _remove_one_byte(self) -> None:
        with suppress(StorageError):
            there = self.look()
            if there is not None and there.size == len(_PROBE):
                self.requests.run(self.doing, lambda call: call("delete_object", **self.at, IfMatch=quoted(there.etag)))

    def _copy_of_itself(self, session: _Session, stored: StoredObject) -> Part | None:
        """A part with all of the object; None where the service does not copy it. Raises TransientError."""
        what = {**self.at, "UploadId": session.upload_id, "PartNumber": 1}
        what["CopySource"] = {"Bucket": self.bucket["Bucket"], "Key": self.name}
        what["CopySourceIfMatch"] = quoted(stored.etag)
        try:
            answer = self.requests.run(self.doing, partial(_ask_for_copy, what), silence=_COMPLETION_SILENCE)
        except TransientError:
            raise
        except StorageError:
            return None
        copied = answer["CopyPartResult"]
        return Part(1, bare(copied["ETag"]), stored.size, sha256=copied.get("ChecksumSHA256"))

    def _object_of(self, session: _Session, parts: list[Part], properties: Properties, *, size: int) -> StoredObject:
        answer = self._complete(session, parts)
        return StoredObject(
            key=self.key,
            size=size,
            etag=bare(answer["ETag"]),
            time_us=self._time(answer),
            checksum=Checksum(properties.md5, ComputedBy.UNKNOWN) if properties.md5 else None,
            transit_checked=all(part.is_proven for part in parts),
            spared=sum(part.size for part in parts if part.spared),
        )

    def copied(self, origin: Origin) -> StoredObject | None:
        """Have the service copy `origin` as one part, and say the MD5 of that; None when it does not, or says another.

        Nothing is visible before that was compared.
        """
        session = self._begun([])
        bucket, _, name = origin.address.partition("/")
        part: dict[str, Any] = {"UploadId": session.upload_id, "PartNumber": 1}
        part |= {"CopySource": {"Bucket": bucket, "Key": name}, "CopySourceIfMatch": quoted(origin.etag)}
        computed = None
        with suppress(StorageError):
            answer = self.requests.less_patient(_COPY_PATIENCE).run(
                self.doing,
                lambda call: call("upload_part_copy", "CopyPartResult", **self.at, **part),
                silence=_COMPLETION_SILENCE,
            )
            computed = computed_md5(answer | answer["CopyPartResult"])
        if computed != origin.md5:
            # It is gone, was written again, has other content, or the service may not read it, or says no MD5.
            self._abort(session.upload_id)
            return None
        with suppress(SessionLost):
            return self._made_of(session, [Part(1, computed.hex(), origin.size, spared=True)], size=origin.size)
        # Somebody has ended the session meanwhile: the file itself is sent.
        return None

    def _require_free(self) -> None:
        """Refuse at once what would be refused in the end, before all of it is sent in vain."""
        if not self._conditions:
            return
        there = self.look()
        if self.create_only and there is not None:
            raise ObjectExists(f"there is a {self.key} already")
        if self.if_match is not None and (there is None or there.etag != self.if_match):
            raise PreconditionFailed(f"{self.key} is another one, or gone")

    def _session(self, first: memoryview) -> _Session:
        """Where to put the parts of a body that begins with the part `first`.

        A session of this key that begins otherwise is of other content, and is left alone: its writer may live. So is
        each where the properties are said at the beginning: they may be those of other content.
        """
        if isinstance(self.properties, Properties):
            return self._begun(self._sessions())
        wanted = (md5_of(first).hex(), len(first))
        others = self._sessions()
        for upload_id in others:
            held = self._held(upload_id)
            if held.get(1) == wanted:
                return _Session(upload_id, held, [each for each in others if each != upload_id])
        return self._begun(others)

    def _begun(self, others: list[str]) -> _Session:
        checksums = self.requests.checksums
        more = {"ChecksumAlgorithm": "SHA256"} if checksums.are_asked else {}
        beside = self.properties.metadata if isinstance(self.properties, Properties) else {}
        what = {**self.at, "ContentType": _TYPE, "Metadata": dict(beside), **more}
        answer = self.requests.run(self.doing, lambda call: call("create_multipart_upload", "UploadId", **what))
        if is_encrypted(answer) and not more:
            # What its parts are to have beside them has to be said at the beginning.
            checksums.are_asked = True
            self._abort(str(answer["UploadId"]))
            return self._begun(others)
        return _Session(str(answer["UploadId"]), {}, others, answer.get("ChecksumAlgorithm") == "SHA256")

    def _sessions(self) -> list[str]:
        """The sessions for exactly this key."""
        markers = {"KeyMarker": "NextKeyMarker", "UploadIdMarker": "NextUploadIdMarker"}
        pages = self._pages("list_multipart_uploads", {**self.bucket, "Prefix": self.name}, markers)
        return [each["UploadId"] for page in pages for each in page.get("Uploads", []) if each["Key"] == self.name]

    def _held(self, upload_id: str) -> dict[int, tuple[str, int]]:
        """The etags and sizes of the parts of a session, by their numbers."""
        markers = {"PartNumberMarker": "NextPartNumberMarker"}
        pages = self._pages("list_parts", {**self.at, "UploadId": upload_id}, markers)
        return {
            each["PartNumber"]: (bare(each["ETag"]), each["Size"]) for page in pages for each in page.get("Parts", [])
        }

    def _pages(self, what: str, at: dict[str, Any], markers: Mapping[str, str]) -> list[dict[str, Any]]:
        """All pages of a listing; [] when what is listed has ended, or we may not know."""

        async def ask(call: Call) -> list[dict[str, Any]]:
            pages = [await call(what, "IsTruncated", **at)]
            seen = Pages(f"parts of {self.key}")
            while pages[-1]["IsTruncated"]:
                must_be_complete(pages[-1], *markers.values())
                seen.following(repr([pages[-1][following] for following in markers.values()]))
                after = {marker: pages[-1][following] for marker, following in markers.items()}
                pages.append(await call(what, "IsTruncated", **at, **after))
            return pages

        with suppress(AccessDenied, SessionLost):
            return self.requests.run(f"looking for parts of {self.key}", ask)
        return []

    def _abort(self, upload_id: str) -> None:
        with suppress(StorageError):
            self.requests.less_patient(_LOOK_PATIENCE).run(
                self.doing, lambda call: call("abort_multipart_upload", **self.at, UploadId=upload_id)
            )

    def _complete(self, session: _Session, parts: list[Part], *, is_last: bool = True) -> dict[str, Any]:
        """Make an object of its parts. Unless it `is_last`, the session is still needed when that is refused."""
        listed: list[dict[str, Any]] = [
            {"PartNumber": part.number, "ETag": quoted(part.etag)}
            | ({"ChecksumSHA256": part.sha256} if part.sha256 else {})
            for part in parts
        ]
        what = {"UploadId": session.upload_id, "MultipartUpload": {"Parts": listed}}
        try:
            answer = self.requests.run(
                self.doing,
                lambda call: call("complete_multipart_upload", "ETag", **self.at, **self._conditions, **what),
                silence=_COMPLETION_SILENCE,
            )
        except PreconditionFailed:
            if is_last:
                self._abort(session.upload_id)
            raise
        except SessionLost:
            # A first try may have succeeded, and only its answer was lost.
            there = None if self._conditions else self.look()
            if there is None or there.etag != etag_of(parts):
                raise
            answer = {"ETag": there.etag}
        if self._conditions:
            # What else was begun under this key cannot become the object any more; it would cost for ever.
            for each in session.others:
                self._abort(each)
        return answer

    def _time(self, answer: Mapping[str, Any]) -> int:
        """When the service says the object was changed: it answers a write without it, so it is asked."""
        etag = bare(answer["ETag"])
        # The object may have been replaced already, or reading may not be allowed: it was written all the same.
        with suppress(StorageError):
            found = self.requests.less_patient(_LOOK_PATIENCE).run(
                self.doing, lambda call: call("head_object", "LastModified", **self.at, IfMatch=quoted(etag))
            )
            return microseconds(found["LastModified"])
        return moment_of(answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date"))


@dataclass(slots=True)
class _Staging:
    """The parts of one object on their way; used from one thread, works in those of `executor`."""

    upload: Upload
    executor: Executor
    twin: tuple[str, Twin] | None
    is_whole: bool
    session: _Session = _NO_SESSION
    _under_way: deque[Future[Part]] = field(default_factory=deque)
    _parts: list[Part] = field(default_factory=list)

    def buffer(self, size: int) -> Buffer:
        """A buffer for the next part, when there is room for one. Raises what went wrong with an earlier one."""
        while self._under_way and self._under_way[0].done():
            self._parts.append(self._under_way.popleft().result())
        return self.upload.requests.traffic.buffer(size)

    def submit(self, offset: int, buffer: Buffer) -> None:
        """Have a part sent; its buffer is given back when that is done."""
        number = len(self._parts) + len(self._under_way) + 1
        future = self.executor.submit(self._stage, number, offset, buffer.view)
        future.add_done_callback(lambda _: buffer.give_back())
        self._under_way.append(future)

    def finish(self) -> list[Part]:
        """All parts in order, when the service has them. Raises what went wrong."""
        while self._under_way:
            self._parts.append(self._under_way.popleft().result())
        return self._parts

    def give_up(self) -> None:
        """Forget what has not begun, and wait for what has: it is not lost, the service keeps it."""
        for future in self._under_way:
            future.cancel()
        for future in self._under_way:
            if not future.cancelled():
                future.exception()

    def _stage(self, number: int, offset: int, block: memoryview) -> Part:
        md5 = md5_of(block)
        # A part's etag is the MD5 that the service computed, unless it encrypts with a key of a customer: then it
        # equals none, and the part is sent.
        spared = self.session.held.get(number) == (md5.hex(), len(block)) or self._copied(number, offset, block, md5)
        return Part(number, md5.hex(), len(block), spared) if spared else self._sent(number, block, md5)

    def _sent(self, number: int, block: memoryview, md5: bytes) -> Part:
        upload, session = self.upload, self.session
        sha256 = sha256_of(block) if session.has_sha256 else None
        parameters = {"partNumber": str(number), "uploadId": session.upload_id}
        answer, is_said = upload.sent(block, md5, parameters=parameters, sha256=sha256)
        if computed_md5_in(answer) not in (None, md5) or (sha256 and answer.headers.get(SHA256, sha256) != sha256):
            raise IntegrityError(f"{upload.doing}: the service reports a checksum that is not the part's")
        return Part(number, etag_in(answer), len(block), sha256=sha256, is_proven=is_said)

    def _copied(self, number: int, offset: int, block: memoryview, md5: bytes) -> bool:
        """Whether the service has copied this part: what it then says of it has to be our MD5."""
        if self.twin is None:
            return False
        name, twin = self.twin
        upload = self.upload
        part: dict[str, Any] = {"UploadId": self.session.upload_id, "PartNumber": number}
        part["CopySource"] = {"Bucket": upload.bucket["Bucket"], "Key": name}
        part["CopySourceIfMatch"] = quoted(twin.etag)
        # A range may only be of objects that are larger than 5 MiB.
        if not self.is_whole:
            part["CopySourceRange"] = f"bytes={offset}-{offset + len(block) - 1}"
        with suppress(StorageError):
            answer = upload.requests.less_patient(_COPY_PATIENCE).run(
                upload.doing, lambda call: call("upload_part_copy", "CopyPartResult", **upload.at, **part)
            )
            if computed_md5(answer | answer["CopyPartResult"]) == md5:
                return True
        # It is gone, was written again, has other content, or the service cannot read it: the file itself is sent,
        # over what was copied, and so are the parts after this one.
        self.twin = None
        return False


async def _ask_for_copy(what: Mapping[str, Any], call: Call) -> dict[str, Any]:
    return await call("upload_part_copy", "CopyPartResult", **what)


def part_size_for(size: int, *, at_least: int) -> int:
    """A part size, in whole MiB if it has to grow, with which `size` bytes fit into one object.

    It follows from the size alone, so that a restart cuts a file in the same places. StorageError when the object
    would be too large.
    """
    if size > LARGEST:
        raise StorageError(f"{size:,} bytes are more than the {LARGEST:,} that an object in S3 can have")
    needed = -(-size // _MOST_PARTS)
    return max(at_least, -(-needed // _MIB) * _MIB) if needed > at_least else at_least
