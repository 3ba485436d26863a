"""While it is in doubt whether anything is accepted, an upload pauses, and then goes on with the rest of its plan."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, cast

from chorus_upload.model import Transfer
from chorus_upload.operations.sending import Run
from chorus_upload.transfer.pool import SerialPool

PLAN = 30


class Doubtful(Run):
    """A run whose every batch comes into doubt after three files, and out of it by a success that was under way."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._doubt = threading.Event()
        self._postponed = deque()
        self.sent: list[int] = []

    def _transfers(self, *, waiting: bool) -> Iterator[Transfer]:
        del waiting
        yield from cast(Iterator[Transfer], iter(range(PLAN)))

    def _send_batch(self, pool: Any, transfers: Iterable[Transfer]) -> None:  # noqa: ANN401 - not looked at
        del pool
        for number, transfer in enumerate(transfers, 1):
            self.sent.append(cast(int, transfer))
            if number == 3:
                self._doubt.set()
        self._doubt.clear()


def test_a_doubt_that_is_gone_again_ends_no_pass() -> None:
    run = Doubtful()

    run._send_pass(SerialPool(), waiting=False, at_most=None)

    assert run.sent == list(range(PLAN))
