"""What is known of whether a place responds: noted by whoever asks it, told to the user when it keeps silent.

Every request goes through `Retry`, and every `Retry` has the `Liveness` of its place. One thread of the process looks
at all of them, since a request that hangs can tell nothing itself.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from chorus_upload.errors import CredentialsExpired, HostUnresolved, StorageError, TransientError
from chorus_upload.model import CredentialsAwaited, PlaceResponds, PlaceSilent, RequestsFail

TOLD_AFTER_SECONDS = 5.0
"""For how long a place may keep silent before the user is told."""
_LOOK_SECONDS = 0.5
_ASK_SECONDS = 20.0
"""So often a place is asked whether it responds at all, while one object is in trouble."""

Tell = Callable[[PlaceSilent | RequestsFail | PlaceResponds | CredentialsAwaited], None]


@dataclass(frozen=True, slots=True)
class _Failing:
    """A request that has failed since `begun` (monotonic seconds), and is tried again for `patience` seconds.

    If the place responds to others, for `aside` seconds.
    """

    begun: float
    reason: str
    patience: float
    aside: float


class Liveness:
    """One place, called `name`, and when it last responded. May be used by many threads.

    `look_at` names what the user can change in the configuration; `tell` (or who listens to all places) is called from
    any thread: once when the place has kept silent for long (at once when its name does not resolve), again after twice
    that time, and so on, and once when it responds again. The same is told of requests that fail while others
    succeed, or while bytes move. `clock` is monotonic seconds, `now` seconds since the epoch.
    """

    def __init__(
        self,
        name: str = "the service",
        *,
        look_at: str = "",
        tell: Tell | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.ask: Callable[[], None] | None = None
        """One small request, to find out whether the place responds."""
        self._look_at = look_at
        self._own_tell = tell
        self._clock = clock
        self._now = now
        self._lock = threading.Lock()
        self._own = threading.local()
        self._pending = 0
        self._sign = self._responded = self._asked = float("-inf")
        self._reason = ""
        self._silent_since = 0.0
        self._is_told = False
        self._tell_at = 0.0
        self._failing: dict[object, _Failing] = {}
        self._tell_failures_at = 0.0
        self._awaiting = 0
        if self._tell is not None:
            _watch(self)

    @property
    def _tell(self) -> Tell | None:
        return self._own_tell or (None if _listener is None else _listener())

    @property
    def has_responded(self) -> bool:
        """Whether it ever did."""
        return self._responded > float("-inf")

    @property
    def is_asking(self) -> bool:
        """Whether this thread is just finding out whether the place responds."""
        return getattr(self._own, "asking", False)

    @contextmanager
    def pending(self) -> Iterator[None]:
        """Expect something of the place in this block."""
        with self._lock:
            if not self._pending:
                self._sign = max(self._sign, self._clock())
            self._pending += 1
        try:
            yield
        finally:
            with self._lock:
                self._pending -= 1
                if not self._pending:
                    self._is_told, self._reason = False, ""

    def moved(self) -> None:
        """Note that bytes moved: nothing has failed, it only takes its time."""
        self._sign = self._clock()

    def responded(self) -> None:
        """Note a response of the place itself, a refusal included."""
        self._responded = self._sign = now = self._clock()
        if self._is_told and self._forget_told() and (tell := self._tell) is not None:
            tell(PlaceResponds(self.name, now - self._silent_since))

    def settled(self, request: object) -> None:
        """Note that a request has succeeded or was given up."""
        if request not in self._failing:
            return
        with self._lock:
            self._failing.pop(request, None)
            is_over = bool(self._tell_failures_at) and not self._failing
            if is_over:
                self._tell_failures_at = 0.0
        if is_over and (tell := self._tell) is not None:
            tell(RequestsFail(self.name, 0, 0.0, "", 0))

    def _forget_told(self) -> bool:
        """Whether it was told that the place keeps silent; only the first who asks hears it."""
        with self._lock:
            was_told, self._is_told, self._reason = self._is_told, False, ""
        return was_told

    def failed(self, error: TransientError, *, request: object, patience: float, aside: float | None) -> None:
        """Note that a request failed in a way that may pass, and is tried again for so many seconds in all.

        It is tried for `aside` seconds if the place responds to others. Until `settled(request)` it counts as failing.
        """
        self._reason = error.message
        with self._lock:
            begun = self._failing[request].begun if request in self._failing else self._clock()
            sooner = patience if aside is None else min(patience, aside)
            self._failing[request] = _Failing(begun, error.message, patience, sooner)
        if isinstance(error, HostUnresolved):
            self._look(self._clock(), at_once=True)

    def look(self) -> None:
        """Tell the user if the place has kept silent for too long."""
        self._look(self._clock(), at_once=False)

    def responds_otherwise(self, since: float) -> bool:
        """Whether the place has responded to anything since then; asks it if it has not."""
        if self._responded > since:
            return True
        with self._lock:
            now = self._clock()
            if self.ask is None or self.is_asking or now - self._asked < _ASK_SECONDS:
                return False
            self._asked = now
        self._own.asking = True
        try:
            self.ask()
        except StorageError:
            return False
        finally:
            self._own.asking = False
        return True

    @contextmanager
    def awaiting_credentials(
        self, error: CredentialsExpired, seconds: float, files: tuple[Path, ...]
    ) -> Iterator[None]:
        """Wait in this block for new credentials, for so many seconds at most; the first to wait tells the user."""
        with self._lock:
            is_first = not self._awaiting and not self._is_told
            self._awaiting += 1
            if is_first and seconds > 0:
                self._is_told, self._silent_since = True, self._clock()
        tell = self._tell
        if is_first and seconds > 0 and tell is not None:
            until = int((self._now() + seconds) * 1e6)
            tell(CredentialsAwaited(self.name, error.message, until, tuple(map(str, files))))
        try:
            yield
        finally:
            with self._lock:
                self._awaiting -= 1
                self._sign = self._clock()

    def _look(self, now: float, *, at_once: bool) -> None:
        tell = self._tell
        with self._lock:
            if tell is None or not self._pending or self._awaiting:
                return
            said = self._silence(now, at_once=at_once) or self._failures(now)
        if said is not None:
            tell(said)

    def _silence(self, now: float, *, at_once: bool) -> PlaceSilent | None:
        """What is to be told of a place that does not respond at all; under the lock."""
        silent = now - self._sign
        if not self._is_told:
            if silent < TOLD_AFTER_SECONDS and not at_once:
                return None
            self._is_told, self._silent_since = True, self._sign
        elif now < self._tell_at:
            return None
        self._tell_at = now + max(silent, TOLD_AFTER_SECONDS)
        ends = [self._now() + each.begun + each.patience - now for each in self._failing.values()]
        # The seconds are counted from the first failure, and nobody knows when a request that hangs will fail.
        until_us = int(max(ends) * 1e6) if ends else None
        reason = self._reason or "there is no response"
        return PlaceSilent(self.name, max(0.0, silent), reason, until_us, self._look_at)

    def _failures(self, now: float) -> RequestsFail | None:
        """What is to be told of requests that fail although the place is not silent; under the lock."""
        if self._is_told or not self._failing:
            return None
        first = min(self._failing.values(), key=lambda failing: failing.begun)
        seconds = now - first.begun
        if seconds < TOLD_AFTER_SECONDS or now < self._tell_failures_at:
            return None
        self._tell_failures_at = now + seconds
        until = self._now() + max(0.0, first.aside - seconds)
        return RequestsFail(self.name, len(self._failing), seconds, first.reason, int(until * 1e6))


_listener: weakref.WeakMethod[Tell] | None = None


def listen(tell: Tell | None) -> None:
    """Have all places tell this bound method, for as long as its object lives, unless they have somebody of their own.

    None: from now on nobody hears of them.

    As with the handlers of a log there is one for the process: whoever types a command wants to hear of every place.
    """
    global _listener  # noqa: PLW0603 - there is one user
    _listener = None if tell is None else weakref.WeakMethod(tell)


_watched: weakref.WeakSet[Liveness] = weakref.WeakSet()
_watching = threading.Lock()
_watcher: threading.Thread | None = None


def _watch(liveness: Liveness) -> None:
    """Have a thread of the process look at it for as long as it is used."""
    global _watcher  # noqa: PLW0603 - one thread for all
    with _watching:
        _watched.add(liveness)
        # After a fork it is not there any more.
        if _watcher is None or not _watcher.is_alive():
            _watcher = threading.Thread(target=_look_at_all, name="chorus-liveness", daemon=True)
            _watcher.start()


def _look_at_all() -> None:
    global _watcher  # noqa: PLW0603
    while True:
        time.sleep(_LOOK_SECONDS)
        with _watching:
            watched = list(_watched)
            if not watched:
                _watcher = None
                return
        while watched:
            # No name of this thread keeps one alive.
            watched.pop().look()
