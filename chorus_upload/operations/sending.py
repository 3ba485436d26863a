"""Sends the plan of an upload: feeds the pool of senders, and records what is proven.

There are two passes. In the second are files whose content is in the first, too: by then the journal knows
where the service has it, and it can be asked for a copy.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice

from chorus_upload.config.settings import Settings
from chorus_upload.errors import ChorusError, LayoutError, StorageError
from chorus_upload.events import Notice
from chorus_upload.journal import deliveries, planning
from chorus_upload.journal.deliveries import PendingFile
from chorus_upload.journal.journal import Journal
from chorus_upload.journal.submissions import Submission
from chorus_upload.model import Delivered, Failed, FailureKind, Outcome, Transfer, Twin
from chorus_upload.operations.central import Keys, PlannedKeys, transfer_of
from chorus_upload.operations.outcomes import Outcomes
from chorus_upload.operations.pace import Pace
from chorus_upload.transfer.pool import AHEAD, Pool
from chorus_upload.transfer.reader import Stopped
from chorus_upload.transfer.sender import Sender

RECORD_SECONDS = 1.0
REPORT_SECONDS = 0.2
MOST_GIVEN_UP = 4
"""When patience has ended for so many files in a row, it is asked whether the service is there at all."""


class Run:
    """One run over the plan; what becomes of the files goes to `outcomes`. `probe` raises when there is no service."""

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
        self._probe = probe
        self._given_up = 0
        self._journal = journal
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

    def send_all(self, pool: Pool, *, at_most: int | None) -> None:
        """Deliver the plan, or `at_most` so many files of it: those that fail do not count.

        Raises what concerns every file (see `Sender.send`), when what was under way is recorded.
        """
        self._earlier = planning.superseded_content(self._journal, with_own_folders=self._with_own_folders)
        for waiting in (False, True):
            if self._stop.is_set():
                return
            self._send_pass(pool, self._transfers(waiting=waiting), at_most=at_most)

    def _send_pass(self, pool: Pool, transfers: Iterator[Transfer], *, at_most: int | None) -> None:
        if at_most is None:
            self._send_batch(pool, transfers)
            return
        while not self._stop.is_set():
            batch = list(islice(transfers, at_most - self._outcomes.delivered.files))
            if not batch:
                return
            self._send_batch(pool, batch)

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
                            self._unrecorded.append(outcome)
                            self._given_up = 0
                        case Failed():
                            self._fail(outcome)
                            trouble = trouble or self._trouble_with_the_place(outcome)
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

    def _send(self, transfer: Transfer) -> Outcome | ChorusError | None:
        """Runs in the threads of the pool; None when the run was stopped before this file began."""
        if self._stop.is_set():
            return None
        try:
            return self._sender.send(transfer)
        except Stopped:
            return None
        except ChorusError as error:
            return error

    def _transfers(self, *, waiting: bool) -> Iterator[Transfer]:
        """The plan as work, a page at a time; `waiting` says for which pass."""
        to, taken = self._submission.destination_id, 0
        for page in deliveries.planned(self._journal, waiting=waiting):
            keyed = list(self._keyed(page))
            superseded = planning.superseded_etags(self._journal, destination=to, keys=[key for _, key in keyed])
            sought = [file.twin_of for file in page if file.twin_of is not None]
            twins = planning.twins(self._journal, destination=to, file_ids=sought) if sought else {}
            for file, key in keyed:
                if self._stop.is_set():
                    return
                taken += 1
                transfer = transfer_of(
                    file,
                    key=key,
                    replaces=superseded.get(key),
                    superseded=self._earlier.get(file.id, ()),
                    twin=_twin(file, twins, key=key),
                    may_be_there=taken <= self._to_look_for,
                )
                self._sender.announce(transfer)
                yield transfer

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

    def _trouble_with_the_place(self, outcome: Failed) -> StorageError | None:
        """Whether it is the service that has failed, and not one file after the other: each would be waited for."""
        if outcome.kind is not FailureKind.TRANSIENT or self._stop.is_set():
            return None
        self._given_up += 1
        if self._given_up % MOST_GIVEN_UP:
            return None
        self._record()
        try:
            self._probe()
        except StorageError as error:
            return error
        return None

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
