"""Bounds and pauses for whatever is repeated: no loop goes on for ever, and none without a pause."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from pathlib import Path

from chorus_upload.errors import TransientError

MOST_LOCAL = 200
"""How often something on a disk is tried again because another process was quicker."""
_AT_ONCE = 10
_FIRST_SECONDS = 0.001
_LONGEST_SECONDS = 0.1


def tries(most: int, *, first: float, longest: float) -> Iterator[int]:
    """Yield the numbers of at most so many tries, with pauses between them that double from `first` to `longest`."""
    pause = first
    for number in range(most):
        if number:
            time.sleep(pause)
            pause = min(2 * pause, longest)
        yield number


def local_tries() -> Iterator[int]:
    """Yield the numbers of tries on a disk that others work on as well; the first ones follow each other at once.

    After the last one raise `never_held`: that another process is quicker so often is no coincidence.
    """
    yield from range(_AT_ONCE)
    yield from tries(MOST_LOCAL, first=_FIRST_SECONDS, longest=_LONGEST_SECONDS)


def never_held(path: Path) -> OSError:
    """Return the error for a file or directory of ours that never was the one that was opened."""
    return OSError(errno.EBUSY, "it is always replaced while it is opened, or cannot be told from another", str(path))


class Pages:
    """The pages of one listing, each of which names the marker of the next one."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._seen: set[str] = set()

    def following(self, marker: str | None) -> str | None:
        """Return the marker of the next page; None at the end.

        Raises TransientError for one that was there before: an old response that is kept somewhere on the way would
        make the listing endless.
        """
        if marker in self._seen:
            raise TransientError(
                f"listing {self._url}: the same page comes again and again",
                hint="Does something between here and the service keep old responses? Repeat the command.",
            )
        if marker is not None:
            self._seen.add(marker)
        return marker
