"""What S3 answers, and what goes wrong on the way to it, in the words of this program.

Nothing of a foreign exception is quoted unseen. A message here is built from the status, the service's own error
code, its first line, or the innermost reason of a broken connection; and is scrubbed even then.
"""

from __future__ import annotations

import concurrent.futures
import logging
import re
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import aiohttp
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from chorus_upload.errors import (
    AccessDenied,
    CredentialsExpired,
    IntegrityError,
    ObjectNotFound,
    PreconditionFailed,
    StorageError,
    TlsError,
    TransientError,
)
from chorus_upload.storage.answers import no_answer, not_trusted, seconds_to_wait, unresolved
from chorus_upload.storage.curl import NoAnswer

_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
_TRANSIENT_CODES = frozenset(
    {
        *("SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "IncompleteBody"),
        *("Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequestsException"),
        # Another write to the same key was under way: whoever repeats this sees what came of it.
        *("ConditionalRequestConflict", "OperationAborted"),
    }
)
_MISMATCH = frozenset({"BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"})

_COPY_AGAIN = "Are aws_access_key_id and aws_secret_access_key complete, and do they belong together?"
_OTHER_WRITER = "Another program writes this object at the same time. Repeat the command."
_OTHER_REGION = "The bucket is in another region: name it in AWS_DEFAULT_REGION or in the profile."
_NEW_TOKEN = "Get new temporary credentials, or log in again (aws sso login)."  # noqa: S105
_NO_LOGIN = "Configure a key pair or aws_profile, or log in (aws sso login)."
_HINTS = {
    "SignatureDoesNotMatch": _COPY_AGAIN,
    "InvalidAccessKeyId": _COPY_AGAIN,
    "InvalidToken": "aws_session_token does not belong to this key pair, or is not complete.",
    "AuthorizationHeaderMalformed": _OTHER_REGION,
    "PermanentRedirect": _OTHER_REGION,
    "ExpiredToken": _NEW_TOKEN,
    "TokenRefreshRequired": _NEW_TOKEN,
    "NoSuchBucket": "Is the bucket spelled right? It has to exist already.",
    "NoSuchUpload": _OTHER_WRITER,
    "InvalidPart": _OTHER_WRITER,
    "RequestTimeTooSkewed": "Is the clock of this machine right?",
    "AccessDenied": "Reading, writing, deleting and listing have to be allowed (s3:GetObject, PutObject, DeleteObject,"
    " ListBucket, AbortMultipartUpload, ListMultipartUploadParts, ListBucketMultipartUploads). For a source"
    " s3:GetObject and ListBucket will do.",
    "InvalidObjectState": "The object is archived, and has to be restored before it can be read.",
}
_NO_CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.ProfileNotFound,
    boto.CredentialRetrievalError,
    boto.TokenRetrievalError,
    boto.SSOError,
)
# TLS failures that say nothing about who the other end is: the connection broke, or was garbled on the way.
_BROKEN_TLS = ("eof", "reset", "syscall", "bad record mac", "decryption failed", "timed out", "broken pipe")

_SECRET = re.compile(
    r"(?i)\b(x-amz-(?:signature|security-token|credential)|signature|aws_?secret_?access_?key|aws_?session_?token)"
    r"(\s*[=:]\s*)[^&;,\s\"'<>)]+"
)

# When debugging is on, these would log what is signed, session tokens included.
for _name in ("botocore", "aiobotocore", "s3fs"):
    logging.getLogger(_name).setLevel(logging.INFO)


class Silent(Exception):
    """Nothing moved for too long. Never leaves `storage`."""


class LedAway(Exception):
    """The answer is a redirect to another place. Never leaves `storage`."""


class SessionLost(StorageError):
    """A multipart upload has ended, or has other parts: somebody else writes the object, too. Stays in `storage`."""


_KINDS: dict[str, type[StorageError]] = {
    "ExpiredToken": CredentialsExpired,
    "TokenRefreshRequired": CredentialsExpired,
    "InvalidToken": AccessDenied,
    "InvalidAccessKeyId": AccessDenied,
    "SignatureDoesNotMatch": AccessDenied,
    "AuthorizationHeaderMalformed": AccessDenied,
    "InvalidObjectState": StorageError,
    "NoSuchUpload": SessionLost,
    "InvalidPart": SessionLost,
}
_KINDS_BY_STATUS: dict[int, type[StorageError]] = {
    401: AccessDenied,
    403: AccessDenied,
    404: ObjectNotFound,
    412: PreconditionFailed,
}


FOREIGN = (
    *(boto.BotoCoreError, boto.ClientError, ResponseParserError, aiohttp.ClientError, NoAnswer),
    *(Silent, LedAway, concurrent.futures.CancelledError, OSError, ValueError),
    *(ArithmeticError, AttributeError, LookupError, SyntaxError, TypeError, RecursionError),
)
"""What is raised on the way to the service, and what translates into a StorageError."""


def scrub(text: str) -> str:
    """`text` without the values of signatures and tokens."""
    return _SECRET.sub(r"\1\2***", text)


def code_of(error: boto.ClientError) -> str:
    """The service's name for what went wrong; "404" or the like when it gave none."""
    return str(error.response.get("Error", {}).get("Code") or "")


def status_of(error: boto.ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)


def must_be_complete(answer: dict[str, Any], *required: str) -> None:
    """Raise TransientError when an answer lacks what the service always sends: it broke off, or is somebody else's."""
    if any(answer.get(name) is None for name in required):
        raise TransientError("the answer broke off, or is not the service's")


def translate(error: BaseException, *, doing: str) -> StorageError:
    """`error`, which happened while `doing` (like "writing a/b.csv"), as an error of a store."""
    if isinstance(error, NoAnswer):
        return no_answer(error, doing=doing)
    return _refused(error, doing) if isinstance(error, boto.ClientError) else _no_answer(error, doing)


def _refused(error: boto.ClientError, doing: str) -> StorageError:
    """The service answered, and the answer is no."""
    status, code = status_of(error), code_of(error)
    line = scrub(str(error.response.get("Error", {}).get("Message") or "refused").partition("\n")[0].rstrip("."))
    text = f"{doing}: {line} ({status}{'' if code in ('', str(status)) else ' ' + code})"
    if status in _TRANSIENT or code in _TRANSIENT_CODES:
        return TransientError(text, retry_after=retry_after(error))
    if code in _MISMATCH:
        return IntegrityError(f"{doing}: the service received other bytes than were sent ({code})")
    kind = _KINDS.get(code) or _KINDS_BY_STATUS.get(status, StorageError)
    return kind(text, hint=_HINTS.get(code) or (_HINTS["AccessDenied"] if kind is AccessDenied else None))


def _no_answer(error: BaseException, doing: str) -> StorageError:
    """No answer, or one that broke off; or it could not even be asked."""
    causes = list(_causes(error))
    if isinstance(error, _NO_CREDENTIALS):
        # Its text may hold what a credential program said.
        what = f"{doing}: no usable AWS credentials ({type(error).__name__})"
        is_expired = isinstance(error, boto.UnauthorizedSSOTokenError) or "expired" in str(error).lower()
        return CredentialsExpired(what, hint=_NO_LOGIN) if is_expired else AccessDenied(what, hint=_NO_LOGIN)
    if trouble := _with_tls(error, causes, doing):
        return trouble
    for cause in causes:
        if isinstance(cause, NoAnswer):
            return no_answer(cause, doing=doing)
        if isinstance(cause, LedAway):
            return StorageError(f"{doing}: {cause}")
        if isinstance(cause, aiohttp.ClientHttpProxyError) and cause.status < 500 and cause.status not in (408, 429):
            asks = (
                "asks for a user and a password" if cause.status == 407 else f"refuses the connection ({cause.status})"
            )
            return AccessDenied(
                f"{doing}: the proxy {asks}",
                hint="Set `proxy` in the configuration, as http://user:password@host:port.",
            )
    reason = scrub(str(causes[-1]).partition("\n")[0]) or type(causes[-1]).__name__
    for cause in causes:
        if isinstance(cause, socket.gaierror) and (failure := unresolved(cause, doing=doing)):
            return failure
    if isinstance(error, (boto.ParamValidationError, boto.InvalidProxiesConfigError, ValueError)):
        return StorageError(f"{doing}: the client library refuses: {reason}")
    return TransientError(f"{doing}: {reason}")


def _with_tls(error: BaseException, causes: list[BaseException], doing: str) -> TlsError | None:
    """What was wrong with TLS; None when it was something else, or just a connection that broke."""
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            # What the HTTP library makes of it is of that class, too, and has no message of its own.
            reason = getattr(causes[-1], "verify_message", "") or "its certificate cannot be verified"
            return not_trusted(f"the certificate of the service is not trusted: {scrub(reason)}", doing=doing)
        if isinstance(cause, (FileNotFoundError, IsADirectoryError, PermissionError)):
            return not_trusted("the certificates to trust cannot be read", doing=doing)
    for cause in causes:
        if isinstance(cause, ssl.SSLError) and not any(word in str(cause).lower() for word in _BROKEN_TLS):
            return not_trusted(f"no secure connection could be agreed: {cause.reason or 'TLS failed'}", doing=doing)
    return None


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
        inner = getattr(each, "kwargs", None)
        pending += [each.__context__, *each.args, each.__cause__]
        pending += [getattr(each, name, None) for name in ("os_error", "certificate_error")]
        pending += [inner.get("error")] if isinstance(inner, dict) else []


def retry_after(error: boto.ClientError) -> float | None:
    """For how many seconds the service wants to be left alone."""
    return seconds_to_wait(error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("retry-after"))
