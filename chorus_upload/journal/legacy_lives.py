"""What the rows of one path in a journal of the older tool say: which contents it had, how each came and went. Pure.

The older tool wrote a new row when a file was only touched. Here a content has one row, which knows the latest time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from chorus_upload.journal.legacy_rows import OldRow, State
from chorus_upload.model import Change, JournalingMode, Retirement


@dataclass(slots=True)
class Life:
    """One content under one path, from the row that brought it to the last one that touched it.

    `retired_by` is the label of a version. `is_superseded` says that other content followed at once, `is_duplicate`
    that the old journal calls a later content of this path active, too.
    """

    first: OldRow
    last: OldRow
    upload: str | None
    seconds: float | None
    change: Change = Change.ADDED
    is_superseded: bool = False
    is_duplicate: bool = False
    retired_by: str | None = None
    retirement: Retirement | None = None

    @classmethod
    def of(cls, row: OldRow) -> Life:
        return cls(row, row, row.upload, row.seconds)

    def touched(self, row: OldRow) -> None:
        """Go on with the next row, which `continues` the last one."""
        self.last, self.upload = row, row.upload
        self.seconds = self.seconds if row.seconds is None else row.seconds


def lives_of(rows: Iterable[OldRow], *, mode: JournalingMode, version_at: Callable[[int], str | None]) -> list[Life]:
    """The contents of one modality and path, oldest first, of which at most one is active; `rows` are in that order.

    `version_at` gives the version that was the last one at a time, None before the first.
    """
    lives: list[Life] = []
    for row in rows:
        if lives and row.continues(lives[-1].last):
            lives[-1].touched(row)
        else:
            lives.append(Life.of(row))
    newest = max((place for place, life in enumerate(lives) if life.last.invalid_us is None), default=None)
    for place, life in enumerate(lives):
        following = lives[place + 1] if place + 1 < len(lives) else None
        life.is_duplicate = life.last.invalid_us is None and place != newest
        life.is_superseded = life.is_duplicate or _is_superseded(life.last, following)
        if (place and lives[place - 1].is_superseded) or life.first.state == State.UPDATED:
            life.change = Change.MODIFIED
        if place != newest:
            _retire(life, following, mode=mode, version_at=version_at)
    return lives


def _is_superseded(last: OldRow, following: Life | None) -> bool:
    if last.state in (State.OUTDATED, State.DELETED):
        return last.state == State.OUTDATED
    return following is not None and following.first.valid_us == last.invalid_us


def _retire(
    life: Life, following: Life | None, *, mode: JournalingMode, version_at: Callable[[int], str | None]
) -> None:
    own = life.first.version
    if life.is_superseded:
        life.retirement = Retirement.MODIFIED
        life.retired_by = following.first.version if following else version_at(life.last.invalid_us or 0) or own
    else:
        # In append mode nothing is retired but by hand.
        life.retirement = Retirement.MARKED if mode is JournalingMode.APPEND else Retirement.GONE
        life.retired_by = version_at(life.last.invalid_us or 0) or own
