"""The comparison of what a scan saw with what the journal knows, as SQL, with the reason for every clause.

The words: a file is NEW when the journal has no active row for its modality and path, SUSPECT when it has one
that differs in what can be seen without reading, or one that was read too early to be trusted, SAME otherwise,
and GONE when the journal has it and the scan has not. NEW and SUSPECT files are *candidates*: they are read,
and JUDGED says what the reading means.
"""

from __future__ import annotations

from typing import NamedTuple

CLOCK_GRAIN_US = 2_000_000
"""The coarsest step in which file systems in use keep times (FAT: 2 s)."""

CRC32_BYTES = 4
"""So long is the claim of an archive; that of a service, an MD5, has 16."""


class OutsideFile(NamedTuple):
    """A file of no modality with the size, and time or name, of one that is GONE; `modality_id` is of its source."""

    id: int
    modality_id: int
    path: str
    size: int
    mtime_us: int


class Candidate(NamedTuple):
    """A file that is NEW or SUSPECT, as it was observed. The last six are 0 or 1.

    `known_content`: the journal has a checksum of it. `may_be_renamed`: files of its size are GONE.
    `needs_md5`: what it has to be compared with has only an MD5 (it comes from an old journal). `is_told`: a checksum
    in the listing, of a kind that the journal has of it, says without reading whether it is the same.
    """

    id: int
    modality_id: int
    path: str
    size: int
    mtime_us: int
    is_new: int
    same_size: int
    known_content: int
    may_be_renamed: int
    needs_md5: int
    is_told: int


TABLES = (
    """CREATE TEMP TABLE observed_directory (
        id INTEGER PRIMARY KEY, modality_id INTEGER, path TEXT, patient TEXT, version TEXT, central TEXT,
        folded TEXT, has_alike INTEGER NOT NULL DEFAULT 0, directory_id INTEGER)""",
    """CREATE TEMP TABLE observed (
        directory INTEGER, name TEXT, size INTEGER, mtime_us INTEGER, claim BLOB, hashed INTEGER)""",
    "CREATE TEMP TABLE unreadable (modality_id INTEGER, directory TEXT, name TEXT)",
    "CREATE INDEX temp.unreadable_place ON unreadable (directory, name, modality_id)",
    """CREATE TEMP TABLE hidden (
        directory_id INTEGER, modality_id INTEGER, PRIMARY KEY (directory_id, modality_id)) WITHOUT ROWID""",
    """CREATE TEMP TABLE outside (
        modality_id INTEGER, path TEXT, name TEXT, size INTEGER, mtime_us INTEGER, fingerprint BLOB, md5 BLOB)""",
    "CREATE TEMP TABLE moved_outside (file_id INTEGER PRIMARY KEY, path TEXT)",
    "CREATE TEMP TABLE difference (id INTEGER PRIMARY KEY, observed INTEGER, file_id INTEGER)",
    """CREATE TEMP TABLE gone (
        file_id INTEGER PRIMARY KEY, modality_id INTEGER, name TEXT, size INTEGER, mtime_us INTEGER, fingerprint BLOB,
        md5 BLOB, taken INTEGER NOT NULL DEFAULT 0)""",
    """CREATE TEMP TABLE reading (
        id INTEGER PRIMARY KEY, size INTEGER, mtime_us INTEGER, fingerprint BLOB, md5 BLOB, renamed_from INTEGER)""",
    # What the readings of one batch mean. Content is compared by the strongest checksum that the journal has;
    # where it has none the file was never read, hence never recorded as delivered: another time makes it another
    # file, for the first one may have been sent by a run that died before it could record that. What a service
    # claims of a file that is not read is compared with what we have read of it, and never recorded. The CRC-32 of an
    # archive (4 bytes, an MD5 has 16) is compared with the one that an archive had of it before.
    """CREATE TEMP VIEW judged AS
        SELECT r.id, r.size, r.mtime_us, r.fingerprint, r.md5, r.renamed_from, x.file_id,
            d.modality_id, d.directory_id, d.patient, o.name, o.size AS observed_size,
            iif(length(o.claim) = 4, o.claim, NULL) AS crc32,
            CASE
                WHEN x.file_id IS NULL THEN iif(r.renamed_from IS NULL, 'added', 'renamed')
                WHEN r.size <> f.size THEN 'modified'
                WHEN r.fingerprint IS NULL AND length(o.claim) = 4 AND c.crc32 IS NOT NULL
                    THEN iif(c.crc32 = o.claim, 'same', 'modified')
                WHEN r.fingerprint IS NULL AND length(o.claim) = 16 AND f.md5 IS NOT NULL
                    THEN iif(f.md5 = o.claim, 'same', 'modified')
                WHEN f.fingerprint IS NOT NULL THEN iif(f.fingerprint IS r.fingerprint, 'same', 'modified')
                WHEN f.md5 IS NOT NULL THEN iif(f.md5 IS r.md5, 'same', 'modified')
                ELSE iif(r.mtime_us IS f.mtime_us, 'same', 'modified')
            END AS change,
            r.mtime_us IS NOT f.mtime_us AS other_time
        FROM temp.reading r
        JOIN temp.difference x ON x.id = r.id
        JOIN temp.observed o ON o.rowid = x.observed
        JOIN temp.observed_directory d ON d.id = o.directory
        LEFT JOIN main.file f ON f.id = x.file_id
        LEFT JOIN main.archive_crc32 c ON c.file_id = f.id""",
)

DROP_TABLES = (
    "DROP VIEW IF EXISTS temp.judged",
    *(
        f"DROP TABLE IF EXISTS temp.{table}"
        for table in (
            "observed_directory",
            "observed",
            "unreadable",
            "hidden",
            "outside",
            "moved_outside",
            "alike",
            "difference",
            "gone",
            "reading",
        )
    ),
)

MAP_DIRECTORIES = """
    UPDATE observed_directory
    SET directory_id = (SELECT id FROM main.directory known WHERE known.path = observed_directory.path)
    WHERE directory_id IS NULL
"""

# In the order in which files were seen, which is that in which an archive has them. Whose bytes were seen in passing,
# or are summed up in the archive, is SUSPECT by that, too: some archives have the same times for ever.
DIFFERENCE = """
    INSERT INTO difference (observed, file_id)
    SELECT o.rowid, f.id
    FROM observed o
    JOIN observed_directory d ON d.id = o.directory
    LEFT JOIN main.file f
        ON f.retired_by IS NULL AND f.directory_id = d.directory_id AND f.name = o.name
        AND f.modality_id = d.modality_id
    WHERE f.id IS NULL OR f.size <> o.size OR f.mtime_us <> o.mtime_us OR f.unsettled
        OR o.hashed AND o.claim <> iif(
            length(o.claim) = 4, (SELECT crc32 FROM main.archive_crc32 c WHERE c.file_id = f.id), f.md5)
    ORDER BY o.rowid
"""

# GONE is neither what could not be read nor what is below a directory that could not be read. There may be thousands of
# either: each is looked up ('0' is the character after '/'), and none is compared with every directory.
HIDDEN = """
    INSERT OR IGNORE INTO hidden
    SELECT k.id, u.modality_id FROM unreadable u CROSS JOIN main.directory k
    WHERE u.name IS NULL AND u.directory = ''
    UNION ALL SELECT k.id, u.modality_id FROM unreadable u CROSS JOIN main.directory k ON k.path = u.directory
    WHERE u.name IS NULL
    UNION ALL SELECT k.id, u.modality_id FROM unreadable u
    CROSS JOIN main.directory k ON k.path > u.directory || '/' AND k.path < u.directory || '0'
    WHERE u.name IS NULL AND u.directory <> ''
"""
GONE = """
    INSERT INTO gone (file_id, modality_id, name, size, mtime_us, fingerprint, md5)
    SELECT f.id, f.modality_id, f.name, f.size, f.mtime_us, f.fingerprint, f.md5
    FROM main.file f
    WHERE f.retired_by IS NULL
        AND f.modality_id IN (SELECT value FROM json_each(:modalities))
        AND NOT EXISTS (
            SELECT 1 FROM observed_directory d JOIN observed o ON o.directory = d.id
            WHERE d.directory_id = f.directory_id AND d.modality_id = f.modality_id AND o.name = f.name)
        AND NOT EXISTS (
            SELECT 1 FROM hidden h WHERE h.directory_id = f.directory_id AND h.modality_id = f.modality_id)
        AND NOT EXISTS (
            SELECT 1 FROM main.directory k CROSS JOIN unreadable u
            WHERE k.id = f.directory_id AND u.directory = k.path AND u.name = f.name AND u.modality_id = f.modality_id)
"""

# The versions in paths, those first of which the journal has files.
VERSIONS_IN_PATHS = """
    SELECT d.version, max(EXISTS (
        SELECT 1 FROM main.file f
        WHERE f.directory_id = k.id AND f.modality_id = d.modality_id AND f.retired_by IS NULL)) AS known
    FROM observed_directory d
    LEFT JOIN main.directory k ON k.path = d.path
    WHERE d.version IS NOT NULL GROUP BY 1 ORDER BY known DESC, 1
"""
DIRECTORIES_OF_VERSIONS = """
    SELECT d.id, d.modality_id, d.path, d.version, count(o.name) AS files, coalesce(sum(o.size), 0) AS bytes
    FROM observed_directory d LEFT JOIN observed o ON o.directory = d.id
    WHERE d.version IN (SELECT value FROM json_each(?)) GROUP BY d.id ORDER BY d.version, d.path
"""

# What of GONE is in a directory or below it.
HELD_BELOW = """
    SELECT g.file_id FROM gone g JOIN main.file f ON f.id = g.file_id JOIN main.directory k ON k.id = f.directory_id
    WHERE NOT g.taken AND g.modality_id IN (SELECT value FROM json_each(:modalities))
        AND (:path = '' OR k.path = :path OR substr(k.path, 1, length(:path) + 1) = :path || '/')
"""
HELD_OUTSIDE = "SELECT file_id FROM moved_outside"
COUNT_HELD = "SELECT modality_id, count(*), sum(size) FROM gone JOIN held USING (file_id) GROUP BY 1"

# What has the size of a file that is GONE and whose content is known, and its time (it was moved) or its name (it was
# copied before): reading it says whether it is that.
MAYBE_MOVED_OUTSIDE = """
    SELECT o.rowid, o.modality_id, o.path, o.size, o.mtime_us FROM outside o
    WHERE o.rowid > ? AND (
        EXISTS (SELECT 1 FROM gone g WHERE g.size = o.size AND g.mtime_us = o.mtime_us AND g.fingerprint > x'')
        OR EXISTS (SELECT 1 FROM gone g
            WHERE g.size = o.size AND g.mtime_us = o.mtime_us AND g.fingerprint IS NULL AND g.md5 > x'')
        OR o.size > 0 AND (
            EXISTS (SELECT 1 FROM gone g WHERE g.size = o.size AND g.name = o.name AND g.fingerprint > x'')
            OR EXISTS (SELECT 1 FROM gone g
                WHERE g.size = o.size AND g.name = o.name AND g.fingerprint IS NULL AND g.md5 > x'')))
    ORDER BY o.rowid LIMIT ?
"""
# What of GONE is now under a name that no pattern matches: what was read of those says so by its content. What was not
# read may be any of that size and time, and, where the journal has no content to compare, of that size and name. One
# look-up each: thousands of files may have the same.
MOVED_OUTSIDE = """
    WITH state (file_id, path) AS MATERIALIZED (
        SELECT g.file_id, CASE
            WHEN g.fingerprint IS NOT NULL THEN coalesce(
                (SELECT o.path FROM outside o WHERE o.size = g.size AND o.fingerprint = g.fingerprint LIMIT 1),
                (SELECT o.path FROM outside o
                    WHERE o.size = g.size AND o.mtime_us = g.mtime_us AND o.fingerprint IS NULL LIMIT 1))
            WHEN g.md5 IS NOT NULL THEN coalesce(
                (SELECT o.path FROM outside o WHERE o.size = g.size AND o.md5 = g.md5 LIMIT 1),
                (SELECT o.path FROM outside o
                    WHERE o.size = g.size AND o.mtime_us = g.mtime_us AND o.fingerprint IS NULL LIMIT 1))
            ELSE coalesce(
                (SELECT o.path FROM outside o WHERE o.size = g.size AND o.mtime_us = g.mtime_us LIMIT 1),
                (SELECT o.path FROM outside o WHERE o.size = g.size AND o.name = g.name AND g.size > 0 LIMIT 1))
        END
        FROM gone g WHERE NOT g.taken)
    INSERT INTO moved_outside SELECT file_id, path FROM state WHERE path IS NOT NULL
"""
COUNT_MOVED_OUTSIDE = """
    SELECT f.modality_id, k.path, count(*), min(m.path)
    FROM moved_outside m JOIN main.file f ON f.id = m.file_id JOIN main.directory k ON k.id = f.directory_id
    GROUP BY 1, 2 ORDER BY 1, 2
"""

# Directories whose files may have a key that another file has, but for case and the form of Unicode.
INDEX_FOLDED = "CREATE INDEX temp.observed_folded ON observed_directory (folded)"
ALIKE = """
    CREATE TEMP TABLE alike AS SELECT id FROM observed_directory
    WHERE has_alike OR folded IN (
        SELECT folded FROM observed_directory WHERE folded IS NOT NULL GROUP BY folded HAVING count(*) > 1)
"""
# Where the directory alone does not say the key, the name decides, and each file has to be asked for.
ANY_WITHOUT_PLACE = "SELECT 1 FROM observed_directory WHERE folded IS NULL LIMIT 1"
KEY_BY_PLACE = "coalesce(d.version, :version) || '/' || d.central || o.name"
KEY_BY_PATH = "key_of(d.modality_id, CASE d.path WHEN '' THEN o.name ELSE d.path || '/' || o.name END)"
# Of several that share a key, the one that is journaled already comes first, then by path.
SAME_KEY = """
    WITH keyed (row, modality_id, key, folded, directory, name, size, known) AS (
        SELECT row, modality_id, key, fold(key), path, name, size, known FROM (
            SELECT o.rowid AS row, d.modality_id, {key} AS key, d.path, o.name, o.size,
                EXISTS (SELECT 1 FROM main.file f WHERE f.retired_by IS NULL AND f.directory_id = d.directory_id
                    AND f.name = o.name AND f.modality_id = d.modality_id) AS known
            FROM observed_directory d JOIN observed o ON o.directory = d.id
            WHERE {where})
        WHERE key IS NOT NULL
    ), counted AS (SELECT *, count(*) OVER (PARTITION BY folded) AS sharing FROM keyed)
    SELECT row, modality_id, key, folded, directory, name, size FROM counted
    WHERE sharing > 1 ORDER BY folded, key, known DESC, directory, name
"""

# To be completed with two conditions, which cost a look-up for every file and are only needed when files are GONE.
CANDIDATES = """
    SELECT x.id, d.modality_id, CASE d.path WHEN '' THEN o.name ELSE d.path || '/' || o.name END, o.size, o.mtime_us,
        x.file_id IS NULL, f.size IS o.size, f.fingerprint IS NOT NULL OR f.md5 IS NOT NULL,
        {may_be_renamed},
        (f.fingerprint IS NULL AND f.md5 IS NOT NULL) OR {renamed_needs_md5},
        CASE length(o.claim)
            WHEN 4 THEN EXISTS (SELECT 1 FROM main.archive_crc32 c WHERE c.file_id = f.id)
            WHEN 16 THEN f.md5 IS NOT NULL
            ELSE 0 END
    FROM difference x
    JOIN observed o ON o.rowid = x.observed
    JOIN observed_directory d ON d.id = o.directory
    LEFT JOIN main.file f ON f.id = x.file_id
    WHERE x.id > ? ORDER BY x.id LIMIT ?
"""
SAME_SIZE_GONE = """(x.file_id IS NULL AND EXISTS (
    SELECT 1 FROM gone g WHERE g.modality_id = d.modality_id AND g.size = o.size))"""
SAME_SIZE_GONE_MD5 = """(x.file_id IS NULL AND EXISTS (
    SELECT 1 FROM gone g WHERE g.modality_id = d.modality_id AND g.size = o.size
        AND g.fingerprint IS NULL AND g.md5 IS NOT NULL AND NOT g.taken))"""

# For what follows. Many files of one size, or even of one content, are nothing unusual: a look-up is one step all the
# same, and what is `taken` leaves the indexes.
INDEX_GONE = (
    "CREATE INDEX temp.gone_size ON gone (modality_id, size)",
    "CREATE INDEX temp.gone_state ON gone (size, mtime_us, fingerprint, md5)",
    "CREATE INDEX temp.gone_name ON gone (size, name, fingerprint, md5)",
    "CREATE INDEX temp.outside_time ON outside (size, mtime_us, fingerprint)",
    "CREATE INDEX temp.outside_name ON outside (size, name)",
    "CREATE INDEX temp.outside_fingerprint ON outside (size, fingerprint) WHERE fingerprint IS NOT NULL",
    "CREATE INDEX temp.outside_md5 ON outside (size, md5) WHERE md5 IS NOT NULL",
    "CREATE INDEX temp.gone_fingerprint ON gone (modality_id, size, fingerprint) WHERE NOT taken",
    "CREATE INDEX temp.gone_md5 ON gone (modality_id, size, md5) WHERE NOT taken",
    "CREATE INDEX temp.gone_md5_only ON gone (modality_id, size, md5) WHERE NOT taken AND fingerprint IS NULL",
)

# What was read of NEW files that have the size of one that is GONE.
MAYBE_RENAMED = """
    SELECT r.id, d.modality_id, r.size, r.fingerprint, r.md5, iif(r.fingerprint IS NULL, o.claim, NULL)
    FROM reading r
    JOIN difference x ON x.id = r.id AND x.file_id IS NULL
    JOIN observed o ON o.rowid = x.observed
    JOIN observed_directory d ON d.id = o.directory
    WHERE EXISTS (SELECT 1 FROM gone g WHERE g.modality_id = d.modality_id AND g.size = r.size)
    ORDER BY r.id
"""
# The oldest row that is GONE and has a content: modality, size, fingerprint, MD5, and the MD5 that a service claims.
OF_THAT_CONTENT = """
    SELECT min(file_id) FROM (
        SELECT * FROM (
            SELECT file_id FROM gone WHERE modality_id = ?1 AND size = ?2 AND fingerprint = ?3 AND NOT taken
            ORDER BY file_id LIMIT 1)
        UNION ALL SELECT * FROM (
            SELECT file_id FROM gone
            WHERE modality_id = ?1 AND size = ?2 AND md5 = ?4 AND fingerprint IS NULL AND NOT taken
            ORDER BY file_id LIMIT 1)
        UNION ALL SELECT * FROM (
            SELECT file_id FROM gone WHERE modality_id = ?1 AND size = ?2 AND md5 = ?5 AND NOT taken
            ORDER BY file_id LIMIT 1))
"""

# The old row has to leave before the new one enters: a path has one active row.
RETIRE_CHANGED = """
    UPDATE main.file SET retired_by = :version, retirement = j.change
    FROM judged j
    WHERE j.change IN ('modified', 'renamed') AND main.file.id = coalesce(j.file_id, j.renamed_from)
"""
# A change after the scan began gets a time of at least that moment, less the clock's grain (`:settled`). A file
# that is as young as that could later hold something else under the same time: it is unsettled, and read again
# next time. What was not read at all cannot have been read too early.
ENTER = """
    INSERT INTO main.file (modality_id, directory_id, name, patient, size, mtime_us, fingerprint, md5, unsettled,
        change, introduced_by, renamed_from)
    SELECT modality_id, directory_id, name, patient, size, mtime_us, fingerprint, md5,
        fingerprint IS NOT NULL AND mtime_us >= :settled, change, :version, renamed_from
    FROM judged WHERE change <> 'same' ORDER BY id
"""
# Last, for it makes the two times equal by which TOUCHED was told from SAME.
KEEP = """
    UPDATE main.file SET mtime_us = j.mtime_us, fingerprint = coalesce(j.fingerprint, main.file.fingerprint),
        md5 = coalesce(j.md5, main.file.md5),
        unsettled = coalesce(j.fingerprint, main.file.fingerprint) IS NOT NULL AND j.mtime_us >= :settled
    FROM judged j WHERE j.change = 'same' AND main.file.id = j.file_id
"""
# Of the rows that hold these contents now, entered just now or known before.
KEEP_CRC32 = """
    INSERT OR REPLACE INTO main.archive_crc32 (file_id, crc32)
    SELECT f.id, j.crc32 FROM judged j
    JOIN main.file f ON f.retired_by IS NULL AND f.directory_id = j.directory_id AND f.name = j.name
        AND f.modality_id = j.modality_id
    WHERE j.crc32 IS NOT NULL
"""
COUNT_JUDGED = """
    SELECT modality_id, iif(change = 'same', iif(other_time, 'touched', 'unchanged'), change),
        count(*), sum(size), sum(observed_size)
    FROM judged GROUP BY 1, 2
"""
