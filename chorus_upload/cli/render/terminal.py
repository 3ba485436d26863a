"""For a terminal: a live display on standard error, tables with colours on standard output."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len, chop_cells
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.live import Live
from rich.table import Table as RichTable
from rich.text import Text

from chorus_upload.cli.render.formats import counted
from chorus_upload.cli.render.pace import PaceMeter
from chorus_upload.cli.render.progress import Measured, describe, done_of, facts, is_measured, measure
from chorus_upload.cli.render.sink import Progress, Style
from chorus_upload.cli.render.stream import Stream
from chorus_upload.cli.render.tables import Table, plain_table
from chorus_upload.cli.render.text import printable
from chorus_upload.events import ReadProgressed

REFRESH_HERTZ = 8
_CURRENT_SHOWN = 4
_BAR_WIDTH = 40
_STYLES = {Style.PLAIN: "", Style.WARNING: "yellow", Style.ERROR: "bold red", Style.LOG: "dim"}
_EMPHASIS = {"": "", "total": "bold", "bad": "red"}


def make_console(stream: Stream) -> Console:
    """Make a console that takes text literally: no markup, no emoji codes, no guessing of what a word is."""
    return Console(file=stream.text, markup=False, emoji=False, highlight=False, soft_wrap=True)


class LiveProgress:
    """A display that is redrawn a few times a second, however often events come.

    `show` only keeps the event; a thread of the display draws the latest. Thus a million files cost nothing.
    """

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._live: Live | None = None
        self._view = _View()

    def show(self, event: Progress) -> None:
        self._view.take(event)
        self._start()

    def wait(self, place: str, text: str | None) -> None:
        self._view.wait(place, text)
        if text is not None:
            self._start()

    def _start(self) -> None:
        if self._live is None:
            # transient: what moves is gone at the end, and the report stands in its place.
            self._live = Live(
                console=self._console,
                get_renderable=lambda: self._view.draw(self._clock(), self._console.options),
                refresh_per_second=REFRESH_HERTZ,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()

    def line(self, text: str, style: Style) -> None:
        self._console.print(Text(text, style=_STYLES[style]))

    def pause(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


class _View:
    """What the live display shows of the latest event. Events come from one thread, drawing is another's."""

    def __init__(self) -> None:
        # One attribute, so that an event is never drawn with the meter of other work.
        self._latest: tuple[Progress, PaceMeter] | None = None
        # By place. Replaced and not changed, since another thread draws it.
        self._waits: dict[str, str] = {}

    def wait(self, place: str, text: str | None) -> None:
        waits = {name: said for name, said in self._waits.items() if name != place}
        self._waits = waits | ({} if text is None else {place: f"warning: {text}"})

    def take(self, event: Progress) -> None:
        same = self._latest is not None and type(event) is type(self._latest[0])
        self._latest = (event, self._latest[1] if same and self._latest else PaceMeter())

    def draw(self, now: float, options: ConsoleOptions) -> RenderableType:
        waits = [Text(text, style=_STYLES[Style.WARNING], overflow="fold") for text in self._waits.values()]
        if self._latest is None:
            return Group(*waits)
        event, meter = self._latest
        width = options.max_width
        unicode = not options.ascii_only
        if not is_measured(event):
            return Group(_one_line(describe(event, None), width, unicode=unicode), *waits)
        pace = measure(meter, now, event)
        lines: list[RenderableType] = [
            _bar(event, width, unicode=unicode),
            _one_line("  ".join(facts(event, pace)), width, unicode=unicode),
        ]
        for path in _current(event, unicode=unicode):
            line = _one_line(f"  {path}", width, unicode=unicode)
            line.stylize("dim")
            lines.append(line)
        return Group(*lines, *waits)


def _bar(event: Measured, width: int, *, unicode: bool) -> Text:
    done, total = done_of(event)
    cells = min(_BAR_WIDTH, width)
    filled = min(cells, cells * done // total) if total else cells
    # Two different characters: the bar has to be readable without colours, too.
    full, empty = ("\u2501", "\u2500") if unicode else ("#", "-")
    return Text.assemble((full * filled, "green"), (empty * (cells - filled), "dim"), no_wrap=True)


def _current(event: Measured, *, unicode: bool) -> list[str]:
    """What is being worked on, with at most a few names: the display must not push the rest off the screen."""
    paths = (event.path,) if isinstance(event, ReadProgressed) else event.current
    shown = [printable(path) for path in paths[:_CURRENT_SHOWN] if path]
    if len(paths) > _CURRENT_SHOWN:
        shown.append(f"{'…' if unicode else '...'} and {counted(len(paths) - _CURRENT_SHOWN, 'other')}")
    return shown


def _one_line(text: str, width: int, *, unicode: bool) -> Text:
    """Cut from the middle: the beginning says what it is, the end of a path says which."""
    if cell_len(text) <= width:
        return Text(text, no_wrap=True)
    mark = "…" if unicode else "..."
    room = max(width - len(mark), 2)
    head = chop_cells(text, room // 3)[0]
    tail = chop_cells(text[::-1], room - room // 3)[0][::-1]
    return Text(head + mark + tail, no_wrap=True)


def table_drawer(console: Console) -> Callable[[Table], Iterable[str]]:
    """Return a function that draws a table for this console, as lines."""

    def draw(table: Table) -> Iterable[str]:
        if console.legacy_windows:
            # An old Windows console understands calls, not the escape sequences that lines would carry.
            return plain_table(table)
        with console.capture() as captured:
            console.print(_rich_table(table, ascii_only=console.options.ascii_only))
        return captured.get().rstrip("\n").splitlines()

    return draw


def _rich_table(table: Table, *, ascii_only: bool) -> RichTable:
    drawn = RichTable(box=None if ascii_only else SIMPLE_HEAD, header_style="bold", pad_edge=False, show_edge=False)
    for column in table.columns:
        # Names wrap where the screen is narrow, numbers never do.
        drawn.add_column(
            Text(column.heading), justify="right" if column.numeric else "left", no_wrap=column.numeric, overflow="fold"
        )
    for row in table.rows:
        drawn.add_row(*(Text(printable(cell)) for cell in row.cells), style=_EMPHASIS[row.emphasis])
    return drawn
