"""What becomes of the files of an upload: counted, told, and held against the time that is left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from chorus_upload.events import Emit, EndedEarly, FileDelivered, FileFailed, Tally, UploadProgressed
from chorus_upload.model import Delivered, Evidence, Failed, FailureKind
from chorus_upload.operations.access import ExpiryWatch
from chorus_upload.transfer.meter import Meter


class Outcomes:
    """Counts of one run. `total` is what is to be sent, `meter` knows what is being sent."""

    def __init__(self, total: Tally, meter: Meter, watch: ExpiryWatch, emit: Emit) -> None:
        self._total = total
        self._meter = meter
        self._watch = watch
        self.emit = emit
        self._failed_bytes = 0
        self.sent = Tally()
        self.already_there = Tally()
        self.spared = 0
        self.replaced = 0
        self.failures: Counter[FailureKind] = Counter()
        self.evidence: Counter[Evidence] = Counter()

    @property
    def delivered(self) -> Tally:
        """What is in the journal, sent or there already."""
        return self.sent + self.already_there

    @property
    def until_now(self) -> EndedEarly:
        """How far the run is."""
        return EndedEarly("delivered and recorded", self.delivered, self._total, sum(self.failures.values()))

    def failed(self, outcome: Failed) -> None:
        """Take in a file that stays pending."""
        self.failures[outcome.kind] += 1
        self._failed_bytes += outcome.transfer.size
        self.emit(FileFailed.of(outcome))

    def recorded(self, outcomes: Sequence[Delivered]) -> None:
        """Take in files whose proof is in the journal by now."""
        self.sent += _tally(done for done in outcomes if done.sent)
        self.already_there += _tally(done for done in outcomes if not done.sent)
        for done in outcomes:
            self.spared += done.spared
            self.replaced += done.replaced
            self.evidence[done.evidence] += 1
            self.emit(FileDelivered.of(done))

    def report(self, unrecorded: Sequence[Delivered]) -> None:
        """Tell how far the run is; `unrecorded` is what arrived and is not in the journal yet."""
        under_way, current = self._meter.snapshot()
        done = self.delivered + _tally(unrecorded)
        moved = done.bytes + under_way
        self.emit(
            UploadProgressed(
                files=done.files + sum(self.failures.values()),
                files_total=self._total.files,
                bytes=moved,
                bytes_total=self._total.bytes,
                current=current,
            )
        )
        # What failed is not waited for any more.
        self._watch.look(moved + self._failed_bytes, self._total.bytes)


def _tally(outcomes: Iterable[Delivered]) -> Tally:
    sizes = [done.transfer.size for done in outcomes]
    return Tally(len(sizes), sum(sizes))
