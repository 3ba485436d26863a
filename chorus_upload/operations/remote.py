"""`remote …`: plain file operations on the central store, beside the journal, which learns nothing of them."""

from __future__ import annotations

import posixpath
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import groupby

from chorus_upload.config.settings import Settings
from chorus_upload.errors import AccessDenied, ConfigError, ObjectNotFound, StorageError
from chorus_upload.events import Emit, Level, Notice, RemoteDeleted, Tally
from chorus_upload.operations.central import journal_key
from chorus_upload.operations.destination import require_marked
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
    """Return a path as people type it as a key, or "" for all of the store. ConfigError when it can be neither."""
    if not path.strip():
        raise ConfigError("an empty path names nothing", hint="Is a variable of the shell empty? The top is /.")
    trimmed = path.strip("/")
    while trimmed.startswith("./"):
        trimmed = trimmed[2:].lstrip("/")
    if trimmed in ("", "."):
        return ""
    try:
        return check_key(trimmed)
    except StorageError as error:
        raise ConfigError(f"{path}: {error.message}", hint="Paths are below the central path.") from None


def named(path: str) -> str:
    """As `clean`, for what is taken out of the store: that has a name, and is never the whole store by mistake."""
    if key := clean(path):
        return key
    raise ConfigError(
        f"{path} is all of the central store, and that is not taken by this name",
        hint="Name what you want. To fetch or to send everything at the top: '*'.",
    )


def has_wildcard(path: str) -> bool:
    """Whether a path stands for others, if nothing is called so itself."""
    return any(sign in path for sign in "*?[")


def _matching(store: Store, path: str) -> Iterator[StoredObject | str]:
    """Yield the objects and the directories (with a slash behind) that a pattern stands for, each once.

    Upper and lower case differ. `*` and `?` match within one part of a path; a part `**` stands for any number of
    directories. Names that begin with a dot are names as others.
    """
    told = set[str]()
    for found in _below(store, "", [part for part, _ in groupby(path.split("/"))]):
        name = found if isinstance(found, str) else found.key
        if name not in told:
            told.add(name)
            yield found


def _below(store: Store, directory: str, parts: Sequence[str]) -> Iterator[StoredObject | str]:
    part, rest = parts[0], parts[1:]
    if part == "**" and rest:
        yield from _below(store, directory, rest)
    lead = f"{directory}/" if directory else ""
    if part != "**" and not has_wildcard(part) and rest:
        yield from _below(store, f"{lead}{part}", rest)
        return
    for found in sorted(store.browse(directory), key=lambda each: each if isinstance(each, str) else each.key):
        name = (found.rstrip("/") if isinstance(found, str) else found.key).removeprefix(lead)
        # A service may hold keys with empty parts, which no pattern stands for.
        if not name:
            continue
        if part == "**":
            if isinstance(found, str):
                yield from _below(store, f"{lead}{name}", parts)
            elif not rest:
                yield found
        elif fnmatchcase(name, part):
            if not rest:
                yield found
            elif isinstance(found, str):
                yield from _below(store, f"{lead}{name}", rest)


def is_directory(store: Store, path: str) -> bool:
    """Whether anything lies below this key."""
    return any(True for _ in store.browse(path))


def _standing_for(store: Store, path: str) -> Iterator[StoredObject | str]:
    """Yield the object and the directory (with a slash behind) of this path or, if there is neither, of its pattern.

    Raises ObjectNotFound when there is none.
    """
    found = False
    if path and (stored := store.stat(path)) is not None:
        found = True
        yield stored
    if not path or is_directory(store, path):
        found = True
        yield f"{path}/"
    if not found and has_wildcard(path):
        for each in _matching(store, path):
            found = True
            yield each
    if not found:
        what = f"nothing matches {path}" if has_wildcard(path) else f"there is nothing at {path}"
        raise ObjectNotFound(f"{what} in {store.url}", hint="`remote list` shows what there is.")


def entries(store: Store, paths: Iterable[str], *, recursive: bool) -> Iterator[RemoteEntry]:
    """What is at these paths and, of directories, directly below; `recursive`, everything below.

    A path may be a pattern. Raises ObjectNotFound for a path at which nothing is, but for the top.
    """
    for path in list(map(clean, paths)):
        for found in _standing_for(store, path):
            if not isinstance(found, str):
                yield _entry(found)
            elif recursive:
                yield from map(_entry, store.scan(found.lstrip("/")))
            else:
                below = store.browse(found.rstrip("/"))
                listed = [RemoteEntry(each) if isinstance(each, str) else _entry(each) for each in below]
                yield from sorted(listed, key=lambda entry: entry.key)


def _entry(stored: StoredObject) -> RemoteEntry:
    return RemoteEntry(stored.key, stored.size, stored.time_us)


def objects(store: Store, paths: Iterable[str], *, recursive: bool, emit: Emit) -> Iterator[Found]:
    """Every object that these paths or patterns stand for.

    Without `recursive` the directories that a pattern matches are left out, and told. Raises ObjectNotFound for a path
    at which nothing is, and ConfigError for all of the store and, without `recursive`, for a directory.
    """
    for path in list(map(named, paths)):
        at_path = list(_standing_for(store, path))
        if not recursive and all(isinstance(found, str) for found in at_path):
            raise ConfigError(f"{str(at_path[0]).rstrip('/')} is a directory", hint="-r takes all that is below it.")
        for found in at_path:
            if not isinstance(found, str):
                yield Found(posixpath.basename(found.key), found)
            elif recursive:
                parent = posixpath.dirname(found.rstrip("/"))
                for stored in store.scan(found):
                    yield Found(stored.key.removeprefix(f"{parent}/") if parent else stored.key, stored)
            else:
                emit(Notice(f"left out: {found} is a directory; -r takes all that is below it", Level.WARNING))


def require_not_the_journal(settings: Settings, keys: Iterable[str]) -> None:
    """Raise ConfigError when one of these is the cloud journal, its lock or a backup: custody has its own commands."""
    journal = journal_key(settings)
    for key in keys:
        if _is_of_journal(key, journal):
            raise ConfigError(
                f"{key} is the journal, or belongs to it", hint="`journal checkout`, `checkin` and `unlock` are for it."
            )


def _is_of_journal(key: str, journal: str | None) -> bool:
    return journal is not None and (key == journal or key.startswith(f"{journal}."))


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
    types the same again. ConfigError when patterns or directories together stand for all of the store.
    """
    paths = list(paths)
    require_marked(settings, emit=emit)
    chosen: dict[str, StoredObject] = {}
    missing: list[ObjectNotFound] = []
    for path in list(map(named, paths)):
        try:
            found = objects(store, [path], recursive=recursive, emit=emit)
            chosen |= {each.stored.key: each.stored for each in found}
        except ObjectNotFound as error:
            missing.append(error)
    if missing and not chosen:
        raise missing[0]
    require_not_the_journal(settings, chosen)
    # Who names objects one by one means them, also the last one.
    if recursive or any(map(has_wildcard, paths)):
        journal = journal_key(settings)
        if all(stored.key in chosen or _is_of_journal(stored.key, journal) for stored in store.scan("")):
            raise ConfigError(
                f"{' '.join(paths)} is all of the central store, and 'remote delete' never empties it",
                hint="Name what you want to delete. To empty a store is work for its own tools.",
            )
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
