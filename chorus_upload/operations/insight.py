"""`journal list`, `journal diff` and `journal show`: what the journal can tell of versions and of single files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from chorus_upload.config.settings import Settings
from chorus_upload.errors import ConfigError
from chorus_upload.events import Emit, Level, Notice, Tally
from chorus_upload.journal import life, versions
from chorus_upload.journal.comparing import Comparison, Difference, FileDifference
from chorus_upload.journal.journal import Journal
from chorus_upload.journal.life import DeliveryProof, FileState
from chorus_upload.journal.versions import VersionTotal
from chorus_upload.model import VersionSummary
from chorus_upload.operations.selecting import known_version, selected_modalities

# What the journal has words for, and commands show.
__all__ = ["Comparison", "DeliveryProof", "FileDifference", "FileState", "VersionTotal"]


# --- journal list ------------------------------------------------------------------------------------------------


def version_totals(
    journal: Journal,
    settings: Settings,
    rows: Sequence[VersionSummary],
    *,
    version: str | None,
    modalities: tuple[str, ...] | None,
) -> list[VersionTotal]:
    """What rows of `journal list` come to: each version, then each modality and all of it over all versions.

    `rows` are those of this choice of version and modalities. A total of one row only is left out.
    """
    by_version: dict[str, list[VersionSummary]] = {}
    by_modality: dict[str, list[VersionSummary]] = {}
    for row in rows:
        by_version.setdefault(row.version, []).append(row)
        if row.modality is not None:
            by_modality.setdefault(row.modality, []).append(row)
    chosen = None if modalities is None else selected_modalities(settings, modalities)
    persons = versions.persons(journal, label=version, modalities=chosen)

    def total(label: str | None, modality: str | None, parts: Iterable[VersionSummary]) -> VersionTotal:
        return _sum(list(parts), version=label, modality=modality, persons=persons.get((label, modality), 0))

    totals = [total(label, None, parts) for label, parts in by_version.items() if len(parts) > 1]
    if len(by_version) > 1:
        totals += [total(None, name, parts) for name, parts in by_modality.items() if len(by_modality) > 1]
        totals.append(total(None, None, rows))
    return totals


def _sum(parts: Sequence[VersionSummary], *, version: str | None, modality: str | None, persons: int) -> VersionTotal:
    return VersionTotal(
        version=version,
        modality=modality,
        persons=persons,
        files=sum(part.files for part in parts),
        bytes=sum(part.bytes for part in parts),
        active_files=sum(part.active_files for part in parts),
        active_bytes=sum(part.active_bytes for part in parts),
        pending_files=sum(part.pending_files for part in parts),
        pending_bytes=sum(part.pending_bytes for part in parts),
    )


def last_pruned(journal: Journal) -> str | None:
    """The label of the latest version whose detail `journal prune` has dropped."""
    pruned = [each.label for each in versions.ordered(journal) if each.pruned_us is not None]
    return pruned[-1] if pruned else None


# --- journal diff ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ModalityDifference:
    """How many files of a modality (None: of all of them) differ in each way, and their bytes.

    The bytes are those of the state after; of what was retired, those of the state before.
    """

    modality: str | None
    added: Tally
    modified: Tally
    renamed: Tally
    retired: Tally

    @property
    def files(self) -> int:
        return self.added.files + self.modified.files + self.renamed.files + self.retired.files


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffFinished:
    """The last line of `journal diff --json`: everything before it is complete."""

    before: str
    after: str
    files: int


@contextmanager
def compared_versions(
    journal: Journal, settings: Settings, *, before: str, after: str, modalities: tuple[str, ...] | None, emit: Emit
) -> Iterator[Comparison]:
    """What differs between the states of the sources at two versions; the later one may come first.

    Raises ConfigError for a version that the journal does not know, or of which it does not know enough any more.
    """
    first, second = known_version(journal, before), known_version(journal, after)
    for each in (first, second):
        if each.pruned_us is not None:
            raise ConfigError(
                f"`journal prune` has dropped what came and went at version {each.label}",
                hint="Versions after it can be compared: `journal list` shows them.",
            )
        if each.completed_us is None:
            emit(Notice(f"version {each.label} was not finished: more may differ when it is", Level.WARNING))
    chosen = None if modalities is None else selected_modalities(settings, modalities)
    with Comparison(journal, before=first.id, after=second.id, modalities=chosen) as comparison:
        yield comparison


def differences(comparison: Comparison) -> list[ModalityDifference]:
    """What a comparison comes to: a row for each modality that differs, and, for more than one, that of all."""
    rows = [_difference(modality, found) for modality, found in comparison.tallies().items()]
    if len(rows) > 1:
        rows.append(
            ModalityDifference(
                modality=None,
                added=sum((row.added for row in rows), Tally()),
                modified=sum((row.modified for row in rows), Tally()),
                renamed=sum((row.renamed for row in rows), Tally()),
                retired=sum((row.retired for row in rows), Tally()),
            )
        )
    return rows


def _difference(modality: str, found: dict[Difference, Tally]) -> ModalityDifference:
    return ModalityDifference(
        modality=modality,
        added=found.get(Difference.ADDED, Tally()),
        modified=found.get(Difference.MODIFIED, Tally()),
        renamed=found.get(Difference.RENAMED, Tally()),
        retired=found.get(Difference.RETIRED, Tally()),
    )


# --- journal show ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class FileLife:
    """All states of the files that are, or once were, called `path`; `pruned` is a version up to which some may
    be missing: those that were never delivered."""

    path: str
    modality: str
    states: tuple[FileState, ...]
    pruned: str | None


def file_life(journal: Journal, settings: Settings, *, path: str, modality: str | None) -> FileLife:
    """The life of one file.

    Raises ConfigError when the journal has no such file (naming those that are called alike), and when several
    modalities have it and none was chosen.
    """
    # A name that is no valid Unicode is in no journal; SQLite would not even be asked for it.
    path = path.removeprefix("./").encode("utf-8", "replace").decode("utf-8")
    found = life.modalities_with(journal, path)
    if modality is not None:
        found = [name for name in found if name in selected_modalities(settings, (modality,))]
    if not found:
        like = life.names_like(journal, path)
        where = "the journal" if modality is None else modality
        raise ConfigError(
            f"{where} has no file {path}",
            hint=f"Did you mean {' or '.join(like)}?" if like else "Give it as `file list` prints it.",
        )
    if len(found) > 1:
        raise ConfigError(f"several modalities have {path}: {', '.join(found)}", hint="Choose one with --modality.")
    states = life.states(journal, path, modality=found[0])
    return FileLife(path=path, modality=found[0], states=tuple(states), pruned=last_pruned(journal))
