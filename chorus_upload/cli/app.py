"""The command line: its groups, its global options, and the way from any ending to an exit code."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from typer.core import TyperGroup

from chorus_upload import __version__
from chorus_upload.cli.arguments import hoist_global_options
from chorus_upload.cli.commands import config, file, history, journal, remote, usage
from chorus_upload.cli.failures import failure_of, what_ended
from chorus_upload.cli.groups import PROGRAM, examples, make_group, require_command
from chorus_upload.cli.helping import help_page
from chorus_upload.cli.interruption import ended_by_signals, interrupted_by_signals, was_interrupted
from chorus_upload.cli.invocation import GlobalOptions, Invocation
from chorus_upload.cli.limits import open_as_many_files_as_allowed
from chorus_upload.cli.render.sink import Failure
from chorus_upload.cli.render.stream import Stream, make_tolerant, open_standard_streams
from chorus_upload.errors import EXIT_OK, ChorusError, StoppedAtOnce

_ONLY_THE_OUTPUT = "The command did its work; only its output, from somewhere on, is missing."
_COMPLETE = "_CHORUS_UPLOAD_COMPLETE"

app = make_group(
    "Keep a journal of research data, upload what is new, and prove that it arrived.",
    epilog=examples(
        ("Take down what is new or changed in the sources, then send it", "journal update"),
        ("", "file upload"),
        ("Check what the central store holds against the journal", "file verify"),
        ("The common ways of working, and help on config.toml", "usage"),
        ("", "config-help"),
        ("Another configuration, and every event as a line of JSON", "-c /data/site.toml --json file upload"),
        ("Complete commands and options by the tabulator key", "--install-completion"),
    ),
    completion=True,
)

app.add_typer(journal.group)
app.add_typer(file.group)
app.add_typer(remote.group)
app.add_typer(config.group)
config.add_to(app)
history.add_to(app)
usage.add_to(app)


@app.callback()
def _global_options(
    context: typer.Context,
    *,
    config_file: Annotated[
        Path | None,
        typer.Option(
            "--config", "-c", metavar="FILE", help="The configuration. Default: config.toml in this directory."
        ),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log to standard error what is done; tracebacks for errors.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Write every event and result as one line of JSON to standard output.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show only warnings, errors and what was asked for.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    run = context.ensure_object(Invocation)
    run.configure(GlobalOptions(config=config_file, verbose=verbose, json=json, quiet=quiet))
    if version:
        run.show_page("version", f"{PROGRAM} {__version__}\n")
        raise typer.Exit
    require_command(context)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (default: that of the process) and return its exit code."""
    # Work on millions of files makes millions of short-lived tuples and hardly a cycle: look for those less often.
    gc.set_threshold(50_000, 20, 20)
    open_standard_streams()
    open_as_many_files_as_allowed()
    for stream in (sys.stdout, sys.stderr):
        make_tolerant(stream)
    invocation = Invocation()
    try:
        with interrupted_by_signals():
            code = _run(invocation, hoist_global_options(sys.argv[1:] if arguments is None else arguments))
            return _shown(invocation, code)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the last resort: whatever ends a run becomes words
        failure = failure_of(
            error, verbose=invocation.options.verbose, redact=invocation.redact, interrupted=was_interrupted()
        )
        invocation.sink.failure(failure)
        if isinstance(what_ended(error), StoppedAtOnce):
            invocation.close()
            _end_without_waiting(failure.exit_code)
        return failure.exit_code
    finally:
        invocation.close()
        if arguments is None:
            _flush()
            ended_by_signals()


def _end_without_waiting(exit_code: int) -> NoReturn:
    """End the process; Python would wait for threads that are in the middle of a request or of reading a file."""
    _flush()
    os._exit(exit_code)


def _shown(invocation: Invocation, code: int) -> int:
    """Return the exit code of a command that came to its end: no success if a part of its output is missing."""
    out = Stream(sys.stdout)
    out.flush()
    if out.unwritten is None:
        return code
    failure = Failure(
        "ChorusError", code or ChorusError.exit_code, f"cannot write the output: {out.unwritten}", _ONLY_THE_OUTPUT
    )
    invocation.sink.failure(failure)
    return failure.exit_code


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        Stream(stream).flush()


def build_command() -> TyperGroup:
    """Return the whole program as one command, the groups before the single commands."""
    command = typer.main.get_command(app)
    if not isinstance(command, TyperGroup):
        raise TypeError("the program has to be a group of commands")
    command.commands = dict(sorted(command.commands.items(), key=lambda item: not isinstance(item[1], TyperGroup)))
    return command


def _run(invocation: Invocation, arguments: list[str]) -> int:
    # Not `command.main()`: it would turn an interruption, and a broken connection, into a bare exit code.
    command = build_command()
    if asked := os.environ.get(_COMPLETE):
        # A shell asks what may come next.
        from typer.completion import shell_complete

        return shell_complete(command, {"obj": invocation}, PROGRAM, _COMPLETE, asked)
    page = help_page(command, arguments)
    if page is not None:
        Stream(sys.stdout).line(page)
        return EXIT_OK
    try:
        with command.make_context(PROGRAM, arguments, obj=invocation) as context:
            code = command.invoke(context)
    except typer.Exit as ending:
        return ending.exit_code
    except SystemExit as ending:
        # The options that set up completion end like this.
        return int(ending.code or EXIT_OK)
    return EXIT_OK if code is None else int(code)
