"""Turning what ended a command into words and an exit code."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Callable

import typer

from chorus_upload.cli.render.sink import Failure
from chorus_upload.errors import EXIT_INTERRUPTED, ChorusError, OutOfResources, StoppedAtOnce

EXIT_UNEXPECTED = 1

_AFTER_INTERRUPTION = "what was recorded is kept; type the same command again to go on"
_AFTER_INSISTING = (
    "what was recorded is in the local journal: type the same command again to go on, or `journal checkin` to give it"
    " back"
)
_OF_THE_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG})
_SEE_TO_THE_DISK = "What was recorded is kept. Once that is seen to, type the same command again to go on."
_PLEASE_REPORT = "this is a defect of chorus-upload: please report it, with the output of the same command and -v"


def failure_of(
    error: BaseException, *, verbose: bool, redact: Callable[[str], str], interrupted: bool = False
) -> Failure:
    """Describe what ended a command. A traceback comes with `verbose` only; nothing of it holds a secret.

    What nobody expects is no defect when the command was `interrupted`.
    """
    shown = redact("".join(traceback.format_exception(error))) if verbose else None
    error = what_ended(error)
    error = OutOfResources.of(error) or error
    match error:
        case ChorusError():
            hint = redact(error.hint) if error.hint else None
            return Failure(type(error).__name__, error.exit_code, redact(error.message), hint, shown)
        case typer.TyperException():
            return Failure("UsageError", error.exit_code, redact(error.format_message()), _usage_hint(error))
        case StoppedAtOnce():
            return Failure("Interrupted", EXIT_INTERRUPTED, "stopped at once", str(error) or _AFTER_INSISTING, shown)
        case KeyboardInterrupt() | typer.Abort():
            return Failure("Interrupted", EXIT_INTERRUPTED, "interrupted", _AFTER_INTERRUPTION, shown)
        case OSError() if error.errno in _OF_THE_DISK:
            what = redact(f"{error.filename or 'a file'}: {error.strerror}")
            return Failure("ChorusError", ChorusError.exit_code, what, _SEE_TO_THE_DISK, shown)
        case _:
            what = redact(f"{type(error).__name__}: {error}".rstrip(": "))
            if interrupted:
                # It may be a defect all the same, and must not be hidden.
                return Failure("Interrupted", EXIT_INTERRUPTED, f"interrupted ({what})", _AFTER_INTERRUPTION, shown)
            return Failure("Unexpected", EXIT_UNEXPECTED, f"unexpected {what}", _PLEASE_REPORT, shown)


def what_ended(error: BaseException) -> BaseException:
    """The interruption that `error` came of, if it came of one: what was interrupted may have ended in trouble."""
    behind: BaseException | None = error
    while behind is not None:
        if isinstance(behind, KeyboardInterrupt):
            return behind
        behind = behind.__context__
    return error


def _usage_hint(error: typer.TyperException) -> str | None:
    context = getattr(error, "ctx", None)
    return f"'{context.command_path} -h' explains the command" if context is not None else None
