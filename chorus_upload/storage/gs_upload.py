"""Sending one body to Google Cloud Storage, so that the service compares all of it with our MD5 before it is there.

A large body goes in one resumable upload, chunk by chunk. The service takes them one after the other only; what
takes several at once (the XML API's multipart upload, or composing objects) leaves an object of which it computes no
MD5, and whose parts would cost money until somebody removes them. Many files go at once all the same.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, BinaryIO

from chorus_upload.errors import (
    ConditionsIgnored,
    IntegrityError,
    ObjectExists,
    PreconditionFailed,
    StorageError,
    TransientError,
)
from chorus_upload.storage.answers import broken_off, md5_in, must_be_complete, number_in
from chorus_upload.storage.bodies import fill, require_end
from chorus_upload.storage.condition_check import HASTE, ConditionCheck, Kind, Untested
from chorus_upload.storage.gs_client import OBJECT, Bucket, Requests, of_kind
from chorus_upload.storage.gs_resumable import Session, SessionLost
from chorus_upload.storage.gs_sessions import Sessions, Task
from chorus_upload.storage.retry import Retry
from chorus_upload.storage.store import Checksum, ComputedBy, Properties, StoredObject
from chorus_upload.storage.traffic import Buffer
from chorus_upload.storage.tries import tries

_PROBE = b"\0"
_MOST_OF_A_NAME = 200
_NO_GENERATION = 1
"""No object has it: generations are microseconds since 1970."""
LARGEST = 5 << 40
"""The largest object, in bytes: 5 TiB."""
FIELDS = "kind,name,size,generation,timeCreated,md5Hash"
_TYPE = "application/octet-stream"
_PIECE = 1 << 20
# For how many seconds a question is asked to which there is another answer.
_LOOK_PATIENCE = 30.0
# In more steps than the service needs to copy an object of 5 TiB; it takes its time for each of them.
_MOST_STEPS = 10_000
_STEP_SECONDS = 0.02
# What is not one (the configuration may name an access tier of Azure) is ignored.
_STORAGE_CLASSES = frozenset({"STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE"})


@dataclass(frozen=True, slots=True)
class Upload:
    """One write, to `name` in the bucket. `generation` is the one that is to be there now: 0 is none, None any.

    `look` says what is there.
    """

    requests: Requests
    bucket: Bucket
    sessions: Sessions
    name: str
    key: str
    generation: int | None
    properties: Callable[[], Properties]
    look: Callable[[], StoredObject | None]
    check: ConditionCheck | None = None

    @property
    def doing(self) -> str:
        return f"writing {self.key}"

    @property
    def _conditions(self) -> dict[str, object]:
        return {"ifGenerationMatch": self.generation}

    def at_once(self, body: bytes) -> StoredObject:
        """Send `body` with one request. Of the checksum in the result the service is the author."""
        return self._checked(
            Kind.SINGLE,
            lambda upload: upload._put(body),
            again=lambda upload, _: upload._put(body),
            wrongly=lambda: replace(self, generation=_NO_GENERATION)._put(body),
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
        if self.check is not None and self.generation == 0:
            return self.check.create(
                self.key,
                lambda: write(self),
                kind=kind,
                first=lambda: write(self._tried(self.requests.retry.sooner_aside(HASTE))),
                look=self.look,
                again=lambda stored: again(self._tried(self.requests.retry.less_patient(HASTE)), stored),
            )
        if self.check is not None and self.generation is not None:
            etag = str(self.generation)
            return self.check.replace(
                self.key, lambda: write(self), kind=kind, if_match=etag, look=self.look, wrongly=wrongly
            )
        return write(self)

    def _tried(self, retry: Retry) -> Upload:
        """The same write, tried as `retry` says."""
        return replace(self, requests=replace(self.requests, retry=retry))

    def _copied_onto_itself(self, generation: object, *, expected: int) -> None:
        """Make the object once more, of itself, if its generation is the expected one: no byte of it has to be sent."""
        path = self.bucket.path_of(self.name)
        replace(self, generation=expected)._rewritten(self.requests, path, str(generation))

    def _made_beside(self) -> None:
        """Try to make one byte an object in a session, under a name that is free, if it has a generation that none has.

        In a session conditions count at its end, when what it replaces is lost where they are ignored; there the
        object is removed again. Raises Untested when no session can be begun.
        """
        name = f"{self.name[:_MOST_OF_A_NAME]}.{uuid.uuid4().hex}"
        beside = replace(self, name=name, generation=_NO_GENERATION)
        try:
            address = self.requests.run(self.doing, lambda: beside._begin(len(_PROBE)))
        except TransientError:
            raise
        except StorageError:
            raise Untested from None
        headers = (f"Content-Range: bytes 0-{len(_PROBE) - 1}/{len(_PROBE)}",)
        self.requests.run(self.doing, lambda: self.requests.put("PUT", address, headers, _PROBE, judge=of_kind(OBJECT)))
        with suppress(StorageError):
            at = self.bucket.at(name, {})
            self.requests.run(self.doing, lambda: self.requests.ask("DELETE", at, judge=of_kind(None, 204)))

    def _put(self, body: bytes) -> StoredObject:
        properties = self.properties()
        md5 = _md5(body)
        said = json.dumps({**self._beside(properties), "md5Hash": b64encode(md5).decode()})
        boundary = uuid.uuid4().hex
        lead = (
            f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{said}\r\n"
            f"--{boundary}\r\nContent-Type: {_TYPE}\r\nContent-Transfer-Encoding: binary\r\n\r\n"
        )
        message = b"".join((lead.encode(), body, f"\r\n--{boundary}--\r\n".encode()))
        url = self.bucket.upload({"uploadType": "multipart", "name": self.name, "fields": FIELDS, **self._conditions})
        headers = (f"Content-Type: multipart/related; boundary={boundary}",)

        def send() -> StoredObject:
            return self._stored(self.requests.put("POST", url, headers, message, judge=of_kind(OBJECT))[1])

        return self._judged(self.requests.send(self.doing, send), md5)

    def in_chunks(self, body: BinaryIO, *, size: int, chunk: int, executor: Executor) -> StoredObject:
        """Send `body` in chunks, reading one while another is sent; nothing is visible before the last one.

        What an earlier try of the same upload left with the service is read, but not sent again. An exception of
        `body` passes unchanged; the service keeps what it has for a week.
        """
        self.require_expected()
        md5 = hashlib.md5(usedforsecurity=False)
        session: Session | None = None
        try:
            for offset in range(0, size, chunk):
                buffer = self._filled(body, size=size, offset=offset, chunk=chunk)
                try:
                    md5.update(buffer.view)
                    if session is None:
                        session = self._session(size, _md5(buffer.view), executor)
                except BaseException:
                    buffer.give_back()
                    raise
                if offset + chunk >= size:
                    return self._finished(session, offset, buffer, md5.digest())
                session.send(offset, buffer, None)
            raise ValueError("a body that is empty goes at once")
        finally:
            if session is not None:
                session.wait()

    def _finished(self, session: Session, offset: int, buffer: Buffer, md5: bytes) -> StoredObject:
        """The object, of which the last chunk is sent now."""
        is_sent = False

        def write(_: Upload) -> StoredObject:
            nonlocal is_sent
            is_sent = True
            session.send(offset, buffer, md5)
            return self._judged(self._stored(session.finish(), spared=session.held), md5)

        try:
            return self._checked(
                Kind.PARTS,
                write,
                again=lambda upload, _: upload._made_beside(),
                wrongly=self._made_beside,
            )
        finally:
            if not is_sent:
                buffer.give_back()

    def copied(self, source: str, *, generation: str, size: int, md5: bytes) -> StoredObject | None:
        """The object as a copy that the service made of `source` (a path), which is to have this MD5; None if not.

        Of the checksum in the result the service is the author.
        """

        def write(upload: Upload) -> StoredObject:
            made = upload._rewritten(upload.requests.less_patient(_LOOK_PATIENCE), source, generation)
            return self._judged(self._stored(made, spared=size), md5)

        try:
            return self._checked(
                Kind.COPY,
                write,
                again=lambda upload, stored: upload._copied_onto_itself(stored.etag, expected=0),
                wrongly=lambda: self._copied_onto_itself(self.generation, expected=_NO_GENERATION),
            )
        except (IntegrityError, ConditionsIgnored):
            raise
        except StorageError:
            # It is gone, was written again, or may not be copied; or the key is not as it should be, which is final.
            self.require_expected()
            return None

    def _rewritten(self, requests: Requests, source: str, generation: str) -> dict[str, Any]:
        """What the service says of the object that it has made of `source`. Raises StorageError."""
        parameters = {"ifSourceGenerationMatch": generation, "fields": f"kind,done,rewriteToken,resource({FIELDS})"}
        beside = json.dumps(self._beside(self.properties())).encode()
        headers = ("Content-Type: application/json",)
        token: str | None = None

        def go_on() -> dict[str, Any]:
            url = self.bucket.rewrite(source, self.name, {**parameters, **self._conditions, "rewriteToken": token})
            return self.requests.ask("POST", url, headers, beside, judge=of_kind("storage#rewriteResponse"))

        for _ in tries(_MOST_STEPS, first=_STEP_SECONDS, longest=_STEP_SECONDS):
            answer = requests.run(f"copying to {self.key}", go_on)
            if answer.get("done"):
                made: dict[str, Any] = answer.get("resource") or {}
                return made
            must_be_complete(answer.get("rewriteToken"))
            token = str(answer["rewriteToken"])
        raise StorageError(f"copying to {self.key}: the service does not come to an end")

    def _filled(self, body: BinaryIO, *, size: int, offset: int, chunk: int) -> Buffer:
        buffer = self.requests.traffic.buffer(min(chunk, size - offset))
        try:
            fill(buffer.view, body, missing=size - offset)
            if offset + chunk >= size:
                require_end(body, size)
        except BaseException:
            buffer.give_back()
            raise
        return buffer

    def require_expected(self) -> None:
        """Raise what the service would raise at the end, before all of it is sent in vain."""
        if self.generation is None:
            return
        there = self.look()
        if self.generation == 0 and there is not None:
            raise ObjectExists(f"there is a {self.key} already")
        if self.generation and (there is None or there.etag != str(self.generation)):
            raise PreconditionFailed(f"{self.key} is not the one that was expected")

    def _session(self, size: int, first_md5: bytes, executor: Executor) -> Session:
        """The session of an earlier try, if there is one and the service still knows it, or else a new one."""
        task = Task(self.bucket.at(self.name, {}), size, first_md5, self._conditions)
        known = self.sessions.find(task)
        if known is not None and (address := self.bucket.session(known)):
            session = Session(self.requests, self.sessions, task, self.doing, address, executor)
            with suppress(SessionLost):
                if self.requests.run(self.doing, session.ask) is None:
                    session.held = session.committed
                    return session
            self.sessions.forget(task)
        address = self.requests.run(self.doing, lambda: self._begin(size))
        self.sessions.keep(task, address)
        return Session(self.requests, self.sessions, task, self.doing, address, executor)

    def _begin(self, size: int) -> str:
        url = self.bucket.upload({"uploadType": "resumable", "name": self.name, "fields": FIELDS, **self._conditions})
        headers = (
            "Content-Type: application/json",
            f"X-Upload-Content-Type: {_TYPE}",
            f"X-Upload-Content-Length: {size}",
        )
        # Of what is said of an object only what is known before its body was read.
        said = json.dumps({"contentType": _TYPE}).encode()
        answer, _ = self.requests.get("POST", url, headers, said, judge=of_kind(None))
        address = self.bucket.session(answer.headers.get("location", ""))
        if address is None:
            raise broken_off()
        return address

    def _beside(self, properties: Properties) -> dict[str, Any]:
        beside: dict[str, Any] = {"contentType": _TYPE, "metadata": dict(properties.metadata)}
        if properties.tier and properties.tier.upper() in _STORAGE_CLASSES:
            beside["storageClass"] = properties.tier.upper()
        return beside

    def _judged(self, stored: StoredObject, md5: bytes) -> StoredObject:
        """What the service says of the object that it made. IntegrityError, and the object is gone, if it is wrong.

        One that has replaced another is for the caller to judge: it may be the answer that is wrong, and removing it
        would leave nothing.
        """
        if not self.generation and stored.checksum is not None and stored.checksum.md5 != md5:
            # It compares itself before there is an object; this is for a service that does not.
            url = self.bucket.at(self.name, {"ifGenerationMatch": stored.etag})
            with suppress(StorageError):
                self.requests.less_patient(_LOOK_PATIENCE).run(
                    self.doing, lambda: self.requests.ask("DELETE", url, judge=of_kind(None, 204))
                )
            raise IntegrityError(f"{self.doing}: the service reports a checksum that is not the body's")
        return stored

    def _stored(self, answer: dict[str, Any], *, spared: int = 0) -> StoredObject:
        """An object as the answer to a write describes it."""
        return replace(describe(self.key, answer), spared=spared)


def describe(key: str, found: dict[str, Any]) -> StoredObject:
    """One object as the service describes it. Its times are of the content, whatever was said of it since."""
    try:
        md5, size = md5_in(found.get("md5Hash")), number_in(str(found["size"]))
        if size is None:
            raise broken_off()
        return StoredObject(
            key=key,
            size=size,
            etag=str(found["generation"]),
            time_us=round(datetime.fromisoformat(found["timeCreated"]).timestamp() * 1_000_000),
            checksum=Checksum(md5, ComputedBy.SERVICE) if md5 else None,
        )
    except (KeyError, ValueError, TypeError, OverflowError):
        raise broken_off() from None


def hash_of(body: BinaryIO, size: int) -> bytes:
    """The MD5 of a body of `size` bytes, which is read to its end."""
    md5, left = hashlib.md5(usedforsecurity=False), size
    piece = memoryview(bytearray(_PIECE))
    while left:
        view = piece[: min(left, _PIECE)]
        fill(view, body, missing=left)
        md5.update(view)
        left -= len(view)
    require_end(body, size)
    return md5.digest()


def _md5(content: bytes | memoryview) -> bytes:
    return hashlib.md5(content, usedforsecurity=False).digest()
