"""`file list --output-type azcli|azcopy`: from options to scripts."""

from __future__ import annotations

import shutil
import sys
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

import typer

from chorus_upload.cli.groups import PROGRAM
from chorus_upload.cli.invocation import Invocation
from chorus_upload.cli.output_file import is_script, require_replaceable
from chorus_upload.errors import EXIT_OK, EXIT_PARTIAL, ConfigError


class ScriptShell(StrEnum):
    """What runs a script."""

    BASH = "bash"
    CMD = "cmd"
    POWERSHELL = "powershell"


class ScriptOptions(NamedTuple):
    """What was typed."""

    output: Path | None
    tool: str
    shell: ScriptShell | None
    standalone: bool
    version: str | None
    modalities: tuple[str, ...] | None
    patients: tuple[str, ...] | None
    files_each: int | None
    force: bool


_SHELLS = {
    ".sh": ScriptShell.BASH,
    ".bat": ScriptShell.CMD,
    ".cmd": ScriptShell.CMD,
    ".ps1": ScriptShell.POWERSHELL,
}


def write_upload_scripts(run: Invocation, context: typer.Context, options: ScriptOptions) -> int:
    """Write the scripts; gives the exit code."""
    from chorus_upload.operations.scripting import ScriptRequest, write_scripts

    if options.output is None:
        raise ConfigError("a script needs a name", hint="Add --output-file upload.sh, or upload.bat for Windows.")
    shell = options.shell or _SHELLS.get(options.output.suffix.lower())
    if shell is None:
        raise ConfigError(f"which shell is to run {options.output}?", hint="Add --shell bash, cmd or powershell.")
    for path in (options.output, *options.output.parent.glob(f"{options.output.stem}-[0-9]*{options.output.suffix}")):
        require_replaceable(run, path, option="--output-file", is_ours=is_script, force=options.force)
    request = ScriptRequest(
        output=options.output,
        tool=options.tool,
        shell=shell.value,
        chorus=_this_program(),
        config=run.options.config or Path("config.toml"),
        standalone=options.standalone,
        version=options.version,
        modalities=options.modalities,
        patients=options.patients,
        files_each=options.files_each,
    )
    with run.session(context, read_only=True) as session:
        refused = write_scripts(session.journal, run.settings, request, emit=run.emit)
    return EXIT_PARTIAL if refused else EXIT_OK


def _this_program() -> tuple[str, ...]:
    """How it is started from any directory."""
    installed = shutil.which(PROGRAM)
    if installed is not None:
        return (str(Path(installed).absolute()),)
    return (sys.executable, str(Path(__file__).parents[2]))
