"""The central store as the journal knows it: whether it is the one that files were delivered to.

A service is known by its name, whatever the host (see `config.services`), and a directory by the mark in it. Where
either is another than before, nobody but a person can tell whether it is the same store: nothing is done until then.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

from chorus_upload.config.services import earlier_names
from chorus_upload.config.settings import Location, Settings
from chorus_upload.errors import DestinationChanged, JournalError
from chorus_upload.events import Emit, Level, Notice
from chorus_upload.journal import destinations
from chorus_upload.journal.destinations import Destination
from chorus_upload.journal.journal import Journal
from chorus_upload.operations import lock
from chorus_upload.operations.central import destination_url, named, place_of
from chorus_upload.storage.identity import read_mark, write_mark
from chorus_upload.storage.network import Network
from chorus_upload.storage.open import open_store

SAMPLE = 20
"""So many deliveries are looked for before a store is taken for the one that they went to."""


class Choice(StrEnum):
    """What the user says of a store that is not known."""

    SAME = "same"
    """It is the one that the journal knows: what was delivered there is here."""
    NEW = "new"
    """It is another one, to which nothing has been delivered."""


_SAME = "If it is the same store, add --same-destination: what was delivered there counts as delivered here."
_NEW = "If it is another one, add --new-destination: nothing counts as delivered here, and everything is sent."
_BOTH = f"{_SAME} {_NEW}"


def destination_of(journal: Journal, settings: Settings, choice: Choice | None = None) -> str:
    """Return the name under which the journal keeps the deliveries to the central store, which need not be reachable.

    What the journal called it in an earlier release, or before the user's `choice`, is put right where the journal is
    open for writing. Raises DestinationChanged when the journal knows the same container, bucket or mark elsewhere.
    """
    location = settings.central.location
    url = destination_url(location)
    known = destinations.known(journal)
    here = _find(known, url)
    if here is not None and (here.exact or not here.is_used):
        return url
    if found := here or _of_earlier_release(location, known):
        return _called(journal, found, url)
    found = _elsewhere(location, known)
    if found is None or choice is Choice.NEW:
        return url
    if choice is Choice.SAME:
        return _called(journal, found, url)
    number = destinations.count(journal, found)
    raise DestinationChanged(
        f"the central store is not the one that the journal knows: {number:,} files were delivered to {found.url},"
        f" and the configuration says {url}",
        hint=_BOTH,
    )


def store_of(journal: Journal, settings: Settings, choice: Choice | None = None, *, writes: bool) -> str:
    """Return what `destination_of` gives, once a directory has shown that it is the store that the journal knows.

    A directory is known by its mark. With `writes` one that has none gets it: when it is used for the first time, or
    when the cloud journal or some of a sample of recorded deliveries was found in it. Raises DestinationChanged for any
    other, and ObjectNotFound when there is none.
    """
    url = destination_of(journal, settings, choice)
    location = settings.central.location
    if not location.is_local:
        return url
    root = location.local_path
    here, found = _find(destinations.known(journal), url), read_mark(root)
    if here is not None and here.mark is not None:
        if found == here.mark:
            return url
        if choice is None:
            raise _not_the_one(url, _lack(root, found), journal, here)
        if choice is Choice.NEW:
            _keep_aside(journal, here)
        elif found is None and writes:
            write_mark(root, here.mark)
    elif here is not None and here.is_used and writes:
        if choice is Choice.NEW:
            _keep_aside(journal, here)
        elif choice is None and not holds_journal(settings) and not any(_looked_for(journal, settings, url)):
            why = "of these, none that was looked for is in it (unless the receiver has taken them over)"
            raise _not_the_one(url, why, journal, here)
    if writes:
        destinations.set_mark(journal, url, read_mark(root) or write_mark(root))
    return url


def holds_journal(settings: Settings) -> bool:
    """Return whether the central store is a directory in which the cloud journal lies, or the lock in its place.

    Then it is the one that files went to, though the receiver may have taken all of them over.
    """
    central, journal = settings.central.location, settings.journal.cloud
    if not central.is_local or not journal.is_local:
        return False
    path = journal.local_path.resolve()
    is_there = path.exists() or path.with_name(lock.lock_key(path.name)).exists()
    return is_there and path.is_relative_to(central.local_path.resolve())


def _looked_for(journal: Journal, settings: Settings, url: str, *, active_only: bool = False) -> Iterator[bool]:
    """Look for a sample of deliveries, and yield of each whether it is there, with its size."""
    sample = destinations.sample(journal, url, size=SAMPLE, active_only=active_only)
    with open_store(settings.central.location, Network.of(settings)) as store:
        store.probe()
        for sent in sample:
            stored = store.stat(sent.key)
            yield stored is not None and stored.size == sent.size


def found_of_sample(journal: Journal, settings: Settings, url: str) -> tuple[int, int]:
    """Return how many of a sample of delivered, active files are in the central store, and how many were looked for."""
    looked_for = list(_looked_for(journal, settings, url, active_only=True))
    return sum(looked_for), len(looked_for)


def _find(known: list[Destination], url: str) -> Destination | None:
    return next((each for each in known if each.url == url), None)


def _of_earlier_release(location: Location, known: list[Destination]) -> Destination | None:
    if location.is_local:
        return None
    names = [named(place_of(location), service) for service in earlier_names(location)]
    return next((each for name in names for each in known if each.url == name and not each.exact), None)


def _elsewhere(location: Location, known: list[Destination]) -> Destination | None:
    """Return the destination that this one may be: the same place in another service, the same mark in another path."""
    used = [each for each in known if each.is_used]
    if location.is_local:
        marked = [each for each in used if each.mark is not None]
        mark = read_mark(location.local_path) if marked else None
        return next((each for each in marked if each.mark == mark), None)
    place = place_of(location)
    return next((each for each in used if each.url == place or each.url.startswith(f"{place}@")), None)


def _called(journal: Journal, found: Destination, url: str) -> str:
    """Call a destination `url` from now on; return its name, the old one where nothing may be written."""
    if journal.is_read_only:
        return found.url
    taken = _find(destinations.known(journal), url)
    if taken is not None and taken.id != found.id:
        _keep_aside(journal, taken)
    destinations.rename(journal, found, url)
    return url


def _keep_aside(journal: Journal, known: Destination) -> None:
    """Give a destination a name that no place has, so that what was delivered there stays recorded."""
    destinations.rename(journal, known, f"{known.url}@{known.mark or known.id}")


def require_marked(settings: Settings, *, emit: Emit) -> None:
    """Raise DestinationChanged where the central directory lacks the mark by which the journal knows it.

    For commands that need no journal. They look at the local one, or at the cloud's where that is a file too; one that
    cannot be read, or is of the older tool, knows no mark. A directory without one that is not known is warned of.
    """
    location, cloud = settings.central.location, settings.journal.cloud_directory
    if not location.is_local:
        return
    root = location.local_path
    found = read_mark(root)
    paths = [settings.journal.local_path, *([cloud.local_path / settings.journal.cloud_name] if cloud.is_local else [])]
    for path in filter(Path.exists, paths):
        with suppress(JournalError), Journal.open(path, read_only=True) as journal:
            here = _find(destinations.known(journal), destination_url(location))
            if here is None or here.mark is None:
                continue
            if found != here.mark:
                raise _not_the_one(here.url, _lack(root, found), journal, here)
            return
    if found is None:
        text = "has no mark of a central store: is it the right directory, and is its share mounted?"
        emit(Notice(f"{root} {text} `file upload` makes the mark", Level.WARNING))


def _lack(root: Path, found: str | None) -> str:
    """Say why a directory with this mark is not the one that is known."""
    if found is not None:
        return "it has another one's mark"
    return "it has no mark" if root.is_dir() else "there is no such directory"


def _not_the_one(url: str, why: str, journal: Journal, here: Destination) -> DestinationChanged:
    number = destinations.count(journal, here)
    return DestinationChanged(
        f"{url} is not the directory that the journal knows, to which {number:,} files were delivered: {why}."
        " It is probably on a share that is not mounted",
        hint=f"Mount it, and repeat the command. {_BOTH}",
    )
