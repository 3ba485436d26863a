"""The mark of a local store: a hidden file with an id, by which a directory is known again wherever it is mounted.

It is no object: names that begin like this are no keys (see `keys`), so no listing shows it and nothing replaces it.
"""

from __future__ import annotations

import json
import re
import uuid
from contextlib import suppress
from pathlib import Path

from chorus_upload.errors import ObjectExists, ObjectNotFound, StorageError
from chorus_upload.storage.durable import sync_directory
from chorus_upload.storage.keys import LEFTOVER_PREFIX
from chorus_upload.storage.local_errors import translated
from chorus_upload.storage.parts import new_part
from chorus_upload.storage.publish import name_new, settle

MARK = f"{LEFTOVER_PREFIX}store"
_ABOUT = "This directory is a central store of chorus-upload, which knows it by this file. Leave it here."
_ID = re.compile(r"[0-9a-f]{32}")
_LONGEST = 10_000


def read_mark(root: Path) -> str | None:
    """Return the id in the mark of a directory; None when it has none, or is not there.

    Raises StorageError when a mark is there and cannot be read.
    """
    path = root / MARK
    with translated(f"reading {path}"):
        try:
            with path.open("rb") as file:
                content = file.read(_LONGEST)
        except (FileNotFoundError, NotADirectoryError):
            return None
    try:
        found = json.loads(content)["id"]
    except (ValueError, KeyError, TypeError, RecursionError):
        found = None
    if not isinstance(found, str) or not _ID.fullmatch(found):
        raise StorageError(
            f"{path} is not what chorus-upload wrote there: the store cannot be recognised by it",
            hint="Put that file back from a backup. Or remove it, if this is the right directory, and repeat the"
            " command with --same-destination.",
        )
    return found


def write_mark(root: Path, mark: str | None = None) -> str:
    """Mark a directory (with this id, or a new one) and return its id: that of the mark that is there, if one is."""
    mark = mark or uuid.uuid4().hex
    path = root / MARK
    content = json.dumps({"id": mark, "about": _ABOUT}).encode() + b"\n"
    with translated(f"writing {path}"):
        try:
            unfinished, file = new_part(root)
        except FileNotFoundError:
            raise ObjectNotFound(
                f"there is no directory {root}", hint="Create it, or mount the share that it is on."
            ) from None
        try:
            with file:
                file.write(content)
                settle(file)
                with suppress(ObjectExists):
                    name_new(unfinished, path, MARK)
            sync_directory(root)
        finally:
            unfinished.unlink(missing_ok=True)
    return read_mark(root) or mark
