"""Trees of files, declared inside the test that uses them.

For example: `build(root, {"OMOP/person.csv": "1", "1001/Images/a.dcm": Bytes(2_000), "link": Link("OMOP")})`.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Bytes:
    """Content of so many bytes that look random; the same for the same path and `edition`."""

    size: int
    edition: int = 0


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link, whether there is something at its end or not."""

    to: str


@dataclass(frozen=True, slots=True)
class Directory:
    """An empty directory."""


Content = str | bytes | Bytes | Link | Directory

# Every file that is written gets a later time than those before it, and all of these are long ago: a journal does
# not trust the time of a file that is younger than its own reading, and real files seldom are.
_A_SECOND = 1_000_000_000
_times = itertools.count(1_735_689_600 * _A_SECOND, _A_SECOND)


def build(root: Path, tree: Mapping[str, Content]) -> Path:
    """Make the files of `tree` below `root`, in the place of what has their names; gives `root`."""
    root.mkdir(parents=True, exist_ok=True)
    for name, content in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            path.unlink()
        match content:
            case Link():
                path.symlink_to(content.to)
            case Directory():
                path.mkdir()
            case _:
                path.write_bytes(bytes_of(name, content))
                touch(path)
    return root


def bytes_of(name: str, content: str | bytes | Bytes) -> bytes:
    """What `build` writes into the file `name`."""
    match content:
        case str():
            return content.encode()
        case bytes():
            return content
        case Bytes():
            return random.Random(f"{name} {content.edition}".encode("utf-8", "surrogateescape")).randbytes(content.size)  # noqa: S311


def touch(path: Path) -> None:
    """Give a file another time, and leave its content."""
    moment = next(_times)
    os.utime(path, ns=(moment, moment))


def rename(root: Path, old: str, new: str) -> None:
    """Move a file or a directory inside `root`; times stay as they are."""
    (root / new).parent.mkdir(parents=True, exist_ok=True)
    (root / old).rename(root / new)


def change_in_secret(path: Path) -> None:
    """Change the content of a file and neither its size nor its time."""
    before = path.stat()
    path.write_bytes(bytes(byte ^ 0xFF for byte in path.read_bytes()))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@contextmanager
def forbidden(path: Path, *, leaving: int = 0) -> Iterator[None]:
    """Take away all permissions but those for a while."""
    before = stat.S_IMODE(path.stat().st_mode)
    path.chmod(leaving)
    try:
        yield
    finally:
        path.chmod(before)


def remove(path: Path) -> None:
    """Remove a file, or a directory with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


MARK = ".chorus-upload-store"
"""By this file a directory is known as a store: it is none of the files in it."""


def contents(root: Path) -> dict[str, bytes]:
    """Every regular file below `root`, by its POSIX path, but for the marks of stores."""
    files = [path for path in root.rglob("*") if path.is_file() and path.name != MARK]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}
