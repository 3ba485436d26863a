"""What is on a disk after a power cut: a record of all that a program has asked of it, replayed without mercy.

`strace` writes down every system call that changes a file or a directory, with its data. `Plug` replays them on a disk
that keeps nothing but what was asked for with `fsync`: a file's content and time with one of the file, its name with
one of its directory. It can be pulled after every call. Most file systems keep more than that; none keeps less.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_CALLS = (
    "openat,open,creat,write,pwrite64,ftruncate,truncate,fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,"
    "unlinkat,rmdir,mkdir,mkdirat,utimensat"
)
# Whatever else writes to files would go unnoticed: then the record is of no use.
_UNEXPECTED = "writev,pwritev,pwritev2,sendfile,copy_file_range,fallocate,sync,syncfs,sync_file_range,symlink,symlinkat"

_LINE = re.compile(r"^(?P<process>\d+) +(?P<rest>.*)$")
_CALL = re.compile(r"^(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+)(?P<of><[^>]*>)?")
_TIME = re.compile(r"tv_sec=(\d+), tv_nsec=(\d+)")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_BEHIND = re.compile(r"^\w+<([^>]*)>")


@dataclass(frozen=True, slots=True)
class Call:
    """A system call that succeeded, with the paths it is about."""

    name: str
    paths: tuple[Path, ...]
    data: bytes = b""
    number: int = 0
    """A size, an offset, or a time in nanoseconds."""
    is_new: bool = False
    is_emptied: bool = False


def is_recordable() -> bool:
    """Whether this machine has what it takes."""
    return (
        shutil.which("strace") is not None
        and subprocess.run(["strace", "-f", "-o", os.devnull, "true"], capture_output=True, check=False).returncode == 0
    )


def record(arguments: Sequence[str], *, home: Path, log: Path) -> tuple[int, list[Call]]:
    """Run the program, and give its exit code and every call below the directory above `home`."""
    tracing = f"trace={_CALLS},{_UNEXPECTED}"
    strace = shlex.split("strace -f --seccomp-bpf -y -v -xx -s 100000000 -e signal=none")
    done = subprocess.run(
        [*strace, "-e", tracing, "-o", str(log), sys.executable, "-m", "chorus_upload", *arguments],
        cwd=home,
        capture_output=True,
        check=False,
        timeout=500,
    )
    with log.open(encoding="ascii") as lines:
        calls = [call for line in _whole(lines) if (call := _parsed(line, home.parent)) is not None]
    return done.returncode, calls


def _whole(lines: Iterable[str]) -> Iterator[str]:
    """Calls during which another thread made one are told in two pieces."""
    begun: dict[str, str] = {}
    for line in lines:
        match = _LINE.match(line.rstrip("\n"))
        assert match, line[:200]
        process, rest = match["process"], match["rest"]
        if rest.endswith("<unfinished ...>"):
            begun[process] = rest.removesuffix("<unfinished ...>")
        elif rest.startswith("<... "):
            yield begun.pop(process) + rest.partition(" resumed>")[2]
        else:
            yield rest


def _parsed(line: str, root: Path) -> Call | None:
    match = _CALL.match(line)
    if match is None or match["result"].startswith("-"):
        return None
    name, arguments = match["name"], match["arguments"]
    strings = [bytes.fromhex(each.replace("\\x", "")) for each in _STRING.findall(arguments)]
    paths, data, number = _meaning(name, arguments, strings, result=match["of"] or "")
    # Not resolved: a link is what it is.
    clean = [Path(os.path.normpath(path)) for path in paths]
    below = tuple(path for path in clean if path.is_relative_to(root))
    if not below:
        return None
    assert name not in _UNEXPECTED.split(","), f"a call that is not understood: {line[:300]}"
    return Call(name, below, data, number, "O_CREAT" in arguments, "O_TRUNC" in arguments)


def _meaning(name: str, arguments: str, strings: list[bytes], *, result: str) -> tuple[list[Path], bytes, int]:
    match name:
        case "openat" | "open" | "creat":
            return [_decoded(result.strip("<>"))], b"", 0
        case "write" | "pwrite64" | "ftruncate" | "fsync" | "fdatasync":
            number = arguments.rpartition(", ")[2]
            return [_behind(arguments)], (strings or [b""])[0], int(number) if number.isdecimal() else 0
        case "utimensat":
            times = _TIME.findall(arguments)
            at = [_at(arguments, strings[0])] if strings else [_behind(arguments)]
            return at, b"", int(times[1][0]) * 10**9 + int(times[1][1]) if len(times) == 2 else 0
        case _ if strings:
            return [_at(arguments, each) for each in strings], b"", int("AT_REMOVEDIR" in arguments)
        case _:
            return [_behind(arguments)] if _BEHIND.match(arguments) else [], b"", 0


def _at(arguments: str, name: bytes) -> Path:
    """A path as the call had it, which may be relative to an open directory, or to where the program is."""
    return Path(_behind(arguments), os.fsdecode(name)) if _BEHIND.match(arguments) else Path(os.fsdecode(name))


def _behind(arguments: str) -> Path:
    match = _BEHIND.match(arguments)
    assert match, arguments[:200]
    return _decoded(match[1])


def _decoded(path: str) -> Path:
    if path.startswith("\\x"):
        path = os.fsdecode(bytes.fromhex(path.replace("\\x", "")))
    return Path(path.removesuffix(" (deleted)"))


@dataclass(slots=True)
class _File:
    content: bytearray = field(default_factory=bytearray)
    mtime_ns: int = 0
    kept: tuple[bytes, int] = (b"", 0)
    """What was asked to be kept: content and time."""


@dataclass(slots=True)
class _Directory:
    names: dict[str, _File | _Directory] = field(default_factory=dict)
    kept: dict[str, _File | _Directory] = field(default_factory=dict)


class Plug:
    """A disk below `root`, as it is in memory and as it would be after a power cut."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._top = self._loaded(root)

    def _loaded(self, directory: Path) -> _Directory:
        """What was there before is there for good."""
        loaded = _Directory()
        for path in directory.iterdir():
            if path.is_dir():
                loaded.names[path.name] = self._loaded(path)
            else:
                body, mtime_ns = path.read_bytes(), path.stat().st_mtime_ns
                loaded.names[path.name] = _File(bytearray(body), mtime_ns, (body, mtime_ns))
        loaded.kept = dict(loaded.names)
        return loaded

    def replay(self, call: Call) -> bool:
        """Let a call happen; gives whether a power cut after it differs from one before it."""
        path = call.paths[0]
        match call.name:
            case "openat" | "open" | "creat":
                return self._open(path, call)
            case "write":
                self._file(path).content += call.data
                return False
            case "pwrite64":
                content = self._file(path).content
                content.extend(bytes(max(0, call.number - len(content))))
                content[call.number : call.number + len(call.data)] = call.data
                return False
            case "ftruncate" | "truncate":
                content = self._file(path).content
                content.extend(bytes(max(0, call.number - len(content))))
                del content[call.number :]
                return False
            case "utimensat":
                if isinstance(node := self._find(path), _File):
                    node.mtime_ns = call.number
                return False
            case "fsync" | "fdatasync":
                self._sync(path)
            case "rename" | "renameat" | "renameat2":
                self._directory(call.paths[1].parent).names[call.paths[1].name] = self._taken(path)
            case "link" | "linkat":
                self._directory(call.paths[1].parent).names[call.paths[1].name] = self._file(path)
            case "unlink" | "unlinkat" | "rmdir":
                self._taken(path)
            case "mkdir" | "mkdirat":
                self._directory(path.parent).names[path.name] = _Directory()
        return True

    def write_down(self, target: Path, *, names_are_kept: bool) -> None:
        """What is there when the power comes back.

        A file system with a journal of its own keeps names in their order, whether it is asked or not: with
        `names_are_kept` all of them, while content that nobody asked for is nothing but zeros.
        """
        shutil.rmtree(target, ignore_errors=True)
        self._write_directory(self._top, target, names_are_kept)

    def looks(self, *, names_are_kept: bool) -> int:
        """A number that is another one when something else would be there."""
        return hash(_looks(self._top, names_are_kept))

    def _write_directory(self, directory: _Directory, target: Path, names_are_kept: bool) -> None:  # noqa: FBT001
        target.mkdir(parents=True)
        for name, node in (directory.names if names_are_kept else directory.kept).items():
            if isinstance(node, _Directory):
                self._write_directory(node, target / name, names_are_kept)
                continue
            body, mtime_ns = node.kept
            if names_are_kept and len(node.content) > len(body):
                body += bytes(len(node.content) - len(body))
            (target / name).write_bytes(body)
            (target / name).chmod(0o600)
            if mtime_ns:
                os.utime(target / name, ns=(mtime_ns, mtime_ns))

    def _open(self, path: Path, call: Call) -> bool:
        node = self._find(path)
        if node is None and call.is_new:
            self._directory(path.parent).names[path.name] = _File()
            return True
        if call.is_emptied:
            self._file(path).content.clear()
        return False

    def _sync(self, path: Path) -> None:
        node = self._find(path)
        if isinstance(node, _Directory):
            node.kept = dict(node.names)
        elif node is not None:
            node.kept = bytes(node.content), node.mtime_ns

    def _taken(self, path: Path) -> _File | _Directory:
        return self._directory(path.parent).names.pop(path.name)

    def _find(self, path: Path) -> _File | _Directory | None:
        node: _File | _Directory | None = self._top
        for part in path.relative_to(self._root).parts:
            node = node.names.get(part) if isinstance(node, _Directory) else None
        return node

    def _file(self, path: Path) -> _File:
        node = self._find(path)
        assert isinstance(node, _File), path
        return node

    def _directory(self, path: Path) -> _Directory:
        node = self._find(path)
        assert isinstance(node, _Directory), path
        return node


def _looks(node: _File | _Directory, names_are_kept: bool) -> object:  # noqa: FBT001
    if isinstance(node, _File):
        return (node.kept, len(node.content) if names_are_kept else 0)
    names = node.names if names_are_kept else node.kept
    return tuple((name, _looks(names[name], names_are_kept)) for name in sorted(names))
