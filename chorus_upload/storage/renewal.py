"""Credentials that have expired: what is waited for, and that a running command takes what comes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from chorus_upload.errors import CredentialsExpired
from chorus_upload.storage.liveness import Liveness

POLL_SECONDS = 2.0
"""So often it is looked whether there are new credentials."""
TRY_SECONDS = 300.0
"""So often a request is made all the same: a login is renewed without any file that could be looked at."""


class CredentialWait:
    """Waits for new credentials of one place, at most for `patience` seconds. Used by many threads.

    `renew` takes over new credentials, if there are any, and says whether there were; `files` are where they are
    looked for. `clock` gives monotonic seconds.
    """

    def __init__(
        self,
        liveness: Liveness,
        *,
        patience: float = 0.0,
        files: tuple[Path, ...] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.renew: Callable[[], bool] = lambda: False
        self.generation = 0
        """How often there were new ones: a request that was refused with older ones is just sent again."""
        self._liveness = liveness
        self._patience = patience
        self._files = files
        self._clock = clock
        self._lock = threading.Lock()
        self._since: float | None = None

    def worked(self) -> None:
        """Note that the credentials are good."""
        self._since = None

    def wait(self, error: CredentialsExpired, *, generation: int, sleep: Callable[[float], None]) -> bool:
        """Wait until a request that was refused with the credentials of `generation` may be sent again.

        False when there are no other ones, and patience has ended.
        """
        if self._has_news(generation):
            return True
        with self._lock:
            if self._since is None:
                self._since = self._clock()
            end = self._since + self._patience
        tried = self._clock()
        with self._liveness.awaiting_credentials(error, end - tried, self._files):
            while (now := self._clock()) < end:
                if now - tried >= TRY_SECONDS:
                    return True
                sleep(min(POLL_SECONDS, end - now))
                if self._has_news(generation):
                    return True
        return False

    def _has_news(self, generation: int) -> bool:
        with self._lock:
            if self.generation == generation and self.renew():
                self.generation += 1
            return self.generation != generation
