"""Renews the lock of a cloud journal while a command works under it, so that others can tell it from a dead one.

It has a thread and a store of its own, and never touches the journal, which belongs to another thread. Nothing
depends on it: whether the lock is still ours is found out when the journal is checked in.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Self

from chorus_upload.errors import ChorusError, OutOfResources, StoppedAtOnce
from chorus_upload.events import Emit, Level, Notice
from chorus_upload.journal.who import Who
from chorus_upload.operations import lock
from chorus_upload.storage.store import Store

_PATIENCE_SECONDS = lock.STALE_SECONDS / 2
_ENDING_SECONDS = 10.0


class Keeper:
    """A block in which a lock is renewed every `every` seconds.

    `open_cloud` opens the store that has the journal, which waits for nothing any more once its event is set.
    `emit` is called from the keeper's thread, at most twice: when the lock is lost, and when it could not be
    renewed for so long that others are about to call it stale.
    """

    def __init__(
        self,
        open_cloud: Callable[[threading.Event], Store],
        journal_name: str,
        *,
        lock_id: str,
        by_hand: bool,
        emit: Emit,
        every: float | None = None,
        patience: float = _PATIENCE_SECONDS,
    ) -> None:
        self._open_cloud = open_cloud
        self._journal_name = journal_name
        self._lock_id = lock_id
        self._by_hand = by_hand
        self._emit = emit
        self._every = lock.RENEW_SECONDS if every is None else every
        self._patience = patience
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="chorus-lock", daemon=True)

    def __enter__(self) -> Self:
        try:
            self._thread.start()
        except RuntimeError as error:
            raise OutOfResources.of(error) or error from error
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        # A request that hangs is not waited for: it can only renew a lock that is still there.
        self._thread.join(0 if isinstance(exc[1], StoppedAtOnce) else _ENDING_SECONDS)

    def _keep(self) -> None:
        renewed, warned = time.monotonic(), False
        while not self._stop.wait(self._every):
            try:
                with self._open_cloud(self._stop) as store:
                    there = lock.renew(
                        store, self._journal_name, lock_id=self._lock_id, who=Who.here(), by_hand=self._by_hand
                    )
            except ChorusError as error:
                if not warned and not self._stop.is_set() and time.monotonic() - renewed > self._patience:
                    warned = True
                    self._warn(f"the lock of the journal could not be renewed for long ({error.message})")
                continue
            renewed = time.monotonic()
            if there is None or there.id != self._lock_id:
                if not self._stop.is_set():
                    now = f"now {there.sentence}" if there else "it is gone"
                    self._warn(
                        f"the lock of the journal was broken ({now}); the work goes on, and the check-in will show"
                        " whether the cloud journal has changed meanwhile"
                    )
                return

    def _warn(self, text: str) -> None:
        self._emit(Notice(text, Level.WARNING))
