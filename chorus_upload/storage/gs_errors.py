"""What Google Cloud Storage answers, in the words of this program: the one place that translates it.

The service says what is the matter in JSON, with a status, a word for the reason and a sentence; where something
else answers (a proxy, a load balancer), only the status counts. The sentence is quoted, without what looks like a
token or the address of an upload session: whoever has that can write the object.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from chorus_upload.errors import (
    AccessDenied,
    CredentialsExpired,
    IntegrityError,
    ObjectNotFound,
    PreconditionFailed,
    StorageError,
    TransientError,
)
from chorus_upload.storage.answers import seconds_to_wait
from chorus_upload.storage.curl import Answer

_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
# A quota of requests is refused like a permission.
_TOO_MANY = frozenset({"rateLimitExceeded", "userRateLimitExceeded"})
_LONGEST_LINE = 300

_SECRET = re.compile(r"(?i)(upload_?id=|access_token=|bearer\s+|\bya29\.)[^&\s\"'<>,;)]+")
_MISMATCH = re.compile(r"(?i)(md5|crc32c|checksum|hash).*\b(doesn't|does not|didn't|did not|not) match")
_NO_OBJECT = re.compile(r"(?i)no such object:")
_REQUESTER_PAYS = re.compile(r"(?i)requester[ -]pays|user project")

_PERMISSIONS = (
    "The identity needs the role Storage Object User on the bucket (to list, read, create, replace and delete objects);"
    " for a source Storage Object Viewer will do."
)
_LOG_IN = "The configuration has no credentials for this bucket, and it is not public."
_PAYS = "Whoever asks pays for this bucket: set google_user_project to the project that is to be billed."


@dataclass(frozen=True, slots=True)
class Refusal:
    """The service answered, and the answer is no."""

    status: int
    reason: str
    """The service's word for it ("conditionNotMet"); "" when it gave none."""
    line: str
    """Its sentence."""
    retry_after: float | None
    """For how many seconds it wants to be left alone."""

    @property
    def is_absent_object(self) -> bool:
        """Whether it is certainly an object that is missing, and not its bucket."""
        return self.status == 404 and _NO_OBJECT.match(self.line) is not None

    @property
    def is_overload(self) -> bool:
        return self.status in (429, 503) or self.reason in _TOO_MANY


class Refused(Exception):
    """An answer that is no success. Never leaves `storage`."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.refusal = _refusal_in(answer)


def scrub(text: str) -> str:
    """`text` without tokens and addresses of upload sessions."""
    return _SECRET.sub(r"\1***", text)


def refused(refusal: Refusal, *, doing: str, renewal: str | None) -> StorageError:
    """What the service said to `doing` (like "writing a/b.csv"), as an error of a store.

    `renewal` is what the user can do about credentials that are not accepted any more; None if there were none.
    """
    status, line = refusal.status, refusal.line
    text = f"{doing}: {line} ({status}{' ' + refusal.reason if refusal.reason else ''})"
    if status in _TRANSIENT or refusal.reason in _TOO_MANY:
        return TransientError(text, retry_after=refusal.retry_after)
    if status == 400 and _MISMATCH.search(line):
        return IntegrityError(f"{doing}: the service received other bytes than were sent")
    if status in (400, 403) and _REQUESTER_PAYS.search(line):
        return AccessDenied(text, hint=_PAYS)
    if status == 401 and renewal is not None:
        return CredentialsExpired(text, hint=renewal)
    if status in (401, 403) or refusal.reason == "orgPolicyConstraintFailed":
        return AccessDenied(text, hint=_LOG_IN if renewal is None else _PERMISSIONS)
    if status == 404:
        hint = None if refusal.is_absent_object else "Is the bucket spelled right? It has to exist already."
        return ObjectNotFound(text, hint=hint)
    if status == 412:
        return PreconditionFailed(text)
    return StorageError(text)


def _refusal_in(answer: Answer) -> Refusal:
    line, reason = answer.reason, ""
    try:
        error = json.loads(answer.body)["error"]
        line = str(error.get("message") or line)
        reason = str(next((each["reason"] for each in error.get("errors", ()) if each.get("reason")), ""))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        # Somebody else's page, or an answer without a body. In plain text the service writes to some uploads.
        if answer.headers.get("content-type", "").startswith("text/plain"):
            line = answer.body.decode("utf-8", "replace") or line
    line = scrub(line.strip().partition("\n")[0].rstrip("."))[:_LONGEST_LINE] or "the service refuses"
    return Refusal(answer.status, scrub(reason), line, seconds_to_wait(answer.headers.get("retry-after")))
