"""The commands as a site types them, on a small tree with directories as cloud and central store."""

from __future__ import annotations

import io
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chorus_upload.cli.app import main
from chorus_upload.cli.arguments import parse_file_list
from chorus_upload.scripting.work import RESULTS_TITLE
from tests.e2e.site import quick_program

CONFIGURATION = """\
[journal]
journaling_mode = "full"
[journal.local]
path = "{root}/journal.db"
[journal.source]
path = "{root}/cloud/journal.db"
[central_path]
path = "{root}/central"
[site_path.default]
path = "{root}/site"
"""


@dataclass(frozen=True, slots=True)
class Shown:
    code: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass(frozen=True, slots=True)
class Site:
    root: Path
    type: Callable[..., Shown]

    def write(self, path: str, content: str) -> None:
        target = self.root / "site" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content, encoding="utf-8")


def configured(root: Path) -> Path:
    """The directory, with a configuration and all the places that it names, empty."""
    for name in ("cloud", "central", "site"):
        (root / name).mkdir(parents=True)
    configuration = root / "config.toml"
    configuration.write_text(CONFIGURATION.format(root=root.as_posix()), encoding="utf-8")
    configuration.chmod(0o600)
    return root


def typed_at(root: Path, capfd: pytest.CaptureFixture[str]) -> Site:
    """The site in this directory, where one stands already."""

    def type_(*arguments: str) -> Shown:
        code = main(arguments)
        shown = capfd.readouterr()
        return Shown(code, shown.out, shown.err)

    return Site(root, type_)


def with_files(root: Path) -> Path:
    """The same directory, with a few files in the source."""
    site = unheard(root)
    site.write("OMOP/person.csv", "person_id\n1001\n")
    site.write("1001/Images/scan.dcm", "scan")
    site.write("1001/Images/[red]odd name.dcm", "odd")
    site.write("1002/Waveforms/eeg.edf", "eeg")
    return root


def unheard(root: Path) -> Site:
    """A site in the working directory, to which something happens before a test listens."""
    return Site(root, lambda *arguments: Shown(main(arguments), "", ""))


@pytest.fixture
def site(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.chdir(with_files(configured(tmp_path)))
    return typed_at(tmp_path, capfd)


def test_a_first_submission(site: Site) -> None:
    updated = site.type("journal", "update", "--version", "v1")
    assert updated.code == 0
    assert updated.out.startswith("Version v1 (full mode)\n")
    assert "Next: chorus-upload file upload\n" in updated.err

    listed = site.type("file", "list")
    assert sorted(listed.out.splitlines()) == [
        "1001/Images/[red]odd name.dcm",
        "1001/Images/scan.dcm",
        "1002/Waveforms/eeg.edf",
        "OMOP/person.csv",
    ]
    assert "4 files, 25 B to upload\n" in listed.err

    uploaded = site.type("file", "upload")
    assert uploaded.code == 0
    assert "delivered            4  25 B\n" in uploaded.out
    assert (site.root / "central/v1/1001/Images/scan.dcm").read_text(encoding="utf-8") == "scan"

    assert site.type("file", "verify").code == 0
    assert site.type("file", "list").out == ""
    assert len(site.type("file", "list", "--uploaded", "--json").events) == 5

    history = site.type("history")
    assert "journal update  --version v1" in history.out
    assert "file upload" in history.out


def test_without_a_journaling_mode_no_missing_file_is_retired(site: Site) -> None:
    configuration = site.root / "config.toml"
    configuration.write_text(configuration.read_text().replace('journaling_mode = "full"\n', ""), encoding="utf-8")
    site.type("journal", "update", "--version", "v1")
    (site.root / "site/1001/Images/scan.dcm").unlink()
    site.write("1003/Images/new.dcm", "new")

    updated = site.type("journal", "update", "--version", "v2", "--confirm-deletions")

    assert updated.code == 0
    assert updated.out.startswith("Version v2 (append mode)\n")
    assert '[journal] journaling_mode: is missing, and taken for "append"' in updated.err
    assert "1001/Images/scan.dcm" in site.type("file", "list").out


def test_an_unknown_modality_beside_a_known_one_stops_no_command(site: Site) -> None:
    """Lines of cron rely on it."""
    for command in ("journal update", "journal list", "file list", "file upload", "file verify"):
        ended = site.type(*command.split(), "--modalities", "OMOP,Foo")
        assert ended.code == 0, ended
        assert "unknown modality, left out: Foo. Configured are: OMOP, Images, Waveforms, Metadata." in ended.err
    assert [path.name for path in (site.root / "central").glob("*/OMOP/*")] == ["person.csv"]
    assert not list((site.root / "central").glob("*/1001"))
    refused = site.type("file", "upload", "--modalities", "Foo")
    assert refused.code == 2
    assert "unknown modality: Foo" in refused.err


def test_a_journal_that_is_on_this_machine_only(site: Site) -> None:
    """As templates of 2024 have it: both paths of the journal are one file. It is the truth, and never worked on."""
    (site.root / "config.toml").write_text(
        f"""
[configuration]
journaling_mode = "full"
[journal]
path = "journal.db"
local_path = "journal.db"
[central_path]
path = "{site.root.as_posix()}/central"
[site_path.default]
path = "{site.root.as_posix()}/site"
""",
        encoding="utf-8",
    )
    updated = site.type("journal", "update", "--version", "v1")
    assert updated.code == 0
    assert "the journal is on this machine only. Commands work on journal.db.local." in updated.err
    assert site.type("file", "upload").code == 0
    site.type("journal", "checkout")
    assert (site.root / "journal.db.locked").exists()
    site.type("journal", "checkin")
    assert not (site.root / "journal.db.locked").exists()

    # Without the copy that was worked on, nothing is missing.
    (site.root / "journal.db.local").unlink()
    assert site.type("file", "verify").code == 0
    assert site.type("file", "list").out == ""


def test_every_event_of_an_upload_as_json(site: Site) -> None:
    updated = site.type("--json", "journal", "update")
    uploaded = site.type("file", "upload", "--json")

    names = [event["event"] for event in uploaded.events]
    assert names.count("file-delivered") == 4
    assert [name for name in names if name.startswith("upload-")][-1] == "upload-finished"
    assert "update-finished" in [event["event"] for event in updated.events]
    assert uploaded.err == updated.err == ""


def test_quiet(site: Site) -> None:
    assert site.type("journal", "update", "--quiet") == Shown(0, "", "")
    assert len(site.type("--quiet", "file", "list").out.splitlines()) == 4
    assert site.type("--quiet", "file", "upload") == Shown(0, "", "")


def test_a_dry_run_changes_nothing(site: Site) -> None:
    site.type("journal", "update")

    planned = site.type("file", "upload", "--dry-run", "--max-num-files", "1")

    assert planned.code == 0
    assert "Would send 1 file" in planned.err
    assert " -> " in planned.out
    assert list((site.root / "central").iterdir()) == []
    assert "dry-run" not in site.type("history").out


def test_what_the_central_store_lost_ends_with_3(site: Site) -> None:
    site.type("journal", "update", "--version", "v1")
    site.type("file", "upload")
    (site.root / "central/v1/1001/Images/scan.dcm").unlink()

    verified = site.type("file", "verify")

    assert verified.code == 3
    assert "missing: v1/1001/Images/scan.dcm" in verified.out
    assert "warning: 1 file needs attention" in verified.err


def test_where_nothing_was_delivered_nothing_is_blessed(site: Site) -> None:
    site.type("journal", "update", "--version", "v1")

    verified = site.type("file", "verify")

    assert verified.code == 3
    assert "Everything" not in verified.out
    assert "warning: Nothing was checked: the journal has no delivery to this central store." in verified.err
    assert "Still to upload: 4 files, 25 B, of version v1." in verified.out


def test_a_target_that_has_more_than_the_version(site: Site) -> None:
    site.type("journal", "update", "--version", "v1")
    site.type("file", "upload")
    target = site.root / "target"
    download = ("file", "download", "--to", str(target), "--overwrite")
    assert site.type(*download).code == 0
    (target / "OMOP/old.csv").write_text("old", encoding="utf-8")

    named = site.type(*download)
    assert named.code == 0
    assert "warning: In the target and not in the version: 1 file (OMOP/old.csv); --delete-extra removes" in named.err
    assert (target / "OMOP/old.csv").exists()

    refused = site.type("--json", *download, "--delete-extra")
    assert (refused.code, "nobody can be asked" in refused.out) == (2, True)
    assert (target / "OMOP/old.csv").exists()

    removed = site.type(*download, "--delete-extra", "--yes")
    assert removed.code == 0
    assert "Removed what the version does not have: 1 file (OMOP/old.csv).\n" in removed.out
    assert not (target / "OMOP/old.csv").exists()

    (target / "link").symlink_to(target / "OMOP")
    kept = site.type(*download, "--delete-extra", "--yes", "--json")
    assert kept.code == 3
    assert [event["path"] for event in kept.events if event["event"] == "extra-file"] == ["link"]


def test_the_files_of_a_patient(site: Site) -> None:
    site.type("journal", "update", "--version", "v1")

    assert site.type("file", "list", "--patient", "1002").out == "1002/Waveforms/eeg.edf\n"
    site.type("file", "upload")
    listed = site.type("file", "list", "--patient", "1001", "--patient", "1002", "--uploaded")
    assert len(listed.out.splitlines()) == 3
    verified = site.type("file", "verify", "--patient", "1002", "--all-versions")
    assert verified.code == 0
    assert "Only files of patient 1002 were looked at." in verified.out
    for command in ("list", "verify", "download"):
        refused = site.type("file", command, "--patient", "9999")
        assert refused.code == 2
        assert "the journal has no files of patient 9999" in refused.err


def test_a_file_that_vanished_ends_with_3(site: Site) -> None:
    site.type("journal", "update")
    (site.root / "site/1001/Images/scan.dcm").unlink()

    uploaded = site.type("file", "upload")

    assert uploaded.code == 3
    assert "warning: vanished: 1001/Images/scan.dcm" in uploaded.err
    assert "3" in uploaded.out


@pytest.mark.skipif(os.name == "nt", reason="needs a name that Windows does not allow")
def test_something_that_is_no_file_ends_with_3(site: Site) -> None:
    os.mkfifo(site.root / "site/1001/Images/pipe.dcm")

    updated = site.type("journal", "update")

    assert updated.code == 3
    assert "warning: not-a-file: 1001/Images/pipe.dcm" in updated.err


def test_an_unmounted_source_ends_with_its_own_code(site: Site) -> None:
    site.type("journal", "update")
    shutil.rmtree(site.root / "site")
    (site.root / "site").mkdir()

    refused = site.type("journal", "update")

    assert refused.code == 5
    assert refused.err.startswith("error: ")
    assert "--confirm-deletions" in refused.err


def test_marking_as_deleted_from_a_list(site: Site) -> None:
    site.type("journal", "update", "--version", "v1")
    gone = site.root / "gone.txt"
    gone.write_bytes(b"\xef\xbb\xbfOMOP/person.csv\r\nOMOP/none.csv\r\n")

    marked = site.type("file", "mark_as_deleted", "--file_list", str(gone))

    assert marked.code == 3
    assert marked.out.startswith("1 file marked as deleted\n")
    assert "OMOP/none.csv" in marked.out
    assert "OMOP/person.csv" not in site.type("file", "list").out


def test_marking_needs_to_know_which(site: Site) -> None:
    marked = site.type("file", "mark-as-deleted")

    assert marked.code == 2
    assert marked.err == "error: which files?\nhint: give --file PATH or --file-list FILE\n"


def test_the_explicit_way_and_an_unlock(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.type("journal", "update", "--version", "v1")

    taken = site.type("journal", "checkout")
    assert (taken.code, taken.out.splitlines()[0]) == (
        0,
        f"The journal is checked out and locked: {(site.root / 'journal.db').as_posix()}",
    )
    assert site.type("file", "upload").code == 0
    given = site.type("journal", "checkin")
    assert given.out.startswith("The journal is checked in and unlocked: ")

    assert site.type("journal", "unlock").err == "The journal is not locked.\n"
    site.type("journal", "checkout")
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    refused = site.type("journal", "unlock")
    assert refused.code == 2
    assert "holds it since" in refused.err
    assert "--yes" in refused.err
    assert site.type("journal", "unlock", "--yes").code == 0
    assert "unlocked" not in site.type("journal", "unlock").out


def test_a_list_in_a_file_comes_back(site: Site) -> None:
    site.type("journal", "update")

    listed = site.type("file", "list", "--output-file", "list.bin", "--null", "--modalities", "images")

    assert listed.code == 0
    assert listed.out == ""
    assert sorted(parse_file_list((site.root / "list.bin").read_bytes())) == [
        "1001/Images/[red]odd name.dcm",
        "1001/Images/scan.dcm",
    ]


def test_versions_for_a_program(site: Site) -> None:
    site.type("journal", "update", "--version", "v1")

    versions = site.type("journal", "list", "--modalities", "Images", "--json").events

    assert [(version["version"], version["modality"], version["pending_files"]) for version in versions] == [
        ("v1", "Images", 2)
    ]


def test_an_unknown_modality_is_refused_before_the_journal_is_taken(site: Site) -> None:
    refused = site.type("journal", "update", "--modalities", "Imgs")

    assert refused.code == 2
    assert "Configured are: OMOP, Images, Waveforms, Metadata." in refused.err
    assert list((site.root / "cloud").iterdir()) == []


def test_the_configuration_is_shown_and_checked(site: Site) -> None:
    shown = site.type("config", "show")
    assert "journal.local_path" in shown.out
    assert "[journal.local] path" in shown.out
    assert site.type("config", "show", "--json").events[0]["mode"] == "full"

    sound = site.type("config", "check")
    assert sound.code == 0
    assert "Nothing is wrong as far as this machine can tell. Not tried: whether the places answer" in sound.err
    assert "every place was tried" in site.type("config", "check", "--online").err
    shutil.rmtree(site.root / "site")
    checked = site.type("config", "check")
    assert checked.code == 2
    assert "does not exist" in checked.out
    assert "mistakes to put right" in checked.err


def test_the_template_is_written_for_who_fills_it_in(site: Site) -> None:
    file = site.root / "new.toml"
    assert site.type("config", "template", "new.toml").code == 0
    assert file.read_text(encoding="utf-8") == site.type("config", "template").out
    assert (stat.S_IMODE(file.stat().st_mode), "[central_path]" in file.read_text(encoding="utf-8")) == (0o600, True)

    refused = site.type("config", "template", "new.toml")

    assert (refused.code, "new.toml exists, and is left as it is" in refused.err) == (2, True)


def test_an_update_says_that_no_metadata_is_recorded(site: Site) -> None:
    file = site.root / "config.toml"
    images_only = file.read_text(encoding="utf-8").replace("[site_path.default]", "[site_path.Images]")
    file.write_text('[configuration]\nsupported_modalities = "Images"\n' + images_only, encoding="utf-8")
    assert "Metadata" not in site.type("journal", "update").err

    others = "".join(f'[site_path.{name}]\npath = "site"\n' for name in ("OMOP", "Waveforms"))
    file.write_text(images_only + others, encoding="utf-8")
    assert "no Metadata is recorded: there is no [site_path.Metadata]" in site.type("journal", "update").err
    assert "Metadata" not in site.type("file", "upload").err


def test_the_pages_to_read(site: Site) -> None:
    assert "chorus-upload file upload\n" in site.type("usage").out
    assert "[central_path]" in site.type("config-help").out


def test_the_next_command_names_the_same_configuration(site: Site) -> None:
    shutil.move(site.root / "config.toml", site.root / "my site.toml")

    updated = site.type("-c", "my site.toml", "journal", "update")

    assert "Next: chorus-upload -c 'my site.toml' file upload\n" in updated.err


@pytest.mark.parametrize(("answer", "code", "is_locked"), [("y", 0, False), ("n", 0, True), ("", 130, True)])
def test_unlocking_asks_a_person(
    site: Site,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    code: int,
    is_locked: bool,  # noqa: FBT001
) -> None:
    class Person(io.StringIO):
        def isatty(self) -> bool:
            return True

    site.type("journal", "checkout")
    monkeypatch.setattr("sys.stdin", Person(f"{answer}\n" if answer else ""))

    asked = site.type("journal", "unlock")

    assert asked.code == code
    assert "Remove the lock? [y/N]: " in asked.err
    assert asked.out == ""
    assert ("not locked" in site.type("journal", "unlock").err) is not is_locked


def test_marking_as_uploaded_what_another_tool_has_sent(site: Site) -> None:
    site.type("journal", "update", "--version", "v1")
    sent = site.root / "central/v1/1001/Images/scan.dcm"
    sent.parent.mkdir(parents=True)
    shutil.copy(site.root / "site/1001/Images/scan.dcm", sent)
    when = ("--upload-datetime", "20260301120000")

    marked = site.type("file", "mark_as_uploaded_central", *when, "--file", "1001/Images/scan.dcm")
    assert marked.code == 0
    assert marked.out == "1 file marked as uploaded\n"

    assert site.type("file", "mark_as_uploaded_local", *when, "--file", "OMOP/person.csv").code == 11
    site.type("journal", "checkout")
    refused = site.type("file", "mark_as_uploaded_local", *when, "--file", "OMOP/person.csv")
    assert refused.code == 3
    assert "OMOP/person.csv" in refused.out
    assert "1001/Images/scan.dcm" not in site.type("file", "list").out


def test_what_is_pending_of_a_modality_that_is_left_out_is_named(site: Site) -> None:
    site.type("journal", "update", "--version", "v1")
    config = site.root / "config.toml"
    config.write_text(
        config.read_text().replace("[journal]", '[configuration]\nsupported_modalities = "OMOP"\n[journal]')
    )
    left_out = "Images is no modality of this configuration: 2 files of it that are pending are left out"

    for command in ("file list", "file upload --dry-run", "file upload"):
        assert left_out in site.type(*command.split()).err
    assert left_out not in site.type("file", "list", "--modalities", "OMOP").err


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_end_no_command(site: Site, closed: str) -> None:
    """As cron jobs and daemons are started: the journal must not become standard output either."""
    script = f"{sys.executable} -m chorus_upload journal update --version v1 {closed}"
    ran = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)

    assert (ran.returncode, "Traceback" in ran.stderr) == (0, False)
    assert site.type("journal", "unlock").err == "The journal is not locked.\n"
    assert "The journal is sound" in site.type("journal", "check").out


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("full", [">/dev/full", "2>/dev/full", ">/dev/full 2>/dev/full"])
@pytest.mark.parametrize("told", ["", "-v", "--json", "--quiet"])
def test_a_full_device_ends_no_work(site: Site, told: str, full: str) -> None:
    """A log on a full disk: what cannot be said is dropped, and all else is done."""
    codes = [
        subprocess.run(
            ["bash", "-c", f"{quick_program().command} {told} {command} {full}"],
            capture_output=True,
            check=False,
        ).returncode
        for command in ("journal update --version v1", "file upload")
    ]

    # --quiet leaves nothing to be read there.
    has_output = full[0] == ">" and told in ("", "-v", "--json")
    assert codes == [int(has_output)] * 2
    assert site.type("journal", "unlock").err == "The journal is not locked.\n"
    assert site.type("file", "list").err == "0 files, 0 B to upload\n"
    assert (site.root / "central/v1/OMOP/person.csv").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("command", ["--json journal update", "journal list", "--json journal list", "--version"])
def test_a_full_device_is_an_error_in_words(site: Site, command: str) -> None:
    site.type("journal", "update", "--version", "v1")
    ran = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m chorus_upload {command} >/dev/full"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode == 1
    assert ("cannot write the output: No space left on device" in ran.stderr, "Traceback" in ran.stderr) == (
        True,
        False,
    )


@pytest.mark.parametrize("command", ["remote list", "usage", "config-help", "config template", "--version"])
def test_json_is_written_by_every_command(site: Site, command: str) -> None:
    assert len(site.type("--json", *command.split()).events) == 1


def test_a_pipe_is_no_configuration(site: Site) -> None:
    os.mkfifo(site.root / "pipe.toml")

    refused = site.type("-c", "pipe.toml", "journal", "list")

    assert refused.code == 2
    assert "pipe.toml: cannot be read: it is not a regular file" in refused.err


@pytest.mark.parametrize(
    "command",
    [
        *(f"{name} --local-journal" for name in ("journal list", "journal check", "history", "journal checkout")),
        *("journal upgrade --local-journal", "journal merge", "file mark-as-uploaded --results"),
    ],
)
@pytest.mark.parametrize("name", ["pipe", "", "/dev/zero"])
def test_what_is_no_file_is_neither_waited_for_nor_taken_for_one(site: Site, command: str, name: str) -> None:
    os.mkfifo(site.root / "pipe")

    refused = site.type(*command.split(), name)

    assert refused.code == 2
    said = " ".join(refused.err.replace("│", " ").split())
    assert "not a regular file" in said
    assert ("is a variable of the shell empty?" in said) == (not name)
    assert not list(site.root.rglob("*.locked"))


def test_a_list_of_files_may_come_from_another_command_but_from_no_device(site: Site) -> None:
    site.type("journal", "update")
    reading, writing = os.pipe()
    os.write(writing, b"nowhere.csv\n")
    os.close(writing)
    try:
        listed = site.type("file", "mark-as-deleted", "--file-list", f"/dev/fd/{reading}")
    finally:
        os.close(reading)

    assert "nowhere.csv" in listed.out
    assert "is a device" in site.type("file", "mark-as-deleted", "--file-list", "/dev/zero").err


def test_an_address_in_the_place_of_a_path_keeps_its_secret(site: Site) -> None:
    site.type("journal", "update")
    address = "https://acct.blob.core.windows.net/c/a.csv?sv=1&sig=kJ8sZz0aXwkJ8sZz0aXw"

    for command in (["file", "mark-as-deleted"], ["--json", "file", "mark-as-deleted"]):
        refused = site.type(*command, "--file", address)
        assert refused.code == 3
        assert "kJ8sZz0aXw" not in refused.out + refused.err


@pytest.mark.parametrize("number", ["9" * 20, "9" * 5_000])
def test_numbers_that_no_journal_holds(site: Site, number: str) -> None:
    site.type("journal", "update", "--version", "v1")
    for command in (["file", "list", "--max-num-files"], ["history", "--limit"], ["journal", "prune", "--keep"]):
        assert site.type(*command, number).code == 2

    results = site.root / "upload.results"
    results.write_text(f"{RESULTS_TITLE} {site.root / 'central'}\n{number} v1/OMOP/person.csv\n", encoding="utf-8")
    marked = site.type("file", "mark-as-uploaded", "--results", str(results))
    assert (marked.code, "unexpected" in marked.err) == (0, False), marked.err


def test_versions_without_files_are_only_counted(site: Site) -> None:
    for version in ("v1", "v2", "v3"):
        site.type("journal", "update", "--version", version)

    listed = site.type("journal", "list")
    assert "v1" in listed.out
    assert "v2" not in listed.out
    assert "2 versions without files of their own: --all shows them." in listed.err + listed.out
    assert "(no files)" in site.type("journal", "list", "--all").out
    assert "(no files)" in site.type("journal", "list", "--version", "v2").out
    events = site.type("--json", "journal", "list").events
    assert [each["version"] for each in events if each["event"] == "version"][-1] == "v3"


def test_an_empty_source_is_told_at_the_first_update(site: Site) -> None:
    shutil.rmtree(site.root / "site")
    (site.root / "site").mkdir()

    updated = site.type("journal", "update", "--version", "v1")
    assert updated.code == 3
    source = (site.root / "site").resolve()
    assert f"empty-source: {source}: the source holds no file: is it mounted, and is its path right?" in updated.err
    assert "No file of any modality was found." in updated.out + updated.err
    assert "Nothing has changed" not in updated.out + updated.err
    assert site.type("journal", "update", "--version", "v2", "--confirm-deletions").code == 0
