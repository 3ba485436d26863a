"""Whether the central store lets us in, and for how long: asked before anything is sent, and watched after that."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from chorus_upload.config.sas import UPLOADING, errors_of, in_words, sas_of, warnings_of
from chorus_upload.config.settings import Location
from chorus_upload.errors import AccessDenied, CredentialsExpired
from chorus_upload.events import Emit, Level, Notice

_NEW_TOKEN = "Ask whoever gave it out for a new SAS token, and put it into the configuration."  # noqa: S105
_OTHER_TOKEN = (
    "Ask whoever runs the central store for a SAS token for the whole container with the permissions"  # noqa: S105
    " read, add, create, write, delete and list (racwdl)."
)
_CLOCK = "Is the clock of this machine right?"

_SURE_AFTER_SECONDS = 20.0
_LONGEST_SECONDS = 10 * 365 * 86_400.0
"""Later than that, an end is as good as never, and soon no date any more."""


def utc_now() -> datetime:
    return datetime.now(UTC)


def check_token(location: Location, *, emit: Emit, now: datetime | None = None) -> datetime | None:
    """Read in the SAS token of the central store whether it is good for an upload, and give its expiry.

    None where there is no token, or one that does not say it. Raises CredentialsExpired and AccessDenied.
    """
    sas = None if location.is_local else sas_of(location.auth)
    if sas is None:
        return None
    now = now or utc_now()
    if sas.has_signature and sas.expires is not None and sas.expires <= now:
        raise CredentialsExpired(
            f"the SAS token expired on {in_words(sas.expires)} ({location}; this machine's clock says {in_words(now)})",
            hint=_NEW_TOKEN,
        )
    if found := list(errors_of(sas, needs=UPLOADING, now=now)):
        is_early = sas.starts is not None and sas.starts > now
        raise AccessDenied(f"{location}: {'; '.join(found)}", hint=_CLOCK if is_early else _OTHER_TOKEN)
    for warning in warnings_of(sas, now=now):
        emit(Notice(f"{location}: {warning}", Level.WARNING))
    return sas.expires


class ExpiryWatch:
    """Warns once when what is left to send will take longer than the token lives.

    `expires` None means that nothing is known of that. `clock` gives monotonic seconds, `now` the time of day.
    """

    def __init__(
        self,
        expires: datetime | None,
        *,
        emit: Emit,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._expires = expires
        self._emit = emit
        self._clock = clock
        self._now = now
        self._begun = clock()

    def look(self, done: int, total: int) -> None:
        """Take in how many bytes of how many are done, the bytes of unfinished files included."""
        elapsed = self._clock() - self._begun
        if self._expires is None or elapsed < _SURE_AFTER_SECONDS or not 0 < done < total:
            return
        seconds_left = elapsed * (total - done) / done
        end = self._now() + timedelta(seconds=min(seconds_left, _LONGEST_SECONDS))
        if end > self._expires:
            self._emit(Notice(_too_late(end, self._expires), Level.WARNING))
            self._expires = None


def _too_late(end: datetime, expires: datetime) -> str:
    return (
        f"at this pace the upload ends about {_local(end)}, but the SAS token of the central store expires on"
        f" {_local(expires)} (local time): ask for a new one. The upload goes on until then; with a new token"
        " in the configuration, `file upload` goes on where it ended, and sends nothing twice"
    )


def _local(moment: datetime) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M")
