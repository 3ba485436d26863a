"""For everything that is not a terminal: plain lines, no colours, no boxes, all of them."""

from __future__ import annotations

from chorus_upload.cli.groups import PROGRAM
from chorus_upload.cli.render.human import HumanSink
from chorus_upload.cli.render.progress import NoProgress, ProgressLines
from chorus_upload.cli.render.stream import Stream
from chorus_upload.cli.render.tables import plain_table


def plain_sink(
    *, out: Stream, err: Stream, quiet: bool = False, verbose: bool = False, program: str = PROGRAM
) -> HumanSink:
    """Make a sink for log files and pipes; progress is a line every ten seconds."""
    progress = NoProgress(err.line) if quiet else ProgressLines(err.line)
    return HumanSink(out=out, progress=progress, draw_table=plain_table, quiet=quiet, verbose=verbose, program=program)
