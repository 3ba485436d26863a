"""Keeping credentials out of everything that is shown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import unquote

_MASK = "***"

_UNMISTAKABLE = (
    "x-amz-signature|x-amz-credential|x-amz-security-token|x-goog-signature|x-goog-credential|accountkey|"
    "sharedaccesssignature|sharedaccesskey|access_token|refresh_token|client_secret"
)
_WORDS = "sig|signature|secret|password|passwd|pwd|token"

_SHAPES = (
    # The value of a parameter that signs or names a secret, in URLs, connection strings and messages.
    re.compile(rf"(?i)\b((?:{_UNMISTAKABLE}|{_WORDS})(?:=|%3d|['\"]\s*:\s*['\"]?))[^\s&;,'\"<>)\]}}]+"),
    re.compile(rf"(?i)\b((?:{_UNMISTAKABLE})\s*:\s*)[^\s&;,'\"<>)\]}}]+"),
    # After a word of the language, what looks like no word: "password: not accepted" and "/etc/passwd: no such file"
    # are sentences.
    re.compile(rf"(?i)(?<![\w./\\-])((?:{_WORDS})\s*:\s*)(?=\S*\d)[^\s&;,'\"<>)\]}}]{{8,}}"),
    re.compile(r"(?i)\b((?:bearer|sharedkey|aws4-hmac-sha256)\s+)[^\s'\"]+"),
    # But for the word itself, with which hints say how an address is written.
    re.compile(r"(?i)(\b[a-z][a-z0-9+.-]*://[^\s/:@]*:)(?!password@)[^\s@]+(?=@)"),
)

_TELLING = frozenset(
    {"sig", "accountkey", "sharedaccesskey", "x-amz-signature", "x-amz-security-token", "x-goog-signature"}
)
"""The parameters in tokens, addresses and connection strings that are secret in themselves."""

_SHORTEST = 4
"""A shorter secret would blot out ordinary words; no service gives out one."""


class Redactor:
    """Masks the secrets it was told of, in every usual spelling, and whatever has the shape of one."""

    def __init__(self) -> None:
        self._parts: set[str] = set()
        self._known: re.Pattern[str] | None = None

    def learn(self, secrets: Iterable[str]) -> None:
        """Take in secrets that must never be shown."""
        self._parts |= {part for secret in secrets for part in _parts(secret) if len(part) >= _SHORTEST}
        if self._parts:
            # The longest first: else a part would be masked and the rest of the whole would stay.
            self._known = re.compile("|".join(map(_pattern, sorted(self._parts, key=len, reverse=True))))

    def __call__(self, text: str) -> str:
        if self._known:
            text = self._known.sub(_MASK, text)
        for shape in _SHAPES:
            text = shape.sub(rf"\g<1>{_MASK}", text)
        return text


def secrets_in(value: object) -> Iterator[str]:
    """Yield every secret value in settings, however deep: those are the ones that ask to be unwrapped."""
    unwrap = getattr(value, "get_secret_value", None)
    if unwrap is not None:
        yield str(unwrap())
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from secrets_in(item)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from secrets_in(item)


def _pattern(secret: str) -> str:
    """Matches a secret whichever of its characters are escaped for an address, once or more than once."""
    return "".join(each if each.isalnum() else _any_spelling(each) for each in unquote(secret))


def _any_spelling(character: str) -> str:
    escaped = "".join(f"%(?:25)*{byte:02x}" for byte in character.encode())
    return f"(?:{re.escape(character)}|(?i:{escaped}))"


def _parts(secret: str) -> Iterator[str]:
    """A secret, and what of it services repeat by itself: the signature of a token, the key of a connection string."""
    yield secret
    yield secret.lstrip("?")
    for name, _, value in (part.partition("=") for part in re.split(r"[;?&]", secret)):
        if name.lower() in _TELLING:
            yield value
