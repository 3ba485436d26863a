"""Single files, by their paths."""

from __future__ import annotations

import json
from collections.abc import Sequence

from chorus_upload.journal import versions
from chorus_upload.journal.journal import Journal
from chorus_upload.journal.who import Who
from chorus_upload.model import JournalingMode, Retirement


def retire_marked(journal: Journal, paths: Sequence[str], *, version: str, mode: JournalingMode, who: Who) -> list[str]:
    """Retire the active files of these paths, in one transaction; gives the paths that have none."""
    missing = []
    found: list[int] = []
    with journal.transaction() as connection:
        for path in dict.fromkeys(paths):
            directory, _, name = path.rpartition("/")
            ids = connection.exec_driver_sql(
                "SELECT id FROM file WHERE retired_by IS NULL AND name = ?"
                " AND directory_id = (SELECT id FROM directory WHERE path = ?)",
                (name, directory),
            ).scalars()
            before = len(found)
            found += ids.all()
            if len(found) == before:
                missing.append(path)
        if found:
            version_id = versions.ensure(connection, version, mode=mode, who=who)
            connection.exec_driver_sql(
                "UPDATE file SET retired_by = ?, retirement = ? WHERE id = ?",
                [(version_id, Retirement.MARKED.value, file_id) for file_id in found],
            )
    return missing


def has_known(journal: Journal, path: str) -> bool:
    """Return whether the journal has ever had a file of this path."""
    directory, _, name = path.rpartition("/")
    with journal.transaction() as connection:
        found = connection.exec_driver_sql(
            "SELECT 1 FROM file WHERE directory_id = (SELECT id FROM directory WHERE path = ?) AND name = ? LIMIT 1",
            (directory, name),
        )
        return found.first() is not None


def unknown_patients(journal: Journal, patients: Sequence[str]) -> list[str]:
    """Those of the patients of whom the journal has never had a file."""
    statement = "SELECT p.key FROM json_each(?) p WHERE NOT EXISTS (SELECT 1 FROM file f WHERE f.patient = p.value)"
    with journal.transaction() as connection:
        # By number: what was typed need not be text that SQLite would give back.
        found = connection.exec_driver_sql(statement, (json.dumps(list(patients)),)).scalars()
        return [patients[number] for number in found]
