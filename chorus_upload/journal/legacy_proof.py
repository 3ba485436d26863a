"""Proves that a journal was taken over: both sides are counted, each from its own tables, and must agree.

What the old journal says is computed by window functions over its rows, and not by what the import made of them.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import text

from chorus_upload.errors import JournalError
from chorus_upload.events import Tally, UpgradedPart
from chorus_upload.journal.journal import Journal
from chorus_upload.journal.legacy import OldJournal


class _Counts(NamedTuple):
    """What there is of one version and modality; `times` is the sum of the active files' times, in seconds."""

    files: int
    bytes: int
    hashed: int
    uploaded: int
    active_files: int
    active_bytes: int
    pending_files: int
    pending_bytes: int
    times: int


# `touched` rows have the content of the row before them, which ended when they began. Only the newest active row of a
# path counts as active. An upload without an MD5 cannot be taken over.
_OLD = """
    WITH ordered AS (
        SELECT *, iif(md5 IS NULL, NULL, upload) AS sent,
            lag(invalid_us) OVER before AS last_invalid_us, lag(md5) OVER before AS last_md5,
            lag(size) OVER before AS last_size, lag(version) OVER before AS last_version,
            lag(upload) OVER before AS last_upload,
            invalid_us IS NULL AND count(*) FILTER (WHERE invalid_us IS NULL) OVER (
                before ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING) = 0 AS active
        FROM old_row WHERE id NOT IN (SELECT id FROM omitted)
        WINDOW before AS (PARTITION BY modality, path ORDER BY valid_us, id)
    ), told AS (
        SELECT *, last_invalid_us IS valid_us AND md5 IS NOT NULL AND last_md5 IS md5 AND last_size IS size
            AND last_version IS version AND (last_upload IS NULL OR last_upload IS upload) AS touched
        FROM ordered
    )
    SELECT version, modality, sum(touched),
        count(*) FILTER (WHERE NOT touched), coalesce(sum(size) FILTER (WHERE NOT touched), 0),
        count(*) FILTER (WHERE NOT touched AND md5 IS NOT NULL),
        count(*) FILTER (WHERE sent IS NOT NULL AND NOT (touched AND last_upload IS NOT NULL)),
        count(*) FILTER (WHERE active), coalesce(sum(size) FILTER (WHERE active), 0),
        count(*) FILTER (WHERE active AND sent IS NULL),
        coalesce(sum(size) FILTER (WHERE active AND sent IS NULL), 0),
        coalesce(sum(mtime_us / 1000000) FILTER (WHERE active), 0)
    FROM told GROUP BY 1, 2
"""

_NEW = text("""
    SELECT v.label, m.name,
        count(*), coalesce(sum(f.size), 0), count(f.md5), count(d.file_id),
        count(*) FILTER (WHERE f.retired_by IS NULL), coalesce(sum(f.size) FILTER (WHERE f.retired_by IS NULL), 0),
        count(*) FILTER (WHERE f.retired_by IS NULL AND d.file_id IS NULL),
        coalesce(sum(f.size) FILTER (WHERE f.retired_by IS NULL AND d.file_id IS NULL), 0),
        coalesce(sum(f.mtime_us / 1000000) FILTER (WHERE f.retired_by IS NULL), 0)
    FROM file f JOIN version v ON v.id = f.introduced_by JOIN modality m ON m.id = f.modality_id
    LEFT JOIN delivery d ON d.file_id = f.id
    GROUP BY v.id, m.id ORDER BY v.id, m.id
""")

_SUBMISSIONS = """
    SELECT DISTINCT upload FROM old_row
    WHERE upload IS NOT NULL AND md5 IS NOT NULL AND id NOT IN (SELECT id FROM omitted) ORDER BY 1
"""


class Proof(NamedTuple):
    """What was taken over: by version and modality, oldest first, and how much there is beside that."""

    parts: tuple[UpgradedPart, ...]
    submissions: int
    commands: int


def prove(journal: Journal, old: OldJournal, *, omitted: int) -> Proof:
    """Count both sides; `omitted` rows were left out.

    Raises JournalError unless both sides have the same files, versions, uploads and commands, and the new journal
    keeps its own rules.
    """
    touched: dict[tuple[str, str], int] = {}
    before: dict[tuple[str, str], _Counts] = {}
    for version, modality, touches, *counts in old.ask(_OLD):
        part = (str(version), str(modality))
        touched[part] = int(str(touches))
        before[part] = _Counts(*(int(str(count)) for count in counts))
    with journal.transaction() as connection:
        after = {(row[0], row[1]): _Counts(*row[2:]) for row in connection.execute(_NEW)}
        labels = list(connection.exec_driver_sql("SELECT label FROM version ORDER BY id").scalars())
        submissions = list(connection.exec_driver_sql("SELECT label FROM submission ORDER BY label").scalars())
        commands = connection.exec_driver_sql("SELECT count(*) FROM command").scalar_one()
    wrong = [
        f"{version} {modality}: {before.get((version, modality))} before, {after.get((version, modality))} after"
        for version, modality in sorted(before.keys() | after.keys())
        if before.get((version, modality)) != after.get((version, modality))
    ]
    rows = sum(counts.files for counts in after.values()) + sum(touched.values()) + omitted
    sent = [str(row[0]) for row in old.ask(_SUBMISSIONS)]
    for what, then, now in (
        ("rows", old.count(), rows),
        ("versions", [each.label for each in old.versions()], labels),
        ("uploads", sent, submissions),
        ("commands", old.count_commands(), commands),
    ):
        if then != now:
            wrong.append(f"{what}: {then} before, {now} after")
    wrong += journal.problems()
    if wrong:
        raise JournalError(
            "the journal was not taken over as it is: " + "; ".join(wrong[:5]),
            hint="Nothing was changed. This is a defect of the program: please report it.",
        )
    parts = tuple(
        UpgradedPart(
            version=version,
            modality=modality,
            rows=counts.files + touched[version, modality],
            files=Tally(counts.files, counts.bytes),
            active=Tally(counts.active_files, counts.active_bytes),
            uploaded=counts.uploaded,
            pending=Tally(counts.pending_files, counts.pending_bytes),
        )
        for (version, modality), counts in after.items()
    )
    return Proof(parts, submissions=len(submissions), commands=commands)
