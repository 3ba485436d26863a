"""Responses that a cache between here and the service has kept: they carry the service's mark, and are old.

Every request that reads says that it wants none of those (see `curl.NO_CACHE`). A cache that does not heed that is
noticed by what Azure repeats of a request, by the Age that an orderly cache says, and by a response that comes again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from chorus_upload.storage.answers import number_in
from chorus_upload.storage.curl import READS, NoAnswer
from chorus_upload.storage.service_mark import Mark

CLIENT_ID = "x-ms-client-request-id"
"""The header, in lower case, in which Azure repeats what the client calls a request."""

_MOST = 4_096


class Replayed(NoAnswer):
    """The service's response to another request. Never leaves `storage`."""

    hint = (
        "Something between here and the service keeps old responses, although it is told not to (Cache-Control): "
        "ask those who run the network to except the service."
    )

    def __init__(self) -> None:
        super().__init__("the response is an old one, or belongs to another request")


def require_echo(lines: Sequence[str], headers: Mapping[str, str]) -> None:
    """Raise Replayed when a response of Azure names another request than that with these `lines`.

    One that names none passes: something on the way may remove that. The names in `headers` are in lower case.
    """
    said = headers.get(CLIENT_ID)
    if said is not None and all(
        line.partition(":")[2].strip() != said for line in lines if line.lower().startswith(f"{CLIENT_ID}:")
    ):
        raise Replayed


def require_no_age(headers: Mapping[str, str]) -> None:
    """Raise Replayed when a response says that it is older than a second."""
    if number_in(headers.get("age")):
        raise Replayed


class RecentResponses:
    """The last responses to requests that read, to which another one is compared. For many threads.

    `mark` has the headers in which the service says an id. Some services give one id to all responses: what belongs to
    it here are the request and the second of the response.
    """

    def __init__(self, mark: Mark) -> None:
        self._id_headers = mark.headers
        self._lock = threading.Lock()
        self._seen: OrderedDict[tuple[str, str, str, str], None] = OrderedDict()

    def require_new(self, method: str, url: str, headers: Mapping[str, str]) -> None:
        """Raise Replayed when the response was there before, or says that it is older than a second."""
        if method not in READS:
            return
        require_no_age(headers)
        moment, name = headers.get("date"), next(filter(None, map(headers.get, self._id_headers)), None)
        if moment is None or name is None:
            return
        this = method, url, name, moment
        with self._lock:
            if this in self._seen:
                raise Replayed
            self._seen[this] = None
            while len(self._seen) > _MOST:
                self._seen.popitem(last=False)
