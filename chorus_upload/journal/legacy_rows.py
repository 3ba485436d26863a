"""What a row in a journal of the older tool says, and whether it can be believed. Pure."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import NamedTuple


class State(StrEnum):
    """What a row of `v1` says of itself. MOVED: the time is another, the content is not."""

    ADDED = "ADDED"
    UPDATED = "UPDATED"
    MOVED = "MOVED"
    OUTDATED = "OUTDATED"
    DELETED = "DELETED"


class OldRow(NamedTuple):
    """A row that can be taken over.

    `seconds` is how long reading, sending and verifying took; None when it was not sent, and in `v2`.
    """

    id: int
    modality: str
    path: str
    person: int | str | None
    mtime_us: int
    size: int
    md5: str | None
    valid_us: int
    invalid_us: int | None
    upload: str | None
    version: str
    state: str | None
    seconds: float | None
    upload_is_lost: int

    def continues(self, before: OldRow) -> bool:
        """Whether this row says of the content of the one `before` it only that its time changed."""
        return (
            self.valid_us == before.invalid_us
            and (self.size, self.md5, self.version) == (before.size, before.md5, before.version)
            and self.md5 is not None
            and before.upload in (None, self.upload)
        )


class Unusable(NamedTuple):
    """A row that cannot be taken over, and why."""

    id: int
    path: str
    reason: str


_MD5 = re.compile(r"[0-9a-f]{32}")
_STATES = frozenset(State)


def plain_path(path: str) -> str:
    """Return a path without what means nothing in it: `./x`, `a//b` and `a/./b`.

    What begins with a slash stays: whether it is meant from the root of the source or of the machine cannot be told.
    """
    lead = "/" if path.startswith("/") else ""
    # A slash at the end stays: then there is no name of a file.
    *directories, name = path.split("/")
    return lead + "/".join([*(part for part in directories if part not in ("", ".")), name])


def can_be_folder(name: str) -> bool:
    """Return whether a version or a modality of that name can be one part of a key."""
    return name not in ("", ".", "..") and not any(each in name for each in "/\\\0")


def problem_of(row: tuple[object, ...]) -> str | None:  # noqa: PLR0911 - a list of reasons
    """Why these values for the fields of an OldRow cannot be taken over; SQLite holds no column to its type."""
    _, modality, path, _, mtime_us, size, md5, valid_us, invalid_us, upload, version, state, _, upload_is_lost = row
    if not isinstance(path, str) or not path.rpartition("/")[2] or "\0" in path:
        return f"its path is {path!r}"
    if not {"", ".", ".."}.isdisjoint(path.split("/")):
        return f"its path is {path!r}, which leads out of the source"
    if not isinstance(modality, str):
        return "it has no modality"
    if not isinstance(version, str):
        return "it has no version"
    if not can_be_folder(modality):
        return f"its modality is {modality!r}"
    if not can_be_folder(version):
        return f"its version is {version!r}"
    if not isinstance(size, int) or size < 0:
        return f"its size is {size!r}"
    if not isinstance(mtime_us, int):
        return f"its time is {mtime_us!r}"
    if not isinstance(valid_us, int) or not (invalid_us is None or isinstance(invalid_us, int)):
        return "it does not say from when to when it was valid"
    if md5 is not None and not (isinstance(md5, str) and _MD5.fullmatch(md5)):
        return f"its MD5 is {md5!r}"
    if upload_is_lost or not (upload is None or isinstance(upload, str)):
        return "it does not say when it was uploaded"
    return None if state is None or state in _STATES else f"its state is {state!r}"
