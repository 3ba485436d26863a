"""`file verify`: hold the central store against the journal.

::

    list the versions' folders ─▶ beside the journal ──▶ what the listing settles is told
                                                    └──▶ what has to be read ──▶ pool of readers ──▶ told

The listing alone settles an object that was not written again since its delivery was proven. One that was is read
back, and so are all of them (`deep`) or a random part (`sample`) if the user wants that. Memory stays flat.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from chorus_upload.config.settings import Settings
from chorus_upload.errors import (
    AccessDenied,
    ConfigError,
    CredentialsExpired,
    ObjectNotFound,
    StorageError,
    TlsError,
    TransientError,
)
from chorus_upload.events import (
    Emit,
    EndedEarly,
    FileVerified,
    Notice,
    Tally,
    VerifyFinished,
    VerifyProgressed,
    VerifyResult,
)
from chorus_upload.journal import deliveries
from chorus_upload.journal.deliveries import Selection
from chorus_upload.journal.journal import Journal, now_us
from chorus_upload.journal.listing import Compared, ListedObject, Listing
from chorus_upload.journal.versions import find
from chorus_upload.model import Evidence
from chorus_upload.operations.destination import Choice, store_of
from chorus_upload.operations.early_end import told_early_end
from chorus_upload.operations.pace import Pace
from chorus_upload.operations.proof import is_proof
from chorus_upload.operations.refusals import MOST_DENIED, Refusals
from chorus_upload.operations.sampling import Sample
from chorus_upload.operations.selecting import chosen_label, chosen_patients, selected_modalities
from chorus_upload.operations.verifying import BackReader, Reading, from_listing, from_reading, unexplained
from chorus_upload.storage.network import Network
from chorus_upload.storage.open import open_store
from chorus_upload.storage.store import Store
from chorus_upload.transfer.pool import Pool, ThreadPool

FRESH_US = 60_000_000
"""What was delivered later than this before the listing began may be too new for it, clocks being what they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyRequest:
    """What the user asked for. `version` None means the last one of which anything that is asked for was delivered.

    A version is what was delivered of it, also what a later one has changed or retired since. `deep` has every object
    read back, `sample` a random part; ConfigError for both at once, and for a version and all of them.
    """

    version: str | None = None
    all_versions: bool = False
    modalities: tuple[str, ...] | None = None
    patients: tuple[str, ...] | None = None
    deep: bool = False
    sample: Sample | None = None
    destination: Choice | None = None

    def __post_init__(self) -> None:
        if self.all_versions and self.version is not None:
            raise ConfigError("--version and --all-versions exclude each other")
        if self.deep and self.sample is not None:
            raise ConfigError(
                "--deep and --sample exclude each other", hint="--deep reads everything back, --sample a random part."
            )


def verify(
    journal: Journal,
    settings: Settings,
    request: VerifyRequest,
    *,
    emit: Emit,
    pool: Pool | None = None,
    stop: threading.Event | None = None,
) -> VerifyFinished:
    """Compare what the journal calls delivered with what the store holds.

    Trouble with single objects is in the result. Raises ConfigError for an unknown version, StorageError when the
    store cannot be listed or nothing can be read from it, KeyboardInterrupt when `stop` is set meanwhile.
    """
    stop = stop or threading.Event()
    begun = time.monotonic()
    chosen_label(journal, settings, request.version)
    url = store_of(journal, settings, request.destination, writes=False)
    # Without names everything is meant, also of modalities that are not configured any more.
    named = None if request.modalities is None else selected_modalities(settings, request.modalities)
    patients = chosen_patients(journal, request.patients)
    whole = Selection(modalities=named, patients=patients)
    known = deliveries.versions_delivered(journal, url=url, selection=whole)
    chosen = known if request.all_versions else [request.version] if request.version else known[-1:]
    # A version that paths name is none of an update.
    is_known = request.version is None or find(journal, request.version) is not None
    versions = [label for label in known if label in chosen] if is_known else chosen
    selection = replace(whole, version=None if request.all_versions else next(iter(chosen), None))
    check = _Check(emit=emit, stop=stop)
    if versions:
        with (
            open_store(settings.central.location, Network.of(settings), stop=stop, others_follow=True) as store,
            Listing(journal, url=url) as listing,
        ):
            folders = deliveries.folders_delivered(journal, url=url, selection=selection)
            check.take_listing(store, listing, sorted({*versions, *folders}))
            is_chosen = _choice(request, listing, selection, emit=emit)
            to_read = check.settle(check.looked_for(listing.compared(selection), store), is_chosen=is_chosen)
            if to_read.files:
                with told_early_end(emit, lambda: EndedEarly("read back", check.read, to_read)):
                    check.read_back(
                        check.looked_for(listing.compared(selection), store),
                        store=store,
                        is_chosen=is_chosen,
                        total=to_read,
                        pool=pool or ThreadPool(settings.num_threads, stop=stop),
                    )
            check.name_unexplained(listing.unknown(), journal_name=settings.journal.cloud_name)
    to_send = replace(whole, modalities=named or settings.modalities)
    return VerifyFinished(
        versions=tuple(versions or chosen),
        unchecked=tuple(label for label in known if label not in versions),
        modalities=named,
        patients=patients,
        destination=url,
        results={result: check.results[result] for result in VerifyResult if check.results[result]},
        pending=deliveries.pending_tally(journal, url=url, selection=to_send),
        pending_versions=tuple(deliveries.versions_pending(journal, url=url, selection=to_send)),
        seconds=time.monotonic() - begun,
        evidence={evidence: check.evidence[evidence] for evidence in Evidence if check.evidence[evidence]},
        read_back=check.read,
        superseded=check.superseded,
        sample=request.sample.text if request.sample else None,
        seed=request.sample.seed if request.sample else None,
    )


def _choice(request: VerifyRequest, listing: Listing, selection: Selection, *, emit: Emit) -> Callable[[str], bool]:
    """Whether an object is to be read back although the listing would settle it, by its key."""
    sample = request.sample
    if sample is None:
        return lambda _: request.deep
    emit(Notice(f"a random sample ({sample.text}) is read back; --seed {sample.seed} chooses it again"))
    last = sample.last(sample.draw(compared.key) for compared in listing.compared(selection))
    return lambda key: sample.draw(key) <= last


class _Check:
    """One look at the folders of some versions: counts what is found, and tells it."""

    def __init__(self, *, emit: Emit, stop: threading.Event) -> None:
        self._emit = emit
        self._stop = stop
        self._objects = 0
        self._begun_us = now_us()
        self._done = Tally()
        self._denied: AccessDenied | None = None
        self.results: Counter[VerifyResult] = Counter()
        self.evidence: Counter[Evidence] = Counter()
        self.read = Tally()
        self.superseded = 0

    def take_listing(self, store: Store, listing: Listing, folders: Sequence[str]) -> None:
        """Have the store's objects in these folders in the listing."""
        pace = Pace(0.2)
        try:
            for found in chain.from_iterable(store.scan(f"{folder}/") for folder in folders):
                self._require_going_on()
                md5 = found.checksum.md5 if found.checksum else None
                listing.add(ListedObject(found.key, found.size, found.etag, md5))
                if pace.is_due():
                    self._emit(VerifyProgressed(listing.objects))
        except TransientError:
            # A wait is given up when the run is stopped.
            self._require_going_on()
            raise
        self._objects = listing.objects
        self._emit(VerifyProgressed(self._objects))

    def looked_for(self, files: Iterator[Compared], store: Store) -> Iterator[Compared]:
        """The same files; what an upload delivers while this runs is looked for if the listing had it not yet."""
        for compared in files:
            if compared.listed_size is None and compared.delivered_us > self._begun_us - FRESH_US:
                there = store.stat(compared.key)
                if there is not None:
                    yield compared._replace(listed_size=there.size, listed_etag=there.etag)
                    continue
            yield compared

    def settle(self, files: Iterator[Compared], *, is_chosen: Callable[[str], bool]) -> Tally:
        """Tell what the listing says; gives how much has to be read."""
        number = size = 0
        for compared in files:
            self._require_going_on()
            found = from_listing(compared, read=is_chosen(compared.key))
            if found is not None:
                self._tell(found)
            else:
                number += 1
                size += compared.size
        return Tally(number, size)

    def read_back(
        self,
        files: Iterator[Compared],
        *,
        store: Store,
        is_chosen: Callable[[str], bool],
        total: Tally,
        pool: Pool,
    ) -> None:
        """Read what the listing does not settle. What concerns every file ends it: it is raised."""

        def to_read() -> Iterator[Compared]:
            for compared in files:
                if self._stop.is_set():
                    return
                if from_listing(compared, read=is_chosen(compared.key)) is None:
                    yield compared

        reader, refusals, pace = BackReader(store, stop=self._stop), Refusals(store.probe), Pace(0.2)
        trouble: StorageError | None = None
        self._report(reader, total)
        with pool.run(reader.read, to_read()) as readings:
            for reading in readings:
                if reading is not None and trouble is None:
                    trouble = self._take(reading, refusals)
                if trouble is not None:
                    self._stop.set()
                if pace.is_due():
                    self._report(reader, total)
        if trouble is None and self._denied and not self.read.files:
            trouble = self._denied
        if trouble is not None:
            raise trouble
        self._require_going_on()
        self._report(reader, total)

    def _take(self, reading: Reading, refusals: Refusals) -> StorageError | None:
        """Tell what came of a reading; gives the trouble that concerns every file."""
        trouble = reading.trouble
        if isinstance(trouble, (CredentialsExpired, TlsError, ObjectNotFound)):
            return trouble
        if isinstance(trouble, AccessDenied):
            self._denied = trouble
            if refusals.denied() == MOST_DENIED:
                return trouble
        elif isinstance(trouble, TransientError):
            if place := refusals.gave_up():
                return place
        elif trouble is None:
            self._denied = None
            refusals.accepted()
        one = Tally(1, reading.compared.size)
        self._done += one
        if trouble is None and not reading.gone:
            self.read += one
        self._tell(from_reading(reading))
        return None

    def name_unexplained(self, unknown: Iterator[tuple[str, int]], *, journal_name: str) -> None:
        """Tell of every object that the journal does not know, but for what uploads put beside the files."""
        for key, size in unknown:
            self._require_going_on()
            folder, _, name = key.partition("/")
            if not is_proof(name, journal_name=journal_name):
                self._tell(unexplained(key, version=folder, size=size))

    def _tell(self, found: FileVerified) -> None:
        self.results[found.result] += 1
        self.superseded += found.result.is_other and found.retired_by is not None
        if found.evidence is not None:
            self.evidence[found.evidence] += 1
        self._emit(found)

    def _report(self, reader: BackReader, total: Tally) -> None:
        under_way, current = reader.under_way()
        self._emit(
            VerifyProgressed(
                self._objects,
                files=self._done.files,
                files_total=total.files,
                bytes=self._done.bytes + under_way,
                bytes_total=total.bytes,
                current=current,
            )
        )

    def _require_going_on(self) -> None:
        if self._stop.is_set():
            raise KeyboardInterrupt
