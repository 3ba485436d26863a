"""An output stream that no text can break and whose reader may go away."""

from __future__ import annotations

import errno
import os
import sys
from typing import IO, TextIO, cast
from weakref import WeakKeyDictionary

_unwritten: WeakKeyDictionary[TextIO, str] = WeakKeyDictionary()


class Stream:
    """A text stream to a terminal, a file or a pipe.

    What its encoding cannot express is written as an escape. When the reader of a pipe has gone (`| head`)
    or the terminal was closed, `gone` becomes true and everything further is dropped silently: who stops reading
    the report of an upload does not mean to stop the upload. So it is when anything else keeps it from being written
    (a full disk), but then `unwritten` says what.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._was_terminal = stream.isatty()
        self.gone = False

    @property
    def text(self) -> IO[str]:
        """The same as a text stream, for a library that has to write to one."""
        return cast(IO[str], _Text(self))

    @property
    def unwritten(self) -> str | None:
        """Why a part of what was to be read is missing, whichever Stream on the same text stream was to write it."""
        return _unwritten.get(self._stream)

    @property
    def is_terminal(self) -> bool:
        return self._stream.isatty()

    @property
    def encoding(self) -> str:
        return getattr(self._stream, "encoding", None) or "utf-8"

    @property
    def is_unicode(self) -> bool:
        """Whether characters beyond ASCII can be drawn."""
        return self.encoding.lower().replace("-", "").startswith("utf")

    def line(self, text: str) -> None:
        """Write one line and flush it."""
        self.write(text + "\n")
        self.flush()

    def write(self, text: str) -> None:
        """Write text that is safe already (see `printable`)."""
        if self.gone:
            return
        safe = text.encode(self.encoding, "backslashreplace").decode(self.encoding)
        try:
            self._stream.write(safe)
        except OSError as error:
            self._failed(error)

    def write_bytes(self, data: bytes) -> None:
        """Write data as it is, past the encoding and past any translation of line ends."""
        if self.gone:
            return
        try:
            self._stream.flush()
            buffer = getattr(self._stream, "buffer", None)
            if buffer is None:
                self._stream.write(data.decode("utf-8", "backslashreplace"))
            else:
                buffer.write(data)
        except OSError as error:
            self._failed(error)

    def flush(self) -> None:
        if self.gone:
            return
        try:
            self._stream.flush()
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        if not (_is_broken_pipe(error) or (self._was_terminal and error.errno == errno.EIO)):
            _unwritten[self._stream] = error.strerror or str(error)
        self.gone = True
        try:
            descriptor = self._stream.fileno()
        except (OSError, ValueError):
            return
        # Python flushes its streams once more at exit; what is left in them must have somewhere to go.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, descriptor)
        os.close(null)


class _Text:
    """As much of Python's text streams as libraries ask for."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.encoding = stream.encoding

    def isatty(self) -> bool:
        return self._stream.is_terminal

    def write(self, text: str) -> int:
        self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        self._stream.flush()


def _is_broken_pipe(error: OSError) -> bool:
    """Whether the reader of a pipe has closed it. Windows reports this as an invalid argument."""
    return error.errno == errno.EPIPE or (sys.platform == "win32" and error.errno == errno.EINVAL)


def open_standard_streams() -> None:
    """Open the standard streams that this process was started without (`>&-`, cron, daemons); they lead nowhere.

    Without that the next file that is opened, a journal even, would be standard output to every library.
    """
    for descriptor, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(descriptor)
        except OSError:
            # It gets the lowest number that is free: this one.
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8", closefd=False))


def make_tolerant(stream: TextIO) -> None:
    """Let a standard stream escape what it cannot encode, for libraries that write to it by themselves."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")
