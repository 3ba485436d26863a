"""What Linux says of mounts: at which point each is, and which directory of which file system is seen there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")
_OCTAL = re.compile(r"\\([0-3][0-7]{2})")


@dataclass(frozen=True, slots=True)
class Mount:
    """A mount at `point`: the directory `shown` of what `device` names, which is empty where `shown` names a server."""

    point: Path
    device: str
    shown: Path


def mounts() -> list[Mount]:
    """Return all mounts, bind mounts within one device included; empty where Linux does not say them."""
    try:
        lines = os.fsdecode(_MOUNTS.read_bytes()).split("\n")
    except OSError:
        return []
    return [mount for line in lines if (mount := _mount(line))]


def shown_at(path: Path, mounts: Iterable[Mount]) -> tuple[str, Path] | None:
    """Return which directory of which device is seen at a path without links; the same for two that are one."""
    above = [each for each in mounts if path.is_relative_to(each.point)]
    # Of two at one point, the one that was mounted last is seen.
    at = max(reversed(above), key=_depth, default=None)
    return None if at is None else (at.device, at.shown / path.relative_to(at.point))


def _depth(mount: Mount) -> int:
    return len(mount.point.parts)


def _mount(line: str) -> Mount | None:
    """From a line like `36 35 98:0 /shown /point rw,noatime master:1 - ext4 /dev/root rw`."""
    left, _, right = line.partition(" - ")
    fields, of = [_plain(field) for field in left.split(" ")], [_plain(field) for field in right.split(" ")]
    if len(fields) < 5 or len(of) < 2:
        return None
    device, shown, point, served = fields[2], fields[3], fields[4], of[1]
    if ":" in served or served.startswith("//"):
        # Two shares of a server, of which one may be in the other: NFS says "/" for what is shown of each.
        device, shown = "", f"{served.rstrip('/')}/{shown.lstrip('/')}"
    return Mount(Path(point), device, Path(shown))


def _plain(field: str) -> str:
    """Spaces and the like are written as three octal digits."""
    return _OCTAL.sub(lambda found: chr(int(found[1], 8)), field)
