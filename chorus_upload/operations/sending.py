"""Sends the plan of an upload: feeds the pool of senders, and records what is proven.

There are two passes. In the second are files whose content is in the first, too: by then the journal knows
where the service has it, and it can be asked for a copy.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import NoReturn

from chorus_upload.config.settings import Settings
from chorus_upload.errors import AccessDenied, ChorusError, LayoutError, StorageError
from chorus_upload.events import Notice
from chorus_upload.journal import deliveries, planning
from chorus_upload.journal.deliveries import PendingFile
from chorus_upload.journal.journal import Journal
from chorus_upload.journal.submissions import Submission
from chorus_upload.model import Delivered, Failed, FailureKind, Outcome, Transfer, Twin
from chorus_upload.operations.central import Keys, PlannedKeys, transfer_of
from chorus_upload.operations.outcomes import Outcomes
from chorus_upload.operations.pace import Pace
from chorus_upload.operations.refusals import MOST_DENIED, Refusals
from chorus_upload.transfer.pool import AHEAD, Pool
from chorus_upload.transfer.reader import Stopped
from chorus_upload.transfer.sender import Sender

RECORD_SECONDS = 1.0
REPORT_SECONDS = 0.2
SAMPLE = 10
"""So many files from all over the plan are tried when the first ones were all refused."""
_WITNESSES = 3
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class _Postponed:
    """A transfer that was not begun, because it is being found out whether anything is accepted at all."""

    transfer: Transfer


class Run:
    """One run over the plan; what becomes of the files goes to `outcomes`.

    `probe` raises when there is no service. A file that fails while the service responds is tried once more at the end,
    for as long as nothing else has gone through for `patience` seconds.
    """

    def __init__(
        self,
        journal: Journal,
        settings: Settings,
        submission: Submission,
        sender: Sender,
        outcomes: Outcomes,
        *,
        probe: Callable[[], None],
        stop: threading.Event,
    ) -> None:
        self._journal = journal
        self._settings = settings
        self._submission = submission
        self._sender = sender
        self._outcomes = outcomes
        self._stop = stop
        self._keys = PlannedKeys(journal, settings, destination=submission.destination_id)
        self._with_own_folders = Keys(settings).with_own_folders
        self._most_unrecorded = settings.page_size
        # A run that was killed had so many files, at most, on their way or arrived and not recorded. The plan begins
        # with them.
        self._to_look_for = settings.page_size + settings.num_threads + AHEAD if submission.resumed else 0
        self._earlier: dict[int, tuple[bytes, ...]] = {}
        self._distrusted: list[int] = []
        self._unrecorded: list[Delivered] = []
        self._refusals = Refusals(probe)
        self._denied: Failed | None = None
        self._doubt = threading.Event()
        self._doubt_after = MOST_DENIED
        self._is_sampling = False
        self._taken: int | None = None
        self._tried: set[int] = set()
        self._postponed: deque[Transfer] = deque()
        self._is_exhausted = False
        """Whether the plan of this pass has been gone through."""
        self._set_aside: list[Failed] = []
        self._went_through = time.monotonic()

    def send_all(self, pool: Pool, *, at_most: int | None) -> None:
        """Deliver the plan, or `at_most` so many files of it: those that fail do not count.

        Raises what concerns every file (see `Sender.send`), when what was under way is recorded.
        """
        self._earlier = planning.superseded_content(self._journal, with_own_folders=self._with_own_folders)
        try:
            for waiting in (False, True):
                self._taken = None
                self._send_pass(pool, waiting=waiting, at_most=at_most)
            self._send_again(pool, at_most=at_most)
        finally:
            for failed in self._set_aside:
                self._fail(failed)
        if self._denied is None or self._stop.is_set():
            return
        # Too few may have been left for a doubt, or what was accepted before was heard of among them.
        if not self._is_let_in() and not self._outcomes.delivered.files:
            self._require_access()

    def _send_pass(self, pool: Pool, *, waiting: bool, at_most: int | None) -> None:
        plan = self._transfers(waiting=waiting)
        self._is_exhausted = False
        while not self._stop.is_set():
            if self._doubt.is_set():
                self._find_out(pool, waiting=waiting, at_most=at_most)
            if at_most is None:
                self._send_batch(pool, self._next(plan))
                # A doubt ends it early, and may be gone again by now.
                is_done = self._is_exhausted and not self._postponed
            else:
                batch = list(islice(self._next(plan), at_most - self._outcomes.delivered.files))
                self._send_batch(pool, batch)
                is_done = not batch
            if is_done and not self._doubt.is_set():
                return

    def _next(self, plan: Iterator[Transfer]) -> Iterator[Transfer]:
        """What was postponed, and then the plan; it pauses while it is in doubt whether anything is accepted."""
        while not self._doubt.is_set():
            if self._postponed:
                transfer = self._postponed.popleft()
                self._sender.announce(transfer)
            elif (following := next(plan, None)) is not None:
                transfer = following
            else:
                self._is_exhausted = True
                return
            yield transfer

    def _send_again(self, pool: Pool, *, at_most: int | None) -> None:
        """Try again what failed while the service responded to the rest: for as long as the patience is."""
        pause = _FIRST_PAUSE_SECONDS
        while self._set_aside and time.monotonic() < self._went_through + self._settings.retry_seconds:
            if self._stop.wait(pause):
                return
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            room = len(self._set_aside) if at_most is None else at_most - self._outcomes.delivered.files
            batch, self._set_aside = self._set_aside[:room], self._set_aside[room:]
            if not batch:
                return
            for failed in batch:
                self._sender.announce(failed.transfer)
            self._send_batch(pool, [failed.transfer for failed in batch])

    def _find_out(self, pool: Pool, *, waiting: bool, at_most: int | None) -> None:
        """After many refusals in a row: raise AccessDenied if all are refused, and else go on with what comes next.

        What was accepted once shows it: it cannot be written again, as its key is taken, but for whoever may not
        write it is refused in another way. Where nothing was, files from all over the plan are tried.
        """
        self._doubt.clear()
        self._doubt_after *= 2
        self._refusals.begin_again()
        if self._is_let_in():
            return
        room = SAMPLE if at_most is None else min(SAMPLE, at_most - self._outcomes.delivered.files)
        sample = list(self._sample(waiting=waiting, number=room))
        before = self._outcomes.delivered.files
        self._is_sampling = True
        try:
            self._send_batch(pool, sample)
        finally:
            self._is_sampling = False
        if self._outcomes.delivered.files == before and not self._stop.is_set():
            self._raise_denied()

    def _is_let_in(self) -> bool:
        """Whether the store still accepts what it has accepted before; raises AccessDenied if not.

        False when there is nothing by which that could be told.
        """
        for record in deliveries.smallest(
            self._journal, self._submission, modalities=tuple(self._sender.modalities), number=_WITNESSES
        ):
            accepted = self._sender.is_let_in(record.modality, record.path, key=record.key, size=record.size)
            if accepted is False:
                self._raise_denied()
            if accepted:
                return True
        return False

    def _require_access(self) -> None:
        """Nothing went through, and some files were denied: raise AccessDenied if nothing ever has been accepted."""
        if not deliveries.smallest(self._journal, self._submission, modalities=None, number=1):
            self._raise_denied()

    def _raise_denied(self) -> NoReturn:
        detail = self._denied.detail if self._denied else "access is denied"
        raise AccessDenied(detail, hint="Writing has to be allowed for all of the central path.")

    def _sample(self, *, waiting: bool, number: int) -> Iterator[Transfer]:
        """Transfers from all over the rest of the plan; what was postponed, where there is no rest."""
        found = deliveries.sample(
            self._journal, waiting=waiting, after=self._taken, but_for=tuple(self._tried), number=number
        )
        self._tried.update(file.id for file in found)
        chosen = list(self._as_transfers(found))
        if not chosen:
            chosen = [self._postponed.pop() for _ in range(min(number, len(self._postponed)))]
        for transfer in chosen:
            self._sender.announce(transfer)
            yield transfer

    def _send_batch(self, pool: Pool, transfers: Iterable[Transfer]) -> None:
        """What concerns every file ends it: what is under way is finished, then it is raised."""
        trouble: ChorusError | None = None
        record_pace, report_pace = Pace(RECORD_SECONDS), Pace(REPORT_SECONDS)
        told = False
        try:
            with pool.run(self._send, transfers) as outcomes:
                for outcome in outcomes:
                    match outcome:
                        case Delivered():
                            self._delivered(outcome)
                        case Failed():
                            trouble = trouble or self._take_failure(outcome)
                        case _Postponed():
                            self._postponed.append(outcome.transfer)
                        case ChorusError():
                            trouble = trouble or outcome
                    if trouble is not None:
                        self._stop.set()
                    if len(self._unrecorded) >= self._most_unrecorded or record_pace.is_due():
                        self._record()
                    if report_pace.is_due():
                        self._outcomes.report(self._unrecorded)
                    if self._stop.is_set() and trouble is None and not told:
                        told = True
                        self._outcomes.emit(
                            Notice("stopping: small files on their way are finished; once more stops at once")
                        )
        finally:
            self._record()
            self._outcomes.report(self._unrecorded)
        if trouble is not None:
            raise trouble

    def _send(self, transfer: Transfer) -> Outcome | _Postponed | ChorusError | None:
        """Runs in the threads of the pool; None when the run was stopped before this file began."""
        if self._stop.is_set():
            return None
        if self._doubt.is_set() and not self._is_sampling:
            self._sender.postpone(transfer)
            return _Postponed(transfer)
        try:
            return self._sender.send(transfer)
        except Stopped:
            return None
        except ChorusError as error:
            return error

    def _delivered(self, outcome: Delivered) -> None:
        self._unrecorded.append(outcome)
        self._went_through = time.monotonic()
        # What was there already shows that we may read, and not that we may write.
        if outcome.sent:
            self._refusals.accepted()
            self._doubt.clear()

    def _take_failure(self, outcome: Failed) -> StorageError | None:
        """Note a file that was not delivered; return what is the matter with the whole place, if it is that."""
        if outcome.kind is FailureKind.TRANSIENT and not self._stop.is_set():
            self._set_aside.append(outcome)
            self._record()
            return self._refusals.gave_up()
        self._fail(outcome)
        if outcome.kind is FailureKind.DENIED:
            self._denied = outcome
            if self._refusals.denied() >= self._doubt_after and not self._is_sampling:
                self._doubt.set()
        return None

    def _transfers(self, *, waiting: bool) -> Iterator[Transfer]:
        """The plan as work, a page at a time; `waiting` says for which pass."""
        number = 0
        for page in deliveries.planned(self._journal, waiting=waiting):
            for transfer in self._as_transfers([file for file in page if file.id not in self._tried]):
                if self._stop.is_set():
                    return
                number += 1
                self._taken = transfer.file_id
                # It may have been tried since the page was made.
                if transfer.file_id in self._tried:
                    continue
                self._sender.announce(transfer)
                yield replace(transfer, may_be_there=True) if number <= self._to_look_for else transfer

    def _as_transfers(self, page: list[PendingFile]) -> Iterator[Transfer]:
        """Files of the plan as work."""
        to = self._submission.destination_id
        keyed = list(self._keyed(page))
        superseded = planning.superseded_etags(self._journal, destination=to, keys=[key for _, key in keyed])
        sought = [file.twin_of for file in page if file.twin_of is not None]
        twins = planning.twins(self._journal, destination=to, file_ids=sought) if sought else {}
        for file, key in keyed:
            yield transfer_of(
                file,
                key=key,
                replaces=superseded.get(key),
                superseded=self._earlier.get(file.id, ()),
                twin=_twin(file, twins, key=key),
            )

    def _keyed(self, page: list[PendingFile]) -> Iterator[tuple[PendingFile, str]]:
        """Files with their keys; those that can have none have failed."""
        for file, key in zip(page, self._keys.of(page), strict=True):
            if isinstance(key, LayoutError):
                self._fail(Failed(transfer_of(file, key=""), FailureKind.REFUSED, key.message))
            else:
                yield file, key

    def _fail(self, outcome: Failed) -> None:
        if outcome.kind is FailureKind.CHANGED:
            # Its time and size may not show it: without this the next update would find nothing to do.
            self._distrusted.append(outcome.transfer.file_id)
        self._outcomes.failed(outcome)

    def _record(self) -> None:
        """Put what is proven into the journal, and only then say so."""
        if self._unrecorded:
            deliveries.record(self._journal, self._submission, self._unrecorded)
            self._outcomes.recorded(self._unrecorded)
            self._unrecorded.clear()
        if self._distrusted:
            deliveries.distrust(self._journal, self._distrusted)
            self._distrusted.clear()


def _twin(file: PendingFile, twins: Mapping[int, Twin], *, key: str) -> Twin | None:
    twin = None if file.twin_of is None else twins.get(file.twin_of)
    # An object is not copied onto itself.
    return None if twin is None or twin.key == key else twin
