"""What the commands of `remote` tell beside the events of uploads and downloads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from chorus_upload.events.common import Tally


@dataclass(frozen=True, slots=True)
class RemoteUploaded:
    """The result of `remote upload`: what was sent, what was there already, and how many files failed.

    `left_out` counts links and what else could not be sent, found below directories.
    """

    destination: str
    sent: Tally
    already_there: Tally
    failed: int
    seconds: float
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class RemoteDeleted:
    """The result of `remote delete`. `refused` says of keys why they are still there."""

    place: str
    deleted: Tally
    refused: Mapping[str, str]
