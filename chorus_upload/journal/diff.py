"""What a reading of a file means for the journal: one pure decision, with its reason.

The database has found the candidates (`observation`): NEW files, of which the journal has no active row, and
SUSPECT ones, whose size or time differ or whose time was too young to be trusted. Everything else is SAME.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from chorus_upload.model import Reading

CLOCK_GRAIN_US = 2_000_000
"""The coarsest step in which file systems in use keep times (FAT: 2 s)."""


class Candidate(NamedTuple):
    """A file that is NEW (`file_id` is None) or SUSPECT, as observed, beside what the journal knows of it.

    `renamed_by_md5` and `may_be_renamed` say that files of the same size have gone elsewhere, and whether
    one of those has no fingerprint but an MD5.
    """

    id: int
    modality_id: int
    directory_id: int
    directory: str
    name: str
    size: int
    mtime_us: int
    patient: str | None
    version: str | None
    file_id: int | None
    known_size: int | None
    known_mtime_us: int | None
    known_fingerprint: bytes | None
    known_md5: bytes | None
    unsettled: int
    may_be_renamed: int
    rename_needs_md5: int

    @property
    def path(self) -> str:
        """The path relative to the root of the source."""
        return f"{self.directory}/{self.name}" if self.directory else self.name

    @property
    def is_new(self) -> bool:
        return self.file_id is None

    @property
    def needs_md5(self) -> bool:
        """Whether the content can only be compared by MD5 (rows imported from an old journal)."""
        known_by_md5 = self.known_fingerprint is None and self.known_md5 is not None
        return known_by_md5 or bool(self.rename_needs_md5)


class Decision(StrEnum):
    """What happens to a candidate's row."""

    ADD = "add"
    MODIFY = "modify"
    TOUCH = "touch"
    SETTLE = "settle"
    """Nothing changed at all: the file had only been too young to be trusted."""


def is_unsettled(mtime_us: int, *, read_us: int) -> bool:
    """Whether a file read at `read_us` may later hold something else under the same time.

    A change after the reading gets a time of at least the reading's, less the clock's grain; so a file whose
    time is older than that is settled.
    """
    return mtime_us >= read_us - CLOCK_GRAIN_US


def decide(candidate: Candidate, reading: Reading) -> Decision:
    """Compare what was read with what the journal knows, by the strongest means that both have."""
    if candidate.is_new:
        return Decision.ADD
    if reading.size != candidate.known_size or not _same_content(candidate, reading):
        return Decision.MODIFY
    return Decision.SETTLE if reading.mtime_us == candidate.known_mtime_us else Decision.TOUCH


def _same_content(candidate: Candidate, reading: Reading) -> bool:
    if candidate.known_fingerprint is not None:
        return candidate.known_fingerprint == reading.fingerprint
    if candidate.known_md5 is not None:
        return candidate.known_md5 == reading.md5
    # Never read, hence never delivered: there is no content in the journal that could have changed.
    return True
