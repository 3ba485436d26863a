"""What scripts for bash do before and after a refusal of the service: no waiting for what will not change."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from chorus_upload.scripting.bash import WRITER
from chorus_upload.scripting.work import Place, Root, ScriptFile, Tool, Work, trusted_hosts
from tests.e2e.site import wait_until
from tests.emulators import Authority, real, running_azurite
from tests.storage.test_azure_login import Az, token_of

FRONT = "https://front.example.org"
ENDS = "se=2099-01-01T00%3A00%3A00Z"
# As az does when the service answers 403, whatever the reason.
SAID_403 = "printf 'ERROR: \\nThe request may be blocked by network rules of storage account.\\n' >&2; exit 1"
NOT_PERMITTED = (
    "printf 'ERROR: \\nYou do not have the required permissions needed to perform this operation.\\n' >&2; exit 1"
)


def work(tmp_path: Path, *, tool: Tool = Tool.AZ, count: int = 6, **changes: Any) -> Work:  # noqa: ANN401 - they are fields of Work
    """A script's work, for files that lie below `tmp_path / "data"`."""
    made = Work(
        tool=tool,
        destination=Place(endpoint=FRONT, container="central", prefix="site"),
        destination_name="az://central/site",
        login=False,
        standalone=False,
        journal=Place(endpoint=FRONT, container="journal"),
        journal_key="journal.db",
        chorus=("true",),
        config="config.toml",
        roots=(Root(modality="Images", path=str(tmp_path / "data")),),
        files=count,
        bytes=count,
        written=datetime(2026, 3, 1, tzinfo=UTC),
        tool_version="9.9",
        workers=1,
    )
    return replace(made, **changes)


class Machine:
    """Somebody's machine with such a script, and with programs that are called as az and azcopy are."""

    def __init__(self, root: Path, made: Work) -> None:
        self.root = root
        self.script = root / "upload.sh"
        self.temporary = root / "temporary"
        for directory in (root / "data", root / "programs", self.temporary):
            directory.mkdir()
        files = []
        for number in range(1, made.files + 1):
            (root / "data" / f"{number}.dcm").write_text("x")
            files.append(ScriptFile(id=number, root=0, path=f"{number}.dcm", key=f"v/{number}.dcm", size=1))
        with self.script.open("w") as out:
            WRITER.write(made, files, out, lambda _: StringIO())
        self.program("az", "")
        self.program("azcopy", "")

    def program(self, name: str, does: str) -> None:
        """Let a program note its arguments and then do this; it knows its version."""
        path = self.root / "programs" / name
        version = "azcopy version 10.32.2" if name == "azcopy" else "2.91.0"
        path.write_text(
            f"""#!/bin/bash
case "$*" in *version*) echo {version}; exit ;; esac
printf '%s ' "$@" >>{self.root}/calls.{name}; echo >>{self.root}/calls.{name}
farm=; while [ $# -gt 0 ]; do case $1 in --source) farm=$2 ;; */files/\\*) farm=${{1%/\\*}} ;; esac; shift; done
{does}
"""
        )
        path.chmod(0o700)

    def calls(self, name: str) -> list[str]:
        noted = self.root / f"calls.{name}"
        return noted.read_text().splitlines() if noted.exists() else []

    def environment(self, token: str | None) -> dict[str, str]:
        known = {name: value for name, value in os.environ.items() if not name.startswith(("AZ", "CHORUS_"))}
        known |= {"PATH": f"{self.root / 'programs'}:{known['PATH']}", "TMPDIR": str(self.temporary)}
        return known if token is None else known | {"AZURE_STORAGE_SAS_TOKEN": token}

    def run(self, *arguments: str, token: str | None = f"sv=1&{ENDS}&sp=racwdl&sig=S", exit_code: int = 0) -> str:
        done = subprocess.run(
            ["bash", str(self.script), *arguments],
            cwd=self.root,
            env=self.environment(token),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        log = self.root / "upload.sh.log"
        assert done.returncode == exit_code, done.stderr + (log.read_text() if log.exists() else "")
        assert list(self.temporary.iterdir()) == []
        return done.stderr


SENDS = 'find "$farm" -type l | wc -l'


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("se=2020-01-02T03%3A04%3A05Z&sp=racwdl", "has expired, since 2020-01-02 03:04 UTC; ask for a new one"),
        ("se=2020-01-02T03:04Z", "has expired, since 2020-01-02 03:04 UTC"),
        ("se=2020-01-02&sp=racwdl", "has expired, since 2020-01-02 00:00 UTC"),
        ("se=2020-01-01T00%3A30%3A00%2B01%3A00", "has expired, since 2019-12-31 23:30 UTC"),
        ("se=2020-02-28T22:04-0500", "has expired, since 2020-02-29 03:04 UTC"),
        (f"{ENDS}&st=2098-01-01", "is not valid before 2098-01-01 00:00 UTC"),
        (f"{ENDS}&sp=rl", "does not permit to create or write (c, w); it has sp=rl. Ask for one that does"),
    ],
)
def test_a_token_that_cannot_do_it_is_read_before_anything_is_sent(tmp_path: Path, token: str, said: str) -> None:
    machine = Machine(tmp_path, work(tmp_path))
    for arguments in (("--check",), ()):
        told = machine.run(*arguments, token=f"?sv=1&{token}&sig=S", exit_code=2)
        assert f"AZURE_STORAGE_SAS_TOKEN: the SAS token {said}" in told
    assert machine.calls("az") == []


@pytest.mark.parametrize(
    "token",
    [
        f"{ENDS}&sp=c",
        f"sp=w&{ENDS}",
        "si=policy",
        "se=2099-01-01",
        "se=2099-01-01T00:00:00%2b01:00",
        "se=in+a+while",
        f"{ENDS}&spr=https&sr=c",
    ],
)
def test_a_token_that_may_do_it_passes(tmp_path: Path, token: str) -> None:
    machine = Machine(tmp_path, work(tmp_path))
    assert "all that is needed is here" in machine.run("--check", token=f"sv=1&{token}&sig=S")


def test_what_else_a_token_is_needed_for(tmp_path: Path) -> None:
    (tmp_path / "azcopy").mkdir()
    (tmp_path / "standalone").mkdir()
    machine = Machine(tmp_path / "azcopy", work(tmp_path / "azcopy", tool=Tool.AZCOPY))
    assert "does not permit to read (r); it has sp=cw" in machine.run(token=f"{ENDS}&sp=cw&sig=S", exit_code=2)
    machine = Machine(tmp_path / "standalone", work(tmp_path / "standalone", standalone=True))
    told = machine.run(token=f"{ENDS}&sp=rcw&sig=S", exit_code=2)
    assert "CHORUS_JOURNAL_SAS_TOKEN: the SAS token does not permit to delete (d); it has sp=rcw" in told


@pytest.mark.parametrize("said", [SAID_403, NOT_PERMITTED])
def test_when_all_are_refused_it_stops_at_once(tmp_path: Path, said: str) -> None:
    """Six files took almost six minutes, most of them waited for."""
    machine = Machine(tmp_path, work(tmp_path))
    machine.program("az", said)
    told = machine.run(exit_code=3)
    assert "nothing got through any more:" in told
    assert "6 of 6 files have not arrived" in told
    # All of them, and then three by themselves: one file that is refused keeps no other.
    assert len(machine.calls("az")) == 4


def test_when_azcopy_is_refused_it_stops_at_once(tmp_path: Path) -> None:
    machine = Machine(tmp_path, work(tmp_path, tool=Tool.AZCOPY))
    machine.program(
        "azcopy",
        'log=$AZCOPY_LOG_LOCATION; mkdir -p "$log"; echo "ERROR CODE: AuthorizationFailure" >"$log/1.log"; exit 1',
    )
    assert "nothing got through any more: ERROR CODE: AuthorizationFailure;" in machine.run(exit_code=3)
    assert len(machine.calls("azcopy")) == 4


def test_a_file_that_is_refused_keeps_no_other(tmp_path: Path) -> None:
    machine = Machine(tmp_path, work(tmp_path, count=8))
    machine.program("az", f'if [ -e "$farm/v/2.dcm" ]; then {SAID_403}; fi; {SENDS}')
    told = machine.run("--retry-wait", "0", exit_code=3)
    assert "1 of 8 files have not arrived" in told
    assert "2 v/2.dcm: az failed: " in (tmp_path / "upload.sh.failed").read_text()
    assert len((tmp_path / "upload.sh.results").read_text().splitlines()) == 8


def test_a_token_that_ends_meanwhile(tmp_path: Path) -> None:
    machine = Machine(tmp_path, work(tmp_path, count=8))
    machine.script.write_text(machine.script.read_text().replace("batch_files=200", "batch_files=2"))
    # The first batch arrives; from then on it is later, for the script too.
    late = f'printf "#!/bin/sh\\necho 21000101000000\\n" >{tmp_path}/programs/date; chmod 700 {tmp_path}/programs/date'
    machine.program("az", f"if [ -e {tmp_path}/programs/date ]; then {SAID_403}; fi; {late}; {SENDS}")
    told = machine.run(exit_code=3)
    assert "the SAS token has expired meanwhile: ask for a new one, and run this again" in told
    assert "6 of 8 files have not arrived" in told
    assert len(machine.calls("az")) == 2


def test_a_login_is_shown_to_the_host_of_the_central_site(tmp_path: Path) -> None:
    """azcopy shows it to nobody but Microsoft by itself, and fails after minutes without a word of that."""
    (tmp_path / "azcopy").mkdir()
    (tmp_path / "az").mkdir()
    machine = Machine(tmp_path / "azcopy", work(tmp_path / "azcopy", tool=Tool.AZCOPY, login=True, count=2))
    machine.program("azcopy", "echo Number of File Transfers Completed: 2; echo Number of File Transfers Skipped: 0")
    machine.run(token=None)
    (call,) = machine.calls("azcopy")
    assert f"{FRONT}/central/site --from-to LocalBlob" in call
    assert "--trusted-microsoft-suffixes front.example.org " in call

    machine = Machine(tmp_path / "az", work(tmp_path / "az", login=True, count=2))
    machine.program("az", SENDS)
    machine.run(token=None)
    (call,) = machine.calls("az")
    assert f"--blob-endpoint {FRONT} --auth-mode login" in call
    assert "--account-name" not in call


def test_the_real_azcopy_takes_a_login_there(tmp_path: Path) -> None:
    """The service and its host are the emulator, which Microsoft's suffixes do not know either."""
    (tmp_path / "az").mkdir()
    az = Az(tmp_path / "az")
    az.install()
    az.gives(token_of("somebody"))
    with running_azurite(tmp_path, authority=Authority(tmp_path)) as azurite:
        assert azurite.authority is not None
        container = azurite.create_container()
        (tmp_path / "site").mkdir()
        place = Place(endpoint=azurite.account_url, container=container)
        bundle = str(azurite.authority.bundle)
        made = work(tmp_path / "site", tool=Tool.AZCOPY, login=True, count=3, destination=place, ca_bundle=bundle)
        machine = Machine(tmp_path / "site", made)
        for name in ("az", "azcopy"):
            (machine.root / "programs" / name).unlink()
        (machine.root / "programs" / "az").symlink_to(az.directory / "az")
        (machine.root / "programs" / "azcopy").symlink_to(real("azcopy"))
        assert "all 3 files have arrived" in machine.run("--retry-wait", "0", token=None)
        with azurite.service() as service, service.get_container_client(container) as client:
            assert {blob.name for blob in client.list_blobs()} == {"v/1.dcm", "v/2.dcm", "v/3.dcm"}


def test_who_is_shown_a_login(tmp_path: Path) -> None:
    own = "https://hospital.blob.core.windows.net"
    made = work(tmp_path, tool=Tool.AZCOPY, login=True)
    source = Root(modality="Images", path=f"{own}/source", front="https://other.example.org/source")
    assert trusted_hosts(made) == "front.example.org"
    assert trusted_hosts(replace(made, destination=Place(endpoint=own, container="c"))) == ""
    assert trusted_hosts(replace(made, login=False)) == ""
    assert trusted_hosts(replace(made, tool=Tool.AZ)) == ""
    assert trusted_hosts(replace(made, roots=(source,))) == "front.example.org;other.example.org"


def test_files_are_copied_from_the_account_itself_and_else_from_its_front(tmp_path: Path) -> None:
    own = Root(modality="Images", path="https://hospital.blob.core.windows.net/source", front=f"{FRONT}/source")
    machine = Machine(tmp_path, work(tmp_path, tool=Tool.AZCOPY, count=2, roots=(own,)))
    script = machine.script.read_text()
    for number in (1, 2):
        script = script.replace(f"keep {number}.dcm v/{number}.dcm", f"keep {number}.dcm {number}.dcm")
    machine.script.write_text(script)
    counts = "echo Number of File Transfers Completed: 2; echo Number of File Transfers Skipped: 0"
    machine.program(
        "azcopy", f'[ "$(wc -l <{tmp_path}/calls.azcopy)" -gt 1 ] || {{ echo cannot be reached; exit 1; }}; {counts}'
    )
    told = machine.run("--retry-wait", "0")
    first, second = machine.calls("azcopy")
    assert "copy https://hospital.blob.core.windows.net/source " in first
    assert f"copy {FRONT}/source " in second
    assert "nothing could be copied from https://hospital.blob.core.windows.net/source (cannot be reached)" in told
    assert f"trying {FRONT}/source" in told


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE])
def test_whoever_is_stopped_leaves_no_links(tmp_path: Path, number: signal.Signals) -> None:
    machine = Machine(tmp_path, work(tmp_path))
    machine.program("az", f"touch {tmp_path}/begun; sleep 60")
    with subprocess.Popen(
        ["bash", str(machine.script)],
        cwd=tmp_path,
        env=machine.environment(f"{ENDS}&sig=S"),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as running:
        wait_until((tmp_path / "begun").exists)
        running.send_signal(number)
        assert running.wait(30) == 128 + number
    assert list(machine.temporary.iterdir()) == []


def test_what_a_killed_script_has_left_is_removed_by_the_next(tmp_path: Path) -> None:
    machine = Machine(tmp_path, work(tmp_path))
    machine.program("az", f"echo $$ >{tmp_path}/begun; exec sleep 60")
    with subprocess.Popen(
        ["bash", str(machine.script)],
        cwd=tmp_path,
        env=machine.environment(f"{ENDS}&sig=S"),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as running:
        wait_until(lambda: (tmp_path / "begun").exists() and (tmp_path / "begun").read_text().strip())
        running.kill()
    (left,) = machine.temporary.iterdir()
    assert list(left.rglob("*.dcm"))
    stray = tmp_path / "temporary" / "chorus-upload.strayx"
    elsewhere = tmp_path / "temporary" / "chorus-upload.elsewh"
    linked = tmp_path / "temporary" / "chorus-upload.linked"
    for directory in (stray, elsewhere):
        directory.mkdir()
    (elsewhere / "processes").write_text("1000000 another-machine\n")
    linked.symlink_to(tmp_path / "data")

    # What still works with it, an az or a worker, keeps it.
    machine.program("az", SENDS)
    kept = {stray, elsewhere, linked}

    def run() -> str:
        done = subprocess.run(
            ["bash", str(machine.script)],
            cwd=tmp_path,
            env=machine.environment(f"{ENDS}&sig=S"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
            timeout=100,
        )
        return done.stderr

    assert "removing" not in run()
    assert set(machine.temporary.iterdir()) == {left, *kept}
    os.kill(int((tmp_path / "begun").read_text()), signal.SIGKILL)
    processes = [int(line.split()[0]) for line in (left / "processes").read_text().splitlines()]
    wait_until(lambda: not any(Path(f"/proc/{process}").exists() for process in processes))
    assert f"removing {left}, which a script that was killed has left" in run()
    assert set(machine.temporary.iterdir()) == kept
    assert len(list((tmp_path / "data").iterdir())) == 6
