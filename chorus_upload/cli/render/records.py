"""Values of the program as JSON.

A dataclass becomes an object with all its fields; bytes become lower-case hex; a field `…_us` keeps its
microseconds and is joined by one without the suffix in ISO 8601 with the local offset.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import PurePath

from chorus_upload.cli.render.formats import iso_time

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

_WORD_START = re.compile(r"(?<!^)(?=[A-Z])")


def event_name(value: object) -> str:
    """Return the name of a value's type as JSON spells it: `FileDelivered` is `file-delivered`."""
    return _WORD_START.sub("-", type(value).__name__).lower()


def as_json(value: object) -> Json:
    """Convert a value of the program; a type that has no meaning in JSON is an error of the program."""
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, PurePath):
        return str(value)
    return _composite(value)


def _composite(value: object) -> Json:
    if isinstance(value, Mapping):
        return {str(as_json(key)): as_json(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value):
        return fields_of(value)
    if isinstance(value, Iterable):
        return [as_json(item) for item in value]
    raise TypeError(f"{type(value).__name__} has no JSON form")


def fields_of(value: object) -> dict[str, Json]:
    """Convert a dataclass to an object of its fields, with readable twins of its times."""
    if not dataclasses.is_dataclass(value):
        raise TypeError(f"{type(value).__name__} is not a dataclass")
    result: dict[str, Json] = {}
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        result[field.name] = as_json(item)
        if field.name.endswith("_us"):
            result[field.name.removesuffix("_us")] = None if item is None else iso_time(item)
    return result


def json_line(event: str, fields: Mapping[str, Json]) -> str:
    """Return one line of JSON, `event` first.

    It is pure ASCII, so that no console and no file encoding can break it; a byte of a file name that is not
    UTF-8 travels as the lone surrogate that Python reads it as.
    """
    return json.dumps({"event": event, **fields}, ensure_ascii=True, separators=(", ", ": "))


def csv_line(cells: Iterable[Json]) -> bytes:
    """Return one line of CSV as UTF-8; None is an empty cell."""
    line = io.StringIO()
    csv.writer(line).writerow(cells)
    return line.getvalue().encode("utf-8", "backslashreplace")
