"""Every error that this program raises on purpose, and the exit code that a script can rely on.

::

    ChorusError                     1   anything of ours that has no code of its own
    ├── ConfigError                 2   the configuration or the command line is wrong; nothing was done
    ├── LayoutError                 4   a pattern or a name cannot be turned into a central key
    ├── DeletionRefused             5   a source is missing, empty or lost too much; nothing was recorded
    ├── OutOfResources              6   this machine has no open files, threads or memory left to give
    ├── DestinationChanged          7   the central store is not the one that the journal knows; nothing was done
    ├── JournalError               14   the journal is damaged, of an older tool, or breaks its own rules
    │   ├── JournalLocked          10   somebody else holds the journal
    │   ├── JournalNotCheckedOut   11   there is nothing here that could be worked on or checked in
    │   ├── CheckinConflict        12   the cloud journal is no longer the one that was checked out
    │   └── SchemaTooNew           13   written by a newer chorus-upload
    └── StorageError               20   a store failed for good, for none of the reasons below
        ├── AccessDenied           21   the credentials do not permit it
        ├── CredentialsExpired     22   the credentials were good once
        ├── ObjectNotFound         23   no such object, container or bucket
        ├── ObjectExists           24   create-only, and the key is taken
        ├── PreconditionFailed     25   the object is not the one that was expected
        ├── TransientError         26   time-outs, resets, 429, 5xx: the only kind that is ever retried
        ├── IntegrityError         27   what arrived is not what was sent
        ├── TlsError               28   the other end could not prove who it is
        ├── StoreFull              29   the disk of a store has no room left
        └── ConditionsIgnored      30   the service overwrites what it was told not to overwrite

Exit 0 is success; 3 is partial success (the run ended, but some files need a person: see the report);
130 is an interruption by the user. Trouble with one file is an outcome in a report, never one of these.

An interruption is Python's own KeyboardInterrupt, which is no `Exception` and passes every handler of errors; the
second one is a `StoppedAtOnce`.
"""

from __future__ import annotations

import errno
import re
from typing import ClassVar, Self

EXIT_OK = 0
EXIT_PARTIAL = 3
EXIT_INTERRUPTED = 130


class ChorusError(Exception):
    """Base of the tree. `hint` says in one sentence what the user can do next."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class StoppedAtOnce(KeyboardInterrupt):
    """Nothing more is waited for or sent. What is recorded stays in the local journal.

    Its text, if any, says what the user can do next.
    """


class ConfigError(ChorusError):
    """The configuration or the command line is wrong; nothing was done."""

    exit_code = 2


class LayoutError(ChorusError):
    """A pattern or a name cannot be turned into a central key."""

    exit_code = 4


class DeletionRefused(ChorusError):
    """A source root is missing, empty, not mounted or lost more files than is plausible; nothing was recorded."""

    exit_code = 5


class OutOfResources(ChorusError):
    """This machine has no open files, threads or memory left to give; what was recorded is kept."""

    exit_code = 6

    @classmethod
    def of(cls, error: BaseException) -> Self | None:
        """What Python raises in such a case, as ours; None for anything else.

        It says nothing about the file or the request in which it happened to show: the next one would meet it, too.
        """
        if isinstance(error, OSError) and error.errno in _EXHAUSTED:
            return cls(f"this machine has no more to give: {error.strerror}", hint=_EXHAUSTED[error.errno])
        if isinstance(error, MemoryError):
            return cls("there is not enough memory", hint=_EXHAUSTED[errno.ENOMEM])
        if isinstance(error, RuntimeError) and re.match("can't (start|allocate)", str(error)):
            return cls(f"this machine has no more to give: {error}", hint=_FEWER_THREADS)
        return None


_FEWER_THREADS = "Raise the limit of processes and threads (`ulimit -u`) or of memory, or lower num_threads."
_FEWER_FILES = "Raise the limit of open files (`ulimit -n`), or lower num_threads; then repeat the command."
_EXHAUSTED = {
    errno.EMFILE: _FEWER_FILES,
    errno.ENFILE: _FEWER_FILES,
    errno.ENOMEM: "Raise the limit of memory (`ulimit -v`), or end what else uses it; then repeat the command.",
}


class DestinationChanged(ChorusError):
    """The central store is not the one that the journal has deliveries to; nothing was done."""

    exit_code = 7


class JournalError(ChorusError):
    """The journal is damaged, was made by an older tool, or would break its own rules."""

    exit_code = 14


class JournalLocked(JournalError):
    """Somebody else holds the journal."""

    exit_code = 10


class JournalNotCheckedOut(JournalError):
    """There is no checked-out journal here to work on or to check in."""

    exit_code = 11


class CheckinConflict(JournalError):
    """The cloud journal is no longer the one that was checked out."""

    exit_code = 12


class SchemaTooNew(JournalError):
    """The journal was written by a newer chorus-upload."""

    exit_code = 13


class StorageError(ChorusError):
    """A store failed for good, for none of the reasons that have a class of their own.

    `is_of_source`: it is not the central store that failed but a source.
    """

    exit_code = 20
    is_of_source = False


class AccessDenied(StorageError):
    """The credentials do not permit the operation."""

    exit_code = 21


class CredentialsExpired(StorageError):
    """The credentials were good once and are not any more."""

    exit_code = 22


class ObjectNotFound(StorageError):
    """No such object, container, bucket or directory."""

    exit_code = 23


class ObjectExists(StorageError):
    """A create-only write met a key that is taken."""

    exit_code = 24


class PreconditionFailed(StorageError):
    """The object is not the one that the caller had in mind (its etag differs)."""

    exit_code = 25


class TransientError(StorageError):
    """A time-out, a reset, a throttled or failing service: the only kind that is ever retried.

    `retry_after` is the number of seconds that the service asked for, if it did. `foreign_status` is the status of a
    response that was not the service's (of a proxy or a log-in page); None when there was none.
    """

    exit_code = 26
    usual_hint: ClassVar[str | None] = None

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        retry_after: float | None = None,
        foreign_status: int | None = None,
    ) -> None:
        super().__init__(message, hint=hint or self.usual_hint)
        self.retry_after = retry_after
        self.foreign_status = foreign_status


class NotAsStored(TransientError):
    """An object arrives with another checksum than the service says of it, again and again."""

    @classmethod
    def of(cls, what: str, *, found: bytes, said: bytes | None) -> Self:
        """Return the error for `what` has the checksum `found`, and the service says another one."""
        return cls(
            f"{what} does not arrive as it is stored: its checksum is {found.hex()}, and the service says"
            f" {(said or b'').hex()}. Something on the way changes it, or somebody has written a wrong one beside it",
            hint="Ask those who run the network to except the service, or have the checksum at the service corrected.",
        )


class HostUnresolved(TransientError):
    """The name of a host could not be looked up: there may be no network."""

    usual_hint = "Is the address in the configuration right, and is this machine on a network that reaches it?"


class HostUnknown(HostUnresolved):
    """The name service says that there is no such host: most likely the name is misspelled."""


class IntegrityError(StorageError):
    """What arrived is not what was sent."""

    exit_code = 27


class TlsError(StorageError):
    """The other end could not prove who it is, or no secure connection could be agreed."""

    exit_code = 28


class StoreFull(StorageError):
    """The disk of a store has no room left."""

    exit_code = 29


class ConditionsIgnored(StorageError):
    """A service overwrites what it was told not to overwrite: nothing may be written there."""

    exit_code = 30
