"""What outlives a power cut: the content of a file that was synced, and its name if its directory was, too."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def sync_directory(directory: Path) -> None:
    """Put the names that are in a directory on the disk: what a power cut takes otherwise, or brings back."""
    if os.name == "nt":
        return  # directories cannot be opened there; NTFS journals names itself
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network shares do not do this
            raise
    finally:
        os.close(descriptor)
