"""Options that several commands share, spelled and explained once."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

LARGEST = 2**63 - 1
"""No larger number goes into a question to the journal."""

Modalities = Annotated[
    str | None,
    typer.Option(
        "--modalities",
        "--modality",
        metavar="A,B",
        help="Only these modalities, separated by commas. Default: all configured ones. One that is not configured is"
        " left out with a warning.",
    ),
]

Patients = Annotated[
    list[str] | None,
    typer.Option("--patient", metavar="P", help="Only files of this patient. May be given several times."),
]

MaxFiles = Annotated[
    int | None,
    typer.Option(
        "--max-num-files", metavar="N", min=1, max=LARGEST, help="At most N files, counted over all modalities."
    ),
]

WaitForCredentials = Annotated[
    str | None,
    typer.Option(
        "--wait-for-credentials",
        metavar="TIME",
        help="When credentials have expired, wait so long for new ones, and go on: 90s, 30m, 12h or 2d. They are taken"
        " from the configuration, its environment_file and its token files.",
    ),
]


def regular(given: Path | list[Path] | None) -> Path | list[Path] | None:
    """Return what was given for files that are read as a whole, which need not be there: a pipe would be waited for."""
    for path in given if isinstance(given, list) else [given]:
        with suppress(OSError):
            if path is not None and path.exists() and not path.is_file():
                empty = " (is a variable of the shell empty?)" if str(path) == "." else ""
                raise typer.BadParameter(f"{path} is not a regular file{empty}")
    return given


LocalJournal = Annotated[
    Path | None,
    typer.Option(
        "--local-journal",
        metavar="FILE",
        callback=regular,
        help="The checked-out journal. Default: the local path of the configuration.",
    ),
]

Files = Annotated[
    list[str] | None,
    typer.Option(
        "--file",
        metavar="PATH",
        help="A file, by its path below the source's root as 'file list' prints it. May be given several times.",
    ),
]

FileList = Annotated[
    Path | None,
    typer.Option(
        "--file-list",
        metavar="FILE",
        help="A file with such paths, one a line or separated by NUL bytes; '-' reads standard input.",
    ),
]

SameDestination = Annotated[
    bool,
    typer.Option(
        "--same-destination",
        help="The central store of the configuration is the one that the journal knows, under another address.",
    ),
]

NewDestination = Annotated[
    bool,
    typer.Option(
        "--new-destination", help="It is another one: nothing counts as delivered there, and everything is sent."
    ),
]

UploadDatetime = Annotated[
    str,
    typer.Option(
        "--upload-datetime",
        metavar="WHEN",
        help="When the files were uploaded: YYYYMMDDHHMMSS or YYYY-MM-DDTHH:MM:SS; local time if no offset follows.",
    ),
]
