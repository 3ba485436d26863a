"""What the answers of all services have in common: how they break off, and what a missing one says."""

from __future__ import annotations

import html
import re
import socket
from base64 import b64decode
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from chorus_upload.errors import AccessDenied, HostUnknown, HostUnresolved, StorageError, TlsError, TransientError
from chorus_upload.storage.curl import UNKNOWN_HOST, NoAnswer, NotTrusted, ProxyRefused, Unresolved
from chorus_upload.storage.service_mark import Unmarked

# More than the largest object, file or wait needs, and less than what a journal can hold (63 bits). Of numbers of more
# than 4,300 digits Python reads none.
_MOST_DIGITS = 18
# A page of a moment must not end or hold up a run of days.
_LONGEST_FOREIGN_WAIT = 60.0
_RANGE = re.compile(rf"bytes ([0-9]{{1,{_MOST_DIGITS}}})-([0-9]{{1,{_MOST_DIGITS}}})/([0-9]{{1,{_MOST_DIGITS}}})")


def must_be_complete(*required: object) -> None:
    """Raise TransientError when an answer lacks one of the things that it cannot be without.

    An answer that breaks off within its headers looks complete to Python's HTTP client; what tells is that
    headers are missing that the service always sends.
    """
    if any(each is None for each in required):
        raise broken_off()


def size_in(content_range: str | None, body: bytes, *, offset: int) -> int:
    """The size of an object of which an answer has the part that begins at `offset`: its Content-Range says so.

    TransientError when it says something else, or nothing: another part would pass for the one that was asked for.
    """
    found = _RANGE.fullmatch(content_range or "")
    if found is None or int(found[1]) != offset or int(found[2]) + 1 - offset != len(body):
        raise broken_off()
    return int(found[3])


def md5_in(said: str | None) -> bytes | None:
    """The MD5 that a header says, in base64. TransientError when it is none."""
    return checksum_in(said, size=16)


def checksum_in(said: str | None, *, size: int) -> bytes | None:
    """Return the checksum of `size` bytes that a header says, in base64. TransientError when it is none."""
    if not said:
        return None
    try:
        checksum = b64decode(said, validate=True)
    except ValueError:
        raise broken_off() from None
    if len(checksum) != size:
        raise broken_off()
    return checksum


def moment_in(said: str | None) -> datetime:
    """The date that a header says, in UTC. TransientError when it is none, missing, or out of Python's range."""
    try:
        moment = parsedate_to_datetime(said or "")
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError, TypeError):
        raise broken_off() from None


def number_in(said: str | None) -> int | None:
    """Return the number that a header says, not negative and of at most 18 digits; None for all else."""
    text = (said or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else None


def unescaped(text: str) -> str:
    """Return `text` without the character references of XML and HTML; as it is when one of them can be no character."""
    try:
        return html.unescape(text)
    except (ValueError, OverflowError):
        return text


def broken_off() -> TransientError:
    return TransientError("the answer broke off, or is not the service's")


def no_answer(error: NoAnswer, *, doing: str) -> StorageError:
    """That there was no whole answer while `doing`, as an error of a store."""
    if isinstance(error, NotTrusted):
        return not_trusted(str(error), doing=doing)
    if isinstance(error, ProxyRefused):
        return AccessDenied(
            f"{doing}: {error}", hint="Set `proxy` in the configuration, as http://user:password@host:port."
        )
    if isinstance(error, Unresolved):
        kind = HostUnknown if error.is_unknown else HostUnresolved
        return kind(f"{doing}: {error}")
    if isinstance(error, Unmarked):
        wait = foreign_wait(error)
        return TransientError(f"{doing}: {error}", hint=error.hint, retry_after=wait, foreign_status=error.status)
    return TransientError(f"{doing}: {error}", hint=error.hint)


def foreign_wait(error: Unmarked) -> float | None:
    """Return for how many seconds a response that is not the service's is obeyed, which wants to be left alone."""
    asked = seconds_to_wait(error.asked)
    return None if asked is None else min(asked, _LONGEST_FOREIGN_WAIT)


def unresolved(error: BaseException, *, doing: str) -> HostUnresolved | None:
    """That Python could not look up the name of a host while `doing`; None when it was something else."""
    cause = error.__cause__ if isinstance(error.__cause__, (socket.gaierror, UnicodeError)) else error
    if isinstance(cause, UnicodeError):
        return HostUnknown(f"{doing}: there is no host of such a name")
    if not isinstance(cause, socket.gaierror):
        return None
    kind = HostUnknown if cause.errno in UNKNOWN_HOST else HostUnresolved
    return kind(f"{doing}: {cause.strerror or 'the name of the host cannot be looked up'}")


def not_trusted(reason: str, *, doing: str) -> TlsError:
    return TlsError(
        f"{doing}: {reason}",
        hint="If your institution inspects traffic, name its certificates in `ca_bundle` in the configuration.",
    )


def seconds_to_wait(asked: str | None) -> float | None:
    """Return the seconds that a Retry-After asks for: it says a number, or a date. None for what is neither."""
    number = number_in(asked)
    if number is not None:
        return float(number)
    try:
        return max(0.0, (moment_in(asked) - datetime.now(UTC)).total_seconds())
    except TransientError:
        return None
