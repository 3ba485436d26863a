"""A check that a service honours the conditions of writes, made by the first write of each kind of a run.

A service that ignores them (or a gateway or cache in front of it) would overwrite what others have put there, and let
two machines take the journal; and one that honours them for objects in one request may ignore them for objects in
parts. No object is made for that: some places keep everything, and some credentials cannot
delete. The first object of a kind that has to be new is written a second time, and that has to be refused.
The first replacement is tried with an etag that no object has, and that has to be refused as well. Until then nobody
else writes in this way under a condition, and an object that is there already is seen by a look.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
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


class Kind(Enum):
    """How an object is written: the condition is part of other requests each time."""

    SINGLE = "in one request"
    PARTS = "in parts"
    COPY = "copied"


class Untested(Exception):
    """The second write could not be tried, or not with this object. Never leaves `storage`."""


class ConditionCheck:
    """What is known of one place in one run; shared by all stores that are opened there. For many threads.

    `where` is its address, for people.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._locks = {kind: threading.Lock() for kind in Kind}
        self._known: set[tuple[str, Kind]] = set()
        self._broken: ConditionsIgnored | None = None

    @classmethod
    def off(cls) -> Self:
        """For whoever tries conditions in a way of his own: nothing is checked."""
        check = cls("")
        check._known |= {(condition, kind) for condition in (_CREATE, _REPLACE) for kind in Kind}
        return check

    def create(
        self,
        key: str,
        write: Callable[[], T],
        *,
        kind: Kind,
        first: Callable[[], T],
        look: Callable[[], StoredObject | None],
        again: Callable[[T], object],
    ) -> T:
        """The result of `write`, which makes an object that has to be new; `again` tries to make it once more.

        All other writes of this kind wait for `first` and `again`: `first` is `write` while that is so, and does not
        try for long an object that can be set aside. What is transient in `again` leaves it to the next write to find
        out. Raises what all of them raise, ObjectExists, and ConditionsIgnored.
        """
        self._require_unbroken()
        if (_CREATE, kind) in self._known:
            return write()
        with self._locks[kind]:
            if (_CREATE, kind) not in self._known:
                return self._create(key, first, kind=kind, look=look, again=again)
        return write()

    def replace(
        self,
        key: str,
        write: Callable[[], T],
        *,
        kind: Kind,
        if_match: str,
        look: Callable[[], StoredObject | None],
        wrongly: Callable[[], object],
    ) -> T:
        """The result of `write`, which replaces the object that has this etag; `wrongly` does it for another one.

        Raises what both raise, PreconditionFailed, and ConditionsIgnored.
        """
        self._require_unbroken()
        if (_REPLACE, kind) in self._known:
            return write()
        with self._locks[kind]:
            if (_REPLACE, kind) not in self._known:
                self._require_unbroken()
                there = look()
                if there is None or there.etag != if_match:
                    raise PreconditionFailed(f"{key} is not the object that was expected")
                what = f"it replaced {key}, although it was told to replace another object only"
                self._require_refusal((_REPLACE, kind), wrongly, what)
        return write()

    def _create(
        self,
        key: str,
        write: Callable[[], T],
        *,
        kind: Kind,
        look: Callable[[], StoredObject | None],
        again: Callable[[T], object],
    ) -> T:
        self._require_unbroken()
        if look() is not None:
            raise ObjectExists(f"there is a {key} already")
        try:
            written = write()
        except (ObjectExists, PreconditionFailed):
            # Its answer was lost, and it met its own result; or somebody else was quicker. So it is refused.
            self._known.add((_CREATE, kind))
            raise
        what = f"it took {key} a second time, although it was told not to overwrite it"
        with suppress(TransientError):
            self._require_refusal((_CREATE, kind), lambda: again(written), what)
        return written

    def _require_refusal(self, condition: tuple[str, Kind], attempt: Callable[[], object], what: str) -> None:
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

    def _require_unbroken(self) -> None:
        if self._broken is not None:
            raise ConditionsIgnored(self._broken.message, hint=self._broken.hint)
