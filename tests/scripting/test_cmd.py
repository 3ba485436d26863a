"""Scripts for Windows, run by the cmd of Wine with Microsoft's own az and azcopy against the emulator.

What is not Windows' own: its PowerShell does not run, a `%` in the path of a script is expanded once more by Wine, and
a drive there is as large or small letters' friend as the machine below it.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chorus_upload.errors import ConfigError
from chorus_upload.operations.lock import Lock
from chorus_upload.scripting import cmd
from chorus_upload.scripting.cmd import WRITER, set_line
from chorus_upload.scripting.work import BATCH_FILES, Place, Root, ScriptFile, Tool, Work
from tests.e2e.clouds import LOCK, Container, files_of
from tests.e2e.conftest import in_memory, wire
from tests.e2e.site import quick_program, wait_until
from tests.emulators import real
from tests.scripting.sites import site_with
from tests.trees import Bytes, bytes_of
from tests.wine import Call, Program, Ran, Wine, program, windows_path, wine
from tests.wire import Answer, Wire

__all__ = ["in_memory", "wire"]

HOSTILE = [
    "plain.dcm",
    "with space.dcm",
    " leading",
    "quo'te.dcm",
    "%PATH% 50% %20 %1",
    "%%a %~f0",
    "bang! !c_id! car^et amp&",
    "$(touch stolen) `touch stolen`",
    "semi;colon",
    ";first",
    "-dash --option",
    "[a-z] {b,c} (x) y",
    "Größe 患者 😀.dcm",
    "~ # @file =x +1 ,",
    "@file",
    "a" * 251 + ".dcm",
    ".dot",
    "on",
    "disk.vhd",
    "\u2028 \u202e \ufeff",
]
TREE = {f"1001/Images/{name}": f"content of {name}".encode() for name in HOSTILE}
MANY = {f"p{number % 3}/{number:04}.dcm": b"%d" % number for number in range(25)}
FEW = {f"p/{number}.dcm": b"x" * number for number in range(1, 8)}
PREFIX = "site #01/100%41 50% Größe & co"


@dataclass
class Windows:
    """A Windows, and what its programs were called with; those that are in `instead` are answered by these."""

    wine: Wine
    calls: list[Call]
    instead: dict[str, Program] = field(default_factory=dict)


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Windows]:
    programs = {
        "az": program(str(real("az"))),
        "azcopy": program(str(real("azcopy"))),
        "chorus-upload": program(quick_program().command),
    }
    calls: list[Call] = []
    instead: dict[str, Program] = {}

    def answer(call: Call) -> Sequence[str]:
        calls.append(call)
        if call.name not in instead and call.arguments[0] == "version":
            return ["printf", "2.91.0\t2.91.0\n"]
        return instead.get(call.name, programs[call.name])(call)

    with wine(tmp_path_factory.mktemp("wine"), dict.fromkeys(programs, answer)) as there:
        yield Windows(there, calls, instead)


@pytest.fixture(autouse=True)
def as_it_was(windows: Windows) -> None:
    windows.calls.clear()
    windows.instead.clear()
    windows.instead["chorus-upload"] = lambda _: ["true"]


@dataclass
class Script:
    """A script in a directory of its own, with the files that it sends in another."""

    windows: Windows
    path: Path
    container: Container
    files: list[ScriptFile]
    environment: dict[str, str]

    def run(self, *, exit_code: int = 0, **environment: str) -> Ran:
        """Run it to its end, and hold it to its exit code and to keeping the token to itself."""
        more = {name: value for name, value in {**self.environment, **environment}.items() if value}
        ran = self.windows.wine.run(self.path, cwd=self.path.parent, environment=more, timeout=500)
        self.check_secrets(ran)
        logs = "".join(f"\n{log}:\n{log.read_text(errors='replace')}" for log in self.path.parent.rglob("log.txt"))
        assert ran.exit_code == exit_code, f"{ran.out}\n{ran.err}{logs}"
        return ran

    def check_secrets(self, ran: Ran) -> None:
        told = [f"{ran.out}\n{ran.err}"]
        told += [each.read_text(errors="replace") for each in self.path.parent.rglob("*") if each.is_file()]
        assert not [secret for secret in self.container.secrets if any(secret in each for each in told)]

    def beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)

    @property
    def results(self) -> list[str]:
        """The keys that it says have arrived."""
        # Not by splitlines(), which knows more ends of lines than cmd.
        lines = self.beside(".results").read_text(encoding="utf-8-sig").split("\n")
        assert lines.pop(0) == "# chorus-upload results 1 az://central/site"
        assert lines[-2:] == ["# end", ""]
        del lines[-2:]
        keys = {file.id: file.key for file in self.files}
        assert all(keys[int(number)] == key for number, _, key in (line.partition(" ") for line in lines))
        return [line.partition(" ")[2] for line in lines]


def put(root: Path, tree: Mapping[str, bytes]) -> list[ScriptFile]:
    files = []
    for number, (path, content) in enumerate(tree.items(), 100):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
        files.append(ScriptFile(id=number, root=0, path=path, key=f"spring/{path}", size=len(content)))
    return files


def script_for(
    windows: Windows,
    tmp_path: Path,
    container: Container,
    files: list[ScriptFile],
    **changes: Any,  # noqa: ANN401 - they are fields of Work
) -> Script:
    """A script for the files, which are below `tmp_path / "data"`: one for az whose chorus-upload agrees to all."""
    (tmp_path / "data").mkdir(exist_ok=True)
    work = replace(
        Work(
            tool=Tool.AZ,
            destination=Place(endpoint=container.url, container=container.name, prefix=PREFIX),
            destination_name="az://central/site",
            login=False,
            standalone=False,
            journal=Place(endpoint=container.url, container=container.name, prefix="journal"),
            journal_key=LOCK.removesuffix(".locked"),
            chorus=("chorus-upload",),
            config="config.toml",
            roots=(Root(modality="Images", path=windows_path(tmp_path / "data")),),
            files=len(files),
            bytes=sum(file.size for file in files),
            written=datetime.now(UTC),
            tool_version="9.9",
            workers=2,
        ),
        **changes,
    )
    # Wine would expand a % there a second time.
    path = tmp_path / "we ird & (x) ! ^" / "up, load & (1)!.bat"
    path.parent.mkdir()
    with ExitStack() as opened:
        assert [file for file in files if WRITER.refuses(file)] == []
        out = opened.enter_context(path.open("w", encoding="utf-8", newline=""))
        WRITER.write(
            work,
            files,
            out,
            lambda suffix: opened.enter_context(
                path.with_name(path.name + suffix).open("w", encoding="utf-8", newline="")
            ),
        )
    environment = {"AZURE_STORAGE_SAS_TOKEN": container.token, "CHORUS_RETRY_WAIT": "0", "HOME": str(tmp_path)}
    return Script(windows, path, container, files, environment)


def etag_of(container: Container, key: str) -> str:
    with (
        container.azurite.service() as service,
        service.get_blob_client(container.name, f"{PREFIX}/{key}") as blob,
    ):
        return str(blob.get_blob_properties().etag).strip('"')


def arrived(tree: Mapping[str, bytes]) -> dict[str, bytes]:
    return {f"{PREFIX}/spring/{path}": content for path, content in tree.items()}


@pytest.mark.thorough  # as in bash
@pytest.mark.parametrize("tool", [Tool.AZ, Tool.AZCOPY])
def test_hostile_names_arrive_as_they_are(windows: Windows, tmp_path: Path, container: Container, tool: Tool) -> None:
    files = put(tmp_path / "data", TREE)
    script = script_for(windows, tmp_path, container, files, tool=tool, standalone=tool is Tool.AZ)
    lock: dict[str, Any] = {}

    def look(call: Call) -> Sequence[str]:
        if "copy" in call.arguments or "upload-batch" in call.arguments:
            lock.update(json.loads(container.objects().get(LOCK, b"{}")))
        return program(str(real(call.name)))(call)

    windows.instead.update(dict.fromkeys(("az", "azcopy"), look))

    other = "DefaultEndpointsProtocol=http;AccountName=other;AccountKey=a2V5;BlobEndpoint=http://127.0.0.1:9/other"
    ran = script.run(
        AZURE_STORAGE_SAS_TOKEN=f"?{container.token}",
        AZURE_CONFIG_DIR=settings_of_az(tmp_path, f"[storage]\nconnection_string = {other}\n"),
        AZURE_CLI_DISABLE_CONNECTION_VERIFICATION="1",
        USERNAME="Dr. Müller",
        COMPUTERNAME="PC-7",
    )

    assert f"all {len(TREE)} files have arrived" in ran.err
    assert container.objects() == arrived(TREE)
    assert sorted(script.results) == sorted(file.key for file in files)
    assert not list(tmp_path.rglob("stolen"))
    assert not any("AZURE_CLI_DISABLE_CONNECTION_VERIFICATION" in call.environment for call in windows.calls)
    assert not script.beside(".lock").exists()
    assert not script.beside(".failed").exists()
    assert bytes_in(tmp_path / "data") == TREE
    if tool is Tool.AZ:
        assert (lock["owner"], lock["host"], lock["tool_version"]) == ("Dr. Müller", "PC-7", "9.9")
        assert (lock["by_hand"], lock["journal_etag"]) == (True, None)
        assert abs(lock["since_us"] / 1e6 - time.time()) < 60
        assert set(lock) | {"etag", "of_older_tool", "written_us"} == {field.name for field in fields(Lock)}

    # Again: there is nothing to do, and that is no error.
    windows.calls.clear()
    assert f"{len(TREE)} of them have arrived already" in script.run().err
    assert not [call for call in windows.calls if {"storage", "copy"} & {*call.arguments}]


def settings_of_az(tmp_path: Path, text: str) -> str:
    (tmp_path / "azure").mkdir()
    (tmp_path / "azure" / "config").write_text(text)
    return windows_path(tmp_path / "azure")


def bytes_in(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_journal_learns_what_arrived(windows: Windows, tmp_path: Path, container: Container) -> None:
    tree = {f"1001/Images/{number} 50% é!.dcm": Bytes(100 + number) for number in range(3)}
    site = site_with(tmp_path, tree, container)
    site.run("file", "list", "--output-type", "azcli", "--output-file", str(site.home / "upload.sh"))
    listed = (site.home / "upload.sh").read_text().partition("# --- The list")[2].splitlines()
    words = [shlex.split(line) for line in listed if line.startswith("file ")]
    files = [
        ScriptFile(id=int(number), root=int(root), size=int(size), path=path, key=key)
        for _, number, root, size, _, path, key in words
    ]
    title = next(line for line in (site.home / "upload.sh").read_text().splitlines() if "results_title=" in line)
    del windows.instead["chorus-upload"]
    script = script_for(
        windows,
        tmp_path,
        container,
        files,
        destination=Place(endpoint=container.url, container=container.name, prefix="data"),
        destination_name=shlex.split(title)[1].partition("results 1 ")[2],
        config=str(site.config),
        roots=(Root(modality="Images", path="Q:\\elsewhere"),),
    )
    assert "there is no such directory; set CHORUS_ROOT_0" in script.run(exit_code=2).err

    script.run(CHORUS_ROOT_0=f"{windows_path(site.source)}\\", CHORUS_UPLOAD="chorus-upload")

    objects = container.objects()
    assert files_of(objects) == {f"spring/{path}": bytes_of(path, body) for path, body in tree.items()}
    assert {each["key"] for each in site.uploaded().values()} == {f"spring/{path}" for path in tree}
    assert site.pending() == set()
    assert LOCK not in objects


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(cmd, "BATCH_FILES", 10)
    return 10


@pytest.mark.thorough  # the next goes on where it was, too
def test_killed_half_way_and_run_again(
    windows: Windows, tmp_path: Path, container: Container, small_batches: int
) -> None:
    files = put(tmp_path / "data", MANY)
    script = script_for(windows, tmp_path, container, files, workers=1, standalone=True)
    notes = script.beside(".results.1")

    with windows.wine.start(script.path, cwd=tmp_path, environment=script.environment) as process:
        wait_until(lambda: notes.exists() and b"|ok" in notes.read_bytes(), seconds=60)
        windows.wine.stop()  # all at once, as when the power fails
        out, err = process.communicate(timeout=200)
    script.check_secrets(Ran(process.returncode, out.decode(), err.decode()))
    noted = {line.split("|")[1] for line in notes.read_text().splitlines() if line.endswith("|ok")}
    assert small_batches <= len(noted) < len(MANY)
    assert LOCK in container.objects()
    with notes.open("a") as half:
        half.write("100|spring/p0")  # a line whose writing was broken off
    windows.wine.begin()

    ran = script.run(CHORUS_WORKERS="2")

    assert f"{len(noted)} of them have arrived already" in ran.err
    assert len(script.results) == len(set(script.results)) == len(MANY)
    assert container.objects() == arrived(MANY)
    assert not list(script.path.parent.glob("*.results.*"))


@pytest.mark.thorough
def test_the_others_end_in_good_order_when_the_front_is_gone(
    windows: Windows, tmp_path: Path, container: Container, small_batches: int
) -> None:
    files = put(tmp_path / "data", MANY)
    script = script_for(windows, tmp_path, container, files, workers=1)
    notes = script.beside(".results.1")

    with windows.wine.start(script.path, cwd=tmp_path, environment=script.environment) as process:
        wait_until(lambda: notes.exists() and b"|ok" in notes.read_bytes(), seconds=60)
        process.kill()
        _, err = process.communicate(timeout=300)  # what the keeper says, to its end
    assert b"stopped; run it again to go on" in err
    assert small_batches <= len(script.results) < len(MANY)
    noted = len(script.results)
    assert container.objects().keys() == {f"{PREFIX}/{key}" for key in script.results}

    assert f"{noted} of them have arrived already" in script.run().err
    assert container.objects() == arrived(MANY)


@pytest.mark.thorough
def test_stopped_by_a_file(windows: Windows, tmp_path: Path, container: Container, small_batches: int) -> None:
    files = put(tmp_path / "data", MANY)
    script = script_for(windows, tmp_path, container, files, workers=1)

    def stop(call: Call) -> Sequence[str]:
        if "upload-batch" in call.arguments:
            script.beside(".stop").touch()
        return program(str(real("az")))(call)

    windows.instead["az"] = stop

    assert "stopped; run it again to go on" in script.run(exit_code=130).err

    assert len(script.results) == small_batches
    assert container.objects().keys() == {f"{PREFIX}/{key}" for key in script.results}
    assert windows.calls[-1].arguments[-2:] == ("journal", "checkin")


def test_what_fails_is_listed_and_the_rest_arrives(windows: Windows, tmp_path: Path, container: Container) -> None:
    files = put(tmp_path / "data", FEW)
    (tmp_path / "data" / "p" / "1.dcm").unlink()
    (tmp_path / "data" / "p" / "2.dcm").write_bytes(b"changed")
    (tmp_path / "data" / "p" / "3.dcm").chmod(0o444)
    script = script_for(windows, tmp_path, container, files)
    # Another file is under that key: nobody may overwrite it, and it is not the one that was to be sent.
    container.put(f"{PREFIX}/spring/p/4.dcm", b"somebody else's")
    # And here what was to be sent is there already.
    container.put(f"{PREFIX}/spring/p/5.dcm", FEW["p/5.dcm"])

    ran = script.run(exit_code=3)

    failed = script.beside(".failed").read_text().splitlines()
    assert [line.split(": ")[0] for line in failed] == ["100 spring/p/1.dcm", "101 spring/p/2.dcm"]
    assert "2 of 7 files have not arrived" in ran.err
    assert (tmp_path / "data" / "p" / "3.dcm").stat().st_mode & 0o777 == 0o444


@pytest.mark.thorough
@pytest.mark.parametrize("tool", [Tool.AZ, Tool.AZCOPY])
def test_without_links_every_file_goes_by_itself(
    windows: Windows, tmp_path: Path, container: Container, in_memory: Path, tool: Tool
) -> None:
    tree = {"p/%PATH% 50% %20 ! ^ &": b"hostile", "p/[a] # +": b"signs", "replaced": b"new"}
    files = put(tmp_path / "data", tree)
    container.put(f"{PREFIX}/spring/replaced", b"old" if tool is Tool.AZ else b"new")
    if tool is Tool.AZ:
        files[-1] = replace(files[-1], replaces=etag_of(container, "spring/replaced"))
    script = script_for(windows, tmp_path, container, files, tool=tool)

    script.run(CHORUS_STAGING=windows_path(in_memory))

    assert container.objects() == arrived(tree)
    assert not any("upload-batch" in call.arguments or "--recursive" in call.arguments for call in windows.calls)


@pytest.mark.thorough
@pytest.mark.parametrize("tool", [Tool.AZ, Tool.AZCOPY])
def test_a_tool_that_passes_over_files_has_failed(
    windows: Windows, tmp_path: Path, container: Container, wire: Wire, tool: Tool
) -> None:
    tree = {"1": b"one", "2": b"two"}
    through = replace(container, port=wire.port)
    script = script_for(windows, tmp_path, through, put(tmp_path / "data", tree), tool=tool, workers=1)
    batches: list[Call] = []

    def answer(call: Call) -> Sequence[str]:
        if {"upload-batch", "--recursive"} & {*call.arguments}:
            batches.append(call)
            if tool is Tool.AZCOPY and len(batches) == 1:
                return ["printf", "Number of File Transfers Completed: 1\nNumber of File Transfers Skipped: 0\n"]
        return program(str(real(call.name)))(call)

    windows.instead.update(dict.fromkeys(("az", "azcopy"), answer))
    if tool is Tool.AZ:
        deleted = Answer(409, (("x-ms-error-code", "ContainerBeingDeleted"),))
        wire.script(deleted, method="PUT", times=len(tree))

    script.run()

    assert len(batches) == 2
    assert container.objects() == arrived(tree)


@pytest.mark.thorough  # as in bash
def test_only_what_was_known_is_replaced(windows: Windows, tmp_path: Path, container: Container) -> None:
    files = put(tmp_path / "data", {"1": b"new", "2": b"new"})
    for file in files:
        container.put(f"{PREFIX}/{file.key}", b"old")
    known = [replace(file, replaces=etag_of(container, file.key)) for file in files]
    container.put(f"{PREFIX}/spring/2", b"another's")
    script = script_for(windows, tmp_path, container, known, workers=1)

    script.run(exit_code=3)

    assert container.objects() == {f"{PREFIX}/spring/1": b"new", f"{PREFIX}/spring/2": b"another's"}
    assert script.results == ["spring/1"]
    assert script.beside(".failed").read_text() == "101 spring/2: az failed: ErrorCode:ConditionNotMet \n"
    assert WRITER.refuses(replace(known[0], replaces='0x1" & calc'))
    (tmp_path / "azcopy").mkdir()
    with pytest.raises(ValueError, match="on a condition"):
        script_for(windows, tmp_path / "azcopy", container, known, tool=Tool.AZCOPY)


def test_a_login_is_not_led_elsewhere_by_settings(windows: Windows, tmp_path: Path, container: Container) -> None:
    script = script_for(windows, tmp_path, container, put(tmp_path / "data", FEW), login=True)
    settings = settings_of_az(tmp_path, "[core]\naccount = x\n[storage]\n# no\nKey=abc\n[other]\n")
    assert "[storage] names an account or a key" in script.run(exit_code=2, AZURE_CONFIG_DIR=settings).err
    assert windows.calls == []


@pytest.mark.thorough  # as in bash
def test_results_of_others_count_for_nothing(windows: Windows, tmp_path: Path, container: Container) -> None:
    script = script_for(windows, tmp_path, container, put(tmp_path / "data", FEW), workers=1)
    others = ["100 spring/other", "102 spring/p/3.d", "7 spring/p/2.dcm"]
    lines = ["# chorus-upload results 1 az://central/site\r", *others, "101 spring/p/2.dcm", "103 spr"]
    script.beside(".results").write_text("\r\n".join(lines), newline="")

    assert "7 files, 1 of them have arrived already" in script.run().err

    results = script.beside(".results").read_text(encoding="utf-8-sig").splitlines()
    assert results[1:6] == [*others, "101 spring/p/2.dcm", "103 spr"]
    assert sorted(results[6:]) == ["# end", *(f"{100 + n} spring/p/{n + 1}.dcm" for n in range(7) if n != 1)]
    assert container.objects() == arrived({key: body for key, body in FEW.items() if key != "p/2.dcm"})
    script.beside(".results").write_bytes(b"")  # as a full disk leaves it
    assert "7 files, 0 of them have arrived already" in script.run().err


@pytest.mark.thorough  # as in bash
def test_a_lock_that_could_not_be_given_back(
    windows: Windows, tmp_path: Path, container: Container, wire: Wire
) -> None:
    through = replace(container, port=wire.port)
    script = script_for(windows, tmp_path, through, put(tmp_path / "data", FEW), standalone=True, workers=1)
    lost: list[bool] = []

    def az(call: Call) -> Sequence[str]:
        if "upload-batch" in call.arguments:
            return ["printf", "7\n"]
        if "version" in call.arguments:
            return ["printf", "2.91.0\n"]
        return ["false"] if lost else program(str(real("az")))(call)

    windows.instead["az"] = az
    wire.script(Answer(403), method="DELETE")
    assert "could not be given back" in script.run(exit_code=1, CHORUS_JOURNAL_SAS_TOKEN=f"?{container.token}").err
    note = script.beside(".lock").read_text()
    assert LOCK in container.objects()
    lost.append(True)
    assert "could not be taken" in script.run(exit_code=1).err
    assert script.beside(".lock").read_text() == note
    lost.clear()

    assert "7 of them have arrived already" in script.run().err

    assert container.objects() == {}
    assert not script.beside(".lock").exists()


@pytest.mark.thorough
def test_the_reason_is_in_the_log_of_azcopy(windows: Windows, tmp_path: Path, container: Container) -> None:
    def azcopy(call: Call) -> Sequence[str]:
        if "copy" not in call.arguments:
            return ["printf", "azcopy version 10.32.2\n"]
        (call.folder / "azcopy").mkdir(exist_ok=True)
        (call.folder / "azcopy" / "1.log").write_text("==> REQUEST\n   RESPONSE Status: 403 Not permitted.\n<Error>\n")
        return ["sh", "-c", "echo Final Job Status: Cancelled; exit 1"]

    windows.instead["azcopy"] = azcopy
    script = script_for(windows, tmp_path, container, put(tmp_path / "data", {"1": b"a"}), tool=Tool.AZCOPY)

    script.run(exit_code=3)

    assert script.beside(".failed").read_text().startswith("100 spring/1: azcopy failed: RESPONSE Status: 403 Not")


@pytest.mark.thorough
def test_a_second_run_at_once_is_refused(windows: Windows, tmp_path: Path, container: Container) -> None:
    script = script_for(windows, tmp_path, container, put(tmp_path / "data", FEW), workers=1)
    begun, go_on = Event(), Event()

    def az(call: Call) -> Sequence[str]:
        if "upload-batch" not in call.arguments:
            return ["printf", "2.91.0\n"]
        begun.set()
        assert go_on.wait(60)
        return ["printf", "7\n"]

    windows.instead["az"] = az
    with windows.wine.start(script.path, cwd=tmp_path, environment=script.environment) as first:
        assert begun.wait(60)
        assert "is running already" in script.run(exit_code=1).err
        go_on.set()
        first.communicate(timeout=300)
    assert first.returncode == 0
    assert len(script.results) == len(FEW)


@pytest.mark.thorough
def test_what_is_refused_keeps_nothing_else(windows: Windows, tmp_path: Path, container: Container) -> None:
    files = put(tmp_path / "data", FEW)
    refused = {f"{PREFIX}/{file.key}" for file in files[:5]}

    def az(call: Call) -> Sequence[str]:
        if call.arguments[0] == "version":
            return ["printf", "2.91.0\n"]
        if "@name.txt" not in call.arguments:
            return ["false"]
        return ["false"] if (call.folder / "name.txt").read_text(encoding="utf-8").strip() in refused else ["true"]

    windows.instead["az"] = az
    script = script_for(windows, tmp_path, container, files, workers=1)

    assert "nothing got through" in script.run(exit_code=3).err
    assert script.results == []
    assert "nothing got through" not in script.run(exit_code=3).err
    assert script.results == [file.key for file in files[5:]]
    assert len(script.beside(".failed").read_text().splitlines()) == 5


@pytest.mark.thorough
def test_a_key_that_is_a_directory_of_another(windows: Windows, tmp_path: Path, container: Container) -> None:
    tree = {"1": b"a", "2": b"a/b", "3": b"c/d", "4": b"c"}
    files = [replace(file, key=tree[file.path].decode()) for file in put(tmp_path / "data", tree)]

    script_for(windows, tmp_path, container, files, workers=1).run()

    assert container.objects() == {f"{PREFIX}/{content.decode()}": content for content in tree.values()}


@pytest.mark.thorough  # as in bash
def test_a_lock_of_somebody_else_is_respected(windows: Windows, tmp_path: Path, container: Container) -> None:
    container.put(LOCK, b'{"id": "x", "owner": "mallory"}')
    script = script_for(windows, tmp_path, container, put(tmp_path / "data", FEW), standalone=True)

    ran = script.run(exit_code=10)

    assert '"owner": "mallory"' in ran.err
    assert container.objects() == {LOCK: b'{"id": "x", "owner": "mallory"}'}
    assert not script.beside(".lock").exists()


def test_a_list_that_is_not_complete_uploads_nothing(windows: Windows, tmp_path: Path, container: Container) -> None:
    script = script_for(windows, tmp_path, container, put(tmp_path / "data", FEW))
    listed = script.beside(".files").read_bytes().splitlines(keepends=True)
    for lines in (listed[:-1], listed[:4], listed[:4] + listed[5:], [*listed[:-1], listed[-1][:6]]):
        script.beside(".files").write_bytes(b"".join(lines))
        assert "the list is not complete" in script.run(exit_code=2).err
    script.beside(".files").unlink()
    assert "the list of the files has to lie beside" in script.run(exit_code=2).err
    assert windows.calls == []


@pytest.mark.thorough
def test_what_is_missing_is_said_before_anything_is_done(
    windows: Windows, tmp_path: Path, container: Container
) -> None:
    script = script_for(windows, tmp_path, container, put(tmp_path / "data", FEW), tool=Tool.AZCOPY, standalone=True)
    assert "powershell could not ask for it" in script.run(exit_code=2, AZURE_STORAGE_SAS_TOKEN="").err
    for token in ("nonsense", "sig=!x!", 'sig=a" & echo b', "?"):
        assert "is not a SAS token" in script.run(exit_code=2, AZURE_STORAGE_SAS_TOKEN=token).err
    assert "JOURNAL_SAS_TOKEN is not a SAS token" in script.run(exit_code=2, CHORUS_JOURNAL_SAS_TOKEN="?sv=1").err
    patterns = tmp_path / "[a]"
    patterns.mkdir()
    assert "azcopy cannot use this" in script.run(exit_code=2, CHORUS_STAGING=windows_path(patterns)).err
    assert "CHORUS_WORKERS" in script.run(exit_code=2, CHORUS_WORKERS="65").err.replace("c_workers", "CHORUS_WORKERS")
    windows.instead["az"] = lambda _: ["printf", "2.39.1\t2.39.1\n"]
    assert "az (Azure CLI) 2.40 or newer is needed; this is 2.39" in script.run(exit_code=2).err
    windows.instead["az"] = lambda _: ["false"]
    assert "az (Azure CLI) is not installed" in script.run(exit_code=2).err
    windows.instead["az"] = lambda _: ["printf", "2.40.0\t2.40.0\n"]
    windows.instead["azcopy"] = lambda _: ["printf", "azcopy version 10.9.0\n"]
    assert "azcopy 10.13 or newer is needed; this is 10.9" in script.run(exit_code=2).err
    script.beside(".results").write_text("# chorus-upload results 1 az://other/site\n")
    windows.instead["azcopy"] = lambda _: ["printf", "azcopy version 10.13.0\n"]
    assert "not of this destination" in script.run(exit_code=1).err


ENDS = "se=2099-01-01T00%3A00%3A00Z"


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("se=2020-01-02T03%3A04%3A05Z&sp=racwdl", "has expired, since 2020-01-02 03:04 UTC; ask for a new one"),
        pytest.param("sp=racwdl&se=2020-01-02", "has expired, since 2020-01-02 00:00 UTC", marks=pytest.mark.thorough),
        pytest.param("se=2020-01-02T00%3A00%3A00%2B01%3A00", "has expired, since 2020", marks=pytest.mark.thorough),
        (f"{ENDS}&sp=rl", "does not permit to create or write (c, w); it has sp=rl. Ask for one that does"),
    ],
)
def test_a_token_that_cannot_do_it_is_read_before_anything_is_sent(
    windows: Windows, tmp_path: Path, container: Container, token: str, said: str
) -> None:
    script = script_for(windows, tmp_path, container, put(tmp_path / "data", FEW))
    ran = script.run(exit_code=2, AZURE_STORAGE_SAS_TOKEN=f"?sv=1&{token}&sig=a%2Bb%3D")
    assert f"error: AZURE_STORAGE_SAS_TOKEN: the SAS token {said}" in ran.err
    assert {call.arguments[0] for call in windows.calls} <= {"version", "--version"}


@pytest.mark.thorough  # as in bash
def test_what_else_a_token_is_needed_for(windows: Windows, tmp_path: Path, container: Container) -> None:
    script = script_for(windows, tmp_path, container, put(tmp_path / "data", FEW), tool=Tool.AZCOPY, standalone=True)
    windows.instead["azcopy"] = lambda _: ["printf", "azcopy version 10.32.2\n"]
    tokens = {"AZURE_STORAGE_SAS_TOKEN": f"{ENDS}&sp=cw&sig=S"}
    assert "does not permit to read (r); it has sp=cw" in script.run(exit_code=2, **tokens).err
    tokens = {"AZURE_STORAGE_SAS_TOKEN": f"{ENDS}&sp=rc&sig=S"}
    assert "does not permit to write (w)" in script.run(exit_code=2, **tokens).err
    tokens["CHORUS_JOURNAL_SAS_TOKEN"] = f"{ENDS}&sp=rcw&sig=S"
    ran = script.run(exit_code=2, **tokens)
    assert "CHORUS_JOURNAL_SAS_TOKEN: the SAS token does not permit to delete (d); it has sp=rcw" in ran.err


# As az does when the service answers 403.
SAID_403 = "printf 'ERROR: \\nThe request may be blocked by network rules\\n   \\n\\n' >&2; exit 1"


@pytest.mark.thorough
def test_nothing_gets_through(windows: Windows, tmp_path: Path, container: Container) -> None:
    sent: list[str] = []
    batches: list[Call] = []

    def az(call: Call) -> list[str]:
        if call.arguments[0] == "version":
            return ["printf", "2.91.0\n"]
        if "upload-batch" in call.arguments:
            batches.append(call)
        if "@name.txt" in call.arguments and "upload" in call.arguments:
            sent.append((call.folder / "name.txt").read_text(encoding="utf-8").strip())
        return (
            ["sh", "-c", SAID_403]
            if "@lockname.txt" not in call.arguments
            else ["printf", '"0x1"\t2026-11-21T17:10:05+00:00\n']
        )

    windows.instead["az"] = az
    script = script_for(windows, tmp_path, container, put(tmp_path / "data", FEW), workers=1)

    ran = script.run(exit_code=3)

    # It is not asked again: the service has refused them, and not this file or that.
    assert "nothing got through any more" in ran.err
    assert len(set(sent)) == len(sent) == 3
    assert len(batches) == 1
    failed = script.beside(".failed").read_text().splitlines()
    assert [line.partition(": ")[2] for line in failed] == [
        "az failed: The request may be blocked by network rules"
    ] * 3


@pytest.mark.parametrize("tool", [Tool.AZ, pytest.param(Tool.AZCOPY, marks=pytest.mark.thorough)])
def test_a_login_needs_no_token(windows: Windows, tmp_path: Path, container: Container, tool: Tool) -> None:
    versions = {"az": "2.91.0\n", "azcopy": "azcopy version 10.32.2\n"}

    def answer(call: Call) -> Sequence[str]:
        if "copy" in call.arguments:
            return ["printf", "Number of File Transfers Completed: 3\nNumber of File Transfers Skipped: 4\n"]
        return ["printf", "7\n" if "upload-batch" in call.arguments else versions[call.name]]

    windows.instead.update(dict.fromkeys(versions, answer))
    place = Place(endpoint="https://front.example.org", container="central", prefix="a")
    files = put(tmp_path / "data", FEW)
    script = script_for(
        windows, tmp_path, container, files, tool=tool, login=True, destination=place, ca_bundle="C:\\ca 100%.pem"
    )

    script.run(CHORUS_JOURNAL_SAS_TOKEN=container.token)

    (call,) = (call for call in windows.calls if {"copy", "upload-batch"} & {*call.arguments})
    if tool is Tool.AZ:
        assert call.arguments[3:7] == ("--blob-endpoint", "https://front.example.org", "--auth-mode", "login")
    else:
        assert "https://front.example.org/central/a" in call.arguments
        # By itself it shows a login to Microsoft's hosts only, and fails after minutes without a word.
        assert "--trusted-microsoft-suffixes=front.example.org" in call.arguments
        assert call.environment["AZCOPY_AUTO_LOGIN_TYPE"] == "AZCLI"
    assert not any("SAS_TOKEN" in name for name in call.environment)
    assert "sig=" not in call.command_line
    assert call.environment["REQUESTS_CA_BUNDLE"] == call.environment["SSL_CERT_FILE"] == "C:\\ca 100%.pem"


@pytest.mark.parametrize(
    "path",
    [
        *(f"a/x{character}y" for character in '|"<>:?*\\\n\t\x01'),
        "a/ends in a blank ",
        "a/dot.",
        "a/b ./c",
        "CON/x",
        "a/nul",
        "a/Lpt1.txt",
        "a/com¹",
        "a//b",
        "../a",
        "a/./b",
        f"a/{'x' * 256}",
        "a/\udcff",
        "/".join(["x" * 200] * 40),
    ],
)
def test_what_windows_cannot_have_is_refused(path: str) -> None:
    good = ScriptFile(id=1, root=0, path="a", key="a", size=1)
    assert WRITER.refuses(good) is None
    assert WRITER.refuses(replace(good, path=path))
    assert WRITER.refuses(replace(good, key=path))


def test_batches_have_no_two_names_that_are_one_for_windows() -> None:
    keys = ["a/x", "a/y", "A/z", "A/w", "a/Straße", "a/STRASSE", "LONGNA~1/x", "longname directory/y", "b"]
    files = [ScriptFile(id=number, root=0, path="p", key=key, size=1) for number, key in enumerate(keys)]
    files += [replace(files[0], replaces="0x1", key="c"), replace(files[0], size=1 << 40, key="d")]
    listed = written(files)
    batches = "".join(line[1] for line in listed if line[:2] in ("@B", "@F"))
    assert batches == "BFFBFFBFBFBFBFFBFBF"
    assert written([replace(files[0], key=f"{number}") for number in range(BATCH_FILES + 1)])[BATCH_FILES + 2] == (
        "@B|1|-"
    )


def written(files: list[ScriptFile]) -> list[str]:
    place = Place(endpoint="https://a.blob.core.windows.net", container="c")
    listed = StringIO()
    work = Work(
        tool=Tool.AZ,
        destination=place,
        destination_name="az://c",
        login=False,
        standalone=False,
        journal=None,
        journal_key="j",
        chorus=("chorus-upload",),
        config="c",
        roots=(),
        files=len(files),
        bytes=0,
        written=datetime.now(UTC),
        tool_version="1",
        workers=1,
    )
    script = StringIO()
    WRITER.write(work, files, script, lambda _: listed)
    assert all(line.endswith("\r\n") for line in script.getvalue().splitlines(keepends=True))
    with pytest.raises(ConfigError):
        WRITER.write(replace(work, destination=replace(place, endpoint="https://a&calc")), [], StringIO(), StringIO)
    with pytest.raises(ValueError, match="were given"):
        WRITER.write(replace(work, files=99), files, StringIO(), lambda _: StringIO())
    return listed.getvalue().splitlines()


values = st.text(
    st.one_of(st.sampled_from("%^&!()=,;'` @~<>|*?\\/$#+-PATHéü患😀"), st.characters(exclude_categories=("Cs", "Cc"))),
    min_size=1,
    max_size=60,
).filter(lambda text: '"' not in text)


@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(values, min_size=30, max_size=60, unique=True))
def test_every_value_comes_back(windows: Windows, tmp_path: Path, texts: list[str]) -> None:
    lines = ["@echo off", "setlocal EnableExtensions DisableDelayedExpansion"]
    lines += [set_line(f"v_{number}", text) for number, text in enumerate(texts)]
    lines += ["az env"]
    (tmp_path / "values.bat").write_bytes("\r\n".join(lines).encode() + b"\r\n")
    windows.calls.clear()
    windows.instead["az"] = lambda _: ["true"]

    windows.wine.run(tmp_path / "values.bat", cwd=tmp_path)

    got = windows.calls[-1].environment
    assert [got.get(f"v_{number}") for number in range(len(texts))] == texts


@pytest.mark.parametrize("value", ['a"b', "a\nb", "a\0b", "\udcff", "x" * 2000])
def test_what_no_line_can_say_is_refused(value: str) -> None:
    with pytest.raises(ConfigError):
        set_line("name", value)


# What blinter finds here without a fault behind it. The rest of its rules have to be silent.
NO_FAULTS = {
    "E006": "variables that the environment may set, or that another process of the script has set",
    "E011": "%% is one %",
    "E023": "no quotes are needed in `set /a`, and its expressions hold no names",
    "E029": "the same",
    "E030": "^| in front of the words of a line is what writes a |",
    "SEC002": "holds names of variables only",
    "SEC003": "removes the directory of links that it has made",
    "SEC008": "the token comes from the environment or is asked for",
    "SEC010": "speaks of a token, and shows none",
    "SEC013": "expanded with !, which is not read again",
    "SEC014": "numbers that were proven to be numbers",
    "SEC020": "needs no rights beyond the user's",
    "W002": "what cannot be deleted is seen where it matters",
    "W004": "loops that end when a file is free, or after three attempts",
    "W011": "the code page is set in the beginning",
    "W020": "the files of these have a form of their own",
    "W023": "one loop over files, in one over at most 64 workers",
    "W025": "the same as W002",
    "W028": "called with either name it says its own exit code",
    "W033": "az and chorus-upload are looked for on PATH on purpose",
    "W035": "blanks and tabs are what stands between them",
    "W036": "these have no header",
    "W037": "no line of these can begin with the character",
    "W039": "the same as W023",
    "W040": "the same as W023",
    "W047": "not empty: looked at the line before",
    "W061": "ends with its process",
    "W065": "is compared as it is on purpose",
    "W066": "is not there to be the last",
}


def test_the_program_is_as_a_linter_wants_it(windows: Windows, tmp_path: Path, container: Container) -> None:
    place = Place(endpoint=container.url, container=container.name)
    script = script_for(windows, tmp_path, container, put(tmp_path / "data", FEW), destination=place)
    plain = tmp_path / "upload.bat"
    plain.write_bytes(script.path.read_bytes())

    done = subprocess.run(
        [sys.executable, "-m", "blinter", str(plain), "--no-config", "--quiet", "--format", "json"],
        check=False,
        capture_output=True,
        text=True,
    )

    found = json.loads(done.stdout)["issues"]
    graver = [each for each in found if each["severity"] not in ("Style", "Performance")]
    assert [(each["code"], each["line"], each["context"]) for each in graver if each["code"] not in NO_FAULTS] == []
