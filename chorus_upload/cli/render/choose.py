"""Choosing how to show things, by what the user wants and by where the output goes."""

from __future__ import annotations

import os
import sys

from chorus_upload.cli.groups import PROGRAM
from chorus_upload.cli.render.human import HumanSink
from chorus_upload.cli.render.jsonlines import JsonSink
from chorus_upload.cli.render.plain import plain_sink
from chorus_upload.cli.render.progress import NoProgress, ProgressLines, ProgressView
from chorus_upload.cli.render.sink import Sink
from chorus_upload.cli.render.stream import Stream
from chorus_upload.cli.render.tables import plain_table

_LINES_OF_A_KIND = 50


def choose_sink(*, json: bool, quiet: bool, verbose: bool, program: str = PROGRAM) -> Sink:
    """Make the sink for this run. Standard output and standard error may go to different places: each is judged
    by itself. rich is imported only where there is a terminal."""
    out, err = Stream(sys.stdout), Stream(sys.stderr)
    if json:
        return JsonSink(out=out, err=err, quiet=quiet)
    if not (_can_draw(out) or _can_draw(err)):
        return plain_sink(out=out, err=err, quiet=quiet, verbose=verbose, program=program)

    from chorus_upload.cli.render.terminal import LiveProgress, make_console, table_drawer

    progress: ProgressView
    if quiet:
        progress = NoProgress(err.line)
    elif _can_draw(err):
        progress = LiveProgress(make_console(err))
    else:
        progress = ProgressLines(err.line)
    return HumanSink(
        out=out,
        progress=progress,
        draw_table=table_drawer(make_console(out)) if _can_draw(out) else plain_table,
        quiet=quiet,
        verbose=verbose,
        at_most=_LINES_OF_A_KIND if _can_draw(err) else 0,
        program=program,
    )


def _can_draw(stream: Stream) -> bool:
    return stream.is_terminal and os.environ.get("TERM") != "dumb"
