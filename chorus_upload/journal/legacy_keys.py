"""Uploads of the older tool that replaced each other: two files, other content, one central key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from chorus_upload.events import Tally, UpgradedPart, UpgradeRemark
from chorus_upload.journal.journal import Journal
from chorus_upload.journal.legacy_import import EXAMPLES

_REASON = (
    "a file was uploaded to the central key of another one, with other content: what was uploaded last is there, the"
    " others count as not uploaded"
)

# Of uploads of one time nobody knows which was the last.
_REPLACED = """
    SELECT d.file_id, v.label, m.name, f.size, f.retired_by IS NULL, iif(k.path = '', f.name, k.path || '/' || f.name)
    FROM (SELECT destination_id, key FROM delivery GROUP BY 1, 2 HAVING count(DISTINCT md5) > 1) c
    JOIN delivery d ON d.destination_id = c.destination_id AND d.key = c.key
    JOIN file f ON f.id = d.file_id JOIN directory k ON k.id = f.directory_id
    JOIN version v ON v.id = f.introduced_by JOIN modality m ON m.id = f.modality_id
    WHERE EXISTS (
        SELECT 1 FROM delivery o JOIN file other ON other.id = o.file_id
        WHERE o.destination_id = d.destination_id AND o.key = d.key AND o.md5 <> d.md5
            AND o.delivered_us >= d.delivered_us
            AND (other.directory_id, other.name, other.modality_id) <> (f.directory_id, f.name, f.modality_id))
    ORDER BY v.id, m.id, d.file_id
"""


def drop_replaced(
    journal: Journal, parts: Sequence[UpgradedPart]
) -> tuple[tuple[UpgradedPart, ...], UpgradeRemark | None]:
    """Drop the deliveries of files that another one replaced; return `parts` as they are then, and a remark."""
    with journal.transaction() as connection:
        rows = connection.exec_driver_sql(_REPLACED).all()
        if not rows:
            return tuple(parts), None
        connection.exec_driver_sql("DELETE FROM delivery WHERE file_id = ?", [(row[0],) for row in rows])
        connection.exec_driver_sql("DELETE FROM submission WHERE id NOT IN (SELECT submission_id FROM delivery)")
    dropped = {part: list(found) for part, found in groupby(rows, key=lambda row: (row[1], row[2]))}
    changed = []
    for part in parts:
        of_part = dropped.get((part.version, part.modality), [])
        pending = [row[3] for row in of_part if row[4]]
        more = Tally(len(pending), sum(pending))
        changed.append(replace(part, uploaded=part.uploaded - len(of_part), pending=part.pending + more))
    return tuple(changed), UpgradeRemark(_REASON, len(rows), tuple(row[5] for row in rows[:EXAMPLES]))
