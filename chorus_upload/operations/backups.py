"""Backups of the cloud journal: dated copies beside it, the newest of which is what was checked in last."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from chorus_upload.errors import ObjectExists
from chorus_upload.model import Twin
from chorus_upload.storage.store import Store
from chorus_upload.transfer.evidence import with_fingerprint
from chorus_upload.transfer.publish import hash_file, publish


def keep_backup(store: Store, journal_name: str, journal: Path, *, etag: str, number: int) -> None:
    """Keep a copy of the journal that was just stored from `journal`, and the last `number` of such copies.

    A service that can copies it from the cloud journal while that has this etag. With 0 nothing is kept, and
    nothing removed. Raises StorageError.
    """
    if number == 0:
        return
    for key in _names(journal_name, datetime.now(UTC)):
        try:
            publish(store, key, journal, create_only=True, twin=Twin(journal_name, etag))
        except ObjectExists:
            # Ours, if only the answer was lost; else another check-in of the same second.
            if with_fingerprint(store, key, hash_file(journal)[0]) is None:
                continue
        break
    # This one is the newest, whatever the clocks say: a store on a disk has that of whoever wrote to it.
    others = [each for each in backups(store, journal_name) if each != key]
    for each in others[: max(0, len(others) + 1 - number)]:
        store.delete(each)


def backups(store: Store, journal_name: str) -> list[str]:
    """The keys of a journal's backups, the oldest first by the store's clock: those of machines may disagree."""
    form = re.compile(re.escape(journal_name) + r"\.\d{14}(-\d+)?\.backup")
    found = [each for each in store.scan(f"{journal_name}.") if form.fullmatch(each.key)]
    return [each.key for each in sorted(found, key=lambda each: (each.time_us, len(each.key), each.key))]


def _names(journal_name: str, moment: datetime) -> Iterator[str]:
    """The names that the backup of a moment may have; more than one is needed only within a second."""
    dated = f"{journal_name}.{moment:%Y%m%d%H%M%S}"
    yield f"{dated}.backup"
    yield from (f"{dated}-{number}.backup" for number in count(2))
