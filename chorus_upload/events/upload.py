"""What `file upload` tells, and what else records or writes down deliveries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from chorus_upload.events.common import Tally
from chorus_upload.model import Delivered, Evidence, Failed, FailureKind


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
    content before; `manifests_refused`, the version folders that took no manifest or journal copy.
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
    manifests_refused: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class FilesMarked:
    """The result of `mark_as_deleted` and `mark_as_uploaded_*`: what was marked and what could not be."""

    what: str
    marked: int
    refused: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ScriptWritten:
    """A script is complete, with the lists beside it: `paths` are all its files, the script itself first."""

    paths: tuple[str, ...]
    files: int
    bytes: int
