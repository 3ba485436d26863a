"""The secrets of the configuration, found in files that are to be sent, however they are written there.

A file is read anyway, and asking whether it holds a certain word costs almost nothing: of each secret a run of letters
and digits is such a word, which looks the same in every spelling. Only where it is found the rest is compared. In text
the word is also looked for as base64 has it. What is compressed is not unpacked.
"""

from __future__ import annotations

import html
import json
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from chorus_upload.config.local_paths import expanded
from chorus_upload.config.settings import Auth, Location, Settings

LARGEST_BYTES = 1 << 20
"""Larger files are not looked through: no configuration is that large."""
SHORTEST = 20
"""A shorter secret may be a word of the data."""

_CORE = 24
_SHORTEST_IN_BASE64 = 6
_BASE64_WINDOW = 1 << 13
"""So much of a text in base64 is decoded before and after a word of a secret: more than any secret has."""
_HEAD = 1 << 12
_TELLING = frozenset(
    {"sig", "accountkey", "sharedaccesskey", "x-amz-signature", "x-amz-security-token", "x-goog-signature"}
)
"""The parameters in tokens, addresses and connection strings that are secret in themselves."""
_IN_CREDENTIALS = ("private_key", "refresh_token", "client_secret")
_BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff")
_URL_SAFE = {"+": "-", "/": "_"}
_FROM_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/_-]")


class SecretSearch:
    """Return whether the content of a file holds one of `secrets`, or is a copy of one of the texts `whole`."""

    def __init__(self, secrets: Iterable[str], *, whole: Iterable[bytes] = ()) -> None:
        self._sought = [_Sought(each) for each in sorted(_parts(secrets))]
        # By their lengths: to look a file up by what it holds would mean to hash it.
        self._whole = {len(each): each for each in whole}

    @classmethod
    def of(cls, settings: Settings) -> SecretSearch:
        """The secrets of these settings, and of the files with credentials that they name."""
        places = [settings.journal.cloud, settings.central.location]
        places += [site.location for site in settings.sites.values()]
        configuration = _small(settings.file)
        return cls(_secrets(settings, places), whole=[configuration] if configuration else [])

    def __call__(self, data: bytes) -> bool:
        if data.startswith(_BYTE_ORDER_MARKS):
            return self(data.decode("utf-16", "replace").encode("utf-8", "replace"))
        if self._whole.get(len(data)) == data:
            return True
        is_text = _is_text(data)
        if is_text:
            # Lines are broken anywhere, and UTF-16 has NUL between the letters.
            data = data.translate(None, b" \t\r\n\0")
        return any(each.is_in(data) or (is_text and each.is_in_base64(data)) for each in self._sought)


class _Sought:
    def __init__(self, secret: str) -> None:
        self._core = _core(secret)
        self._pattern = re.compile(_pattern(secret).encode())
        self._in_base64 = []
        if len(self._core) >= _SHORTEST_IN_BASE64:
            for shift in range(3):
                # The first characters have bits of what stands before it, the last one of what follows.
                encoded = b64encode(bytes(shift) + self._core)
                start = -(-shift * 4 // 3)
                self._in_base64.append((start, encoded[start : (shift + len(self._core)) * 4 // 3]))

    def is_in(self, data: bytes) -> bool:
        return self._core in data and self._pattern.search(data) is not None

    def is_in_base64(self, data: bytes) -> bool:
        """Return whether the secret is in text of which some is in base64, without white space."""
        return any(
            self.is_in(_decoded(data, hit.start(), start))
            for start, word in self._in_base64
            if word in data
            for hit in re.finditer(word, data)
        )


def _is_text(data: bytes) -> bool:
    """Return whether the beginning has no NUL, as text, or as many as UTF-16 has of ASCII."""
    return not 0 < data.count(0, 0, _HEAD) < min(len(data), _HEAD) // 4


def _decoded(data: bytes, at: int, start: int) -> bytes:
    """Return what the base64 around `at` stands for, where the character has the place `start` in its group of four."""
    before = _NOT_BASE64.split(data[max(0, at - _BASE64_WINDOW) : at])[-1]
    after = _NOT_BASE64.split(data[at : at + _BASE64_WINDOW], 1)[0]
    encoded = (before[(len(before) - start) % 4 :] + after).translate(_FROM_URL_SAFE)
    return b64decode(encoded + b"A" * (-len(encoded) % 4))


def _secrets(settings: Settings, places: Iterable[Location]) -> Iterator[str]:
    if settings.proxy is not None:
        # The address of a proxy is no secret, its password is.
        yield urlsplit(settings.proxy.get_secret_value()).password or ""
    for place in places:
        yield from _secrets_of(place.auth)


def _secrets_of(auth: Auth) -> Iterator[str]:
    for secret in (
        auth.azure_sas_token,
        auth.azure_account_key,
        auth.azure_connection_string,
        auth.aws_secret_access_key,
        auth.aws_session_token,
        auth.password,
        auth.url_query,
    ):
        if secret is not None:
            yield secret.get_secret_value()
    if auth.google_token_file:
        yield _small(expanded(auth.google_token_file)).decode("utf-8", "replace").strip()
    if auth.google_application_credentials:
        try:
            found: object = json.loads(_small(expanded(auth.google_application_credentials)))
        except ValueError:
            return
        if isinstance(found, dict):
            yield from (str(found[name]) for name in _IN_CREDENTIALS if name in found)


def _small(path: Path) -> bytes:
    """Return the content of a file that is no larger than such files are; nothing of another one."""
    try:
        if not path.is_file() or path.stat().st_size > LARGEST_BYTES:
            return b""
        return path.read_bytes()
    except OSError:
        return b""


def _parts(secrets: Iterable[str]) -> set[str]:
    """What is secret in itself: the signature of a token and the key of a connection string; else all of it."""
    found = set()
    for secret in secrets:
        named = [part.partition("=") for part in re.split(r"[;?&]", secret)]
        telling = {value for name, _, value in named if name.lower() in _TELLING}
        found |= {unquote(unquote(each)) for each in telling or {secret}}
    # The padding of base64 is no secret, and often left out.
    return {each.rstrip("=") for each in found if len(each) >= SHORTEST}


def _core(secret: str) -> bytes:
    """A long run of letters and digits, which no spelling changes: the part that is found fastest.

    That is one of capital letters, of which there are few in data, and not too long: `bytes.find` skips by the letters
    that are not in it.
    """
    runs: list[str] = re.findall(r"[A-Za-z0-9]*", secret)
    run = max(runs, key=len)
    windows = [run[at : at + _CORE] for at in range(max(1, len(run) - _CORE + 1))]
    return max(windows, key=lambda window: sum(map(str.isupper, window))).encode()


def _pattern(secret: str) -> str:
    """As the secret is, or with the signs between its characters that shells and mails escape and go on with."""
    between = r"[\\^`=]?"
    return between.join(each if each.isascii() and each.isalnum() else _any_spelling(each) for each in secret)


def _any_spelling(character: str) -> str:
    """A character as it is, and as addresses, JSON, batch files and web pages write it."""
    ways = {character, json.dumps(character)[1:-1], html.escape(character), f"&#{ord(character)};"}
    ways.add(_URL_SAFE.get(character, character))
    escaped = "".join(f"%+(?:25)*{byte:02x}" for byte in character.encode())
    # White space may have been left out.
    optional = "?" if character.isspace() else ""
    return f"(?:{'|'.join(map(re.escape, sorted(ways)))}|(?i:{escaped})|(?i:\\\\u{ord(character):04x})){optional}"
