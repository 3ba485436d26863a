"""What must hold in every journal, as queries that find what breaks it.

The database keeps most of it by itself; but a journal may have been edited by hand, cut off, or come from a disk
that forgets. Each rule is asked for by one query, so that what it finds can be named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import CheckConstraint, text

from chorus_upload.errors import JournalError
from chorus_upload.journal.journal import Journal
from chorus_upload.journal.schema import metadata

FUTURE_US = 86_400_000_000
"""So far ahead of this machine's clock a time may be: clocks differ, and older tools wrote local times."""

MOST_NAMED = 50
"""So many cases of one rule are named; a number stands for the others."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is not as it ought to be: `is_broken` when the journal cannot be trusted in it, else worth knowing."""

    rule: str
    detail: str
    is_broken: bool = True


@dataclass(frozen=True, slots=True)
class Contents:
    """How much a journal holds. `files` counts their states, the retired ones too."""

    versions: int
    files: int
    deliveries: int


class _Rule(NamedTuple):
    """`query` gives a row for each case; `words` make a sentence of its columns."""

    name: str
    words: str
    query: str


_PATH = "iif(k.path = '', f.name, k.path || '/' || f.name)"

# The path of a file `f` in a directory `k` names the folder that the key of its delivery `d` begins with.
_HAS_OWN_FOLDER = """(instr(d.key, '/') > 1
        AND instr(k.path || '/' || f.name, substr(d.key, 1, instr(d.key, '/') - 1)) > 0)"""

_NOW_US = "CAST(strftime('%s', 'now') AS INTEGER) * 1000000"

_RULES = (
    _Rule(
        "active-twice",
        "{} ({}) is active {} times; a path has one active file at most",
        f"""
        SELECT {_PATH}, m.name, count(*) FROM file f
        JOIN directory k ON k.id = f.directory_id JOIN modality m ON m.id = f.modality_id
        WHERE f.retired_by IS NULL GROUP BY f.directory_id, f.name, f.modality_id HAVING count(*) > 1
        """,
    ),
    _Rule(
        "renamed-from-another",
        "{} is said to be renamed from {}, which is {}",
        f"""
        SELECT {_PATH}, former.path,
            CASE
                WHEN o.retirement IS NULL THEN 'still active'
                WHEN o.retirement <> 'renamed' THEN 'retired for another reason'
                WHEN o.modality_id <> f.modality_id THEN 'of another modality'
                ELSE 'of other content'
            END
        FROM file f
        JOIN file o ON o.id = f.renamed_from
        JOIN directory k ON k.id = f.directory_id
        JOIN (SELECT f.id, {_PATH} AS path FROM file f JOIN directory k ON k.id = f.directory_id) former
            ON former.id = o.id
        WHERE f.renamed_from IS NOT NULL AND (o.retirement IS NOT 'renamed' OR o.modality_id <> f.modality_id
            OR o.size <> f.size OR o.fingerprint <> f.fingerprint OR o.md5 <> f.md5)
        """,
    ),
    _Rule(
        "renamed-from-later",
        "{} is said to be renamed from {}, which came into the journal {}",
        f"""
        SELECT {_PATH}, former.path, iif(f.id = former.id, 'as the same row', 'after it') FROM file f
        JOIN directory k ON k.id = f.directory_id
        JOIN (SELECT f.id, {_PATH} AS path FROM file f JOIN directory k ON k.id = f.directory_id) former
            ON former.id = f.renamed_from
        WHERE f.renamed_from >= f.id
        """,
    ),
    _Rule(
        "renamed-twice",
        "{} is said to have been renamed {} times at once",
        f"""
        SELECT {_PATH}, r.times
        FROM (SELECT renamed_from, count(*) AS times FROM file WHERE renamed_from IS NOT NULL
            GROUP BY renamed_from HAVING times > 1) r
        JOIN file f ON f.id = r.renamed_from JOIN directory k ON k.id = f.directory_id
        """,
    ),
    _Rule(
        "delivered-other-content",
        "{} was delivered as {} with the MD5 {}; its own is {}",
        f"""
        SELECT {_PATH}, d.key, lower(hex(d.md5)), iif(f.md5 IS NULL, 'missing', lower(hex(f.md5)))
        FROM delivery d JOIN file f ON f.id = d.file_id JOIN directory k ON k.id = f.directory_id
        WHERE f.md5 IS NOT d.md5
        """,
    ),
    _Rule(
        "delivered-elsewhere",
        "{} was delivered to {} by the submission {}, which went to {}",
        """
        SELECT d.key, t.url, s.label, o.url FROM delivery d
        JOIN submission s ON s.id = d.submission_id
        JOIN destination t ON t.id = d.destination_id JOIN destination o ON o.id = s.destination_id
        WHERE d.destination_id <> s.destination_id
        """,
    ),
    _Rule(
        "key-of-several",
        "{} in {} is the key of several active files with different contents",
        """
        SELECT c.key, t.url FROM (
            SELECT destination_id, key FROM delivery GROUP BY destination_id, key HAVING count(*) > 1) c
        JOIN delivery d ON d.destination_id = c.destination_id AND d.key = c.key
        JOIN file f ON f.id = d.file_id AND f.retired_by IS NULL
        JOIN destination t ON t.id = c.destination_id
        GROUP BY c.destination_id, c.key HAVING count(DISTINCT d.md5) > 1
        """,
    ),
    # Two files whose object can be only one of them. It may be so of one path in two cases: the first content was
    # superseded within its version, and so is in the state of none; or the path names the folder of the key itself.
    _Rule(
        "key-taken-over",
        "{} in {} is the key of {} and of {}, with other content: what was delivered first is not there any more",
        f"""
        SELECT c.key, t.url, {_PATH}, later.path FROM (
            SELECT destination_id, key FROM delivery GROUP BY destination_id, key HAVING count(*) > 1) c
        JOIN delivery d ON d.destination_id = c.destination_id AND d.key = c.key
        JOIN file f ON f.id = d.file_id JOIN directory k ON k.id = f.directory_id
        JOIN version v ON v.id = f.introduced_by
        JOIN (SELECT f.id, f.directory_id, f.name, f.modality_id, f.retired_by, d.destination_id, d.key, d.md5,
                {_PATH} AS path
            FROM delivery d JOIN file f ON f.id = d.file_id JOIN directory k ON k.id = f.directory_id) later
            ON later.destination_id = c.destination_id AND later.key = c.key AND later.id > f.id AND later.md5 <> d.md5
        JOIN destination t ON t.id = c.destination_id
        WHERE (f.retired_by IS NOT NULL OR later.retired_by IS NOT NULL)
            AND (f.retired_by IS NULL OR f.retired_by > f.introduced_by)
            AND NOT ((f.directory_id, f.name, f.modality_id) = (later.directory_id, later.name, later.modality_id)
                AND (d.evidence = 'imported' OR {_HAS_OWN_FOLDER}))
        """,
    ),
    _Rule(
        "retired-before",
        "{} ({}) is retired by version {}, and was introduced by {}, which is newer",
        f"""
        SELECT {_PATH}, m.name, w.label, v.label FROM file f
        JOIN directory k ON k.id = f.directory_id JOIN modality m ON m.id = f.modality_id
        JOIN version v ON v.id = f.introduced_by JOIN version w ON w.id = f.retired_by
        WHERE f.retired_by < f.introduced_by
        """,
    ),
    _Rule(
        "key-outside-version",
        "{} is the key of {}, which is of version {}, and whose path names no other",
        f"""
        SELECT d.key, {_PATH}, v.label FROM delivery d
        JOIN file f ON f.id = d.file_id JOIN version v ON v.id = f.introduced_by
        JOIN directory k ON k.id = f.directory_id
        WHERE substr(d.key, 1, length(v.label) + 1) <> v.label || '/' AND NOT {_HAS_OWN_FOLDER}
        """,
    ),
    _Rule(
        "key-name",
        "{} cannot be a key: it has an empty, '.' or '..' part, or a NUL",
        """
        SELECT key FROM delivery
        WHERE instr(key, '//') OR substr(key, 1, 1) = '/' OR substr(key, -1) = '/' OR instr(key, char(0))
            OR (instr(key, '/.') OR substr(key, 1, 1) = '.')
                AND (instr('/' || key || '/', '/./') OR instr('/' || key || '/', '/../'))
        """,
    ),
    _Rule(
        "delivered-in-future",
        "{} was delivered at {} UTC, which is still to come: was that machine's clock wrong, or is this one's?",
        f"""
        SELECT key, coalesce(datetime(delivered_us / 1000000, 'unixepoch'), delivered_us || ' us') FROM delivery
        WHERE delivered_us > {_NOW_US} + {FUTURE_US}
        """,
    ),
    _Rule(
        "etag-value",
        "{} cannot be an etag: that of {} has a control character",
        """
        SELECT replace(replace(etag, char(10), '\\n'), char(13), '\\r'), key FROM delivery
        WHERE instr(etag, char(10)) OR instr(etag, char(13)) OR instr(etag, char(0))
        """,
    ),
    _Rule(
        "patient-not-in-path",
        "{} is of the patient {}, whom its path does not name",
        f"""
        SELECT {_PATH}, f.patient FROM file f JOIN directory k ON k.id = f.directory_id
        WHERE f.patient IS NOT NULL AND NOT instr(k.path || '/' || f.name, f.patient)
        """,
    ),
    _Rule(
        "file-name",
        "{} in the directory '{}' cannot be the name of a file",
        """
        SELECT f.name, k.path FROM file f JOIN directory k ON k.id = f.directory_id
        WHERE f.name IN ('.', '..') OR instr(f.name, char(0))
        """,
    ),
    _Rule(
        "directory-name",
        "{} cannot be the path of a directory",
        """
        SELECT path FROM directory
        WHERE path LIKE '/%' OR path LIKE '%/' OR path LIKE '%//%' OR instr(path, char(0))
            OR '/' || path || '/' LIKE '%/./%' OR '/' || path || '/' LIKE '%/../%'
        """,
    ),
    _Rule(
        "folder-name",
        "{} cannot be the name of a {}: it is part of keys",
        """
        SELECT name, what FROM (
            SELECT label AS name, 'version' AS what FROM version UNION ALL SELECT name, 'modality' FROM modality)
        WHERE name IN ('', '.', '..') OR instr(name, '/') OR instr(name, '\\') OR instr(name, char(0))
        """,
    ),
)

# What is worth knowing, and no fault.
_REMARKS = (
    _Rule(
        "version-open",
        "version {} was not finished: {}",
        """
        SELECT label, iif(id = (SELECT max(id) FROM version), '`journal update` goes on with it',
            'a later one was begun instead')
        FROM version WHERE completed_us IS NULL ORDER BY id
        """,
    ),
    _Rule(
        "submission-open",
        "submission {} to {} was not finished: {}",
        """
        SELECT s.label, t.url, iif(s.id = max(s.id) OVER (PARTITION BY s.destination_id),
            'the next `file upload` goes on with it', 'a later one was begun instead')
        FROM submission s JOIN destination t ON t.id = s.destination_id WHERE s.completed_us IS NULL ORDER BY s.id
        """,
    ),
    _Rule(
        "clock-went-back",
        "version {} was recorded after {}, but its clock said earlier: it counts as the later one all the same",
        """
        SELECT label, before FROM (
            SELECT label, begun_us, lag(label) OVER recorded AS before, lag(begun_us) OVER recorded AS before_us
            FROM version WINDOW recorded AS (ORDER BY id))
        WHERE begun_us < before_us
        """,
    ),
    _Rule(
        "version-times",
        "version {} was {}: was that machine's clock wrong, or is this one's?",
        f"""
        SELECT label, iif(completed_us + {FUTURE_US} < begun_us, 'finished before it was begun', 'begun in the future')
        FROM version
        WHERE max(begun_us, coalesce(completed_us, 0)) > {_NOW_US} + {FUTURE_US}
            OR completed_us + {FUTURE_US} < begun_us
        ORDER BY id
        """,
    ),
    _Rule(
        "keys-alike",
        "{} and {} in {} differ only in case: where case does not count they are one",
        """
        SELECT min(d.key), max(d.key), t.url FROM delivery d JOIN destination t ON t.id = d.destination_id
        GROUP BY d.destination_id, lower(d.key) HAVING count(DISTINCT d.key) > 1
        """,
    ),
    _Rule(
        "amended-late",
        "version {} was added to when {} had been begun: that changed what newer versions say. It is refused now",
        """
        SELECT DISTINCT v.label, n.label FROM (
            SELECT version_id, max(version_id) OVER (ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
                AS newest FROM scan) s
        JOIN version v ON v.id = s.version_id JOIN version n ON n.id = s.newest
        WHERE s.newest > s.version_id
        """,
    ),
    _Rule(
        "directories-unused",
        "directories without a file: {}; `journal prune` drops them",
        "SELECT count(*) FROM directory WHERE id NOT IN (SELECT directory_id FROM file) HAVING count(*) > 0",
    ),
)


def findings(journal: Journal) -> Iterator[Finding]:
    """Yield what is wrong with the file, with the rules in it and with its contents, then what is worth knowing."""
    yield from _damage(journal)
    yield from _missing_rules(journal)
    for rules, is_broken in (([*_value_rules(), *_RULES], True), (_REMARKS, False)):
        for rule in rules:
            try:
                yield from _ask(journal, rule, is_broken=is_broken)
            except JournalError as error:
                # A query that reads what is damaged. It cannot say whether its rule holds.
                yield Finding(rule.name, f"could not be checked: {error.message}")


def contents(journal: Journal) -> Contents:
    """Count what the journal holds."""
    statement = "SELECT (SELECT count(*) FROM version), (SELECT count(*) FROM file), (SELECT count(*) FROM delivery)"
    with journal.transaction() as connection:
        return Contents(*connection.exec_driver_sql(statement).one())


def _damage(journal: Journal) -> Iterator[Finding]:
    try:
        problems = Counter(journal.problems())
    except JournalError as error:
        problems = Counter([error.message])
    for problem, times in problems.items():
        yield Finding("damaged", problem if times == 1 else f"{problem} ({times:,} times)")


def _missing_rules(journal: Journal) -> Iterator[Finding]:
    tables = metadata.tables.values()
    wanted = {table.name for table in tables} | {str(index.name) for table in tables for index in table.indexes}
    with journal.transaction() as connection:
        there = set(connection.execute(text("SELECT name FROM sqlite_master")).scalars())
    for name in sorted(wanted - there):
        yield Finding("schema", f"{name} is missing in the database: what it enforces is not enforced")


def _value_rules() -> Iterator[_Rule]:
    """The checks of the schema, as rules: through a connection that only reads, SQLite does not look at them."""
    for table in metadata.tables.values():
        checks = {str(each.name): str(each.sqltext) for each in table.constraints if isinstance(each, CheckConstraint)}
        if checks:
            which = " ".join(f"WHEN NOT ({check}) THEN '{name}'" for name, check in checks.items())
            holds = " AND ".join(f"({check})" for check in checks.values())
            query = (
                f"SELECT count(*), '{table.name}', CASE {which} END FROM {table.name} WHERE NOT ({holds}) GROUP BY 3"
            )
            yield _Rule("value", "{} of the table {} break its rule {}", query)


def _ask(journal: Journal, rule: _Rule, *, is_broken: bool) -> Iterator[Finding]:
    with journal.transaction() as connection:
        found = connection.execute(text(f"SELECT * FROM ({rule.query}) LIMIT {MOST_NAMED + 1}")).all()
        more = 0
        if len(found) > MOST_NAMED:
            more = connection.execute(text(f"SELECT count(*) FROM ({rule.query})")).scalar_one() - MOST_NAMED
    for row in found[:MOST_NAMED]:
        shown = (each.replace("\0", "\\0") if isinstance(each, str) else each for each in row)
        yield Finding(rule.name, rule.words.format(*shown), is_broken=is_broken)
    if more:
        yield Finding(rule.name, f"and {more:,} more of the kind", is_broken=is_broken)
