"""`file list`, `journal list` and `history`: what the journal holds, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from chorus_upload.config.settings import Settings
from chorus_upload.errors import LayoutError
from chorus_upload.events import Emit
from chorus_upload.journal import commands, deliveries, files, versions
from chorus_upload.journal.deliveries import Selection
from chorus_upload.journal.journal import Journal
from chorus_upload.model import Change, CommandRecord, ListedFile, VersionSummary
from chorus_upload.operations.central import Keys
from chorus_upload.operations.destination import Choice, destination_of
from chorus_upload.operations.selecting import (
    chosen_label,
    chosen_patients,
    known_version,
    selected_modalities,
    tell_of_others,
)


def list_files(
    journal: Journal,
    settings: Settings,
    *,
    version: str | None,
    modalities: tuple[str, ...] | None,
    patients: tuple[str, ...] | None = None,
    max_files: int | None,
    uploaded: bool,
    destination: Choice | None = None,
) -> Iterator[ListedFile]:
    """Yield what the next upload would send, in its order; with `uploaded`, what was delivered, by key.

    A file that cannot have a central key is listed with an empty one.
    """
    chosen_label(journal, settings, version)
    selection = Selection(
        version=version,
        modalities=selected_modalities(settings, modalities),
        patients=chosen_patients(journal, patients),
    )
    url = destination_of(journal, settings, destination)
    if uploaded:
        yield from islice(_delivered(journal, url=url, selection=selection), max_files)
        return
    deliveries.plan(journal, url=url, selection=selection)
    yield from islice(_pending(journal, Keys(settings)), max_files)


def tell_what_is_not_listed(
    journal: Journal, settings: Settings, *, destination: Choice | None = None, emit: Emit
) -> None:
    """Say which pending files `list_files` leaves out because the configuration does not have their modality."""
    tell_of_others(journal, settings, url=destination_of(journal, settings, destination), emit=emit)


def _pending(journal: Journal, keys: Keys) -> Iterator[ListedFile]:
    for page in deliveries.planned(journal):
        for file in page:
            try:
                key = keys.key(modality=file.modality, path=file.path, version=file.version)
            except LayoutError:
                key = ""
            yield ListedFile(
                path=file.path,
                modality=file.modality,
                patient=file.patient,
                version=file.version,
                change=Change(file.change),
                size=file.size,
                mtime_us=file.mtime_us,
                key=key,
                fingerprint=file.fingerprint,
                md5=file.md5,
            )


def _delivered(journal: Journal, *, url: str, selection: Selection) -> Iterator[ListedFile]:
    for record in deliveries.delivered(journal, url=url, selection=selection):
        yield ListedFile(
            path=record.path,
            modality=record.modality,
            patient=record.patient,
            version=record.version,
            change=Change(record.change),
            size=record.size,
            mtime_us=record.mtime_us,
            key=record.key,
            fingerprint=record.fingerprint,
            md5=record.md5,
            evidence=record.evidence,
            etag=record.etag,
            delivered_us=record.delivered_us,
            submission=record.submission,
        )


def knows_path(journal: Journal, path: str) -> bool:
    """Return whether the journal has ever had a file of this path."""
    return files.has_known(journal, path)


def list_versions(
    journal: Journal,
    settings: Settings,
    *,
    version: str | None,
    modalities: tuple[str, ...] | None,
    destination: Choice | None = None,
) -> list[VersionSummary]:
    """What each version introduced, by modality, oldest first."""
    if version is not None:
        known_version(journal, version)
    selected = None if modalities is None else selected_modalities(settings, modalities)
    url = destination_of(journal, settings, destination)
    rows = versions.summaries(journal, destination=url, label=version)
    return [row for row in rows if selected is None or row.modality in selected]


def history(journal: Journal) -> list[CommandRecord]:
    """Every command that was recorded, oldest first."""
    return commands.history(journal)
