"""A directory as a source: the walk through it, and its single files."""

from __future__ import annotations

import errno
import io
import os
import stat as modes
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from chorus_upload.config.addresses import archive_kind
from chorus_upload.config.own_files import OwnFiles
from chorus_upload.errors import ConfigError, DeletionRefused, OutOfResources
from chorus_upload.model import Problem, ProblemKind
from chorus_upload.storage.local_listing import Found, read_directory
from chorus_upload.storage.local_own import Withheld
from chorus_upload.storage.local_tree import LEADS_OUTSIDE, OPEN_DIRECTORY, LocalTree
from chorus_upload.storage.mounts import mounts
from chorus_upload.storage.source import Directory, FileReplaced, FileStat, SmallFile
from chorus_upload.storage.store import Origin

_BY_DESCRIPTOR = os.scandir in os.supports_fd and hasattr(os, "O_NOFOLLOW")
_UNDECIDED = (
    "a link to a directory, not followed: follow_links = true sends what is in it, false leaves it out for good"
)
_SKIPPED = "a link to a directory, which is not followed (follow_links = false)"


@dataclass(frozen=True, slots=True)
class _Branch:
    """A directory still to be listed. `above` identifies its ancestors; kept only where links are followed.

    `real` is where it is without links on the way, and `device` that of the directory that it is in; None where that is
    to be found out.
    """

    path: str
    real: str
    above: tuple[tuple[int, int], ...] = ()
    through_link: bool = False
    device: int | None = None


class _File(io.FileIO):
    """A file that is being read. Whoever writes to it may put its time back, but not that of the change itself."""

    _changed: int | None = None

    def is_other(self, status: os.stat_result) -> bool:
        """Whether this is another state than at the first look."""
        before, self._changed = self._changed, status.st_ctime_ns
        # On Windows that is the time at which the file was made.
        return os.name != "nt" and before not in (None, status.st_ctime_ns)


class LocalSource:
    """The tree below `root`. See `Source`.

    Dot files count. A link to a regular file of the tree counts as that file. Links that lead out of the tree, and
    those to directories, are followed only with `follow_links`, and never round in circles; where None, nobody has
    decided that yet. What is the program's `own` is left out, and a problem says so.
    """

    def __init__(self, root: Path, *, follow_links: bool | None, own: OwnFiles = OwnFiles()) -> None:
        # Path.resolve() would follow links.
        self._tree = LocalTree(_long_path(os.path.abspath(root)), follow_links=bool(follow_links))  # noqa: PTH100
        self._shown = str(root)
        self._follow_links = bool(follow_links)
        self._is_decided = follow_links is not None
        self._withheld = Withheld(own)

    @property
    def url(self) -> str:
        return self._shown

    @property
    def service(self) -> str | None:
        return None

    @property
    def is_remote(self) -> bool:
        return False

    @property
    def is_sequential(self) -> bool:
        return False

    def walk(self) -> Iterator[Directory]:
        """See `Source.walk`. A file that disappears during the listing is a problem, not an absence.

        Entries are kept when their names differ only in case or in Unicode normalisation, and a problem
        names them: on another file system, or in another store, they may be one.
        """
        mount_points = frozenset(str(each.point) for each in mounts())
        pending = [_Branch("", os.path.realpath(self._tree.root), through_link=True)]
        while pending:
            branch = pending.pop()
            try:
                found = self._list(branch)
            except OSError as error:
                if exhausted := OutOfResources.of(error):
                    raise exhausted from error
                if not branch.path:
                    raise self._unusable(error) from error
                yield Directory(branch.path, [], [_problem(ProblemKind.UNREADABLE_DIRECTORY, branch.path, error)])
                continue
            if self._withheld.is_store(found.identity):
                yield self._store(branch)
                continue
            is_mounted = found.identity[0] != self._device_above(branch) or branch.real in mount_points
            self._withheld.take_out(branch.path, found)
            lead = f"{branch.path}/" if branch.path else ""
            if not self._follow_links:
                self._take_out_links_to_outside(lead, found)
            above = (*branch.above, found.identity) if self._follow_links else ()
            device = found.identity[0]
            real = branch.real.rstrip(os.sep)
            pending.extend(
                [_Branch(lead + name, f"{real}{os.sep}{name}", above, device=device) for name in found.directories]
            )
            for name in found.linked:
                target = self._linked(lead + name, above, found.problems)
                pending.extend(target)
            yield Directory(branch.path, found.entries, found.problems, is_mounted=is_mounted, is_empty=found.is_empty)

    def stat(self, path: str) -> FileStat | None:
        try:
            status = self._tree.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return FileStat(status.st_size, status.st_mtime_ns // 1000) if modes.S_ISREG(status.st_mode) else None

    def read_small(self, path: str, *, size: int) -> SmallFile:
        descriptor = self._tree.open(path)
        try:
            data = os.read(descriptor, size + 1)
            while len(data) < size and (more := os.read(descriptor, size + 1 - len(data))):
                data += more
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        self._examine(status, path)
        return SmallFile(data, FileStat(status.st_size, status.st_mtime_ns // 1000))

    def origin(self, path: str) -> Origin | None:
        """A file is of no service."""
        return None

    def open(self, path: str) -> BinaryIO:
        """See `Source.open`. What is not a regular file (any more) is an OSError too, and never waited for."""
        descriptor = self._tree.open(path)
        try:
            self._examine(os.fstat(descriptor), path)
        except OSError:
            os.close(descriptor)
            raise
        return _File(descriptor, "rb")

    def open_stat(self, stream: BinaryIO) -> FileStat:
        """See `Source.open_stat`. FileReplaced when the file was touched since, though that may not show otherwise."""
        status = os.fstat(stream.fileno())
        if isinstance(stream, _File) and stream.is_other(status):
            raise FileReplaced(errno.EBUSY, "it changed while it was read")
        return FileStat(status.st_size, status.st_mtime_ns // 1000)

    def open_md5(self, stream: BinaryIO) -> bytes | None:
        """Nobody says it."""
        return None

    def close(self) -> None:
        """Let go of the directory that this thread read in last."""
        self._tree.let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _unusable(self, error: OSError) -> DeletionRefused:
        hint = "Is the path right, the share mounted, and may you read it? Nothing was recorded."
        if (kind := archive_kind(self._shown)) and isinstance(error, NotADirectoryError):
            hint = f"For the files in an archive write {kind}://::{self._shown}. Nothing was recorded."
        return DeletionRefused(f"the source {self._shown} cannot be listed: {error.strerror or error}", hint=hint)

    def _examine(self, status: os.stat_result, path: str) -> None:
        """OSError for what was opened and is not to be read."""
        if not modes.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        self._withheld.check(status, path)

    def _store(self, branch: _Branch) -> Directory:
        """The central store as a part of the source."""
        if not branch.path:
            raise ConfigError(f"the source {self._shown} is the central store", hint="Name two different directories.")
        return Directory(branch.path, [], [Problem(ProblemKind.OWN_FILE, branch.path, "the central store: not sent")])

    def _list(self, branch: _Branch) -> Found:
        """List one directory, all of it or (OSError) nothing."""
        full = self._tree.join(branch.path)
        if not _BY_DESCRIPTOR:
            found = read_directory(full, branch.path)
            found.identity = _identity(Path(full).stat())
            return found
        # Asking by descriptor is also faster: the kernel does not walk the whole path again for every file.
        descriptor = os.open(full, OPEN_DIRECTORY | (0 if branch.through_link else os.O_NOFOLLOW))
        try:
            found = read_directory(descriptor, branch.path)
            found.identity = _identity(os.fstat(descriptor))
            return found
        finally:
            os.close(descriptor)

    def _linked(self, path: str, above: tuple[tuple[int, int], ...], problems: list[Problem]) -> Iterator[_Branch]:
        """The directory behind a link, if it is to be entered; else a problem says why not."""
        if not self._follow_links:
            kind = ProblemKind.SKIPPED_LINK if self._is_decided else ProblemKind.LINK_TO_DIRECTORY
            problems.append(Problem(kind, path, _SKIPPED if self._is_decided else _UNDECIDED))
            return
        try:
            identity = _identity(Path(self._tree.join(path)).stat())
        except OSError as error:
            problems.append(_problem(ProblemKind.UNREADABLE_DIRECTORY, path, error))
            return
        if identity in above:
            problems.append(Problem(ProblemKind.LINK_LOOP, path, "leads to a directory that it is in"))
            return
        yield _Branch(path, os.path.realpath(self._tree.join(path)), above, through_link=True)

    def _device_above(self, branch: _Branch) -> int:
        """The device of the directory that this one is really in, whatever links lead to it."""
        if branch.device is not None:
            return branch.device
        with suppress(OSError):
            return Path(self._tree.join(branch.path), os.pardir).stat().st_dev
        return 0

    def _take_out_links_to_outside(self, lead: str, found: Found) -> None:
        """Take out the links to files that are not in the source, and say so."""
        outside = {name for name in found.links if self._tree.inside(lead + name) is None}
        if outside:
            found.entries[:] = [entry for entry in found.entries if entry.name not in outside]
            found.problems += [
                Problem(ProblemKind.LINK_TO_OUTSIDE, lead + name, LEADS_OUTSIDE) for name in sorted(outside)
            ]


def _problem(kind: ProblemKind, path: str, error: OSError) -> Problem:
    return Problem(kind, path, error.strerror or str(error))


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _long_path(path: str) -> str:
    """On Windows the spelling without the limit of 260 characters; elsewhere `path`."""
    if os.name != "nt" or path.startswith("\\\\?\\"):
        return path
    return "\\\\?\\UNC" + path[1:] if path.startswith("\\\\") else "\\\\?\\" + path
