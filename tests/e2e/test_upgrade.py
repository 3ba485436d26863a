"""A site that has worked with the older tool for years goes on with this one: its real journals, its real files."""

from __future__ import annotations

import json
import os
import pty
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.clouds import CENTRAL, JOURNAL, LOCK, Cloud, Container, Disk, files_of
from tests.e2e.conftest import settle
from tests.e2e.site import MODULE, Site
from tests.trees import build, contents, touch

LEGACY = Path(__file__).parents[1] / "data" / "legacy"
COMMANDS = (("journal", "update"), ("journal", "checkout"), ("file", "list"), ("file", "upload"), ("history",))


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the real journals: in which mode it was kept, which modalities, and what it had still to upload."""

    name: str
    mode: str
    pending: frozenset[str]
    modalities: str = "OMOP,Images,Waveforms,Metadata"

    @property
    def content(self) -> bytes:
        return (LEGACY / f"{self.name}.db").read_bytes()


def _waveforms(*names: str) -> frozenset[str]:
    return frozenset(f"1000304/Waveforms/9/1000304_{name}.dat" for name in names)


V1 = Kind("journal-v1", "full", _waveforms("1", "2", "3"), "OMOP,Images,Waveforms")
V2 = Kind("journal-v2", "full", _waveforms("2", "3") | {"1000203/Waveforms/2/1000203_001.dat"})
V2_APPEND = Kind("journal-v2append", "append", _waveforms("2", "3", "4"))

every_kind = pytest.mark.parametrize("kind", [V1, V2, V2_APPEND], ids=lambda kind: kind.name)


def settle_old(root: Path, cloud: Cloud, kind: Kind) -> Site:
    """A site as the older tool has left it; its central store has what the old journal says."""
    with tarfile.open(LEGACY / "site.tar.gz") as archive:
        archive.extractall(root, filter="data")
    site = settle(root / "home", root / "site", cloud, mode=kind.mode)
    cloud.put(JOURNAL, kind.content)
    for version, path in uploaded(kind):
        # In append mode the journal knows files that the source has no more; nobody asks for them here.
        if (site.source / path).exists():
            cloud.put(f"{CENTRAL}/{version}/{path}", (site.source / path).read_bytes())
    return site


def uploaded(kind: Kind) -> list[tuple[str, str]]:
    """Version and path of what the older tool calls active and uploaded."""
    if kind is V1:
        question = "SELECT VERSION, FILEPATH FROM journal WHERE TIME_INVALID_us IS NULL AND UPLOAD_DTSTR IS NOT NULL"
    else:
        question = (
            "SELECT VERSION, SRC_PATH || '/' || FILENAME FROM journal_v2 JOIN srcpaths s ON s.id = SRC_PATH_ID"
            " JOIN versions v ON v.id = VERSION_ID WHERE TIME_INVALID_us IS NULL AND UPLOAD_DT_ID IS NOT NULL"
        )
    with closing(sqlite3.connect(f"{(LEGACY / kind.name).as_uri()}.db?mode=ro&immutable=1", uri=True)) as old:
        return old.execute(question).fetchall()


def originals(cloud: Cloud) -> list[bytes]:
    return [body for key, body in cloud.objects().items() if key.startswith(f"{JOURNAL}.2")]


def changes(site: Site, kind: Kind) -> dict[str, dict[str, Any]]:
    """What an update finds, without what is unchanged."""
    told = site.run("--json", "journal", "update", "--modalities", kind.modalities).event("update-finished")
    return {
        modality: {what: tally for what, tally in found.items() if what != "unchanged" and tally not in (0, NOTHING)}
        for modality, found in told["modalities"].items()
    }


NOTHING = {"files": 0, "bytes": 0}


@pytest.mark.parametrize("kind", [V1, V2], ids=lambda kind: kind.name)
def test_every_command_names_the_old_journal_and_offers_the_upgrade(kind: Kind, tmp_path: Path, disk: Disk) -> None:
    site = settle_old(tmp_path, disk, kind)
    before = disk.objects()

    for command in COMMANDS:
        refused = site.run(*command, exit_code=14)
        assert "was written by an older chorus-upload" in refused.err, command
        assert "`chorus-upload journal upgrade`" in refused.err, command

    assert disk.objects() == before


@every_kind
def test_after_the_upgrade_the_work_goes_on_where_it_was(kind: Kind, tmp_path: Path, disk: Disk) -> None:
    """Nothing has changed, only what was pending is sent, and nothing that was delivered is sent again."""
    site = settle_old(tmp_path, disk, kind)
    delivered = files_of(disk.objects())

    done = site.run("--json", "journal", "upgrade").event("journal-upgraded")

    assert originals(disk) == [kind.content]
    assert LOCK not in disk.objects()
    assert sum(part["active"]["files"] for part in done["parts"]) == len(uploaded(kind)) + len(kind.pending)
    assert site.pending() == kind.pending

    assert all(not found for found in changes(site, kind).values())
    assert site.pending() == kind.pending

    sent = site.run("--json", "file", "upload", "--modalities", kind.modalities).event("upload-finished")
    assert (sent["delivered"]["files"], sent["already_there"]["files"], sent["failed"]) == (len(kind.pending), 0, 0)
    now = files_of(disk.objects())
    assert {key: now[key] for key in delivered} == delivered
    assert {key.split("/", 1)[1] for key in now.keys() - delivered.keys()} == kind.pending
    assert site.pending() == set()


def test_metadata_that_the_old_journal_never_had_are_new(tmp_path: Path, disk: Disk) -> None:
    """The v1 journal was kept without that modality, which is always among them now."""
    site = settle_old(tmp_path, disk, V1)
    site.run("journal", "upgrade")

    told = site.run("--json", "journal", "update").event("update-finished")

    added = {name: found["added"]["files"] for name, found in told["modalities"].items()}
    assert added == {"OMOP": 0, "Images": 0, "Waveforms": 0, "Metadata": 1}


@every_kind
def test_changes_are_found_by_the_md5_that_the_older_tool_left(kind: Kind, tmp_path: Path, disk: Disk) -> None:
    site = settle_old(tmp_path, disk, kind)
    site.run("journal", "upgrade")
    person = site.source / "OMOP/person.csv"
    build(site.source, {"OMOP/person.csv": person.read_bytes().replace(b"2", b"3"), "OMOP/new.csv": "new\n"})
    touch(site.source / "OMOP/measurement.csv")

    found = changes(site, kind)["OMOP"]

    assert {what: tally["files"] for what, tally in found.items()} == {"added": 1, "modified": 1, "touched": 1}
    assert site.pending() == kind.pending | {"OMOP/person.csv", "OMOP/new.csv"}


def test_a_renamed_file_is_known_by_its_md5(tmp_path: Path, disk: Disk) -> None:
    site = settle_old(tmp_path, disk, V2)
    site.run("journal", "upgrade")
    (site.source / "OMOP/person.csv").rename(site.source / "OMOP/persons.csv")

    found = changes(site, V2)["OMOP"]

    assert {what: tally["files"] for what, tally in found.items()} == {"renamed": 1}


def test_what_the_older_tool_delivered_can_be_verified(tmp_path: Path, container: Container) -> None:
    """What it left on an object is a claim that is told as one; without it the object is read."""
    site = settle_old(tmp_path, container, V2)
    site.run("journal", "upgrade")
    container.claim(f"{CENTRAL}/20240101000000/OMOP/visit_occurrence.csv", md5=bytes(16))
    container.put(f"{CENTRAL}/20240101000000/OMOP/person.csv", b"other content!")
    container.delete(f"{CENTRAL}/20240101000000/OMOP/measurement.csv")

    told = site.run("--json", "file", "verify", "--version", "20240101000000", exit_code=3)

    found = {each["key"].partition("/")[2]: (each["result"], each["evidence"]) for each in told.events("file-verified")}
    # What the older tool sent and a later version replaced is looked at, too: this store never had it.
    kept = {path for version, path in uploaded(V2) if version == "20240101000000"}
    superseded = {key: found.pop(key) for key in found.keys() - kept}
    assert (len(superseded), set(superseded.values())) == (8, {("missing", None)})
    assert len(found) == 20
    assert found.pop("OMOP/visit_occurrence.csv") == ("matched", "readback")
    assert found.pop("OMOP/person.csv") == ("checksum-differs", None)
    assert found.pop("OMOP/measurement.csv") == ("missing", None)
    assert set(found.values()) == {("matched", "imported")}


@pytest.mark.parametrize(
    "kind",
    [V2, *(pytest.param(each, marks=pytest.mark.thorough) for each in (V1, V2_APPEND))],  # as on a disk
    ids=lambda kind: kind.name,
)
def test_in_a_cloud(kind: Kind, tmp_path: Path, container: Container) -> None:
    site = settle_old(tmp_path, container, kind)

    shown = site.run("journal", "upgrade")

    assert "Both journals were counted, and agree" in shown.out
    assert originals(container) == [kind.content]
    assert LOCK not in container.objects()
    assert site.pending() == kind.pending
    assert "nothing to upgrade" in site.run("journal", "upgrade").err
    site.run("journal", "checkout")
    site.run("file", "upload", "--modalities", kind.modalities)
    site.run("journal", "checkin")
    assert site.pending() == set()
    assert originals(container) == [kind.content]


def test_what_a_person_reads(tmp_path: Path, disk: Disk) -> None:
    site = settle_old(tmp_path, disk, V2)

    shown = site.run("journal", "upgrade")

    rows = [line.split() for line in shown.lines if line.startswith(("20240", "    "))]
    assert rows[1] == ["Images", "14", "12", "12", "8", "14.1", "KiB", "0", "0", "B"]
    assert rows[-1] == ["Waveforms", "8", "8", "5", "8", "10.1", "KiB", "3", "1.58", "KiB"]
    assert "4 rows only said that a file was touched" in shown.out
    assert "Uploads went to az://legacy181136402/v2/; they count as deliveries to" in shown.out
    assert f"The original is kept: {disk.root / JOURNAL}.2" in shown.out
    assert shown.err.splitlines()[-1] == "Next: chorus-upload journal update"


def test_the_history_goes_on(tmp_path: Path, disk: Disk) -> None:
    site = settle_old(tmp_path, disk, V2)
    site.run("journal", "upgrade")

    told = site.run("--json", "history").events("command")

    assert [each["command"] for each in told] == ["journal update", "file upload"] * 2 + ["journal upgrade"]
    assert json.loads(told[3]["arguments"])["max-num-files"] == "6"
    assert [each["exit_code"] for each in told] == [None] * 4 + [0]
    assert "2026-11-21" in site.run("history").out


def test_an_interrupted_session_of_the_older_tool(tmp_path: Path, disk: Disk) -> None:
    """Its lock is a copy of the journal. Whoever unlocks gets the journal back, and can upgrade it."""
    site = settle_old(tmp_path, disk, V2)
    disk.delete(JOURNAL)
    disk.put(LOCK, V2.content)

    refused = site.run("journal", "upgrade", exit_code=10)
    assert "an older chorus-upload holds it" in refused.err
    assert disk.objects()[LOCK] == V2.content

    site.run("journal", "unlock", "--yes")
    site.run("journal", "upgrade")
    assert site.pending() == V2.pending
    assert originals(disk) == [V2.content]


def test_the_local_journal_of_the_older_tool_is_not_lost(tmp_path: Path, disk: Disk) -> None:
    site = settle_old(tmp_path, disk, V2)
    shutil.copy(LEGACY / "journal-v1.db", site.journal)
    assert str(site.journal) in site.run("journal", "update", exit_code=14).err

    shown = site.run("journal", "upgrade")

    (kept,) = site.home.glob("journal.db.2*")
    assert kept.read_bytes() == V1.content
    assert str(kept) in shown.err
    assert site.pending() == V2.pending


def test_a_file_alone(tmp_path: Path, disk: Disk) -> None:
    site = settle_old(tmp_path, disk, V2)
    file = Path(shutil.copy2(LEGACY / "journal-v1.db", tmp_path / "from a colleague.db"))
    before = disk.objects()

    refused = site.run("journal", "upgrade", "--local-journal", str(file), exit_code=7)
    assert "its uploads went to" in refused.err
    assert {path.name for path in tmp_path.glob("from a colleague.db*")} == {file.name, f"{file.name}.writer"}

    shown = site.run("journal", "upgrade", "--local-journal", str(file), "--same-destination")

    assert "the cloud and its journal are as they were" in shown.out
    assert disk.objects() == before
    (kept,) = tmp_path.glob("from a colleague.db.2*")
    assert kept.read_bytes() == V1.content
    assert "20240101000000" in site.run("journal", "list", "--local-journal", str(file)).out
    assert "nothing to upgrade" in site.run("journal", "upgrade", "--local_journal", str(file)).err


def test_uploads_to_another_store_are_no_deliveries_to_this_one(tmp_path: Path, disk: Disk) -> None:
    """The store of the configuration is empty: nobody but a person can say whether that is the one that was sent to."""
    site = settle_old(tmp_path, disk, V2)
    for key in disk.objects():
        if key.startswith(CENTRAL):
            disk.delete(key)
    before = disk.objects()

    refused = site.run("journal", "upgrade", exit_code=7)

    assert "18 of its uploads that were looked for" in refused.err
    assert "0 are there" in refused.err
    assert "--same-destination" in refused.err
    assert "--new-destination" in refused.err
    assert disk.objects() == before
    assert not site.journal.exists()

    upgraded = site.run("--json", "journal", "upgrade", "--new-destination").event("journal-upgraded")
    assert upgraded["destination"] == str(disk.root / CENTRAL)
    assert upgraded["is_new_destination"]
    assert sum(part["pending"]["files"] for part in upgraded["parts"]) == len(site.pending())
    present = {path for path in contents(site.source) if not path.startswith("v1.db_")}
    assert site.pending() == present
    site.run("file", "upload")
    assert {key.split("/", 1)[1] for key in files_of(disk.objects())} == present
    assert site.pending() == set()


def test_a_store_that_the_receiver_has_emptied_is_known_by_the_journal_in_it(tmp_path: Path, disk: Disk) -> None:
    site = settle_old(tmp_path, disk, V2)
    store = disk.root / CENTRAL
    shutil.rmtree(store)
    store.mkdir()
    (disk.root / JOURNAL).rename(store / "journal.db")
    site.configure(site.config.read_text().replace(JOURNAL, f"{CENTRAL}/journal.db"))

    upgraded = site.run("journal", "upgrade")

    assert "0 are in" in upgraded.err
    assert "receiver has probably taken" in upgraded.err
    assert site.pending() == V2.pending
    site.run("file", "upload")
    assert {key.split("/", 1)[1] for key in files_of(disk.objects()) if "/" in key} == V2.pending
    build(site.source, {"OMOP/new.csv": "1"})
    site.run("journal", "update")
    site.run("file", "upload")


def test_a_person_is_asked_whether_it_is_the_store_that_was_sent_to(tmp_path: Path, disk: Disk) -> None:
    site = settle_old(tmp_path, disk, V2)
    shutil.rmtree(disk.root / CENTRAL)
    (disk.root / CENTRAL).mkdir()

    said = answered(site, "journal", "upgrade", answer="n\n")
    assert "Is it the same store all the same?" in said
    assert disk.objects()[JOURNAL] == V2.content

    answered(site, "journal", "upgrade", answer="y\n")
    assert originals(disk) == [V2.content]
    assert site.pending() == V2.pending


def answered(site: Site, *command: str, answer: str) -> str:
    """What a command says at a terminal to whoever types this answer; it has to end well."""
    ours, theirs = pty.openpty()
    try:
        os.write(ours, answer.encode())
        done = subprocess.run(
            [*MODULE, *command], cwd=site.home, stdin=theirs, capture_output=True, text=True, timeout=60, check=False
        )
    finally:
        os.close(theirs)
        os.close(ours)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_rows_that_make_no_sense(tmp_path: Path, disk: Disk) -> None:
    site = settle_old(tmp_path, disk, V1)
    with closing(sqlite3.connect(disk.root / JOURNAL)) as old, old:
        old.execute("UPDATE journal SET SIZE = 'many' WHERE FILE_ID = 3")
    strange = disk.objects()

    refused = site.run("journal", "upgrade", exit_code=14)
    assert "row 3, OMOP/person.csv: its size is 'many'" in refused.err
    assert "hint: " in refused.err
    assert disk.objects() == strange

    shown = site.run("journal", "upgrade", "--confirm-omissions")
    assert "warning: left out: row 3, OMOP/person.csv: its size is 'many'" in shown.err
    assert "1 row left out" in shown.err
    assert changes(site, V1)["OMOP"] == {"added": {"files": 1, "bytes": 14}}


def test_it_may_be_killed_at_any_time(tmp_path: Path, disk: Disk) -> None:
    """A real kill, at moments that nobody chose."""
    site = settle_old(tmp_path, disk, V2)
    took = -time.monotonic()
    site.run("journal", "upgrade")
    took += time.monotonic()
    expected = site.run("--json", "journal", "list").out
    for part in (3, 5, 7):
        for path in [*site.home.glob("journal.db*"), *(disk.root / "journal").iterdir()]:
            path.unlink()
        disk.put(JOURNAL, V2.content)
        with subprocess.Popen(
            [sys.executable, "-m", "chorus_upload", "journal", "upgrade"],
            cwd=site.home,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            time.sleep(took * part / 8)
            process.kill()

        site.run("journal", "upgrade")

        assert originals(disk) == [V2.content]
        assert LOCK not in disk.objects()
        assert site.run("--json", "journal", "list").out == expected
