"""`journal prune`: make an old journal smaller, without losing the proof of a single delivery."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from itertools import takewhile

from chorus_upload.config.settings import Settings
from chorus_upload.errors import ConfigError
from chorus_upload.events import Tally
from chorus_upload.journal import pruning, versions
from chorus_upload.journal.journal import Journal
from chorus_upload.journal.pruning import Dropped
from chorus_upload.journal.versions import Version
from chorus_upload.operations.destination import destination_of


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneRequest:
    """Which versions are old: all but the last `keep` (at least 1), or those older than a day or a version.

    ConfigError unless one of them is given.
    """

    keep: int | None = None
    older_than: str | None = None

    def __post_init__(self) -> None:
        if (self.keep is None) == (self.older_than is None):
            raise ConfigError("how much is to be kept?", hint="Give either --keep N or --older-than YYYY-MM-DD.")


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneFinished:
    """What `journal prune` dropped, or (`dry_run`) would drop, of which versions; `stopped_by` says why not of more."""

    versions: tuple[str, ...]
    dropped: Dropped
    stopped_by: str | None
    dry_run: bool


def prune(journal: Journal, settings: Settings, request: PruneRequest, *, dry_run: bool) -> PruneFinished:
    """Drop what came and went, undelivered, in old versions.

    They are the first ones, up to one that is not old, not complete, or not delivered: what is left is then the
    whole truth about every version after them. The last version always stays as it is. Raises ConfigError when
    `older_than` is neither a day nor a version.
    """
    every = versions.ordered(journal)
    old = _old(every, request)
    pending = pruning.pending(journal, url=destination_of(journal, settings))
    chosen: list[Version] = []
    stopped_by = None
    for each in old:
        stopped_by = _what_keeps(each, pending.get(each.id, 0))
        if stopped_by is not None:
            break
        chosen.append(each)
    if not chosen:
        dropped = Dropped(Tally(), scans=0, directories=0)
    else:
        act = pruning.foresee if dry_run else pruning.drop
        dropped = act(journal, [each.id for each in chosen], first_kept=every[len(chosen)].id)
    return PruneFinished(
        versions=tuple(each.label for each in chosen), dropped=dropped, stopped_by=stopped_by, dry_run=dry_run
    )


def _what_keeps(version: Version, pending: int) -> str | None:
    if version.completed_us is None:
        return f"version {version.label} was not finished"
    if pending:
        return f"version {version.label} has {pending:,} {'file' if pending == 1 else 'files'} to upload"
    return None


def _old(every: Sequence[Version], request: PruneRequest) -> list[Version]:
    """The first versions, as far as they are older than wished; never the last one of all."""
    if request.keep is not None:
        return list(every[: max(len(every) - request.keep, 0)])
    older_than = request.older_than or ""
    labels = [each.label for each in every]
    if older_than in labels:
        return list(every[: labels.index(older_than)])
    begin_us = _midnight_us(older_than, labels)
    # What was added to a version later makes it younger.
    return list(takewhile(lambda each: (each.completed_us or each.begun_us) < begin_us, every[:-1]))


def _midnight_us(day: str, labels: Sequence[str]) -> int:
    try:
        moment = datetime.strptime(day, "%Y-%m-%d").astimezone()
    except ValueError:
        like = get_close_matches(day, labels, n=1, cutoff=0.4)
        raise ConfigError(
            f"--older-than {day}: that is neither a day nor a version",
            hint=f"Did you mean {like[0]}?" if like else "Write a day as YYYY-MM-DD.",
        ) from None
    return int(moment.timestamp() * 1_000_000)
