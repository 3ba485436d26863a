"""The nouns of the program: plain, frozen values that every layer shares. No I/O.

Times are microseconds since the epoch, UTC (`…_us`); sizes are bytes; paths are POSIX, relative to the
root of their source; checksums are raw bytes (16 for MD5 and for XXH3-128).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class JournalingMode(StrEnum):
    """Whether the source holds everything (`full`) or only what is new since the last time (`append`)."""

    FULL = "full"
    APPEND = "append"


class FingerprintTime(StrEnum):
    """When a new file is read for the first time: at `journal update`, or only while it is sent."""

    ON_UPDATE = "on-update"
    ON_UPLOAD = "on-upload"


class Change(StrEnum):
    """How a file entered the journal."""

    ADDED = "added"
    MODIFIED = "modified"
    RENAMED = "renamed"


class Retirement(StrEnum):
    """Why a file is active no longer."""

    MODIFIED = "modified"
    RENAMED = "renamed"
    GONE = "gone"
    MARKED = "marked"


class Evidence(StrEnum):
    """What proves that a file arrived, strongest first."""

    SERVER = "server"
    """The service computed an MD5 over what it stored, and it is ours."""
    TRANSIT = "transit"
    """The service checked a checksum of every block as it arrived."""
    READBACK = "readback"
    """The object was read back and hashed."""
    SIZE = "size"
    """Only the sizes agree. Counts as delivered only where the configuration says so."""
    IMPORTED = "imported"
    """An older tool recorded the upload; this one has not proven it. Never written for a new delivery."""


class CustodyState(StrEnum):
    """How a local journal stands to the one in the cloud."""

    OUT = "out"
    """Checked out: the cloud has our lock, and this file may have what the cloud has not."""
    OFFERED = "offered"
    """A copy was sent to the cloud; whether the cloud took it is not known here."""
    RETURNED = "returned"
    """The cloud has what this file has; our lock may still be there."""
    IN = "in"
    """The cloud has what this file has, and the lock is gone: a copy that may be replaced."""


class ProblemKind(StrEnum):
    """Why something in a source needs a person."""

    UNREADABLE_DIRECTORY = "unreadable-directory"
    UNREADABLE_FILE = "unreadable-file"
    NOT_A_FILE = "not-a-file"
    LINK_TO_DIRECTORY = "link-to-directory"
    SKIPPED_LINK = "skipped-link"
    """A link to a directory, where the configuration says that they are not followed."""
    LINK_LOOP = "link-loop"
    LINK_TO_OUTSIDE = "link-to-outside"
    """A link to a file that is not in the source."""
    NOT_MOUNTED = "not-mounted"
    """A directory on which something was mounted, and is not now: what is missing below it does not count as gone."""
    MOVED_OUTSIDE = "moved-outside"
    """An active file that is now under a name that no pattern matches; it stays active until that is confirmed."""
    OUTSIDE_PATTERNS = "outside-patterns"
    """So much of a source matches no pattern that one of them may be wrong."""
    EMPTY_SOURCE = "empty-source"
    """A source without a single file, where it is to hold everything."""
    INVALID_NAME = "invalid-name"
    SAME_KEY = "same-key"
    NAMES_DIFFER_ONLY_IN_CASE = "names-differ-only-in-case"
    KEYS_DIFFER_ONLY_IN_CASE = "keys-differ-only-in-case"
    CHANGED_WHILE_READ = "changed-while-read"
    VANISHED = "vanished"
    HOLDS_SECRET = "holds-secret"  # noqa: S105 - the name of a kind
    """A file that holds a secret of the configuration, or is a copy of it: never sent."""
    OWN_FILE = "own-file"
    """The program's own, or one with credentials: never sent."""

    @property
    def needs_attention(self) -> bool:
        """Whether a file that ought to be in the journal may be missing from it (then the run ends with 3)."""
        return self not in (
            ProblemKind.SKIPPED_LINK,
            ProblemKind.NAMES_DIFFER_ONLY_IN_CASE,
            ProblemKind.KEYS_DIFFER_ONLY_IN_CASE,
            ProblemKind.OWN_FILE,
        )


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing in a source that could not be journaled, or that a person should know of."""

    kind: ProblemKind
    path: str
    detail: str = ""


class FailureKind(StrEnum):
    """Why a file was not delivered. It stays pending in every case."""

    VANISHED = "vanished"
    CHANGED = "changed"
    UNREADABLE = "unreadable"
    KEY_TAKEN = "key-taken"
    """The central key holds other content; it is never overwritten silently."""
    NOT_PROVEN = "not-proven"
    """It was sent, but nothing the service says proves it."""
    TRANSIENT = "transient"
    """The service or the network failed for longer than the configured patience."""
    HOLDS_SECRET = "holds-secret"  # noqa: S105 - the name of a kind
    """It holds a secret of the configuration, or is a copy of it; it was not sent."""
    DENIED = "denied"
    """The service does not let us write this one object: a policy protects it, or its name."""
    REFUSED = "refused"
    """The service refuses this one object for another reason (its name or its size)."""


class Reading(NamedTuple):
    """What reading a file gave: its state, the same before and after, and its content.

    A file that was only looked at has neither fingerprint nor MD5; an MD5 is computed only where it is needed.
    """

    size: int
    mtime_us: int
    fingerprint: bytes | None = None
    md5: bytes | None = None


@dataclass(frozen=True, slots=True)
class Twin:
    """An object of the destination that was proven to have the content of another file, when its etag was this."""

    key: str
    etag: str


@dataclass(frozen=True, slots=True)
class Transfer:
    """One file to deliver: plain data, so that it can be handed to a thread, a process or another machine.

    `fingerprint` and `md5` are what the journal knows of the content; either may be missing (a file that is
    first read while it is sent has neither, one from an old journal has only an MD5). `replaces` is the etag of
    an object of ours that this one supersedes under the same key; None means that the key must be free, or hold
    content of one of the fingerprints (or MD5s) in `superseded`: earlier states of this file in the same version,
    which may have been sent by a run that died before recording it. `version` is the label of the version to
    which the file belongs; `twin` is where the destination has the same content already. `may_be_there` says that
    a run that was killed may have delivered it.
    """

    file_id: int
    modality: str
    path: str
    key: str
    size: int
    mtime_us: int
    fingerprint: bytes | None = None
    md5: bytes | None = None
    replaces: str | None = None
    superseded: tuple[bytes, ...] = ()
    version: str = ""
    twin: Twin | None = None
    may_be_there: bool = False


@dataclass(frozen=True, slots=True)
class Delivered:
    """The outcome of a transfer that is proven. `fingerprint` is None when nothing came by here to be hashed."""

    transfer: Transfer
    fingerprint: bytes | None
    md5: bytes
    evidence: Evidence
    etag: str
    at_us: int
    seconds: float
    sent: bool = True
    """False when the object was there already (an earlier run sent it and was killed before recording it)."""
    spared: int = 0
    """Bytes that had not to be sent: the service had them from an interrupted run, or copied them."""
    replaced: bool = False
    """Whether the key held other content, which this replaced because the configuration says so."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The outcome of a transfer that is not proven; the file stays pending."""

    transfer: Transfer
    kind: FailureKind
    detail: str
    seconds: float = 0.0


Outcome = Delivered | Failed


class RetrievalFailure(StrEnum):
    """Why a file was not brought back."""

    NOT_DELIVERED = "not-delivered"
    """The central store never got it."""
    MISSING = "missing"
    """It was delivered, and is not there any more."""
    WRONG = "wrong"
    """What the central store holds is not what was delivered; none of it was kept."""
    TAKEN = "taken"
    """Something else is in its place in the target; it is never overwritten silently."""
    REFUSED = "refused"
    """The target cannot have a file of this name."""
    DENIED = "denied"
    """The service does not let us read it."""
    UNREADABLE = "unreadable"
    """The service does not give it away for another reason: it may be archived."""
    TRANSIENT = "transient"
    """The service or the network failed for longer than the configured patience."""


@dataclass(frozen=True, slots=True)
class Retrieval:
    """One file to bring back: where the central store has it, and what it has to be.

    `key` is None when the store never got it. `fingerprint` is None for what an older tool recorded.
    """

    modality: str
    path: str
    key: str | None
    size: int
    mtime_us: int
    fingerprint: bytes | None
    md5: bytes | None


@dataclass(frozen=True, slots=True)
class Retrieved:
    """The outcome of a retrieval: the file is in the target, and is what the journal says."""

    retrieval: Retrieval
    fetched: int
    """How many bytes came from the store; 0 when the file was there already."""
    was_there: bool = False


@dataclass(frozen=True, slots=True)
class NotRetrieved:
    """The outcome of a retrieval that brought nothing."""

    retrieval: Retrieval
    kind: RetrievalFailure
    detail: str


@dataclass(frozen=True, slots=True)
class ListedFile:
    """One file of the journal as `file list` shows it. The last four are None while it is not delivered."""

    path: str
    modality: str
    patient: str | None
    version: str
    change: Change
    size: int
    mtime_us: int
    key: str
    fingerprint: bytes | None = None
    md5: bytes | None = None
    evidence: Evidence | None = None
    etag: str | None = None
    delivered_us: int | None = None
    submission: str | None = None


@dataclass(frozen=True, slots=True)
class VersionSummary:
    """One row of `journal list`: a version and a modality. `pending` is what is active and not delivered.

    A version without files has one row whose modality is None.
    """

    version: str
    mode: JournalingMode
    begun_us: int
    completed_us: int | None
    modality: str | None
    persons: int
    files: int
    bytes: int
    active_files: int
    active_bytes: int
    pending_files: int
    pending_bytes: int


@dataclass(frozen=True, slots=True)
class CommandRecord:
    """One row of `history`. `arguments` never holds a credential."""

    begun_us: int
    command: str
    arguments: str
    host: str
    user: str
    tool_version: str
    seconds: float | None
    exit_code: int | None


@dataclass(frozen=True, slots=True)
class PlaceSilent:
    """A place has not responded for `seconds`, because of `reason`. It is tried again until `until_us`.

    That is None as long as no request has failed. `look_at` names the keys of the configuration that say where it is.
    """

    place: str
    seconds: float
    reason: str
    until_us: int | None
    look_at: str


@dataclass(frozen=True, slots=True)
class RequestsFail:
    """So many requests to a place that is not silent fail, the first of them for `seconds`, because of `reason`.

    That one is tried until then. With 0 `requests` this is over.
    """

    place: str
    requests: int
    seconds: float
    reason: str
    until_us: int


@dataclass(frozen=True, slots=True)
class CredentialsAwaited:
    """The credentials of a place have expired, for this `reason`; new ones are waited for until then.

    `look_at` are the files in which they are looked for.
    """

    place: str
    reason: str
    until_us: int
    look_at: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlaceResponds:
    """A place that was called silent responds again, after so many seconds."""

    place: str
    seconds: float
