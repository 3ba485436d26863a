"""Making any text safe to show.

File names come from outside: one may hold an escape sequence that repaints the screen, a newline that forges
a second line, a character that reverses the reading order, or bytes that are not text at all.
"""

from __future__ import annotations

import re

_UNSAFE = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # control characters, the eight-bit ones included
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # they change the order in which the rest is read
    "\u2028\u2029"  # line and paragraph separators
    "\ud800-\udfff"  # halves of surrogate pairs; \udc80-\udcff stand for bytes that are not UTF-8
    "]"
)
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(text: str) -> str:
    r"""Return `text` as one line without any character that a terminal would act upon.

    What is unsafe is shown as an escape (`\n`, `\x1b`, `\u202e`); a byte that is not UTF-8 is shown as `\xNN`.
    """
    return _UNSAFE.sub(_escape, text)


def printable_lines(text: str) -> list[str]:
    """Like `printable`, for a message of ours that may have several lines."""
    return [printable(line) for line in text.splitlines()] or [""]


def _escape(match: re.Match[str]) -> str:
    character = match.group()
    if character in _SHORT:
        return _SHORT[character]
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
