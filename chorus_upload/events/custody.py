"""What happens to the journal as a whole."""

from __future__ import annotations

from dataclasses import dataclass

from chorus_upload.events.common import Tally


@dataclass(frozen=True, slots=True)
class JournalCheckedOut:
    """The cloud journal is ours; `created` when there was none yet; `resumed` when it still was ours."""

    cloud: str
    local: str
    created: bool
    resumed: bool


@dataclass(frozen=True, slots=True)
class JournalCheckedIn:
    """The cloud holds our journal and is unlocked; `unchanged` when there was nothing to write back."""

    cloud: str
    local: str
    unchanged: bool


@dataclass(frozen=True, slots=True)
class UpgradedPart:
    """What an upgrade took over of one version and modality: so many `rows` became so many `files`.

    A row that only said that a file was touched is in the file. `uploaded` are files that were delivered.
    """

    version: str
    modality: str
    rows: int
    files: Tally
    active: Tally
    uploaded: int
    pending: Tally


@dataclass(frozen=True, slots=True)
class UpgradeRemark:
    """What an upgrade decided where the old journal left a choice, how often, and a few examples."""

    reason: str
    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class JournalUpgraded:
    """The result of `journal upgrade`: counted on both sides, and found equal.

    `in_cloud` tells the cloud journal from a mere file. `original` is where the old journal is kept; `omitted` are
    rows that were left out, each told of before. `sent_to` are the places that the old history names, which are
    taken to be `destination` or, with `is_new_destination`, to be others: then nothing counts as delivered there.
    """

    journal: str
    in_cloud: bool
    original: str
    generation: str
    parts: tuple[UpgradedPart, ...]
    submissions: int
    commands: int
    omitted: int
    remarks: tuple[UpgradeRemark, ...]
    destination: str
    sent_to: tuple[str, ...]
    is_new_destination: bool
    seconds: float
