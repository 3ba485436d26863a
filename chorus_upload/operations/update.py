"""`journal update`: record the present state of the source trees as a version.

::

    sources ──walk──▶ observation ──one query──▶ NEW, SUSPECT, GONE
                                                     │ refuse what looks like an unmounted share
                                                     ▼
                           read and hash (pool) ──▶ apply in batches ──▶ retire GONE ──▶ version complete

Nothing is written before the scan is complete and its result plausible. An interruption after that leaves
the version open; whatever was applied is the same at the next scan, so the next update goes on from there.
"""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from chorus_upload.config.own_secrets import SecretSearch
from chorus_upload.config.settings import Settings
from chorus_upload.errors import (
    ConfigError,
    CredentialsExpired,
    DestinationChanged,
    NotAsStored,
    StorageError,
    TlsError,
)
from chorus_upload.events import (
    Emit,
    Level,
    ModalityUpdate,
    Notice,
    ProblemFound,
    ReadProgressed,
    Tally,
    UpdateFinished,
)
from chorus_upload.journal import deliveries, mounts, outside, scans, versions
from chorus_upload.journal.deliveries import Selection
from chorus_upload.journal.diff import Candidate
from chorus_upload.journal.doubts import SameKey
from chorus_upload.journal.journal import Journal, now_us
from chorus_upload.journal.observation import Observation
from chorus_upload.journal.who import Who
from chorus_upload.layout import new_version_label, unfit_label
from chorus_upload.model import FingerprintTime, JournalingMode, Problem, ProblemKind, Reading
from chorus_upload.operations.central import Keys, destination_url
from chorus_upload.operations.deletions import Deletions
from chorus_upload.operations.destination import destination_of
from chorus_upload.operations.pace import Pace
from chorus_upload.operations.scanning import Scan, open_sources
from chorus_upload.operations.selecting import require_fit, require_not_older, selected_modalities
from chorus_upload.storage.source import FileStat, Source
from chorus_upload.transfer.pool import AdaptivePool, Pool
from chorus_upload.transfer.reader import read_file

PIECE_FILES = 64
PIECE_BYTES = 4 << 20
BATCH_FILES = 20_000
BATCH_SECONDS = 1.0
MOST_GIVEN_UP = 4
"""When a service did not give so many files in a row, in spite of all patience, it gives none."""

Piece = list[Candidate]
PieceRead = list[tuple[Candidate, Reading | Problem | StorageError]]


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateRequest:
    """What the user asked for. `modalities` None means all that are configured."""

    version: str | None = None
    amend: bool = False
    modalities: tuple[str, ...] | None = None
    confirm_deletions: bool = False
    confirm_outside: bool = False
    list_outside: bool = False
    forget_mounts: tuple[str, ...] = ()


def update(
    journal: Journal, settings: Settings, request: UpdateRequest, *, emit: Emit, pool: Pool | None = None
) -> UpdateFinished:
    """Bring the journal up to date with the sources.

    Raises ConfigError for an unknown modality, a bad label and that of an older version, and DeletionRefused when a
    source is missing, empty or has lost more than `deletion_limit` of a modality (nothing is recorded then).
    """
    begun = time.monotonic()
    begun_us = now_us()
    modalities = selected_modalities(settings, request.modalities)
    if "Metadata" not in settings.modalities and "modalities" not in settings.origins:
        emit(Notice("no Metadata is recorded: there is no [site_path.Metadata], and no default path", Level.WARNING))
    label, resumed = _choose_version(journal, request)
    if resumed:
        emit(Notice(f"version {label} was not finished: going on with it"))
    forgotten = _mounts_to_forget(journal, request.forget_mounts)
    ids = scans.modality_ids(journal, modalities)
    with (
        open_sources(settings, modalities) as (trees, sources),
        Observation(journal, ids, begun_us=begun_us) as observation,
    ):
        problems: dict[str, int] = {}
        walked: list[Scan] = []
        for tree in trees:
            scan = Scan(
                tree,
                observation,
                patient_first=settings.central.patient_first,
                list_outside=request.list_outside,
                emit=emit,
            )
            scan.run(missing_is_empty=request.confirm_deletions)
            walked.append(scan)
            _add(problems, scan.problems)
        labels = {label, *(each.label for each in versions.ordered(journal))}
        for left_out in observation.leave_out_versions(unfit_label, labels):
            found = Problem(ProblemKind.INVALID_NAME, left_out.directory, f"{left_out.reason}: rename that directory")
            emit(ProblemFound(found, sources[left_out.modality].url, left_out.modality))
            _add(problems, {left_out.modality: 1})
        keys = Keys(settings)
        for same in observation.compare(
            complete=settings.mode is JournalingMode.FULL,
            version=label,
            key_of=lambda modality, path: keys.key_or_none(modality=modality, path=path, version=label),
        ):
            found = _same_key(same)
            emit(ProblemFound(found, sources[same.modality].url, same.modality))
            _add(problems, {same.modality: int(found.kind.needs_attention)})
        deletions = Deletions(
            settings,
            observation,
            sources,
            confirmed=request.confirm_deletions,
            outside_confirmed=request.confirm_outside,
            emit=emit,
        )
        for scan in walked:
            deletions.hold_unmounted(scan, mounts.known(journal) - forgotten)
        deletions.require_plausible()
        intended = deletions.hold_moved(walked, outside.known(journal))
        _add(problems, deletions.problems)
        if settings.mode is JournalingMode.FULL and not request.confirm_deletions:
            for scan in walked:
                _add(problems, scan.told_if_empty())
        version_id = versions.reopen(journal, label, mode=settings.mode, who=Who.here())
        observation.begin(version_id)
        application = _Application(settings, observation, sources, emit=emit)
        stop = application.stop
        application.run(pool or AdaptivePool(settings.num_threads, is_long=_is_long, stop=stop))
        _add(problems, application.problems)
        retired = observation.retire_gone()
        results = {
            modality: ModalityUpdate(
                added=application.tally(modality, "added"),
                modified=application.tally(modality, "modified"),
                touched=application.tally(modality, "touched"),
                renamed=application.tally(modality, "renamed"),
                retired=retired[modality],
                unchanged=_less(observation.seen[modality], application.not_same[modality]),
                unreadable=problems.get(modality, 0),
            )
            for modality in modalities
        }
        roots = {modality: source.url for modality, source in sources.items()}
        scans.record(
            journal, version_id, results, modality_ids=ids, roots=roots, seen=observation.seen, begun_us=begun_us
        )
        seen = {point for scan in walked for point in scan.mount_points}
        mounts.record(journal, seen, forgotten=forgotten)
        outside.record(journal, intended)
    versions.complete(journal, version_id)
    return UpdateFinished(
        version=label,
        mode=settings.mode,
        resumed=resumed,
        modalities=results,
        outside={tree.source.url: scan.outside for tree, scan in zip(trees, walked, strict=True)},
        outside_examples={
            tree.source.url: tuple(scan.outside_examples) for tree, scan in zip(trees, walked, strict=True)
        },
        problems=sum(problems.values()),
        pending=_pending(journal, settings, modalities, emit=emit),
        seconds=time.monotonic() - begun,
    )


def _choose_version(journal: Journal, request: UpdateRequest) -> tuple[str, bool]:
    """The label to record under, and whether that goes on with an update that was interrupted."""
    if request.version is not None:
        require_fit(journal, request.version)
        require_not_older(journal, request.version)
    last = versions.last(journal)
    is_open = last is not None and last.completed_us is None
    if request.version is not None:
        return request.version, is_open and last is not None and last.label == request.version
    if last is not None and (is_open or request.amend):
        return last.label, is_open
    if request.amend:
        raise ConfigError("--amend: the journal has no version yet", hint="Leave it out: this update makes one.")
    moment = datetime.now().astimezone()
    while versions.find(journal, new_version_label(moment)):
        moment += timedelta(seconds=1)
    return new_version_label(moment), False


def _mounts_to_forget(journal: Journal, given: tuple[str, ...]) -> set[str]:
    """The mount points that are to be none any more; ConfigError for what the journal knows nothing of."""
    known = mounts.known(journal)
    forgotten = {os.path.abspath(path) for path in given}  # noqa: PTH100 - links stay what they are
    for path in sorted(forgotten - known):
        listed = ", ".join(sorted(known)) or "none"
        raise ConfigError(f"--forget-mount: {path} was never a mount point of a source", hint=f"Known are: {listed}.")
    return forgotten


def _same_key(same: SameKey) -> Problem:
    if same.only_alike:
        detail = (
            f"its central key differs from that of {same.kept} only in case or in the form of its Unicode: where files"
            " are kept without telling them apart (Windows, macOS), one would take the other's place"
        )
        return Problem(ProblemKind.KEYS_DIFFER_ONLY_IN_CASE, same.path, detail)
    detail = f"has the same central key as {same.kept}; only one of them can be uploaded, rename one"
    return Problem(ProblemKind.SAME_KEY, same.path, detail)


def _add(problems: dict[str, int], found: Mapping[str, int]) -> None:
    for modality, count in found.items():
        problems[modality] = problems.get(modality, 0) + count


def _pending(journal: Journal, settings: Settings, modalities: tuple[str, ...], *, emit: Emit) -> Tally:
    try:
        url = destination_of(journal, settings)
    except DestinationChanged as error:
        # The sources are recorded all the same; it is the upload that has to know.
        emit(Notice(f"{error.message}. `file upload` will ask what is right", Level.WARNING))
        url = destination_url(settings.central.location)
    return deliveries.pending_tally(journal, url=url, selection=Selection(modalities=modalities))


def _less(whole: Tally, part: Tally) -> Tally:
    return Tally(whole.files - part.files, whole.bytes - part.bytes)


def _is_long(piece: Piece) -> bool:
    return sum(candidate.size for candidate in piece) >= PIECE_BYTES


def _seen(candidate: Candidate) -> FileStat:
    return FileStat(candidate.size, candidate.mtime_us)


class _Application:
    """Reads the candidates and applies what was read, in batches that are each one transaction."""

    def __init__(
        self, settings: Settings, observation: Observation, sources: Mapping[str, Source], *, emit: Emit
    ) -> None:
        self._settings = settings
        self._observation = observation
        self._names = {key: name for name, key in observation.modalities.items()}
        self._sources = {key: sources[name] for key, name in self._names.items()}
        self._emit = emit
        self._holds_secret = SecretSearch.of(settings)
        self.stop = threading.Event()
        self._changes: defaultdict[tuple[str, str], Tally] = defaultdict(Tally)
        self.not_same: defaultdict[str, Tally] = defaultdict(Tally)
        """What is not unchanged, as it was observed."""
        self.problems: dict[str, int] = {}
        self._batch: list[tuple[Candidate, Reading]] = []
        self._files = self._bytes = self._given_up = 0
        self._path = ""
        self._commit_pace, self._report_pace = Pace(BATCH_SECONDS), Pace(0.2)

    def tally(self, modality: str, change: str) -> Tally:
        """How much was changed in that way (see `Applied`)."""
        return self._changes[modality, change]

    def run(self, pool: Pool) -> None:
        """Read and apply everything."""
        with pool.run(self._read, self._pieces()) as pieces:
            for piece in pieces:
                for candidate, reading in piece or ():
                    self._take(candidate, reading)
                self._apply_if_due()
        self._apply()
        if self._observation.work.files:
            self._tell()

    def _pieces(self) -> Iterator[Piece]:
        """Group the candidates so that handing them to a thread costs little beside reading them.

        What is not read at all does not go through the pool: it enters the journal in the order in which it was seen.
        Neither does what is best read in that order.
        """
        piece: Piece = []
        size = 0
        for candidate in self._candidates():
            if not self._needs_reading(candidate):
                self._take(candidate, Reading(candidate.size, candidate.mtime_us))
                self._apply_if_due()
                continue
            if self._sources[candidate.modality_id].is_sequential:
                self._take(candidate, self._read_one(candidate))
                self._apply_if_due()
                continue
            piece.append(candidate)
            size += candidate.size
            if len(piece) >= PIECE_FILES or size >= PIECE_BYTES:
                yield piece
                piece, size = [], 0
        if piece:
            yield piece

    def _candidates(self) -> Iterable[Candidate]:
        for page in self._observation.candidates():
            yield from page

    def _read(self, piece: Piece) -> PieceRead:
        """Runs in the threads of the pool."""
        return [(candidate, self._read_one(candidate)) for candidate in piece]

    def _read_one(self, candidate: Candidate) -> Reading | Problem | StorageError:
        source = self._sources[candidate.modality_id]
        with_md5 = bool(candidate.needs_md5)
        expected, search = _seen(candidate), self._holds_secret
        try:
            return read_file(
                source, candidate.path, expected=expected, with_md5=with_md5, stop=self.stop, holds_secret=search
            )
        except (CredentialsExpired, TlsError):
            raise
        except StorageError as error:
            # Only a service says that, of this file perhaps.
            return error

    def _needs_reading(self, candidate: Candidate) -> bool:
        if self._sources[candidate.modality_id].is_remote:
            # A new release has new times and mostly the same files: reading one costs no more than sending it again.
            return bool(candidate.known_content and candidate.same_size and not candidate.is_told)
        if self._settings.fingerprint is FingerprintTime.ON_UPDATE:
            return True
        if candidate.is_new:
            # Reading it may save sending it.
            return bool(candidate.may_be_renamed)
        return bool(candidate.known_content and candidate.same_size)

    def _report(self, candidate: Candidate, problem: Problem) -> None:
        modality = self._names[candidate.modality_id]
        self.problems[modality] = self.problems.get(modality, 0) + problem.kind.needs_attention
        self.not_same[modality] += Tally(1, candidate.size)
        self._emit(ProblemFound(problem, self._sources[candidate.modality_id].url, modality))

    def _take(self, candidate: Candidate, reading: Reading | Problem | StorageError) -> None:
        self._files += 1
        self._bytes += candidate.size
        self._path = candidate.path
        if isinstance(reading, StorageError):
            reading = self._given_up_on(candidate, reading)
        else:
            self._given_up = 0
        if isinstance(reading, Problem):
            self._report(candidate, reading)
        else:
            self._batch.append((candidate, reading))

    def _given_up_on(self, candidate: Candidate, error: StorageError) -> Problem:
        """What to say of a file that a service does not give; raises the error when it gives none."""
        self._given_up += not isinstance(error, NotAsStored)
        if self._given_up >= MOST_GIVEN_UP:
            raise error
        return Problem(ProblemKind.UNREADABLE_FILE, candidate.path, error.message)

    def _apply_if_due(self) -> None:
        if self._batch and (len(self._batch) >= BATCH_FILES or self._commit_pace.is_due()):
            self._apply()
        if self._report_pace.is_due():
            self._tell()

    def _tell(self) -> None:
        total = self._observation.work
        self._emit(ReadProgressed(self._files, total.files, self._bytes, total.bytes, self._path))

    def _apply(self) -> None:
        batch, self._batch = self._batch, []
        if not batch:
            return
        self._observation.clock_says(now_us())
        for applied in self._observation.apply(batch):
            self._changes[applied.modality, applied.change] += applied.read
            if applied.change != "unchanged":
                self.not_same[applied.modality] += applied.observed
