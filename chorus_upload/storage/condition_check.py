"""A check that a service honours the conditions of writes, made by the first such writes of a run.

A service that ignores them (or a gateway or cache in front of it) would overwrite what others have put there, and let
two machines take the journal. No object is made for that: some places keep everything, and some credentials cannot
delete. The first object that has to be new is written a second time, with the same content, and that has to be refused.
The first replacement is tried with an etag that no object has, and that has to be refused as well. Until then nobody
else writes under a condition, and an object that is there already is seen by a look.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self, TypeVar

from chorus_upload.errors import (
    ConditionsIgnored,
    CredentialsExpired,
    IntegrityError,
    ObjectExists,
    PreconditionFailed,
    StorageError,
    StoreFull,
    TlsError,
    TransientError,
)
from chorus_upload.storage.store import StoredObject

T = TypeVar("T")

_CREATE, _REPLACE = "create", "replace"
HASTE = 5.0
"""For how many seconds is tried what all other writes wait for, and what can be done later or with another object."""

_NO_REFUSALS = (TransientError, TlsError, CredentialsExpired, IntegrityError, StoreFull)
_HINT = (
    "Do not use this place: files could be overwritten, and two machines could take the journal. Ask whoever runs it,"
    " or the gateway in front of it, about If-None-Match and If-Match; `config check --online` tries them."
)


class Untested(Exception):
    """The second write could not be tried, or not with this object. Never leaves `storage`."""


class ConditionCheck:
    """What is known of one place in one run; shared by all stores that are opened there. For many threads.

    `where` is its address, for people.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._lock = threading.Lock()
        self._known: set[str] = set()
        self._broken: ConditionsIgnored | None = None

    @classmethod
    def off(cls) -> Self:
        """For whoever tries conditions in a way of his own: nothing is checked."""
        check = cls("")
        check._known |= {_CREATE, _REPLACE}
        return check

    def create(
        self,
        key: str,
        write: Callable[[], T],
        *,
        first: Callable[[], T],
        look: Callable[[], StoredObject | None],
        again: Callable[[T], object] | None,
    ) -> T:
        """The result of `write`, which makes an object that has to be new; `again` does what it did once more.

        All other writes wait for `first` and `again`: `first` is `write` while that is so, and does not try for long an
        object that can be set aside. What is transient in `again` leaves it to the next write to find out, and so does
        an object without `again`, for which nobody waits. Raises what all of them raise, ObjectExists, and
        ConditionsIgnored.
        """
        if _CREATE in self._known:
            return write()
        if again is None:
            self._require_free(key, look)
            return write()
        with self._lock:
            if _CREATE not in self._known:
                return self._create(key, first, look=look, again=again)
        return write()

    def replace(
        self,
        key: str,
        write: Callable[[], T],
        *,
        if_match: str,
        look: Callable[[], StoredObject | None],
        wrongly: Callable[[], object],
    ) -> T:
        """The result of `write`, which replaces the object that has this etag; `wrongly` does it for another one.

        Raises what both raise, PreconditionFailed, and ConditionsIgnored.
        """
        if _REPLACE in self._known:
            return write()
        with self._lock:
            if _REPLACE not in self._known:
                self._require_unbroken()
                there = look()
                if there is None or there.etag != if_match:
                    raise PreconditionFailed(f"{key} is not the object that was expected")
                what = f"it replaced {key}, although it was told to replace another object only"
                self._require_refusal(_REPLACE, wrongly, what)
        return write()

    def _create(
        self, key: str, write: Callable[[], T], *, look: Callable[[], StoredObject | None], again: Callable[[T], object]
    ) -> T:
        self._require_free(key, look)
        try:
            written = write()
        except (ObjectExists, PreconditionFailed):
            # Its answer was lost, and it met its own result; or somebody else was quicker. So it is refused.
            self._known.add(_CREATE)
            raise
        what = f"it took {key} a second time, although it was told not to overwrite it"
        with suppress(TransientError):
            self._require_refusal(_CREATE, lambda: again(written), what)
        return written

    def _require_refusal(self, condition: str, attempt: Callable[[], object], what: str) -> None:
        """Note that a condition is honoured when an attempt is refused; raise ConditionsIgnored when it is not."""
        try:
            attempt()
        except Untested:
            # The next write finds out.
            return
        except _NO_REFUSALS:
            raise
        except StorageError:
            # One that may not be overwritten at all (it is kept for good, or the credential allows only new ones) is
            # refused for another reason, and is as safe.
            self._known.add(condition)
            return
        self._broken = ConditionsIgnored(f"{self._where} ignores conditions: {what}", hint=_HINT)
        raise self._broken

    def _require_free(self, key: str, look: Callable[[], StoredObject | None]) -> None:
        self._require_unbroken()
        if look() is not None:
            raise ObjectExists(f"there is a {key} already")

    def _require_unbroken(self) -> None:
        if self._broken is not None:
            raise ConditionsIgnored(self._broken.message, hint=self._broken.hint)
