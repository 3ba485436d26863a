"""What the journal and the central store ought to hold, as simply as it can be said: a reference in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count


@dataclass(frozen=True, slots=True)
class File:
    """A file of the source."""

    content: bytes
    moment: int


@dataclass(slots=True)
class Journaled:
    """An active file of the journal: the state in which it was seen, and the version that this content came with."""

    file: File
    version: str
    sent: bool = False

    def is_still(self, file: File | None) -> bool:
        return file == self.file


@dataclass(slots=True)
class Model:
    """A source, its journal and its central store. `full`: what is missing in the source is gone."""

    full: bool
    source: dict[str, File] = field(default_factory=dict)
    journal: dict[str, Journaled] = field(default_factory=dict)
    store: dict[str, bytes] = field(default_factory=dict)
    _moments: count[int] = field(default_factory=lambda: count(1))

    def write(self, path: str, content: bytes) -> None:
        self.source[path] = File(content, next(self._moments))

    def touch(self, path: str) -> None:
        self.write(path, self.source[path].content)

    def change_in_secret(self, path: str, content: bytes) -> None:
        self.source[path] = File(content, self.source[path].moment)

    def rename(self, old: str, new: str) -> None:
        self.source[new] = self.source.pop(old)

    def delete(self, path: str) -> None:
        del self.source[path]

    def update(self, version: str) -> None:
        """New content comes with this version; what only got another time stays with its own."""
        for path, file in self.source.items():
            if not belongs(path):
                continue
            known = self.journal.get(path)
            if known is None or known.file.content != file.content:
                self.journal[path] = Journaled(file, version)
            else:
                known.file = file
        if self.full:
            self.journal = {path: known for path, known in self.journal.items() if path in self.source}

    def pending(self) -> set[str]:
        """What has not been sent."""
        return {path for path, known in self.journal.items() if not known.sent}

    def ready(self) -> set[str]:
        """What has not been sent and is still as it was seen: all of this can be delivered."""
        return {path for path in self.pending() if self.journal[path].is_still(self.source.get(path))}

    def key(self, path: str) -> str:
        """What the file is called in the store: its name has the version in it that the content came with."""
        return f"{self.journal[path].version}/{path}"

    def deliver(self, path: str, key: str) -> None:
        """The store gets a file."""
        self.journal[path].sent = True
        self.store[key] = self.journal[path].file.content


def belongs(path: str) -> bool:
    """Whether a path is in some modality's pattern."""
    return "/Images/" in path or path.startswith("OMOP/")
