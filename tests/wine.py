"""Run Windows batch files, in the cmd of Wine that `scripts/wine` installs.

A batch file's `az` and `azcopy`, and what else it calls, reach programs of this machine: in the Windows of a test
stands Microsoft's own `az.cmd`, in essence, and beside it for `python.exe`, and for `azcopy.exe`, a program that hands
its command line over to here and passes on what the program of this machine prints, and its exit code.

Text that cmd reads or prints is in UTF-8, as on a Windows after `chcp 65001`; but `for /f` reads a file as UTF-8 only
when it begins with a byte order mark, which breaks the first line of a batch file: names that are not ASCII are to be
in a file of their own.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import socket
import socketserver
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

INSTALLED = Path(__file__).resolve().parent.parent / ".tools" / "wine"

_AZURE_CLI = Path("Program Files/Microsoft SDKs/Azure/CLI2")
_AZCOPY = Path("Program Files/AzCopy")
_OTHERS = Path("Program Files/Programs")
_AZ_CMD = """\
@IF EXIST "%~dp0\\..\\python.exe" (
  SET AZ_INSTALLER=MSI
  "%~dp0\\..\\python.exe" -IBm azure.cli %*
) ELSE (
  echo Failed to load python executable.
  exit /b 1
)
"""
_SHELL = "C:\\windows\\system32;C:\\windows"
_PLAIN = re.compile(r"[A-Za-z0-9_.:/\\-]+")
_ABSOLUTE = re.compile(r"((?:\\\\\?\\)?)[A-Za-z]:[\\/]")
_PASSED_ON = (
    "AZURE_",
    "AZCOPY_",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
)  # the variables of a batch file that reach the host's programs
_OUTPUT, _ERRORS, _EXIT = 1, 2, 0


@dataclass(frozen=True)
class Call:
    """What a batch file called: `arguments` are what a program on Windows would have got."""

    name: str
    command_line: str
    arguments: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str]
    drive_c: Path

    def here(self, argument: str) -> str:
        """The argument, with a Windows path of the form X:\\... or @X:\\... in the form of this machine.

        @file that holds such a path, as az reads it, becomes a file beside that one with the path of this machine.
        """
        at, path = ("@", argument[1:]) if argument.startswith("@") else ("", argument)
        found = _ABSOLUTE.match(path)
        if found:
            return at + str(unix_path(path[found.end(1) :], self.drive_c))
        if at and (file := self.folder / path).is_file():
            content = file.read_text().rstrip("\r\n")
            if found := _ABSOLUTE.match(content):
                other = file.with_name(f"{file.name}.here")
                other.write_text(str(unix_path(content[found.end(1) :], self.drive_c)))
                return f"@{other}"
        return argument


Program = Callable[[Call], Sequence[str]]
"""Says by which command of this machine a call is to be answered."""


def program(*command: str) -> Program:
    """The command, with the arguments of the call behind it, absolute Windows paths among them made this machine's."""
    return lambda call: [*command, *map(call.here, call.arguments)]


@dataclass(frozen=True)
class Ran:
    exit_code: int
    out: str
    err: str


def unix_path(path: str, drive_c: Path) -> Path:
    drive, rest = path[0].lower(), path[2:].replace("\\", "/").lstrip("/")
    return (drive_c if drive == "c" else Path("/")) / rest


def windows_path(path: Path) -> str:
    return "Z:" + str(path.absolute()).replace("/", "\\")


def split_command_line(line: str) -> list[str]:
    """The arguments, the program's own name left out, as Microsoft's C runtime finds them (so Python and Go do)."""
    rest = re.sub(r'\A(?:"[^"]*"?|[^\s"])*', "", line)
    arguments: list[str] = []
    current: list[str] | None = None
    quoted = False
    for backslashes, quotes, blank, text in re.findall(r'(\\*)("+)|([ \t]+)|(\\+|[^\\" \t]+)', rest):
        if quotes:
            current = current or []
            current.append("\\" * (len(backslashes) // 2))
            left = len(quotes)
            if len(backslashes) % 2:
                current.append('"')
                left -= 1
            while left:
                if quoted and left > 1:
                    current.append('"')
                    left -= 2
                else:
                    quoted = not quoted
                    left -= 1
        elif blank and not quoted:
            if current is not None:
                arguments.append("".join(current))
            current = None
        else:
            current = current or []
            current.append(text or blank)
    return arguments if current is None else [*arguments, "".join(current)]


@dataclass(frozen=True)
class Wine:
    """One Windows, in a folder of its own."""

    prefix: Path
    port: int
    _number: Iterator[int] = field(default_factory=itertools.count, repr=False)

    @property
    def drive_c(self) -> Path:
        return self.prefix / "drive_c"

    def start(
        self, batch: Path, *arguments: str, cwd: Path, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start the batch file. The process is that of cmd: programs that it called outlive it, as on Windows."""
        # cmd's own rules for the quotes in `cmd /c` cannot be met from here: a line in a batch file can say everything.
        line = " ".join(_quoted(word) for word in (windows_path(batch), *arguments))
        starter = self.drive_c / f"start{next(self._number)}.cmd"
        starter.write_bytes(f"@{line}\r\n".encode())
        return subprocess.Popen(
            [INSTALLED / "run", "cmd", "/d", "/c", f"C:\\{starter.name}"],
            cwd=cwd,
            env=self._environment(environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(
        self,
        batch: Path,
        *arguments: str,
        cwd: Path,
        environment: Mapping[str, str] | None = None,
        timeout: float = 60,
    ) -> Ran:
        with self.start(batch, *arguments, cwd=cwd, environment=environment) as process:
            try:
                out, err = process.communicate(timeout=timeout)
            except BaseException:
                process.kill()
                self.stop()
                raise
        return Ran(process.returncode, _text(out), _text(err))

    def begin(self) -> None:
        self._server("begin")

    def stop(self) -> None:
        """End whatever still runs in this Windows."""
        self._server("stop")

    def _server(self, what: str) -> None:
        subprocess.run([INSTALLED / "run", what], env=self._environment({}), check=True, timeout=300)

    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        bridged = f"C:\\{_AZURE_CLI / 'wbin'};C:\\{_AZCOPY};C:\\{_OTHERS}".replace("/", "\\")
        return {
            "PATH": os.defpath,
            "WINEPREFIX": str(self.prefix),
            "WINE_TEXT": "utf-8",
            "WINEPATH": f"{bridged};{_SHELL}",
            "CHORUS_BRIDGE": str(self.port),
            **more,
        }


@contextlib.contextmanager
def wine(folder: Path, programs: Mapping[str, Program]) -> Iterator[Wine]:
    """A Windows in `folder`, which need not be there, with `programs` by their names in lower case."""
    prefix = folder.absolute()
    drive_c = prefix / "drive_c"
    known = {"az": _AZURE_CLI / "python.exe", "azcopy": _AZCOPY / "azcopy.exe"}
    for name in programs:
        file = drive_c / known.get(name, _OTHERS / f"{name}.exe")
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(INSTALLED / "bridge.exe", file)
    if "az" in programs:
        (drive_c / _AZURE_CLI / "wbin").mkdir(exist_ok=True)
        (drive_c / _AZURE_CLI / "wbin" / "az.cmd").write_bytes(_AZ_CMD.replace("\n", "\r\n").encode("ascii"))
    drive_c.mkdir(parents=True, exist_ok=True)
    with _Bridge(programs, drive_c) as bridge:
        thread = threading.Thread(target=bridge.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        windows = Wine(prefix, bridge.server_address[1])
        windows.begin()
        try:
            yield windows
        finally:
            windows.stop()  # ends the programs in it, with them their connections, and so the host's programs
            bridge.shutdown()
            thread.join()


class _Bridge(socketserver.ThreadingTCPServer):
    daemon_threads = False

    def __init__(self, programs: Mapping[str, Program], drive_c: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Conversation)
        self.programs = programs
        self.drive_c = drive_c


class _Conversation(socketserver.BaseRequestHandler):
    """With one process of the bridge's program, from its start to its end."""

    server: _Bridge
    request: socket.socket

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError, struct.error):  # the program in Windows was killed
            self._answer(self._call())

    def _call(self) -> Call:
        with self.request.makefile("rb") as sent:
            module, line, folder, variables = (
                sent.read(struct.unpack("<I", sent.read(4))[0]).decode("utf-16-le", "surrogatepass") for _ in range(4)
            )
        name = module.rpartition("\\")[2].rpartition(".")[0].lower()
        arguments = split_command_line(line)
        if name == "python" and arguments[:2] == ["-IBm", "azure.cli"]:
            name, arguments = "az", arguments[2:]
        pairs = (each.partition("=") for each in variables.split("\0") if each and not each.startswith("="))
        return Call(
            name,
            line,
            tuple(arguments),
            unix_path(folder, self.server.drive_c),
            {key: value for key, _, value in pairs},
            self.server.drive_c,
        )

    def _answer(self, call: Call) -> None:
        host = {key: value for key, value in os.environ.items() if not key.startswith(_PASSED_ON)}
        given = {key: call.here(value) for key, value in call.environment.items() if key.startswith(_PASSED_ON)}
        with subprocess.Popen(
            self.server.programs[call.name](call),
            cwd=call.folder,
            env={**host, **given},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdout
            assert process.stderr
            lock = threading.Lock()
            work = [
                threading.Thread(target=self._pass_on, args=(process.stdout, _OUTPUT, lock)),
                threading.Thread(target=self._pass_on, args=(process.stderr, _ERRORS, lock)),
                threading.Thread(target=self._end_with_caller, args=(process,)),
            ]
            for thread in work:
                thread.start()
            for thread in work[:2]:
                thread.join()
            process.wait()
            with contextlib.suppress(OSError):
                self.request.sendall(struct.pack("<II", _EXIT, process.returncode & 0xFFFFFFFF))
                self.request.shutdown(socket.SHUT_RDWR)
            work[2].join()

    def _pass_on(self, pipe: IO[bytes], kind: int, lock: threading.Lock) -> None:
        while part := os.read(pipe.fileno(), 65536):
            with lock, contextlib.suppress(OSError):
                self.request.sendall(struct.pack("<II", kind, len(part)) + part)

    def _end_with_caller(self, process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(OSError):
            self.request.recv(1)  # the caller never sends again: this ends when the caller does, or all is done
        if process.poll() is None:
            process.kill()


def _quoted(word: str) -> str:
    if '"' in word:
        raise ValueError(f"no quotes can be passed to a batch file: {word}")
    word = word.replace("%", "%%")
    return word if _PLAIN.fullmatch(word) else f'"{word}"'


def _text(printed: bytes) -> str:
    return printed.decode(errors="replace").replace("\r\n", "\n")
