"""The report of `file verify --report`: a row for every file, as CSV or as lines of JSON."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from chorus_upload.cli.listing import to_file
from chorus_upload.cli.render.records import Json, as_json
from chorus_upload.errors import ChorusError, ConfigError
from chorus_upload.events import FileVerified

COLUMNS = (
    *("path", "modality", "version", "key", "size", "result", "evidence", "detail", "fingerprint", "md5", "etag"),
    *("submission", "delivered_us"),
)
"""Fields of FileVerified, in the order in which a report has them."""

Note = Callable[[FileVerified], None]


class _Encoded:
    """A text file for the `csv` module, on top of a function that takes bytes."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write

    def write(self, text: str) -> None:
        # What is not text after all (half of a surrogate pair) must not end a check of many hours.
        self._write(text.encode("utf-8", "backslashreplace"))


def _to_csv(out: _Encoded) -> Note:
    rows = csv.writer(out)
    rows.writerow(COLUMNS)

    def note(found: FileVerified) -> None:
        # None becomes an empty cell.
        rows.writerow(_fields(found).values())

    return note


def _to_json_lines(out: _Encoded) -> Note:
    return lambda found: out.write(json.dumps(_fields(found)) + "\n")


_WRITERS = {".csv": _to_csv, ".json": _to_json_lines, ".jsonl": _to_json_lines}


def _fields(found: FileVerified) -> dict[str, Json]:
    return {name: as_json(getattr(found, name)) for name in COLUMNS}


@contextmanager
def report_to(path: Path) -> Iterator[Note]:
    """Take what was found for each file; the report appears under its name only when it is complete.

    ConfigError, before anything is done, for a name that says no format or a place that cannot be written to;
    ChorusError when it cannot be written later on.
    """
    to_format = _WRITERS.get(path.suffix.lower())
    if to_format is None:
        raise ConfigError(
            f"--report {path}: the name says no format", hint=f"It has to end in {', '.join(_WRITERS)} (lines of JSON)."
        )
    if path.is_dir():
        raise ConfigError(f"--report {path} is a directory")
    foreign: OSError | None = None
    try:
        with to_file(path) as write:

            def put(data: bytes) -> None:
                try:
                    write(data)
                except OSError as error:
                    raise _unwritable(path, error) from error

            try:
                yield to_format(_Encoded(put))
            except OSError as error:
                foreign = error
                raise
    except OSError as error:
        # Also what closing a file on a full disk raises, in the place of what has been raised before.
        if error is foreign:
            raise
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> ChorusError:
    return ChorusError(f"cannot write the report {path}: {error.strerror or error}")
