"""Who is working: recorded with every version, submission, command and lock."""

from __future__ import annotations

import getpass
import socket
from dataclasses import dataclass
from typing import Self

from chorus_upload import __version__


@dataclass(frozen=True, slots=True)
class Who:
    """A person at a machine with a version of this tool."""

    host: str
    user: str
    tool_version: str = __version__

    @classmethod
    def here(cls) -> Self:
        """Whoever runs this process."""
        try:
            user = getpass.getuser()
        except (KeyError, OSError, ImportError):
            # A container may run under a number that has no name.
            user = "unknown"
        return cls(host=socket.gethostname(), user=user)
