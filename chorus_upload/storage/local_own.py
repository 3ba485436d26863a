"""Keeps the program's own files, and those with credentials, out of a walk and out of reach."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from chorus_upload.config.own_files import OwnFiles, is_copy, is_of_journal
from chorus_upload.model import Problem, ProblemKind
from chorus_upload.storage.local_listing import Found

Identity = tuple[int, int]
"""Device and inode: links and other spellings of a path lead to the same."""


class Withheld:
    """What of `own` is there now. Directories are told by what they are, files in them by name too.

    A configuration that an editor saves becomes another file under the same name, and a link has another name.
    """

    def __init__(self, own: OwnFiles) -> None:
        self._files = frozenset(_identities(own.secrets))
        self._stores = frozenset(_identities(own.stores))
        self._names: dict[Identity, set[str]] = {}
        self._journals: dict[Identity, set[str]] = {}
        self._configurations: dict[Identity, str] = {}
        if own.configuration is not None:
            for directory in _identities([own.configuration.absolute().parent]):
                self._configurations[directory] = own.configuration.name
        for paths, names in ((own.secrets, self._names), (own.journals, self._journals)):
            for path in paths:
                for directory in _identities([path.absolute().parent]):
                    names.setdefault(directory, set()).add(path.name)

    def is_store(self, directory: Identity) -> bool:
        """Whether this directory is the central store."""
        return directory in self._stores

    def take_out(self, path: str, found: Found) -> None:
        """Take out of the listing of the directory `path` what is not to be sent, and say so."""
        names = self._names.get(found.identity, ())
        journals = self._journals.get(found.identity, ())
        configuration = self._configurations.get(found.identity)
        if not (names or journals or found.links):
            return
        left_out: dict[str, str] = {}
        copies: list[str] = []
        kept = []
        for entry in found.entries:
            journal = next((each for each in journals if is_of_journal(entry.name, each)), None)
            if entry.name in names or found.links.get(entry.name) in self._files:
                left_out[entry.name] = "holds credentials: not sent"
            elif configuration is not None and is_copy(entry.name, configuration):
                copies.append(entry.name)
            elif journal is not None:
                # One word for all that lies beside a journal.
                left_out[journal] = "the journal, with what belongs to it: not sent"
            else:
                kept.append(entry)
        found.entries[:] = kept
        lead = f"{path}/" if path else ""
        found.problems += [Problem(ProblemKind.OWN_FILE, lead + name, why) for name, why in sorted(left_out.items())]
        why = "a copy of the configuration by its name: not sent; move it out of the source"
        found.problems += [Problem(ProblemKind.HOLDS_SECRET, lead + name, why) for name in sorted(copies)]

    def check(self, status: os.stat_result, path: str) -> None:
        """OSError for a file that holds credentials, by whatever name it was opened."""
        if (status.st_dev, status.st_ino) in self._files:
            raise OSError(errno.EACCES, "holds credentials: not sent", path)


def _identities(paths: Iterable[Path]) -> Iterator[Identity]:
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            continue
        yield status.st_dev, status.st_ino
