"""Converts one file: what the configuration has to say to the import of an old journal, and what becomes of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from chorus_upload.config.settings import Location, Settings
from chorus_upload.errors import DestinationChanged, JournalError, LayoutError
from chorus_upload.events import Emit, JournalUpgraded, Level, Notice
from chorus_upload.journal import commands, custody, destinations
from chorus_upload.journal.custody import Custody
from chorus_upload.journal.journal import Journal
from chorus_upload.journal.legacy import Generation, OldJournal
from chorus_upload.journal.legacy_import import Placed, Terms, new_journal, take_over
from chorus_upload.journal.legacy_keys import drop_replaced
from chorus_upload.journal.legacy_proof import prove
from chorus_upload.journal.legacy_rows import Unusable
from chorus_upload.journal.who import Who
from chorus_upload.layout import Pattern, central_key, default_pattern
from chorus_upload.operations.central import destination_url, place_of
from chorus_upload.operations.destination import Choice, found_of_sample, holds_journal

_FIRST_NAMED = 5
_HOW_TO_DECIDE = (
    "If the files went to the central store of the configuration, though they may have been taken over from there, add"
    " --same-destination: they count as delivered."
    " If they went to another one, add --new-destination: nothing counts as delivered, and everything is sent."
)


class Conversion:
    """Makes a journal of ours out of a file of the older tool, under the configuration of today."""

    def __init__(
        self,
        settings: Settings,
        *,
        confirm_omissions: bool,
        destination: Choice | None,
        arguments: Mapping[str, str],
        emit: Emit,
        redact: Callable[[str], str],
    ) -> None:
        self._settings = settings
        self._confirmed = confirm_omissions
        self._choice = destination
        self._arguments = arguments
        self._emit = emit
        self._redact = redact
        self._patterns = {name: Pattern.parse(site.pattern) for name, site in settings.sites.items()}
        self._omitted: list[Unusable] = []
        self._omissions = 0

    def convert(
        self, original: Path, generation: Generation, target: Path, *, known_as: str, taken: Custody | None
    ) -> JournalUpgraded:
        """Make the journal `target`, whose custody is `taken`. Raises JournalError; the target is rubbish then."""
        begun = time.monotonic()
        here = destination_url(self._settings.central.location)
        is_new = self._choice is Choice.NEW
        url = f"{here}@earlier" if is_new else here
        terms = Terms(
            destination=url,
            mode=self._settings.mode,
            place=self._place,
            redact=self._redact,
            on_unusable=self._leave_out,
        )
        with OldJournal.open(original, generation, known_as=known_as) as old, new_journal(target) as journal:
            self._announce(old, known_as)
            remarks = take_over(journal, old, terms)
            self._require_confirmed(known_as)
            proof = prove(journal, old, omitted=self._omissions)
            parts, replaced = drop_replaced(journal, proof.parts)
            remarks += (replaced,) if replaced else ()
            if is_new:
                parts = tuple(replace(part, pending=part.active) for part in parts)
            sent_to = tuple(map(self._redact, old.destinations()))
            self._require_same_store(journal, url, sent_to, is_cloud=taken is not None)
            number = commands.begin(
                journal,
                name="journal upgrade",
                arguments=json.dumps(dict(self._arguments)),
                who=Who.here(),
            )
            seconds = time.monotonic() - begun
            commands.end(journal, number, seconds=seconds, exit_code=0)
            if taken is not None:
                custody.write(journal, taken)
        return JournalUpgraded(
            journal=known_as,
            in_cloud=taken is not None,
            original="",
            generation=generation,
            parts=parts,
            submissions=proof.submissions,
            commands=proof.commands,
            omitted=self._omissions,
            remarks=remarks,
            destination=here,
            sent_to=sent_to,
            is_new_destination=is_new,
            seconds=seconds,
        )

    def _require_same_store(self, journal: Journal, url: str, sent_to: tuple[str, ...], *, is_cloud: bool) -> None:
        """Raise DestinationChanged unless the uploads of the old journal are in the central store of today.

        Most of a sample has to be there. For a file on this machine the store is not asked: the history has to name it.
        """
        if self._choice is Choice.NEW:
            # From now on it is known, and nothing was sent to it.
            destinations.add(journal, destination_url(self._settings.central.location))
        if self._choice is not None:
            return
        sample = destinations.sample(journal, url, size=1)
        if is_cloud:
            there, looked_for = found_of_sample(journal, self._settings, url)
            if 2 * there >= looked_for:
                if looked_for:
                    self._emit(Notice(f"of {looked_for} uploads that were looked for, {there} are in {url}"))
                return
            if holds_journal(self._settings):
                self._emit(
                    Notice(
                        f"of {looked_for} uploads that were looked for, {there} are in {url}. The journal lies there:"
                        " they went there, and the receiver has probably taken the others over; all count as delivered"
                    )
                )
                return
            why = f"of {looked_for} of its uploads that were looked for in {url}, {there} are there"
        else:
            here = place_of(self._settings.central.location)
            if not sample or {_place_named(each) for each in sent_to} == {here}:
                return
            why = f"its uploads went to {', '.join(sent_to) or 'a place that it does not name'}, and not to {url}"
        raise DestinationChanged(
            f"the old journal is perhaps one of another central store: {why}. Nothing was changed", hint=_HOW_TO_DECIDE
        )

    def _announce(self, old: OldJournal, known_as: str) -> None:
        self._emit(
            Notice(
                f"{known_as} was written by an older chorus-upload ({old.generation}): converting {old.count():,} rows"
            )
        )
        if earlier := old.count_of_other_generation():
            text = f"{earlier:,} rows of an even older table in the same file are not taken over"
            self._emit(Notice(text, Level.WARNING))

    def _place(self, modality: str, path: str, version: str) -> Placed:
        pattern = self._patterns.get(modality)
        if pattern is None:
            # Not configured any more: it was laid out in the usual way.
            try:
                pattern = Pattern.parse(default_pattern(modality, omop_per_patient=False))
            except LayoutError:
                # It has a name that no modality can have, and so no key either.
                return Placed(None, None)
            self._patterns[modality] = pattern
        parts = pattern.match(path, cut=True)
        if parts is None:
            return Placed(None, None)
        patient_first = self._settings.central.patient_first
        try:
            key = central_key(modality=modality, version=version, parts=parts, patient_first=patient_first)
        except LayoutError:
            return Placed(None, parts.patient_id)
        return Placed(key, parts.patient_id)

    def _leave_out(self, row: Unusable) -> None:
        self._omissions += 1
        if self._confirmed:
            self._emit(Notice(f"left out: row {row.id}, {row.path}: {row.reason}", Level.WARNING))
        elif len(self._omitted) < _FIRST_NAMED:
            self._omitted.append(row)

    def _require_confirmed(self, known_as: str) -> None:
        if self._omissions and not self._confirmed:
            first = "; ".join(f"row {row.id}, {row.path}: {row.reason}" for row in self._omitted)
            raise JournalError(
                f"{known_as} has {self._omissions:,} rows that cannot be taken over, nothing was changed: {first}",
                hint="To go on without them, add --confirm-omissions: then each is named.",
            )


def _place_named(written: str) -> str:
    """What the history of the older tool calls a central store, as `place_of` would."""
    try:
        return place_of(Location(path=written))
    except ValueError:
        return written
