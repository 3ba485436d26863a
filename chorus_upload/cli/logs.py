"""Logging to standard error, for `-v`, and warnings as all others are shown."""

from __future__ import annotations

import logging
from collections.abc import Callable

_OURS = "chorus_upload"


class _SinkHandler(logging.Handler):
    """Hands log lines to the sink, so that they do not tear the live display, without the secrets in them.

    What a person has to know (a warning) is told as such.
    """

    def __init__(self, write: Callable[[str], None], warn: Callable[[str], None], redact: Callable[[str], str]) -> None:
        super().__init__()
        self._write = write
        self._warn = warn
        self._redact = redact
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            self._warn(self._redact(record.getMessage()))
        else:
            self._write(self._redact(self.format(record)))


def set_up_logging(
    write: Callable[[str], None], warn: Callable[[str], None], *, verbose: bool, redact: Callable[[str], str]
) -> None:
    """Tell our own warnings with `warn`, and `write` all other log lines with `verbose`. Other libraries are silent."""
    logger = logging.getLogger(_OURS)
    logger.handlers = [_SinkHandler(write, warn, redact)]
    logger.setLevel(logging.DEBUG if verbose else logging.WARNING)
    logger.propagate = False
    root = logging.getLogger()
    if not root.handlers:
        # Without any handler Python prints the warnings of all libraries by itself.
        root.addHandler(logging.NullHandler())


def end_logging() -> None:
    """Hand on no more lines: what they were written to may be closed from now on."""
    logging.getLogger(_OURS).handlers = []
