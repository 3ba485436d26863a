"""A file of environment variables: one `NAME=VALUE` a line, as `env` and containers write it."""

from __future__ import annotations

import re
from pathlib import Path

from chorus_upload.config.pasting import unquoted

_LONGEST_FILE = 1 << 20
_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=(.*)")


def read_environment(file: Path) -> dict[str, str]:
    """Return the variables of a file; empty lines and those that begin with # are left out.

    Raises OSError, and ValueError whose text says what is wrong and shows nothing of the file.
    """
    with file.open(encoding="utf-8-sig") as stream:
        text = stream.read(_LONGEST_FILE)
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        parts = _LINE.fullmatch(line.strip())
        if parts is None:
            raise ValueError(f"line {number} is not NAME=VALUE")
        found[parts[1]] = unquoted(parts[2].strip())
    return found
