"""`remote upload` and `remote download`: files to the central store and back, without the journal."""

from __future__ import annotations

import os
import posixpath
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from glob import glob
from pathlib import Path

from chorus_upload.config.local_paths import expanded
from chorus_upload.config.own_files import OwnFiles, own_files
from chorus_upload.config.own_secrets import SecretSearch
from chorus_upload.config.settings import Settings
from chorus_upload.errors import ConfigError, StorageError
from chorus_upload.events import (
    DownloadFinished,
    Emit,
    EndedEarly,
    FileDelivered,
    FileFailed,
    Level,
    Notice,
    RemoteUploaded,
    Tally,
    UploadProgressed,
)
from chorus_upload.model import Delivered, FailureKind, Outcome, Problem, ProblemKind, Retrieval, Transfer
from chorus_upload.operations.destination import require_marked
from chorus_upload.operations.early_end import told_early_end
from chorus_upload.operations.overlap import require_apart
from chorus_upload.operations.pace import Pace
from chorus_upload.operations.receiving import Receiving
from chorus_upload.operations.refusals import Refusals, require_access
from chorus_upload.operations.remote import (
    central_store,
    clean,
    has_wildcard,
    is_directory,
    objects,
    require_not_the_journal,
)
from chorus_upload.storage.bandwidth import Throttle
from chorus_upload.storage.keys import join_key
from chorus_upload.storage.network import Network
from chorus_upload.storage.open import open_directory, open_store, require_supported
from chorus_upload.storage.source import Source
from chorus_upload.storage.store import ComputedBy, Store, StoredObject
from chorus_upload.storage.target import Target
from chorus_upload.storage.traffic import Traffic
from chorus_upload.transfer.meter import Meter
from chorus_upload.transfer.pool import ThreadPool
from chorus_upload.transfer.reader import Stopped
from chorus_upload.transfer.receiver import Receiver
from chorus_upload.transfer.sender import Sender, Terms


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How files are copied: with what is below directories, and in the place of what is there."""

    recursive: bool = False
    overwrite: bool = False


# --- upload ------------------------------------------------------------------------------------------------------


def upload(
    settings: Settings, paths: Sequence[str], *, to: str, options: Options, emit: Emit, stop: threading.Event
) -> RemoteUploaded:
    """Put files and (`recursive`) directories to `to`, and prove that they arrived. A path may be a pattern.

    Each keeps its own name below `to`; a single file gets the name `to` itself, if that ends in no slash and is no
    directory of the store. Trouble with single files is told. Raises ConfigError for what cannot be sent at all,
    StorageError when nothing can be delivered, KeyboardInterrupt when `stop` is set meanwhile.
    """
    begun = time.monotonic()
    require_supported(settings)
    place = clean(to)
    require_marked(settings, emit=emit)
    with ExitStack() as stack:
        left_out: list[Problem] = []
        sources, local = _local_files(
            stack, paths, own_files(settings), recursive=options.recursive, left_out=left_out, emit=emit
        )
        traffic = Traffic(
            settings.num_threads,
            throttle=Throttle(settings.bandwidth_limit, stop=stop),
            stop=stop,
            patience=settings.retry_seconds,
        )
        store = stack.enter_context(
            open_store(settings.central.location, Network.of(settings), traffic=traffic, stop=stop)
        )
        store.probe()
        is_name = place and len(local) == 1 and local[0].is_single and not to.endswith("/")
        if is_name and not is_directory(store, place):
            local[0] = replace(local[0], name=posixpath.basename(place))
            place = posixpath.dirname(place)
        work = _work(local, to=place)
        require_not_the_journal(settings, (transfer.key for transfer in work))
        meter = Meter()
        terms = Terms(
            accept_size=settings.accept_size_evidence,
            replace=options.overwrite,
            tier=settings.central.tier,
            holds_secret=SecretSearch.of(settings),
        )
        sender = Sender(sources, store, terms, meter=meter, traffic=traffic, stop=stop)
        counts = _Counts(Tally(len(work), sum(transfer.size for transfer in work)), meter, emit, Refusals(store.probe))

        def send(transfer: Transfer) -> Outcome | None:
            try:
                return None if stop.is_set() else sender.send(transfer)
            except Stopped:
                return None

        with told_early_end(emit, lambda: counts.until_now):
            with ThreadPool(settings.num_threads, stop=stop).run(send, work) as outcomes:
                for outcome in outcomes:
                    counts.take(outcome)
            if stop.is_set():
                raise KeyboardInterrupt
    return RemoteUploaded(
        store.url,
        counts.sent,
        counts.there,
        sum(counts.failures.values()),
        time.monotonic() - begun,
        left_out=sum(problem.kind.needs_attention for problem in left_out),
    )


@dataclass(frozen=True, slots=True)
class _LocalFile:
    """A file that is to be sent: `path` is below `root`, `name` is what it is called below the target.

    `is_single` says that it was named itself, and is not in a directory that was.
    """

    root: str
    path: str
    name: str
    size: int
    mtime_us: int
    is_single: bool


def _local_files(
    stack: ExitStack, paths: Sequence[str], own: OwnFiles, *, recursive: bool, left_out: list[Problem], emit: Emit
) -> tuple[dict[str, Source], list[_LocalFile]]:
    """The sources by their roots, and what is to be sent of them. What is `left_out` of directories is told."""
    sources: dict[str, Source] = {}
    files: list[_LocalFile] = []
    for path, is_matched in _paths(paths):
        # Not resolved: what is typed as a link keeps the name of the link.
        full = Path(os.path.abspath(path))  # noqa: PTH100
        problem, hint = None, None
        if not full.exists():
            problem = f"there is no file {path}"
        elif own.covers(full):
            problem = f"{path} is the program's own, or holds credentials: it is not sent"
        elif full.is_dir() and not recursive:
            problem, hint = f"{path} is a directory", "-r takes all that is below it."
        elif not full.name:
            problem, hint = f"{path} is all of this machine, and that is not sent", "Name what is to be sent."
        if problem is not None:
            if not is_matched:
                raise ConfigError(problem, hint=hint)
            emit(Notice(f"left out: {problem}", Level.WARNING))
            continue
        # A link to a file that is named, and not found below a directory, is followed wherever it leads.
        real = full if full.is_dir() else full.resolve()
        root = full if full.is_dir() else real.parent
        if str(root) not in sources:
            sources[str(root)] = stack.enter_context(open_directory(root, own=own))
        source = sources[str(root)]
        found = _below(source, left_out, emit=emit) if full.is_dir() else _one(source, real.name)
        is_single = not full.is_dir()
        files += [
            _LocalFile(
                str(root),
                name,
                full.name if is_single else join_key(full.name, name),
                size,
                mtime_us,
                is_single=is_single,
            )
            for name, size, mtime_us in found
        ]
    return sources, files


def _paths(typed: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """Yield the paths that were typed and, where one is a pattern that no shell has expanded, what it stands for.

    The second value says that a pattern stands for it. ConfigError for a pattern that stands for nothing.
    """
    for path in typed:
        if not path.strip():
            raise ConfigError("an empty path names nothing", hint="Is a variable of the shell empty?")
        if os.path.lexists(path) or not has_wildcard(path):
            yield path, False
            continue
        matching = sorted(glob(path, recursive=True))  # noqa: PTH207 - a path may be relative, absolute or a share
        if not matching:
            raise ConfigError(f"there is no file that matches {path}")
        yield from ((each, True) for each in matching)


def _work(files: Sequence[_LocalFile], *, to: str) -> list[Transfer]:
    """What is sent, the largest first. ConfigError when two files would have one key."""
    work: dict[str, Transfer] = {}
    for file in files:
        key = join_key(to, file.name)
        if key in work:
            raise ConfigError(f"two files would become {key}", hint="Send them one by one, each to a place of its own.")
        work[key] = Transfer(len(work), file.root, file.path, key, file.size, file.mtime_us)
    return sorted(work.values(), key=lambda transfer: -transfer.size)


def _one(source: Source, name: str) -> Iterator[tuple[str, int, int]]:
    state = source.stat(name)
    if state is None:
        raise ConfigError(f"{name} is not a regular file")
    yield name, state.size, state.mtime_us


def _below(source: Source, left_out: list[Problem], *, emit: Emit) -> Iterator[tuple[str, int, int]]:
    for directory in source.walk():
        left_out += directory.problems
        for problem in directory.problems:
            is_link = problem.kind in (ProblemKind.LINK_TO_DIRECTORY, ProblemKind.LINK_TO_OUTSIDE)
            detail = "what is to be sent of where it leads has to be named itself" if is_link else problem.detail
            emit(Notice(f"left out: {problem.path} ({problem.kind}): {detail}", Level.WARNING))
        for entry in directory.entries:
            yield join_key(directory.path, entry.name), entry.size, entry.mtime_us


class _Counts:
    """What became of the files."""

    def __init__(self, total: Tally, meter: Meter, emit: Emit, refusals: Refusals) -> None:
        self._total = total
        self._meter = meter
        self._emit = emit
        self._pace = Pace(0.2)
        self._refusals = refusals
        self.sent = Tally()
        self.there = Tally()
        self.failures: Counter[FailureKind] = Counter()

    @property
    def until_now(self) -> EndedEarly:
        """How far it is."""
        return EndedEarly("delivered", self.sent + self.there, self._total, sum(self.failures.values()))

    def take(self, outcome: Outcome | None) -> None:
        if isinstance(outcome, Delivered):
            self._refusals.accepted()
            one = Tally(1, outcome.transfer.size)
            if outcome.sent:
                self.sent += one
            else:
                self.there += one
            self._emit(FileDelivered.of(outcome))
        elif outcome is not None:
            self.failures[outcome.kind] += 1
            self._emit(FileFailed.of(outcome))
            require_access(outcome, self._refusals)
        if self._pace.is_due():
            under_way, current = self._meter.snapshot()
            done = self.sent + self.there
            self._emit(
                UploadProgressed(
                    files=done.files + sum(self.failures.values()),
                    files_total=self._total.files,
                    bytes=done.bytes + under_way,
                    bytes_total=self._total.bytes,
                    current=current,
                )
            )


_SEPARATORS = tuple(separator for separator in (os.sep, os.altsep) if separator)

# --- download ----------------------------------------------------------------------------------------------------


def download(
    settings: Settings, paths: Sequence[str], *, to: str, options: Options, emit: Emit, stop: threading.Event
) -> DownloadFinished:
    """Bring objects and (`recursive`) what is below directories to `to`. A path may be a pattern.

    Each keeps its own name below the directory `to`; a single object gets the name `to` itself, if that ends in no
    slash and is no directory. As `file download`, but what they ought to be is only what the store says of them.
    """
    begun = time.monotonic()
    if not to.strip():
        raise ConfigError("an empty path names no place", hint="Is a variable of the shell empty? Here is a dot: .")
    at = expanded(to)
    with central_store(settings, stop=stop) as store:
        if not to.endswith(_SEPARATORS):
            _require_of_this_machine(store, to)
        found: dict[str, StoredObject] = {}
        for each in objects(store, paths, recursive=options.recursive, emit=emit):
            if found.setdefault(each.name, each.stored).key != each.stored.key:
                raise ConfigError(
                    f"{found[each.name].key} and {each.stored.key} would both become {each.name}",
                    hint="Fetch them one by one, each to a place of its own.",
                )
        is_single = len(found) == 1 and all("/" not in name for name in found)
        if is_single and not to.endswith(_SEPARATORS) and at.name and not at.is_dir():
            ((_, stored),) = found.items()
            at, found = at.parent, {at.name: stored}
        require_apart(settings, at, replaces=options.overwrite, names=found)
        target = Target(at)
        wanted = Tally(len(found), sum(stored.size for stored in found.values()))
        run = Receiving(wanted, store, emit)
        receiver = Receiver(store, target, overwrite=options.overwrite, reread=False, stop=stop, on_bytes=run.under_way)
        work = (_retrieval(name, stored) for name, stored in found.items())
        try:
            run.receive_all(receiver, work, ThreadPool(settings.num_threads, stop=stop), stop)
        finally:
            target.close(is_done=run.is_done)
        return run.finished(version=None, origin=store.url, target=str(target), seconds=time.monotonic() - begun)


def _require_of_this_machine(store: Store, to: str) -> None:
    """Raise ConfigError when an object of the store is called so, and nothing here: then the place was forgotten."""
    if to.startswith(".") or Path(to).is_absolute() or Path(to).exists():
        return
    try:
        stored = store.stat(clean(to))
    except (ConfigError, StorageError):
        return
    if stored is not None:
        raise ConfigError(
            f"{to} is in the central store, and the last argument is where to on this machine",
            hint="Add the place: a dot is here. For a file that is to be called so: ./ in front of it.",
        )


def _retrieval(name: str, stored: StoredObject) -> Retrieval:
    # What a listing says may be no MD5 of the content; what the response with the content says is compared with that.
    checksum = stored.checksum
    md5 = checksum.md5 if checksum is not None and checksum.computed_by is ComputedBy.SERVICE else None
    return Retrieval("", name, stored.key, stored.size, stored.time_us, None, md5)
