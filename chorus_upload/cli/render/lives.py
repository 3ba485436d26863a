"""The life of a file in words: what happened to it, one thing after the other, and the proofs in full."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from chorus_upload.cli.render.formats import local_time, size
from chorus_upload.cli.render.tables import Column, Report, Row, Table
from chorus_upload.model import Change, Retirement

if TYPE_CHECKING:
    from chorus_upload.operations.insight import DeliveryProof, FileLife, FileState

_COLUMNS = (Column("When"), Column("What"), Column("Version or submission"), Column("Size", numeric=True))


def life_report(life: FileLife) -> Report:
    """Describe the life of a file."""
    states = told(life.states)
    rows = [row for state in states for row in _rows(state)]
    remarks = [line for state in states for line in _proofs(state)]
    if life.pruned is not None:
        remarks.append(f"States of versions up to {life.pruned} that were never delivered may be missing (pruned).")
    return Report(
        heading=f"{life.path} ({life.modality}{_patient(states[-1])})",
        table=Table(_COLUMNS, tuple(rows)),
        remarks=tuple(remarks),
        data=True,
    )


def told(states: Sequence[FileState]) -> list[FileState]:
    """Return the states, where those that have the content of the one before are recorded-again and not modified.

    Journals have such: another time of a file of the web was another file once.
    """
    before: dict[str, FileState] = {}
    found = []
    for state in states:
        former = before.get(state.path)
        is_same = state.change is Change.MODIFIED and former is not None and state.has_content_of(former)
        found.append(replace(state, change="recorded-again") if is_same else state)
        before[state.path] = state
    return found


def _patient(state: FileState) -> str:
    return "" if state.patient is None else f", patient {state.patient}"


def _rows(state: FileState) -> Iterator[Row]:
    what = str(state.change)
    if state.change is Change.RENAMED:
        what = f"renamed from {state.renamed_from} to {state.path}"
    if state.change == "recorded-again":
        what = "recorded again, with the same content"
    yield Row((local_time(state.entered_us), what, state.version, size(state.size)))
    for proof in state.deliveries:
        yield Row((local_time(proof.delivered_us), f"delivered ({proof.evidence})", proof.submission, ""))
    # What was modified or renamed has a next state, which says it.
    if state.retirement in (Retirement.GONE, Retirement.MARKED) and state.retired_us is not None:
        what = "gone" if state.retirement is Retirement.GONE else "marked as deleted"
        yield Row((local_time(state.retired_us), what, state.retired_by or "", ""), "bad")


def _proofs(state: FileState) -> Iterator[str]:
    """The facts of a state and of its deliveries."""
    facts = [f"modified {local_time(state.mtime_us)}"]
    if state.fingerprint is not None:
        facts.append(f"fingerprint {state.fingerprint.hex()}")
    if state.md5 is not None:
        facts.append(f"MD5 {state.md5.hex()}")
    yield f"Version {state.version}: {', '.join(facts)}"
    if not state.deliveries and state.retirement is None:
        yield "  not delivered yet"
    for proof in state.deliveries:
        yield f"  {_proof(proof)}"


def _proof(proof: DeliveryProof) -> str:
    etag = "" if proof.etag is None else f", etag {proof.etag}"
    return (
        f"delivered {local_time(proof.delivered_us)} by {proof.user}@{proof.host} as {proof.key}"
        f" to {proof.destination}: evidence {proof.evidence}{etag}"
    )
