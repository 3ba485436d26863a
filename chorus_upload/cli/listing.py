"""Writing the paths of `file list`: data that other programs read, byte for byte."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from chorus_upload.cli.render.records import fields_of, json_line
from chorus_upload.cli.render.stream import Stream
from chorus_upload.cli.render.text import printable
from chorus_upload.errors import ConfigError
from chorus_upload.model import ListedFile
from chorus_upload.storage.parts import new_part, remove_dead_parts

_BATCH = 1_000
_OLD_SECONDS = 7 * 86_400.0

Encode = Callable[[ListedFile], bytes]


@dataclass(frozen=True, slots=True)
class Listed:
    """What was written. `escaped` counts names with line breaks, which a list of lines cannot hold as they are."""

    files: int
    bytes: int
    escaped: int


@dataclass(frozen=True, slots=True)
class ListFinished:
    """The last line of `file list --json`: everything before it is complete."""

    files: int
    bytes: int


def as_screen_line(file: ListedFile) -> bytes:
    """For eyes: nothing that a terminal would act upon."""
    return printable(file.path).encode("utf-8") + b"\n"


def as_line(file: ListedFile) -> bytes:
    """The exact bytes of the path and a newline; a line break within a name is shown as an escape."""
    return _bytes_of(file.path.replace("\n", "\\n").replace("\r", "\\r")) + b"\n"


def as_null_terminated(file: ListedFile) -> bytes:
    """The exact bytes of the path and a NUL, which no name can hold."""
    return _bytes_of(file.path) + b"\0"


def as_json_line(file: ListedFile) -> bytes:
    """All that the journal knows of the file."""
    return json_line("listed-file", fields_of(file)).encode("ascii") + b"\n"


def write_listing(files: Iterable[ListedFile], encode: Encode, write: Callable[[bytes], bool]) -> Listed | None:
    """Write every file. `write` takes some lines at once and returns False when nobody reads any more.

    Returns None then: what was written is only a part.
    """
    number = volume = escaped = 0
    batch: list[bytes] = []
    for file in files:
        number += 1
        volume += file.size
        escaped += "\n" in file.path or "\r" in file.path
        batch.append(encode(file))
        if len(batch) == _BATCH:
            if not write(b"".join(batch)):
                return None
            batch.clear()
    return Listed(number, volume, escaped) if write(b"".join(batch)) else None


def to_stream(stream: Stream) -> Callable[[bytes], bool]:
    """Return a writer to standard output. On a screen that is not UTF-8 the stream escapes what it cannot show."""

    def write(data: bytes) -> bool:
        if stream.is_terminal:
            stream.write(data.decode("utf-8"))
            stream.flush()
        else:
            stream.write_bytes(data)
        return not stream.gone

    return write


@contextmanager
def to_file(path: Path) -> Iterator[Callable[[bytes], bool]]:
    """Write to a file that appears under its name only when it is complete. ConfigError if it cannot be written.

    What a killed command left of another one in the same directory is removed.
    """
    remove_dead_parts(path.parent, older_than=_OLD_SECONDS)
    try:
        unfinished, raw = new_part(path.parent)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
    try:
        with io.BufferedWriter(raw) as file:

            def write(data: bytes) -> bool:
                file.write(data)
                return True

            yield write
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _bytes_of(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")
