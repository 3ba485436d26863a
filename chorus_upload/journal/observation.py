"""What a scan saw, streamed into temporary tables and compared with the journal by one query.

The life of an Observation::

    with Observation(journal, modalities) as seen:
        number = seen.directory(…); seen.files(number, entries); seen.unreadable(…)   # during the scan
        seen.compare()                                                                # NEW, SUSPECT, GONE
        seen.begin(…)                                                                 # from here on it writes
        for candidates in seen.candidates(): …; seen.apply(readings)                  # one transaction each
        seen.retire_gone()

The tables are temporary: they live in files of SQLite's own and vanish with the connection, so memory stays
flat however large the tree is, and an interrupted update leaves nothing behind but what it applied.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple, Self

from sqlalchemy import Connection, text

from chorus_upload.events import Tally
from chorus_upload.journal import diff, doubts
from chorus_upload.journal.database import driver
from chorus_upload.journal.diff import Candidate, OutsideFile
from chorus_upload.journal.doubts import MovedOutside, Refuse, SameKey, VersionLeftOut
from chorus_upload.journal.journal import Journal
from chorus_upload.model import Reading, Retirement

BUFFERED_ROWS = 20_000
PAGE = 5_000

_COUNT_ACTIVE = "SELECT modality_id, count(*) FROM main.file WHERE retired_by IS NULL GROUP BY 1"
_COUNT_GONE = "SELECT modality_id, count(*), sum(size) FROM gone"


def folded(key: str) -> str:
    """Return what a key has in common with those that differ from it only in case or in the form of their Unicode."""
    if key.isascii():
        return key.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", key).casefold())


class Applied(NamedTuple):
    """So many candidates of a modality were `added`, `modified`, `renamed`, `touched` or `unchanged` after all.

    `read` has their sizes as they were read, `observed` as the scan saw them.
    """

    modality: str
    change: str
    read: Tally
    observed: Tally


class Observation:
    """One scan of one or more sources, for the modalities that take part in it (by name, with their ids).

    `begun_us` is when the scan began: a file changed after that may not show it the next time.
    """

    def __init__(self, journal: Journal, modalities: Mapping[str, int], *, begun_us: int) -> None:
        self._journal = journal
        self.modalities = modalities
        self._names = {key: name for name, key in modalities.items()}
        self._directories: list[tuple[int, int, str, str | None, str | None, str | None, str | None]] = []
        self._alike: set[int] = set()
        self._files: list[tuple[int, str, int, int]] = []
        self._claimed: list[tuple[int, str, int, int, bytes | None, bool]] = []
        self._unreadable: list[tuple[int, str, str | None]] = []
        self._outside: list[tuple[int, str, str, int, int]] = []
        self._directory_count = 0
        self._version_id = 0
        self._any_gone = False
        self._any_crc32 = False
        self._begun_us = begun_us
        self.seen = dict.fromkeys(modalities, Tally())
        self.active = dict.fromkeys(modalities, 0)
        self.gone = dict.fromkeys(modalities, Tally())
        self.work = Tally()

    def __enter__(self) -> Self:
        with self._journal.transaction() as connection:
            for statement in diff.TABLES:
                connection.exec_driver_sql(statement)
        return self

    def __exit__(self, *exc: object) -> None:
        with self._journal.transaction() as connection:
            for statement in diff.DROP_TABLES:
                # An interruption may have come when some of them were gone.
                connection.exec_driver_sql(statement)

    def directory(
        self, modality: str, path: str, *, patient: str | None, version: str | None, central: str | None
    ) -> int:
        """Announce a directory with files of a modality; gives the number to announce its files under.

        `central` is the part of the central key between the version and the name, when it is the same for
        all files of the directory; it serves to find files that would collide.
        """
        self._directory_count += 1
        number = self._directory_count
        place = None if central is None else folded(f"{version or ''}/{central}")
        self._directories.append((number, self.modalities[modality], path, patient, version, central, place))
        return number

    def files(
        self,
        modality: str,
        number: int,
        entries: Sequence[tuple[str, int, int]],
        *,
        claims: Mapping[str, bytes] = {},
        are_hashed: bool = False,
        are_told_apart: bool = False,
    ) -> None:
        """Announce files (name, size, mtime_us) of the directory of that number.

        `claims` are MD5s by name, or CRC-32s (4 bytes), where somebody says them of files that are not read;
        `are_hashed`, that this is somebody who has seen the bytes; `are_told_apart`, that names that differ only
        in case were reported.
        """
        if not are_told_apart and len({folded(entry[0]) for entry in entries}) < len(entries):
            self._alike.add(number)
        if claims:
            self._any_crc32 = self._any_crc32 or len(next(iter(claims.values()))) == diff.CRC32_BYTES
            self._claimed.extend([(number, *entry, claims.get(entry[0]), are_hashed) for entry in entries])
        else:
            self._files.extend([(number, *entry) for entry in entries])
        self.seen[modality] += Tally(len(entries), sum([entry[1] for entry in entries]))
        if len(self._files) + len(self._claimed) >= BUFFERED_ROWS:
            self._flush()

    def unreadable(self, modality: str, directory: str, name: str | None = None) -> None:
        """Protect a directory with all below it, or one file of it, from being taken for deleted."""
        self._unreadable.append((self.modalities[modality], directory, name))
        if len(self._unreadable) >= BUFFERED_ROWS:
            self._flush()

    def outside(self, modality: str, path: str, size: int, mtime_us: int) -> None:
        """Announce a file that belongs to no modality, in the source of this one: a GONE one may have become that."""
        self._outside.append((self.modalities[modality], path, path.rpartition("/")[2], size, mtime_us))
        if len(self._outside) >= BUFFERED_ROWS:
            self._flush()

    def _flush(self) -> None:
        with self._journal.transaction() as connection:
            if self._directories:
                connection.exec_driver_sql(
                    "INSERT INTO observed_directory (id, modality_id, path, patient, version, central, folded)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?)",
                    self._directories,
                )
            if self._files:
                connection.exec_driver_sql("INSERT INTO observed VALUES (?, ?, ?, ?, NULL, 0)", self._files)
            if self._claimed:
                connection.exec_driver_sql("INSERT INTO observed VALUES (?, ?, ?, ?, ?, ?)", self._claimed)
            if self._unreadable:
                connection.exec_driver_sql("INSERT INTO unreadable VALUES (?, ?, ?)", self._unreadable)
            if self._outside:
                connection.exec_driver_sql("INSERT INTO outside VALUES (?, ?, ?, ?, ?, NULL, NULL)", self._outside)
        self._unreadable.clear()
        self._outside.clear()
        self._directories.clear()
        self._files.clear()
        self._claimed.clear()

    def leave_out_versions(self, refuse: Refuse, labels: Collection[str] = ()) -> list[VersionLeftOut]:
        """Take out the directories of versions that `refuse` gives a reason against, beside the others that stay.

        What the journal has below them stays as it is. Of two that exclude each other the one stays that it knows, or
        that is among the `labels` of updates.
        """
        self._flush()
        with self._journal.transaction() as connection:
            left_out = doubts.leave_out_versions(connection, refuse, labels, self._names)
        for each in left_out:
            self.seen[each.modality] += Tally(-each.files, -each.bytes)
        return left_out

    def compare(
        self, *, complete: bool, version: str = "", key_of: Callable[[str, str], str | None] = lambda *_: None
    ) -> list[SameKey]:
        """Compare what was seen with the journal; `complete` says that what was not seen is gone.

        `version` is the label that keys begin with where a path names none; `key_of` is asked for the key of a modality
        and path where the directory alone does not say it. Fills `active`, `gone` (by modality) and `work`; gives the
        files that were left out because another one has their key, and those whose keys are alike.
        """
        self._flush()
        with self._journal.transaction() as connection:
            connection.exec_driver_sql(diff.MAP_DIRECTORIES)
            connection.exec_driver_sql(
                "UPDATE observed_directory SET has_alike = 1 WHERE id IN (SELECT value FROM json_each(?))",
                (json.dumps(list(self._alike)),),
            )
            left_out = self._leave_out_same_keys(connection, version, key_of)
            connection.exec_driver_sql(diff.DIFFERENCE)
            files, size, new = connection.exec_driver_sql(
                "SELECT count(*), coalesce(sum(o.size), 0), count(*) FILTER (WHERE x.file_id IS NULL)"
                " FROM difference x JOIN observed o ON o.rowid = x.observed"
            ).one()
            self.work = Tally(files, size)
            for modality_id, active in connection.exec_driver_sql(_COUNT_ACTIVE):
                if modality_id in self._names:
                    self.active[self._names[modality_id]] = active
            matched = sum(tally.files for tally in self.seen.values()) - new
            if complete and matched < sum(self.active.values()):
                connection.exec_driver_sql("CREATE INDEX temp.observed_name ON observed (directory, name)")
                connection.exec_driver_sql(
                    "CREATE INDEX temp.observed_directory_id ON observed_directory (directory_id, modality_id)"
                )
                modalities = json.dumps(list(self.modalities.values()))
                connection.exec_driver_sql(diff.HIDDEN)
                connection.execute(text(diff.GONE), {"modalities": modalities})
                for statement in diff.INDEX_GONE:
                    connection.exec_driver_sql(statement)
                self._tally(self.gone, connection, f"{_COUNT_GONE} GROUP BY 1")
                self._any_gone = any(tally.files for tally in self.gone.values())
        return left_out

    def hold_below(self, path: str, modalities: Collection[str]) -> dict[str, Tally]:
        """Take off the list of what is GONE what is in this directory and below; gives how much, by modality."""
        numbers = json.dumps([self.modalities[modality] for modality in modalities])
        return self._hold(diff.HELD_BELOW, {"path": path, "modalities": numbers})

    def maybe_moved_outside(self) -> Iterator[list[OutsideFile]]:
        """Yield in pages what has to be read to know whether it is a GONE file under a name of no pattern."""
        after = 0
        while self._any_gone:
            with self._journal.transaction() as connection:
                rows = driver(connection).execute(diff.MAYBE_MOVED_OUTSIDE, (after, PAGE)).fetchall()
            if not rows:
                return
            yield list(map(OutsideFile._make, rows))
            after = rows[-1][0]

    def outside_was_read(self, readings: Sequence[tuple[OutsideFile, Reading]]) -> None:
        """Note what was read of these files, for `moved_outside`."""
        with self._journal.transaction() as connection:
            connection.exec_driver_sql(
                "UPDATE outside SET size = ?, mtime_us = ?, fingerprint = ?, md5 = ? WHERE rowid = ?",
                [(*reading, file.id) for file, reading in readings],
            )

    def moved_outside(self) -> list[MovedOutside]:
        """Return the GONE files that are now under names of no pattern, counted by modality and directory.

        As far as those were read the content says so, else size and time; the name, where no content is known.
        """
        with self._journal.transaction() as connection:
            return doubts.moved_outside(connection, self._names) if self._any_gone else []

    def hold_moved_outside(self) -> None:
        """Take off the list what `moved_outside` gave."""
        self._hold(diff.HELD_OUTSIDE, {})

    def _hold(self, which: str, parameters: Mapping[str, str]) -> dict[str, Tally]:
        if not self._any_gone:
            return {}
        with self._journal.transaction() as connection:
            held, self._any_gone = doubts.hold(connection, which, parameters, self._names)
        for modality, tally in held.items():
            self.gone[modality] += Tally(-tally.files, -tally.bytes)
        return held

    def _tally(self, tallies: dict[str, Tally], connection: Connection, statement: str) -> None:
        for modality_id, files, size in connection.exec_driver_sql(statement):
            if modality_id in self._names:
                tallies[self._names[modality_id]] = Tally(files, size)

    def _leave_out_same_keys(
        self, connection: Connection, version: str, key_of: Callable[[str, str], str | None]
    ) -> list[SameKey]:
        """Leave out what has the key of another file, and find what has it but for case."""

        def key_by_path(modality_id: int, path: str) -> str | None:
            return key_of(self._names[modality_id], path)

        database = driver(connection)
        database.create_function("fold", 1, folded, deterministic=True)
        database.create_function("key_of", 2, key_by_path, deterministic=True)
        connection.exec_driver_sql(diff.INDEX_FOLDED)
        connection.exec_driver_sql(diff.ALIKE)
        key, where = diff.KEY_BY_PLACE, "d.id IN (SELECT id FROM alike)"
        if connection.exec_driver_sql(diff.ANY_WITHOUT_PLACE).first():
            key, where = diff.KEY_BY_PATH, "1"
        found: list[SameKey] = []
        told: set[tuple[str, str]] = set()
        first: tuple[str, str, str] | None = None
        kept: tuple[str, str] | None = None
        rows = database.execute(diff.SAME_KEY.format(key=key, where=where), {"version": version}).fetchall()
        for row, modality_id, each, alike, directory, name, size in rows:
            path = f"{directory}/{name}" if directory else name
            modality = self._names[modality_id]
            if kept is not None and each == kept[0]:
                database.execute("DELETE FROM observed WHERE rowid = ?", (row,))
                database.execute("INSERT INTO unreadable VALUES (?, ?, ?)", (modality_id, directory, name))
                self.seen[modality] += Tally(-1, -size)
                found.append(SameKey(modality, path, kept[1]))
                continue
            kept = each, path
            if first is None or first[0] != alike:
                first = alike, directory, path
            elif (first[1], directory) not in told:
                # Once for two directories: a patient may have many files.
                told.add((first[1], directory) if first[1] != directory else (path, path))
                found.append(SameKey(modality, path, first[2], only_alike=True))
        return found

    def begin(self, version_id: int) -> None:
        """Prepare to apply: from now on the journal is written to, under that version.

        A version in a path names the folder of a key, and nothing here: what an update saw is what it introduces.
        """
        self._version_id = version_id
        with self._journal.transaction() as connection:
            connection.exec_driver_sql(
                "INSERT OR IGNORE INTO main.directory (path) SELECT path FROM observed_directory"
                " WHERE directory_id IS NULL"
            )
            connection.exec_driver_sql(diff.MAP_DIRECTORIES)
            # What was found again is found once more, to be recorded.
            connection.exec_driver_sql("UPDATE gone SET taken = 0 WHERE taken")

    def candidates(self) -> Iterator[list[Candidate]]:
        """Yield what is NEW or SUSPECT in pages, in the order in which it was seen."""
        statement = diff.CANDIDATES.format(
            may_be_renamed=diff.SAME_SIZE_GONE if self._any_gone else "0",
            renamed_needs_md5=diff.SAME_SIZE_GONE_MD5 if self._any_gone else "0",
        )
        after = 0
        while True:
            with self._journal.transaction() as connection:
                # Below SQLAlchemy, whose rows cost more than the tuples that they are made of.
                rows = driver(connection).execute(statement, (after, PAGE)).fetchall()
            if not rows:
                return
            yield list(map(Candidate._make, rows))
            after = rows[-1][0]

    def clock_says(self, time_us: int) -> None:
        """It is that time now. When the clock was set back since the scan began, more is too young to be trusted."""
        self._begun_us = min(self._begun_us, time_us)

    def found_again(self, readings: Sequence[tuple[Candidate, Reading]]) -> None:
        """Take off the list of what is GONE what these new files have the content of. Writes nothing.

        The counts in `gone` go down; the pairs are found again, and recorded, by `apply`.
        """
        with self._journal.transaction() as connection:
            self._take_readings(connection, readings)
            for _, file_id in self._pairs(connection):
                modality_id, size = connection.exec_driver_sql(
                    "SELECT modality_id, size FROM gone WHERE file_id = ?", (file_id,)
                ).one()
                self.gone[self._names[modality_id]] += Tally(-1, -size)

    def apply(self, readings: Sequence[tuple[Candidate, Reading]]) -> list[Applied]:
        """Record what was read of these candidates, in one transaction; gives what that changed."""
        parameters = {"version": self._version_id, "settled": self._begun_us - diff.CLOCK_GRAIN_US}
        with self._journal.transaction() as connection:
            self._take_readings(connection, readings)
            if self._any_gone:
                self._match_renamed(connection)
            counted = connection.exec_driver_sql(diff.COUNT_JUDGED).all()
            changes = {row[1] for row in counted}
            if changes & {"modified", "renamed"}:
                connection.execute(text(diff.RETIRE_CHANGED), parameters)
            connection.execute(text(diff.ENTER), parameters)
            if self._any_crc32:
                connection.exec_driver_sql(diff.KEEP_CRC32)
            if changes & {"touched", "unchanged"}:
                connection.execute(text(diff.KEEP), parameters)
        return [
            Applied(self._names[modality_id], change, Tally(files, size), Tally(files, observed_size))
            for modality_id, change, files, size, observed_size in counted
        ]

    def _take_readings(self, connection: Connection, readings: Sequence[tuple[Candidate, Reading]]) -> None:
        connection.exec_driver_sql("DELETE FROM reading")
        connection.exec_driver_sql(
            "INSERT INTO reading (id, size, mtime_us, fingerprint, md5) VALUES (?, ?, ?, ?, ?)",
            [(candidate.id, *reading) for candidate, reading in readings],
        )

    def _match_renamed(self, connection: Connection) -> None:
        """Note which new files have the content of gone ones, and take those off the list."""
        pairs = self._pairs(connection)
        if pairs:
            connection.exec_driver_sql(
                "UPDATE reading SET renamed_from = ? WHERE id = ?", [(old, new) for new, old in pairs]
            )
            connection.exec_driver_sql("DELETE FROM gone WHERE file_id = ?", [(old,) for _, old in pairs])

    def _pairs(self, connection: Connection) -> list[tuple[int, int]]:
        """Readings of new files with gone files of the same content, each of them once: those are taken from now on."""
        database, pairs = driver(connection), list[tuple[int, int]]()
        for reading_id, *content in database.execute(diff.MAYBE_RENAMED).fetchall():
            ((file_id,),) = database.execute(diff.OF_THAT_CONTENT, content)
            if file_id is not None:
                database.execute("UPDATE gone SET taken = 1 WHERE file_id = ?", (file_id,))
                pairs.append((reading_id, file_id))
        return pairs

    def retire_gone(self) -> dict[str, Tally]:
        """Retire what is gone and was not found again under another name; gives what was retired."""
        retired = dict.fromkeys(self.modalities, Tally())
        with self._journal.transaction() as connection:
            self._tally(retired, connection, f"{_COUNT_GONE} GROUP BY 1")
            connection.exec_driver_sql(
                "UPDATE main.file SET retired_by = ?, retirement = ? WHERE id IN (SELECT file_id FROM gone)",
                (self._version_id, Retirement.GONE.value),
            )
        return retired
