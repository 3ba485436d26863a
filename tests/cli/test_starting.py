"""The ways to start the program are the same program; it starts quickly and fails in words."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import chorus_upload
from chorus_upload.cli import app
from chorus_upload.cli.app import main

ROOT = Path(__file__).parents[2]
SCRIPT = Path(sys.executable).with_name("chorus-upload")


def start(*arguments: str, cwd: Path, code: str = "", **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, *(["-c", code] if code else []), *arguments]
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONIOENCODING"}
    return subprocess.run(command, cwd=cwd, env={**clean, **environment}, capture_output=True, check=False, timeout=300)


@pytest.mark.parametrize(
    ("how", "cwd"),
    [
        (["-m", "chorus_upload"], ROOT),
        (["chorus_upload"], ROOT),
        ([str(ROOT / "chorus_upload")], Path("/")),
        (["."], ROOT / "chorus_upload"),
        ([str(ROOT / "chorus_upload" / "__main__.py")], ROOT / "docs"),
    ],
)
def test_ways_to_start(how: list[str], cwd: Path) -> None:
    run = start(*how, "--version", cwd=cwd)

    assert (run.stdout.decode().strip(), run.returncode) == (f"chorus-upload {chorus_upload.__version__}", 0)


def test_the_installed_script() -> None:
    if not SCRIPT.exists():
        pytest.skip("not installed in this environment")

    run = subprocess.run([SCRIPT, "file", "upload", "-h"], capture_output=True, check=False, timeout=300)

    assert run.stdout.startswith(b"Usage: chorus-upload file upload")
    assert run.returncode == 0


def test_from_the_source_directory_our_modules_hide_no_others(tmp_path: Path) -> None:
    # A package of that name elsewhere, as a user may have one, against our `config`.
    (tmp_path / "config.py").write_text("WHOSE = 'theirs'\n", encoding="utf-8")
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['chorus_upload', '--version']; sys.path[0] = {str(ROOT / 'chorus_upload')!r}\n"
        "try:\n"
        f"    runpy.run_path({str(ROOT / 'chorus_upload')!r}, run_name='__main__')\n"
        "except SystemExit: pass\n"
        "import config; print(config.WHOSE)\n"
    )

    run = start(cwd=tmp_path, code=code, PYTHONPATH=str(tmp_path))

    assert run.stdout.decode().splitlines()[-1] == "theirs"


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from chorus_upload.cli.app import main\n"
        "main(['file', 'upload', '-h'])\n"
        "heavy = {'sqlalchemy', 'alembic', 'pydantic', 'azure', 'fsspec', 'rich', 'xxhash'}\n"
        "print(sorted(heavy & {name.partition('.')[0] for name in sys.modules}))\n"
    )

    run = start(cwd=ROOT, code=code)

    assert run.stdout.decode().splitlines()[-1] == "[]"


@pytest.mark.parametrize("encoding", ["ascii", "cp437", "utf-8"])
def test_any_encoding_of_the_console(encoding: str, tmp_path: Path) -> None:
    run = start(
        "-m", "chorus_upload", "-c", "Größe-患者.toml", "config", "show", cwd=tmp_path, PYTHONIOENCODING=encoding
    )

    assert run.returncode == 2
    assert run.stderr.startswith(b"error: Gr")
    assert b"Traceback" not in run.stderr


def test_a_reader_that_leaves_early() -> None:
    for arguments in (["-h"], ["usage"], ["config-help"]):
        command = [sys.executable, "-m", "chorus_upload", *arguments]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait(timeout=300) == 0


def test_a_wrong_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["file", "uplaod"]) == 2

    assert capsys.readouterr().err == (
        "error: No such command 'uplaod'. Did you mean 'upload'?\nhint: 'chorus-upload file -h' explains the command\n"
    )


def test_a_wrong_command_line_for_a_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["file", "upload", "--max-num-files", "none", "--json"]) == 2

    line = json.loads(capsys.readouterr().out)
    assert (line["event"], line["code"], line["exit_code"]) == ("error", "UsageError", 2)


def test_a_configuration_that_is_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["config", "show", "-c", str(tmp_path / "none.toml")]) == 2

    shown = capsys.readouterr()
    assert "there is no such configuration file" in shown.err
    assert "hint: " in shown.err
    assert "Traceback" not in shown.err


@pytest.mark.parametrize("verbose", [False, True])
def test_a_defect_asks_to_be_reported(
    verbose: bool,  # noqa: FBT001
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(app, "_run", lambda *_: 1 // 0)

    # -v is not seen here: `_run` is what would have read it.
    assert main(["-v"] if verbose else []) == 1

    shown = capsys.readouterr()
    assert "error: unexpected ZeroDivisionError" in shown.err
    assert "please report" in shown.err
    assert "Traceback" not in shown.err


def test_an_interruption_says_how_to_go_on(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "_run", interrupted)

    assert main([]) == 130

    shown = capsys.readouterr()
    assert "error: interrupted\nhint: what was recorded is kept" in shown.err


def test_a_connection_that_breaks_is_no_reader_that_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> int:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(app, "_run", broken)

    assert main([]) == 1
    assert "BrokenPipeError" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
@pytest.mark.parametrize(("soft", "hard", "expected"), [(256, 4_000, 4_000), (256, 300, 300), (256, 9_000, 8_192)])
def test_files_are_opened_as_far_as_the_system_allows(tmp_path: Path, soft: int, hard: int, expected: int) -> None:
    code = f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
from chorus_upload.cli.app import main
main(["--version"])
print(resource.getrlimit(resource.RLIMIT_NOFILE))
"""
    run = start(cwd=tmp_path, code=code)

    assert run.stdout.decode().splitlines()[-1] == f"({expected}, {hard})"
