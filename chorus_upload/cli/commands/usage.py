"""`chorus-upload usage`: the common ways of working, as commands to copy."""

from __future__ import annotations

import typer

from chorus_upload.cli.groups import examples
from chorus_upload.cli.invocation import current
from chorus_upload.errors import EXIT_OK

TEXT = """\
The usual way: each command takes the journal from the cloud, works, and gives it back.

  chorus-upload journal update          take down what is new, modified, renamed or gone
  chorus-upload file list               see what would be sent
  chorus-upload file upload             send it, prove that it arrived, record it
  chorus-upload file verify             check the central store against the journal

Before the first time: have a configuration written, fill it in, and check it.

  chorus-upload config template config.toml
  chorus-upload config-help             what each key means
  chorus-upload config check            what is wrong with it, without touching the cloud
  chorus-upload config show             what it comes to, secrets masked

After an interruption: what was recorded is kept. Type the same command again on the same machine; or only give
the journal back.

  chorus-upload file upload
  chorus-upload journal checkin

Several commands in a row on a local journal: take it once, give it back once.

  chorus-upload journal checkout
  chorus-upload journal update --modalities OMOP
  chorus-upload journal update --modalities Images --amend
  chorus-upload file upload
  chorus-upload journal checkin

A large first upload in pieces, over night, with a log:

  chorus-upload file upload --max-num-files 100000 > upload.log 2>&1

Files that another tool has sent: let them be verified, and marked as uploaded.

  chorus-upload file list --output-file files.txt
  chorus-upload file mark-as-uploaded-central --upload-datetime 20260301120000 --file-list files.txt

Append mode, where a source holds only what is new: files are deleted by name.

  chorus-upload file mark-as-deleted --file-list gone.txt

For programs: one event a line, and an exit code that tells what happened (docs/exit-codes.md).

  chorus-upload --json file upload > events.jsonl

Every command explains itself and its options: chorus-upload file upload -h
"""


def add_to(app: typer.Typer) -> None:
    """Add the command to the top level."""
    app.command("usage", epilog=examples(("Read it page by page", "usage | more")))(usage)


def usage(context: typer.Context) -> int:
    """Show the common ways of working."""
    current(context).show_page("usage", TEXT)
    return EXIT_OK
