"""What `file verify` says of one file: from the listing alone, or from reading the object back."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from chorus_upload.errors import ObjectNotFound, StorageError, TransientError
from chorus_upload.events import FileVerified, VerifyResult
from chorus_upload.journal.listing import Compared
from chorus_upload.model import Evidence
from chorus_upload.storage.store import Store
from chorus_upload.transfer.evidence import read_back
from chorus_upload.transfer.reader import Stopped


@dataclass(frozen=True, slots=True)
class Reading:
    """What came of reading one object back.

    `content` is its XXH3-128 and MD5, None when it is not as long as the journal says; `gone` that it was removed
    since it was listed; `trouble` why it could not be read.
    """

    compared: Compared
    content: tuple[bytes, bytes] | None = None
    gone: bool = False
    trouble: StorageError | None = None


class BackReader:
    """Reads objects back. Used by many threads at once."""

    def __init__(self, store: Store, *, stop: threading.Event) -> None:
        self._store = store
        self._stop = stop
        self._lock = threading.Lock()
        self._got: dict[str, int] = {}

    def under_way(self) -> tuple[int, tuple[str, ...]]:
        """Bytes of unfinished objects, and their keys in the order in which they began."""
        with self._lock:
            return sum(self._got.values()), tuple(self._got)

    def read(self, compared: Compared) -> Reading | None:
        """Read one object; None when the run was stopped before its end."""
        if self._stop.is_set():
            return None
        key = compared.key
        try:
            content = self._content(compared)
            if not _is_right(content, compared):
                # Before anybody is alarmed: it may have been on its way that it became another one.
                content = self._content(compared)
        except Stopped:
            return None
        except ObjectNotFound:
            return Reading(compared, gone=True, trouble=self.trouble_with_the_place())
        except TransientError as error:
            # A wait is given up when the run is stopped, which says nothing about the object.
            return None if self._stop.is_set() else Reading(compared, trouble=error)
        except StorageError as error:
            return Reading(compared, trouble=error)
        finally:
            with self._lock:
                self._got.pop(key, None)
        return Reading(compared, content)

    def _content(self, compared: Compared) -> tuple[bytes, bytes] | None:
        key = compared.key
        with self._lock:
            self._got[key] = 0
        return read_back(
            self._store, key, size=compared.size, stop=self._stop, on_bytes=lambda count: self._count(key, count)
        )

    def _count(self, key: str, count: int) -> None:
        with self._lock:
            self._got[key] = self._got.get(key, 0) + count

    def trouble_with_the_place(self) -> StorageError | None:
        """Whether the whole container or directory is gone or out of reach, and not just one object."""
        try:
            self._store.probe()
        except StorageError as error:
            return error
        return None


def from_listing(compared: Compared, *, read: bool) -> FileVerified | None:
    """Judge a file by the listing; None when its object has to be read: because the listing does not settle it,
    or because `read` says so.

    An object of the same etag was not written again since its delivery was proven. A checksum in a listing may be
    anybody's claim.
    """
    if compared.listed_size is None:
        return _verified(compared, VerifyResult.MISSING, _last_known(compared))
    if compared.listed_size != compared.size:
        detail = f"{_bytes(compared.listed_size)}, the journal says {compared.size:,}"
        return _verified(compared, VerifyResult.SIZE_DIFFERS, detail)
    if read:
        return None
    if compared.evidence is Evidence.IMPORTED and compared.listed_md5 == compared.md5:
        detail = "an older tool recorded it; its MD5 property agrees, which is a claim and no proof"
        return _verified(compared, VerifyResult.MATCHED, detail, compared.evidence)
    if compared.is_as_proven:
        return _verified(compared, VerifyResult.MATCHED, "", compared.evidence)
    return None


def from_reading(reading: Reading) -> FileVerified:
    """Judge a file by what came of reading its object."""
    compared = reading.compared
    if reading.trouble is not None:
        return _verified(compared, VerifyResult.UNREADABLE, reading.trouble.message)
    if reading.gone:
        return _verified(compared, VerifyResult.MISSING, "it was removed while this command ran")
    if reading.content is None:
        return _verified(compared, VerifyResult.SIZE_DIFFERS, "it was written again while this command ran")
    if _is_right(reading.content, compared):
        return _verified(compared, VerifyResult.MATCHED, _news(compared), Evidence.READBACK)
    return _verified(compared, VerifyResult.CHECKSUM_DIFFERS, _difference(compared))


def _is_right(content: tuple[bytes, bytes] | None, compared: Compared) -> bool:
    return content is not None and content[1] == compared.md5 and compared.fingerprint in (None, content[0])


def unexplained(key: str, *, version: str, size: int) -> FileVerified:
    """Name an object that the journal does not know."""
    detail = f"{_bytes(size)}; no delivery in the journal explains it"
    return FileVerified(key=key, result=VerifyResult.NOT_IN_JOURNAL, detail=detail, version=version, size=size)


def _last_known(compared: Compared) -> str:
    """What the journal knows of an object that is not there."""
    ended = f", and retired in {compared.retired_by}" if compared.retired_by else ""
    return (
        f"delivered {_utc(compared.delivered_us)} by submission {compared.submission}"
        f" (evidence: {compared.evidence}){ended}; it is not there now: the receiver may have moved it"
    )


def _utc(time_us: int) -> str:
    try:
        return f"{datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_us):%Y-%m-%d %H:%M:%S} UTC"
    except OverflowError:
        # A journal may come from anybody.
        return f"{time_us} us after 1970"


def _bytes(number: int) -> str:
    return f"{number:,} byte" if number == 1 else f"{number:,} bytes"


def _news(compared: Compared) -> str:
    """What is worth a remark when an object has the right content."""
    if compared.etag is None:
        return "never proven before"
    return "" if compared.is_as_proven else "written again since it was proven"


def _difference(compared: Compared) -> str:
    if compared.etag is None:
        return "other content than an older tool recorded"
    if compared.is_as_proven:
        return "other content, although it was not written again since it was proven"
    return "written again since it was proven, with other content"


def _verified(compared: Compared, result: VerifyResult, detail: str, evidence: Evidence | None = None) -> FileVerified:
    if result.is_other and compared.retired_by:
        detail += f"; in {compared.retired_by} the file was another one, or gone: this content is not sent again"
    return FileVerified(
        key=compared.key,
        result=result,
        detail=detail,
        path=compared.path,
        modality=compared.modality,
        evidence=evidence,
        version=compared.version,
        size=compared.size,
        fingerprint=compared.fingerprint,
        md5=compared.md5,
        etag=compared.listed_etag,
        submission=compared.submission,
        delivered_us=compared.delivered_us,
        retired_by=compared.retired_by,
    )
