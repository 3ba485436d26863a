"""Walks the sources of the modalities and streams what they hold into an Observation."""

from __future__ import annotations

import os
import posixpath
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from chorus_upload.config.own_files import own_files
from chorus_upload.config.settings import Settings, SiteSettings
from chorus_upload.errors import DeletionRefused, LayoutError
from chorus_upload.events import Emit, FileOutsidePatterns, Notice, ProblemFound, ScanProgressed, Tally
from chorus_upload.journal.observation import Observation
from chorus_upload.layout import Parts, Pattern, central_key
from chorus_upload.model import Problem, ProblemKind
from chorus_upload.operations.pace import Pace
from chorus_upload.storage.network import Network
from chorus_upload.storage.open import open_source
from chorus_upload.storage.source import Directory, Entry, Source

_HIDES_A_DIRECTORY = frozenset({ProblemKind.UNREADABLE_DIRECTORY, ProblemKind.LINK_LOOP})
# What may be a file or, behind a link, a directory: which of the two cannot be seen.
_HIDES_EITHER = frozenset(
    {
        ProblemKind.UNREADABLE_FILE,
        ProblemKind.VANISHED,
        ProblemKind.LINK_TO_DIRECTORY,
        ProblemKind.SKIPPED_LINK,
        ProblemKind.LINK_TO_OUTSIDE,
    }
)
_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A modality of another source, as seen from one: its files may lie here, and are no strangers.

    `lead` leads from its root to this one, if that is below it, and `begin` from this one to its root.
    """

    pattern: Pattern
    lead: str
    begin: str
    is_here: bool
    """Whether one source lies in the other: then a file that it takes is recorded, and not merely one like those."""

    @classmethod
    def of(cls, site: SiteSettings, here: SiteSettings) -> Neighbour | None:
        """The modality of `site`, seen from the source of `here`. None if it says nothing of the files there."""
        pattern = Pattern.parse(site.pattern)
        own, root = _directory(site), _directory(here)
        # With other credentials a container of the same name may be another one.
        if site.location.is_local or site.location.auth == here.location.auth:
            if own.startswith(root):
                return cls(pattern, "", own[len(root) :], is_here=True)
            if root.startswith(own):
                return cls(pattern, root[len(own) :], "", is_here=True)
        return cls(pattern, "", "", is_here=False) if pattern.names_directory else None

    def takes(self, path: str) -> bool:
        """Whether the file at this path here belongs to it, or looks like it."""
        path = self.lead + path
        return path.startswith(self.begin) and self.pattern.match(path[len(self.begin) :]) is not None


@dataclass(frozen=True, slots=True)
class SharedSource:
    """One tree with the modalities that live in it; it is walked once for all of them.

    `patterns` has those that are not asked for, too: their files are not "outside the patterns".
    """

    source: Source
    patterns: Mapping[str, Pattern]
    asked_for: frozenset[str]
    neighbours: Sequence[Neighbour]


@contextmanager
def open_sources(
    settings: Settings, modalities: Sequence[str], *, stop: threading.Event | None = None
) -> Iterator[tuple[list[SharedSource], dict[str, Source]]]:
    """Open the sources of these modalities: each tree once, and by modality. Once `stop` is set none waits."""
    trees: dict[tuple[object, ...], list[SiteSettings]] = {}
    for site in settings.sites.values():
        trees.setdefault((site.location.path, site.location.auth, site.follow_links), []).append(site)
    shared: list[SharedSource] = []
    by_modality: dict[str, Source] = {}
    own = own_files(settings)
    with ExitStack() as stack:
        for sites in trees.values():
            asked_for = frozenset(site.modality for site in sites) & set(modalities)
            if asked_for:
                network = Network.of(settings)
                source = stack.enter_context(open_source(sites[0], network, own=own, stop=stop))
                patterns = {site.modality: Pattern.parse(site.pattern) for site in sites}
                others = [each for each in settings.sites.values() if each.modality not in patterns]
                neighbours = [Neighbour.of(each, sites[0]) for each in others]
                shared.append(SharedSource(source, patterns, asked_for, [each for each in neighbours if each]))
                by_modality |= dict.fromkeys(asked_for, source)
        yield shared, by_modality


def _directory(site: SiteSettings) -> str:
    """Where the root of a site's source is, with a slash at its end."""
    path = site.location.path
    if site.location.is_local:
        path = os.path.abspath(path).replace(os.sep, "/")  # noqa: PTH100 - links stay what they are
    return path.rstrip("/") + "/"


class Scan:
    """The walk through one shared source.

    `problems` counts what needs a person by modality; "" where it could concern any of them. Of the files that are
    `outside` the patterns of this source, `strangers` match those of no other source either.
    """

    def __init__(
        self, tree: SharedSource, observation: Observation, *, patient_first: bool, list_outside: bool, emit: Emit
    ) -> None:
        self._tree = tree
        self._observation = observation
        self._patient_first = patient_first
        self._list_outside = list_outside
        self._emit = emit
        self.files = 0
        self.outside = Tally()
        self.outside_examples: list[str] = []
        self.strangers = 0
        self.stranger_examples: list[str] = []
        self.mounted: dict[str, bool] = {}
        """The directories on which something is mounted, and whether that holds anything."""
        self.problems: dict[str, int] = {}

    @property
    def root(self) -> str:
        """Where the tree is; of a directory of this machine the absolute path."""
        url = self._tree.source.url
        return url if self._tree.source.is_remote else os.path.abspath(url)  # noqa: PTH100 - links stay what they are

    @property
    def modalities(self) -> frozenset[str]:
        """Those that it is walked for."""
        return self._tree.asked_for

    @property
    def mount_points(self) -> set[str]:
        """Those that hold anything, as absolute paths."""
        filled = [path for path, is_filled in self.mounted.items() if is_filled]
        return {str(Path(self.root, path)) for path in filled}

    def run(self, *, missing_is_empty: bool) -> None:
        """Walk the whole tree. Raises DeletionRefused when the root is not there, unless that is accepted."""
        root = self._tree.source.url
        pace = Pace(0.2)
        directories = 0
        try:
            for directory in self._tree.source.walk():
                directories += 1
                self.files += len(directory.entries)
                self._take(directory)
                if pace.is_due():
                    self._emit(ScanProgressed(root, directories, self.files))
        except DeletionRefused as refusal:
            if not missing_is_empty or directories:
                raise
            self._emit(Notice(f"{refusal.message}; taken for empty, as confirmed"))
        self._emit(ScanProgressed(root, directories, self.files))

    def told_if_empty(self) -> dict[str, int]:
        """Say that the tree holds no file, if that is so; return the problems that it is."""
        if self.files:
            return {}
        detail = (
            "the source holds no file: is it mounted, and is its path right? --confirm-deletions takes it for empty"
        )
        self._emit(ProblemFound(Problem(ProblemKind.EMPTY_SOURCE, "", detail), self._tree.source.url))
        return {"": 1}

    def _take(self, directory: Directory) -> None:
        claimed: set[str] = set()
        concerned: list[str] = []
        for modality, pattern in self._tree.patterns.items():
            matcher = pattern.matcher(directory.path)
            if matcher is None:
                continue
            asked_for = modality in self._tree.asked_for
            if asked_for:
                concerned.append(modality)
            if matcher.constant is not None:
                claimed.update([entry[0] for entry in directory.entries])
                if asked_for and directory.entries:
                    self._observe(modality, directory, matcher.constant, directory.entries)
                continue
            groups: dict[tuple[str | None, str | None, str | None], list[Entry]] = {}
            for entry in directory.entries:
                if parts := matcher.match(entry[0]):
                    claimed.add(entry[0])
                    # Where a name goes into the key as it is, all of them are in one place.
                    is_whole = f"/{parts.filepath}".endswith(f"/{entry[0]}")
                    lead = parts.filepath[: -len(entry[0])] if is_whole else None
                    groups.setdefault((parts.version, parts.patient_id, lead), []).append(entry)
            if asked_for:
                for (version, patient, lead), entries in groups.items():
                    parts = Parts(version, patient, lead or "")
                    self._observe(modality, directory, parts, entries, same_place=lead is not None)
        if directory.is_mounted:
            self.mounted[directory.path] = not directory.is_empty
        if len(claimed) < len(directory.entries):
            self._leave_outside(directory, claimed)
        for problem in directory.problems:
            self._report(problem, concerned)

    def _observe(
        self, modality: str, directory: Directory, parts: Parts, entries: Sequence[Entry], *, same_place: bool = True
    ) -> None:
        central = self._place(modality, parts) if same_place else None
        number = self._observation.directory(
            modality, directory.path, patient=parts.patient_id, version=parts.version, central=central
        )
        self._observation.files(
            modality,
            number,
            entries,
            claims=directory.claims,
            are_hashed=directory.is_hashed,
            # The listing of a directory of this machine says so itself.
            are_told_apart=not self._tree.source.is_remote,
        )

    def _place(self, modality: str, parts: Parts) -> str | None:
        """What the central keys of a directory have in common: all but the version and the name."""
        sample = Parts(None, parts.patient_id, parts.filepath + "x")
        try:
            key = central_key(modality=modality, version="v", parts=sample, patient_first=self._patient_first)
        except LayoutError:
            # No key at all: the upload says so, file by file.
            return None
        return key.removeprefix("v/").removesuffix("x")

    def _leave_outside(self, directory: Directory, claimed: set[str]) -> None:
        modality = min(self._tree.asked_for)
        for name, size, mtime_us in directory.entries:
            if name in claimed:
                continue
            path = posixpath.join(directory.path, name)
            takers = [each.is_here for each in self._tree.neighbours if each.takes(path)]
            if any(takers):
                continue
            self.outside += Tally(1, size)
            self._observation.outside(modality, path, size, mtime_us)
            if len(self.outside_examples) < _EXAMPLES:
                self.outside_examples.append(path)
            if not takers:
                self.strangers += 1
                if len(self.stranger_examples) < _EXAMPLES:
                    self.stranger_examples.append(path)
            if self._list_outside:
                self._emit(FileOutsidePatterns(path, self._tree.source.url))

    def _report(self, problem: Problem, concerned: Sequence[str]) -> None:
        """Pass a problem on, and keep what it hides from being taken for deleted."""
        if problem.kind in _HIDES_A_DIRECTORY:
            # Patterns are not asked: what is below such a directory could belong to any modality.
            for modality in self._tree.asked_for:
                self._observation.unreadable(modality, problem.path)
            concerned = concerned or [""]
        if problem.kind is ProblemKind.INVALID_NAME and not {"/", "\\"}.isdisjoint(problem.path):
            # Where it belongs cannot be told from a name that can belong nowhere.
            concerned = concerned or [""]
        if problem.kind in _HIDES_EITHER:
            patterns = self._tree.patterns
            asked_for = self._tree.asked_for
            found = [each for each in patterns if each in asked_for and patterns[each].may_match_below(problem.path)]
            for modality in found:
                self._observation.unreadable(modality, *posixpath.split(problem.path))
                self._observation.unreadable(modality, problem.path)
            concerned = found if len(found) < 2 else concerned if len(concerned) == 1 else [""]
        for modality in concerned:
            self.problems[modality] = self.problems.get(modality, 0) + problem.kind.needs_attention
        if concerned:
            sole = concerned[0] if len(concerned) == 1 else ""
            self._emit(ProblemFound(problem, self._tree.source.url, sole or None))
