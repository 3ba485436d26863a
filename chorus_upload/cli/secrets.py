"""Keeping credentials out of everything that is shown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import parse_qs, quote, unquote

_MASK = "***"

_SHAPES = (
    # The value of a parameter that signs or names a secret, in URLs, connection strings and messages.
    re.compile(
        r"(?i)\b((?:sig|signature|x-amz-signature|x-amz-credential|x-amz-security-token|x-goog-signature|"
        r"x-goog-credential|accountkey|sharedaccesssignature|sharedaccesskey|access_token|refresh_token|client_secret|"
        r"secret|password|passwd|pwd|token)(?:=|%3d|['\"]?\s*:\s*['\"]?))[^\s&;,'\"<>)\]}]+"
    ),
    re.compile(r"(?i)\b((?:bearer|sharedkey|aws4-hmac-sha256)\s+)[^\s'\"]+"),
    re.compile(r"(?i)(\b[a-z][a-z0-9+.-]*://[^\s/:@]*:)[^\s@]+(?=@)"),
)

_SHORTEST = 4
"""A shorter secret would blot out ordinary words; no service gives out one."""


class Redactor:
    """Masks the secrets it was told of, in every usual spelling, and whatever has the shape of one."""

    def __init__(self) -> None:
        self._known: list[str] = []

    def learn(self, secrets: Iterable[str]) -> None:
        """Take in secrets that must never be shown."""
        spellings = {spelling for secret in secrets for spelling in _spellings(secret)}
        known = {*self._known, *(text for text in spellings if len(text) >= _SHORTEST)}
        # The longest first: else a part would be masked and the rest of the whole would stay.
        self._known = sorted(known, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for secret in self._known:
            text = text.replace(secret, _MASK)
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


def _spellings(secret: str) -> Iterator[str]:
    yield secret
    yield secret.lstrip("?")
    yield quote(secret, safe="")
    yield unquote(secret)
    # Services repeat the signature of a token without the rest of it.
    for signature in parse_qs(secret.lstrip("?")).get("sig", []):
        yield signature
        yield quote(signature, safe="")
