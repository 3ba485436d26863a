"""Scripts for bash: the program with its settings, and a line for each file."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable
from typing import TextIO
from urllib.parse import quote

from chorus_upload.scripting.program import split_program
from chorus_upload.scripting.work import BATCH_BYTES, BATCH_FILES, Place, ScriptFile, Tool, Work, Writer, trusted_hosts


def _refuses(_: ScriptFile) -> str | None:
    """Single quotes keep everything that a name can hold."""
    return None


def _write(work: Work, files: Iterable[ScriptFile], out: TextIO, _: Callable[[str], TextIO]) -> None:
    before, program = split_program("upload.sh")
    out.write(before)
    out.writelines(f"{line}\n" for line in _settings(work))
    out.write(program)
    for file in files:
        mode, path, key = map(shlex.quote, (file.replaces or "keep", file.path, file.key))
        out.write(f"file {file.id} {file.root} {file.size} {mode} {path} {key}\n")
    out.write("\nfinish\n")


def _settings(work: Work) -> Iterable[str]:
    part, parts = work.part
    name = f"{part} of {parts}" if parts > 1 else "the only one"
    yield f"# Written by chorus-upload {work.tool_version} on {work.written:%Y-%m-%d %H:%M}; script {name}."
    yield f"readonly tool={'azcopy' if work.tool is Tool.AZCOPY else 'az'}"
    yield f"readonly files_total={work.files} bytes_total={work.bytes}"
    yield f"readonly login={_yes(work.login)} standalone={_yes(work.standalone)}"
    yield f"readonly destination_url={shlex.quote(work.destination.url)}"
    yield f"readonly azcopy_url={shlex.quote(quoted_url(work.destination))}"
    yield f"readonly container={shlex.quote(work.destination.container)} prefix={shlex.quote(work.destination.prefix)}"
    yield f"to_destination=({_words(to_place(work.destination, login=work.login))})"
    if work.standalone and work.journal is not None:
        yield f"readonly journal_container={shlex.quote(work.journal.container)}"
        yield f"readonly journal_key={shlex.quote(work.journal_key)}"
        yield f"to_journal=({_words(to_place(work.journal, login=work.login))})"
    else:
        yield "readonly journal_container='' journal_key=''"
        yield "to_journal=()"
    yield f"chorus=({_words(work.chorus)})"
    yield f"readonly config={shlex.quote(work.config)} tool_version={shlex.quote(work.tool_version)}"
    yield f"root_names=({_words(root.modality for root in work.roots)})"
    yield f"roots=({_words(root.path for root in work.roots)})"
    yield f"root_fronts=({_words(root.front or '' for root in work.roots)})"
    yield f"readonly trusted={shlex.quote(trusted_hosts(work))}"
    yield f"follows=({_words(_yes(root.follow_links) for root in work.roots)})"
    yield f"readonly results_title={shlex.quote(work.results_title)}"
    yield f"batch_files={BATCH_FILES} batch_bytes={BATCH_BYTES}"
    yield f"readonly tier={shlex.quote(work.tier or '')}"
    yield f"workers={work.workers}"
    if work.ca_bundle is not None:
        yield f"export REQUESTS_CA_BUNDLE={shlex.quote(work.ca_bundle)} SSL_CERT_FILE={shlex.quote(work.ca_bundle)}"


def to_place(place: Place, *, login: bool) -> tuple[str, ...]:
    """The options with which az reaches a place, whatever host it has: with a login, too."""
    return ("--blob-endpoint", place.endpoint, *(("--auth-mode", "login") if login else ()))


def quoted_url(place: Place) -> str:
    """The place as azcopy wants it said."""
    return "/".join(part for part in (place.endpoint, place.container, quote(place.prefix, safe="/")) if part)


def _words(words: Iterable[str]) -> str:
    return " ".join(map(shlex.quote, words))


def _yes(value: bool) -> str:  # noqa: FBT001 - it is what it converts
    return "yes" if value else "no"


WRITER = Writer(refuses=_refuses, write=_write, suffixes=(".sh",))
