"""`remote …`: plain file operations on the central store, beside the journal, which learns nothing of them."""

from __future__ import annotations

import posixpath
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from chorus_upload.config.settings import Settings
from chorus_upload.errors import AccessDenied, ConfigError, ObjectNotFound, StorageError
from chorus_upload.events import Emit, Level, Notice, RemoteDeleted, Tally
from chorus_upload.operations.central import journal_key
from chorus_upload.storage.keys import check_key
from chorus_upload.storage.network import Network
from chorus_upload.storage.open import open_store, require_supported
from chorus_upload.storage.store import Store, StoredObject
from chorus_upload.transfer.pool import ThreadPool


@dataclass(frozen=True, slots=True)
class RemoteEntry:
    """One line of `remote list`; a directory has a name that ends in a slash, and neither size nor time."""

    key: str
    size: int | None = None
    time_us: int | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """One object that a path stands for. `name` is what it is called where it goes: the path's last part and below."""

    name: str
    stored: StoredObject


@contextmanager
def central_store(settings: Settings, *, stop: threading.Event | None = None) -> Iterator[Store]:
    """The central store, for plain operations."""
    require_supported(settings)
    with open_store(settings.central.location, Network.of(settings), stop=stop) as store:
        yield store


def clean(path: str) -> str:
    """A path as people type it, as a key or "" for all of the store. ConfigError when it can be neither."""
    trimmed = path.strip("/")
    if trimmed in ("", "."):
        return ""
    try:
        return check_key(trimmed)
    except StorageError as error:
        raise ConfigError(f"{path}: {error.message}", hint="Paths are below the central path.") from None


def entries(store: Store, paths: Iterable[str], *, recursive: bool) -> Iterator[RemoteEntry]:
    """What is at these paths and, of directories, directly below; `recursive`, everything below.

    Raises ObjectNotFound for a path at which nothing is.
    """
    for path in map(clean, paths):
        found = False
        if path and (stored := store.stat(path)) is not None:
            found = True
            yield _entry(stored)
        if recursive:
            listed: Iterable[RemoteEntry] = map(_entry, store.scan(f"{path}/" if path else ""))
        else:
            below = store.browse(path)
            listed = [RemoteEntry(each) if isinstance(each, str) else _entry(each) for each in below]
            listed.sort(key=lambda entry: entry.key)
        for each in listed:
            found = True
            yield each
        if not found and path:
            raise _nothing_at(store, path)


def _entry(stored: StoredObject) -> RemoteEntry:
    return RemoteEntry(stored.key, stored.size, stored.time_us)


def _nothing_at(store: Store, path: str) -> ObjectNotFound:
    return ObjectNotFound(f"there is nothing at {path} in {store.url}", hint="`remote list` shows what there is.")


def objects(store: Store, paths: Iterable[str], *, recursive: bool) -> Iterator[Found]:
    """Every object that these paths stand for.

    Raises ObjectNotFound for a path at which nothing is, and ConfigError for a directory without `recursive`.
    """
    for path in map(clean, paths):
        parent = posixpath.dirname(path)
        lead = len(parent) + 1 if parent else 0
        found = False
        if path and (stored := store.stat(path)) is not None:
            found = True
            yield Found(path[lead:], stored)
            if not recursive:
                continue
        for stored in store.scan(f"{path}/" if path else ""):
            if not recursive:
                raise ConfigError(f"{path or '/'} is a directory", hint="-r takes all that is below it.")
            found = True
            yield Found(stored.key[lead:], stored)
        if not found and path:
            raise _nothing_at(store, path)


def require_not_the_journal(settings: Settings, keys: Iterable[str]) -> None:
    """Raise ConfigError when one of these is the cloud journal, its lock or a backup: custody has its own commands."""
    journal = journal_key(settings)
    for key in keys:
        if journal is not None and (key == journal or key.startswith(f"{journal}.")):
            raise ConfigError(
                f"{key} is the journal, or belongs to it", hint="`journal checkout`, `checkin` and `unlock` are for it."
            )


@dataclass(frozen=True, slots=True)
class Doomed:
    """What `remote delete` is about to delete."""

    objects: list[StoredObject]

    @property
    def tally(self) -> Tally:
        return Tally(len(self.objects), sum(each.size for each in self.objects))


def doomed(store: Store, settings: Settings, paths: Iterable[str], *, recursive: bool, emit: Emit) -> Doomed:
    """What these paths stand for, as `objects`, each once, and certainly nothing of the journal.

    A path at which nothing is any more is told, and ObjectNotFound if there is nothing at all: so who was interrupted
    types the same again.
    """
    chosen: dict[str, StoredObject] = {}
    missing: list[ObjectNotFound] = []
    for path in paths:
        try:
            chosen |= {each.stored.key: each.stored for each in objects(store, [path], recursive=recursive)}
        except ObjectNotFound as error:
            missing.append(error)
    if missing and not chosen:
        raise missing[0]
    require_not_the_journal(settings, chosen)
    for each in missing:
        emit(Notice(each.message, Level.WARNING))
    return Doomed(list(chosen.values()))


def delete(store: Store, settings: Settings, chosen: Doomed, *, emit: Emit, stop: threading.Event) -> RemoteDeleted:
    """Delete these objects, unless one was replaced since it was listed.

    Raises AccessDenied when nothing may be deleted, KeyboardInterrupt when `stop` is set meanwhile.
    """

    def remove(stored: StoredObject) -> tuple[StoredObject, StorageError | None]:
        if stop.is_set():
            return stored, StorageError("the command was interrupted")
        try:
            store.delete(stored.key, if_match=stored.etag)
        except AccessDenied:
            raise
        except StorageError as error:
            return stored, error
        return stored, None

    deleted, refused = Tally(), dict[str, str]()
    with ThreadPool(settings.num_threads, stop=stop).run(remove, chosen.objects) as outcomes:
        for outcome in outcomes:
            if outcome is None:
                continue
            stored, error = outcome
            if error is None:
                deleted += Tally(1, stored.size)
            else:
                refused[stored.key] = error.message
    if stop.is_set():
        emit(Notice(f"{deleted.files} of {chosen.tally.files} were deleted"))
        raise KeyboardInterrupt
    return RemoteDeleted(store.url, deleted, refused)
