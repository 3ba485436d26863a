"""What the members of archives are called, and which of them can be files of a source."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from chorus_upload.errors import StorageError
from chorus_upload.model import Problem, ProblemKind
from chorus_upload.storage.keys import check_key
from chorus_upload.storage.source import Directory, Entry, FileStat

_HELD = 10_000
_LONGEST_KEY = 1024


def path_of(name: str, inner: str) -> str | None:
    """The path of a member below the directory `inner`; None when it is not below it.

    Some programs begin all names with `./`, which says nothing.
    """
    while name.startswith("./"):
        name = name[2:]
    if not inner:
        return name
    return name[len(inner) + 1 :] if name.startswith(f"{inner}/") else None


def refused(path: str) -> Problem | None:
    """What is wrong with the path of a member, if a source cannot have such a file."""
    detail = "a name must not hold a backslash" if "\\" in path else ""
    try:
        check_key(path)
    except StorageError as error:
        detail = error.message
    if not detail:
        return None
    return Problem(ProblemKind.INVALID_NAME, shown(path), detail)


def too_deep(path: str) -> Problem | None:
    """What is wrong with a directory in which no file could have a central key: it may lead in a circle, too."""
    if len(path.encode("utf-8", "surrogateescape")) < _LONGEST_KEY:
        return None
    return Problem(ProblemKind.INVALID_NAME, path, "it is so deep that nothing in it could be sent")


def shown(name: str) -> str:
    """A name as it can be written down, whatever bytes it is made of."""
    return name.encode("utf-8", "backslashreplace").decode()


class Collector:
    """Puts members together to directories, in the order of the archive: what follows each other stays together."""

    def __init__(self) -> None:
        self._path = ""
        self._entries: list[Entry] = []
        self._claims: dict[str, bytes] = {}
        self._problems: list[Problem] = []
        self.is_empty = True
        """Whether nothing at all was met so far."""

    def file(self, path: str, size: int, mtime_us: int, *, claim: bytes | None = None) -> Iterator[Directory]:
        """Take a file in, with its MD5 or CRC-32; gives a directory when that is complete, or large enough."""
        directory, name = posixpath.split(path)
        if directory != self._path or len(self._entries) >= _HELD:
            yield from self.rest()
            self._path = directory
        self._entries.append(Entry(name, *FileStat.told(size, mtime_us)))
        if claim is not None:
            self._claims[name] = claim
        self.is_empty = False

    def problem(self, problem: Problem) -> Iterator[Directory]:
        """Take in what cannot be a file."""
        directory = "" if problem.kind is ProblemKind.INVALID_NAME else posixpath.dirname(problem.path)
        if directory != self._path:
            yield from self.rest()
            self._path = directory
        self._problems.append(problem)
        self.is_empty = False

    def rest(self) -> Iterator[Directory]:
        """What was not given yet."""
        if self._entries or self._problems:
            yield Directory(self._path, self._entries, self._problems, self._claims, is_hashed=bool(self._claims))
            self._entries, self._claims, self._problems = [], {}, []
