"""What the plan of an upload makes of earlier ones: which objects a file may supersede, and which are its twins.

The plan itself is a temporary table that `deliveries.plan` fills.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from sqlalchemy import Connection, text

from chorus_upload.journal.database import driver
from chorus_upload.journal.journal import Journal
from chorus_upload.model import Evidence, Twin

TWIN_BYTES = 64 << 10
"""Below this, having the service copy a file costs more than sending it: a request each, and one more to ask."""

# `id` is the order of sending: largest first, and after that what is best read in the order in which it was seen,
# in which it also entered the journal. `content` and `renamed_from` are those of files that are large enough
# to have twins. `twin_of` is a file of the same content; one that `waits` is sent when that has been, for it is in
# the plan, too.
_TABLE = """
    CREATE TEMP TABLE planned (
        id INTEGER PRIMARY KEY, file_id INTEGER, size INTEGER, content BLOB, renamed_from INTEGER,
        twin_of INTEGER, waits INTEGER NOT NULL DEFAULT 0)
"""
_FILL = """
    INSERT INTO planned (file_id, size, content, renamed_from)
    SELECT f.id, f.size, iif(f.size >= :least, f.fingerprint, NULL), iif(f.size >= :least, f.renamed_from, NULL)
    {pending} ORDER BY m.name IN (SELECT value FROM json_each(:in_order)),
        iif(m.name IN (SELECT value FROM json_each(:in_order)), 0, f.size) DESC, f.id
"""

_PROVEN = ", ".join(f"'{each}'" for each in Evidence if each not in (Evidence.SIZE, Evidence.IMPORTED))
_IS_TWIN = f"d.destination_id = :destination AND d.etag IS NOT NULL AND d.evidence IN ({_PROVEN})"

# The first of each content is sent, and the others wait for it; unless a run of the same submission that was
# interrupted has sent it already.
_SAME_CONTENT = text(f"""
    WITH candidate (place, file_id, content, size) AS (
        SELECT id, file_id, content, size FROM planned WHERE content IS NOT NULL
        UNION ALL
        SELECT 0, f.id, f.fingerprint, f.size
        FROM submission s JOIN delivery d ON d.submission_id = s.id JOIN file f ON f.id = d.file_id
        WHERE s.completed_us IS NULL AND {_IS_TWIN} AND f.size >= :least AND f.fingerprint IS NOT NULL
    ), grouped AS (
        SELECT place, file_id, first_value(file_id) OVER same AS first, first_value(place) OVER same AS first_place
        FROM candidate WINDOW same AS (PARTITION BY content, size ORDER BY place, file_id)
    )
    UPDATE planned SET twin_of = g.first, waits = g.first_place > 0
    FROM grouped g WHERE g.place = planned.id AND g.first <> g.file_id
""")

# A file that was renamed twice has its object under its first name. UNION: see `comparing`.
_RENAMED = text(f"""
    WITH RECURSIVE former (place, file_id) AS (
        SELECT id, renamed_from FROM planned WHERE renamed_from IS NOT NULL
        UNION
        SELECT o.place, f.renamed_from
        FROM former o JOIN file f ON f.id = o.file_id WHERE f.renamed_from IS NOT NULL
    ), delivered AS (
        SELECT o.place, max(o.file_id) AS file_id
        FROM former o JOIN delivery d ON d.file_id = o.file_id WHERE {_IS_TWIN} GROUP BY o.place
    )
    UPDATE planned SET twin_of = t.file_id, waits = 0 FROM delivered t WHERE t.place = planned.id
""")


def fill(
    connection: Connection, pending: str, parameters: Mapping[str, object], *, in_order: Sequence[str] = ()
) -> None:
    """Make the plan anew, of all files `f` that `pending` (FROM and WHERE of a query) finds with its parameters.

    `in_order` are the modalities `m` whose files are to be read in the order in which they were seen. Among the
    parameters is the `destination`. What it will have under another key, when it has not already, is found out, too.
    """
    parameters = {**parameters, "least": TWIN_BYTES, "in_order": json.dumps(list(in_order))}
    connection.exec_driver_sql("DROP TABLE IF EXISTS temp.planned")
    connection.exec_driver_sql(_TABLE)
    for statement in (text(_FILL.format(pending=pending)), _SAME_CONTENT, _RENAMED):
        connection.execute(statement, parameters)


KeyOf = Callable[[str, str, str], str | None]
"""Is asked with modality, path and version."""


def shared_keys(journal: Journal, *, lead_of: KeyOf, key_of: KeyOf) -> dict[int, str]:
    """Return the planned files that have a key in common, each with the path of another one of those.

    `key_of` gives the key of a file. `lead_of` gives what all keys of a directory (a path) begin with, before the names
    of their files, None when it has to be asked file by file: then all files are.
    """
    with journal.transaction() as connection:
        database = driver(connection)
        database.create_function("lead_of", 3, lead_of, deterministic=True)
        database.create_function("key_of", 3, key_of, deterministic=True)
        for statement in _SHARED:
            database.execute(statement)
        found = database.execute(_SHARING).fetchall()
        for name in ("leading", "keyed"):
            database.execute(f"DROP TABLE temp.{name}")
    return dict(found)


_PATH = "iif(k.path = '', f.name, k.path || '/' || f.name)"
_SHARED = (
    """
    CREATE TEMP TABLE leading AS
    SELECT e.directory_id, e.modality_id, e.version_id, lead_of(m.name, k.path, v.label) AS lead
    FROM (SELECT DISTINCT f.directory_id, f.modality_id, f.introduced_by AS version_id
        FROM planned p JOIN main.file f ON f.id = p.file_id) e
    JOIN main.directory k ON k.id = e.directory_id
    JOIN main.modality m ON m.id = e.modality_id
    JOIN main.version v ON v.id = e.version_id
    """,
    # Where no two directories lead to one place, and names are what they are, nothing has to be compared.
    """
    DELETE FROM leading WHERE NOT EXISTS (SELECT 1 FROM leading WHERE lead IS NULL) AND lead IN (
        SELECT lead FROM leading GROUP BY lead HAVING count(*) = 1)
    """,
    f"""
    CREATE TEMP TABLE keyed AS
    SELECT f.id, {_PATH} AS path, key_of(m.name, {_PATH}, v.label) AS key
    FROM planned p
    JOIN main.file f ON f.id = p.file_id
    JOIN main.directory k ON k.id = f.directory_id
    JOIN main.modality m ON m.id = f.modality_id
    JOIN main.version v ON v.id = f.introduced_by
    WHERE EXISTS (SELECT 1 FROM leading)
        AND (f.directory_id, f.modality_id, f.introduced_by) IN (
            SELECT directory_id, modality_id, version_id FROM leading)
    """,
)
_SHARING = """
    SELECT id, iif(path = first_value(path) OVER shared, last_value(path) OVER shared, first_value(path) OVER shared)
    FROM keyed
    WHERE key IN (SELECT key FROM keyed WHERE key IS NOT NULL GROUP BY key HAVING count(*) > 1)
    WINDOW shared AS (PARTITION BY key ORDER BY path, id ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
"""


def occupied_keys(journal: Journal, *, destination: int, keys: Sequence[str]) -> dict[str, str]:
    """Return those keys under which active files were delivered, with their paths."""
    statement = text(f"""
        SELECT d.key, {_PATH} AS path FROM json_each(:keys) j
        JOIN delivery d ON d.destination_id = :destination AND d.key = j.value
        JOIN file f ON f.id = d.file_id
        JOIN directory k ON k.id = f.directory_id
        WHERE f.retired_by IS NULL
    """)
    parameters = {"destination": destination, "keys": json.dumps(list(keys))}
    with journal.transaction() as connection:
        return {row.key: row.path for row in connection.execute(statement, parameters)}


def twins(journal: Journal, *, destination: int, file_ids: Sequence[int]) -> dict[int, Twin]:
    """Where the destination has the content of these files, as far as that is proven."""
    statement = text(f"""
        SELECT d.file_id, d.key, d.etag FROM json_each(:ids) j JOIN delivery d ON d.file_id = j.value WHERE {_IS_TWIN}
    """)
    parameters = {"destination": destination, "ids": json.dumps(list(file_ids))}
    with journal.transaction() as connection:
        return {row.file_id: Twin(row.key, row.etag) for row in connection.execute(statement, parameters)}


def superseded_etags(journal: Journal, *, destination: int, keys: Sequence[str]) -> dict[str, str]:
    """The etags under which files that are retired now were delivered to these keys.

    Only a version that was amended after it was uploaded, or a pattern with a version in it, leads to a key
    that was delivered before. The object may then be replaced, on condition that it is still that one.
    """
    statement = text("""
        SELECT d.key, d.etag FROM json_each(:keys) j
        JOIN delivery d ON d.destination_id = :destination AND d.key = j.value
        JOIN file f ON f.id = d.file_id
        WHERE f.retired_by IS NOT NULL AND d.etag IS NOT NULL
        ORDER BY d.delivered_us
    """)
    parameters = {"destination": destination, "keys": json.dumps(list(keys))}
    with journal.transaction() as connection:
        return {row.key: row.etag for row in connection.execute(statement, parameters)}


def superseded_content(journal: Journal, *, with_own_folders: Sequence[str] = ()) -> dict[int, tuple[bytes, ...]]:
    """By planned file: fingerprints of earlier states of it that had the same key.

    Those are the states of the same version; and all of them in modalities `with_own_folders`, whose paths name the
    version that their keys begin with. An MD5 takes the place of a fingerprint where an older tool left only that.
    """
    statement = """
        SELECT p.file_id, coalesce(old.fingerprint, old.md5)
        FROM file old
        JOIN file f ON f.retired_by IS NULL AND f.directory_id = old.directory_id AND f.name = old.name
            AND f.modality_id = old.modality_id AND (f.introduced_by = old.introduced_by OR f.modality_id IN (
                SELECT id FROM modality WHERE name IN (SELECT value FROM json_each(?))))
        JOIN planned p ON p.file_id = f.id
        WHERE old.retired_by IS NOT NULL AND coalesce(old.fingerprint, old.md5) IS NOT NULL
    """
    found: dict[int, tuple[bytes, ...]] = {}
    with journal.transaction() as connection:
        connection.exec_driver_sql("CREATE INDEX IF NOT EXISTS temp.planned_file ON planned (file_id)")
        for file_id, fingerprint in connection.exec_driver_sql(statement, (json.dumps(list(with_own_folders)),)):
            found[file_id] = (*found.get(file_id, ()), fingerprint)
    return found
