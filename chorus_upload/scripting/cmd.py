"""Scripts for the cmd of Windows: the program with its settings, and beside it the list of the files.

No name stands in the script. The list is read by `for /f`, which takes a line apart at `|`, a character that no name on
Windows has; a byte order mark in its first line, which is a dummy, says that it is UTF-8::

    @B|number|etag of what its one file replaces, or -
    @F|id|size|root|length of the path|of the key|of its directory|key for a URL|key|path
    @E|number of files|which list this is

Lengths are in the units in which Windows counts. A batch is linked into one directory: in it are never two keys that
differ only in a way that Windows does not see.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC
from typing import TextIO
from urllib.parse import quote

from chorus_upload.errors import ConfigError
from chorus_upload.scripting.program import split_program
from chorus_upload.scripting.work import BATCH_BYTES, BATCH_FILES, Place, ScriptFile, Tool, Work, Writer, trusted_hosts

MOST_WORKERS = 64

_LONGEST_LINE = 7_500  # cmd reads lines of up to 8,191 characters; root and directory of links may come to some of it
_LONGEST_VALUE = 1_000  # `set /p`, with which some of what is written out is read back, takes 1,023 characters
_LONGEST_NAME = 255
_MOST_WORDS = 9

_FORBIDDEN = re.compile(r'[\x00-\x1f"*:<>?\\|]')
_DEVICE = re.compile(r"(?:CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|CLOCK\$|(?:COM|LPT)[0-9¹²³]) *(?:\.|\Z)", re.IGNORECASE)
_LIKE_A_SHORT_NAME = re.compile(r"[^/.]{1,6}~[0-9]+(?:\.[^/.]{0,3})?")
_FIRST_LINE = "\ufeff@C|made by chorus-upload for the script beside it; its lines belong together\r\n"

_ENDPOINT = re.compile(r"https?://[A-Za-z0-9.:\[\]_/~-]+")
_ETAG = re.compile(r"[A-Za-z0-9._-]+")
_CONTAINER = re.compile(r"\$?[A-Za-z0-9-]+")


def _refuses(file: ScriptFile) -> str | None:
    for what, text in (("path", file.path), ("key", file.key)):
        for name in text.split("/"):
            if reason := _reason_against(name):
                return f"its {what} cannot be used on Windows: {reason}"
    if file.key.lower() in ("on", "off"):
        return "its key cannot be used in a script for cmd: it is a word that cmd takes for an order"
    if file.replaces is not None and not _ETAG.fullmatch(file.replaces):
        return f"what it replaces has an etag that cannot be used in a script for cmd: {file.replaces!r}"
    if _length(_file_line(file, Tool.AZCOPY)) > _LONGEST_LINE:
        return "its path and its key are too long for cmd"
    return None


def _reason_against(name: str) -> str | None:
    """Why no file or directory on Windows can be called so."""
    if found := _FORBIDDEN.search(name):
        return f"{name!r} has {found[0]!r} in it"
    if not name or name in (".", ".."):
        return "a part of it is empty or has only dots"
    if name[-1] in " .":
        return f"{name!r} ends in a blank or a dot"
    if _DEVICE.match(name):
        return f"{name!r} is the name of a device"
    if any("\ud800" <= character <= "\udfff" for character in name):
        return f"{name!r} is not text"
    if _length(name) > _LONGEST_NAME:
        return f"{name!r} is longer than {_LONGEST_NAME} characters"
    return None


def _write(work: Work, files: Iterable[ScriptFile], out: TextIO, beside: Callable[[str], TextIO]) -> None:
    identity = f"{work.written:%Y%m%d%H%M%S%f}-{work.part[0]}-{work.part[1]}"
    before, program = split_program("upload.bat")
    # Put together first: what cannot be said is refused before anything is written.
    settings = [set_line(name, value) for name, value in (*_settings(work), ("c_list", identity))]
    for line in (*before.splitlines(), *settings, *program.splitlines()):
        out.write(f"{line}\r\n")
    count = 0
    batches = _Batches()
    listed = beside(".files")
    listed.write(_FIRST_LINE)
    for file in files:
        if file.replaces and work.tool is Tool.AZCOPY:
            raise ValueError(f"azcopy cannot replace {file.key!r} on a condition")
        if batches.begins_with(file):
            listed.write(f"@B|{batches.number}|{file.replaces or '-'}\r\n")
        listed.write(_file_line(file, work.tool))
        count += 1
    listed.write(f"@E|{count}|{identity}\r\n")
    if count != work.files:
        raise ValueError(f"{count} files were given for a script for {work.files}")


def _file_line(file: ScriptFile, tool: Tool) -> str:
    coded = quote(file.key, safe="/") if tool is Tool.AZCOPY else "-"
    directory = file.key.rpartition("/")[0]
    lengths = f"{_length(file.path)}|{_length(file.key)}|{_length(directory)}"
    path = file.path.replace("/", "\\")
    return f"@F|{file.id}|{file.size}|{file.root}|{lengths}|{coded}|{file.key}|{path}\r\n"


class _Batches:
    """Forms batches: of files whose links fit into one directory, or of one file that replaces another."""

    def __init__(self) -> None:
        self.number = -1
        self._files = 0
        self._bytes = 0
        self._replaces = False
        self._like_short = False
        self._spelled: dict[str, str] = {}

    def begins_with(self, file: ScriptFile) -> bool:
        """Whether a batch begins with this file, the next one."""
        spelled = _spellings(file.key)
        # A directory of such a name can be found by Windows where there is one of a longer name.
        like_short = any(map(_LIKE_A_SHORT_NAME.fullmatch, file.key.split("/")))
        new = (
            self._files == 0
            or self._files >= BATCH_FILES
            or self._bytes + file.size > BATCH_BYTES
            or self._replaces
            or file.replaces is not None
            or self._like_short
            or like_short
            or any(self._spelled.get(name, path) != path for name, path in spelled.items())
        )
        if new:
            self.number += 1
            self._files = self._bytes = 0
            self._spelled = {}
        self._files += 1
        self._bytes += file.size
        self._replaces = file.replaces is not None
        self._like_short = like_short
        self._spelled |= spelled
        return new


def _spellings(key: str) -> dict[str, str]:
    """The key and each directory above it, by how they look to somebody who does not see upper and lower case."""
    parts = key.split("/")
    paths = ("/".join(parts[:end]) for end in range(1, len(parts) + 1))
    return {path.upper().casefold(): path for path in paths}


def _settings(work: Work) -> Iterator[tuple[str, str]]:
    yield "c_tool", "az" if work.tool is Tool.AZ else "azcopy"
    yield "c_login", _yes(value=work.login)
    yield "c_standalone", _yes(value=work.standalone)
    yield "c_files", str(work.files)
    yield "c_workers", str(min(work.workers, MOST_WORKERS))
    yield "c_title", work.results_title
    yield "c_container", _plain(_CONTAINER, "container", work.destination.container)
    yield "c_prefix", work.destination.prefix
    yield "c_to_destination", _to_place(work.destination, login=work.login)
    yield "c_url", _url(work.destination)
    if work.standalone:
        if work.journal is None:
            raise ConfigError("a script that takes the lock of the journal by itself needs a journal in the cloud")
        container = _plain(_CONTAINER, "container", work.journal.container)
        yield "c_to_journal", f"--container-name {container} {_to_place(work.journal, login=work.login)}"
        yield "c_lock", f"{work.journal_key}.locked"
    yield "c_trusted", trusted_hosts(work)
    yield "c_utc", f"{work.written.astimezone(UTC):%Y%m%d%H%M%S}"
    yield "c_written", str(int(work.written.timestamp()))
    yield "c_version", work.tool_version
    yield "c_config", work.config
    yield "c_ca", work.ca_bundle or ""
    if len(work.chorus) > _MOST_WORDS:
        raise ConfigError(f"the command that starts chorus-upload has more than {_MOST_WORDS} words")
    for number, word in enumerate(work.chorus, 1):
        yield f"c_chorus_{number}", word
    yield "c_roots", str(len(work.roots))
    for number, root in enumerate(work.roots):
        yield f"c_modality_{number}", root.modality
        yield f"c_root_{number}", root.path.replace("/", "\\")


def set_line(name: str, value: str) -> str:
    """The line by which cmd sets the variable to exactly that. Raises ConfigError for what no such line can say."""
    if found := re.search(r'["\x00-\x1f\x7f-\x9f]', value):
        raise ConfigError(f"{value!r} cannot be used in a script for cmd: it has {found[0]!r} in it")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise ConfigError(f"{value!r} cannot be used in a script for cmd: it is not text")
    if _length(value) > _LONGEST_VALUE:
        raise ConfigError(f"{value[:40]!r}... cannot be used in a script for cmd: it is too long")
    value = value.replace("%", "%%")
    return f'set "{name}={value}"'


def _to_place(place: Place, *, login: bool) -> str:
    """The options with which az reaches a place, whatever host it has: with a login, too."""
    endpoint = _plain(_ENDPOINT, "address", place.endpoint)
    return f"--blob-endpoint {endpoint}" + (" --auth-mode login" if login else "")


def _url(place: Place) -> str:
    return "/".join(part for part in (place.endpoint, place.container, quote(place.prefix, safe="/")) if part)


def _plain(allowed: re.Pattern[str], what: str, text: str) -> str:
    """What stands on a command line as it is, for nothing in it means anything to cmd."""
    if not allowed.fullmatch(text):
        raise ConfigError(f"the {what} {text!r} cannot be used in a script for cmd")
    return text


def _length(text: str) -> int:
    """In UTF-16, in which Windows counts."""
    return len(text) + sum(character > "\uffff" for character in text)


def _yes(*, value: bool) -> str:
    return "yes" if value else "no"


WRITER = Writer(refuses=_refuses, write=_write, suffixes=(".bat", ".cmd"))
