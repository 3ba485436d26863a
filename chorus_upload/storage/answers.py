"""What the answers of all services have in common: how they break off, and what a missing one says."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from chorus_upload.errors import AccessDenied, StorageError, TlsError, TransientError
from chorus_upload.storage.curl import NoAnswer, NotTrusted, ProxyRefused


def must_be_complete(*required: object) -> None:
    """Raise TransientError when an answer lacks one of the things that it cannot be without.

    An answer that breaks off within its headers looks complete to Python's HTTP client; what tells is that
    headers are missing that the service always sends.
    """
    if any(each is None for each in required):
        raise broken_off()


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
    return TransientError(f"{doing}: {error}")


def not_trusted(reason: str, *, doing: str) -> TlsError:
    return TlsError(
        f"{doing}: {reason}",
        hint="If your institution inspects traffic, name its certificates in `ca_bundle` in the configuration.",
    )


def seconds_to_wait(asked: str | None) -> float | None:
    """What a service asks for in Retry-After, in seconds: it says a number, or a date."""
    if not asked:
        return None
    if asked.strip().isdecimal():
        return float(asked)
    try:
        until = parsedate_to_datetime(asked)
    except ValueError:
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())
