"""`chorus-upload config …` and `config-help`: what the configuration says, and what is wrong with it."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chorus_upload.cli.groups import PROGRAM, examples, make_group
from chorus_upload.cli.invocation import current
from chorus_upload.cli.output_file import require_nobodys
from chorus_upload.cli.render.formats import counted
from chorus_upload.cli.render.tables import Column, Report, Row, Table
from chorus_upload.errors import EXIT_OK, ConfigError
from chorus_upload.events import Level, Notice

if TYPE_CHECKING:
    from chorus_upload.config.showing import Finding

group = make_group(
    "Look at the configuration, and try it.",
    name="config",
    epilog=examples(
        ("What the file and the environment come to, secrets masked", "config show"),
        ("What is wrong with another file", "-c /data/site.toml config check"),
        ("A file to fill in", "config template config.toml"),
    ),
)


def add_to(app: typer.Typer) -> None:
    """Add the command that is not in the group."""
    app.command(
        "config-help",
        epilog=examples(
            ("Read it page by page", "config-help | more"), ("Find a key", "config-help | grep -A 3 num_threads")
        ),
    )(config_help)


@group.command(
    "show",
    epilog=examples(
        ("What the file and the environment come to", "config show"), ("For a program", "config show --json")
    ),
)
def show(context: typer.Context) -> int:
    """Show what file and environment come to.

    Defaults are filled in and secrets are masked; behind each value stands where it comes from.
    """
    from chorus_upload.config.showing import masked

    run = current(context)
    # What was pasted into the line of another key has the shape of a secret all the same.
    settings = _redacted(masked(run.settings), run.redact)
    run.sink.result("settings", [settings], lambda: _settings_report(settings))
    return EXIT_OK


@group.command(
    "check",
    epilog=examples(
        ("Check config.toml in this directory", "config check"),
        ("Check another one, in a script", "-c /data/site.toml --json config check"),
        ("Try every place, before the first upload", "config check --online"),
    ),
)
def check(
    context: typer.Context,
    *,
    online: Annotated[
        bool,
        typer.Option("--online", help="Also try every place: list, write, read back and delete a small object there."),
    ] = False,
) -> int:
    """Check the configuration.

    Without the cloud: directories, patterns, files with credentials, and what a SAS token permits and until when. With
    --online also whether each place can be reached and lets us do what an upload does, whether it honours the
    conditions on which the lock of the journal rests, and whether the clocks agree. Ends with 2 when something has to
    be put right.
    """
    from chorus_upload.config import showing
    from chorus_upload.operations.checking import check_settings

    run = current(context)
    findings = check_settings(run.settings)
    if online:
        from chorus_upload.operations.probing import probe_places

        # A killed check may leave its object behind; a signal takes it away again.
        findings = [finding for finding in findings if finding.level is not showing.Level.UNTRIED]
        findings += probe_places(run.settings)
    findings = [replace(finding, text=run.redact(finding.text)) for finding in findings]
    run.sink.result("finding", findings, lambda: _findings_report(findings))
    wrong = sum(finding.level is showing.Level.ERROR for finding in findings)
    run.emit(Notice(_verdict(wrong, online=online), Level.WARNING if wrong else Level.INFO))
    return ConfigError.exit_code if wrong else EXIT_OK


def _verdict(wrong: int, *, online: bool) -> str:
    if wrong:
        return f"{counted(wrong, 'mistake')} to put right: see the lines that begin with 'error'"
    if online:
        return "Nothing is wrong: every place was tried."
    return (
        "Nothing is wrong as far as this machine can tell. Not tried: whether the places answer, take the credentials,"
        " and can be read and written. `config check --online` tries that."
    )


@group.command(
    "template",
    epilog=examples(
        ("Write a configuration to fill in, which only you can read", "config template config.toml"),
        ("Look at it first", "config template | more"),
    ),
)
def template(
    context: typer.Context,
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Where to; it must not exist. Default: standard output.")
    ] = None,
) -> int:
    """Write a configuration to fill in.

    Every key is in it, with its meaning and its default.
    """
    from chorus_upload.config.loading import load
    from chorus_upload.config.reference import template as template_text

    run = current(context)
    if file is None:
        run.show_page("template", template_text())
        return EXIT_OK
    settings = None
    # There may be no configuration yet, or none that is right.
    with suppress(ConfigError):
        settings = load(run.options.config, environ=os.environ)
    if settings is not None and not file.exists():
        require_nobodys(settings, file, str(file))
    try:
        # Credentials will stand in it: nobody else reads it, not even for a moment.
        with open(file, "x", encoding="utf-8", opener=partial(os.open, mode=0o600)) as written:
            written.write(template_text())
    except FileExistsError:
        raise ConfigError(f"{file} exists, and is left as it is", hint="Name another file.") from None
    except OSError as error:
        raise ConfigError(f"cannot write {file}: {error.strerror}") from error
    run.emit(Notice(f"{file} is to be filled in, and then: {PROGRAM} -c {shlex.quote(str(file))} config check"))
    return EXIT_OK


def config_help(context: typer.Context) -> int:
    """Explain every key of the configuration file."""
    from chorus_upload.config.reference import help_text

    current(context).show_page("config-help", help_text(width=min(shutil.get_terminal_size().columns, 100)))
    return EXIT_OK


def _redacted(values: dict[str, object], redact: Callable[[str], str]) -> dict[str, object]:
    """The same, with every text as `redact` gives it."""

    def clean(value: object) -> object:
        if isinstance(value, str):
            return redact(value)
        if isinstance(value, list):
            return [clean(each) for each in value]
        return _redacted(value, redact) if isinstance(value, dict) else value

    return {name: clean(value) for name, value in values.items()}


def _settings_report(settings: Mapping[str, object]) -> Report:
    origins = settings["origins"]
    known = origins if isinstance(origins, Mapping) else {}
    # Warnings were shown when the file was loaded, origins stand behind the values.
    values = {name: value for name, value in settings.items() if name not in ("file", "origins", "warnings")}
    rows = tuple(Row((place, text, str(known.get(place, "default")))) for place, text in _flat(values))
    return Report(
        heading=str(settings["file"]),
        table=Table((Column("Setting"), Column("Value"), Column("From")), rows),
        data=True,
    )


def _flat(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield each value in words with its place, e.g. `central.location.path`."""
    for name, value in values.items():
        place = f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _flat({key: item for key, item in value.items() if key != "modality"}, f"{place}.")
        elif isinstance(value, bool):
            yield place, str(value).lower()
        elif isinstance(value, list | tuple):
            yield place, ", ".join(map(str, value))
        else:
            yield place, str(value)


def _findings_report(findings: Sequence[Finding]) -> Report:
    rows = tuple(
        Row((finding.level.value, finding.subject, finding.text), "bad" if finding.level.value == "error" else "")
        for finding in findings
    )
    return Report(table=Table((Column(""), Column("Section"), Column("Finding")), rows), data=True)
