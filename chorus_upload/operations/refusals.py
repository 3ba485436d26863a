"""Refusals of single objects, and when they show that the place refuses all of them."""

from __future__ import annotations

from collections.abc import Callable

from chorus_upload.errors import AccessDenied, StorageError
from chorus_upload.model import Failed, FailureKind

MOST_DENIED = 10
"""So many refusals in a row may not be about single objects any more."""
MOST_GIVEN_UP = 4
"""When patience has ended for so many objects in a row, it is asked whether the service is there at all."""


class Refusals:
    """Counts what one place refuses in a row. `probe` raises StorageError when the whole place is out of reach."""

    def __init__(self, probe: Callable[[], None]) -> None:
        self._probe = probe
        self._denied = self._given_up = 0
        self.has_accepted = False

    def accepted(self) -> None:
        """Note that an object went through."""
        self.has_accepted = True
        self.begin_again()

    def begin_again(self) -> None:
        """Forget what was refused so far."""
        self._denied = self._given_up = 0

    def denied(self) -> int:
        """Note that access to one object was denied; return how many were in a row."""
        self._denied += 1
        return self._denied

    def gave_up(self) -> StorageError | None:
        """Note that one object's patience has ended; return what is the matter with the whole place, if it is that."""
        self._given_up += 1
        return self.missing() if self._given_up % MOST_GIVEN_UP == 0 else None

    def missing(self) -> StorageError | None:
        """Ask the place itself after one object was said to be missing; return what is the matter with the place."""
        try:
            self._probe()
        except StorageError as error:
            return error
        return None


def require_access(failed: Failed, refusals: Refusals) -> None:
    """Count a file that was not delivered; raise AccessDenied after many refusals, if nothing has gone through yet."""
    if failed.kind is FailureKind.DENIED and refusals.denied() >= MOST_DENIED and not refusals.has_accepted:
        raise AccessDenied(failed.detail)
