"""Single files, by their paths."""

from __future__ import annotations

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
