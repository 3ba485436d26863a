"""What an upload tells of its files, and that it looks at the time that is left while it does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from chorus_upload.events import Event, FileDelivered, FileFailed, Notice, Tally, UploadProgressed
from chorus_upload.model import Delivered, Evidence, Failed, FailureKind, Transfer
from chorus_upload.operations.access import ExpiryWatch
from chorus_upload.operations.outcomes import Outcomes
from chorus_upload.transfer.meter import Meter

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)


def a_file(number: int, size: int) -> Transfer:
    return Transfer(number, "Images", f"{number}.dcm", f"spring/{number}.dcm", size, mtime_us=0)


def delivered(transfer: Transfer, *, sent: bool = True, spared: int = 0, replaced: bool = False) -> Delivered:
    return Delivered(
        transfer, bytes(16), bytes(16), Evidence.SERVER, "etag", 0, 0.1, sent=sent, spared=spared, replaced=replaced
    )


class Told:
    """Outcomes of an upload of 1,000 bytes in ten files, and all that they tell; the token lives for a minute."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.events: list[Event] = []
        self.meter = Meter()
        watch = ExpiryWatch(
            NOW + timedelta(minutes=1),
            emit=self.events.append,
            clock=lambda: self.seconds,
            now=lambda: NOW + timedelta(seconds=self.seconds),
        )
        self.outcomes = Outcomes(Tally(10, 1_000), self.meter, watch, self.events.append)

    def warnings(self, *, after: float) -> int:
        """How often was warned, when it is told how far it is after so many seconds."""
        self.seconds = after
        self.outcomes.report([])
        return sum(isinstance(event, Notice) for event in self.events)


def test_everything_is_counted_and_told() -> None:
    told = Told()

    told.outcomes.recorded(
        [
            delivered(a_file(1, 100), spared=80),
            delivered(a_file(2, 200), sent=False),
            delivered(a_file(3, 50), replaced=True),
        ]
    )
    told.outcomes.failed(Failed(a_file(4, 10), FailureKind.VANISHED, "it is gone"))

    outcomes = told.outcomes
    assert (outcomes.sent, outcomes.already_there) == (Tally(2, 150), Tally(1, 200))
    assert (outcomes.spared, outcomes.replaced) == (80, 1)
    assert (outcomes.failures, outcomes.evidence) == ({FailureKind.VANISHED: 1}, {Evidence.SERVER: 3})
    assert [
        (each.path, each.sent, each.spared, each.replaced) for each in told.events if isinstance(each, FileDelivered)
    ] == [("1.dcm", True, 80, False), ("2.dcm", False, 0, False), ("3.dcm", True, 0, True)]
    assert [each.path for each in told.events if isinstance(each, FileFailed)] == ["4.dcm"]


def test_progress_has_what_is_recorded_what_is_not_yet_and_what_is_under_way() -> None:
    told = Told()
    told.outcomes.recorded([delivered(a_file(1, 100))])
    told.outcomes.failed(Failed(a_file(2, 10), FailureKind.CHANGED, ""))
    told.meter.begin(a_file(3, 500))
    told.meter.add(a_file(3, 500), 7)

    told.outcomes.report([delivered(a_file(4, 20))])

    assert told.events[-1] == UploadProgressed(
        files=3, files_total=10, bytes=127, bytes_total=1_000, current=("3.dcm",)
    )


def test_a_slow_upload_is_warned_of_once_while_it_reports() -> None:
    told = Told()
    told.outcomes.recorded([delivered(a_file(1, 100))])

    assert [told.warnings(after=seconds) for seconds in (1, 19, 25, 30)] == [0, 0, 1, 1]


def test_what_failed_is_not_waited_for() -> None:
    """Nearly all of it cannot be sent, and the rest is soon done."""
    told = Told()
    told.outcomes.recorded([delivered(a_file(1, 100))])
    told.outcomes.failed(Failed(a_file(2, 850), FailureKind.VANISHED, ""))

    assert told.warnings(after=25) == 0
