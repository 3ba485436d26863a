"""Every request to S3 goes through here: what it raises is translated, and what is transient repeated.

The library below (s3fs, aiobotocore) works in one event loop, in a thread of its own. A thread that calls a store
hands its request over to that loop and waits for the outcome; meanwhile it watches whether anything moves.

Nothing of a foreign exception is quoted unseen. A message here is built from the status, the service's own error
code, its first line, or the innermost reason of a broken connection; and is scrubbed even then.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import io
import logging
import re
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import aiohttp
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError
from fsspec.asyn import get_loop

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
from chorus_upload.storage.retry import Retry
from chorus_upload.storage.traffic import Traffic

T = TypeVar("T")
Call = Callable[..., Awaitable[dict[str, Any]]]
"""`call(operation, *required, **parameters)`: one request, and its answer, in which what is required is there."""

# How often a body is sent that arrives garbled. Patience does not help against a machine that garbles.
_GARBLED_ATTEMPTS = 3
_LOOK_SECONDS = 0.5
_SILENCE = 180.0  # seconds without any motion, in a request without a large body
# A body of this size or larger can be given up while it is on its way.
_LONG = 1 << 18

_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
_TRANSIENT_CODES = frozenset(
    {
        *("SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "IncompleteBody"),
        *("Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequestsException"),
        # Another write to the same key was under way: whoever repeats this sees what came of it.
        *("ConditionalRequestConflict", "OperationAborted"),
    }
)
_OVERLOADED = (429, 503)
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
    " ListBucket, AbortMultipartUpload, ListMultipartUploadParts, ListBucketMultipartUploads).",
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


class GivenUp(Exception):
    """The run is to end, and more than half of a large body was still to be sent. Never leaves `storage`."""


_FOREIGN = (
    *(boto.BotoCoreError, boto.ClientError, ResponseParserError, aiohttp.ClientError),
    *(Silent, GivenUp, concurrent.futures.CancelledError, OSError, ValueError),
)


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


class Motion:
    """How far one request is: bytes that moved, and bytes that are to be sent."""

    moved = 0
    to_send = 0

    def forget(self) -> None:
        """The request is over, whatever the library still does with it."""


class Body(io.RawIOBase, Motion):
    """The content of one request as the library wants it, handed out no faster than a throttle allows."""

    def __init__(self, content: bytes | memoryview, traffic: Traffic) -> None:
        super().__init__()
        throttle = traffic.throttle
        self._throttle = throttle if throttle is not None and throttle.is_active else None
        self._view = memoryview(content)
        self._at = 0
        self.to_send = len(content)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.to_send}[whence]
        return self._at

    def read(self, size: int = -1, /) -> bytes:
        most = self.to_send if size < 0 else size
        # Without TLS the content is signed, too: it is read in the event loop then, which must not wait, and counts
        # only when it is read again to be sent, in another thread.
        is_sent = not _is_in_loop()
        throttle = self._throttle if is_sent else None
        if throttle is not None:
            most = min(most, throttle.piece())
        piece = bytes(self._view[self._at : self._at + most])
        if throttle is not None:
            throttle.take(len(piece))
        self._at += len(piece)
        if is_sent:
            self.moved += len(piece)
        return piece

    def forget(self) -> None:
        """The buffer may be used for something else: reading is an error from now on."""
        self._view = memoryview(b"")


M = TypeVar("M", bound=Motion)


@dataclass(frozen=True, slots=True)
class Requests:
    """How requests are made; `call` works in the library's event loop."""

    call: Call
    retry: Retry
    traffic: Traffic

    def run(self, doing: str, ask: Callable[[Call, Motion], Awaitable[T]], *, silence: float = _SILENCE) -> T:
        """The result of `ask`, which may be called repeatedly; only our own errors leave."""
        return self.retry.call(lambda: self._attempt(doing, lambda: self._exchange(ask, Motion(), silence)))

    def send(self, doing: str, content: bytes | memoryview, ask: Callable[[Call, Body], Awaitable[T]]) -> T:
        """As `run`, for a request with content, which has to wait for its turn; repeated also when it was garbled."""
        for _ in range(_GARBLED_ATTEMPTS - 1):
            with suppress(IntegrityError):
                return self.retry.call(lambda: self._attempt(doing, lambda: self._sent(content, ask)))
        return self.retry.call(lambda: self._attempt(doing, lambda: self._sent(content, ask)))

    def less_patient(self, patience: float) -> Requests:
        """The same, given up after so many seconds."""
        return replace(self, retry=replace(self.retry, patience=min(patience, self.retry.patience)))

    def _sent(self, content: bytes | memoryview, ask: Callable[[Call, Body], Awaitable[T]]) -> T:
        with self.traffic.request(len(content)):
            try:
                return self._exchange(ask, Body(content, self.traffic), self.traffic.silence(len(content)))
            except (Silent, boto.ReadTimeoutError, boto.ConnectTimeoutError):
                self.traffic.fell_silent()
                raise
            except boto.ClientError as error:
                if status_of(error) in _OVERLOADED:
                    self.traffic.overloaded(_retry_after(error))
                raise

    def _exchange(self, ask: Callable[[Call, M], Awaitable[T]], motion: M, silence: float) -> T:
        """One request, once. Raises what the library raises, Silent and GivenUp."""

        async def asked() -> T:
            return await ask(self.call, motion)

        future = asyncio.run_coroutine_threadsafe(asked(), get_loop())
        try:
            return self._outcome(future, motion, silence)
        finally:
            future.cancel()
            motion.forget()
            # It knows the exception, which knows this frame.
            del future

    def _outcome(self, future: concurrent.futures.Future[T], motion: Motion, silence: float) -> T:
        moved, since = 0, time.monotonic()
        while not concurrent.futures.wait([future], timeout=_LOOK_SECONDS).done:
            now = time.monotonic()
            if motion.moved != moved:
                moved, since = motion.moved, now
            elif now - since > silence:
                raise Silent(f"nothing moved for {silence:.0f} seconds")
            if self.traffic.stop.is_set() and motion.to_send >= _LONG and 2 * moved <= motion.to_send:
                raise GivenUp("given up, because the run is to end")
        return future.result()

    def _attempt(self, doing: str, action: Callable[[], T]) -> T:
        try:
            return action()
        except _FOREIGN as error:
            failure = translate(error, doing=doing)
        # Raised here and not above: there, the foreign exception would be the context of ours, and whoever prints
        # or pickles it would carry along what it knows.
        try:
            raise failure
        finally:
            # It knows this frame: if that knew it as well, a body would stay until somebody collects garbage.
            del failure


def _is_in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def translate(error: BaseException, *, doing: str) -> StorageError:
    """`error`, which happened while `doing` (like "writing a/b.csv"), as an error of a store."""
    return _refused(error, doing) if isinstance(error, boto.ClientError) else _no_answer(error, doing)


def _refused(error: boto.ClientError, doing: str) -> StorageError:
    """The service answered, and the answer is no."""
    status, code = status_of(error), code_of(error)
    line = scrub(str(error.response.get("Error", {}).get("Message") or "refused").partition("\n")[0].rstrip("."))
    text = f"{doing}: {line} ({status}{'' if code in ('', str(status)) else ' ' + code})"
    if status in _TRANSIENT or code in _TRANSIENT_CODES:
        return TransientError(text, retry_after=_retry_after(error))
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
        if isinstance(cause, aiohttp.ClientHttpProxyError) and cause.status < 500 and cause.status not in (408, 429):
            asks = (
                "asks for a user and a password" if cause.status == 407 else f"refuses the connection ({cause.status})"
            )
            return AccessDenied(
                f"{doing}: the proxy {asks}",
                hint="Set `proxy` in the configuration, as http://user:password@host:port.",
            )
    reason = scrub(str(causes[-1]).partition("\n")[0]) or type(causes[-1]).__name__
    if isinstance(error, (boto.ParamValidationError, boto.InvalidProxiesConfigError, ValueError)):
        return StorageError(f"{doing}: the client library refuses: {reason}")
    return TransientError(f"{doing}: {reason}")


def _with_tls(error: BaseException, causes: list[BaseException], doing: str) -> TlsError | None:
    """What was wrong with TLS; None when it was something else, or just a connection that broke."""
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            # What the HTTP library makes of it is of that class, too, and has no message of its own.
            reason = getattr(causes[-1], "verify_message", "") or "its certificate cannot be verified"
            return _not_trusted(f"the certificate of the service is not trusted: {reason}", doing)
        if isinstance(cause, (FileNotFoundError, IsADirectoryError, PermissionError)):
            return _not_trusted("the certificates to trust cannot be read", doing)
    for cause in causes:
        if isinstance(cause, ssl.SSLError) and not any(word in str(cause).lower() for word in _BROKEN_TLS):
            return _not_trusted(f"no secure connection could be agreed: {cause.reason or 'TLS failed'}", doing)
    return None


def _not_trusted(reason: str, doing: str) -> TlsError:
    return TlsError(
        f"{doing}: {scrub(reason)}",
        hint="If your institution inspects traffic, name its certificates in `ca_bundle` in the configuration.",
    )


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


def _retry_after(error: boto.ClientError) -> float | None:
    """What the service asks for in Retry-After, in seconds: it says a number, or a date."""
    asked = str(error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("retry-after") or "").strip()
    if asked.isdecimal():
        return float(asked)
    try:
        until = parsedate_to_datetime(asked)
    except ValueError:
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())
