"""The marks by which a response is known to be the service's, and the one place that demands them.

A status, an ETag and a page come from every proxy and log-in portal as well. A response counts only with a mark that
the service alone gives, and a success only with the status that the service documents for the operation. Everything
else is no response at all (`Unmarked`, a TransientError once it leaves `storage`): it refuses nothing, and proves
neither that an object is there nor that it is not.

The checksum that a response has to carry is another matter, and is compared where the content is at hand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from chorus_upload.storage.curl import NoAnswer


class Unmarked(NoAnswer):
    """Something else than the service responded. Never leaves `storage`.

    `status` is that of the response, and `asked` its Retry-After, as it stands there.
    """

    hint = (
        "Is a proxy or a log-in page between here and the service? Log in to the network, "
        "or set `proxy` in the configuration, as http://user:password@host:port. "
        "If there is none, `config check --online` tells whether the service gives that mark at all."
    )

    def __init__(self, status: int, mark: str, asked: str | None = None) -> None:
        super().__init__(f"something between here and the service responded ({status}, without {mark})")
        self.status = status
        self.asked = asked


class WrongStatus(NoAnswer):
    """The service responded with a success that this operation does not have. Never leaves `storage`."""


@dataclass(frozen=True, slots=True)
class Mark:
    """The mark of one service: one of `headers` (in lower case), or an XML body of its own.

    That is one whose root is one of `roots` with a success, and an Error with a Code in it with anything else.
    """

    name: str
    headers: tuple[str, ...]
    roots: frozenset[str] = frozenset()

    def is_on(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> bool:
        """Return whether a response carries it. The names in `headers` are in lower case."""
        if any(headers.get(each, "").strip() for each in self.headers):
            return True
        found = _ROOT.match(body) if self.roots else None
        if found is None:
            return False
        return found[1].decode() in self.roots if status < 300 else found[1] == b"Error" and b"<Code>" in body


# An XML declaration, comments and white space may come first; HTML has another root.
_ROOT = re.compile(rb"\s*(?:<\?xml[^>]{0,200}\?>\s*)?<([A-Za-z]{1,60})[\s>/]")
_S3_ROOTS = frozenset(
    {
        *("ListBucketResult", "ListPartsResult", "ListMultipartUploadsResult", "InitiateMultipartUploadResult"),
        *("CompleteMultipartUploadResult", "CopyObjectResult", "CopyPartResult", "LocationConstraint"),
    }
)

AZURE = Mark("x-ms-request-id", ("x-ms-request-id",))
S3 = Mark("x-amz-request-id", ("x-amz-request-id", "x-amzn-requestid"), _S3_ROOTS)
GOOGLE = Mark("x-guploader-uploadid", ("x-guploader-uploadid", "x-goog-generation", "x-goog-hash"))
"""For what carries no JSON: content, and responses without a body. All else has to be JSON (see `require_json`)."""


def require(
    mark: Mark, status: int, headers: Mapping[str, str], body: bytes = b"", *, expected: Collection[int]
) -> None:
    """Return when a response is the service's: with the mark, and a success only with an expected status.

    A refusal (300 and above) that carries the mark passes, and is for the caller to judge. Raises Unmarked and
    WrongStatus.
    """
    if not mark.is_on(status, headers, body):
        raise Unmarked(status, mark.name, headers.get("retry-after"))
    _require_status(status, expected)


def require_json(
    status: int, headers: Mapping[str, str], body: bytes, *, expected: Collection[int], kind: str | None
) -> dict[str, Any]:
    """Return the JSON of a response of Google's: of this `kind` when it is a success, else an `error` with its status.

    A refusal may have the mark instead.

    `kind` None: the response has neither a kind nor perhaps a body, and its headers have to carry the mark; what is
    returned is empty then. A refusal that passes is for the caller to judge. Raises Unmarked and WrongStatus.
    """
    found = _object_in(body)
    if status >= 300 and status not in expected:
        error = found.get("error")
        # Where content is asked for, and of uploads that it has forgotten, it may speak in plain text.
        if (isinstance(error, dict) and str(error.get("code")) == str(status)) or GOOGLE.is_on(status, headers):
            return found
        raise Unmarked(status, "the JSON of an error", headers.get("retry-after"))
    if kind is None:
        require(GOOGLE, status, headers, expected=expected)
        return {}
    if found.get("kind") != kind:
        raise Unmarked(status, kind, headers.get("retry-after"))
    _require_status(status, expected)
    return found


def _require_status(status: int, expected: Collection[int]) -> None:
    if status < 300 and status not in expected:
        raise WrongStatus(f"the service responded with {status}, which this request never has")


def _object_in(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
