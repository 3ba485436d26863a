"""Every request to Google Cloud Storage goes through here: what it raises is translated, what is transient repeated.

The service speaks the JSON API of Google Cloud Storage, version 1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from chorus_upload.errors import ConfigError, IntegrityError
from chorus_upload.storage.answers import foreign_wait, no_answer
from chorus_upload.storage.curl import SILENCE, Answer, HttpClient, NoAnswer, TimedOut
from chorus_upload.storage.gs_credentials import Access
from chorus_upload.storage.gs_errors import Refused, refused
from chorus_upload.storage.network import Network, is_this_machine
from chorus_upload.storage.replay import require_no_age
from chorus_upload.storage.retry import Retry
from chorus_upload.storage.service_mark import Unmarked, require_json
from chorus_upload.storage.traffic import Traffic

T = TypeVar("T")
Judge = Callable[[Answer], dict[str, Any]]
"""Gives the JSON of an answer; raises NoAnswer when that is not the service's."""

ENDPOINT = "https://storage.googleapis.com"
OBJECT = "storage#object"
"""What the service calls the description of an object."""
RESUME = 308
"""The answer to a part of an upload of which more is to come. It is no redirection."""

_PRINTABLE = re.compile(r"[!-~]+")

# How often a body is sent that arrives garbled. Patience does not help against a machine that garbles.
_GARBLED_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Bucket:
    """The addresses of one bucket and its objects, below that of the service.

    `project` is billed for what is asked, where the owner of the bucket wants that.
    """

    endpoint: str
    name: str
    project: str | None = None

    def __post_init__(self) -> None:
        """ConfigError when patients' data would travel unencrypted, other than to this very machine (an emulator)."""
        parts = urlsplit(self.endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{self.endpoint} is no address of a service", hint="Write https://HOST.")
        if parts.scheme != "https" and not is_this_machine(parts.hostname):
            raise ConfigError(
                f"{parts.scheme}://{parts.hostname} is not encrypted", hint="Write https:// in google_endpoint_url."
            )

    def listing(self, parameters: Mapping[str, object]) -> str:
        return self._url(f"/storage/v1/b/{quote(self.name, safe='')}/o", parameters)

    def at(self, name: str, parameters: Mapping[str, object]) -> str:
        return self._url(self.path_of(name), parameters)

    def upload(self, parameters: Mapping[str, object]) -> str:
        return self._url(f"/upload/storage/v1/b/{quote(self.name, safe='')}/o", parameters)

    def rewrite(self, source: str, target: str, parameters: Mapping[str, object]) -> str:
        """`source` is a path, and may be in another bucket."""
        to = self.path_of(target).removeprefix("/storage/v1")
        return self._url(f"{source}/rewriteTo{to}", parameters)

    def session(self, location: str) -> str | None:
        """The address of an upload session, at the host where we reach the service, whatever it calls itself.

        So neither a foreign answer nor a file that somebody has changed can send content and tokens elsewhere. None
        for what is no address.
        """
        try:
            parts = urlsplit(location)
        except ValueError:
            return None
        address = f"{self.endpoint}{parts.path}?{parts.query}"
        is_one = parts.path.startswith("/") and "upload_id=" in parts.query
        return address if is_one and _PRINTABLE.fullmatch(address) else None

    def path_of(self, name: str) -> str:
        """Where an object is, below the address of the service."""
        return f"/storage/v1/b/{quote(self.name, safe='')}/o/{quote(name, safe='')}"

    def _url(self, path: str, parameters: Mapping[str, object]) -> str:
        given = {name: value for name, value in parameters.items() if value is not None}
        if self.project is not None:
            given["userProject"] = self.project
        return f"{self.endpoint}{path}?{urlencode(given, quote_via=quote)}"


@dataclass(frozen=True, slots=True)
class Requests:
    """How requests are made: with what, as whom, and how patiently."""

    http: HttpClient
    access: Access = field(repr=False)
    traffic: Traffic
    retry: Retry

    def run(self, doing: str, action: Callable[[], T]) -> T:
        """The result of `action`, which may be called repeatedly; only our own errors leave."""
        return self.retry.call(lambda: self._attempt(doing, action))

    def send(self, doing: str, action: Callable[[], T]) -> T:
        """As `run`, for an action that sends content: it is also repeated when the content arrived garbled."""
        for _ in range(_GARBLED_ATTEMPTS - 1):
            try:
                return self.run(doing, action)
            except IntegrityError:
                continue
        return self.run(doing, action)

    def less_patient(self, patience: float) -> Requests:
        """The same, given up after so many seconds."""
        return replace(self, retry=self.retry.less_patient(patience))

    def ask(
        self, method: str, url: str, headers: Sequence[str] = (), body: bytes = b"", *, judge: Judge
    ) -> dict[str, Any]:
        """The JSON of the service's answer to one request that carries no content, once.

        Raises NoAnswer, which what is not the service's is too, and Refused for an answer that is no success.
        """
        return self.get(method, url, headers, body, judge=judge)[1]

    def get(
        self, method: str, url: str, headers: Sequence[str] = (), body: bytes = b"", *, judge: Judge
    ) -> tuple[Answer, dict[str, Any]]:
        """The same, with the answer."""
        answer, found = self._exchange(method, url, headers, body, SILENCE, judge)
        if answer.status >= 300:
            raise Refused(answer)
        return answer, found

    def put(
        self, method: str, url: str, headers: Sequence[str], body: bytes | memoryview, *, judge: Judge
    ) -> tuple[Answer, dict[str, Any]]:
        """One request that carries content, once. As `get`; `RESUME` is a success as well."""
        with self.traffic.request(len(body)):
            try:
                answer, found = self._exchange(method, url, headers, body, self.traffic.silence(len(body)), judge)
            except TimedOut:
                self.traffic.fell_silent()
                raise
            except Unmarked as foreign:
                # What distributes requests among the machines of a service may say so in its place.
                if foreign.status in (429, 503):
                    self.traffic.overloaded(foreign_wait(foreign))
                raise
            if answer.status >= 300 and answer.status != RESUME:
                failure = Refused(answer)
                if failure.refusal.is_overload:
                    self.traffic.overloaded(failure.refusal.retry_after)
                raise failure
            return answer, found

    def close(self) -> None:
        self.http.close()
        self.access.close()

    def _exchange(
        self, method: str, url: str, headers: Sequence[str], body: bytes | memoryview, silence: float, judge: Judge
    ) -> tuple[Answer, dict[str, Any]]:
        who = self.access.headers()
        # libcurl would add a type, and wait for an answer before it sends a larger body.
        lines = ["Expect:", *(() if any(_is_type(each) for each in headers) else ("Content-Type:",)), *headers]
        answer = self.http.request(method, url, [*lines, *who], body, silence=silence)
        found = judge(answer)
        if found:
            # Of public objects' content, which is no JSON, the service itself keeps copies.
            require_no_age(answer.headers)
        if answer.status == 401 and self.access.renew(who):
            # It ended sooner than was known here, or somebody has put a new one into its file.
            answer = self.http.request(method, url, [*lines, *self.access.headers()], body, silence=silence)
            found = judge(answer)
        return answer, found

    def _attempt(self, doing: str, action: Callable[[], T]) -> T:
        try:
            return action()
        except Refused as error:
            failure = refused(error.refusal, doing=doing, renewal=self.access.renewal)
        except NoAnswer as error:
            failure = no_answer(error, doing=doing)
        # Raised here and not above: there, the other exception would be the context of ours, and whoever keeps ours
        # would keep its frames along, and a body in them.
        try:
            raise failure
        finally:
            del failure


def connect(
    endpoint: str, network: Network, access: Access, *, traffic: Traffic, retry: Retry, endpoint_ip: str | None
) -> Requests:
    """The means to ask one service. Sends nothing yet."""
    http = HttpClient(
        endpoint,
        network,
        endpoint_ip=endpoint_ip,
        throttle=traffic.throttle,
        stop=traffic.stop,
        moved=retry.liveness.moved,
    )
    return Requests(http, access, traffic, retry)


def of_kind(kind: str | None, *expected: int) -> Judge:
    """What finds the JSON in an answer, which has to be of that kind ("storage#object"), or of none.

    A success has one of the `expected` statuses, or 200. Raises NoAnswer for what is not the service's.
    """

    def judge(answer: Answer) -> dict[str, Any]:
        return require_json(answer.status, answer.headers, answer.body, expected=expected or (200,), kind=kind)

    return judge


def _is_type(line: str) -> bool:
    return line.lower().startswith("content-type:")
