"""What `journal update` tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from chorus_upload.events.common import Tally
from chorus_upload.model import JournalingMode, Problem


@dataclass(frozen=True, slots=True)
class ScanProgressed:
    """A source is being listed."""

    root: str
    directories: int
    files: int


@dataclass(frozen=True, slots=True)
class ReadProgressed:
    """New and suspect files are being read and fingerprinted. `path` is one of the latest."""

    files: int
    files_total: int
    bytes: int
    bytes_total: int
    path: str


@dataclass(frozen=True, slots=True)
class ProblemFound:
    """Something in a source was not journaled, or a person should know of it. `modality` may be unknown."""

    problem: Problem
    root: str
    modality: str | None = None


@dataclass(frozen=True, slots=True)
class FileOutsidePatterns:
    """A file of a source that no modality's pattern matches (sent only when asked for)."""

    path: str
    root: str


@dataclass(frozen=True, slots=True)
class ModalityUpdate:
    """What one update found for one modality."""

    added: Tally = Tally()
    modified: Tally = Tally()
    touched: Tally = Tally()
    renamed: Tally = Tally()
    retired: Tally = Tally()
    unchanged: Tally = Tally()
    unreadable: int = 0

    @property
    def changed(self) -> int:
        """How many files entered or left the journal."""
        return self.added.files + self.modified.files + self.renamed.files + self.retired.files


@dataclass(frozen=True, slots=True)
class UpdateFinished:
    """The result of `journal update`.

    `outside` counts, by source root, files that no pattern matches, and `outside_examples` names the first of them;
    `pending` is what there is to upload now.
    """

    version: str
    mode: JournalingMode
    resumed: bool
    modalities: Mapping[str, ModalityUpdate]
    outside: Mapping[str, Tally]
    problems: int
    pending: Tally
    seconds: float
    outside_examples: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def total(self) -> ModalityUpdate:
        """The sum over all modalities."""
        parts = list(self.modalities.values())
        return ModalityUpdate(
            added=sum((p.added for p in parts), Tally()),
            modified=sum((p.modified for p in parts), Tally()),
            touched=sum((p.touched for p in parts), Tally()),
            renamed=sum((p.renamed for p in parts), Tally()),
            retired=sum((p.retired for p in parts), Tally()),
            unchanged=sum((p.unchanged for p in parts), Tally()),
            unreadable=sum(p.unreadable for p in parts),
        )
