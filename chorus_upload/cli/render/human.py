"""The sink for people: sentences, lists and tables. How they are drawn is up to its two views."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from chorus_upload.cli.groups import PROGRAM
from chorus_upload.cli.render.formats import count, duration, files, local_time, size
from chorus_upload.cli.render.progress import ProgressView
from chorus_upload.cli.render.reports import Result, report_of, verdict
from chorus_upload.cli.render.sink import Failure, Style
from chorus_upload.cli.render.stream import Stream
from chorus_upload.cli.render.tables import Report, Table
from chorus_upload.cli.render.text import printable, printable_lines
from chorus_upload.events import (
    CredentialsAwaited,
    DownloadFinished,
    DownloadPlanned,
    DownloadProgressed,
    EndedEarly,
    Event,
    ExtraFile,
    FileDelivered,
    FileDownloaded,
    FileFailed,
    FileNotDownloaded,
    FileOutsidePatterns,
    FilePlanned,
    FilesMarked,
    FileVerified,
    JournalCheckedIn,
    JournalCheckedOut,
    Level,
    Notice,
    PlaceResponds,
    PlaceSilent,
    ProblemFound,
    ReadProgressed,
    RemoteDeleted,
    RemoteUploaded,
    RequestsFail,
    ScanProgressed,
    ScriptWritten,
    UpdateFinished,
    UploadFinished,
    UploadPlanned,
    UploadProgressed,
    VerifyFinished,
    VerifyProgressed,
)
from chorus_upload.model import ProblemKind

_MANY = frozenset(
    {
        ProblemKind.LINK_TO_OUTSIDE,
        ProblemKind.LINK_TO_DIRECTORY,
        ProblemKind.SKIPPED_LINK,
        ProblemKind.NAMES_DIFFER_ONLY_IN_CASE,
        ProblemKind.KEYS_DIFFER_ONLY_IN_CASE,
    }
)
_MOST = 10
"""So many of those are shown, in a log file too: a source may be full of them, and all have one reason."""

DrawTable = Callable[[Table], Iterable[str]]


class HumanSink:
    """Results to `out`; progress, notices and warnings through `progress`.

    `at_most` limits how many lines of one kind of trouble are shown (0: all of them): a person reads the first
    of them and a number, a log file keeps all. `quiet` leaves warnings, failures and what was asked for.
    `program` is how this run was started; a proposal for the next command begins with it.
    """

    def __init__(
        self,
        *,
        out: Stream,
        progress: ProgressView,
        draw_table: DrawTable,
        quiet: bool = False,
        verbose: bool = False,
        at_most: int = 0,
        program: str = PROGRAM,
    ) -> None:
        self._out = out
        self._progress = progress
        self._draw_table = draw_table
        self._quiet = quiet
        self._verbose = verbose
        self._at_most = at_most
        self._program = program
        self._shown: Counter[str] = Counter()

    def emit(self, event: Event) -> None:
        match event:
            case ScanProgressed() | ReadProgressed() | UploadProgressed() | VerifyProgressed() | DownloadProgressed():
                self._progress.show(event)
            case FileDelivered() | FileDownloaded():
                self._done(event)
            case Notice() | EndedEarly() | PlaceSilent() | RequestsFail() | PlaceResponds() | CredentialsAwaited():
                self._notice(event)
            case ProblemFound() | FileFailed() | FileNotDownloaded() | ExtraFile():
                self._trouble(event)
            case FileOutsidePatterns():
                self._data(f"outside  {printable(event.root)}: {printable(event.path)}")
            case UploadPlanned() | DownloadPlanned():
                self._planned(event)
            case FilePlanned():
                self._data(f"{size(event.size):>9}  {printable(event.path)}  ->  {printable(event.key)}")
            case FileVerified():
                self._verified(event)
            case JournalCheckedOut() | JournalCheckedIn():
                self._custody(event)
            case ScriptWritten():
                self._data(f"{' and '.join(map(printable, event.paths))}: {files(event.files)}, {size(event.bytes)}")
            case UpdateFinished() | UploadFinished() | VerifyFinished() | DownloadFinished() | FilesMarked():
                self.answer(event)
            case RemoteUploaded() | RemoteDeleted():
                self.answer(event)

    def answer(self, result: Result) -> None:
        self._what_was_not_shown()
        self._report(report_of(result))

    def result(self, kind: str, values: Iterable[object], report: Callable[[], Report]) -> None:
        self._report(report())

    def failure(self, failure: Failure) -> None:
        self._progress.pause()
        self._what_was_not_shown()
        first, *rest = printable_lines(failure.message)
        self._progress.line(f"error: {first}", Style.ERROR)
        for line in rest:
            self._progress.line(f"  {line}", Style.PLAIN)
        if failure.hint:
            self._progress.line(f"hint: {' '.join(printable_lines(failure.hint))}", Style.PLAIN)
        for line in (failure.traceback or "").splitlines():
            self._progress.line(printable(line), Style.LOG)

    def log(self, line: str) -> None:
        for part in printable_lines(line):
            self._progress.line(part, Style.LOG)

    def pause(self) -> None:
        self._progress.pause()

    def close(self) -> None:
        self._progress.pause()
        self._out.flush()

    def _data(self, text: str) -> None:
        if self._out.is_terminal:
            self._progress.pause()
        self._out.line(text)

    def _info(self, text: str) -> None:
        if not self._quiet:
            self._progress.line(printable(text), Style.PLAIN)

    def _warning(self, text: str) -> None:
        self._progress.line(f"warning: {text}", Style.WARNING)

    def _notice(
        self, notice: Notice | EndedEarly | PlaceSilent | RequestsFail | PlaceResponds | CredentialsAwaited
    ) -> None:
        if isinstance(notice, EndedEarly):
            done, total = notice.done, notice.total
            failed = f"; {count(notice.failed)} failed" if notice.failed else ""
            share = f"{count(done.files)} of {files(total.files)}, {size(done.bytes)} of {size(total.bytes)}"
            self._info(f"until then {share} {notice.verb}{failed}")
            return
        if not isinstance(notice, Notice):
            self._waited(notice)
            return
        lines = printable_lines(notice.text)
        if notice.level is Level.WARNING:
            self._warning("\n  ".join(lines))
        else:
            for line in lines:
                self._info(line)

    def _waited(self, event: PlaceSilent | RequestsFail | PlaceResponds | CredentialsAwaited) -> None:
        place = printable(event.place)
        if isinstance(event, PlaceResponds):
            self._progress.wait(event.place, None)
            self._info(f"{place} responds again after {duration(event.seconds)}")
            return
        if isinstance(event, CredentialsAwaited):
            files = ", ".join(map(printable, event.look_at))
            self._progress.wait(
                event.place,
                f"{place}: {printable(event.reason)}. New credentials are waited for until"
                f" {local_time(event.until_us)}: put them into {files}, or log in again, and the work goes on",
            )
            return
        # Of a page of somebody else the first line says enough.
        reason = "".join(printable_lines(event.reason)[:1])
        if isinstance(event, RequestsFail):
            self._progress.wait(
                event.place,
                f"{place}: requests fail for {duration(event.seconds)} ({count(event.requests)} at this time):"
                f" {reason}. The first is tried until {local_time(event.until_us)}"
                if event.requests
                else None,
            )
            return
        again = "It is tried again when the request fails"
        if event.until_us is not None:
            again = f"It is tried again until {local_time(event.until_us)}"
        since = f"for {duration(event.seconds)}" if event.seconds >= 1 else "yet"
        self._progress.wait(
            event.place,
            f"{place} has not responded {since}: {reason}. {again}; look at"
            f" {event.look_at} in the configuration (retry_seconds says for how long it is tried)",
        )

    def _done(self, event: FileDelivered | FileDownloaded) -> None:
        if isinstance(event, FileDownloaded):
            name, how = event.path, "was there already" if event.was_there else f"fetched, {size(event.fetched)}"
        else:
            if event.replaced:
                self._name("replaced", event.path, f"{event.key} held other content")
            spared = f" (but for {size(event.spared)}, which the service had)" if event.spared else ""
            name = event.key
            how = f"{'sent' if event.sent else 'was there already'}{spared}, proven by {event.evidence}"
        if self._verbose:
            self._info(f"{printable(name)}: {how}")

    def _trouble(self, event: ProblemFound | FileFailed | FileNotDownloaded | ExtraFile) -> None:
        if isinstance(event, ExtraFile):
            if not event.removed:
                self._name("not removed", event.path, event.detail)
            elif self._verbose:
                self._info(f"removed: {printable(event.path)}")
        elif isinstance(event, FileFailed | FileNotDownloaded):
            self._name(str(event.kind), event.path, event.detail)
        else:
            self._name(str(event.problem.kind), event.problem.path or event.root, event.problem.detail)

    def _name(self, kind: str, path: str, detail: str) -> None:
        """Warn of a single file; of the first ones only where there may be too many."""
        self._shown[kind] += 1
        if 0 < self._limit(kind) < self._shown[kind]:
            return
        self._warning(f"{kind}: {printable(path)}" + (f": {printable(detail)}" if detail else ""))

    def _what_was_not_shown(self) -> None:
        for kind, number in self._shown.items():
            if 0 < self._limit(kind) < number:
                where = "--json" if kind in _MANY else "--json or a log file"
                self._warning(f"{kind}: {count(number - self._limit(kind))} more ({where} holds all of them)")
        self._shown.clear()

    def _limit(self, kind: str) -> int:
        return min(self._at_most or _MOST, _MOST) if kind in _MANY else self._at_most

    def _verified(self, event: FileVerified) -> None:
        if event.result.is_good:
            if self._verbose:
                found = f"{verdict(event.result)}, evidence {event.evidence}"
                self._info(f"{printable(event.key)}: {found}" + _detail(event.detail))
            return
        self._data(f"{verdict(event.result)}: {printable(event.key)}" + _detail(event.detail))

    def _planned(self, event: UploadPlanned | DownloadPlanned) -> None:
        if isinstance(event, DownloadPlanned):
            wanted = f"{files(event.wanted.files)}, {size(event.wanted.bytes)}"
            self._info(f"Bringing version {event.version} ({wanted}) to {printable(event.target)}")
            return
        verb = "Would send" if event.dry_run else "Sending"
        pending = f"{files(event.pending.files)}, {size(event.pending.bytes)}"
        self._info(f"{verb} {pending} to {printable(event.destination)}")

    def _custody(self, event: JournalCheckedOut | JournalCheckedIn) -> None:
        # Around another command this is worth a remark only when it is not the usual thing.
        if self._verbose or (isinstance(event, JournalCheckedOut) and (event.created or event.resumed)):
            self._info(printable(report_of(event).heading))

    def _report(self, report: Report) -> None:
        self._progress.pause()
        if report.data or not self._quiet:
            blocks = [
                [printable(report.heading)] if report.heading else [],
                list(self._draw_table(report.table)) if report.table else [],
                [printable(remark) for remark in report.remarks],
            ]
            for index, block in enumerate(block for block in blocks if block):
                if index:
                    self._out.write("\n")
                for line in block:
                    self._out.write(line + "\n")
            self._out.flush()
        for warning in report.warnings:
            self._warning(printable(warning))
        if report.next_step and not self._quiet:
            self._info(f"Next: {self._program} {report.next_step}")


def _detail(detail: str) -> str:
    return f" ({printable(detail)})" if detail else ""
