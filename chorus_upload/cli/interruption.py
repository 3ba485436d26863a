"""Ctrl-C, a closing terminal and a batch system's SIGTERM: the first asks, the second insists."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from chorus_upload.errors import EXIT_INTERRUPTED, StoppedAtOnce

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]

_A_MOMENT = 0.01

_heard = threading.Event()


def was_interrupted() -> bool:
    """Whether a signal came since the run began: some libraries make an error of their own of what it raises."""
    return _heard.is_set()


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread may handle signals; whoever runs us in another one has its own way.
        yield
        return

    def hear(number: int, frame: FrameType | None) -> None:
        _heard.set()
        handler(number, frame)

    before = {number: signal.signal(number, hear) for number in _SIGNALS}
    over, hook_before = threading.Event(), sys.unraisablehook
    sys.unraisablehook = _not_lost(hook_before, over)
    try:
        yield
    finally:
        over.set()
        for number, previous in before.items():
            signal.signal(number, previous)
        sys.unraisablehook = hook_before


def ended_by_signals() -> None:
    """From here on every signal ends this process without a word.

    For one that has said and flushed all: what meets Python while it tidies up would be printed as a traceback.
    """
    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            signal.signal(number, lambda *_: os._exit(EXIT_INTERRUPTED))


def _not_lost(
    otherwise: Callable[[sys.UnraisableHookArgs], object], over: threading.Event
) -> Callable[[sys.UnraisableHookArgs], None]:
    """An interruption that meets Python while it tidies up (`__del__`, a weak reference) is made a moment later.

    Python can raise nothing there: it would print the exception, and go on as if nobody had asked it to stop.
    Unless all is `over` by then.
    """

    def interrupt_again() -> None:
        if not over.wait(_A_MOMENT):
            _thread.interrupt_main()

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            threading.Thread(target=interrupt_again, daemon=True).start()
        else:
            otherwise(unraisable)

    return hook


@contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Every one of these signals is a KeyboardInterrupt in this block, so that all of them end a run in order."""
    _heard.clear()
    with _handled_by(_interrupt):
        yield


@contextmanager
def interrupted_at_once(hint: str) -> Iterator[None]:
    """Every signal in this block is a StoppedAtOnce: for what leaves nothing behind. `hint` says how to go on."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise StoppedAtOnce(hint)

    with _handled_by(interrupt):
        yield


@contextmanager
def stopped_by_signals() -> Iterator[threading.Event]:
    """In this block the first signal sets the event; a second one is a StoppedAtOnce."""
    # The work itself may set `stop`, too.
    stop, asked = threading.Event(), threading.Event()

    def ask_first(_number: int, _frame: FrameType | None) -> None:
        if asked.is_set():
            raise StoppedAtOnce
        asked.set()
        stop.set()

    with _handled_by(ask_first):
        yield stop
