"""What a file is, held against what the journal says of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import quote

from chorus_upload import __version__
from chorus_upload.model import FailureKind, Transfer
from chorus_upload.storage.source import FileStat
from chorus_upload.storage.store import FINGERPRINT
from chorus_upload.transfer.reader import HELD_SECRET, SCREENED_BYTES, WITHOUT_SECRETS, SourceChanged


class Content(NamedTuple):
    """The hashes of what was read from the source; no fingerprint of what only the service has read."""

    fingerprint: bytes | None
    md5: bytes


class SecretFound(SourceChanged):
    """A file holds a secret, and is not to be sent. Never leaves `transfer`."""

    kind = FailureKind.HOLDS_SECRET
    advice = WITHOUT_SECRETS


def require_no_secret(data: bytes | bytearray, holds_secret: Callable[[bytes], bool] | None) -> None:
    """Raise SecretFound for what must not be sent; larger files than `SCREENED_BYTES` are not looked through."""
    if holds_secret is not None and len(data) <= SCREENED_BYTES and holds_secret(bytes(data)):
        raise SecretFound(HELD_SECRET)


def require_same(found: FileStat | None, transfer: Transfer) -> None:
    """Raise SourceChanged, or FileNotFoundError, unless a file looks as the journal says."""
    if found is None:
        raise FileNotFoundError
    if found.size != transfer.size:
        raise SourceChanged(f"its size is {found.size}, the journal says {transfer.size}")
    if found.mtime_us != transfer.mtime_us:
        raise SourceChanged("its time is not the one in the journal")


def require_known(transfer: Transfer, content: Content) -> None:
    """Compare by the fingerprint, or by the MD5 where an older tool left only that."""
    if transfer.fingerprint is not None:
        known = transfer.fingerprint == content.fingerprint
    else:
        known = transfer.md5 is None or transfer.md5 == content.md5
    if not known:
        raise SourceChanged("its content is not the one in the journal")


def metadata_of(transfer: Transfer, fingerprint: bytes | None) -> dict[str, str]:
    """What the receiver may want to know of an object; evidence of nothing."""
    return {
        "source_mtime_us": str(transfer.mtime_us),
        **({FINGERPRINT: fingerprint.hex()} if fingerprint else {}),
        # A label may come from an old journal, and only ASCII can be a header.
        "journal_version": quote(transfer.version),
        "tool_version": __version__,
    }
