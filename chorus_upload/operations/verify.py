"""`file verify`: hold the central store against the journal, by one listing for each version folder."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from chorus_upload.config.settings import Settings
from chorus_upload.errors import ObjectNotFound
from chorus_upload.events import Emit, FileVerified, VerifyFinished, VerifyProgressed, VerifyResult
from chorus_upload.journal import deliveries
from chorus_upload.journal.deliveries import Selection
from chorus_upload.journal.journal import Journal
from chorus_upload.journal.listing import Compared, ListedObject, Listing
from chorus_upload.model import Evidence
from chorus_upload.operations.central import destination_url
from chorus_upload.operations.pace import Pace
from chorus_upload.operations.selecting import require_version, selected_modalities
from chorus_upload.storage.network import Network
from chorus_upload.storage.open import open_store
from chorus_upload.storage.store import Store
from chorus_upload.transfer.evidence import read_back


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyRequest:
    """What the user asked for. `version` None means the last one of which anything was delivered."""

    version: str | None = None
    modalities: tuple[str, ...] | None = None


def verify(journal: Journal, settings: Settings, request: VerifyRequest, *, emit: Emit) -> VerifyFinished:
    """Compare what the journal calls delivered with what the store lists.

    An object that was not written again since its delivery was proven (its etag is the same) is what it was
    then. One that was is read back: a checksum in a listing may be anybody's claim. Raises ConfigError for an
    unknown version.
    """
    begun = time.monotonic()
    modalities = selected_modalities(settings, request.modalities)
    url = destination_url(settings.central.location)
    require_version(journal, request.version)
    version = request.version or deliveries.last_version_delivered(journal, url=url)
    selection = Selection(version=version, modalities=modalities)
    results: Counter[VerifyResult] = Counter()
    if version is not None:
        with (
            open_store(settings.central.location, Network.of(settings)) as store,
            Listing(journal, url=url) as listing,
        ):
            pace = Pace(0.2)
            for found in store.scan(f"{version}/"):
                md5 = found.checksum.md5 if found.checksum else None
                listing.add(ListedObject(found.key, found.size, found.etag, md5))
                if pace.is_due():
                    emit(VerifyProgressed(listing.objects))
            emit(VerifyProgressed(listing.objects))
            for compared in listing.compared(selection):
                finding = _compare(compared, store)
                results[finding.result] += 1
                emit(finding)
            for key, size in _unexplained(listing.unknown(), settings, version=version):
                results[VerifyResult.NOT_IN_JOURNAL] += 1
                detail = f"{size:,} bytes; no delivery in the journal explains it"
                emit(FileVerified(key=key, result=VerifyResult.NOT_IN_JOURNAL, detail=detail))
    return VerifyFinished(
        versions=() if version is None else (version,),
        destination=url,
        results=dict(results),
        pending=deliveries.pending_tally(journal, url=url, selection=selection),
        seconds=time.monotonic() - begun,
    )


def _compare(compared: Compared, store: Store) -> FileVerified:
    """Judge one file; reads the object only when it was written again since it was proven."""
    result, detail, evidence = VerifyResult.MATCHED, "", compared.evidence
    if compared.listed_size is None:
        result, detail = VerifyResult.MISSING, "it was delivered, and is not there any more"
    elif compared.listed_size != compared.size:
        result = VerifyResult.SIZE_DIFFERS
        detail = f"{compared.listed_size:,} bytes, the journal says {compared.size:,}"
    elif compared.evidence is Evidence.IMPORTED and compared.listed_md5 == compared.md5:
        detail = "an older tool recorded it; its MD5 property agrees, which is a claim and no proof"
    elif not compared.is_as_proven:
        result, detail, evidence = _read_again(compared, store)
    return FileVerified(
        key=compared.key,
        result=result,
        detail=detail,
        path=compared.path,
        modality=compared.modality,
        evidence=evidence if result is VerifyResult.MATCHED else None,
    )


def _read_again(compared: Compared, store: Store) -> tuple[VerifyResult, str, Evidence]:
    try:
        content = read_back(store, compared.key, size=compared.size)
    except ObjectNotFound:
        return VerifyResult.MISSING, "it was removed while this command ran", compared.evidence
    if content is not None and content[1] == compared.md5:
        return VerifyResult.MATCHED, "written again since it was proven; read back now", Evidence.READBACK
    return VerifyResult.CHECKSUM_DIFFERS, "written again since it was proven, with other content", compared.evidence


def _unexplained(unknown: Iterable[tuple[str, int]], settings: Settings, *, version: str) -> Iterable[tuple[str, int]]:
    """Leave out what uploads put beside the files: the copy of the journal and the manifests."""
    for key, size in unknown:
        name = key.removeprefix(f"{version}/")
        if name != settings.journal.cloud_name and not ("/" not in name and name.startswith("manifest-")):
            yield key, size
