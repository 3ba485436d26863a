"""Logging to standard error, for `-v`."""

from __future__ import annotations

import logging
from collections.abc import Callable

from chorus_upload.cli.render.sink import Sink

_OURS = "chorus_upload"


class _SinkHandler(logging.Handler):
    """Hands log lines to the sink, so that they do not tear the live display, without the secrets in them."""

    def __init__(self, sink: Sink, redact: Callable[[str], str]) -> None:
        super().__init__()
        self._sink = sink
        self._redact = redact
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self._sink.log(self._redact(self.format(record)))


def set_up_logging(sink: Sink, *, verbose: bool, redact: Callable[[str], str]) -> None:
    """Show our own log lines: warnings always, everything with `verbose`. Other libraries are kept silent."""
    logger = logging.getLogger(_OURS)
    logger.handlers = [_SinkHandler(sink, redact)]
    logger.setLevel(logging.DEBUG if verbose else logging.WARNING)
    logger.propagate = False
    root = logging.getLogger()
    if not root.handlers:
        # Without any handler Python prints the warnings of all libraries by itself.
        root.addHandler(logging.NullHandler())
