"""What each completed update saw, modality by modality: the record that a state of a source was looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import insert, select

from chorus_upload.events import ModalityUpdate, Tally
from chorus_upload.journal.journal import Journal, now_us
from chorus_upload.journal.schema import modality, scan


def modality_ids(journal: Journal, names: Sequence[str]) -> dict[str, int]:
    """The ids of these modalities, made where they are new."""
    with journal.transaction() as connection:
        for name in names:
            connection.execute(insert(modality).prefix_with("OR IGNORE").values(name=name))
        rows = connection.execute(select(modality.c.name, modality.c.id).where(modality.c.name.in_(names)))
        return {row.name: row.id for row in rows}


def record(
    journal: Journal,
    version_id: int,
    results: Mapping[str, ModalityUpdate],
    *,
    modality_ids: Mapping[str, int],
    roots: Mapping[str, str],
    seen: Mapping[str, Tally],
    begun_us: int,
) -> None:
    """Record what an update of a version saw and did."""
    completed_us = now_us()
    with journal.transaction() as connection:
        connection.execute(
            insert(scan),
            [
                {
                    "version_id": version_id,
                    "modality_id": modality_ids[name],
                    "root": roots[name],
                    "begun_us": begun_us,
                    "completed_us": completed_us,
                    "files": seen[name].files,
                    "bytes": seen[name].bytes,
                    "added": result.added.files,
                    "modified": result.modified.files,
                    "touched": result.touched.files,
                    "renamed": result.renamed.files,
                    "retired": result.retired.files,
                    "unreadable": result.unreadable,
                }
                for name, result in results.items()
            ],
        )
