"""Who reads next, where files are best read one at a time and in a certain order."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from chorus_upload.transfer.reader import Stopped

_LOOK_SECONDS = 0.5


class Turns:
    """Lets the files of one source be read one after the other, in the order in which they were announced.

    Nobody waits for ever: whoever is announced has to begin in that order, as the pieces of work of a pool do, and to
    `leave` at the end, read or not. The first in the row then is always one that is under way, and waits for nobody
    here. Once `stop` is set, waiting raises Stopped.
    """

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._lock = threading.Lock()
        self._row: OrderedDict[int, threading.Condition] = OrderedDict()

    def announce(self, file_id: int) -> None:
        """This file comes after all that were announced before."""
        with self._lock:
            # One for each: to wake all of them whenever one has read would be most of the work.
            self._row[file_id] = threading.Condition(self._lock)

    @contextmanager
    def turn(self, file_id: int) -> Iterator[None]:
        """Read within the block: it begins when all before have read or left. Later readings of a file do not wait."""
        with self._lock:
            me = self._row.get(file_id)
            while me is not None and next(iter(self._row)) != file_id:
                if self._stop.is_set():
                    raise Stopped
                me.wait(_LOOK_SECONDS)
        try:
            yield
        finally:
            self.leave(file_id)

    def leave(self, file_id: int) -> None:
        """It is not waited for any more."""
        with self._lock:
            if self._row.pop(file_id, None) is not None and self._row:
                next(iter(self._row.values())).notify()
