"""Every request to Azure goes through here: what it raises is translated, and what is transient repeated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import requests
from azure.core import MatchConditions
from azure.core.exceptions import AzureError
from urllib3.exceptions import HTTPError

from chorus_upload.errors import IntegrityError, TransientError
from chorus_upload.storage.azure_errors import translate
from chorus_upload.storage.retry import Retry

T = TypeVar("T")

# How often a body is sent that arrives garbled. Patience does not help against a machine that garbles.
_GARBLED_ATTEMPTS = 3

# Nearly all that leaves the SDK is an AzureError. The others do in corners: reading a body that breaks off, a
# certificate file that is not there (OSError), an answer without a header that the SDK counts on (ValueError).
_FOREIGN = (AzureError, requests.RequestException, HTTPError, OSError, ValueError)


@dataclass(frozen=True, slots=True)
class Requests:
    """How requests are made. `expires` is when our SAS token does."""

    retry: Retry
    expires: datetime | None

    def run(self, doing: str, action: Callable[[], T]) -> T:
        """The result of `action`, which may be called repeatedly; only our own errors leave."""
        return self.retry.call(lambda: self._attempt(doing, action))

    def send(self, doing: str, action: Callable[[], T]) -> T:
        """As `run`, for an action that sends content: it is also repeated when the content arrived garbled."""
        for _ in range(_GARBLED_ATTEMPTS - 1):
            try:
                return self.run(doing, action)
            except IntegrityError:
                continue
        return self.run(doing, action)

    def _attempt(self, doing: str, action: Callable[[], T]) -> T:
        try:
            return action()
        except _FOREIGN as error:
            failure = translate(error, doing=doing, expires=self.expires)
        # Raised here and not above: there, the foreign exception, whose text may hold a SAS token, would
        # be the context of ours, and whoever prints or pickles it would carry the token along.
        raise failure


@dataclass(frozen=True, slots=True)
class Conditions:
    """Under which a write may happen, as the SDK wants it said."""

    create_only: bool = False
    if_match: str | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments. They must be left out, not None, where they do not apply: the SDK hands an
        `etag` that it has no use for to the HTTP library, which does not know it.
        """
        if self.create_only:
            return {"match_condition": MatchConditions.IfMissing}
        if self.if_match is not None:
            return {"match_condition": MatchConditions.IfNotModified, "etag": f'"{self.if_match}"'}
        return {}


def must_be_complete(*required: object) -> None:
    """Raise TransientError when an answer lacks one of the things that it cannot be without.

    An answer that breaks off within its headers looks complete to Python's HTTP client; what tells is that
    headers are missing that the service always sends.
    """
    if any(each is None for each in required):
        raise broken_off()


def broken_off() -> TransientError:
    return TransientError("the answer broke off, or is not the service's")


def bare_etag(etag: str | None) -> str:
    """The etag without the quotes that answers have and listings have not."""
    return (etag or "").removeprefix("W/").strip('"')
