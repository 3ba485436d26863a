"""One directory of a source: what is in it. Written for hundreds of thousands of files: mind the inner loop."""

from __future__ import annotations

import os
import stat as modes
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field

from chorus_upload.model import Problem, ProblemKind
from chorus_upload.storage.keys import is_text
from chorus_upload.storage.source import Entry


@dataclass(slots=True)
class Found:
    """What one directory holds, while it is being listed."""

    entries: list[Entry] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    directories: list[str] = field(default_factory=list)
    linked: list[str] = field(default_factory=list)
    links: dict[str, tuple[int, int]] = field(default_factory=dict)
    """The device and inode of the files that are entries by a link."""
    identity: tuple[int, int] = (0, 0)
    """The device and inode of the directory."""
    is_empty: bool = False
    """Whether there is nothing at all in it."""


def read_directory(where: str | int, path: str) -> Found:
    """Everything in one directory. This loop runs once for every file of a source: it is kept bare."""
    found = Found()
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
    found.is_empty = not (found.entries or found.directories or odd or vanished)
    for name in vanished:
        found.problems.append(Problem(ProblemKind.VANISHED, lead + name, "disappeared while it was listed"))
    _check_names(lead, found)
    return found


def _look_closer(entry: os.DirEntry[str], lead: str, found: Found) -> None:
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
        found.links[entry.name] = (status.st_dev, status.st_ino)
    else:
        found.problems.append(Problem(ProblemKind.NOT_A_FILE, lead + entry.name, _type_of(status.st_mode)))


def _check_names(lead: str, found: Found) -> None:
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


def _take_out_invalid(lead: str, found: Found) -> None:
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
