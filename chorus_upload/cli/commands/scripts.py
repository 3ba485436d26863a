"""`file list --output-type azcli|azcopy`: from options to scripts."""

from __future__ import annotations

import os
import shutil
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import typer

from chorus_upload.cli.groups import PROGRAM
from chorus_upload.cli.invocation import Invocation
from chorus_upload.cli.output_file import is_script, require_replaceable
from chorus_upload.errors import EXIT_OK, EXIT_PARTIAL, ConfigError

if TYPE_CHECKING:
    from chorus_upload.operations.destination import Choice


class ScriptShell(StrEnum):
    """What runs a script."""

    BASH = "bash"
    CMD = "cmd"


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
    destination: Choice | None


_SHELLS = {
    ".sh": ScriptShell.BASH,
    ".bat": ScriptShell.CMD,
    ".cmd": ScriptShell.CMD,
}


def write_upload_scripts(run: Invocation, context: typer.Context, options: ScriptOptions) -> int:
    """Write the scripts; gives the exit code."""
    from chorus_upload.operations.scripting import ScriptRequest, write_scripts

    if options.output is None:
        raise ConfigError("a script needs a name", hint="Add --output-file upload.sh, or upload.bat for Windows.")
    suffix = options.output.suffix.lower()
    if suffix == ".ps1" and options.shell is None:
        raise ConfigError("there are no scripts for PowerShell", hint="It runs a .bat as well: write upload.bat.")
    shell = options.shell or _SHELLS.get(suffix) or shell_of_this_system()
    output = options.output
    if shell is ScriptShell.CMD and not suffix:
        # cmd would not run it.
        output = output.with_name(f"{output.name}.bat")
    for path in (output, *output.parent.glob(f"{output.stem}-[0-9]*{output.suffix}")):
        require_replaceable(run, path, option="--output-file", is_ours=is_script, force=options.force)
    request = ScriptRequest(
        output=output,
        tool=options.tool,
        shell=shell.value,
        chorus=_this_program(),
        config=run.options.config or Path("config.toml"),
        standalone=options.standalone,
        version=options.version,
        modalities=options.modalities,
        patients=options.patients,
        files_each=options.files_each,
        destination=options.destination,
    )
    with run.session(context, read_only=True) as session:
        refused = write_scripts(session.journal, run.settings, request, emit=run.emit)
    return EXIT_PARTIAL if refused else EXIT_OK


def shell_of_this_system() -> ScriptShell:
    """Return the shell of the system on which the scripts are written."""
    return ScriptShell.CMD if os.name == "nt" else ScriptShell.BASH


def _this_program() -> tuple[str, ...]:
    """How it is started from any directory."""
    installed = shutil.which(PROGRAM)
    if installed is not None:
        return (str(Path(installed).absolute()),)
    return (sys.executable, str(Path(__file__).parents[2]))
