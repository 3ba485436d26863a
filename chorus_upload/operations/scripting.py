"""`file list --output-type azcli|azcopy`: scripts that send what is pending with Microsoft's own tools.

::

    journal ──plan──▶ what a file's key and this shell refuse is named ──▶ one script for every so many files

The plan is gone through twice: the scripts say first how many files they hold. Memory stays flat.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TextIO
from urllib.parse import quote

from chorus_upload import __version__
from chorus_upload.config.accounts import Account, account_of, account_of_connection_string, own_address
from chorus_upload.config.settings import AuthMode, Location, Settings
from chorus_upload.errors import ChorusError, ConfigError, LayoutError
from chorus_upload.events import Emit, FileFailed, Level, Notice, ScriptWritten, Tally
from chorus_upload.journal import deliveries, planning
from chorus_upload.journal.deliveries import Selection
from chorus_upload.journal.journal import Journal
from chorus_upload.model import FailureKind
from chorus_upload.operations.central import PlannedKeys, destination_url, is_cloud_journal
from chorus_upload.operations.destination import Choice, destination_of
from chorus_upload.operations.inspection import Inspection
from chorus_upload.operations.selecting import chosen_label, chosen_patients, selected_modalities, tell_of_others
from chorus_upload.scripting.work import Place, Root, ScriptFile, Shell, Tool, Work, Writer
from chorus_upload.scripting.writers import WRITERS
from chorus_upload.storage.names import refused_by_azure

_PLAIN = re.compile(r"[A-Za-z0-9._~/-]*")
"""What stands for itself in a URL."""
_WORKERS = {Tool.AZ: 4, Tool.AZCOPY: 2}
"""How many runs of a tool go side by side: azcopy has connections of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptRequest:
    """What the user asked for: `tool` and `shell` are those of `scripting.work`, by name.

    `files_each` None puts all into one script, which is called `output`.
    `chorus` starts this program on this machine, with its configuration `config`.
    """

    output: Path
    tool: str
    shell: str
    chorus: tuple[str, ...]
    config: Path
    standalone: bool = False
    version: str | None = None
    modalities: tuple[str, ...] | None = None
    patients: tuple[str, ...] | None = None
    files_each: int | None = None
    destination: Choice | None = None


def write_scripts(journal: Journal, settings: Settings, request: ScriptRequest, *, emit: Emit) -> int:
    """Write the scripts for what is pending; gives how many files could not be put into one, each of which is named.

    Raises ConfigError where the configuration asks for what such scripts cannot do.
    """
    chosen_label(journal, settings, request.version)
    modalities = selected_modalities(settings, request.modalities)
    writer = WRITERS[Shell(request.shell)]
    work = _work(settings, request, modalities, emit=emit)
    url = destination_of(journal, settings, request.destination)
    if request.modalities is None:
        tell_of_others(journal, settings, url=url, emit=emit)
    patients = chosen_patients(journal, request.patients)
    selection = Selection(version=request.version, modalities=modalities, patients=patients)
    deliveries.plan(journal, url=url, selection=selection)
    plan = _Plan(journal, settings, work, writer, url=url)
    parts = list(_parts(plan.files(emit), request.files_each))
    work = replace(work, roots=plan.keep_roots_in_use())
    files = plan.files()
    for number, tally in enumerate(parts, 1):
        part = replace(work, files=tally.files, bytes=tally.bytes, part=(number, len(parts)))
        path = request.output if len(parts) == 1 else _numbered(request.output, number, of=len(parts))
        paths = _write(part, islice(files, tally.files), writer, path)
        emit(ScriptWritten(tuple(map(str, paths)), tally.files, tally.bytes))
    if not parts:
        emit(Notice("nothing is pending: no script was written"))
    return plan.refused


class _Plan:
    """The files of the plan as a script needs them; counts those that it cannot have."""

    def __init__(self, journal: Journal, settings: Settings, work: Work, writer: Writer, *, url: str) -> None:
        self._journal = journal
        self._settings = settings
        self._tool = work.tool
        self._roots = {root.modality: (number, root) for number, root in enumerate(work.roots)}
        self._remote = {root.modality for root in work.roots if root.is_remote}
        self._in_use = set[str]()
        self._prefix = work.destination.prefix
        self._writer = writer
        self._destination = deliveries.destination_id(journal, url)
        self._keys = PlannedKeys(journal, settings, destination=self._destination)
        self._inspection = Inspection(settings, self._roots)
        self.refused = 0

    def files(self, emit: Emit | None = None) -> Iterator[ScriptFile]:
        """Every file that can be put into a script; the others are told to `emit`, once."""
        for page in deliveries.planned(self._journal):
            keys = self._keys.of(page)
            known = [key for key in keys if not isinstance(key, LayoutError)]
            replaced = planning.superseded_etags(self._journal, destination=self._destination, keys=known)
            for file, key in zip(page, keys, strict=True):
                kind = FailureKind.REFUSED
                if isinstance(key, LayoutError):
                    reason: str | None = key.message
                else:
                    found = ScriptFile(
                        id=file.id,
                        root=self._roots[file.modality][0],
                        path=file.path,
                        key=key,
                        size=file.size,
                        replaces=replaced.get(key),
                    )
                    reason = self._refusal(found, file.modality)
                    inspected = self._inspection.refusal(found, file.modality, again=emit is None)
                    if reason is None and inspected is not None:
                        kind, reason = inspected
                    if reason is None:
                        self._in_use.add(file.modality)
                        yield found
                        continue
                if emit is not None:
                    self.refused += 1
                    named = "" if isinstance(key, LayoutError) else key
                    emit(FileFailed(file.path, named, file.modality, kind, reason or ""))

    def keep_roots_in_use(self) -> tuple[Root, ...]:
        """The roots of the files that there were; from now on they are counted in these."""
        roots = tuple(root for name, (_, root) in self._roots.items() if name in self._in_use)
        self._roots = {root.modality: (number, root) for number, root in enumerate(roots)}
        return roots

    def _refusal(self, file: ScriptFile, modality: str) -> str | None:
        if modality in self._remote:
            stem = file.key.removesuffix(file.path)
            if f"{stem}{file.path}" != file.key or not _PLAIN.fullmatch(stem):
                return "what is copied within the cloud keeps its path, and its key is another one"
        if file.replaces is not None and self._tool is Tool.AZCOPY:
            return "azcopy cannot make sure that it replaces an earlier state of this file, and nothing else"
        if is_cloud_journal(self._settings, file.key):
            return "its key is that of the journal"
        name = f"{self._prefix}/{file.key}" if self._prefix else file.key
        try:
            by_azure = refused_by_azure(name)
        except UnicodeEncodeError:
            by_azure = "it holds bytes that are not UTF-8"
        if by_azure is not None:
            return f"{file.key!r} cannot be stored in Azure: {by_azure}"
        return self._writer.refuses(file)


def _work(settings: Settings, request: ScriptRequest, modalities: tuple[str, ...], *, emit: Emit) -> Work:
    central, cloud = settings.central.location, settings.journal.cloud_directory
    if request.standalone and cloud.scheme != "az":
        raise ConfigError(
            f"a standalone script locks the journal with az, and {settings.journal.cloud} is not in Azure",
            hint="Leave --standalone out, and run the script on this machine.",
        )
    roots = []
    for name in modalities:
        site = settings.sites[name]
        roots.append(replace(_root(name, site.location, request), follow_links=site.follow_links is True))
    auth = central.auth
    given = {"endpoint_ip": auth.endpoint_ip, "proxy": settings.proxy, "bandwidth_limit": settings.bandwidth_limit}
    if ignored := [name for name, value in given.items() if value]:
        emit(Notice(f"not for scripts, and ignored: {', '.join(ignored)}", Level.WARNING))
    destination = _place(central)
    tool = Tool(request.tool)
    if tool is Tool.AZ and destination.prefix.startswith("@"):
        raise ConfigError(f"{central}: az takes a name that begins with @ for the name of a file")
    return Work(
        tool=tool,
        destination=destination,
        destination_name=destination_url(central),
        login=auth.mode is AuthMode.LOGIN,
        standalone=request.standalone,
        journal=_place(cloud) if request.standalone else None,
        journal_key="/".join(part for part in (cloud.prefix, settings.journal.cloud_name) if part),
        chorus=request.chorus,
        config=str(request.config.absolute()),
        roots=tuple(roots),
        files=0,
        bytes=0,
        written=datetime.now().astimezone(),
        tool_version=__version__,
        workers=_WORKERS[tool],
        tier=settings.central.tier,
        ca_bundle=str(settings.ca_bundle) if settings.ca_bundle is not None else None,
    )


def _root(modality: str, location: Location, request: ScriptRequest) -> Root:
    """Where the files of a modality are, as a script knows it."""
    if location.is_local:
        return Root(modality=modality, path=str(location.local_path.absolute()))
    if location.scheme != "az" or Tool(request.tool) is not Tool.AZCOPY or Shell(request.shell) is not Shell.BASH:
        raise ConfigError(
            f"such a script cannot send files from {location.scheme}:// places",
            hint="With --output-type azcopy, and for bash, it can have them copied from az:// places.",
        )
    place = _place(location)
    place = replace(place, prefix=quote(place.prefix, safe="/"))
    # A host in front of an account is no copy source for the service.
    own = (own_address(_account(location)) or place.endpoint).rstrip("/")
    if own == place.endpoint:
        return Root(modality=modality, path=place.url)
    return Root(modality=modality, path=replace(place, endpoint=own).url, front=place.url)


def _account(location: Location) -> Account:
    auth = location.auth
    account = account_of(auth.azure_account_name, auth.azure_account_url)
    if account.url is None and auth.azure_connection_string is not None:
        return account_of_connection_string(auth.azure_connection_string.get_secret_value())
    return account


def _place(location: Location) -> Place:
    """A place in Azure. ConfigError for any other, and for one whose account is not known."""
    if location.scheme != "az" or not location.container:
        raise ConfigError(
            f"{location}: such scripts upload to Azure only", hint="`file upload` sends files to every central store."
        )
    account = _account(location)
    if account.url is None:
        raise ConfigError(
            f"{location}: the storage account is missing", hint="Set azure_account_name or azure_account_url for it."
        )
    return Place(endpoint=account.url.rstrip("/"), container=location.container, prefix=location.prefix.strip("/"))


def _parts(files: Iterator[ScriptFile], files_each: int | None) -> Iterator[Tally]:
    """How much goes into each script."""
    while True:
        number = size = 0
        for file in islice(files, files_each):
            number += 1
            size += file.size
        if not number:
            return
        yield Tally(number, size)


def _numbered(path: Path, number: int, *, of: int) -> Path:
    return path.with_name(f"{path.stem}-{number:0{len(str(of))}d}{path.suffix}")


def _write(work: Work, files: Iterator[ScriptFile], writer: Writer, path: Path) -> list[Path]:
    """Write a script and its lists for nobody else to read; they appear when they are complete, the script last."""
    paths = [path]
    unfinished: list[tuple[Path, Path]] = []
    try:
        with ExitStack() as opened:

            def beside(suffix: str) -> TextIO:
                list_path = path.with_name(path.name + suffix)
                paths.append(list_path)
                return _open(list_path)

            def _open(target: Path, mode: int = 0o600) -> TextIO:
                temporary = target.with_name(f".{target.name}.unfinished")
                temporary.unlink(missing_ok=True)
                descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
                unfinished.append((temporary, target))
                # What a shell reads has the line ends that its writer gives it.
                return opened.enter_context(os.fdopen(descriptor, "w", encoding="utf-8", newline=""))

            writer.write(work, files, _open(path, 0o700), beside)
        for temporary, target in reversed(unfinished):
            temporary.replace(target)
    except (OSError, ChorusError) as error:
        for temporary, _ in unfinished:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise ChorusError(f"{path} cannot be written: {error.strerror or error}") from error
        raise
    return paths
