"""Files that are being written and have no name yet, and what becomes of those that a killed process leaves.

Such a file is hidden, and locked by the operating system for as long as somebody writes to it, so that what nobody
has locked is known to be dead. Its name says on which machine it was begun: where several share a disk, some of them
do not see each other's locks, so what another machine has left has to be old as well.
"""

from __future__ import annotations

import hashlib
import io
import os
import platform
import secrets
import time
from contextlib import suppress
from pathlib import Path

from chorus_upload.storage.guard import LocksUnsupported, is_still, lock, try_lock
from chorus_upload.storage.keys import LEFTOVER_PREFIX
from chorus_upload.storage.tries import local_tries, never_held

_SUFFIX = ".part"


def new_part(directory: Path) -> tuple[Path, io.FileIO]:
    """A new hidden file, open for reading and writing, for as long as which nobody takes it for dead.

    Raises FileNotFoundError when there is no such directory.
    """
    for _ in local_tries():
        place = directory / f"{LEFTOVER_PREFIX}{_machine()}-{secrets.token_hex(8)}{_SUFFIX}"
        file = io.FileIO(place, "x+b")
        try:
            with suppress(LocksUnsupported):
                lock(file.fileno())
            # Before it was locked somebody may have taken it for dead.
            if is_still(place, file.fileno()):
                return place, file
        except BaseException:
            file.close()
            raise
        file.close()
    raise never_held(directory)


def remove_dead_parts(directory: Path, *, older_than: float) -> None:
    """Remove the hidden files that a process of this machine has left, and others that are older (in seconds).

    What cannot be removed is left to others.
    """
    with suppress(OSError):
        for place in directory.glob(f"{LEFTOVER_PREFIX}*{_SUFFIX}"):
            is_ours = place.name.startswith(f"{LEFTOVER_PREFIX}{_machine()}-")
            with suppress(OSError):
                if time.time() - place.stat().st_mtime > older_than:
                    place.unlink()
                elif is_ours:
                    _remove_if_dead(place)


def _remove_if_dead(place: Path) -> None:
    if os.name == "nt":
        # A file that is open cannot be removed there.
        place.unlink()
        return
    with io.FileIO(place, "r+b") as file:
        if try_lock(file.fileno()):
            place.unlink()


def _machine() -> str:
    return hashlib.sha256(platform.node().encode("utf-8", "surrogateescape")).hexdigest()[:8]
