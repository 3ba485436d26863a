"""Every way back that docs/recovery.md describes is gone for real: the trouble is made, then the section is typed."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from chorus_upload.cli.app import main
from chorus_upload.errors import AccessDenied, CheckinConflict, CredentialsExpired, DeletionRefused, JournalLocked
from chorus_upload.journal.journal import Journal
from tests.docs import shell, sites
from tests.docs.markdown import ROOT, Block, read, section, sections
from tests.docs.shell import Step
from tests.emulators import Azurite
from tests.trees import Bytes, Content, build

LEGACY = ROOT / "tests" / "data" / "legacy"
RECOVERY = read("docs/recovery.md")
VERSION = "20260301120000"
LATER = "20260302120000"
TREE: Mapping[str, Content] = {
    "OMOP/person.csv": "person_id\n1\n",
    "Metadata/README.md": "about\n",
    "Metadata/notes.txt": "notes\n",
}


@dataclass(frozen=True, slots=True)
class Trouble:
    """What has happened before a section is read. `pieces` are typed before the block that is marked so."""

    replaced: Mapping[str, str] = field(default_factory=dict)
    pieces: Mapping[str, str] = field(default_factory=dict)
    wrap: tuple[str, ...] = ()


def chorus(home: Path, *commands: str) -> None:
    """Commands of the past. Not as processes: there are many, and what they say is not what is looked at."""
    with chdir(home):
        for command in commands:
            assert main(shlex.split(command)) == 0, command


def site(home: Path, tree: Mapping[str, Content] = TREE) -> None:
    sites.local_site(home)
    build(home / "hospital", tree)


def uploaded_site(home: Path, tree: Mapping[str, Content] = TREE) -> None:
    site(home, tree)
    chorus(home, f"journal update --version {VERSION}", "file upload")


def scribble(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"no database at all")


# --- the troubles, by the titles of their sections ---------------------------------------------------------------


def nothing_at_all(home: Path) -> Trouble:
    uploaded_site(home)
    return Trouble()


@contextmanager
def an_upload_under_way(home: Path) -> Iterator[subprocess.Popen[str]]:
    """An upload of many files, of which some have arrived. It is killed at the end."""
    site(home, {f"P00001/Waveforms/{number}.dat": Bytes(2_000) for number in range(600)})
    chorus(home, f"journal update --version {VERSION}")
    arrived = home / "central" / "data" / VERSION / "P00001" / "Waveforms"
    with subprocess.Popen(
        [sys.executable, "-m", "chorus_upload", "file", "upload"],
        cwd=home,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            end = time.monotonic() + 30
            while not (arrived.is_dir() and sum(1 for _ in arrived.iterdir()) > 20):
                assert process.poll() is None
                assert time.monotonic() < end
                time.sleep(0.002)
            yield process
        finally:
            process.kill()


def an_interruption(home: Path) -> Trouble:
    with an_upload_under_way(home):
        pass
    assert (home / "central" / "journal.db.locked").exists()
    # Going on has given the journal back; for the last block, which does only that, it is taken once more.
    return Trouble(
        pieces={"": "[ -e central/journal.db.locked ] || chorus-upload journal checkout --local-journal journal.db"}
    )


def a_locked_journal(home: Path) -> Trouble:
    site(home)
    sites.local_site(home, journal="elsewhere.db", name="colleague.toml")
    shell.run([Step("chorus-upload -c colleague.toml journal checkout")], cwd=home)
    return Trouble()


def refused_deletions(home: Path) -> Trouble:
    uploaded_site(home, {f"P0000{number}/Images/a.dcm": Bytes(10) for number in range(6)})
    for number in range(4):
        (home / "hospital" / f"P0000{number}" / "Images" / "a.dcm").unlink()
    return Trouble()


def a_checkin_conflict(home: Path) -> Trouble:
    site(home)
    chorus(home, "journal update --version 20260101120000", "file upload --max-num-files 1", "journal checkout")
    build(home / "hospital", {"Metadata/more.txt": "more\n"})
    chorus(home, f"journal update --version {VERSION}", "file upload", "journal unlock --yes")
    sites.local_site(home, journal="theirs.db", name="theirs.toml")
    chorus(home, "-c theirs.toml journal update --modalities OMOP --version 20260215120000")
    # Not with its companions: of them the document does not speak.
    return Trouble(replaced={"merge journal.db.20260302093000": "merge journal.db.20*[0-9]"})


def expired_credentials(home: Path, azurite: Azurite, container: str) -> Trouble:
    sites.azurite_site(home, azurite, container)
    build(home / "hospital", TREE)
    chorus(home, "journal update")
    expired = azurite.sas(container, valid_for=timedelta(minutes=-1))
    sites.azure_site(home, url=azurite.account_url, container=container, sas=expired)
    return Trouble(replaced={"'sv=…&sig=…'": shlex.quote(azurite.sas(container))})


def a_failing_service(home: Path) -> Trouble:
    build(home / "hospital", TREE)
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    sites.azure_site(
        home, url=f"http://127.0.0.1:{port}/devstoreaccount1", container="c", sas="sv=1&sp=racwdl&sig=abcd"
    )
    return Trouble()


def a_full_disk(home: Path) -> Trouble:
    sites.local_site(home, journal="small/journal.db")
    (home / "small").mkdir()
    # Room for the journal of the first version, and not for what SQLite writes ahead of the second.
    build(home / "hospital", {"Metadata/first.txt": "first\n"})
    build(home / "hospital", {f"OMOP/a-name-that-takes-its-place-{number:05d}.csv": "x" for number in range(6_000)})
    mount = "mount -t tmpfs -o size=700k tmpfs small"
    wrap = ("unshare", "--mount", "--map-root-user", "bash", "-c", f'{mount} && exec "$@"', "bash")
    if subprocess.run([*wrap, "true"], cwd=home, capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let us make a small disk")
    return Trouble(pieces={"make room": "mount -o remount,size=64m small"}, wrap=wrap)


def a_damaged_local_journal(home: Path) -> Trouble:
    uploaded_site(home)
    scribble(home / "journal.db")
    return Trouble()


def a_damaged_cloud_journal(home: Path) -> Trouble:
    uploaded_site(home)
    build(home / "hospital", {"Metadata/more.txt": "more\n"})
    scribble(home / "central" / "journal.db")
    return Trouble()


def a_lost_local_journal(home: Path) -> Trouble:
    site(home)
    chorus(home, f"journal update --version {VERSION}", "journal checkout", "file upload --max-num-files 2")
    build(home / "hospital", {"Metadata/more.txt": "more\n"})
    chorus(home, f"journal update --version {LATER}", f"file upload --version {LATER}")
    for path in home.glob("journal.db*"):
        path.unlink()
    return Trouble()


def changed_files(home: Path) -> Trouble:
    site(home, {**TREE, **{f"Metadata/{number}.txt": f"{number}\n" for number in range(5)}})
    chorus(home, f"journal update --version {VERSION}")
    build(home / "hospital", {"OMOP/person.csv": "person_id\n1\n2\n"})
    (home / "hospital" / "Metadata" / "notes.txt").unlink()
    return Trouble()


def a_taken_key(home: Path) -> Trouble:
    site(home)
    build(home / "central" / "data" / VERSION, {"OMOP/person.csv": "somebody else's\n"})
    chorus(home, f"journal update --version {VERSION}")
    return Trouble()


def what_verify_finds(home: Path) -> Trouble:
    uploaded_site(home)
    folder = home / "central" / "data" / VERSION
    (folder / "Metadata" / "README.md").write_text("abuse\n")
    (folder / "OMOP" / "person.csv").unlink()
    (folder / "stranger.txt").write_bytes(b"8 bytes.")
    return Trouble()


def a_journal_of_another_tool(home: Path) -> Trouble:
    site(home)
    shutil.copyfile(LEGACY / "journal-v2.db", home / "central" / "journal.db")
    return Trouble()


TROUBLES: dict[str, Callable[[Path], Trouble]] = {
    "What you can rely on": nothing_at_all,
    "An interruption": an_interruption,
    "A locked journal": a_locked_journal,
    "Refused deletions": refused_deletions,
    "A check-in conflict": a_checkin_conflict,
    "A failing service": a_failing_service,
    "A full disk": a_full_disk,
    "A damaged local journal": a_damaged_local_journal,
    "A damaged cloud journal": a_damaged_cloud_journal,
    "A lost local journal": a_lost_local_journal,
    "Changed files": changed_files,
    "A taken key": a_taken_key,
    "What verify finds": what_verify_finds,
    "A journal of another tool": a_journal_of_another_tool,
}
EXPIRED = "Expired credentials"
REFUSED = "A refused object"
SHOWN_ELSEWHERE_TOO = {"A full disk", "A locked journal", "A taken key", "What verify finds"}
"""By tests of these troubles: only the typing is left to thorough runs."""


# --- reading along -----------------------------------------------------------------------------------------------


def follow(title: str, trouble: Trouble, *, home: Path) -> None:
    """Type the blocks of a section, and see what it says one sees."""
    blocks = [block for block in section(RECOVERY, title).blocks if not block.marker.startswith("not run")]
    programs = [block for block in blocks if block.language == "bash"]
    said = shell.run([step_for(block, trouble) for block in programs], cwd=home, wrap=trouble.wrap)
    output = ""
    for block in blocks:
        if block.language == "bash":
            output = said.pop(0)
        elif block.marker != "said elsewhere":
            assert shell.missing_lines(block.text, output) == [], output


def step_for(block: Block, trouble: Trouble) -> Step:
    step = shell.step_of(block, before=trouble.pieces.get(block.marker, ""))
    script = step.script
    for shown, real in trouble.replaced.items():
        script = script.replace(shown, real)
    return Step(script, step.exit_code)


@pytest.mark.parametrize(
    "title",
    [pytest.param(each, marks=[pytest.mark.thorough] if each in SHOWN_ELSEWHERE_TOO else []) for each in TROUBLES],
)
def test_the_way_back(title: str, tmp_path: Path) -> None:
    trouble = TROUBLES[title](tmp_path)

    follow(title, trouble, home=tmp_path)


def test_the_way_back_with_a_new_token(azurite: Azurite, azure_container: str, tmp_path: Path) -> None:
    follow(EXPIRED, expired_credentials(tmp_path, azurite, azure_container), home=tmp_path)


def test_every_section_has_its_trouble() -> None:
    assert [each.title for each in sections(RECOVERY)[1:] if each.blocks] == [*dict.fromkeys(in_order())]
    assert {each.title for each in sections(RECOVERY)} - {"Recovery"} == {*TROUBLES, EXPIRED, REFUSED}


def in_order() -> list[str]:
    titles = list(TROUBLES)
    titles.insert(titles.index("A failing service"), EXPIRED)
    # That is shown by tests/faults/test_refused_objects.py.
    titles.insert(titles.index("A full disk"), REFUSED)
    return titles


def told_besides(title: str, words: str) -> Block:
    """What a section shows of something that happens in other circumstances."""
    (found,) = (
        block for block in section(RECOVERY, title).blocks if block.marker == "said elsewhere" and words in block.text
    )
    return found


def test_ctrl_c_gives_the_journal_back(tmp_path: Path) -> None:
    with an_upload_under_way(tmp_path) as process:
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=200)[0]

    assert process.returncode == 130
    assert shell.missing_lines(told_besides("An interruption", "interrupted").text, output) == []
    assert not (tmp_path / "central" / "journal.db.locked").exists()


def test_a_second_command_on_one_journal(tmp_path: Path) -> None:
    uploaded_site(tmp_path)
    with Journal.open(tmp_path / "journal.db"):
        (said,) = shell.run([Step("chorus-upload journal update", JournalLocked.exit_code)], cwd=tmp_path)

    assert shell.missing_lines(told_besides("A locked journal", "in use").text, said) == []


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    uploaded_site(tmp_path)
    (tmp_path / "hospital").rename(tmp_path / "away")

    (said,) = shell.run([Step("chorus-upload journal update", DeletionRefused.exit_code)], cwd=tmp_path)

    assert shell.missing_lines(told_besides("Refused deletions", "cannot be listed").text, said) == []


def test_a_cloud_journal_that_somebody_replaced(tmp_path: Path) -> None:
    uploaded_site(tmp_path)
    chorus(tmp_path, "journal checkout")
    build(tmp_path / "central", {"journal.db": "another"})

    (said,) = shell.run([Step("chorus-upload journal checkin", CheckinConflict.exit_code)], cwd=tmp_path)

    assert shell.missing_lines(told_besides("A check-in conflict", "is not the journal").text, said) == []


def test_a_token_that_permits_too_little(azurite: Azurite, azure_container: str, tmp_path: Path) -> None:
    poor = azurite.sas(azure_container, permissions="rl")
    sites.azure_site(tmp_path, url=azurite.account_url, container=azure_container, sas=poor)

    (said,) = shell.run([Step("chorus-upload journal update", AccessDenied.exit_code)], cwd=tmp_path)

    assert shell.missing_lines(told_besides(EXPIRED, "PermissionMismatch").text, said) == []


@pytest.mark.thorough
def test_a_token_that_expires_under_way(azurite: Azurite, azure_container: str, tmp_path: Path) -> None:
    sites.azurite_site(tmp_path, azurite, azure_container)
    build(tmp_path / "hospital", TREE)
    expired = shlex.quote(azurite.sas(azure_container, valid_for=timedelta(minutes=-1)))
    # It is read anew for each command, so here the journal is taken with a good one first.
    steps = [Step(f"chorus-upload journal {word}") for word in ("update", "checkout")]
    steps.append(Step(f"export CHORUS_UPLOAD_CENTRAL_PATH_AZURE_SAS_TOKEN={expired}"))
    steps.append(Step("chorus-upload file upload", CredentialsExpired.exit_code))

    said = shell.run(steps, cwd=tmp_path)

    (expected,) = (block for block in section(RECOVERY, EXPIRED).blocks if "hint: Ask whoever" in block.text)
    assert shell.missing_lines(expected.text, said[-1]) == []


@pytest.mark.parametrize("title", [*TROUBLES, EXPIRED])
def test_the_program_has_the_words_that_are_shown(title: str) -> None:
    foreign = ("cannot be listed", "PermissionMismatch", "Too many open files")
    for block in section(RECOVERY, title).blocks:
        if block.marker == "said elsewhere" and not any(words in block.text for words in foreign):
            assert shell.unsaid(block.text) == []


def test_every_exit_code_in_the_table_is_that_of_its_section() -> None:
    rows = {re.sub(r".*\(#|\)", "", row[0]): row[1] for row in section(RECOVERY, "Recovery").rows()}
    for each in sections(RECOVERY)[1:]:
        anchor = re.sub(r"[^\w\- ]", "", each.title.lower()).replace(" ", "-")
        shown = {block.marker.partition(" ")[2] for block in each.blocks if block.marker.startswith("exit ")}
        assert shown <= set(re.findall(r"\d+", rows.get(anchor, "")))
