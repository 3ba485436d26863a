"""What `file verify` tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from chorus_upload.events.common import Tally
from chorus_upload.model import Evidence


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

    @property
    def is_other(self) -> bool:
        """True when there is something else than what was delivered."""
        return self in (VerifyResult.SIZE_DIFFERS, VerifyResult.CHECKSUM_DIFFERS)


@dataclass(frozen=True, slots=True)
class FileVerified:
    """What was found for one key. `evidence` is what a match rests on; size and checksums are the journal's.

    `etag` is the listing's, and so is the size of an object that is not in the journal. `submission` and `delivered_us`
    are of the delivery, and `retired_by` is the version in which the file became another one or ceased to be.
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
    submission: str | None = None
    delivered_us: int | None = None
    retired_by: str | None = None


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
    """The result of `file verify`. `sample` is how much was to be read by chance, in the user's words.

    `versions` were checked, `unchecked` others of which something was delivered. `modalities` and `patients` are those
    that were asked for, None for all. `pending` is what of these is still to be sent, of `pending_versions`.
    `superseded` is how many of those that are there and differ were so in an earlier version only: no upload sends that
    content again.
    """

    versions: tuple[str, ...]
    destination: str
    results: Mapping[VerifyResult, int]
    pending: Tally
    seconds: float
    evidence: Mapping[Evidence, int] = field(default_factory=dict)
    read_back: Tally = Tally()
    sample: str | None = None
    seed: int | None = None
    unchecked: tuple[str, ...] = ()
    modalities: tuple[str, ...] | None = None
    patients: tuple[str, ...] | None = None
    pending_versions: tuple[str, ...] = ()
    superseded: int = 0

    @property
    def checked(self) -> int:
        """How many deliveries were looked at."""
        return sum(count for result, count in self.results.items() if result is not VerifyResult.NOT_IN_JOURNAL)

    @property
    def is_good(self) -> bool:
        """Whether something was checked, and all of it is as the journal says."""
        return bool(self.checked) and not self.bad

    @property
    def bad(self) -> int:
        """How many files are not as the journal says."""
        return sum(count for result, count in self.results.items() if not result.is_good)
