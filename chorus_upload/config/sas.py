"""What a shared access signature says of itself: how long it lives, what it permits, and where."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs

from pydantic import SecretStr

from chorus_upload.config.settings import Auth

SOON = timedelta(days=7)
_WORDS = {"r": "read", "w": "write", "l": "list", "d": "delete"}
READING = "rl"
# Not `c`: whoever may write may create as well.
# What has arrived wrong is taken away again, and so is a lock.
UPLOADING = KEEPING_THE_JOURNAL = "rwld"


@dataclass(frozen=True, slots=True)
class Sas:
    """A token's own words; None where it has none (a stored policy may decide then)."""

    has_signature: bool
    is_intact: bool
    """Whether the signature is one: 32 bytes in base64. A part that was not copied shows here."""
    starts: datetime | None
    expires: datetime | None
    permissions: str | None
    resource: str | None
    """`sr`: c a container, b one blob, d a directory."""
    policy: str | None
    services: str | None
    """`ss`, only in a token for an account."""
    resource_types: str | None
    """`srt`, only in a token for an account."""


def sas_of(auth: Auth) -> Sas | None:
    """The token with which a place is entered, also where it is part of a connection string; None without one."""
    if auth.azure_sas_token is not None:
        return read_sas(auth.azure_sas_token)
    text = auth.azure_connection_string.get_secret_value() if auth.azure_connection_string is not None else ""
    for part in text.split(";"):
        name, _, value = part.partition("=")
        if name.strip().lower() == "sharedaccesssignature":
            return read_sas(SecretStr(value.strip().lstrip("?")))
    return None


def read_sas(token: SecretStr) -> Sas:
    """The parts of a token that are no secret."""
    values = parse_qs(token.get_secret_value())

    def word(name: str) -> str | None:
        return values[name][0] if name in values else None

    return Sas(
        has_signature="sig" in values,
        is_intact=_is_signature(word("sig") or ""),
        starts=_moment(word("st")),
        expires=_moment(word("se")),
        permissions=word("sp"),
        resource=word("sr"),
        policy=word("si"),
        services=word("ss"),
        resource_types=word("srt"),
    )


def errors_of(sas: Sas, *, needs: str, now: datetime, for_one_blob: bool = False) -> Iterator[str]:
    """Why the token cannot do what it is for; `needs` are letters of Azure's permissions."""
    if not sas.has_signature:
        yield "the SAS token has no signature (sig=…): it is not complete, or not a SAS token"
        return
    if sas.expires is None and sas.policy is None:
        yield "the SAS token says nothing of when it expires: it is not complete"
    if sas.expires is not None and sas.expires <= now:
        yield f"the SAS token expired on {in_words(sas.expires)}; ask for a new one"
    if sas.starts is not None and sas.starts > now:
        yield f"the SAS token is not valid before {in_words(sas.starts)}"
    if sas.permissions is not None and (missing := [letter for letter in needs if letter not in sas.permissions]):
        words = ", ".join(f"{_WORDS[letter]} ({letter})" for letter in missing)
        yield f"the SAS token does not permit to {words}; it has sp={sas.permissions}"
    if sas.resource == "b" and not for_one_blob:
        yield "the SAS token is for a single blob (sr=b); one for the container is needed"
    if sas.services is not None and "b" not in sas.services:
        yield f"the SAS token is not for blobs (ss={sas.services})"
    if sas.resource_types is not None and not set("o" if for_one_blob else "co") <= set(sas.resource_types):
        yield f"the SAS token must be for containers and objects (srt=co), and has srt={sas.resource_types}"


def warnings_of(sas: Sas, *, now: datetime) -> Iterator[str]:
    """What is in order still and will not be for long, or cannot be told."""
    if sas.expires is None:
        yield "the SAS token follows a policy of the container, so its expiry cannot be told from here"
    elif sas.expires - now <= SOON:
        yield f"the SAS token expires on {in_words(sas.expires)}; ask for a new one in time"


def expiry_in_words(sas: Sas) -> str:
    """For a token in order."""
    return f"the SAS token is valid until {in_words(sas.expires)}" if sas.expires else "the SAS token is complete"


def _is_signature(text: str) -> bool:
    """An HMAC-SHA256 in base64; whoever unescapes a token once too often has spaces in the place of "+"."""
    try:
        return len(b64decode(text.replace(" ", "+"), validate=True)) == 32
    except ValueError:
        return False


def _moment(text: str | None) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text or "")
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def in_words(moment: datetime) -> str:
    """A moment as it is told of a token, which says it in UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
