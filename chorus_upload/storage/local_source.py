"""A directory as a source. The loops are written for hundreds of thousands of files: mind the inner ones."""

from __future__ import annotations

import errno
import os
import stat as modes
import threading
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Self

from chorus_upload.errors import DeletionRefused
from chorus_upload.model import Problem, ProblemKind
from chorus_upload.storage.keys import is_text
from chorus_upload.storage.source import Directory, Entry, FileStat, SmallFile

_OPEN_FILE = (
    os.O_RDONLY
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_NOCTTY", 0)
    # A file that was swapped for a pipe must not hang the run: opening one waits for a writer.
    | getattr(os, "O_NONBLOCK", 0)
)
# A directory that was swapped for a link since it was listed is not entered.
_OPEN_DIRECTORY = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_DIRECTORY", 0)
_BY_DESCRIPTOR = os.scandir in os.supports_fd and hasattr(os, "O_NOFOLLOW")


@dataclass(slots=True)
class _Found:
    """What one directory holds, while it is being listed."""

    entries: list[Entry] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    directories: list[str] = field(default_factory=list)
    linked: list[str] = field(default_factory=list)
    identity: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class _Branch:
    """A directory still to be listed. `above` identifies its ancestors; kept only where links are followed."""

    path: str
    above: tuple[tuple[int, int], ...] = ()
    through_link: bool = False


class LocalSource:
    """The tree below `root`. See `Source`.

    Dot files count. A link to a regular file counts as that file. Links to directories are followed only
    with `follow_links`, and never round in circles.
    """

    def __init__(self, root: Path, *, follow_links: bool) -> None:
        self._root = _long_path(os.path.abspath(root))  # noqa: PTH100 - Path.resolve() would follow links
        self._shown = str(root)
        self._follow_links = follow_links
        self._checked = threading.local()

    @property
    def url(self) -> str:
        return self._shown

    def walk(self) -> Iterator[Directory]:
        """See `Source.walk`. A file that disappears during the listing is a problem, not an absence.

        Entries are kept when their names differ only in case or in Unicode normalisation, and a problem
        names them: on another file system, or in another store, they may be one.
        """
        pending = [_Branch("", through_link=True)]
        while pending:
            branch = pending.pop()
            try:
                found = self._list(branch)
            except OSError as error:
                if not branch.path:
                    raise self._unusable(error) from error
                yield Directory(branch.path, [], [_problem(ProblemKind.UNREADABLE_DIRECTORY, branch.path, error)])
                continue
            lead = f"{branch.path}/" if branch.path else ""
            above = (*branch.above, found.identity) if self._follow_links else ()
            pending.extend(_Branch(lead + name, above) for name in found.directories)
            for name in found.linked:
                target = self._linked(lead + name, above, found.problems)
                pending.extend(target)
            yield Directory(branch.path, found.entries, found.problems)

    def stat(self, path: str) -> FileStat | None:
        try:
            status = Path(self._full(path)).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return FileStat(status.st_size, status.st_mtime_ns // 1000) if modes.S_ISREG(status.st_mode) else None

    def read_small(self, path: str, *, limit: int) -> SmallFile | None:
        descriptor = os.open(self._full(path), _OPEN_FILE)
        try:
            before = os.fstat(descriptor)
            if not modes.S_ISREG(before.st_mode):
                raise OSError(errno.EINVAL, "not a regular file", path)
            if before.st_size > limit:
                return None
            # One byte more than expected shows a file that has grown. Asking for much more would be slow.
            data = os.read(descriptor, before.st_size + 1)
            while 0 < len(data) < before.st_size and (more := os.read(descriptor, before.st_size - len(data))):
                data += more
            after = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        return SmallFile(
            data,
            FileStat(before.st_size, before.st_mtime_ns // 1000),
            FileStat(after.st_size, after.st_mtime_ns // 1000),
        )

    def open(self, path: str) -> BinaryIO:
        """See `Source.open`. What is not a regular file (any more) is an OSError too, and never waited for."""
        descriptor = os.open(self._full(path), _OPEN_FILE)
        if modes.S_ISREG(os.fstat(descriptor).st_mode):
            return os.fdopen(descriptor, "rb", buffering=0)
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", path)

    def open_stat(self, stream: BinaryIO) -> FileStat:
        status = os.fstat(stream.fileno())
        return FileStat(status.st_size, status.st_mtime_ns // 1000)

    def close(self) -> None:
        """Nothing is held open between calls."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _unusable(self, error: OSError) -> DeletionRefused:
        return DeletionRefused(
            f"the source {self._shown} cannot be listed: {error.strerror or error}",
            hint="Is the path right, the share mounted, and may you read it? Nothing was recorded.",
        )

    def _list(self, branch: _Branch) -> _Found:
        """List one directory, all of it or (OSError) nothing."""
        full = self._join(branch.path)
        if not _BY_DESCRIPTOR:
            found = _read_directory(full, branch.path)
            if self._follow_links:
                found.identity = _identity(Path(full).stat())
            return found
        # Asking by descriptor is also faster: the kernel does not walk the whole path again for every file.
        descriptor = os.open(full, _OPEN_DIRECTORY | (0 if branch.through_link else os.O_NOFOLLOW))
        try:
            found = _read_directory(descriptor, branch.path)
            if self._follow_links:
                found.identity = _identity(os.fstat(descriptor))
            return found
        finally:
            os.close(descriptor)

    def _linked(self, path: str, above: tuple[tuple[int, int], ...], problems: list[Problem]) -> Iterator[_Branch]:
        """The directory behind a link, if it is to be entered; else a problem says why not."""
        if not self._follow_links:
            detail = "not followed (follow_links is off)"
            problems.append(Problem(ProblemKind.LINK_TO_DIRECTORY, path, detail))
            return
        try:
            identity = _identity(Path(self._join(path)).stat())
        except OSError as error:
            problems.append(_problem(ProblemKind.UNREADABLE_DIRECTORY, path, error))
            return
        if identity in above:
            problems.append(Problem(ProblemKind.LINK_LOOP, path, "leads to a directory that it is in"))
            return
        yield _Branch(path, above, through_link=True)

    def _join(self, path: str) -> str:
        if not path:
            return self._root
        return f"{self._root}{os.sep}{path if os.sep == '/' else path.replace('/', os.sep)}"

    def _full(self, path: str) -> str:
        """Where `path` is; OSError when it would lead out of the source, which a damaged journal could ask for."""
        directory, slash, name = path.rpartition("/")
        # Files come directory by directory: each thread remembers the last one that it has found to be real.
        last, full = getattr(self._checked, "directory", ("", ""))
        if slash + directory != last or not full:
            full = self._check_directory(directory)
            self._checked.directory = (slash + directory, full)
        if name in ("", ".", "..") or "\0" in name or (os.sep != "/" and (os.sep in name or ":" in name)):
            raise _outside(path)
        return f"{full}{os.sep}{name}"

    def _check_directory(self, directory: str) -> str:
        """Where a directory of the source is, after making sure that it is one of its own."""
        parts = directory.split("/") if directory else []
        unfit = "\0" in directory or (os.sep != "/" and (os.sep in directory or ":" in directory))
        if unfit or not {"", ".", ".."}.isdisjoint(parts):
            raise _outside(directory)
        if not self._follow_links:
            full = self._root
            for part in parts:
                full = f"{full}{os.sep}{part}"
                if modes.S_ISLNK(os.lstat(full).st_mode):
                    raise OSError(errno.ELOOP, "leads through a link, which is not followed", directory)
        return self._join(directory)


def _outside(path: str) -> OSError:
    return OSError(errno.EINVAL, "not a path inside the source", path)


def _read_directory(where: str | int, path: str) -> _Found:
    """Everything in one directory. This loop runs once for every file of a source: it is kept bare."""
    found = _Found()
    append, new, kind = found.entries.append, tuple.__new__, Entry
    odd: list[os.DirEntry[str]] = []
    vanished: list[str] = []
    with os.scandir(where) as listing:
        for entry in listing:
            if entry.is_file(follow_symlinks=False):
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    vanished.append(entry.name)
                    continue
                # What `Entry(…)` does, in half the time.
                append(new(kind, (entry.name, status.st_size, status.st_mtime_ns // 1000)))
            elif entry.is_dir(follow_symlinks=False):
                found.directories.append(entry.name)
            else:
                odd.append(entry)
        # Inside the `with`: these are asked by the same descriptor.
        lead = f"{path}/" if path else ""
        for entry in odd:
            _look_closer(entry, lead, found)
    for name in vanished:
        found.problems.append(Problem(ProblemKind.VANISHED, lead + name, "disappeared while it was listed"))
    _check_names(lead, found)
    return found


def _look_closer(entry: os.DirEntry[str], lead: str, found: _Found) -> None:
    """Sort in what is neither a file nor a directory: a link, or something that cannot be uploaded."""
    try:
        status = entry.stat()
    except OSError as error:
        kind = ProblemKind.UNREADABLE_FILE if entry.is_symlink() else ProblemKind.VANISHED
        detail = "a link to nothing" if isinstance(error, FileNotFoundError) else error.strerror or str(error)
        found.problems.append(Problem(kind, lead + entry.name, detail))
        return
    if modes.S_ISDIR(status.st_mode):
        found.linked.append(entry.name)
    elif modes.S_ISREG(status.st_mode):
        found.entries.append(Entry(entry.name, status.st_size, status.st_mtime_ns // 1000))
    else:
        found.problems.append(Problem(ProblemKind.NOT_A_FILE, lead + entry.name, _type_of(status.st_mode)))


def _check_names(lead: str, found: _Found) -> None:
    """Take out names that no store can hold, and report those that some systems cannot tell apart."""
    names = [entry[0] for entry in found.entries]
    names += found.directories
    names += found.linked
    if "".join(names).isascii():
        if len(set(map(str.lower, names))) == len(names):
            return
    else:
        _take_out_invalid(lead, found)
        names = [name for name in names if is_text(name)]
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(_folded(name), []).append(name)
    for first, *others in alike.values():
        if others:
            detail = "alike: " + ", ".join(others)
            found.problems.append(Problem(ProblemKind.NAMES_DIFFER_ONLY_IN_CASE, lead + first, detail))


def _take_out_invalid(lead: str, found: _Found) -> None:
    everything: Iterable[str] = [*(entry.name for entry in found.entries), *found.directories, *found.linked]
    for name in everything:
        if not is_text(name):
            shown = lead + os.fsencode(name).decode("utf-8", "backslashreplace")
            found.problems.append(Problem(ProblemKind.INVALID_NAME, shown, "the name is not UTF-8"))
    found.entries[:] = [entry for entry in found.entries if is_text(entry.name)]
    found.directories[:] = filter(is_text, found.directories)
    found.linked[:] = filter(is_text, found.linked)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _type_of(mode: int) -> str:
    for test, word in ((modes.S_ISFIFO, "pipe"), (modes.S_ISSOCK, "socket"), (modes.S_ISBLK, "block device")):
        if test(mode):
            return f"a {word}"
    return "a device" if modes.S_ISCHR(mode) else "neither a file nor a directory"


def _problem(kind: ProblemKind, path: str, error: OSError) -> Problem:
    return Problem(kind, path, error.strerror or str(error))


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _long_path(path: str) -> str:
    """On Windows the spelling without the limit of 260 characters; elsewhere `path`."""
    if os.name != "nt" or path.startswith("\\\\?\\"):
        return path
    return "\\\\?\\UNC" + path[1:] if path.startswith("\\\\") else "\\\\?\\" + path
