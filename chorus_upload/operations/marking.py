"""`file mark_as_*`: record by hand what did not go through `file upload` or `journal update`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from chorus_upload.config.settings import Settings
from chorus_upload.errors import ConfigError, LayoutError
from chorus_upload.events import Emit, FileDelivered, FilesMarked, Level, Notice
from chorus_upload.journal import deliveries, files, submissions, versions
from chorus_upload.journal.deliveries import PendingFile, Selection
from chorus_upload.journal.journal import Journal
from chorus_upload.journal.who import Who
from chorus_upload.model import Delivered, Failed, Transfer
from chorus_upload.operations.central import Keys, PlannedKeys, every_name, transfer_of
from chorus_upload.operations.destination import Choice, store_of
from chorus_upload.operations.proof import leave_proofs
from chorus_upload.operations.refusals import Refusals, require_access
from chorus_upload.operations.scanning import open_sources
from chorus_upload.operations.selecting import require_fit, require_not_older
from chorus_upload.scripting.work import RESULTS_TITLE
from chorus_upload.storage.network import Network
from chorus_upload.storage.open import is_sequential, open_store
from chorus_upload.storage.traffic import Traffic
from chorus_upload.transfer.meter import Meter
from chorus_upload.transfer.pool import Pool, ThreadPool
from chorus_upload.transfer.sender import Sender, Terms

RECORD_FILES = 500


def mark_as_uploaded(
    journal: Journal,
    settings: Settings,
    *,
    upload_datetime: str,
    paths: Sequence[str] | None,
    emit: Emit,
    pool: Pool | None = None,
    destination: Choice | None = None,
) -> FilesMarked:
    """Record as delivered what is pending and is in the central store already, by whatever way it got there.

    Each object is read back and compared with its source; only what matches is marked. `paths` None means
    all that is pending. `upload_datetime` (YYYYMMDDHHMMSS or ISO 8601) names the submission.
    """
    label = _submission_label(upload_datetime)
    wanted = None if paths is None else set(paths)
    refused = dict.fromkeys(wanted or (), "it is not pending")

    def is_wanted(file: PendingFile) -> bool:
        return wanted is None or file.path in wanted

    return _mark(journal, settings, is_wanted, refused, label=label, emit=emit, pool=pool, destination=destination)


def mark_results(
    journal: Journal,
    settings: Settings,
    results: Sequence[Path],
    *,
    emit: Emit,
    pool: Pool | None = None,
    destination: Choice | None = None,
) -> FilesMarked:
    """The same for what generated scripts say that they have sent, in their results files; then a manifest is left.

    What is recorded already is passed over. Raises ConfigError for a file that holds no results of scripts for this
    central store.
    """
    url = store_of(journal, settings, destination, writes=True)
    names = every_name(settings.central.location)
    sent = dict(pair for path in results for pair in _read_results(path, names))
    moment = datetime.now().astimezone()
    known = deliveries.known(journal, sorted(sent), url=url)
    refused = {
        file.path: "it is not in the journal any more" for file in known if not (file.is_active or file.is_delivered)
    }
    gone = len(sent) - len(known)
    if gone:
        emit(Notice(f"{gone} of the files in the results are of another journal: they are passed over", Level.WARNING))

    keys = Keys(settings)

    def is_wanted(file: PendingFile) -> bool:
        if file.id not in sent:
            return False
        with suppress(LayoutError):
            # Numbers alone do not tell the files of different journals apart.
            if keys.key(modality=file.modality, path=file.path, version=file.version) != sent[file.id]:
                refused[file.path] = f"the results name another key: {sent[file.id]}"
                return False
        return True

    return _mark(
        journal,
        settings,
        is_wanted,
        refused,
        label=moment.strftime("%Y%m%d%H%M%S"),
        emit=emit,
        pool=pool,
        leaving_proof=True,
    )


_NUMBER = re.compile(r"[0-9]{1,18}")
"""What a file can have as its number in a journal."""


def _read_results(path: Path, names: Sequence[str]) -> Iterator[tuple[int, str]]:
    """The numbers of files in a results file, with their keys."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as lines:
            title = next(lines, "").rstrip()
            if title not in [f"{RESULTS_TITLE} {name}" for name in names]:
                raise ConfigError(f"{path} does not hold results of a script for {names[0]}")
            for line in lines:
                number, _, key = line.rstrip("\n").partition(" ")
                # A kill may have cut a line short.
                if key and _NUMBER.fullmatch(number):
                    yield int(number), key
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error


def _mark(  # noqa: PLR0913 - each is a choice of its own
    journal: Journal,
    settings: Settings,
    is_wanted: Callable[[PendingFile], bool],
    refused: dict[str, str],
    *,
    label: str,
    emit: Emit,
    pool: Pool | None,
    destination: Choice | None = None,
    leaving_proof: bool = False,
) -> FilesMarked:
    url = store_of(journal, settings, destination, writes=True)
    in_order = [name for name in settings.modalities if is_sequential(settings.sites[name].location)]
    deliveries.plan(journal, url=url, selection=Selection(modalities=settings.modalities), in_order=in_order)
    marked = 0
    submission = submissions.begin(journal, url=url, label=label, who=Who.here(), resume=False)
    with (
        open_sources(settings, settings.modalities) as (_, sources),
        open_store(settings.central.location, Network.of(settings)) as store,
    ):
        traffic = Traffic(settings.num_threads, patience=settings.retry_seconds)
        keys = PlannedKeys(journal, settings, destination=submission.destination_id)
        sender = Sender(sources, store, Terms(), meter=Meter(), traffic=traffic)
        transfers = _announced(sender, _pending(journal, keys, is_wanted, refused))
        proven: list[Delivered] = []
        refusals = Refusals(store.probe)
        try:
            with (pool or ThreadPool(settings.num_threads)).run(sender.recognise, transfers) as outcomes:
                for outcome in outcomes:
                    match outcome:
                        case Delivered():
                            refusals.accepted()
                            proven.append(outcome)
                            marked += 1
                            refused.pop(outcome.transfer.path, None)
                            emit(FileDelivered.of(outcome))
                        case Failed():
                            refused[outcome.transfer.path] = outcome.detail
                            require_access(outcome, refusals)
                    if len(proven) >= RECORD_FILES:
                        deliveries.record(journal, submission, proven)
                        proven = []
        finally:
            deliveries.record(journal, submission, proven)
        if leaving_proof and marked:
            refused |= leave_proofs(journal, settings, submission, store, emit=emit).refused
    submissions.complete(journal, submission)
    return FilesMarked(what="uploaded", marked=marked, refused=refused)


def mark_as_deleted(
    journal: Journal, settings: Settings, *, paths: Sequence[str], version: str | None, emit: Emit
) -> FilesMarked:
    """Retire files by their paths, in every modality; how deletion works in append mode.

    `version` is the one that retires them: new, or the last one, which None means. ConfigError for an older one.
    """
    if version is not None:
        require_fit(journal, version)
        require_not_older(journal, version)
    last = versions.last(journal)
    label = version or (last.label if last else None)
    if label is None:
        raise ConfigError("the journal has no version yet, so there is nothing to mark")
    missing = files.retire_marked(journal, paths, version=label, mode=settings.mode, who=Who.here())
    return FilesMarked(
        what="deleted",
        marked=len(set(paths)) - len(missing),
        refused=dict.fromkeys(missing, "the journal has no active file of that path"),
    )


def _submission_label(text: str) -> str:
    try:
        moment = datetime.strptime(text, "%Y%m%d%H%M%S").astimezone()
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise ConfigError(
                f"{text!r} is not a date and time", hint="Write it as YYYYMMDDHHMMSS, or as 2026-01-31T17:00:00."
            ) from None
    return moment.strftime("%Y%m%d%H%M%S")


def _announced(sender: Sender, transfers: Iterator[Transfer]) -> Iterator[Transfer]:
    for transfer in transfers:
        sender.announce(transfer)
        yield transfer


def _pending(
    journal: Journal, keys: PlannedKeys, is_wanted: Callable[[PendingFile], bool], refused: dict[str, str]
) -> Iterator[Transfer]:
    for page in deliveries.planned(journal):
        wanted = [file for file in page if is_wanted(file)]
        for file, key in zip(wanted, keys.of(wanted), strict=True):
            if isinstance(key, LayoutError):
                refused[file.path] = key.message
            else:
                yield transfer_of(file, key=key)
