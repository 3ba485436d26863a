"""Patience with a service or a network that fails for a while: the one place that waits and tries again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from chorus_upload.errors import (
    AccessDenied,
    CredentialsExpired,
    HostUnknown,
    StorageError,
    TlsError,
    TransientError,
)
from chorus_upload.storage.liveness import Liveness
from chorus_upload.storage.renewal import CredentialWait

T = TypeVar("T")

# The jitter spreads clients out, it protects no secret; a generator of our own leaves random.seed() to its users.
_jitter = random.Random()  # noqa: S311


UNKNOWN_HOST_SECONDS = 30.0
"""For how long a name is tried that has never resolved in this run: it is misspelled, most likely."""
_ASIDE_ATTEMPTS = 3
_OF_SOURCE = "The credentials of this source are those under its [site_path] in the configuration."


@dataclass(frozen=True, slots=True)
class Retry:
    """How long, and in which rhythm, a request is repeated. All times are seconds.

    The n-th wait is drawn evenly from 0 to `first * 2**n`, at most `longest` ("full jitter": of many clients
    that were cut off together no two come back together), and is never shorter than what the service asked for.
    Nothing is tried later than `patience` seconds after the first failure: the last wait ends there, and the error of
    that try stands, or of the one before when the service asked for more. With
    `aside` it stands after so many seconds if the place responds to other requests meanwhile: for whoever has other
    objects to go on with. `liveness` is that of the place, and is told of
    everything.
    `clock`, `sleep` and `draw` (0 ≤ x < 1) are there for tests and for whoever has to end a wait early.
    """

    patience: float = 900.0
    first: float = 0.5
    longest: float = 60.0
    aside: float | None = None
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    draw: Callable[[], float] = _jitter.random
    liveness: Liveness = field(default_factory=Liveness)
    credentials: CredentialWait | None = None
    is_of_source: bool = False

    def call(self, action: Callable[[], T]) -> T:
        """The result of `action`, which may be called many times; only a TransientError is repeated."""
        with self.liveness.pending():
            while True:
                generation = 0 if self.credentials is None else self.credentials.generation
                try:
                    result = self._repeated(action)
                except CredentialsExpired as error:
                    # Refused with credentials of that time: there may be other ones by now, or sooner or later.
                    if not self._is_renewed(error, generation):
                        raise self._named(error) from None
                except AccessDenied as error:
                    raise self._named(error) from None
                else:
                    if self.credentials is not None:
                        self.credentials.worked()
                    return result

    def less_patient(self, patience: float) -> Retry:
        """The same, given up after so many seconds."""
        return replace(self, patience=min(patience, self.patience))

    def sooner_aside(self, seconds: float) -> Retry:
        """The same, with an error that stands after so many seconds if the place responds otherwise, as in `aside`."""
        return self if self.aside is None else replace(self, aside=min(seconds, self.aside))

    def _is_renewed(self, error: CredentialsExpired, generation: int) -> bool:
        wait = self.credentials
        return wait is not None and wait.wait(error, generation=generation, sleep=self.sleep)

    def _named(self, error: StorageError) -> StorageError:
        """The same error, which says that it is a source whose credentials are no good, if it is one."""
        if not self.is_of_source:
            return error
        hint = f"{error.hint} {_OF_SOURCE}" if error.hint else _OF_SOURCE
        named = type(error)(f"the source {self.liveness.name}: {error.message}", hint=hint)
        named.is_of_source = True
        return named

    def _repeated(self, action: Callable[[], T]) -> T:
        request = object()
        try:
            return self._tried(request, action)
        finally:
            self.liveness.settled(request)

    def _tried(self, request: object, action: Callable[[], T]) -> T:
        failing_since = None
        attempts = 0
        while True:
            try:
                result = action()
            except TransientError as error:
                failure = error
            except TlsError:
                raise
            except StorageError:
                self.liveness.responded()
                raise
            else:
                self.liveness.responded()
                return result
            attempts += 1
            # From the first failure on: a large body may take longer than that to send, and break off at its end.
            if failing_since is None:
                failing_since = self.clock()
            patience = self._patience(failure)
            self.liveness.failed(failure, request=request, patience=patience, aside=self.aside)
            wait = self._wait(attempts, failure.retry_after)
            spent = self.clock() - failing_since
            is_over = spent >= patience or spent + (failure.retry_after or 0.0) > patience
            if self.liveness.is_asking or is_over or self._is_set_aside(failure, attempts, spent):
                raise type(failure)(
                    f"{failure.message} (gave up after {attempts} attempts in {spent:.0f} s)",
                    hint=failure.hint,
                    retry_after=failure.retry_after,
                    foreign_status=failure.foreign_status,
                )
            self.sleep(min(wait, patience - spent))

    def _patience(self, failure: TransientError) -> float:
        if isinstance(failure, HostUnknown) and not self.liveness.has_responded:
            return min(self.patience, UNKNOWN_HOST_SECONDS)
        return self.patience

    def _is_set_aside(self, failure: TransientError, attempts: int, spent: float) -> bool:
        """Whether it is the trouble of one object, while the place responds to what else is asked of it."""
        if self.aside is None or spent < self.aside or attempts < _ASIDE_ATTEMPTS or failure.retry_after is not None:
            return False
        return self.liveness.responds_otherwise(self.clock() - self.aside)

    def _wait(self, attempts: int, asked: float | None) -> float:
        # The exponent is bounded only to keep the power a float.
        bound = min(self.longest, self.first * 2.0 ** min(attempts - 1, 60))
        return self.draw() * bound + (asked or 0.0)
