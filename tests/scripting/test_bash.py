"""Scripts for bash, run by bash with Microsoft's own az and azcopy against the emulator."""

from __future__ import annotations

import dataclasses
import os
import pty
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chorus_upload.scripting.bash import WRITER
from chorus_upload.scripting.work import BATCH_FILES, Place, Root, ScriptFile, Tool, Work
from tests.e2e.clouds import JOURNAL, LOCK, Container, ask, files_of, manifest_of
from tests.e2e.conftest import settle
from tests.e2e.site import Site, wait_until
from tests.emulators import Azurite, real
from tests.scripting.sites import Script, script_at, site_with, write
from tests.trees import Bytes, Content, Link, build, bytes_of
from tests.wire import Answer, Wire

every_tool = pytest.mark.parametrize("tool", ["azcli", "azcopy"])
az_first = pytest.mark.parametrize("tool", ["azcli", pytest.param("azcopy", marks=pytest.mark.thorough)])

HOSTILE = [
    "plain.dcm",
    "with space.dcm",
    " leading and trailing ",
    'quo\'te "and" double',
    "%PATH% 50% %20",
    "bang! car^et amp&",
    "$(touch stolen) `touch stolen` ${HOME}",
    "semi;colon|pipe>out<in",
    "-dash --option",
    "star* que?stion [a-z] {b,c}",
    "Größe 患者 😀.dcm",
    "~ # @file =x +1 ,",
    "a" * 255,
    ".dot",
    "\u2028 \u202e \ufeff",
]
TREE: dict[str, Bytes] = {f"1001/Images/{name}": Bytes(50 + number) for number, name in enumerate(HOSTILE)}
MANY: dict[str, Bytes] = {f"1001/Images/{number:04}.dcm": Bytes(20) for number in range(BATCH_FILES + 20)}
LARGER = {path: Bytes(3_000 + number) for number, path in enumerate(TREE)}
FEW: dict[str, Bytes] = {f"1001/Images/{number}.dcm": Bytes(100 + number) for number in range(4)}

CORRECTED: dict[str, Bytes] = {"1001/Images/1.dcm": Bytes(77, edition=2)}


def arrived(tree: dict[str, Bytes], *, version: str = "spring") -> dict[str, bytes]:
    return {f"{version}/{path}": bytes_of(path, body) for path, body in tree.items()}


def delivered(site: Site) -> set[str]:
    """The keys that the journal in the cloud calls delivered."""
    return {each["key"] for each in site.uploaded().values()}


@pytest.mark.parametrize("tool", ["azcli", pytest.param("azcopy", marks=pytest.mark.thorough)])
def test_hostile_names_arrive_as_they_are(tmp_path: Path, container: Container, tool: str) -> None:
    site = site_with(tmp_path, TREE, container)
    script = write(site, tool)

    ran = script.run()

    assert f"all {len(TREE)} files have arrived" in ran.err
    objects = container.objects()
    assert files_of(objects) == arrived(TREE)
    assert LOCK not in objects
    assert not list(tmp_path.rglob("stolen"))
    assert delivered(site) == arrived(TREE).keys()
    assert {each["evidence"] for each in site.uploaded().values()} == {"readback"}
    assert manifest_of(objects, "spring").keys() == arrived(TREE).keys()
    assert site.pending() == set()
    site.run("file", "verify")
    # Again: there is nothing to do, and that is no error.
    assert f"{len(TREE)} of them have arrived already" in script.run().err


@az_first
def test_an_administrator_reads_it_first(tmp_path: Path, container: Container, tool: str) -> None:
    site = site_with(tmp_path, TREE, container)
    script = write(site, tool)

    text = script.path.read_text()
    assert stat.S_IMODE(script.path.stat().st_mode) == 0o700
    assert (
        subprocess.run(
            [Path(sys.executable).with_name("shellcheck"), script.path], check=False, capture_output=True
        ).stdout
        == b""
    )
    assert not [secret for secret in container.secrets if secret in text]
    assert not re.search(r"--no-check|--insecure|verify", text)
    # Nobody's name is code: every line of the list is taken for exactly these words.
    lines = text[text.index("# --- The list") :].split("\n")[2:-3]
    words = [shlex.split(line) for line in lines]
    assert sorted((each[5], each[6]) for each in words) == sorted((path, f"spring/{path}") for path in TREE)
    assert f"Images={site.source}" in script.run("--help").out
    # The program that it looks for is the one that wrote it.
    environment = {name: value for name, value in script.environment.items() if name != "CHORUS_UPLOAD"}
    assert "all that is needed is here" in script.run("--check", environment=environment).err
    assert container.objects().keys() == {JOURNAL}


@pytest.mark.parametrize(
    ("tool", "number"),
    [
        pytest.param("azcli", signal.SIGTERM, marks=pytest.mark.thorough),
        pytest.param("azcopy", signal.SIGKILL, marks=pytest.mark.thorough),
        pytest.param("azcli", signal.SIGKILL, marks=pytest.mark.thorough),
    ],
)
def test_killed_half_way_and_run_again(
    tmp_path: Path, container: Container, wire: Wire, tool: str, number: signal.Signals
) -> None:
    site = site_with(tmp_path, MANY, dataclasses.replace(container, port=wire.port))
    script = write(site, tool)

    with script.running("--workers", "1") as running:
        wait_until(lambda: script.results, seconds=60)
        running.send_signal(number)
        running.wait(30)
        noted = set(script.results)
    assert 0 < len(noted) < len(MANY)
    assert running.returncode == (143 if number is signal.SIGTERM else -signal.SIGKILL)
    # Whoever is killed can give nothing back; whoever is asked to stop does.
    assert (LOCK in container.objects()) == (number is signal.SIGKILL)
    # Whoever was left behind by a kill ends by itself, and notes what it has done.
    wait_until(lambda: not at_work(script), seconds=60)
    noted = set(script.results)
    assert noted <= files_of(container.objects()).keys()
    wire.requests.clear()

    script.run()

    again = {target for target in wire_keys(wire, container) if target in noted}
    assert again == set()
    assert files_of(container.objects()) == arrived(MANY)
    assert delivered(site) == arrived(MANY).keys()
    assert LOCK not in container.objects()


def at_work(script: Script) -> bool:
    """Whether a process of a script still runs."""
    found = subprocess.run(["pgrep", "-f", str(script.path)], check=False, capture_output=True).stdout
    return bool(found)


def wire_keys(wire: Wire, container: Container) -> list[str]:
    """The keys of the files that were put over the wire."""
    start = f"/{container.name}/data/"
    return [
        each.target.partition(start)[2].partition("?")[0]
        for each in wire.requests
        if each.method == "PUT" and start in each.target
    ]


@pytest.mark.thorough
@pytest.mark.parametrize("tool", ["azcli", "azcopy"])
def test_what_cannot_be_sent_is_listed_and_the_rest_is_there(tmp_path: Path, container: Container, tool: str) -> None:
    site = site_with(tmp_path, FEW, container)
    script = write(site, tool)
    (site.source / "1001/Images/1.dcm").unlink()
    (site.source / "1001/Images/2.dcm").write_text("another size")

    ran = script.run(exit_code=3)

    failed = script.beside(".failed").read_text()
    assert "spring/1001/Images/1.dcm: there is no such file any more" in failed
    assert "spring/1001/Images/2.dcm: it has changed" in failed
    assert failed.strip() in ran.err
    expected = {f"spring/1001/Images/{number}.dcm" for number in (0, 3)}
    assert files_of(container.objects()).keys() == expected == delivered(site)
    assert LOCK not in container.objects()


def test_what_was_swapped_for_a_link_is_not_sent(tmp_path: Path, container: Container) -> None:
    """Between the listing and the sending. A link to a file of the source was there, and still is."""
    tree: dict[str, Content] = {
        "1001/Images/a.dcm": "a",
        "1001/Images/link.dcm": Link("a.dcm"),
        "1002/Images/b.dcm": "b",
    }
    site = site_with(tmp_path, tree | {"1003/Images/c.dcm": "c", "1003/Images/d.dcm": "d"}, container)
    script = write(site, "azcopy")
    build(tmp_path / "elsewhere", {"Images/b.dcm": "B", "c.dcm": "C"})
    shutil.move(site.source / "1002", tmp_path / "1002")
    (site.source / "1002").symlink_to(tmp_path / "elsewhere")
    (site.source / "1003/Images/c.dcm").unlink()
    (site.source / "1003/Images/c.dcm").symlink_to(tmp_path / "elsewhere/c.dcm")

    ran = script.run(exit_code=3)

    assert ran.err.count("there is a link in its way that leads elsewhere") == 2
    arrived = {"1001/Images/a.dcm": b"a", "1001/Images/link.dcm": b"a", "1003/Images/d.dcm": b"d"}
    assert files_of(container.objects()) == {f"spring/{key}": body for key, body in arrived.items()}


@pytest.mark.thorough
def test_what_leads_elsewhere_is_sent_where_links_are_followed(tmp_path: Path, container: Container) -> None:
    site = settle(tmp_path / "home", tmp_path / "source", container, configuration="follow_links = true")
    build(site.source, {"1002": Link("../elsewhere")})
    build(tmp_path / "elsewhere", {"Images/b.dcm": "b"})
    site.run("journal", "update", "--version", "spring")

    write(site, "azcopy").run()

    assert files_of(container.objects()) == {"spring/1002/Images/b.dcm": b"b"}


@pytest.mark.thorough
def test_a_file_that_the_service_refuses_keeps_no_other(tmp_path: Path, container: Container, wire: Wire) -> None:
    site = site_with(tmp_path, FEW, dataclasses.replace(container, port=wire.port))
    script = write(site, "azcli")
    refusal = Answer(403, (("x-ms-error-code", "AuthorizationFailure"),))
    wire.script(refusal, method="PUT", containing="/1001/Images/1.dcm", times=50)

    script.run("--retry-wait", "0", exit_code=3)
    wire.forget()

    assert "spring/1001/Images/1.dcm: az failed" in script.beside(".failed").read_text()
    expected = {f"spring/1001/Images/{number}.dcm" for number in (0, 2, 3)}
    assert delivered(site) == expected
    script.run()
    assert delivered(site) == arrived(FEW).keys()


def test_a_key_that_holds_other_content_is_not_counted(tmp_path: Path, container: Container) -> None:
    site = site_with(tmp_path, FEW, container)
    container.put("data/spring/1001/Images/1.dcm", b"somebody else's")

    ran = write(site, "azcli").run(exit_code=3)

    assert "holds other content" in ran.out + ran.err
    assert container.objects()["data/spring/1001/Images/1.dcm"] == b"somebody else's"
    assert delivered(site) == arrived(FEW).keys() - {"spring/1001/Images/1.dcm"}


@pytest.fixture
def amended(tmp_path: Path, container: Container) -> Site:
    """A site that has corrected a file after it was uploaded, in the same version."""
    site = site_with(tmp_path, FEW, container)
    site.run("file", "upload")
    build(site.source, CORRECTED)
    site.run("journal", "update", "--amend")
    return site


@pytest.mark.thorough
def test_an_amended_version_replaces_what_was_sent_of_it(amended: Site, container: Container) -> None:
    write(amended, "azcli").run()

    assert files_of(container.objects()) == arrived(FEW | CORRECTED)
    amended.run("file", "verify", "--deep")


@pytest.mark.thorough
def test_what_was_written_since_is_not_replaced(amended: Site, container: Container) -> None:
    script = write(amended, "azcli")
    container.put("data/spring/1001/Images/1.dcm", b"by somebody else")

    script.run("--retry-wait", "0", exit_code=3)

    assert container.objects()["data/spring/1001/Images/1.dcm"] == b"by somebody else"


def test_azcopy_cannot_replace_on_a_condition(amended: Site) -> None:
    ran = amended.run("file", "list", "--output-type", "azcopy", "--output-file", "a.sh", exit_code=3)
    assert "azcopy cannot make sure" in ran.err


@pytest.mark.thorough
def test_several_scripts(tmp_path: Path, container: Container) -> None:
    site = site_with(tmp_path, FEW, container)
    said = site.run(
        "file", "list", "--output-type", "azcopy", "--output-file", "part.sh", "--max-num-files", "3"
    ).out.splitlines()
    assert said == ["part-1.sh: 3 files, 303 B", "part-2.sh: 1 file, 103 B"]

    script_at(site, site.home / "part-2.sh").run()
    assert len(delivered(site)) == 1
    script_at(site, site.home / "part-1.sh").run()
    assert delivered(site) == arrived(FEW).keys()


class TestAlone:
    """On a machine on which there is only az."""

    @pytest.fixture
    def script(self, tmp_path: Path, container: Container) -> Script:
        """The script and the data, carried to another machine."""
        site = site_with(tmp_path, FEW, container)
        written = write(site, "azcli", "--standalone")
        away = build(tmp_path / "away", {})
        site.source.rename(away / "data")
        script = dataclasses.replace(written, path=written.path.rename(away / "upload.sh"))
        found = [
            each
            for each in script.environment["PATH"].split(os.pathsep)
            if shutil.which("chorus-upload", path=each) is None
        ]
        return dataclasses.replace(script, environment={**script.environment, "PATH": os.pathsep.join(found)})

    @pytest.fixture
    def root(self, script: Script) -> str:
        return f"Images={script.path.parent / 'data'}"

    def test_it_uploads_and_the_results_are_brought_back(self, script: Script, root: str, container: Container) -> None:
        assert "--root Images=" in script.run(exit_code=2).err
        script.run("--root", root)

        objects = container.objects()
        assert files_of(objects) == arrived(FEW)
        assert LOCK not in objects
        assert not script.beside(".lock").exists()
        site = script.site
        (script.path.parent / "data").rename(site.source)
        assert delivered(site) == set()
        site.run("file", "mark_as_uploaded", "--results", str(script.beside(".results")))
        assert delivered(site) == arrived(FEW).keys()
        # Twice does no harm.
        site.run("file", "mark_as_uploaded", "--results", str(script.beside(".results")))

    @pytest.mark.thorough
    def test_somebody_else_has_the_journal(self, script: Script, root: str, container: Container) -> None:
        script.site.run("journal", "checkout")
        before = container.objects()

        ran = script.run("--root", root, exit_code=10)

        assert '"owner"' in ran.err
        assert container.objects() == before

    @pytest.mark.thorough
    def test_others_are_kept_out_while_it_runs_and_after_a_kill(
        self, script: Script, root: str, container: Container
    ) -> None:
        with script.running("--root", root) as running:
            wait_until(lambda: LOCK in container.objects())
            running.kill()
        refused = script.site.run("journal", "update", exit_code=10)
        assert "taken by `journal checkout`" in refused.err
        wait_until(lambda: not at_work(script), seconds=60)

        script.run("--root", root)
        assert files_of(container.objects()) == arrived(FEW)
        assert LOCK not in container.objects()

    @pytest.mark.thorough
    def test_a_lock_that_was_broken_meanwhile(self, script: Script, root: str, container: Container) -> None:
        with script.running("--root", root) as running:
            wait_until(lambda: LOCK in container.objects())
            running.kill()
        wait_until(lambda: not at_work(script), seconds=60)
        script.site.run("journal", "unlock", "--yes")
        script.site.run("journal", "checkout")
        script.run("--root", root, exit_code=10)


class TestBeforeAnythingIsSent:
    @pytest.fixture
    def script(self, tmp_path: Path, container: Container) -> Iterator[Script]:
        script = write(site_with(tmp_path, FEW, container), "azcli")
        yield script
        assert container.objects().keys() == {JOURNAL}

    def test_a_copy_that_was_cut_off(self, script: Script) -> None:
        lines = script.path.read_text().splitlines(keepends=True)
        script.path.write_text("".join(lines[:-3]))
        script.run(exit_code=0)
        script.path.write_text("".join([*lines[:-3], lines[-1]]))
        assert "this script is not complete: 3 of 4 files" in script.run(exit_code=1).err

    def test_no_token(self, script: Script) -> None:
        environment = {name: value for name, value in script.environment.items() if "SAS" not in name}
        assert "AZURE_STORAGE_SAS_TOKEN is not set" in script.run(exit_code=2, environment=environment).err
        environment["AZURE_STORAGE_SAS_TOKEN"] = "se=2026"
        assert "is not a SAS token" in script.run(exit_code=2, environment=environment).err

    def test_no_az(self, script: Script, tmp_path: Path) -> None:
        environment = {**script.environment, "PATH": "/usr/bin:/bin"}
        assert "az (Azure CLI) is not installed" in script.run(exit_code=2, environment=environment).err

    @pytest.mark.thorough
    def test_an_old_az(self, script: Script, tmp_path: Path) -> None:
        build(tmp_path / "old", {"az": "#!/bin/sh\necho 2.9.1\n"})
        (tmp_path / "old" / "az").chmod(0o700)
        environment = {**script.environment, "PATH": f"{tmp_path / 'old'}:{script.environment['PATH']}"}
        assert "az 2.40 or newer is needed; this is 2.9.1" in script.run(exit_code=2, environment=environment).err

    def test_an_option_that_it_does_not_have(self, script: Script) -> None:
        assert "--help" in script.run("--faster", exit_code=2).err
        assert "needs a number" in script.run("--workers", "many", exit_code=2).err
        assert "no files of 'OMPO'" in script.run("--root", "OMPO=/", exit_code=2).err

    def test_results_of_another_script(self, script: Script) -> None:
        script.beside(".results").write_text("# chorus-upload results 1 az://another/place\n1 a\n")
        assert "is not of this destination" in script.run(exit_code=1).err

    def test_the_journal_is_locked(self, script: Script, tmp_path: Path) -> None:
        site = script.site
        other = dataclasses.replace(site, home=tmp_path / "other")
        other.configure(site.config.read_text().replace(str(site.journal), str(other.journal)))
        other.run("journal", "checkout")
        assert "is locked" in script.run(exit_code=10).err
        other.run("journal", "checkin")


@pytest.mark.thorough
def test_the_token_is_asked_for_and_not_shown(tmp_path: Path, container: Container) -> None:
    script = write(site_with(tmp_path, FEW, container), "azcli")
    environment = {name: value for name, value in script.environment.items() if "SAS" not in name}
    outer, inner = pty.openpty()
    with subprocess.Popen(
        ["bash", str(script.path)], cwd=script.path.parent, env=environment, stdin=inner, stdout=inner, stderr=inner
    ) as process:
        os.close(inner)
        shown = b""
        while b"SAS token for" not in shown:
            shown += os.read(outer, 4096)
        os.write(outer, f"?{container.token}\n".encode())
        while process.poll() is None:
            try:
                shown += os.read(outer, 4096)
            except OSError:
                break
        process.wait(60)
    os.close(outer)
    assert process.returncode == 0, shown
    assert container.token.encode() not in shown
    assert delivered(script.site) == arrived(FEW).keys()


def test_az_is_given_the_token_where_nobody_sees_it(tmp_path: Path, container: Container) -> None:
    """Not on a command line, and in no file that is left."""
    script = write(site_with(tmp_path, FEW, container), "azcli")
    seen = set[str]()
    with script.running() as running:
        while running.poll() is None:
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.add(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
                except OSError:
                    continue
            time.sleep(0.02)
    assert running.returncode == 0
    assert any("upload-batch" in line for line in seen)
    signature = container.token.partition("sig=")[2]
    assert not [line for line in seen if signature in line]
    written = [path for path in script.site.home.rglob("*") if path.is_file() and path != script.site.config]
    assert not [path for path in written if signature.encode() in path.read_bytes()]


WORK = Work(
    tool=Tool.AZ,
    destination=Place(endpoint="https://a.blob.core.windows.net", container="c", prefix="p"),
    destination_name="az://c/p@a",
    login=False,
    standalone=False,
    journal=None,
    journal_key="",
    chorus=("chorus-upload",),
    config="/home/config.toml",
    roots=(Root(modality="Images", path="/data"),),
    files=0,
    bytes=0,
    written=datetime(2026, 3, 1, tzinfo=UTC),
    tool_version="1",
    workers=4,
)
names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


@given(st.lists(st.tuples(names, names), min_size=1, max_size=40))
def test_bash_reads_every_name_as_it_is(pairs: list[tuple[str, str]]) -> None:
    """Whatever could ever stand in a name, line breaks included."""
    files = [
        ScriptFile(id=number, root=0, path=path, key=key, size=number)
        for number, (path, key) in enumerate(pairs, 1)
        if WRITER.refuses(ScriptFile(id=1, root=0, path=path, key=key, size=1)) is None
    ]
    out = StringIO()
    WRITER.write(WORK, files, out, lambda _: StringIO())
    listed = out.getvalue().partition("# --- The list")[2].partition("\n")[2].removesuffix("\nfinish\n")
    program = "file() { printf '%s\\0' \"$@\"; }\n" + listed
    done = subprocess.run(["bash", "-s"], input=program.encode(), capture_output=True, check=True)
    expected = [[str(file.id), "0", str(file.size), "keep", file.path, file.key] for file in files]
    assert done.stdout.decode().split("\0")[:-1] == [word for each in expected for word in each]
    assert done.stderr == b""


def test_a_script_for_very_many_files_is_written_as_they_come() -> None:
    """Nothing is kept of a file that was written down."""
    alive = 0

    class Counted(str):
        __slots__ = ()

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def files() -> Iterator[ScriptFile]:
        nonlocal alive
        for number in range(1, 20_001):
            alive += 1
            assert alive < 10
            yield ScriptFile(id=number, root=0, path=Counted(f"{number}.dcm"), key=f"v/{number}.dcm", size=1)

    class Nowhere(StringIO):
        def write(self, text: str) -> int:
            return len(text)

    WRITER.write(dataclasses.replace(WORK, files=20_000), files(), Nowhere(), lambda _: StringIO())
    assert alive < 10


class TestWhatCannotBeAScript:
    def test_another_central_store(self, tmp_path: Path, site: Site) -> None:
        build(site.source, FEW)
        site.run("journal", "update")
        ran = site.run("file", "list", "--output-type", "azcli", "--output-file", "a.sh", exit_code=2)
        assert "Azure only" in ran.err
        assert not (site.home / "a.sh").exists()

    @pytest.mark.thorough
    def test_a_name_that_azure_cannot_have(self, tmp_path: Path, container: Container) -> None:
        tree: dict[str, Content] = {**FEW, "1001/Images/new\nline.dcm": "a", "1001/Images/back\\slash.dcm": "b"}
        site = site_with(tmp_path, tree, container)
        ran = site.run("file", "list", "--output-type", "azcli", "--output-file", "a.sh", exit_code=3)
        assert "control character" in ran.err
        assert "backslash" in ran.err
        script_at(site, site.home / "a.sh").run()
        assert delivered(site) == arrived(FEW).keys()

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (("--output-type", "azcli"), "a script needs a name"),
            (("--output-type", "azcli", "--output-file", "a.sh", "--shell", "powershell"), "Invalid value"),
            (("--output-type", "azcli", "--output-file", "a.sh", "--uploaded"), "for lists"),
            (("--shell", "bash"), "for scripts"),
            (("--standalone",), "for scripts"),
            (("--output-type", "azcli", "--output-file", "nowhere/a.sh"), "cannot be written"),
            (("--output-type", "azcli", "--output-file", "upload.ps1"), "runs a .bat as well"),
        ],
    )
    def test_what_was_typed(self, tmp_path: Path, container: Container, options: tuple[str, ...], words: str) -> None:
        site = site_with(tmp_path, FEW, container)
        assert words in site.run("file", "list", *options, exit_code=None).err

    def test_without_a_suffix_it_is_for_the_shell_of_this_system(self, tmp_path: Path, container: Container) -> None:
        site = site_with(tmp_path, FEW, container)
        site.run("file", "list", "--output-type", "azcli", "--output-file", "upload")
        assert (site.home / "upload").read_text().startswith("#!/usr/bin/env bash\n")

    def test_a_journal_that_az_cannot_lock(self, tmp_path: Path, container: Container) -> None:
        site = settle(tmp_path / "home", build(tmp_path / "source", FEW), container)
        place = rf'\1"{tmp_path / "journals" / "journal.db"}"'
        text = re.sub(r'(\[journal.source\]\s+path = )"[^"]*"', place, site.config.read_text())
        (tmp_path / "journals").mkdir()
        site.configure(re.sub(r"\[journal.source.auth\][^\[]*", "", text))
        site.run("journal", "update")
        ran = site.run("file", "list", "--output-type", "azcli", "--output-file", "a.sh", "--standalone", exit_code=2)
        assert "is not in Azure" in ran.err
        assert ask(site.journal, "SELECT count(*) FROM file") == [(len(FEW),)]


class TestWithinTheCloud:
    """Files that lie in Azure already are copied by the service, without coming by this machine."""

    @pytest.fixture
    def site(self, tmp_path: Path, container: Container, azurite: Azurite) -> Site:
        origin = azurite.create_container()
        with azurite.service() as service:
            for path, body in LARGER.items():
                service.get_blob_client(origin, f"given/{path}").upload_blob(bytes_of(path, body))
        token = azurite.sas(origin, permissions="rl")
        site = settle(tmp_path / "home", tmp_path, container)
        site.configure(
            re.sub(
                r'(\[site_path.default\]\s+path = )".*"',
                rf'\1"{azurite.account_url}/{origin}/given?{token}"',
                site.config.read_text(),
            )
        )
        site.run("journal", "update", "--version", "spring")
        return dataclasses.replace(site, environment={"CHORUS_SOURCE_SAS_TOKEN": token})

    @pytest.mark.thorough
    def test_it_is_copied(self, site: Site, container: Container) -> None:
        script = write(site, "azcopy")
        script = dataclasses.replace(script, environment={**script.environment, **site.environment})
        assert site.environment["CHORUS_SOURCE_SAS_TOKEN"] not in script.path.read_text()
        # The emulator can copy blocks only, so everything has to have some.
        script.run("--option=--block-size-mb=0.0009765625", "--option=--put-blob-size-mb=0.0009765625")
        assert files_of(container.objects()) == arrived(LARGER)
        assert delivered(site) == arrived(LARGER).keys()

    def test_az_cannot(self, site: Site) -> None:
        ran = site.run("file", "list", "--output-type", "azcli", "--output-file", "a.sh", exit_code=2)
        assert "azcopy" in ran.err


def programs(directory: Path, script: Script, **bodies: str) -> Script:
    """The same script where other programs answer to these names."""
    build(directory, {name: f"#!/usr/bin/env bash\n{body}\n" for name, body in bodies.items()})
    for name in bodies:
        (directory / name).chmod(0o700)
    path = f"{directory}{os.pathsep}{script.environment['PATH']}"
    return dataclasses.replace(script, environment={**script.environment, "PATH": path})


class TestWhatToolsSay:
    """They end with 0 for more than success, and take orders from more places than one thinks."""

    @pytest.mark.thorough
    def test_a_refusal_that_az_passes_over(self, tmp_path: Path, container: Container, wire: Wire) -> None:
        site = site_with(tmp_path, {"OMOP/person.csv": Bytes(5)}, dataclasses.replace(container, port=wire.port))
        script = write(site, "azcli")
        wire.script(
            Answer(409, (("x-ms-error-code", "ContainerBeingDeleted"),)), method="PUT", containing="person", times=9
        )
        script.run("--retry-wait", "0", exit_code=3)
        wire.forget()
        assert script.results == []
        assert "ContainerBeingDeleted" in script.beside(".failed").read_text()

    @pytest.mark.thorough
    def test_an_azcopy_that_finds_nothing(self, tmp_path: Path, container: Container) -> None:
        script = write(site_with(tmp_path, FEW, container), "azcopy")
        says = "Number of File Transfers Completed: 0\nNumber of File Transfers Skipped: 0"
        silent = f"[ \"$1\" = --version ] && echo azcopy version 10.32.2 || printf '{says}'"
        programs(tmp_path / "stub", script, azcopy=silent).run("--retry-wait", "0", exit_code=3)
        assert script.results == []

    @pytest.mark.thorough
    def test_another_account_in_the_settings_of_az(self, tmp_path: Path, container: Container) -> None:
        site = site_with(tmp_path, FEW, container)
        build(site.home, {".azure/config": "[storage]\nconnection_string = UseDevelopmentStorage=true\n"})
        write(site, "azcli").run()
        assert delivered(site) == arrived(FEW).keys()

    @pytest.mark.thorough
    def test_a_log_in_keeps_tokens_off_command_lines(self, tmp_path: Path, container: Container) -> None:
        script = write(site_with(tmp_path, FEW, container), "azcopy")
        script.path.write_text(script.path.read_text().replace("login=no", "login=yes"))
        notes = tmp_path / "arguments"
        version = '[ "$1" = --version ] && echo azcopy version 10.32.2'
        noting = f'{version} || printf "%s\\n" "$@" "$AZCOPY_AUTO_LOGIN_TYPE" >{notes}'
        programs(tmp_path / "stub", script, azcopy=noting).run("--retry-wait", "0", exit_code=3)
        assert "AZCLI" in notes.read_text()
        assert "sig=" not in notes.read_text()

    @pytest.mark.thorough
    def test_many_refusals_keep_nobody_else(self, tmp_path: Path, container: Container) -> None:
        tree = {
            f"1001/Images/{'bad' if number < 8 else 'good'}-{number}.dcm": Bytes(100 - number) for number in range(20)
        }
        script = write(site_with(tmp_path, tree, container), "azcli", "--standalone")
        answers = """
case "$*" in
*version*) echo 2.91.0 ;;
*upload-batch*)
    while [ "$1" != --source ]; do shift; done
    [ -z "$(find "$2" -name 'bad*')" ] && find "$2" -type l | wc -l ;;
esac"""
        script = programs(tmp_path / "stub", script, az=answers)
        script.path.write_text(script.path.read_text().replace("batch_files=200", "batch_files=4"))
        script.run("--workers", "1", "--retry-wait", "0", exit_code=3)
        assert len(script.results) == 12


@pytest.mark.thorough
def test_keys_that_cannot_lie_side_by_side(tmp_path: Path, container: Container) -> None:
    """Patterns take any case, and to the central store `Images/scan` is both a file and a directory then."""
    tree = {"1001/Images/scan": Bytes(30), "1001/images/scan/a.dcm": Bytes(40), "1001/IMAGES/b.dcm": Bytes(50)}
    site = site_with(tmp_path, tree, container)
    write(site, "azcli").run()
    assert files_of(container.objects()) == {
        "spring/1001/Images/scan": bytes_of("1001/Images/scan", Bytes(30)),
        "spring/1001/Images/scan/a.dcm": bytes_of("1001/images/scan/a.dcm", Bytes(40)),
        "spring/1001/Images/b.dcm": bytes_of("1001/IMAGES/b.dcm", Bytes(50)),
    }


@pytest.mark.parametrize("line", ["{id} another/key", "0{id} {key}", "{id}", "{id} {key}x"])
@pytest.mark.thorough
def test_results_that_are_not_of_these_files(tmp_path: Path, container: Container, line: str) -> None:
    """Of another journal with the same destination, or cut short: the files are sent."""
    site = site_with(tmp_path, FEW, container)
    script = write(site, "azcopy")
    title = next(
        line.partition("=")[2].strip("'") for line in script.path.read_text().splitlines() if "results_title=" in line
    )
    rows = [
        line.format(id=number, key=f"spring/{path}") for number, path in ask(site.journal, "SELECT id, name FROM file")
    ]
    script.beside(".results").write_text("\r\n".join([title, *rows]))
    script.run()
    assert files_of(container.objects()) == arrived(FEW)
    assert delivered(site) == arrived(FEW).keys()


@pytest.mark.thorough
def test_a_prefix_of_any_letters(tmp_path: Path, container: Container) -> None:
    site = site_with(tmp_path, FEW, container)
    site.configure(site.config.read_text().replace(f"{container.name}/data", f"{container.name}/da ta+1"))
    write(site, "azcopy").run()
    keys = {key for key in container.objects() if key.endswith(".dcm")}
    assert keys == {f"da ta+1/{key}" for key in arrived(FEW)}


@pytest.mark.thorough
def test_a_program_behind_az_ends_with_it(tmp_path: Path, container: Container) -> None:
    """Most packages install az as a program that starts another one."""
    site = site_with(tmp_path, MANY, container)
    script = programs(tmp_path / "package", write(site, "azcli"), az=f'"{real("az")}" "$@"')
    with script.running("--workers", "1") as running:
        wait_until(lambda: files_of(container.objects()), seconds=60)
        running.send_signal(signal.SIGTERM)
        running.wait(30)
    assert subprocess.run(["pgrep", "-f", f"upload-batch.*{container.name}"], check=False).returncode == 1
    assert LOCK not in container.objects()


@pytest.mark.thorough
def test_one_script_runs_once_at_a_time(tmp_path: Path, container: Container) -> None:
    script = write(site_with(tmp_path, FEW, container), "azcli")
    with script.running() as running:
        wait_until(lambda: script.beside(".running").exists())
        assert "is running already" in script.run(exit_code=1).err
        running.wait(60)
    assert not script.beside(".running").exists()
    assert delivered(script.site) == arrived(FEW).keys()


@pytest.mark.thorough
def test_a_lock_that_could_not_be_given_back_is_given_back_next_time(
    tmp_path: Path, container: Container, wire: Wire
) -> None:
    site = site_with(tmp_path, FEW, dataclasses.replace(container, port=wire.port))
    script = write(site, "azcli", "--standalone")
    wire.script(Answer(403), method="DELETE", containing="locked")
    script.run(exit_code=1)
    assert LOCK in container.objects()
    script.run()
    assert LOCK not in container.objects()
    assert not script.beside(".lock").exists()
