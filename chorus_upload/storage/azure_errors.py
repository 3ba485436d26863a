"""What Azure answers and its SDK raises, in the words of this program: the one place that translates it.

Nothing of a foreign exception is quoted unseen: the texts of HTTP libraries hold whole URLs, and with them
the signature of a SAS token. A message here is built from the status, the service's own error code, its first
line, or the innermost reason of a broken connection; and is scrubbed even then.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from azure.core.exceptions import AzureError, ClientAuthenticationError, DeserializationError, HttpResponseError

from chorus_upload.errors import (
    AccessDenied,
    CredentialsExpired,
    IntegrityError,
    ObjectExists,
    ObjectNotFound,
    PreconditionFailed,
    StorageError,
    TransientError,
)
from chorus_upload.storage.answers import moment_in, no_answer, not_trusted, seconds_to_wait, unescaped
from chorus_upload.storage.curl import Answer, NoAnswer

_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
_MISMATCH = frozenset({"Md5Mismatch", "Crc64Mismatch"})
_BAD_SIGNATURE = frozenset({"AuthenticationFailed", "AuthorizationFailure", "InvalidAuthenticationInfo", ""})
_LEASED = frozenset({"LeaseIdMissing", "LeaseIdMismatchWithBlobOperation", "LeaseLost"})

_NEW_TOKEN = "Ask whoever gave it out for a new SAS token, and put it into the configuration."  # noqa: S105
_COPY_AGAIN = "Is the token or key complete, and does it belong to this account and container?"
_OTHER_WRITER = "Another program has begun to write this object; the service forgets what it sent in a week."
_BAD_NAME = "The service does not take this name."
_HINTS = {
    "AuthorizationPermissionMismatch": (
        "A SAS token needs the permissions read, add, create, write, delete and list (racwdl); "
        "a login needs the role Storage Blob Data Contributor. For a source read and list (rl) will do, or the role "
        "Storage Blob Data Reader."
    ),
    "AuthorizationSourceIPMismatch": "The SAS token may not be used from this network address.",
    "AuthorizationFailure": f"{_COPY_AGAIN} Does the account's firewall admit this network?",
    "AuthenticationFailed": _COPY_AGAIN,
    "InvalidAuthenticationInfo": "The service does not take this login. Log in again: az login",
    "NoAuthenticationInformation": "The configuration has no credentials for this container.",
    "PublicAccessNotPermitted": "The configuration has no credentials for this container.",
    "LeaseIdMissing": "Another program holds a lease on this object, which has to be broken first.",
    "InvalidBlockId": _OTHER_WRITER,
    "InvalidBlockList": _OTHER_WRITER,
    "InvalidBlobOrBlock": _OTHER_WRITER,
    "InvalidUri": _BAD_NAME,
    "InvalidResourceName": _BAD_NAME,
    "OutOfRangeInput": _BAD_NAME,
    "BlobImmutableDueToPolicy": "A policy of the container forbids to change this object.",
}

_SECRET = re.compile(r"(?i)\b(sig|signature|accountkey|sharedaccesssignature)=[^&;\s\"'<>)]+")
_TIME_FRAME = re.compile(r"Expiry \[(?P<expiry>[^]]+)\] - Current \[(?P<current>[^]]+)\]")


def scrub(text: str) -> str:
    """`text` without the values of signatures and keys."""
    return _SECRET.sub(r"\1=***", text)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The service answered, and the answer is no: what it says of the reason."""

    status: int
    code: str
    """The service's name for it ("BlobNotFound"); "" when it gave none."""
    line: str
    detail: str
    """What it says of a signature that it does not accept."""
    retry_after: float | None
    """For how many seconds it wants to be left alone."""


class Refused(Exception):
    """An answer to a request of our own that is no success. Never leaves `storage`."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.refusal = _refusal_in(answer)


def error_code(error: BaseException) -> str:
    """The service's name for what went wrong; "" when it gave none."""
    if isinstance(error, Refused):
        return error.refusal.code
    code = getattr(error, "error_code", None)
    if code is None and isinstance(error, HttpResponseError):
        code = _headers(error).get("x-ms-error-code")
    return str(getattr(code, "value", code) or "")


def translate(error: Exception, *, doing: str, expires: datetime | None) -> StorageError:
    """`error`, which happened while `doing` (like "writing a/b.csv"), as an error of a store.

    `expires` is when our SAS token does. The service does not always say that this is why it refuses.
    """
    if isinstance(error, Refused):
        return _refused(error.refusal, doing=doing, expires=expires)
    if isinstance(error, HttpResponseError) and (error.status_code or 0) >= 300:
        return _refused(_refusal_of(error), doing=doing, expires=expires)
    if isinstance(error, ClientAuthenticationError):
        return _no_identity(error, doing)
    return _no_answer(error, doing)


def _refusal_of(error: HttpResponseError) -> Refusal:
    more = getattr(error, "additional_info", None)
    detail = str(more.get("authenticationerrordetail") or "") if isinstance(more, dict) else ""
    asked = _headers(error).get("Retry-After")
    return Refusal(error.status_code or 0, error_code(error), _first_line(error), detail, seconds_to_wait(asked))


def _refusal_in(answer: Answer) -> Refusal:
    text = answer.body.decode("utf-8", "replace")

    def element(name: str) -> str:
        found = re.search(f"<{name}>(.*?)</{name}>", text, re.DOTALL)
        return unescaped(found[1]).strip() if found else ""

    return Refusal(
        answer.status,
        answer.headers.get("x-ms-error-code") or element("Code"),
        scrub((element("Message") or answer.reason).partition("\n")[0].rstrip(".")),
        element("AuthenticationErrorDetail"),
        seconds_to_wait(answer.headers.get("retry-after")),
    )


def _refused(refusal: Refusal, *, doing: str, expires: datetime | None) -> StorageError:
    status, code = refusal.status, refusal.code
    text = f"{doing}: {refusal.line} ({status}{' ' + code if code else ''})"
    if status in _TRANSIENT:
        return TransientError(text, retry_after=refusal.retry_after)
    if code in _MISMATCH:
        return IntegrityError(f"{doing}: the service received other bytes than were sent ({code})")
    if code in ("BlobAlreadyExists", "UnauthorizedBlobOverwrite"):
        return ObjectExists(text)
    if code == "BlobImmutableDueToPolicy":
        return StorageError(text, hint=_HINTS[code])
    if status in (401, 403) or code == "PublicAccessNotPermitted":
        return _denied(refusal, text=text, expires=expires)
    if status == 404:
        return _missing(code, text)
    if status == 412 and code not in _LEASED:
        return PreconditionFailed(text)
    return StorageError(text, hint=_HINTS.get(code))


def _denied(refusal: Refusal, *, text: str, expires: datetime | None) -> StorageError:
    code, detail = refusal.code, refusal.detail
    if frame := _frame_in(detail):
        expiry, current = frame
        if expiry > current:
            return AccessDenied(f"{text}; the SAS token is not valid yet", hint="Is the clock of this machine right?")
        expires = expiry
    elif "token is expired" in detail.lower():
        return CredentialsExpired(f"{text}; the login has expired", hint="Log in again: az login")
    if expires is not None and expires <= datetime.now(UTC) and code in _BAD_SIGNATURE:
        return CredentialsExpired(f"the SAS token expired on {expires:%Y-%m-%d at %H:%M UTC} ({text})", hint=_NEW_TOKEN)
    return AccessDenied(text, hint=_HINTS.get(code))


def _frame_in(detail: str) -> tuple[datetime, datetime] | None:
    """Return when a token ends and what time it is, as the service says it; None where it says neither."""
    found = _TIME_FRAME.search(detail)
    try:
        return None if found is None else (moment_in(found["expiry"]), moment_in(found["current"]))
    except TransientError:
        return None


def _missing(code: str, text: str) -> ObjectNotFound:
    if code == "ContainerNotFound":
        return ObjectNotFound(text, hint="Is the container spelled right? It has to exist already.")
    if code == "BlobNotFound":
        return ObjectNotFound(text)
    return ObjectNotFound(text, hint="Without credentials, a private container looks as if it were not there.")


def _no_identity(error: ClientAuthenticationError, doing: str) -> StorageError:
    """There is no login on this machine, or none that is still good."""
    text = f"{doing}: {_first_line(error)}"
    hint = "Log in first (az login), or configure a SAS token."
    if re.search(r"AADSTS(70043|700082|50173)|token.{0,40}expired", str(error)):
        return CredentialsExpired(text, hint="The login has expired. Log in again: az login")
    return AccessDenied(text, hint=hint)


def _no_answer(error: Exception, doing: str) -> StorageError:
    """No answer, or one that broke off."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, NoAnswer):
            return no_answer(cause, doing=doing)
        if isinstance(cause, ssl.SSLCertVerificationError):
            return not_trusted(scrub(cause.verify_message or cause.reason or ""), doing=doing)
    reason = scrub(str(causes[-1]).partition("\n")[0]) or type(causes[-1]).__name__
    # What the SDK cannot take apart has been cut off within its headers.
    if isinstance(error, ValueError) and not isinstance(error, DeserializationError):
        return StorageError(f"{doing}: the client library refuses: {reason}")
    return TransientError(f"{doing}: {reason}")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """`error` and everything it was made from, the innermost last."""
    seen: set[int] = set()
    pending: list[object] = [error]
    while pending:
        each = pending.pop()
        if not isinstance(each, BaseException) or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        pending += [each.__context__, *each.args, each.__cause__]
        pending += [getattr(each, name, None) for name in ("reason", "inner_exception")]


def _first_line(error: AzureError) -> str:
    line = str(error.message).strip().partition("\n")[0]
    # Answers without a body (HEAD) get this wording from the SDK around the service's own.
    found = re.fullmatch(r"Operation returned an invalid status '(.*)'", line)
    return scrub((found[1] if found else line).rstrip("."))


def _headers(error: HttpResponseError) -> Mapping[str, str]:
    found: Mapping[str, str] | None = getattr(error.response, "headers", None)
    return found or {}
