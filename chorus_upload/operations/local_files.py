"""The files of a local journal: the one that is fetched beside it, those that it leaves, and the claim."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path

from chorus_upload.config.settings import Location
from chorus_upload.errors import JournalError, OutOfResources
from chorus_upload.journal.database import not_finished, private_file
from chorus_upload.storage.durable import sync_directory
from chorus_upload.storage.store import Store, StoredObject
from chorus_upload.storage.temporary import temporary_directory
from chorus_upload.transfer.evidence import read_surely

_COMPANIONS = ("-wal", "-shm", "-journal")
"""What SQLite may have beside the file: part of it, or nothing at all without it."""

_UNFINISHED = ("-journal", "-wal")
"""Those that hold what the file itself does not: while one of them has content, the file is only a part."""

_WORKING = ("fetched", "offered", "manifest", "copy")
"""What belongs to a command that has the local journal to itself."""


@contextmanager
def scratch_directory() -> Iterator[Path]:
    """A directory for this block, where temporary files of this machine are. Raises JournalError when there is none."""
    with ExitStack() as stack:
        try:
            made = stack.enter_context(temporary_directory())
        except OSError as error:
            nowhere = JournalError(
                f"there is no place for temporary files: {error.strerror or error}",
                hint="Set TMPDIR to a directory that can be written to and has room.",
            )
            raise OutOfResources.of(error) or nowhere from error
        yield made


def beside(local: Path, suffix: str) -> Path:
    """The path of a file that belongs to a local journal."""
    return local.with_name(f"{local.name}.{suffix}")


def fetch(store: Store, name: str, target: Path) -> StoredObject:
    """Fetch an object to a new local file that nobody else can read; gives what it was. Raises ObjectNotFound."""

    def write(blocks: Iterator[bytes]) -> None:
        with private_file(target) as file:
            file.writelines(blocks)

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        return read_surely(store, name, write)
    except OSError as error:
        target.unlink(missing_ok=True)
        raise JournalError(f"{target} could not be written: {error.strerror or error}", hint="Make room.") from error


def fetch_journal(store: Store, location: Location, target: Path, *, name: str | None = None) -> StoredObject:
    """Fetch the journal at `location`, or what is called `name` beside it, from the `store` of its directory.

    In a directory it has to be finished (see `require_finished`), before that and after it.
    """
    name = name or location.split()[1]
    require_finished_at(location, name=name)
    found = fetch(store, name, target)
    require_finished_at(location, name=name)
    return found


def require_finished_at(location: Location, *, name: str | None = None) -> None:
    """Raise JournalError for what lies in a directory and is not finished: see `require_finished`."""
    if location.is_local:
        path = location.local_path
        require_finished(path.with_name(name) if name else path)


def require_finished(journal: Path) -> None:
    """Raise JournalError while SQLite has the file of an open transaction beside the place of a journal.

    Without it the journal holds what was never committed, or lacks what was; and it undoes whatever takes the
    journal's place. Of a link it lies beside the file that the link leads to.
    """
    for path in {journal, journal.resolve()}:
        for suffix in _UNFINISHED:
            companion = path.with_name(path.name + suffix)
            if companion.exists() and companion.stat().st_size:
                raise not_finished(path, companion.name)


def require_one_name(journal: Path) -> None:
    """Raise JournalError for a journal that has other names: SQLite keeps an open transaction beside one of them only.

    And what takes the place of one name leaves the old journal under the others.
    """
    if journal.is_symlink():
        raise JournalError(
            f"{journal} is a link to {journal.resolve()}", hint="Give the file itself, where this link is given now."
        )
    if (names := journal.stat().st_nlink) > 1:
        raise JournalError(
            f"{journal} has {names} names (hard links): what SQLite may not have finished lies beside one of them",
            hint="Open the name that the older tool uses once with sqlite3; then make a copy, and put it here.",
        )


def require_at_rest(journal: Path) -> tuple[int, int]:
    """Return size and time (ns) of a journal whose file alone is all of it; JournalError for any other."""
    require_finished(journal)
    state = journal.stat()
    return state.st_size, state.st_mtime_ns


def copy_at_rest(journal: Path, target: Path) -> None:
    """Copy a journal to a new file that nobody else can read. It is only read, and nothing appears beside it.

    Raises JournalError when it is not at rest before and after that.
    """
    try:
        before = require_at_rest(journal)
        with journal.open("rb") as source, private_file(target) as file:
            shutil.copyfileobj(source, file, 1 << 20)
            file.flush()
            os.fsync(file.fileno())
        changed = require_at_rest(journal) != before
    except OSError as error:
        unread = JournalError(
            f"{journal} could not be copied to {target}: {error.strerror or error}",
            hint="Can it be read? Is there room?",
        )
        raise OutOfResources.of(error) or unread from error
    if changed:
        raise JournalError(f"{journal} has just changed", hint="Let what writes to it end, then repeat the command.")


def discard(journal: Path) -> None:
    """Remove a journal's file, if it is there, with its companions."""
    journal.unlink(missing_ok=True)
    for suffix in _COMPANIONS:
        journal.with_name(journal.name + suffix).unlink(missing_ok=True)


def clear(local: Path) -> None:
    """Remove the files that commands make beside a local journal while they work: a killed one has left its own."""
    for suffix in _WORKING:
        discard(beside(local, suffix))


def take_place(fetched: Path, local: Path) -> None:
    """Put a closed journal in the place of the local one, whose companions must not become those of the new one."""
    discard(local)
    fetched.replace(local)
    sync_directory(local.parent)
    # A backup that was made while the schema was brought up to date is called after the journal.
    for backup in fetched.parent.glob(f"{fetched.name}.schema-*.backup"):
        backup.replace(backup.with_name(backup.name.replace(fetched.name, local.name, 1)))


def move_aside(local: Path) -> Path:
    """Give a closed journal a dated name (local time) beside its own; gives that."""
    dated = f"{local.name}.{datetime.now().astimezone():%Y%m%d%H%M%S}"
    names = (dated, *(f"{dated}-{number}" for number in range(2, 1000)))
    aside = next(path for path in map(local.with_name, names) if not path.exists())
    # The companions get there first, and leave last: a kill in between leaves a journal that has lost nothing.
    there = [suffix for suffix in _COMPANIONS if local.with_name(local.name + suffix).exists()]
    for suffix in there:
        shutil.copy2(local.with_name(local.name + suffix), aside.with_name(aside.name + suffix))
    local.rename(aside)
    for suffix in there:
        local.with_name(local.name + suffix).unlink(missing_ok=True)
    sync_directory(local.parent)
    return aside


def moved_aside(local: Path) -> list[Path]:
    """The journals that were moved aside from this place, the oldest first."""
    form = re.compile(re.escape(local.name) + r"\.\d{14}(-\d+)?")
    return sorted(path for path in local.parent.glob("*") if form.fullmatch(path.name))


def read_claim(local: Path) -> str | None:
    """The id of the lock that a check-out to this place was about to take; None when there was none."""
    try:
        return beside(local, "claim").read_text(encoding="ascii").strip() or None
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        unread = JournalError(f"{beside(local, 'claim')} cannot be read ({error})")
        raise OutOfResources.of(error) or unread from error


def write_claim(local: Path, lock_id: str) -> None:
    """Note the id of a lock before it is taken."""
    try:
        with private_file(beside(local, "claim")) as file:
            file.write(lock_id.encode("ascii"))
            # It has to outlive a power cut as the lock does, which is elsewhere.
            file.flush()
            os.fsync(file.fileno())
        sync_directory(local.parent)
    except OSError as error:
        raise JournalError(f"{local} cannot be written: {error.strerror or error}") from error


def drop_claim(local: Path) -> None:
    """Forget it: the local journal itself says so now, or nobody needs to know any more."""
    beside(local, "claim").unlink(missing_ok=True)
