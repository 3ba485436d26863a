"""Decides which of the files that are gone may be retired. Deletion is never guessed.

What lies below a mount point on which nothing is mounted could not be seen, whatever its share. What is gone in great
number is refused as a whole until a person confirms it. What was only moved out of the patterns stays active.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence

from chorus_upload.config.settings import Settings
from chorus_upload.errors import DeletionRefused
from chorus_upload.events import Emit, Notice, ProblemFound
from chorus_upload.journal.diff import Candidate, OutsideFile
from chorus_upload.journal.doubts import MovedOutside
from chorus_upload.journal.observation import Observation
from chorus_upload.model import JournalingMode, Problem, ProblemKind, Reading
from chorus_upload.operations.scanning import Scan
from chorus_upload.storage.source import FileStat, Source
from chorus_upload.transfer.reader import read_file

_EXAMPLES = 3


class Deletions:
    """What one update found to be gone, held against what a person has `confirmed`.

    `outside_confirmed` is for what may only have moved out of the patterns.
    `problems` counts what was told of, by modality.
    """

    def __init__(
        self,
        settings: Settings,
        observation: Observation,
        sources: Mapping[str, Source],
        *,
        confirmed: bool,
        outside_confirmed: bool,
        emit: Emit,
    ) -> None:
        self._settings = settings
        self._observation = observation
        self._sources = sources
        self._confirmed = confirmed
        self._outside_confirmed = confirmed or outside_confirmed
        self._emit = emit
        self.problems: dict[str, int] = {}

    def hold_unmounted(self, scan: Scan, mount_points: Collection[str]) -> None:
        """Keep active what is missing below a mount point on which nothing is mounted now, or nothing is.

        DeletionRefused when that is the root of the source: then nothing of it could be seen.
        """
        root = scan.root
        for point in sorted(mount_points):
            if point != root and not point.startswith(root.rstrip(os.sep) + os.sep):
                continue
            path = os.path.relpath(point, root).replace(os.sep, "/") if point != root else ""
            if scan.mounted.get(path, False):
                continue
            held = self._observation.hold_below(path, scan.modalities)
            if not path and (held or (self._is_append and path not in scan.mounted)):
                raise DeletionRefused(
                    f"the source {point} was a mount point, and is empty or not mounted now; nothing was recorded",
                    hint=f"Mount it. If it is to be no mount point any more, add --forget-mount {point}.",
                )
            for modality, tally in held.items():
                detail = (
                    f"it was a mount point, and is empty, away or not mounted now: {tally.files:,} files that are"
                    " missing there stay in the journal. Mount it; if it is to be none any more, add"
                    f" --forget-mount {point}"
                )
                self._tell(Problem(ProblemKind.NOT_MOUNTED, path, detail), modality)

    @property
    def _is_append(self) -> bool:
        """Whether sources are emptied when all was sent: then only what is not mounted tells of trouble."""
        return self._settings.mode is JournalingMode.APPEND

    def require_plausible(self) -> None:
        """Raise DeletionRefused when what is gone looks like an unmounted share rather than like deletions."""
        if self._confirmed:
            return
        if self._implausible():
            # Renamed files are not lost. Reading them now, and once more later, is the price of certainty.
            self._find_again()
        if refused := self._implausible():
            moved = self._observation.moved_outside()
            if files := sum(each.files for each in moved):
                refused.append(f"{files:,} of them are now where no pattern matches, e.g. {_named(moved)}")
            raise DeletionRefused(
                "too many files have disappeared, nothing was recorded: " + "; ".join(refused),
                hint="Is the source mounted and complete? If they were deleted on purpose, add"
                " --confirm-deletions (for some modalities only: --modalities).",
            )

    def hold_moved(self, scans: Sequence[Scan], intended: Mapping[str, int]) -> dict[str, int]:
        """Keep active what is now under a name that no pattern matches, and what else is gone where many more do.

        `intended` says by root how many files matched none when that was last taken for intended; gives those numbers
        anew. A share that has grown beyond its limit is told of in any case; it is intended from then on unless
        something had to be kept.
        """
        if not self._outside_confirmed:
            self._read_outside()
            for each in self._observation.moved_outside():
                detail = (
                    f"{each.files:,} files are now under names that no pattern matches, e.g. {each.example}: they stay"
                    " in the journal. Give them their names back, change the pattern, or add --confirm-outside"
                )
                self._tell(Problem(ProblemKind.MOVED_OUTSIDE, each.directory or ".", detail), each.modality)
            self._observation.hold_moved_outside()
        counts: dict[str, int] = {}
        for scan in scans:
            counts[scan.root] = scan.strangers
            before = intended.get(scan.root, 0)
            if scan.strangers - before <= self._settings.outside_limit * scan.files:
                continue
            held = {} if self._outside_confirmed else self._observation.hold_below("", scan.modalities)
            kept = sum(each.files for each in held.values())
            more = f", {before:,} did before" if before else ""
            detail = (
                f"{scan.strangers:,} of {scan.files:,} files ({scan.strangers / scan.files:.0%}) match no"
                f" pattern{more}, e.g. {', '.join(scan.stranger_examples)}: is a pattern wrong, or was a directory"
                " renamed? (outside_limit says how many may)"
            )
            if kept:
                counts[scan.root] = before
                detail += f" {kept:,} files that are missing stay in the journal; --confirm-outside retires them"
            self._tell(Problem(ProblemKind.OUTSIDE_PATTERNS, scan.root, detail), None)
        return counts

    def _read_outside(self) -> None:
        """Read what could be a file that is gone, for as far as it can be read here."""
        by_id = self._sources_by_id()
        is_told = False
        for page in self._observation.maybe_moved_outside():
            here = [file for file in page if not by_id[file.modality_id].is_remote]
            if here and not is_told:
                is_told = True
                self._emit(Notice("reading files of no pattern, to see whether they are those that are missing"))
            found = [(file, _read(by_id[file.modality_id], file)) for file in here]
            if readings := [(file, read) for file, read in found if isinstance(read, Reading)]:
                self._observation.outside_was_read(readings)

    def _tell(self, problem: Problem, modality: str | None) -> None:
        name = modality or ""
        self.problems[name] = self.problems.get(name, 0) + 1
        source = self._sources[modality].url if modality else problem.path
        self._emit(ProblemFound(problem, source, modality))

    def _implausible(self) -> list[str]:
        """Where what is gone looks like an unmounted share rather than like deletions, as sentences."""
        found = []
        for modality, gone in self._observation.gone.items():
            active = self._observation.active[modality]
            if not gone.files:
                continue
            if not self._observation.seen[modality].files:
                url = self._sources[modality].url
                found.append(f"{modality}: no file at all was found in {url}, {active:,} are active")
            elif gone.files > self._settings.deletion_limit * active:
                share = f"{gone.files / active:.0%}"
                found.append(f"{modality}: {gone.files:,} of {active:,} active files are gone ({share})")
        return found

    def _sources_by_id(self) -> dict[int, Source]:
        return {self._observation.modalities[modality]: source for modality, source in self._sources.items()}

    def _find_again(self) -> None:
        """Tell the observation which new files have the content of gone ones, for as far as they can be read."""
        by_id = self._sources_by_id()
        for page in self._observation.candidates():
            found = [
                (candidate, _read(by_id[candidate.modality_id], candidate))
                for candidate in page
                if candidate.may_be_renamed
            ]
            if found_again := [(candidate, read) for candidate, read in found if isinstance(read, Reading)]:
                self._observation.found_again(found_again)


def _read(source: Source, candidate: Candidate | OutsideFile) -> Reading | Problem:
    if source.is_remote:
        return Reading(candidate.size, candidate.mtime_us)
    expected = FileStat(candidate.size, candidate.mtime_us)
    return read_file(source, candidate.path, expected=expected, with_md5=True)


def _named(moved: Sequence[MovedOutside]) -> str:
    return ", ".join(list(dict.fromkeys(each.example for each in moved))[:_EXAMPLES])
