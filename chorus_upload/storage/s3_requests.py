"""Every request to S3 goes through here: what it raises is translated, and what is transient repeated.

There are two ways. Requests that carry content, in one direction or the other, are signed by the library's signer and
sent by our own HTTP client, as those to other services: that takes a tenth of the work, and many threads really send
at once. All others the library makes (s3fs, aiobotocore): it works in one event loop, in a thread of its own. A thread
that calls a store hands such a request over to that loop, and waits for the outcome.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from fsspec.asyn import get_loop

from chorus_upload.errors import IntegrityError
from chorus_upload.storage.answers import foreign_wait
from chorus_upload.storage.curl import SILENCE, Answer, TimedOut
from chorus_upload.storage.retry import Retry
from chorus_upload.storage.s3_direct import Direct, refused
from chorus_upload.storage.s3_errors import FOREIGN, Silent, retry_after, status_of, translate
from chorus_upload.storage.s3_parts import Checksums, etag_in
from chorus_upload.storage.service_mark import Unmarked
from chorus_upload.storage.traffic import Traffic

T = TypeVar("T")
Call = Callable[..., Awaitable[dict[str, Any]]]
"""`call(operation, *required, **parameters)`: one request, and its answer, in which what is required is there."""

# How often a body is sent that arrives garbled. Patience does not help against a machine that garbles.
_GARBLED_ATTEMPTS = 3
_OVERLOADED = (429, 503)


@dataclass(frozen=True, slots=True)
class Requests:
    """How requests are made; `call` works in the library's event loop, and `direct` does without."""

    call: Call
    direct: Direct
    retry: Retry
    traffic: Traffic
    checksums: Checksums = field(default_factory=Checksums)

    def run(self, doing: str, ask: Callable[[Call], Awaitable[T]], *, silence: float = SILENCE) -> T:
        """The result of `ask`, which may be called repeatedly; only our own errors leave."""
        return self.retry.call(lambda: self._attempt(doing, lambda: self._exchange(ask, silence)))

    def get(self, doing: str, name: str, headers: Mapping[str, str], judge: Callable[[Answer], T]) -> T:
        """What `judge` makes of a GET of an object, whatever the status of the answer is; both may be repeated."""
        return self.retry.call(
            lambda: self._attempt(doing, lambda: judge(self.direct.request("GET", name, headers=headers, expected=206)))
        )

    def put(
        self,
        doing: str,
        name: str,
        content: bytes | memoryview,
        *,
        headers: Mapping[str, str],
        parameters: Mapping[str, str] | None = None,
    ) -> Answer:
        """The answer to a PUT, which has to wait for its turn; it is repeated also when the content was garbled."""

        def send() -> Answer:
            return self._sent(name, content, headers, parameters or {})

        for _ in range(_GARBLED_ATTEMPTS - 1):
            with suppress(IntegrityError):
                return self.retry.call(lambda: self._attempt(doing, send))
        return self.retry.call(lambda: self._attempt(doing, send))

    def less_patient(self, patience: float) -> Requests:
        """The same, given up after so many seconds."""
        return replace(self, retry=self.retry.less_patient(patience))

    def _sent(
        self, name: str, content: bytes | memoryview, headers: Mapping[str, str], parameters: Mapping[str, str]
    ) -> Answer:
        with self.traffic.request(len(content)):
            try:
                answer = self.direct.request(
                    "PUT",
                    name,
                    headers=headers,
                    parameters=parameters,
                    content=content,
                    silence=self.traffic.silence(len(content)),
                    expected=200,
                )
            except TimedOut:
                self.traffic.fell_silent()
                raise
            except Unmarked as foreign:
                # What distributes requests among the machines of a service may say so in its place.
                if foreign.status in _OVERLOADED:
                    self.traffic.overloaded(foreign_wait(foreign))
                raise
            if answer.status >= 300:
                error = refused(answer)
                if status_of(error) in _OVERLOADED:
                    self.traffic.overloaded(retry_after(error))
                raise error
            etag_in(answer)
            return answer

    def _exchange(self, ask: Callable[[Call], Awaitable[T]], silence: float) -> T:
        """One request by the library, once. Raises what the library raises, and Silent."""

        async def asked() -> T:
            return await ask(self.call)

        future = asyncio.run_coroutine_threadsafe(asked(), get_loop())
        try:
            with suppress(concurrent.futures.TimeoutError):
                return future.result(silence)
            if future.done():
                return future.result()
            raise Silent(f"no answer for {silence:.0f} seconds")
        finally:
            future.cancel()
            # It knows the exception, which knows this frame.
            del future

    def _attempt(self, doing: str, action: Callable[[], T]) -> T:
        try:
            return action()
        except FOREIGN as error:
            failure = translate(error, doing=doing)
        # Raised here and not above: there, the foreign exception would be the context of ours, and whoever prints
        # or pickles it would carry along what it knows.
        try:
            raise failure
        finally:
            # It knows this frame: if that knew it as well, a body would stay until somebody collects garbage.
            del failure
