"""What `file download` tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from chorus_upload.events.common import Tally
from chorus_upload.model import NotRetrieved, RetrievalFailure, Retrieved


@dataclass(frozen=True, slots=True)
class DownloadPlanned:
    """What is about to be brought back."""

    version: str
    origin: str
    target: str
    wanted: Tally


@dataclass(frozen=True, slots=True)
class DownloadProgressed:
    """Files and bytes done so far, bytes of unfinished files included, and what is being fetched right now."""

    files: int
    files_total: int
    bytes: int
    bytes_total: int
    current: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FileDownloaded:
    """One file is in the target, and is what the journal says. `fetched` bytes came from the store just now."""

    path: str
    modality: str
    key: str | None
    size: int
    fetched: int
    was_there: bool

    @classmethod
    def of(cls, done: Retrieved) -> Self:
        """What to tell of an outcome."""
        wanted = done.retrieval
        return cls(wanted.path, wanted.modality, wanted.key, wanted.size, done.fetched, done.was_there)


@dataclass(frozen=True, slots=True)
class FileNotDownloaded:
    """One file was not brought back."""

    path: str
    modality: str
    key: str | None
    kind: RetrievalFailure
    detail: str

    @classmethod
    def of(cls, failed: NotRetrieved) -> Self:
        """What to tell of an outcome."""
        wanted = failed.retrieval
        return cls(wanted.path, wanted.modality, wanted.key, failed.kind, failed.detail)


@dataclass(frozen=True, slots=True)
class ExtraFile:
    """A file in the target that was removed, since the version does not have it, or why it was not: `detail`."""

    path: str
    removed: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ExtraFiles:
    """How many files in the target the version does not have, and the `first` of them.

    `kept` could not be removed, or must not. `why_kept` says why none was to be removed.
    """

    files: int
    first: tuple[str, ...]
    removed: int = 0
    kept: int = 0
    why_kept: str = ""


@dataclass(frozen=True, slots=True)
class DownloadFinished:
    """The result of `file download`, and of `remote download`, which knows of no version.

    `extra` is None when it was not asked what else is in the target.
    """

    version: str | None
    origin: str
    target: str
    fetched: Tally
    was_there: Tally
    failures: Mapping[RetrievalFailure, int]
    seconds: float
    extra: ExtraFiles | None = None

    @property
    def failed(self) -> int:
        """How many files are missing in the target."""
        return sum(self.failures.values())
