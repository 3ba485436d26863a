"""What the central store is called in the journal, and what files are called in it."""

from __future__ import annotations

from collections.abc import Sequence

from chorus_upload.config.services import earlier_names, service_of
from chorus_upload.config.settings import Location, Settings
from chorus_upload.errors import LayoutError
from chorus_upload.journal import planning
from chorus_upload.journal.deliveries import PendingFile
from chorus_upload.journal.journal import Journal
from chorus_upload.layout import Parts, Pattern, central_key
from chorus_upload.model import Transfer, Twin


def place_of(location: Location) -> str:
    """Return what a place is called within its service: container or bucket, and prefix, or a directory's path."""
    if location.is_local:
        return location.local_path.resolve().as_posix()
    return f"{location.scheme}://{location.container}/{location.prefix}".rstrip("/")


def named(place: str, service: str) -> str:
    """Return the name of a place in a service."""
    return f"{place}@{service}" if service else place


def destination_url(location: Location) -> str:
    """Return the name under which the journal keeps deliveries to a place: the same however the place is reached."""
    return named(place_of(location), service_of(location))


def every_name(location: Location) -> list[str]:
    """Return the name of a place, and those that earlier releases gave it."""
    place = place_of(location)
    earlier = [] if location.is_local else [named(place, service) for service in earlier_names(location)]
    return [destination_url(location), *earlier]


def cloud_name(location: Location) -> str:
    """Return what a local journal calls the cloud journal that it belongs to.

    Lock and etag say whether that is the same one; so the name is what it always was, and says nothing of the service.
    """
    if location.is_local:
        return place_of(location)
    return named(place_of(location), earlier_names(location)[0])


def journal_key(settings: Settings) -> str | None:
    """The key of the cloud journal in the central store; None when it is kept elsewhere."""
    central, journal = settings.central.location, settings.journal.cloud
    lead, name = f"{place_of(central)}/", place_of(journal)
    # Where it is not certain that they are in two services, they are in one.
    is_same = service_of(central) == service_of(journal) or earlier_names(central)[0] == earlier_names(journal)[0]
    return name.removeprefix(lead) if is_same and name.startswith(lead) else None


def is_cloud_journal(settings: Settings, key: str) -> bool:
    """Whether that key of the central store is the cloud journal itself, which only a check-in may replace."""
    return key == journal_key(settings)


class Keys:
    """Central keys of journaled files, by the configuration of today."""

    def __init__(self, settings: Settings) -> None:
        self._patterns = {name: Pattern.parse(site.pattern) for name, site in settings.sites.items()}
        self._patient_first = settings.central.patient_first

    @property
    def with_own_folders(self) -> tuple[str, ...]:
        """The modalities whose paths name the version that their keys begin with."""
        return tuple(name for name, pattern in self._patterns.items() if "version" in pattern.fields)

    def folder(self, modality: str, path: str) -> str | None:
        """Return the version that a path names; None where its pattern has none, or does not match."""
        pattern = self._patterns.get(modality)
        parts = pattern.match(path) if pattern else None
        return parts.version if parts else None

    def key(self, *, modality: str, path: str, version: str) -> str:
        """The key of a file; LayoutError when it has none."""
        parts = self._patterns[modality].match(path)
        if parts is None:
            raise LayoutError(
                f"{path} does not match the pattern of {modality} any more", hint="Run `journal update` first."
            )
        return central_key(modality=modality, version=version, parts=parts, patient_first=self._patient_first)

    def key_or_none(self, *, modality: str, path: str, version: str) -> str | None:
        """The key of a file; None when it has none."""
        try:
            return self.key(modality=modality, path=path, version=version)
        except LayoutError:
            return None

    def lead(self, modality: str, directory: str, version: str) -> str | None:
        """Return what the keys of all files of a directory have before their names; None where each has to be asked."""
        matcher = self._patterns[modality].matcher(directory)
        constant = matcher.constant if matcher else None
        if constant is None:
            return None
        sample = Parts(constant.version, constant.patient_id, f"{constant.filepath}x")
        try:
            key = central_key(modality=modality, version=version, parts=sample, patient_first=self._patient_first)
        except LayoutError:
            return None
        return key.removesuffix("x")


class PlannedKeys:
    """The keys of planned files: each its own. Make it when the plan is made, for a `destination` by its id."""

    def __init__(self, journal: Journal, settings: Settings, *, destination: int) -> None:
        self._journal = journal
        self._keys = Keys(settings)
        self._destination = destination

        def key_of(modality: str, path: str, version: str) -> str | None:
            return self._keys.key_or_none(modality=modality, path=path, version=version)

        self._shared = planning.shared_keys(journal, lead_of=self._keys.lead, key_of=key_of)

    def of(self, page: Sequence[PendingFile]) -> list[str | LayoutError]:
        """Return the keys of files, or why they have none: another file may have it, or be delivered so."""
        found = [self._key(file) for file in page]
        keys = [key for key in found if isinstance(key, str)]
        occupied = planning.occupied_keys(self._journal, destination=self._destination, keys=keys)
        if occupied:
            found = [_of_two(key, occupied[key]) if isinstance(key, str) and key in occupied else key for key in found]
        return found

    def _key(self, file: PendingFile) -> str | LayoutError:
        try:
            key = self._keys.key(modality=file.modality, path=file.path, version=file.version)
        except LayoutError as error:
            return error
        other = self._shared.get(file.id)
        return key if other is None else _of_two(key, other)


def _of_two(key: str, other: str) -> LayoutError:
    return LayoutError(f"{key} is the central key of {other}, too: rename one of the two, then `journal update`")


def transfer_of(
    file: PendingFile,
    *,
    key: str,
    replaces: str | None = None,
    superseded: tuple[bytes, ...] = (),
    twin: Twin | None = None,
    may_be_there: bool = False,
) -> Transfer:
    """The work of delivering a pending file under `key`."""
    return Transfer(
        file_id=file.id,
        modality=file.modality,
        path=file.path,
        key=key,
        size=file.size,
        mtime_us=file.mtime_us,
        fingerprint=file.fingerprint,
        md5=file.md5,
        replaces=replaces,
        superseded=superseded,
        version=file.version,
        twin=twin,
        may_be_there=may_be_there,
    )
