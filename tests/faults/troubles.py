"""What goes wrong between the program and a service: every kind of trouble, by name."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime

from tests.faults.services import SERVICES
from tests.wire import Alter, Answer, CutAnswer, CutRequest, DropAnswer, Fault, Garble, Request, Stall

PORTAL = b"<html><head><title>Hospital network</title></head><body>Please log in.</body></html>"
_PAGE = (("Content-Type", "text/html"),)
_OF_NGINX = (
    *_PAGE,
    ("ETag", f'"{hashlib.md5(PORTAL, usedforsecurity=False).hexdigest()}"'),
    ("Last-Modified", "Wed, 01 Jan 2025 00:00:00 GMT"),
    ("Location", "https://portal.hospital.example/login"),
)
_A_LOT = 64 << 20


@dataclass(frozen=True, slots=True)
class Trouble:
    """One kind of trouble: what happens to a request, and to which requests it can happen.

    `survived`: the command that meets it is to succeed as if nothing had been. `is_slow`: it costs seconds each time.
    `services` are those whose answers have what it is about.
    """

    name: str
    happen: Callable[[Request], Fault]
    can_meet: Callable[[Request], bool] = lambda _: True
    survived: bool = True
    is_slow: bool = False
    services: tuple[str, ...] = SERVICES


def portal(status: int) -> Answer:
    """A log-in page, as a web server gives it: with an ETag, and what else passes for an answer."""
    return Answer(status, _OF_NGINX, b"" if status in (204, 304) else PORTAL)


def _has_body(request: Request) -> bool:
    return request.size > 1


def _has_answer(request: Request) -> bool:
    return request.method in ("GET", "POST")


def _has_range(request: Request) -> bool:
    return "range" in request.headers or "x-ms-range" in request.headers


def _always(fault: Fault) -> Callable[[Request], Fault]:
    return lambda _: fault


def _refusals() -> list[Trouble]:
    """What a service says that cannot now."""
    past = format_datetime(datetime(2020, 1, 1, tzinfo=UTC), usegmt=True)
    headers = {"": (), " with Retry-After": (("Retry-After", "0"),), " with a date": (("Retry-After", past),)}
    said = [(408, ""), (429, ""), (429, " with Retry-After"), (500, ""), (500, " with Retry-After"), (502, "")]
    said += [(503, ""), (503, " with Retry-After"), (503, " with a date"), (504, "")]
    found = [Trouble(f"{status}{how}", _always(Answer(status, headers[how]))) for status, how in said]
    after = [
        Trouble(f"{status} after the work", _always(Alter(_instead(f"{status} Trouble")))) for status in (500, 503)
    ]
    return found + after


def _instead(status: str, body: bytes = b"", headers: bytes = b"") -> Callable[[bytes, bytes], bytes]:
    """Another answer than the real one."""
    head = b"HTTP/1.1 %s\r\n%sContent-Length: %d\r\nConnection: close\r\n\r\n" % (status.encode(), headers, len(body))
    return lambda *_: head + body


def _cut_in_body(*, is_framed: bool) -> Callable[[bytes, bytes], bytes]:
    def alter(head: bytes, body: bytes) -> bytes:
        half = body[: len(body) // 2]
        return (with_length(head, len(half)) if is_framed else head) + half

    return alter


def with_length(head: bytes, length: int) -> bytes:
    return re.sub(rb"(?im)^content-length:[^\r\n]*", b"Content-Length: %d" % length, head)


def flip_body(part: float) -> Callable[[bytes, bytes], bytes]:
    """One bit of the body is another one."""

    def alter(head: bytes, body: bytes) -> bytes:
        if not body:
            return head
        at = min(len(body) - 1, int(len(body) * part))
        return head + body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]

    return alter


def flip_header(name: str) -> Callable[[bytes, bytes], bytes]:
    """One bit of a header's value is another one."""

    def alter(head: bytes, body: bytes) -> bytes:
        found = re.search(rb"(?im)^" + name.encode() + rb": *([^\r\n]+)", head)
        if found is None:
            return head + body
        at = (found.start(1) + found.end(1)) // 2
        return head[:at] + bytes([head[at] ^ 1]) + head[at + 1 :] + body

    return alter


def _without_headers(head: bytes, body: bytes) -> bytes:
    """Only what is needed to know where the answer ends is left of its head."""
    status = head.partition(b"\r\n")[0]
    return status + b"\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body


def another_range(head: bytes, body: bytes) -> bytes:
    """A range of the same length that begins a byte later, as its head says."""

    def later(found: re.Match[bytes]) -> bytes:
        begin, end = int(found[2]) + 1, int(found[3]) + 1
        return found[1] + b"%d-%d" % (begin, end)

    changed = re.sub(rb"(?im)^(content-range: *bytes )(\d+)-(\d+)", later, head)
    return head + body if changed == head else changed + body[1:] + b"?"


def _no_range(head: bytes, body: bytes) -> bytes:
    """The whole object, or what passes for it."""
    head = re.sub(rb"(?im)^content-range:[^\r\n]*\r\n", b"", head)
    return re.sub(rb"^HTTP/1.1 206 [^\r\n]*", b"HTTP/1.1 200 OK", head) + body


def _too_long(head: bytes, body: bytes) -> bytes:
    return head + body + PORTAL


def _endless_head(head: bytes, body: bytes) -> bytes:
    del body
    line = b"X-More: " + b"x" * 4_000 + b"\r\n"
    return head.removesuffix(b"\r\n") + line * (_A_LOT // len(line))


def _endless_body(head: bytes, body: bytes) -> bytes:
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length:")]
    return b"\r\n".join(lines) + body + b"x" * (_A_LOT + (1 << 20))


def _unchanged(head: bytes, body: bytes) -> bytes:
    return head + body


def redirect(status: int, elsewhere: int) -> Trouble:
    """What is asked for is said to be at another host, under the same path."""

    def happen(request: Request) -> Fault:
        where = f"http://localhost:{elsewhere}{request.target.partition('?')[0]}"
        return Answer(status, (("Location", where),))

    return Trouble(f"redirected by {status}", happen, survived=False)


_HEADERS = {
    "etag": ("azure", "s3"),
    "content-md5": ("azure",),
    "content-range": ("azure", "s3", "google"),
    "last-modified": ("azure", "s3"),
    "x-goog-hash": ("google",),
    "x-goog-generation": ("google",),
    "content-length": ("azure", "s3", "google"),
}
"""Which service says it."""

TROUBLES = [
    Trouble("reset before the request", _always(CutRequest(0))),
    Trouble("reset in the body of the request", lambda request: CutRequest(request.size // 2), _has_body),
    Trouble("answer lost", _always(DropAnswer())),
    Trouble("reset in the head of the answer", _always(CutAnswer(40, reset=True))),
    Trouble("closed in the head of the answer", _always(CutAnswer(40))),
    Trouble("closed in the body of the answer", _always(Alter(_cut_in_body(is_framed=False))), _has_answer),
    Trouble(
        "truncated, and said to be whole", _always(Alter(_cut_in_body(is_framed=True))), _has_answer, survived=False
    ),
    Trouble("silence instead of an answer", _always(Stall(0)), is_slow=True),
    Trouble("silence in the answer", _always(Stall(100)), is_slow=True),
    Trouble("done twice, the second answer", _always(Alter(_unchanged, times=2))),
    Trouble("done twice, the first answer", _always(Alter(_unchanged, times=2, first=True))),
    *_refusals(),
    Trouble("a page instead of an answer", _always(Answer(200, _PAGE, PORTAL))),
    Trouble("a page after the work", _always(Alter(_instead("200 OK", PORTAL, b"Content-Type: text/html\r\n")))),
    Trouble("nothing, and called a success", _always(Answer(200))),
    Trouble("nothing after the work, and called a success", _always(Alter(_instead("200 OK")))),
    Trouble("other XML", _always(Answer(200, (("Content-Type", "application/xml"),), b"<?xml version='1.0'?><a/>"))),
    Trouble("other JSON", _always(Answer(200, (("Content-Type", "application/json"),), b"{}"))),
    *(
        Trouble(f"a portal's {status}", _always(portal(status)))
        for status in (200, 204, 206, 302, 308, 401, 403, 404, 409, 412, 416)
    ),
    Trouble("a page and 403", _always(Answer(403, _PAGE, PORTAL))),
    Trouble("a page and 404", _always(Answer(404, _PAGE, PORTAL))),
    Trouble("a page and 407", _always(Answer(407, _PAGE, PORTAL))),
    Trouble("an answer without its headers", _always(Alter(_without_headers)), survived=False),
    Trouble("a bit in the request, in its middle", lambda it: Garble(it.size // 2), _has_body, survived=False),
    Trouble("a bit in the request, at its end", lambda it: Garble(it.size - 1), _has_body, survived=False),
    *(
        Trouble(f"a bit in the answer, at {part:.0%}", _always(Alter(flip_body(part))), _has_answer, survived=False)
        for part in (0.3, 0.6, 1.0)
    ),
    *(
        Trouble(
            f"a bit in {name} of the answer",
            _always(Alter(flip_header(name))),
            survived=False,
            is_slow=name == "content-length",
            services=services,
        )
        for name, services in _HEADERS.items()
    ),
    Trouble("another range than asked for", _always(Alter(another_range)), _has_range),
    Trouble("no range, although asked for", _always(Alter(_no_range)), _has_range, survived=False),
    Trouble("a longer body than said", _always(Alter(_too_long))),
    Trouble("a head without end", _always(Alter(_endless_head)), is_slow=True),
    Trouble("a body without end", _always(Alter(_endless_body)), is_slow=True),
]
