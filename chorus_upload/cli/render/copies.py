"""What was brought back, put beside the journal, or deleted, in words."""

from __future__ import annotations

from chorus_upload.cli.render.formats import count, duration, files, size
from chorus_upload.cli.render.tables import Column, Report, Row, Table
from chorus_upload.events import DownloadFinished, ExtraFiles, RemoteDeleted, RemoteUploaded

FILES_AND_SIZE = (Column("Files", numeric=True), Column("Size", numeric=True))


def of_download(result: DownloadFinished) -> Report:
    """The result of `file download` and `remote download`."""
    rows = [Row(("fetched", count(result.fetched.files), size(result.fetched.bytes)))]
    if result.was_there.files:
        rows.append(Row(("there already", count(result.was_there.files), size(result.was_there.bytes))))
    rows += [Row((str(kind), count(number), ""), "bad") for kind, number in result.failures.items()]
    remarks = [f"Took {duration(result.seconds)}."]
    if not result.failed:
        right = "is what the journal says" if result.version else "came whole"
        remarks.insert(0, f"Every file of it is there, and {right}.")
    warnings = [f"{files(result.failed)} could not be brought back, named above."] if result.failed else []
    if (extra := result.extra) is not None and extra.files:
        if extra.removed:
            remarks.insert(-1, f"Removed what the version does not have: {_named(extra, extra.removed)}.")
        if extra.why_kept:
            warnings.append(f"In the target and not in the version: {_named(extra, extra.files)}; {extra.why_kept}.")
        if extra.kept:
            warnings.append(f"{files(extra.kept)} that the version does not have could not be removed, named above.")
        if not (extra.removed or extra.why_kept or extra.kept):
            warnings.append(f"Left in the target, and not in the version: {_named(extra, extra.files)}.")
    return Report(
        heading=f"{f'Version {result.version}' if result.version else result.origin} in {result.target}",
        table=Table((Column("What"), *FILES_AND_SIZE), tuple(rows)),
        remarks=tuple(remarks),
        warnings=tuple(warnings),
    )


def _named(extra: ExtraFiles, number: int) -> str:
    more = ", ..." if number > len(extra.first) else ""
    return f"{files(number)} ({', '.join(extra.first)}{more})"


def of_remote_upload(result: RemoteUploaded) -> Report:
    """The result of `remote upload`."""
    rows = [Row(("sent", count(result.sent.files), size(result.sent.bytes)))]
    if result.already_there.files:
        rows.append(Row(("already there", count(result.already_there.files), size(result.already_there.bytes))))
    if result.failed:
        rows.append(Row(("failed", count(result.failed), ""), "bad"))
    if result.left_out:
        rows.append(Row(("left out", count(result.left_out), ""), "bad"))
    return Report(
        heading=f"To {result.destination}",
        table=Table((Column("What"), *FILES_AND_SIZE), tuple(rows)),
        remarks=(f"Took {duration(result.seconds)}.",),
        warnings=(f"{files(result.failed)} could not be delivered, named above.",) if result.failed else (),
    )


def of_remote_deletion(result: RemoteDeleted) -> Report:
    """The result of `remote delete`."""
    rows = tuple(Row((key, reason), "bad") for key, reason in result.refused.items())
    return Report(
        heading=f"{files(result.deleted.files)}, {size(result.deleted.bytes)}, deleted from {result.place}",
        table=Table((Column("Not deleted"), Column("Because")), rows) if rows else None,
        warnings=(f"{files(len(rows))} not deleted.",) if rows else (),
    )
