"""What pasting leaves around addresses and tokens: quotes, brackets, escapes, broken lines. Taken off again."""

from __future__ import annotations

import re
from urllib.parse import unquote

_QUOTES = {'"': '"', "'": "'", "“": "”", "„": "“", "”": "”", "\u2018": "\u2019", "\u2019": "\u2019", "«": "»"}
_WRAPS = {**_QUOTES, "<": ">", "`": "`"}
_BOTH = "".join(sorted({*_QUOTES, *_QUOTES.values()}))

_ADDRESS = re.compile(r"(?i)(?:https?|az|azure|zip|tar)://")
_ARCHIVE = re.compile(r"(?i)(?:zip|tar)://")
_BROKEN_LINE = re.compile(r"[ \t]*[\r\n\t]+[ \t]*")
# Characters that a shell has to be told to leave alone, and that no address has a backslash before.
_ESCAPED = re.compile(r"\\([&?=%;:/~!#'\"()])")
# A signature is base64, which has no %: with one inside, it was encoded once more than it should have been.
_SIGNATURE_TWICE = re.compile(r"(?i)(?:^|[?&])sig=[^&]*%25(?:2b|2f|3d)")


def unquoted(text: str) -> str:
    """`text` without spaces and quotes around it; nothing inside is touched, for it may be the name of a file."""
    return text.strip().strip(_BOTH).strip()


def clean_address(text: str) -> str:
    """A place as it was meant: what is around it goes, and what no address has inside.

    Those are line breaks of mails and backslashes of shells, and behind a `?` also spaces, `&amp;` of web pages and a
    second percent encoding of a signature. Local paths and names in other places may hold all of that, and keep it.
    """
    bare = _unwrapped(text)
    if not _ADDRESS.match(bare):
        return unquoted(text)
    if _ARCHIVE.match(bare):
        # The place that it lies in is an address of its own.
        return bare
    place, mark, query = _ESCAPED.sub(r"\1", _BROKEN_LINE.sub("", bare)).partition("?")
    return place + mark + clean_token(query)


def clean_token(text: str) -> str:
    """A token, alone or behind an address, as it was meant; see `clean_address`."""
    text = "".join(_unwrapped(text).split())
    text = _ESCAPED.sub(r"\1", text).replace("&amp;", "&")
    head, mark, query = text.rpartition("?")
    return head + mark + unquote(query) if _SIGNATURE_TWICE.search(query) else text


def _unwrapped(text: str) -> str:
    """Without pairs of quotes and brackets around it, halves of such pairs, and the comma or semicolon after it."""
    while True:
        before = text
        text = text.strip().rstrip(",;").rstrip()
        if len(text) > 1 and _WRAPS.get(text[0]) == text[-1]:
            text = text[1:-1]
        elif text[:1] in _WRAPS:
            text = text[1:]
        elif text[-1:] in _WRAPS.values():
            text = text[:-1]
        if text == before:
            return text
