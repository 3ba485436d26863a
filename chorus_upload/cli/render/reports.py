"""The results of operations in words: one function for each event that ends one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from chorus_upload.cli.render.copies import FILES_AND_SIZE, of_download, of_remote_deletion, of_remote_upload
from chorus_upload.cli.render.formats import count, counted, duration, files, rate, size
from chorus_upload.cli.render.tables import Column, Report, Row, Table
from chorus_upload.events import (
    DownloadFinished,
    FilesMarked,
    JournalCheckedIn,
    JournalCheckedOut,
    JournalUpgraded,
    ModalityUpdate,
    RemoteDeleted,
    RemoteUploaded,
    Tally,
    UpdateFinished,
    UploadFinished,
    VerifyFinished,
    VerifyResult,
)
from chorus_upload.model import FailureKind

Result = (
    UpdateFinished
    | UploadFinished
    | VerifyFinished
    | DownloadFinished
    | RemoteUploaded
    | RemoteDeleted
    | FilesMarked
    | JournalCheckedOut
    | JournalCheckedIn
    | JournalUpgraded
)


def report_of(result: Result) -> Report:
    """Describe the result of an operation."""
    return _REPORTS[type(result)](result)


def _update(result: UpdateFinished) -> Report:
    rows: list[Row] = []
    for name, found in result.modalities.items():
        rows += _named_rows(name, _kinds(found))
    total = result.total
    if len(result.modalities) > 1:
        rows += _named_rows("All", _kinds(total), emphasis="total")
    remarks = [
        f"Outside every pattern below {root}: {_tally(tally)}{_examples(result.outside_examples.get(root, ()))}"
        " (--list-outside names them)."
        for root, tally in result.outside.items()
        if tally.files
    ]
    if not total.changed and not result.resumed:
        known = total.unchanged.files
        remarks.append("Nothing has changed since the last update." if known else "No file of any modality was found.")
    if result.pending.files:
        remarks.append(f"To upload: {_tally(result.pending)}.")
    remarks.append(f"Took {duration(result.seconds)}.")
    warnings = [f"{counted(result.problems, 'problem')} in the sources, named above."] if result.problems else []
    resumed = ", continued after an interruption" if result.resumed else ""
    return Report(
        heading=f"Version {result.version} ({result.mode} mode{resumed})",
        table=Table((Column("Modality"), Column("What"), *FILES_AND_SIZE), tuple(rows)) if rows else None,
        remarks=tuple(remarks),
        warnings=tuple(warnings),
        next_step="file upload" if result.pending.files else "",
    )


def _examples(paths: Sequence[str]) -> str:
    return f", e.g. {', '.join(paths)}" if paths else ""


def _kinds(found: ModalityUpdate) -> list[tuple[str, str, str]]:
    """What there is to tell of one modality; one row at least."""
    tallies = {
        "added": found.added,
        "modified": found.modified,
        "renamed": found.renamed,
        "touched": found.touched,
        "retired": found.retired,
        "unchanged": found.unchanged,
    }
    kinds = [(what, count(tally.files), size(tally.bytes)) for what, tally in tallies.items() if tally.files]
    if found.unreadable:
        kinds.append(("not journaled", count(found.unreadable), ""))
    return kinds or [("no files", count(0), "")]


def _named_rows(name: str, kinds: Iterable[tuple[str, str, str]], *, emphasis: str = "") -> list[Row]:
    """Rows of one modality; the name stands only in the first."""
    rows = []
    for index, (what, number, volume) in enumerate(kinds):
        row_emphasis = "bad" if what == "not journaled" else emphasis
        rows.append(Row((name if index == 0 else "", what, number, volume), row_emphasis))
    return rows


def _upload(result: UploadFinished) -> Report:
    done = result.delivered
    rows = []
    if done.files or result.submission:
        rows.append(Row(("delivered", count(done.files), size(done.bytes))))
    if result.already_there.files:
        rows.append(Row(("already there", count(result.already_there.files), size(result.already_there.bytes))))
    if result.failed:
        rows.append(Row(("failed", count(result.failed), ""), "bad"))
    rows.append(Row(("still to upload", count(result.remaining.files), size(result.remaining.bytes)), "total"))
    heading = f"Submission {result.submission} to" if result.submission else "Nothing was sent to"
    return Report(
        heading=f"{heading} {result.destination}",
        table=Table((Column("What"), *FILES_AND_SIZE), tuple(rows)),
        remarks=tuple(_about_upload(result)),
        warnings=tuple(_warnings_of_upload(result)),
        next_step=_after_upload(result),
    )


def _about_upload(result: UploadFinished) -> Iterator[str]:
    if result.spared:
        yield f"{size(result.spared)} were there already or were copied inside the service."
    if result.evidence:
        yield f"Proven by: {_counts({str(kind): number for kind, number in result.evidence.items()})}."
    for manifest in result.manifests:
        yield f"Manifest: {manifest}"
    took = f"Took {duration(result.seconds)}"
    went_out = result.delivered.bytes - result.spared
    if went_out > 0 and result.seconds >= 1:
        took += f", {rate(went_out / result.seconds)}"
    yield f"{took}."


def _warnings_of_upload(result: UploadFinished) -> Iterator[str]:
    if result.replaced:
        yield f"{files(result.replaced)} replaced other content under the same key, named above."
    if result.failed:
        yield f"{files(result.failed)} could not be delivered, named above."
    if result.manifests_refused:
        yield f"No manifest or journal copy could be put into {', '.join(result.manifests_refused)}, as said above."


def _after_upload(result: UploadFinished) -> str:
    if result.failures.keys() & {FailureKind.CHANGED, FailureKind.VANISHED}:
        # The journal no longer says what the source holds; sending again would only say so again.
        return "journal update"
    if result.remaining.files or result.manifests_refused:
        return "file upload"
    return "file verify" if result.submission else ""


_VERDICTS = {
    VerifyResult.MATCHED: "as the journal says",
    VerifyResult.MISSING: "missing",
    VerifyResult.SIZE_DIFFERS: "another size",
    VerifyResult.CHECKSUM_DIFFERS: "another checksum",
    VerifyResult.UNREADABLE: "could not be read",
    VerifyResult.NOT_IN_JOURNAL: "not in the journal",
}


def verdict(result: VerifyResult) -> str:
    """Return what was found for one object, in words."""
    return _VERDICTS[result]


def _verify(result: VerifyFinished) -> Report:
    rows = [
        Row((verdict(kind), count(number)), "" if kind.is_good else "bad")
        for kind, number in result.results.items()
        if number or kind is VerifyResult.MATCHED
    ]
    return Report(
        heading=f"Checked {_few(result.versions) or 'no version'} in {result.destination}",
        table=Table((Column("Found"), Column("Files", numeric=True)), tuple(rows)) if rows else None,
        remarks=tuple(_about_verification(result)),
        warnings=tuple(_warnings_of_verification(result)),
        next_step=_after_verification(result),
    )


def _about_verification(result: VerifyFinished) -> Iterator[str]:
    if result.evidence:
        yield f"Evidence: {_counts({str(kind): number for kind, number in result.evidence.items()})}."
    if result.sample is not None:
        yield f"Sample: {result.sample}, chosen by --seed {result.seed}."
    if result.read_back.files:
        yield f"Read back: {_tally(result.read_back)}."
    if result.results.get(VerifyResult.MISSING):
        yield (
            "What is missing was delivered, as said above: ask the receiver, who may have taken it over, before"
            " anything is done. Nothing sends it again by itself."
        )
    if _differing(result):
        yield "Ask first who wrote to the store."
    if _differing(result) > result.superseded:
        yield "To send a file again that is not as it was: `file mark-as-deleted`, `journal update`, `file upload`."
    if result.superseded:
        yield (
            f"What {files(result.superseded)} had in an earlier version is not sent again by anything: the source has"
            " it no more. Only a copy of the store brings it back."
        )
    if result.results.get(VerifyResult.UNREADABLE):
        yield "What could not be read is neither confirmed nor refuted: check again later."
    yield from _extent(result)
    yield f"Took {duration(result.seconds)}."


def _extent(result: VerifyFinished) -> Iterator[str]:
    """Name what was checked, and what was not."""
    if result.pending.files:
        yield f"Still to upload: {_tally(result.pending)}, of {_versions(result.pending_versions)}."
    scope = _scope(result)
    if scope:
        yield f"Only files{scope} were looked at."
    if result.is_good:
        yield (
            f"Everything{scope} that the journal calls delivered of {_versions(result.versions)} is in the central"
            f" store: {files(result.checked)}."
        )
    if result.unchecked:
        everything = "they are" if scope else "everything is"
        yield f"Not checked: {_versions(result.unchecked)}. With --all-versions {everything}."
    elif result.versions:
        yield (
            f"No file{scope} of another version has been delivered."
            if scope
            else "No other version has been delivered."
        )


def _scope(result: VerifyFinished) -> str:
    """Return of what files were looked at, as it follows a word; empty where all were."""
    of = [", ".join(result.modalities or ()), f"patient {', '.join(result.patients)}" if result.patients else ""]
    return "".join(f" of {each}" if number == 0 else f" and of {each}" for number, each in enumerate(filter(None, of)))


def _warnings_of_verification(result: VerifyFinished) -> Iterator[str]:
    if result.bad:
        yield f"{files(result.bad)} {'needs' if result.bad == 1 else 'need'} attention, named above."
    if not result.checked:
        of = f" of {_versions(result.versions)}" if result.versions else ""
        scope = _scope(result)
        files_of = f" of files{scope}" if scope else ""
        yield f"Nothing was checked: the journal has no delivery{files_of}{of} to this central store."


def _after_verification(result: VerifyFinished) -> str:
    if _differing(result) > result.superseded:
        return "file mark-as-deleted --file PATH"
    return "file upload" if result.pending.files else ""


def _differing(result: VerifyFinished) -> int:
    """Return the number of objects that are there and are not what was delivered."""
    return sum(number for kind, number in result.results.items() if kind.is_other)


def _versions(labels: tuple[str, ...]) -> str:
    return f"version {labels[0]}" if len(labels) == 1 else f"versions {_few(labels)}"


_MOST_NAMED = 10


def _few(labels: tuple[str, ...]) -> str:
    """Return names in a row, those in the middle only counted when there are many; empty for none."""
    if len(labels) > _MOST_NAMED:
        return f"{', '.join(labels[:2])}, {count(len(labels) - 3)} more and {labels[-1]}"
    return " and ".join(filter(None, (", ".join(labels[:-1]), *labels[-1:])))


def _marked(result: FilesMarked) -> Report:
    rows = tuple(Row((path, reason), "bad") for path, reason in result.refused.items())
    return Report(
        heading=f"{files(result.marked)} marked as {result.what}",
        table=Table((Column("Not marked"), Column("Because")), rows) if rows else None,
        warnings=(f"{files(len(rows))} not marked.",) if rows else (),
    )


def _checked_out(result: JournalCheckedOut) -> Report:
    if result.created:
        how = "There was no journal yet: a new one was made and locked"
    elif result.resumed:
        how = "The journal was checked out by you before: going on with"
    else:
        how = "The journal is checked out and locked"
    return Report(heading=f"{how}: {result.local}", remarks=(f"In the cloud: {result.cloud}",))


def _checked_in(result: JournalCheckedIn) -> Report:
    how = "unlocked; there was nothing to write back" if result.unchanged else "checked in and unlocked"
    return Report(heading=f"The journal is {how}: {result.cloud}")


_UPGRADED_COLUMNS = (
    Column("Version"),
    Column("Modality"),
    Column("Rows", numeric=True),
    Column("Files", numeric=True),
    Column("Uploaded", numeric=True),
    Column("Active", numeric=True),
    Column("Size", numeric=True),
    Column("To upload", numeric=True),
    Column("Size", numeric=True),
)


def _upgraded(result: JournalUpgraded) -> Report:
    rows = []
    previous = ""
    for part in result.parts:
        label = "" if part.version == previous else part.version
        previous = part.version
        volumes = (part.active, part.pending)
        cells = (count(part.rows), count(part.files.files), count(part.uploaded))
        rows.append(
            Row(
                (
                    label,
                    part.modality,
                    *cells,
                    *(cell for each in volumes for cell in (count(each.files), size(each.bytes))),
                )
            )
        )
    return Report(
        heading=f"The journal is upgraded: {result.journal}",
        table=Table(_UPGRADED_COLUMNS, tuple(rows)) if rows else None,
        remarks=tuple(_about_upgrade(result)),
        warnings=tuple(_warnings_of_upgrade(result)),
        next_step="journal update" if result.in_cloud else "",
    )


def _about_upgrade(result: JournalUpgraded) -> Iterator[str]:
    yield (
        "Both journals were counted, and agree in files, bytes, uploads, versions and history"
        f" ({counted(result.submissions, 'submission')}, {counted(result.commands, 'command')})."
    )
    if touched := sum(part.rows - part.files.files for part in result.parts):
        yield f"{counted(touched, 'row')} only said that a file was touched: that is in the files' rows now."
    to = ", ".join(result.sent_to) or "another store"
    if result.is_new_destination:
        yield f"Uploads went to {to}; nothing counts as delivered to {result.destination}."
    elif result.sent_to:
        yield f"Uploads went to {to}; they count as deliveries to {result.destination}."
    yield f"The original is kept: {result.original}"
    if not result.in_cloud:
        yield "This is a file on this machine: the cloud and its journal are as they were."
    yield f"Took {duration(result.seconds)}."


def _warnings_of_upgrade(result: JournalUpgraded) -> Iterator[str]:
    if result.omitted:
        yield f"{counted(result.omitted, 'row')} left out, named above."
    for remark in result.remarks:
        more = ", ..." if remark.count > len(remark.examples) else ""
        yield f"{count(remark.count)}x: {remark.reason} ({', '.join(remark.examples)}{more})"


def _counts(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count(number)}" for name, number in numbers.items() if number)


def _tally(tally: Tally) -> str:
    return f"{files(tally.files)}, {size(tally.bytes)}"


_REPORTS: dict[type[Result], Callable[[Any], Report]] = {
    UpdateFinished: _update,
    UploadFinished: _upload,
    VerifyFinished: _verify,
    DownloadFinished: of_download,
    RemoteUploaded: of_remote_upload,
    RemoteDeleted: of_remote_deletion,
    FilesMarked: _marked,
    JournalCheckedOut: _checked_out,
    JournalCheckedIn: _checked_in,
    JournalUpgraded: _upgraded,
}
