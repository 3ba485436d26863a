"""Journals that somebody or something has tampered with: an error in words, the original kept, nothing made up."""

from __future__ import annotations

import hashlib
import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from chorus_upload.errors import DestinationChanged, JournalError, SchemaTooNew
from tests.e2e.clouds import JOURNAL
from tests.e2e.conftest import new_disk, settle
from tests.e2e.site import Site
from tests.faults.figures import Figures
from tests.faults.hostile import Ended, cases, surroundings, times, typed
from tests.trees import Bytes, build, remove, rename

LEGACY = Path(__file__).parents[1] / "data" / "legacy"
REFUSED = (JournalError.exit_code, SchemaTooNew.exit_code)
ASKED = DestinationChanged.exit_code
ALL_CODES = (0, 2, 3, 4, ASKED, 10, 11, 12, 13, 14, 20)
UPGRADE = ("journal", "upgrade")

READING = (
    *(("journal", "list"), ("journal", "check"), ("journal", "diff", "spring", "autumn"), ("history",)),
    *(("journal", "show", "1001/Images/scan.dcm"), ("file", "list"), ("file", "list", "--uploaded")),
    *(("file", "verify"), ("file", "download", "--to", "back"), ("file", "download")),
)
WRITING = (
    *(("journal", "update"), ("file", "upload"), ("journal", "checkout"), ("journal", "checkin"), UPGRADE),
    *(
        ("journal", "prune", "--yes", "--keep", "1"),
        ("journal", "merge"),
        ("file", "mark-as-deleted", "--file", "OMOP/person.csv"),
    ),
)
LOCAL_ONLY = (("journal", "checkin"), ("journal", "merge"))
"""They look at what is here, and there is nothing."""


@dataclass(frozen=True, slots=True)
class Tampered:
    """A site that has uploaded two versions. Each attack gets it as if nothing had happened since."""

    root: Path
    copy: Path
    site: Site

    @property
    def cloud(self) -> Path:
        return self.root / "cloud" / JOURNAL

    def restore(self) -> None:
        shutil.rmtree(self.root)
        shutil.copytree(self.copy, self.root)

    def type(self, command: tuple[str, ...], figures: Figures) -> Ended:
        return typed(self.site.home, *command, figures=figures)

    def around(self) -> object:
        """What no command on a journal has any business with. What it brings back goes to the home directory."""
        return surroundings(self.root.parent, but=(self.site.home, self.root / "cloud", self.copy))

    def delivered(self) -> dict[str, str]:
        """The checksums of what is in the central store, by key."""
        data = self.root / "cloud" / "data"
        return {
            str(path.relative_to(data)): hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
            for path in data.rglob("*")
            if path.is_file() and path.name != "journal.db"
        }


@pytest.fixture
def tampered(in_memory: Path, figures: Figures) -> Tampered:
    root = in_memory / "it"
    site = settle(root / "home", root / "source", new_disk(root / "cloud"), threads=2)
    found = Tampered(root, in_memory / "copy", site)
    build(site.source, {f"{each}/Images/scan.dcm": Bytes(100) for each in range(1001, 1006)} | {"OMOP/person.csv": "1"})
    for command in ("journal update --version spring", "file upload"):
        assert typed(site.home, *command.split(), figures=figures).exit_code == 0
    build(site.source, {"1001/Images/scan.dcm": Bytes(7)})
    rename(site.source, "1002", "2002")
    remove(site.source / "1003")
    for command in (
        "journal update --version autumn --confirm-deletions",
        "file upload --max-num-files 1",
    ):
        assert typed(site.home, *command.split(), figures=figures).exit_code == 0
    shutil.copytree(root, found.copy)
    return found


def _of_bits(content: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 2, 5, 50))):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)


def _of_its_end(content: bytearray, chance: random.Random) -> None:
    del content[chance.randrange(len(content)) :]


def _of_a_page(content: bytearray, chance: random.Random) -> None:
    begin, other = (chance.randrange(len(content) // 4096) * 4096 for _ in range(2))
    content[begin : begin + 4096] = chance.choice((bytes(4096), content[other : other + 4096]))


def _of_the_header(content: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 3, 20))):
        content[chance.randrange(100)] = chance.randrange(256)


def _of_the_heads_of_pages(content: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 3, 20))):
        content[chance.randrange(len(content) // 4096) * 4096 + chance.randrange(30)] = chance.randrange(256)


def _of_everything(content: bytearray, chance: random.Random) -> None:
    content[chance.choice((0, 16, 100)) :] = chance.randbytes(chance.randrange(10_000))


def _of_numbers(content: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 5, 50))):
        begin = chance.randrange(len(content) - 4)
        content[begin : begin + 4] = chance.choice((b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"\x80\0\0\0"))


DAMAGES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    *(_of_bits, _of_its_end, _of_a_page, _of_the_header, _of_the_heads_of_pages, _of_everything, _of_numbers),
)


def _damaged(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    chance.choice(DAMAGES)(changed, chance)
    return bytes(changed)


@pytest.mark.timeout(1_200)
def test_a_damaged_journal(tampered: Tampered, figures: Figures) -> None:
    """In the cloud, here as a copy, or here while it is checked out."""
    for told, chance in cases(times(quick=8, thorough=800)):
        tampered.restore()
        local, where = tampered.site.journal, chance.choice(("cloud", "copy", "checked out"))
        if where == "checked out":
            tampered.type(("journal", "checkout"), figures)
        place = tampered.cloud if where == "cloud" else local
        place.write_bytes(_damaged(place.read_bytes(), chance))
        if where == "cloud":
            local.unlink()
        around, delivered, kept = tampered.around(), tampered.delivered(), tampered.cloud.read_bytes()
        for command in chance.sample(READING + WRITING, 2):
            ended = tampered.type(command, figures)
            assert ended.exit_code in ALL_CODES, (told, where, command, ended)
            assert tampered.around() == around, (told, where, command)
            assert delivered.items() <= tampered.delivered().items(), (told, where, command)
            if ended.exit_code in (ASKED, *REFUSED):
                figures.count("damaged journals refused")
                assert "hint: " in ended.said or "docs/recovery.md" in ended.said, (told, where, command, ended)
                assert tampered.cloud.read_bytes() == kept, (told, where, command)
            kept = tampered.cloud.read_bytes()
        figures.count("journals damaged")


# What the tables of a stranger may hold. Those in the first group are never met in a journal of ours: it is refused.
NOT_OURS = {
    "a trigger that deletes": "CREATE TRIGGER t AFTER INSERT ON command BEGIN DELETE FROM delivery; END",
    "a trigger that delivers": """
        CREATE TRIGGER t AFTER INSERT ON command BEGIN
            INSERT OR IGNORE INTO delivery SELECT id, 1, 1, 'k' || id, zeroblob(16), 'server', 'e', 1, 1 FROM file; END
    """,
    "a view for a table": "DROP TABLE custody; CREATE VIEW custody AS SELECT load_extension('/tmp/x')",
    "a view beside": "CREATE VIEW x AS SELECT load_extension('/tmp/x')",
    "a virtual table": "CREATE VIRTUAL TABLE v USING fts3(a)",
    "a column that computes": "ALTER TABLE file ADD COLUMN g GENERATED ALWAYS AS (abs(-9223372036854775808)) VIRTUAL",
    "a column less": "ALTER TABLE command DROP COLUMN host",
    "two revisions": "INSERT INTO alembic_version VALUES ('0002')",
    "no revision": "DELETE FROM alembic_version",
    "a path for a revision": "UPDATE alembic_version SET version_num = '../../x'",
    "bytes for a revision": "UPDATE alembic_version SET version_num = x'ff'",
    "words for a size": "UPDATE file SET size = 'many'",
    "a negative size": "UPDATE file SET size = -5",
    "a size with a fraction": "UPDATE file SET size = 1e300",
    "words for a time": "UPDATE file SET mtime_us = 'x'",
    "bytes for a name": "UPDATE file SET name = CAST('a' || id AS BLOB)",
    "a slash in a name": "UPDATE file SET name = 'a/../../../x' || id",
    "an unknown mode": "UPDATE version SET mode = 'other'",
    "an unknown change": "UPDATE file SET change = 'other', renamed_from = NULL",
    "an unknown evidence": "UPDATE delivery SET evidence = 'other'",
    "words for a checksum": "UPDATE delivery SET md5 = 'x'",
    "bytes for an etag": "UPDATE delivery SET etag = x'ff'",
    "bytes for a patient": "UPDATE file SET patient = x'00'",
    "endless seconds": "UPDATE command SET seconds = 9e999",
    "a very long text": "UPDATE command SET arguments = hex(zeroblob(20000000))",
}
STRANGE = {
    "a huge size": "UPDATE file SET size = 9223372036854775807",
    "the end of time": "UPDATE file SET mtime_us = 9223372036854775807",
    "before all time": "UPDATE file SET mtime_us = -9223372036854775808",
    "versions without a time": "UPDATE version SET begun_us = 9223372036854775807, completed_us = -9223372036854775808",
    "commands without a time": "UPDATE command SET begun_us = 9223372036854775807, seconds = 9e999, exit_code = -1",
    "names that are no text": "UPDATE file SET name = CAST(x'ff6669' || hex(id) AS TEXT)",
    "names with a NUL": "UPDATE file SET name = 'a' || char(0) || id",
    "names that a terminal acts upon": "UPDATE file SET name = char(27) || ']0;x' || char(7) || id",
    "names with markup": "UPDATE file SET name = '[red]x[/]' || id",
    "directories outside": "UPDATE directory SET path = '../../../evil' || id",
    "directories at the root": "UPDATE directory SET path = '/tmp/evil' || id",
    "directories on a drive": r"UPDATE directory SET path = 'C:\x' || id",
    "keys outside": "UPDATE delivery SET key = '../../../../etc/passwd' || file_id",
    "keys at the root": "UPDATE delivery SET key = '/etc/passwd' || file_id",
    "keys with a NUL": "UPDATE delivery SET key = 'a' || char(0) || file_id",
    "the journal as a key": "UPDATE delivery SET key = '../journal/journal.db' || file_id",
    "very long keys": "UPDATE delivery SET key = hex(zeroblob(100000)) || file_id",
    "labels outside": "UPDATE version SET label = '../../x' || id",
    "labels at the root": "UPDATE version SET label = '/tmp/evil' || id",
    "labels that are options": "UPDATE version SET label = '--yes' || id",
    "labels that a terminal acts upon": "UPDATE version SET label = char(27) || '[2J' || id",
    "an empty label": "UPDATE version SET label = '' WHERE id = 1",
    "modalities outside": "UPDATE modality SET name = '../x' || id",
    "patients outside": "UPDATE file SET patient = '../../x' || char(27)",
    "submissions outside": "UPDATE submission SET label = '../../x' || id",
    "renamed from itself": "UPDATE file SET renamed_from = id, change = 'renamed'",
    "no directories": "DELETE FROM directory",
    "no versions": "DELETE FROM version",
    "a rule less": "DROP INDEX uq_file_active",
    "a history of brackets": "UPDATE command SET arguments = replace(hex(zeroblob(50000)), '00', '[')",
    "a custody that leads outside": """
        DELETE FROM custody; INSERT INTO custody VALUES (1, '../../x', 'in', NULL, NULL, NULL, 0, 0)
    """,
    "numbers in the header": "PRAGMA user_version = 2000000000; PRAGMA application_id = 5",
}


@pytest.mark.timeout(1_200)
def test_a_journal_that_somebody_made(tampered: Tampered, figures: Figures) -> None:
    """It was put in the place of the cloud's, or is merged. What it names is never written outside."""
    step = times(quick=4, thorough=1)
    for told, chance in cases(times(quick=1, thorough=2)):
        for name, statements in list((NOT_OURS | STRANGE).items())[chance.randrange(3) % step :: step]:
            tampered.restore()
            _tamper(tampered.cloud, statements)
            tampered.site.journal.unlink()
            kept, around = tampered.cloud.read_bytes(), tampered.around()
            for command in chance.sample(READING + WRITING, times(quick=1, thorough=4)):
                ended = tampered.type(command, figures)
                assert ended.exit_code in ALL_CODES, (told, name, command, ended)
                assert tampered.around() == around, (told, name, command)
                if name in NOT_OURS and command in WRITING and command not in LOCAL_ONLY:
                    assert ended.exit_code in REFUSED, (told, name, command, ended)
                    assert tampered.cloud.read_bytes() == kept, (told, name, command)
                    figures.count("journals of other hands refused")
            figures.count("journals made by hand")


def test_a_journal_that_somebody_made_is_not_merged(tampered: Tampered, figures: Figures) -> None:
    other = tampered.root / "home" / "other.db"
    names = list(NOT_OURS)[:: times(quick=4, thorough=1)]
    for name in names:
        tampered.restore()
        shutil.copyfile(tampered.cloud, other)
        _tamper(other, NOT_OURS[name])
        before = other.read_bytes()
        assert tampered.type(("journal", "merge", str(other)), figures).exit_code in REFUSED, name
        assert other.read_bytes() == before
        figures.count("journals not merged")


NOT_A_FILE = {
    "a directory": lambda path: path.mkdir(),
    "nothing": lambda path: path.write_bytes(b""),
    "a web page": lambda path: path.write_bytes(b"<html>Please log in</html>"),
    "a header only": lambda path: path.write_bytes(path.with_name("good").read_bytes()[:100]),
    "the log of another": lambda path: path.with_name(f"{path.name}-wal").write_bytes(bytes(range(256)) * 400),
}


@pytest.mark.timeout(600)
def test_what_stands_where_the_local_journal_belongs(tampered: Tampered, figures: Figures) -> None:
    commands = READING + WRITING
    attacks = [(name, command) for name in NOT_A_FILE for command in commands]
    for name, command in attacks[:: times(quick=13, thorough=1)]:
        tampered.restore()
        tampered.site.journal.rename(tampered.site.home / "good")
        if name == "the log of another":
            shutil.copyfile(tampered.site.home / "good", tampered.site.journal)
        NOT_A_FILE[name](tampered.site.journal)
        around = tampered.around()
        assert tampered.type(command, figures).exit_code in ALL_CODES
        assert tampered.around() == around
        figures.count("things that are no journal")


ODD_VALUES = (
    *("NULL", "''", "'../../x'", "'/abs'", "x'ff00'", "CAST(x'ff' AS TEXT)", "-1", "1 << 62", "9e999", "1e300"),
    *("'a' || char(0)", "char(27) || '[2J'", "'a' || char(10) || 'b'", "'[red]'", "rowid", "'x' || rowid", "'--yes'"),
    *("'99999999999999'", "'20250230000000'", "'9' || hex(zeroblob(3000))", "'a; DROP TABLE file'"),
)


@pytest.mark.timeout(1_200)
def test_an_old_journal_that_was_tampered_with(tampered: Tampered, figures: Figures) -> None:
    """Of both generations. It is converted as a whole, or refused; the original is there in any case.

    Its uploads are not in the central store, so it is not converted before somebody says what that means.
    """
    answers = ("--same-destination", "--new-destination")
    for told, chance in cases(times(quick=6, thorough=400)):
        tampered.restore()
        tampered.site.journal.unlink()
        original = (LEGACY / f"journal-{chance.choice(('v1', 'v2', 'v2append'))}.db").read_bytes()
        if chance.random() < 0.5:
            tampered.cloud.write_bytes(_damaged(original, chance))
        else:
            tampered.cloud.write_bytes(original)
            _tamper(tampered.cloud, _oddities(tampered.cloud, chance))
        around, kept = tampered.around(), tampered.cloud.read_bytes()
        answered = (*UPGRADE, chance.choice(answers))
        for command in (UPGRADE, answered, (*answered, "--confirm-omissions")):
            ended = tampered.type(command, figures)
            # What is asked is asked of what could be converted. Without an upload there is nothing to ask.
            assert ended.exit_code in (0, ASKED, *REFUSED) if command == UPGRADE else (0, *REFUSED), (told, ended)
            assert tampered.around() == around, told
            assert kept in [path.read_bytes() for path in tampered.cloud.parent.iterdir()], told
            assert not list(tampered.cloud.parent.glob("*.locked")), (told, ended)
            if ended.exit_code == 0:
                assert tampered.type(("journal", "check"), figures).exit_code in (0, *REFUSED), told
                break
            assert tampered.cloud.read_bytes() == kept, told
        figures.count("old journals converted" if ended.exit_code == 0 else "old journals refused")


def _oddities(journal: Path, chance: random.Random) -> str:
    with closing(sqlite3.connect(journal)) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        columns = [(table, row[1]) for table in tables for row in database.execute(f"PRAGMA table_info({table})")]
    first = tables[0]
    chosen = chance.choices(columns, k=chance.choice((1, 1, 3)))
    some = chance.choice(("", " WHERE rowid % 3 = 0"))
    odd = (f'UPDATE OR IGNORE {each} SET "{name}" = {chance.choice(ODD_VALUES)}{some}' for each, name in chosen)  # noqa: S608
    made = (
        f"CREATE TRIGGER t AFTER INSERT ON {first} BEGIN DELETE FROM {first}; END",  # noqa: S608
        f"ALTER TABLE {first} RENAME TO other; CREATE VIEW {first} AS SELECT * FROM other",  # noqa: S608
        f"DROP TABLE {chance.choice(tables)}",
    )
    return "; ".join(odd) if chance.random() < 0.7 else chance.choice(made)


def _tamper(journal: Path, statements: str) -> None:
    """As anybody can who has SQLite; a statement that it refuses is left out."""
    with closing(sqlite3.connect(journal)) as database:
        database.executescript("PRAGMA ignore_check_constraints = ON; PRAGMA foreign_keys = OFF")
        try:
            database.executescript(statements)
        except (sqlite3.IntegrityError, sqlite3.OperationalError):
            database.rollback()
