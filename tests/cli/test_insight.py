"""`journal list`, `diff`, `show`, `check`, `prune` and `history` as a site types them."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sqlite3
from contextlib import chdir, closing
from dataclasses import replace
from pathlib import Path

import pytest

from chorus_upload.cli.render.lives import life_report
from chorus_upload.cli.render.lives import told as called
from chorus_upload.cli.render.records import csv_line
from chorus_upload.model import Change, Retirement
from chorus_upload.operations.insight import FileLife, FileState
from tests.cli.conftest import Prepared
from tests.cli.test_commands import Shown, Site, configured, typed_at, unheard
from tests.trees import touch


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """A site that took down its files three times, and has sent what it had in the second."""
    root = configured(tmp_path_factory.mktemp("prepared") / "it")
    made = unheard(root)
    files = {"OMOP/person.csv": "1", "1001/Images/a.dcm": "a", "1001/Images/b.dcm": "bb", "1002/Waveforms/w.edf": "w"}
    for path, content in files.items():
        write(made, path, content)
    with chdir(root):
        assert made.type("journal", "update", "--version", "v1").code == 0
        write(made, "OMOP/person.csv", "12")
        (root / "site/1001/Images/b.dcm").rename(root / "site/1001/Images/[red]c.dcm")
        assert made.type("journal", "update", "--version", "v2", "--confirm-deletions").code == 0
        assert made.type("file", "upload").code == 0
        (root / "site/1002/Waveforms/w.edf").unlink()
        write(made, "1002/Images/n.dcm", "nnn")
        assert made.type("journal", "update", "--version", "v3", "--confirm-deletions").code == 0
    return Prepared.from_now_on(root)


@pytest.fixture
def site(prepared: Prepared, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.chdir(prepared.restore())
    return typed_at(prepared.root, capfd)


def write(site: Site, path: str, content: str) -> None:
    site.write(path, content)
    touch(site.root / "site" / path)


def copy_of(site: Site) -> str:
    """A copy of the journal that a user keeps, without a cloud around it."""
    copy = site.root / "kept.db"
    shutil.copy(site.root / "cloud/journal.db", copy)
    for place in ("cloud", "journal.db"):
        (site.root / place).rename(site.root / f"{place}.away")
    return str(copy)


# --- journal list ------------------------------------------------------------------------------------------------


def test_the_list_of_versions_ends_with_totals(site: Site) -> None:
    shown = site.type("journal", "list")

    assert shown.code == 0
    assert [line.split() for line in shown.out.splitlines()[2:]] == [
        ["v1", "OMOP", "0", "1", "0", "0", "B", "0", "0", "B"],
        ["Images", "1", "2", "1", "1", "B", "0", "0", "B"],
        ["Waveforms", "1", "1", "0", "0", "B", "0", "0", "B"],
        ["All", "2", "4", "1", "1", "B", "0", "0", "B"],
        ["v2", "OMOP", "0", "1", "1", "2", "B", "0", "0", "B"],
        ["Images", "1", "1", "1", "2", "B", "0", "0", "B"],
        ["All", "1", "2", "2", "4", "B", "0", "0", "B"],
        ["v3", "Images", "1", "1", "1", "3", "B", "1", "3", "B"],
        ["All", "versions", "OMOP", "0", "2", "1", "2", "B", "0", "0", "B"],
        ["Images", "2", "4", "3", "6", "B", "1", "3", "B"],
        ["Waveforms", "1", "1", "0", "0", "B", "0", "0", "B"],
        ["All", "2", "7", "4", "8", "B", "1", "3", "B"],
    ]


def test_the_totals_for_a_program(site: Site) -> None:
    events = site.type("journal", "list", "--json").events

    totals = [event for event in events if event["event"] == "version-total"]
    assert [(total["version"], total["modality"], total["files"]) for total in totals] == [
        ("v1", None, 4),
        ("v2", None, 2),
        (None, "OMOP", 2),
        (None, "Images", 4),
        (None, "Waveforms", 1),
        (None, None, 7),
    ]
    assert len(events) == len(totals) + 6


# --- journal diff ------------------------------------------------------------------------------------------------


def test_what_differs(site: Site) -> None:
    shown = site.type("journal", "diff", "v1", "v3")

    assert shown.code == 0
    assert shown.out == (
        "From version v1 to v3\n"
        "\n"
        "Modality   What      Files  Size\n"
        "---------  --------  -----  ----\n"
        "OMOP       modified      1   2 B\n"
        "Images     added         1   3 B\n"
        "           renamed       1   2 B\n"
        "Waveforms  retired       1   1 B\n"
        "All        added         1   3 B\n"
        "           modified      1   2 B\n"
        "           renamed       1   2 B\n"
        "           retired       1   1 B\n"
    )


def test_which_files_differ(site: Site) -> None:
    shown = site.type("journal", "diff", "v1", "v3", "--names", "--modalities", "images")

    assert shown.out.splitlines()[:2] == [
        "renamed   Images  1001/Images/b.dcm  ->  1001/Images/[red]c.dcm",
        "added     Images  1002/Images/n.dcm",
    ]


def test_where_nothing_differs(site: Site) -> None:
    assert site.type("journal", "diff", "v2", "v2").out == "From version v2 to v2, nothing differs.\n"


def test_the_differences_for_a_program(site: Site) -> None:
    events = site.type("journal", "diff", "v3", "v1", "--names", "--json").events

    assert [event["event"] for event in events] == [*["file-difference"] * 4, *["difference"] * 4, "diff-finished"]
    assert {event["path"]: event["what"] for event in events[:4]} == {
        "OMOP/person.csv": "modified",
        "1001/Images/b.dcm": "renamed",
        "1002/Images/n.dcm": "retired",
        "1002/Waveforms/w.edf": "added",
    }
    assert events[-1] == {"event": "diff-finished", "before": "v3", "after": "v1", "files": 4}


def test_the_differences_as_a_table(site: Site) -> None:
    shown = site.type("journal", "diff", "v1", "v3", "--output-file", "diff.csv")
    site.type("journal", "diff", "v1", "v3", "--output-file", "diff.jsonl")

    assert "A row for every file is in diff.csv\n" in shown.err
    assert "From version v1 to v3\n" in shown.out
    with (site.root / "diff.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [json.loads(line) for line in (site.root / "diff.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["path"] for row in rows] == [line["path"] for line in lines]
    (renamed,) = (row for row in rows if row["what"] == "renamed")
    assert renamed == {
        "what": "renamed",
        "modality": "Images",
        "path": "1001/Images/[red]c.dcm",
        "former_path": "1001/Images/b.dcm",
        "patient": "1001",
        "version": "v2",
        "size": "2",
        "former_size": "2",
    }
    assert next(row["size"] for row in rows if row["what"] == "retired") == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("v1", "v4"), "there is no version v4 in the journal\nhint: Did you mean v3 or v2 or v1?"),
        (("v1", "v3", "--output-file", "diff.xlsx"), "the name says no format"),
        (("v1", "v3", "--output-file", "nowhere/diff.csv"), "cannot write nowhere/diff.csv"),
        (("v1", "v3", "--modalities", "Imgs"), "unknown modality: Imgs"),
    ],
)
def test_what_cannot_be_compared_or_written(site: Site, arguments: tuple[str, ...], words: str) -> None:
    refused = site.type("journal", "diff", *arguments)

    assert refused.code == 2
    assert words in refused.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_has_words_for_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    # The table is made beside its place, where only a real disk could be full.
    full = io.FileIO("/dev/full", "w")
    monkeypatch.setattr("chorus_upload.cli.listing.new_part", lambda _: (site.root / ".part", full))

    failed = site.type("journal", "diff", "v1", "v3", "--output-file", "diff.csv")

    assert (failed.code, failed.err.splitlines()[0]) == (1, "error: cannot write diff.csv: No space left on device")


def test_a_line_of_csv_holds_any_name() -> None:
    (row,) = csv.reader(io.StringIO(csv_line(['a "b",\r\n患者', None, 3]).decode(), newline=""))

    assert row == ['a "b",\r\n患者', "", "3"]
    assert csv_line(["\udcff"]) == b"\\udcff\r\n"


# --- journal show ------------------------------------------------------------------------------------------------


def test_the_life_of_a_file(site: Site) -> None:
    shown = site.type("journal", "show", "1001/Images/b.dcm")

    assert shown.code == 0
    heading, _, *table = shown.out.splitlines()
    assert heading == "1001/Images/b.dcm (Images, patient 1001)"
    assert [line.split("00  ", 1)[1].split("  ")[0] for line in table[2:5]] == [
        "added",
        "renamed from 1001/Images/b.dcm to 1001/Images/[red]c.dcm",
        "delivered (readback)",
    ]
    assert "as v2/1001/Images/[red]c.dcm to " in shown.out
    assert ": evidence readback, etag " in shown.out


def test_a_file_that_left_and_one_that_waits(site: Site) -> None:
    assert "gone  " in site.type("journal", "show", "1002/Waveforms/w.edf").out
    assert "  not delivered yet\n" in site.type("journal", "show", "1002/Images/n.dcm").out
    site.type("file", "mark-as-deleted", "--file", "1001/Images/a.dcm")
    assert "marked as deleted" in site.type("journal", "show", "1001/Images/a.dcm").out


def test_the_life_of_a_file_for_a_program(site: Site) -> None:
    first, second = site.type("journal", "show", "OMOP/person.csv", "--modality", "OMOP", "--json").events

    assert (first["event"], first["version"], first["retirement"], first["deliveries"]) == (
        "file-state",
        "v1",
        "modified",
        [],
    )
    assert second["md5"] == "c20ad4d76fe97759aa27a0c99bff6710"
    (proof,) = second["deliveries"]
    assert (proof["key"], proof["evidence"], proof["md5"]) == ("v2/OMOP/person.csv", "readback", second["md5"])


def test_a_file_that_the_journal_does_not_know(site: Site) -> None:
    refused = site.type("journal", "show", "omop/persons.csv")

    assert refused.code == 2
    assert refused.err.startswith("error: the journal has no file omop/persons.csv\n")
    assert "OMOP/person.csv?" in site.type("journal", "show", "omop/Person.csv").err


# --- journal check -----------------------------------------------------------------------------------------------


def test_a_sound_journal(site: Site) -> None:
    shown = site.type("journal", "check")

    assert shown == Shown(0, "The journal is sound: 3 versions, 7 states of files, 4 deliveries.\n", "")
    assert site.type("journal", "check", "--json").events == [
        {
            "event": "check-finished",
            "broken": 0,
            "remarks": 0,
            "contents": {"versions": 3, "files": 7, "deliveries": 4},
        }
    ]
    # It was only read: no command of it is in the history.
    assert "journal check" not in site.type("history").out


def test_a_journal_that_is_not_sound(site: Site) -> None:
    with closing(sqlite3.connect(site.root / "cloud/journal.db")) as database, database:
        database.execute("UPDATE delivery SET md5 = zeroblob(16) WHERE key = 'v2/OMOP/person.csv'")
        database.execute("UPDATE version SET completed_us = NULL WHERE label = 'v3'")

    shown = site.type("journal", "check")

    assert shown.code == 14
    assert shown.out.startswith("The journal is not sound.\n")
    assert "delivered-other-content  OMOP/person.csv was delivered as v2/OMOP/person.csv" in shown.out
    assert "version-open" in shown.out
    assert "docs/recovery.md" in shown.out
    assert shown.err == "warning: 1 finding that must not be.\n"
    events = site.type("journal", "check", "--json").events
    assert [(event["event"], event.get("is_broken")) for event in events] == [
        ("finding", True),
        ("finding", False),
        ("check-finished", None),
    ]


def test_a_local_journal_that_is_no_journal_is_not_passed_over(site: Site) -> None:
    (site.root / "journal.db").write_bytes(b"no database, whatever else it is")

    assert site.type("journal", "list").code == 0
    shown = site.type("journal", "check")

    assert shown.code == 14
    assert "is not a journal, or it is damaged" in shown.err


def test_a_cloud_that_is_not_there(site: Site) -> None:
    site.type("journal", "checkout")
    (site.root / "cloud").rename(site.root / "away")

    shown = site.type("journal", "check")

    assert shown.out == "The journal is sound: 3 versions, 7 states of files, 4 deliveries.\n"
    assert (shown.code, shown.err.split(":")[0]) == (23, "error")


# --- journal prune -----------------------------------------------------------------------------------------------


def test_nothing_is_dropped_unasked(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    before = (site.root / "cloud/journal.db").read_bytes()

    dry = site.type("journal", "prune", "--keep", "1", "--dry-run")
    refused = site.type("journal", "prune", "--keep", "1")

    assert dry.code == 0
    assert dry.out.startswith("Would be dropped of the versions v1 to v2\n")
    assert "Every delivery keeps its proof." in dry.out
    assert refused.code == 2
    assert "--yes" in refused.err
    assert (site.root / "cloud/journal.db").read_bytes() == before


@pytest.mark.parametrize(("answer", "is_dropped"), [("y", True), ("n", False)])
def test_pruning_asks_a_person(
    site: Site,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    is_dropped: bool,  # noqa: FBT001
) -> None:
    class Person(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Person(f"{answer}\n"))

    asked = site.type("journal", "prune", "--older-than", "v3")

    assert asked.code == 0
    assert "Drop it? [y/N]: " in asked.err
    assert ("Dropped of the versions v1 to v2" in asked.out) is is_dropped
    assert ("can be compared" in site.type("journal", "diff", "v1", "v3").err) is is_dropped


def test_after_pruning_the_list_says_so_and_the_work_goes_on(site: Site) -> None:
    done = site.type("journal", "prune", "--keep", "1", "--yes")

    assert done.code == 0
    # What OMOP/person.csv held at first, which was never sent. The former name of an image stays with it.
    assert "states of files, never delivered       1   1 B" in done.out
    assert "Up to version v2, what came and went undelivered was dropped" in site.type("journal", "list").out
    assert "may be missing (pruned)" in site.type("journal", "show", "OMOP/person.csv").out
    assert site.type("file", "upload").code == 0
    for version in ("v1", "v2", "v3"):
        assert site.type("file", "verify", "--version", version).code == 0
    assert site.type("journal", "check").code == 0
    again = site.type("journal", "prune", "--keep", "1")
    assert (again.code, again.out.splitlines()[0]) == (0, "There is nothing to drop.")
    assert "journal prune   --keep 1 --yes" in site.type("history").out


def test_what_keeps_old_versions_is_named(site: Site) -> None:
    write(site, "1002/Images/m.dcm", "m")
    site.type("journal", "update", "--version", "v4")

    shown = site.type("journal", "prune", "--keep", "1", "--dry-run", "--json").events

    assert (shown[0]["versions"], shown[0]["stopped_by"]) == (["v1", "v2"], "version v3 has 1 file to upload")


# --- history, and journals that lie elsewhere --------------------------------------------------------------------


def test_the_history_has_what_was_typed_and_no_more(site: Site) -> None:
    site.type("journal", "update")
    site.type("file", "verify", "--patient", "1001", "--sample", "100%", "--seed", "0")

    update, verify = (json.loads(each["arguments"]) for each in site.type("history", "--json").events[-2:])

    assert update == {}
    assert verify == {"patient": "1001", "sample": "100%", "seed": "0"}


def test_the_last_commands(site: Site) -> None:
    everything = site.type("history", "--json").events
    last = site.type("history", "--json", "--limit", "2").events

    assert [event["command"] for event in last] == ["file upload", "journal update"]
    assert last == everything[-2:]
    assert site.type("history", "--limit", "0").code == 2


def test_a_journal_that_was_kept_is_read_without_the_cloud(site: Site) -> None:
    expected = {
        command: site.type(*command).out
        for command in (
            ("journal", "list"),
            ("journal", "diff", "v1", "v3"),
            ("journal", "show", "OMOP/person.csv"),
            ("history",),
        )
    }
    given = ("--local-journal", copy_of(site))

    for command, shown in expected.items():
        assert site.type(*command, *given) == Shown(0, shown, "")
    checked = site.type("journal", "check", *given)
    assert checked.code == 0
    assert "it was not compared with the cloud" in checked.out
    assert site.type("journal", "list").code != 0
    assert site.type("journal", "list", "--local-journal", "nowhere.db").code == 11


def test_what_was_recorded_again_is_not_called_modified() -> None:
    """Journals have such rows: another time of a file of the web was another file once."""
    first = FileState(
        path="1001/Images/a.dcm",
        modality="Images",
        patient="1001",
        version="spring",
        entered_us=0,
        change=Change.ADDED,
        renamed_from=None,
        size=5,
        mtime_us=0,
        fingerprint=bytes(16),
        md5=bytes(16),
        retired_by="summer",
        retired_us=1,
        retirement=Retirement.MODIFIED,
        renamed_to=None,
        deliveries=(),
    )
    again = replace(first, version="summer", change=Change.MODIFIED)
    other = replace(again, version="autumn", fingerprint=bytes(15) + b"1", md5=bytes(15) + b"1")

    assert [each.change for each in called((first, again, other))] == ["added", "recorded-again", "modified"]

    def told(*states: FileState) -> list[str]:
        table = life_report(FileLife(path=first.path, modality="Images", states=states, pruned=None)).table
        return [] if table is None else [row.cells[1] for row in table.rows]

    assert told(first, again) == ["added", "recorded again, with the same content"]
    assert told(first, again, other) == ["added", "recorded again, with the same content", "modified"]
    by_md5 = (replace(first, fingerprint=None), again)
    assert told(*by_md5) == ["added", "recorded again, with the same content"]
