"""Ctrl-C, a batch system's SIGTERM and a terminal that closes: once to end in order, twice to end at once."""

from __future__ import annotations

import dataclasses
import os
import pty
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.clouds import JOURNAL, LOCK, Container, ask, files_of
from tests.e2e.conftest import settle
from tests.e2e.site import Site, quick_program, wait_until
from tests.trees import Bytes, build, bytes_of
from tests.wire import Delay, Wire

SCANS = {f"{patient}/Images/scan.dcm": Bytes(1_000 + patient) for patient in range(1001, 1021)}
SIGNALS = pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGINT, marks=pytest.mark.thorough),
        signal.SIGTERM,
        pytest.param(signal.SIGHUP, marks=pytest.mark.thorough),
    ],
    ids=lambda each: each.name,
)
INTERRUPTED = 130
AT_ONCE = 4.0
"""Seconds in which a program that starts, ends and is watched on a busy machine has ended "at once"."""


@pytest.fixture
def site(tmp_path: Path, container: Container, wire: Wire) -> Site:
    """A site with scans in its journal, which reaches the cloud by the wire."""
    cloud = dataclasses.replace(container, port=wire.port)
    site = settle(tmp_path / "home", build(tmp_path / "source", SCANS), cloud, threads=2, patience=60)
    site.run("journal", "update", "--version", "spring")
    wire.requests.clear()
    return site


def require_all(container: Container) -> None:
    assert files_of(container.objects()) == {f"spring/{path}": bytes_of(path, body) for path, body in SCANS.items()}


def recorded(site: Site) -> int:
    return int(ask(site.journal, "SELECT count(*) FROM delivery")[0][0])


def images_sent(wire: Wire) -> int:
    return wire.count("PUT", "/Images/")


@SIGNALS
def test_the_first_signal_ends_in_order(site: Site, container: Container, wire: Wire, number: signal.Signals) -> None:
    wire.script(Delay(0.3), method="PUT", containing="/Images/", times=len(SCANS))
    with site.speaking("file", "upload") as upload:
        wait_until(lambda: recorded(site) >= 2)
        upload.send_signal(number)
        out, err = upload.communicate(timeout=200)
    wire.forget()
    assert upload.returncode == INTERRUPTED, (out, err)
    assert "stopping" in err
    assert "type the same command again" in err
    assert "Traceback" not in err
    assert f"until then {recorded(site)} of {len(SCANS)} files, " in err
    assert "delivered and recorded" in err
    sent = images_sent(wire)
    assert 2 <= sent < len(SCANS)
    # Given back, with all that arrived.
    assert LOCK not in container.objects()
    assert recorded(site) == sent

    site.run("file", "upload")
    assert images_sent(wire) == len(SCANS)
    require_all(container)


@pytest.mark.parametrize("way_on", [("file", "upload"), ("journal", "checkin")], ids=" ".join)
def test_the_second_signal_stops_at_once(site: Site, container: Container, wire: Wire, way_on: tuple[str, ...]) -> None:
    """Requests hang that would be waited for; what they had done is found afterwards, and nothing is sent again."""
    # By the first one it is found out whether the service honours conditions, and until then no other is sent.
    wire.script(Delay(0), method="PUT", containing="/Images/")
    wire.script(Delay(15), method="PUT", containing="/Images/", times=2)
    with site.speaking("file", "upload") as upload:
        wait_until(lambda: images_sent(wire) == 3)
        upload.send_signal(signal.SIGTERM)
        time.sleep(1)
        assert upload.poll() is None
        begun = time.monotonic()
        upload.send_signal(signal.SIGTERM)
        _, err = upload.communicate(timeout=200)
        assert time.monotonic() - begun < AT_ONCE
    wire.forget()
    assert upload.returncode == INTERRUPTED, err
    assert "stopped at once" in err
    assert "Traceback" not in err
    assert LOCK in container.objects()
    assert ask(site.journal, "PRAGMA integrity_check") == [("ok",)]

    site.run(*way_on)
    site.run("file", "upload")
    assert images_sent(wire) == len(SCANS)
    assert LOCK not in container.objects()
    assert recorded(site) == len(SCANS)
    require_all(container)


@pytest.mark.parametrize(
    ("command", "hangs"),
    [
        pytest.param(("journal", "checkout"), ("PUT", LOCK), marks=pytest.mark.thorough),
        (("journal", "update"), ("HEAD", JOURNAL)),
        pytest.param(("journal", "list"), ("GET", JOURNAL), marks=pytest.mark.thorough),
        (("journal", "checkin"), ("PUT", JOURNAL)),
        pytest.param(("file", "verify"), ("GET", "comp=list"), marks=pytest.mark.thorough),
    ],
    ids=" ".join,
)
def test_a_request_that_hangs_keeps_nobody(
    site: Site, container: Container, wire: Wire, command: tuple[str, ...], hangs: tuple[str, str]
) -> None:
    if command == ("journal", "checkin"):
        site.run("journal", "checkout")
    if command == ("file", "verify"):
        site.run("file", "upload")
    method, containing = hangs
    before = wire.count(method, containing)
    wire.script(Delay(15), method=method, containing=containing)
    with site.speaking(*command) as running:
        wait_until(lambda: wire.count(method, containing) > before)
        time.sleep(0.2)
        begun = time.monotonic()
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=200)
        assert time.monotonic() - begun < AT_ONCE
    assert running.returncode == INTERRUPTED, err
    assert "Traceback" not in err

    if command == ("journal", "checkin"):
        site.run("journal", "checkin", exit_code=None)
    site.run("file", "upload")
    require_all(container)
    assert LOCK not in container.objects()


def test_what_shells_start_in_these_tests_hears_signals_too(site: Site, wire: Wire) -> None:
    """It is forked elsewhere, and has to look the same to who starts it."""
    forked = dataclasses.replace(site, program=(quick_program().command,))
    assert "No such command" in forked.run("file", "nothing", exit_code=2).err
    before = wire.count("HEAD", JOURNAL)
    wire.script(Delay(15), method="HEAD", containing=JOURNAL)

    with forked.speaking("journal", "update") as running:
        wait_until(lambda: wire.count("HEAD", JOURNAL) > before)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=200)

    assert running.returncode == INTERRUPTED
    assert "interrupted" in err


@contextmanager
def in_a_terminal(site: Site, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A command as somebody types it, and the descriptor of the terminal, which the caller closes."""
    outer, inner = pty.openpty()
    with subprocess.Popen(
        # `setsid --ctty` is what a terminal's program does: the command belongs to it, and hears when it closes.
        ["setsid", "--ctty", *site.program, *arguments],
        cwd=site.home,
        stdin=inner,
        stdout=inner,
        stderr=inner,
        env={**os.environ, "TERM": "xterm"},
    ) as process:
        os.close(inner)
        try:
            yield process, outer
        finally:
            process.kill()


def test_a_terminal_that_closes_ends_in_order(site: Site, container: Container, wire: Wire) -> None:
    """With its display in full swing, whose every further line has nowhere to go."""
    wire.script(Delay(0.3), method="PUT", containing="/Images/", times=len(SCANS))
    with in_a_terminal(site, "file", "upload") as (upload, terminal):
        wait_until(lambda: recorded(site) >= 2)
        assert b"Images" in os.read(terminal, 1 << 16)
        os.close(terminal)
        assert upload.wait(20) == INTERRUPTED
    wire.forget()
    sent = images_sent(wire)
    assert 2 <= sent < len(SCANS)
    assert LOCK not in container.objects()
    assert recorded(site) == sent

    site.run("file", "upload")
    assert images_sent(wire) == len(SCANS)
    require_all(container)
