"""One resumable upload to Google Cloud Storage: chunk after chunk, going on from what the service has for certain."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence
from concurrent.futures import Executor, Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from chorus_upload.errors import IntegrityError, PreconditionFailed, TransientError
from chorus_upload.storage.answers import broken_off
from chorus_upload.storage.curl import Answer
from chorus_upload.storage.gs_client import OBJECT, RESUME, Requests
from chorus_upload.storage.gs_errors import Refused
from chorus_upload.storage.gs_sessions import Sessions, Task
from chorus_upload.storage.service_mark import require_json
from chorus_upload.storage.traffic import Buffer

# More digits than the largest object needs are no number of bytes.
_RANGE = re.compile(r"(?:bytes=)?0-([0-9]{1,18})")


class SessionLost(Exception):
    """The service has forgotten a session, or what it had of it. Never leaves `storage`."""


@dataclass(slots=True)
class Session:
    """One resumable upload; used from one thread, sends in one of `executor`, a chunk at a time.

    `committed` is how many bytes the service has for certain, and `held` how many it had from an earlier try.
    """

    requests: Requests
    sessions: Sessions
    task: Task
    doing: str
    address: str = field(repr=False)
    executor: Executor
    committed: int = 0
    held: int = 0
    _is_unsure: bool = False
    _under_way: Future[dict[str, Any] | None] | None = None

    def send(self, offset: int, buffer: Buffer, md5: bytes | None) -> None:
        """Have a chunk sent, when the one before it is; its buffer is given back then. The last one has an MD5."""
        try:
            self._settle()
        except BaseException:
            buffer.give_back()
            raise
        self._under_way = self.executor.submit(self._send, offset, buffer.view, md5)
        self._under_way.add_done_callback(lambda _: buffer.give_back())

    def finish(self) -> dict[str, Any]:
        """What the service says of the object, when the last chunk is sent."""
        answer = self._settle()
        if answer is None:
            raise broken_off()
        self.sessions.forget(self.task)
        return answer

    def wait(self) -> None:
        """Until nothing is under way: it is not lost, the service keeps it."""
        if self._under_way is not None:
            wait([self._under_way])

    def ask(self) -> dict[str, Any] | None:
        """What has become of it: what the service says of the object, once there is one. Sets `committed`."""
        return self._exchange(f"bytes */{self.task.size}", (), b"")

    def _settle(self) -> dict[str, Any] | None:
        under_way, self._under_way = self._under_way, None
        if under_way is None:
            return None
        try:
            return under_way.result()
        except (IntegrityError, PreconditionFailed):
            # Nothing more can become of it.
            self.sessions.forget(self.task)
            raise
        except SessionLost:
            self.sessions.forget(self.task)
        raise TransientError(f"{self.doing}: the service has forgotten what it had of it")

    def _send(self, offset: int, block: memoryview, md5: bytes | None) -> dict[str, Any] | None:
        return self.requests.run(self.doing, lambda: self._attempt(offset, block, md5))

    def _attempt(self, offset: int, block: memoryview, md5: bytes | None) -> dict[str, Any] | None:
        """One try to have the service take a chunk, from where it stands."""
        end = offset + len(block)
        if self._is_unsure and (found := self.ask()):
            # The last chunk had arrived, and only the answer was lost.
            return found
        self._is_unsure = True
        more = () if md5 is None else (f"X-Goog-Hash: md5={b64encode(md5).decode()}",)
        while self.committed < end or md5 is not None:
            if self.committed < offset and (found := self.ask()):
                return found
            if self.committed < offset:
                # It has said so twice.
                raise SessionLost
            begin = self.committed
            what = f"{begin}-{end - 1}" if begin < end else "*"
            found = self._exchange(f"bytes {what}/{self.task.size}", more, block[begin - offset :])
            if found is not None:
                return found
            if self.committed <= begin:
                raise TransientError(f"{self.doing}: the service does not take what is sent")
        self._is_unsure = False
        return None

    def _exchange(self, content_range: str, more: Sequence[str], body: bytes | memoryview) -> dict[str, Any] | None:
        """What is said of the object once there is one. Raises SessionLost when the service has said that twice."""
        with suppress(SessionLost):
            return self._exchanged(content_range, more, body)
        return self._exchanged(f"bytes */{self.task.size}", (), b"")

    def _exchanged(self, content_range: str, more: Sequence[str], body: bytes | memoryview) -> dict[str, Any] | None:
        headers = (f"Content-Range: {content_range}", *more)
        try:
            answer, found = self.requests.put("PUT", self.address, headers, body, judge=_judged)
        except Refused as error:
            if error.refusal.status in (404, 410):
                raise SessionLost from None
            raise
        if answer.status == RESUME:
            self.committed = _committed_in(answer)
            return None
        if not answer.body and body:
            # Nobody says what has become of it: ask.
            raise broken_off()
        if not answer.body:
            # The object was made before, and is not described again: whoever looks finds it.
            raise SessionLost
        return found


def _judged(answer: Answer) -> dict[str, Any]:
    """What is said of the object, once there is one. Raises NoAnswer for what is not the service's.

    By `RESUME` others say that something is elsewhere: the service's has its mark, or says what it has.
    """
    if answer.status == RESUME and _RANGE.fullmatch(answer.headers.get("range", "")):
        return {}
    kind = OBJECT if answer.body and answer.status != RESUME else None
    return require_json(answer.status, answer.headers, answer.body, expected=(200, 201, RESUME), kind=kind)


def _committed_in(answer: Answer) -> int:
    """How many bytes the service has: it says which the last one is, and nothing when it has none."""
    said = _RANGE.fullmatch(answer.headers.get("range", ""))
    return int(said[1]) + 1 if said else 0
