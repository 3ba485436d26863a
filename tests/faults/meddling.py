"""What happens to a source while the program is at it: a change, an error or an unmounting at its n-th operation there.

The functions are called in the process of the program (see `Condition`), and put themselves between it and the
operating system: whatever is asked of a path or an open file below the source is an operation, and so is every name
that a listing gives, and every block that is read.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import stat
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

from chorus_upload.storage import local_source
from tests.e2e.mortal_program import BROKEN
from tests.trees import build

OUTSIDE = "outside"
"""A directory beside the source, to which nothing that is sent may lead."""


def _rewrite(path: Path, content: bytes, *, in_secret: bool = False) -> None:
    before = path.stat()
    path.write_bytes(content)
    if in_secret:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _flipped(path: Path) -> bytes:
    return bytes(byte ^ 0xFF for byte in path.read_bytes())


def _grows(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"and more")


def _becomes(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.unlink()
        make(path)

    return change


def _a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        # The name of a socket has to be short.
        os.chdir(path.parent)
        made.bind(path.name)


def _a_device(path: Path) -> None:
    os.mknod(path, 0o644 | stat.S_IFCHR, os.makedev(1, 5))


def _a_full_directory(path: Path) -> None:
    path.mkdir()
    (path / "in it.dcm").write_bytes(b"inside")


def _source_of(path: Path) -> Path:
    return next(parent for parent in path.parents if (parent.parent / OUTSIDE).is_dir())


def _another(path: Path) -> Path:
    """A file of the source that is another one."""
    source = _source_of(path)
    return next(each for each in sorted(source.rglob("*.*")) if each.is_file() and each != path)


def _move_top(path: Path) -> None:
    """Give the directory another name that everything of its patient, or of OMOP, is in."""
    source = _source_of(path)
    top = source / path.relative_to(source).parts[0]
    top.rename(source / "1000")


def _outside(path: Path) -> Path:
    """A file outside of the source that has the same name and size as this one."""
    there: Path = _source_of(path).parent / OUTSIDE / path.name
    there.write_bytes(b"x" * path.stat().st_size)
    status = path.stat()
    os.utime(there, ns=(status.st_atime_ns, status.st_mtime_ns))
    return there


def _link_outside(path: Path) -> None:
    there = _outside(path)
    path.unlink()
    path.symlink_to(there)


def _parent_leads_outside(path: Path) -> None:
    there = _outside(path)
    path.parent.rename(path.parent.with_name("moved"))
    path.parent.symlink_to(there.parent)


def _parent_replaced(path: Path) -> None:
    shutil.rmtree(path.parent)
    path.parent.write_bytes(b"a file now")


CHANGES: dict[str, Callable[[Path], object]] = {
    "modified": lambda path: _rewrite(path, _flipped(path)),
    "modified in secret": lambda path: _rewrite(path, _flipped(path), in_secret=True),
    "appended": _grows,
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "emptied": lambda path: os.truncate(path, 0),
    "replaced by a newer file": _becomes(lambda path: path.write_bytes(b"quite another")),
    "a directory": _becomes(Path.mkdir),
    "a full directory": _becomes(_a_full_directory),
    "a link to outside": _link_outside,
    "a link to nothing": _becomes(lambda path: path.symlink_to("nothing")),
    "a link to itself": _becomes(lambda path: path.symlink_to(path.name)),
    "a pipe": _becomes(os.mkfifo),
    "a socket": _becomes(_a_socket),
    "a device": _becomes(_a_device),
    "removed": Path.unlink,
    "unreadable": lambda path: path.chmod(0),
    "renamed": lambda path: path.rename(path.with_name(f"new name of {path.name}")),
    "moved": lambda path: path.rename(_source_of(path) / "OMOP" / f"moved-{path.name}"),
    "renamed over another": lambda path: path.rename(_another(path)),
    "another renamed over it": lambda path: _another(path).rename(path),
    "parent renamed": lambda path: path.parent.rename(path.parent.with_name("Images-2")),
    "parent moved": _move_top,
    "parent removed": lambda path: shutil.rmtree(path.parent),
    "parent a file": _parent_replaced,
    "parent a link to outside": _parent_leads_outside,
    "parent unreadable": lambda path: path.parent.chmod(0),
}


def change_at(source: str, notes: str, at: int, change: str, otherwise: str) -> None:
    """Before the operation of that number the file that it concerns changes; where it concerns none, `otherwise`."""
    root = Path(source)

    def happen(path: str) -> None:
        target = Path(path)
        if not target.is_relative_to(root) or not stat.S_ISREG(os.lstat(target).st_mode):
            target = root / otherwise
        with Path(notes).open("a") as file:
            print(f"changed: {target}", file=file)
        try:
            CHANGES[change](target)
        except OSError:
            # The program must not take a fault of the test for one of the source.
            traceback.print_exc()
            os._exit(BROKEN)

    _meddle(root, Path(notes), at=range(at, at + 1), happen=happen)


def fail_from(source: str, notes: str, at: int, number: int, times: int) -> None:
    """From the operation of that number on, so many of them fail with this error."""

    def happen(path: str) -> None:
        raise OSError(number, os.strerror(number), path)

    _meddle(Path(source), Path(notes), at=range(at, at + times), happen=happen)


def unmount_at(source: str, notes: str, at: int) -> None:
    """Before the operation of that number the source is unmounted, as an administrator does it who is in a hurry."""
    detach = 2

    def happen(path: str) -> None:
        del path
        if ctypes.CDLL(None, use_errno=True).umount2(source.encode(), detach):
            raise AssertionError(os.strerror(ctypes.get_errno()))

    _meddle(Path(source), Path(notes), at=range(at, at + 1), happen=happen)


def mount(what: str, where: str) -> None:
    """Have a directory be seen under another path, unless it is already."""
    if not _is_mount(where):
        bind = 4096
        if ctypes.CDLL(None, use_errno=True).mount(what.encode(), where.encode(), None, bind, None):
            raise AssertionError(os.strerror(ctypes.get_errno()))


def mount_again(where: str, tree: dict[str, str]) -> None:
    """Mount on a directory another one of the same device, as containers do, and make these files in that."""
    if not _is_mount(where):
        other = Path(where).parents[1] / "again"
        build(other, tree)
        bind = 4096
        if ctypes.CDLL(None, use_errno=True).mount(os.fsencode(other), where.encode(), None, bind, None):
            raise AssertionError(os.strerror(ctypes.get_errno()))


def _is_mount(where: str) -> bool:
    """Whether something is mounted on a directory, of the same device perhaps."""
    return f" {where} " in Path("/proc/self/mountinfo").read_text()


def mount_memory(where: str, tree: dict[str, str]) -> None:
    """Mount an empty disk on a directory, unless it is there already, and make these files on it."""
    if not Path(where).is_mount():
        if ctypes.CDLL(None, use_errno=True).mount(b"tmpfs", where.encode(), b"tmpfs", 0, None):
            raise AssertionError(os.strerror(ctypes.get_errno()))
        build(Path(where), tree)


def unmount(where: str) -> None:
    """Unmount what is mounted on a directory."""
    if _is_mount(where) and ctypes.CDLL(None, use_errno=True).umount2(where.encode(), 0):
        raise AssertionError(os.strerror(ctypes.get_errno()))


def like_anybody() -> None:
    """Give up what makes nothing unreadable for root; for this process only."""
    if os.geteuid() == 0:
        version, without = 0x20080522, 1 << 1 | 1 << 2
        header = (ctypes.c_uint32 * 2)(version, 0)
        sets = (ctypes.c_uint32 * 6)()
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.capget(header, sets) == 0
        sets[0] &= ~without
        assert libc.capset(header, sets) == 0


class _Meddler:
    """Counts operations below a source, takes them down, and lets something happen before some of them."""

    def __init__(self, root: Path, notes: Path, at: range, happen: Callable[[str], None]) -> None:
        self.root = str(root)
        self.opened: dict[int, str] = {}
        self._notes = notes.open("a", buffering=1)
        self._at = at
        self._happen = happen
        self._number = 0
        self._lock = threading.RLock()
        self._busy = threading.local()

    def concerns(self, what: object) -> str | None:
        """The path below the source that an operation is about; None for what happens elsewhere."""
        if getattr(self._busy, "now", False):
            return None
        if isinstance(what, int):
            return self.opened.get(what)
        try:
            path = os.fsdecode(os.fspath(what))  # type: ignore[call-overload]
        except TypeError:
            return None
        return path if path == self.root or path.startswith(self.root + os.sep) else None

    def step(self, operation: str, path: str) -> None:
        with self._lock:
            self._number += 1
            print(f"{operation} {path.removeprefix(self.root)}", file=self._notes)
            if self._number in self._at:
                self._busy.now = True
                try:
                    self._happen(path)
                finally:
                    self._busy.now = False


class _Listing:
    """A listing of which every name is an operation."""

    def __init__(self, listing: Any, meddler: _Meddler, path: str) -> None:  # noqa: ANN401 - typeshed hides its class
        self._listing = listing
        self._meddler = meddler
        self._path = path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._listing.close()

    def __iter__(self) -> Iterator[os.DirEntry[str]]:
        for entry in self._listing:
            self._meddler.step("name", f"{self._path}{os.sep}{entry.name}")
            yield entry


class _Reader(local_source._File):
    """A file of which every block is an operation."""

    meddler: ClassVar[_Meddler]

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401 - as it is declared above it
        if path := self.meddler.concerns(self.fileno()):
            self.meddler.step("readinto", path)
        return super().readinto(buffer) or 0

    def close(self) -> None:
        if not self.closed:
            self.meddler.opened.pop(self.fileno(), None)
        super().close()


def _meddle(root: Path, notes: Path, *, at: range, happen: Callable[[str], None]) -> None:
    meddler = _Meddler(root, notes, at, happen)
    really = {name: getattr(os, name) for name in ("open", "close", "read", "fstat", "stat", "lstat", "scandir")}

    def watched(name: str) -> Callable[..., Any]:
        def operation(what: Any, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - it stands for any of them
            path = meddler.concerns(what)
            if path is None and isinstance(what, str) and (above := meddler.concerns(options.get("dir_fd"))):
                path = f"{above}{os.sep}{what}"
            if path is None:
                return really[name](what, *arguments, **options)
            meddler.step(name, path)
            result = really[name](what, *arguments, **options)
            if name == "open":
                meddler.opened[result] = path
            return _Listing(result, meddler, path) if name == "scandir" else result

        return operation

    def close(fd: int) -> None:
        meddler.opened.pop(fd, None)
        really["close"](fd)

    for name in ("open", "read", "fstat", "stat", "lstat", "scandir"):
        setattr(os, name, watched(name))
    os.close = close
    _Reader.meddler = meddler
    local_source._File = _Reader  # type: ignore[misc]
