"""Deliveries: what still has to go to a destination, and the proof of what arrived there."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import TextClause, select, text

from chorus_upload.events import Tally
from chorus_upload.journal.database import driver
from chorus_upload.journal.diff import CLOCK_GRAIN_US
from chorus_upload.journal.journal import Journal
from chorus_upload.journal.planning import fill
from chorus_upload.journal.schema import destination, modality
from chorus_upload.journal.submissions import Submission
from chorus_upload.model import Delivered, Evidence

PAGE = 2_000


class PendingFile(NamedTuple):
    """An active file that the destination has not got, with the version that it belongs to.

    `twin_of` is another file of the same content, whose delivery may spare sending this one.
    """

    id: int
    modality: str
    path: str
    patient: str | None
    version: str
    change: str
    size: int
    mtime_us: int
    fingerprint: bytes | None
    md5: bytes | None
    twin_of: int | None


class DeliveryRecord(NamedTuple):
    """A file with its delivery, as the manifest, `file verify` and `file list --uploaded` need it."""

    file_id: int
    modality: str
    path: str
    patient: str | None
    version: str
    change: str
    size: int
    mtime_us: int
    fingerprint: bytes | None
    key: str
    md5: bytes
    evidence: Evidence
    etag: str | None
    delivered_us: int
    submission: str


class KnownFile(NamedTuple):
    """A file of the journal by its number."""

    id: int
    path: str
    is_active: bool
    is_delivered: bool


_PATH = "CASE k.path WHEN '' THEN f.name ELSE k.path || '/' || f.name END"

_FOLDER = "folder_of(m.name, (SELECT path FROM directory WHERE id = f.directory_id), f.name)"

SELECTED = f"""(:version IS NULL OR v.label = :version OR {_FOLDER} = :version)
        AND (:modalities IS NULL OR m.name IN (SELECT value FROM json_each(:modalities)))
        AND (:patients IS NULL OR f.patient IN (SELECT value FROM json_each(:patients)))"""
"""The condition that a `Selection` is: files `f` with their version `v` and modality `m`.

A version is that of an update, or the one that a path names, as far as that was made known (`define_folders`).
"""

STANDING = """(f.retired_by IS NULL OR NOT EXISTS (
        SELECT 1 FROM delivery later
        WHERE later.destination_id = d.destination_id AND later.key = d.key AND later.file_id > d.file_id))"""
"""The condition that the object of a delivery `d` is to be there: no later file has taken the key of a retired one."""

_PENDING_ROWS = f"""
    FROM file f
    JOIN directory k ON k.id = f.directory_id
    JOIN modality m ON m.id = f.modality_id
    JOIN version v ON v.id = f.introduced_by
    WHERE f.retired_by IS NULL
        AND NOT EXISTS (SELECT 1 FROM delivery d WHERE d.file_id = f.id AND d.destination_id = :destination)
        AND {SELECTED}
"""


_OF_PLANNED = """
    JOIN file f ON f.id = p.file_id
    JOIN directory k ON k.id = f.directory_id
    JOIN modality m ON m.id = f.modality_id
    JOIN version v ON v.id = f.introduced_by
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which files are meant; None means all."""

    version: str | None = None
    modalities: tuple[str, ...] | None = None
    patients: tuple[str, ...] | None = None

    def parameters(self, destination_id: int) -> dict[str, object]:
        return {
            "destination": destination_id,
            "version": self.version,
            "modalities": None if self.modalities is None else json.dumps(self.modalities),
            "patients": None if self.patients is None else json.dumps(self.patients),
        }


def destination_id(journal: Journal, url: str) -> int:
    """The id of a destination; 0 when nothing was ever submitted to it."""
    with journal.transaction() as connection:
        found = connection.execute(select(destination.c.id).where(destination.c.url == url)).scalar_one_or_none()
    return int(found or 0)


def define_folders(journal: Journal, folder: Callable[[str, str], str | None]) -> None:
    """Have selections know the version that the path of a file names: `folder` is asked for modality and path."""

    def folder_of(modality: str, directory: str, name: str) -> str | None:
        return folder(modality, f"{directory}/{name}" if directory else name)

    with journal.transaction() as connection:
        driver(connection).create_function("folder_of", 3, folder_of, deterministic=True)


def has_folder(journal: Journal, label: str) -> bool:
    """Return whether the path of any file names that version."""
    statement = text(f"SELECT 1 FROM file f JOIN modality m ON m.id = f.modality_id WHERE {_FOLDER} = :label LIMIT 1")
    with journal.transaction() as connection:
        return connection.execute(statement, {"label": label}).first() is not None


def is_folder_of_keys(journal: Journal, label: str) -> bool:
    """Return whether anything was delivered below that name."""
    statement = text("""
        SELECT 1 FROM delivery WHERE destination_id IN (SELECT id FROM destination)
            AND key > :first AND key < :end LIMIT 1
    """)
    with journal.transaction() as connection:
        return connection.execute(statement, {"first": f"{label}/", "end": f"{label}0"}).first() is not None


def known(journal: Journal, ids: Sequence[int], *, url: str) -> list[KnownFile]:
    """Those of the numbers that the journal has, and what has become of the files at a destination."""
    statement = text(f"""
        SELECT f.id, {_PATH}, f.retired_by IS NULL, EXISTS (
            SELECT 1 FROM delivery d WHERE d.file_id = f.id AND d.destination_id = :destination
        )
        FROM json_each(:ids) i JOIN file f ON f.id = i.value JOIN directory k ON k.id = f.directory_id
    """)
    parameters = {"destination": destination_id(journal, url), "ids": json.dumps(list(ids))}
    with journal.transaction() as connection:
        return [
            KnownFile(row[0], row[1], bool(row[2]), bool(row[3])) for row in connection.execute(statement, parameters)
        ]


def pending_tally(journal: Journal, *, url: str, selection: Selection) -> Tally:
    """How many files, and bytes, the destination has not got."""
    parameters = selection.parameters(destination_id(journal, url))
    with journal.transaction() as connection:
        row = connection.execute(text(f"SELECT count(*), coalesce(sum(f.size), 0) {_PENDING_ROWS}"), parameters).one()
    return Tally(row[0], row[1])


def pending_beside(journal: Journal, *, url: str, modalities: Collection[str]) -> dict[str, Tally]:
    """Return what is pending for the destination of other modalities than these, by modality."""
    with journal.transaction() as connection:
        known = connection.scalars(select(modality.c.name).order_by(modality.c.name)).all()
    found = {
        name: pending_tally(journal, url=url, selection=Selection(modalities=(name,)))
        for name in known
        if name not in modalities
    }
    return {name: tally for name, tally in found.items() if tally.files}


def plan(
    journal: Journal, *, url: str, selection: Selection, limit: int | None = None, in_order: Sequence[str] = ()
) -> Tally:
    """Fix what is to be sent: the answer of `planned` from now on. Gives the first `limit` of it.

    Of the modalities `in_order` files come in the order in which they entered the journal.

    The plan is a temporary table, so that memory stays flat and deliveries can be recorded meanwhile. It has
    everything: where some files cannot be sent, others take their places.
    """
    to = destination_id(journal, url)
    with journal.transaction() as connection:
        fill(connection, _PENDING_ROWS, selection.parameters(to), in_order=in_order)
        row = connection.execute(
            text(
                "SELECT count(*), coalesce(sum(size), 0)"
                " FROM (SELECT size FROM planned ORDER BY waits, id LIMIT coalesce(:limit, -1))"
            ),
            {"limit": limit},
        ).one()
    return Tally(row[0], row[1])


def planned(journal: Journal, *, waiting: bool | None = None) -> Iterator[list[PendingFile]]:
    """Yield the files of the plan in its order, a page at a time.

    First those that can be sent at once, and then those that wait for a twin to be delivered; with `waiting`
    only these (True) or only the others (False). Largest first, in both, but see `plan`.
    """
    statement = text(f"""
        SELECT p.id, f.id, m.name, {_PATH}, f.patient, v.label, f.change, f.size, f.mtime_us,
            f.fingerprint, f.md5, p.twin_of
        FROM planned p {_OF_PLANNED}
        WHERE p.waits = :waits AND p.id > :after ORDER BY p.id LIMIT :page
    """)
    for waits in (False, True) if waiting is None else (waiting,):
        after = 0
        while True:
            with journal.transaction() as connection:
                rows = connection.execute(statement, {"waits": waits, "after": after, "page": PAGE}).all()
            if not rows:
                break
            yield [PendingFile(*row[1:]) for row in rows]
            after = rows[-1][0]


def sample(
    journal: Journal, *, waiting: bool, after: int | None, but_for: Sequence[int], number: int
) -> list[PendingFile]:
    """Return so many files from all over the rest of the plan: what comes after the file `after` in it."""
    rest = """
        FROM planned p WHERE p.waits = :waits
            AND p.id > coalesce((SELECT id FROM planned WHERE file_id = :after), 0)
            AND p.file_id NOT IN (SELECT value FROM json_each(:but_for))
    """
    parameters = {"waits": waiting, "after": after, "but_for": json.dumps(list(but_for))}
    with journal.transaction() as connection:
        size = connection.execute(text(f"SELECT count(*) {rest}"), parameters).scalar_one()
        numbered = f"SELECT p.id, row_number() OVER (ORDER BY p.id DESC) AS place {rest}"
        rows = connection.execute(
            text(f"""
                SELECT p.id, f.id, m.name, {_PATH}, f.patient, v.label, f.change, f.size, f.mtime_us,
                    f.fingerprint, f.md5, p.twin_of
                FROM ({numbered}) n JOIN planned p ON p.id = n.id {_OF_PLANNED}
                WHERE (n.place - 1) % :step = 0 ORDER BY p.id LIMIT :number
            """),
            {**parameters, "step": max(1, size // max(1, number)), "number": number},
        ).all()
    return [PendingFile(*row[1:]) for row in rows]


def distrust(journal: Journal, file_ids: Sequence[int]) -> None:
    """Have these files read again by the next update, whatever their times say."""
    with journal.transaction() as connection:
        connection.execute(
            text("UPDATE file SET unsettled = 1 WHERE id IN (SELECT value FROM json_each(:ids))"),
            {"ids": json.dumps(list(file_ids))},
        )


def delivered(
    journal: Journal, *, url: str, selection: Selection, active_only: bool = True
) -> Iterator[DeliveryRecord]:
    """Yield what was delivered to a destination, ordered by key (as UTF-8), a page at a time."""
    where = f"AND {SELECTED} AND (NOT :active_only OR f.retired_by IS NULL)"
    parameters = selection.parameters(destination_id(journal, url)) | {"active_only": active_only}
    yield from _by_key(journal, where=where, parameters=parameters)


def of_submission(journal: Journal, submission_: Submission, *, folder: str) -> Iterator[DeliveryRecord]:
    """Yield what a submission delivered into a version folder, ordered by key."""
    parameters: dict[str, object] = {"destination": submission_.destination_id, "submission": submission_.id}
    # The character after the slash ends the keys of the folder.
    parameters |= {"first": f"{folder}/", "end": f"{folder}0"}
    where = "AND d.submission_id = :submission AND d.key > :first AND d.key < :end"
    yield from _by_key(journal, where=where, parameters=parameters)


def _by_key(journal: Journal, *, where: str, parameters: dict[str, object]) -> Iterator[DeliveryRecord]:
    statement = text(f"""
        SELECT f.id, m.name, {_PATH}, f.patient, v.label, f.change, f.size, f.mtime_us, f.fingerprint,
            d.key, d.md5, d.evidence, d.etag, d.delivered_us, s.label
        FROM delivery d
        JOIN file f ON f.id = d.file_id
        JOIN directory k ON k.id = f.directory_id
        JOIN modality m ON m.id = f.modality_id
        JOIN version v ON v.id = f.introduced_by
        JOIN submission s ON s.id = d.submission_id
        WHERE d.destination_id = :destination {where}
            AND (d.key, d.file_id) > (:key, :id) ORDER BY d.key, d.file_id LIMIT :page
    """)
    position: dict[str, object] = {"key": "", "id": 0, "page": PAGE}
    while True:
        with journal.transaction() as connection:
            page = [DeliveryRecord(*row) for row in connection.execute(statement, parameters | position)]
        yield from (record._replace(evidence=Evidence(record.evidence)) for record in page)
        if len(page) < PAGE:
            return
        position |= {"key": page[-1].key, "id": page[-1].file_id}


def smallest(
    journal: Journal, submission_: Submission, *, modalities: tuple[str, ...] | None, number: int
) -> list[DeliveryRecord]:
    """Return the smallest files that were delivered to the destination of a submission and are active still."""
    statement = text(f"""
        SELECT f.id, m.name, {_PATH}, f.patient, v.label, f.change, f.size, f.mtime_us, f.fingerprint,
            d.key, d.md5, d.evidence, d.etag, d.delivered_us, s.label
        FROM delivery d
        JOIN file f ON f.id = d.file_id
        JOIN directory k ON k.id = f.directory_id
        JOIN modality m ON m.id = f.modality_id
        JOIN version v ON v.id = f.introduced_by
        JOIN submission s ON s.id = d.submission_id
        WHERE d.destination_id = :destination AND f.retired_by IS NULL
            AND (:modalities IS NULL OR m.name IN (SELECT value FROM json_each(:modalities)))
        ORDER BY f.size LIMIT :number
    """)
    parameters = Selection(modalities=modalities).parameters(submission_.destination_id) | {"number": number}
    with journal.transaction() as connection:
        return [DeliveryRecord(*row) for row in connection.execute(statement, parameters)]


def versions_delivered(journal: Journal, *, url: str, selection: Selection) -> list[str]:
    """The labels of the versions of which anything of the selection was delivered, in their order."""
    return _labels(journal, _DELIVERED_IN, url=url, selection=selection)


def versions_pending(journal: Journal, *, url: str, selection: Selection) -> list[str]:
    """The labels of the versions of which anything of the selection is pending, in their order."""
    return _labels(journal, _PENDING_IN, url=url, selection=selection)


_DELIVERED_IN = text(f"""
    SELECT v.label FROM version v
    WHERE EXISTS (
        SELECT 1 FROM file f JOIN modality m ON m.id = f.modality_id JOIN delivery d ON d.file_id = f.id
        WHERE f.introduced_by = v.id AND d.destination_id = :destination AND {SELECTED})
    ORDER BY v.id
""")
_PENDING_IN = text(f"SELECT v.label {_PENDING_ROWS} GROUP BY v.id ORDER BY v.id")
_FOLDERS = text(f"""
    SELECT DISTINCT substr(d.key, 1, instr(d.key, '/') - 1) AS folder
    FROM delivery d
    JOIN file f ON f.id = d.file_id
    JOIN modality m ON m.id = f.modality_id
    JOIN version v ON v.id = f.introduced_by
    WHERE d.destination_id = :destination AND {SELECTED} ORDER BY folder
""")


def folders_delivered(journal: Journal, *, url: str, selection: Selection) -> list[str]:
    """The folders of the destination in which its objects are: as versions are called, of the update or of the path."""
    return _labels(journal, _FOLDERS, url=url, selection=selection)


def _labels(journal: Journal, statement: TextClause, *, url: str, selection: Selection) -> list[str]:
    parameters = selection.parameters(destination_id(journal, url))
    with journal.transaction() as connection:
        return [str(label) for label in connection.execute(statement, parameters).scalars()]


def record(journal: Journal, submission_: Submission, outcomes: Sequence[Delivered]) -> None:
    """Record proven deliveries in one transaction: all of them or none.

    What was read for the first time while it was sent gets its fingerprint and MD5 now.
    """
    if not outcomes:
        return
    with journal.transaction() as connection:
        connection.exec_driver_sql(
            "UPDATE file SET unsettled = iif(fingerprint IS NULL, ?, unsettled),"
            " fingerprint = coalesce(fingerprint, ?), md5 = ? WHERE id = ?",
            [
                (
                    int(done.transfer.mtime_us >= done.at_us - int(done.seconds * 1e6) - CLOCK_GRAIN_US),
                    done.fingerprint,
                    done.md5,
                    done.transfer.file_id,
                )
                for done in outcomes
            ],
        )
        # Delivered before by another way (marked by hand, say): the later proof is as true as the first.
        connection.exec_driver_sql(
            "INSERT INTO delivery (file_id, destination_id, submission_id, key, md5, evidence, etag, delivered_us,"
            " seconds) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            [
                (
                    done.transfer.file_id,
                    submission_.destination_id,
                    submission_.id,
                    done.transfer.key,
                    done.md5,
                    done.evidence.value,
                    done.etag,
                    done.at_us,
                    done.seconds,
                )
                for done in outcomes
            ],
        )
