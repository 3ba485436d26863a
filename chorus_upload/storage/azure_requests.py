"""Every request to Azure goes through here: what it raises is translated, and what is transient repeated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from uuid import uuid4

import requests
from azure.core import MatchConditions
from azure.core.exceptions import AzureError
from urllib3.exceptions import HTTPError

from chorus_upload.errors import IntegrityError
from chorus_upload.storage.answers import foreign_wait
from chorus_upload.storage.azure_credentials import Access
from chorus_upload.storage.azure_errors import Refused, translate
from chorus_upload.storage.curl import Answer, HttpClient, NoAnswer, TimedOut
from chorus_upload.storage.replay import CLIENT_ID
from chorus_upload.storage.retry import Retry
from chorus_upload.storage.service_mark import Unmarked, WrongStatus
from chorus_upload.storage.traffic import Traffic

T = TypeVar("T")

GARBLED_ATTEMPTS = 3
"""How often a body is sent that arrives garbled. Patience does not help against a machine that garbles."""

# Nearly all that leaves the SDK is an AzureError, or what our HTTP client raises below it. The others do in corners:
# a login's program that does not start (OSError), a response without a header that the SDK counts on (ValueError), with
# a date that cannot be (OverflowError), or with XML that is none (SyntaxError) or has other elements.
_FOREIGN = (
    *(AzureError, NoAnswer, Refused, requests.RequestException, HTTPError, OSError, ValueError),
    *(ArithmeticError, AttributeError, LookupError, SyntaxError, TypeError, RecursionError),
)

# The version of the service's protocol that our own requests speak.
_PROTOCOL = "2023-11-03"
_OVERLOADED = frozenset({429, 503})
_PARTIAL = 206


@dataclass(frozen=True, slots=True)
class Requests:
    """How requests are made, and as whom."""

    retry: Retry
    access: Access

    def run(self, doing: str, action: Callable[[], T]) -> T:
        """The result of `action`, which may be called repeatedly; only our own errors leave."""
        return self.retry.call(lambda: self._attempt(doing, action))

    def send(self, doing: str, action: Callable[[], T]) -> T:
        """As `run`, for an action that sends content: it is also repeated when the content arrived garbled."""
        for _ in range(GARBLED_ATTEMPTS - 1):
            try:
                return self.run(doing, action)
            except IntegrityError:
                continue
        return self.run(doing, action)

    def less_patient(self, patience: float) -> Requests:
        """The same, given up after so many seconds."""
        return replace(self, retry=self.retry.less_patient(patience))

    def _attempt(self, doing: str, action: Callable[[], T]) -> T:
        try:
            return action()
        except _FOREIGN as error:
            failure = translate(error, doing=doing, expires=self.access.expires)
        # Raised here and not above: there, the foreign exception, whose text may hold a SAS token, would
        # be the context of ours, and whoever prints or pickles it would carry the token along.
        try:
            raise failure
        finally:
            # It knows this frame: if that knew it as well, a body would stay until somebody collects garbage.
            del failure


@dataclass(frozen=True, slots=True)
class DataRequests:
    """Sends the requests that carry content, which are put together here: the SDK takes ten times as long for it.

    See "Put Blob", "Put Block", "Put Block From URL" and "Get Blob" in the reference of Azure's Blob service REST API.
    """

    http: HttpClient
    access: Access
    traffic: Traffic

    def put(self, url: str, parameters: str, headers: Sequence[str], body: bytes | memoryview) -> Answer:
        """One PUT, once. Raises NoAnswer, and Refused for an answer that is no success."""
        with self.traffic.request(len(body)):
            lines = ["Content-Type: application/octet-stream", *headers]
            try:
                answer = self._ask("PUT", url, parameters, lines, body)
            except TimedOut:
                self.traffic.fell_silent()
                raise
            except Unmarked as error:
                if error.status in _OVERLOADED:
                    self.traffic.overloaded(foreign_wait(error))
                raise
            if answer.status >= 300:
                refused = Refused(answer)
                if answer.status in _OVERLOADED:
                    self.traffic.overloaded(refused.refusal.retry_after)
                raise refused
            return answer

    def get(self, url: str, headers: Sequence[str]) -> Answer:
        """One GET of a part, once. Raises NoAnswer, and Refused for an answer that is no success."""
        answer = self._ask("GET", url, "", headers, b"")
        if answer.status >= 300:
            raise Refused(answer)
        if answer.status != _PARTIAL:
            raise WrongStatus(f"the service responded with {answer.status} to a request for a part")
        return answer

    def _ask(self, method: str, url: str, parameters: str, headers: Sequence[str], body: bytes | memoryview) -> Answer:
        answer = self._exchange(method, url, parameters, headers, body)
        if answer.status == 401 and self.access.login is not None:
            # The clocks disagree about when a login's token ends; another one settles it.
            self.access.login.forget()
            answer = self._exchange(method, url, parameters, headers, body)
        return answer

    def _exchange(
        self, method: str, url: str, parameters: str, headers: Sequence[str], body: bytes | memoryview
    ) -> Answer:
        query = "&".join(part for part in (parameters, self.access.query()) if part)
        lines = [f"x-ms-version: {_PROTOCOL}", f"{CLIENT_ID}: {uuid4()}", "Expect:", *headers, *self.access.headers()]
        silence = self.traffic.silence(len(body))
        return self.http.request(method, f"{url}?{query}" if query else url, lines, body, silence=silence)


@dataclass(frozen=True, slots=True)
class Conditions:
    """Under which a write may happen, as the SDK wants it said."""

    create_only: bool = False
    if_match: str | None = None

    @property
    def lines(self) -> tuple[str, ...]:
        """The same as lines of headers."""
        if self.create_only:
            return ("If-None-Match: *",)
        return (f'If-Match: "{self.if_match}"',) if self.if_match is not None else ()

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments. They must be left out, not None, where they do not apply: the SDK hands an
        `etag` that it has no use for to the HTTP library, which does not know it.
        """
        if self.create_only:
            return {"match_condition": MatchConditions.IfMissing}
        if self.if_match is not None:
            return {"match_condition": MatchConditions.IfNotModified, "etag": f'"{self.if_match}"'}
        return {}


def bare_etag(etag: str | None) -> str:
    """The etag without the quotes that answers have and listings have not."""
    return (etag or "").removeprefix("W/").strip('"')
