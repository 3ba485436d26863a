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
