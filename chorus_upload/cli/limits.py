"""What the system allows a process."""

from __future__ import annotations

import sys
from contextlib import suppress

_ENOUGH = 8_192
"""For 512 threads, each with a connection that takes three, and a file."""


def open_as_many_files_as_allowed() -> None:
    """Raise our own limit of open files to what the system allows, as far as it could ever be used.

    What shells set (often 1,024, or 256) is meant for programs that cannot deal with more.
    """
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(_ENOUGH, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        # Some systems have another limit above it, and say so.
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
