"""What operations tell the world while they work: frozen values, sent to one `emit` function.

The terminal, the JSON lines and the tests are all sinks of these same events, so they cannot drift apart.
An operation emits from one thread only; the keeper of the lock, beside it, from its own. Progress events are sent
a few times a second at most; every other event is sent once for each thing that it names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

from chorus_upload.model import Delivered, Evidence, Failed, FailureKind, JournalingMode, Problem


class Level(StrEnum):
    """How much a notice matters."""

    INFO = "info"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Notice:
    """A sentence for the user that belongs to no result."""

    text: str
    level: Level = Level.INFO


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
class Tally:
    """A number of files and their bytes."""

    files: int = 0
    bytes: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.files + other.files, self.bytes + other.bytes)


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

    `outside` counts, by source root, files that no pattern matches; `pending` is what there is to upload now.
    """

    version: str
    mode: JournalingMode
    resumed: bool
    modalities: Mapping[str, ModalityUpdate]
    outside: Mapping[str, Tally]
    problems: int
    pending: Tally
    seconds: float

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


@dataclass(frozen=True, slots=True)
class UploadPlanned:
    """What is about to be sent."""

    submission: str
    destination: str
    pending: Tally
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class FilePlanned:
    """One file of a dry run."""

    path: str
    key: str
    modality: str
    size: int


@dataclass(frozen=True, slots=True)
class UploadProgressed:
    """Files and bytes done so far, bytes of unfinished files included, and what is being sent right now."""

    files: int
    files_total: int
    bytes: int
    bytes_total: int
    current: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FileDelivered:
    """One file is proven to be in the central store, and the journal says so.

    `spared` and `replaced` are those of `Delivered`.
    """

    path: str
    key: str
    modality: str
    size: int
    evidence: Evidence
    seconds: float
    sent: bool
    spared: int = 0
    replaced: bool = False

    @classmethod
    def of(cls, done: Delivered) -> Self:
        """What to tell of an outcome."""
        transfer = done.transfer
        return cls(
            path=transfer.path,
            key=transfer.key,
            modality=transfer.modality,
            size=transfer.size,
            evidence=done.evidence,
            seconds=done.seconds,
            sent=done.sent,
            spared=done.spared,
            replaced=done.replaced,
        )


@dataclass(frozen=True, slots=True)
class FileFailed:
    """One file was not delivered and stays pending."""

    path: str
    key: str
    modality: str
    kind: FailureKind
    detail: str

    @classmethod
    def of(cls, outcome: Failed) -> Self:
        """What to tell of an outcome."""
        transfer = outcome.transfer
        return cls(transfer.path, transfer.key, transfer.modality, outcome.kind, outcome.detail)


@dataclass(frozen=True, slots=True)
class UploadFinished:
    """The result of `file upload`. `remaining` is what is still pending in the journal afterwards.

    `spared` is how many bytes of what was delivered had not to be sent; `replaced`, how many keys held other
    content before.
    """

    submission: str | None
    destination: str
    delivered: Tally
    already_there: Tally
    failed: int
    remaining: Tally
    spared: int = 0
    replaced: int = 0
    failures: Mapping[FailureKind, int] = field(default_factory=dict)
    evidence: Mapping[Evidence, int] = field(default_factory=dict)
    manifests: tuple[str, ...] = ()
    seconds: float = 0.0


class VerifyResult(StrEnum):
    """What the central store says of one file that the journal calls delivered."""

    MATCHED = "matched"
    MISSING = "missing"
    SIZE_DIFFERS = "size-differs"
    CHECKSUM_DIFFERS = "checksum-differs"
    UNREADABLE = "unreadable"
    NOT_IN_JOURNAL = "not-in-journal"

    @property
    def is_good(self) -> bool:
        return self is VerifyResult.MATCHED


@dataclass(frozen=True, slots=True)
class FileVerified:
    """What was found for one key. `evidence` is what a match rests on; size and checksums are the journal's.

    `etag` is the listing's, and so is the size of an object that is not in the journal.
    """

    key: str
    result: VerifyResult
    detail: str
    path: str | None = None
    modality: str | None = None
    evidence: Evidence | None = None
    version: str | None = None
    size: int | None = None
    fingerprint: bytes | None = None
    md5: bytes | None = None
    etag: str | None = None


@dataclass(frozen=True, slots=True)
class VerifyProgressed:
    """Objects listed so far; then, with `files_total`, how much is read back, and which keys right now."""

    objects: int
    files: int = 0
    files_total: int = 0
    bytes: int = 0
    bytes_total: int = 0
    current: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VerifyFinished:
    """The result of `file verify`. `sample` is how much was to be read by chance, in the user's words."""

    versions: tuple[str, ...]
    destination: str
    results: Mapping[VerifyResult, int]
    pending: Tally
    seconds: float
    evidence: Mapping[Evidence, int] = field(default_factory=dict)
    read_back: Tally = Tally()
    sample: str | None = None
    seed: int | None = None

    @property
    def is_good(self) -> bool:
        return all(result.is_good or not count for result, count in self.results.items())


@dataclass(frozen=True, slots=True)
class FilesMarked:
    """The result of `mark_as_deleted` and `mark_as_uploaded_*`: what was marked and what could not be."""

    what: str
    marked: int
    refused: Mapping[str, str]


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
    taken to be `destination`.
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
    seconds: float


Event = (
    Notice
    | ScanProgressed
    | ReadProgressed
    | ProblemFound
    | FileOutsidePatterns
    | UpdateFinished
    | UploadPlanned
    | FilePlanned
    | UploadProgressed
    | FileDelivered
    | FileFailed
    | UploadFinished
    | FileVerified
    | VerifyProgressed
    | VerifyFinished
    | FilesMarked
    | JournalCheckedOut
    | JournalCheckedIn
    | JournalUpgraded
)

Emit = Callable[[Event], None]
