"""What a generated script has to do: the one description from which each shell's writer makes its text.

::

    journal ──▶ Work and ScriptFiles (operations/scripting.py) ──▶ a writer for each shell ──▶ the script
                                                                   constant program  (programs/)
                                                                   settings and files, in the shell's own quoting

A script sends files in *batches*: it makes a directory in which every file of the batch is a link that is called as
its key, and hands that to one run of the tool. No name stands on a command line, and the keys are exactly the
journal's. What arrived goes to a results file by the number that the journal has for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TextIO
from urllib.parse import urlsplit

BATCH_FILES = 200
BATCH_BYTES = 256 << 20
"""A batch is at most so many files and, but for the largest ones, so many bytes: what is sent again after a kill."""


RESULTS_TITLE = "# chorus-upload results 1"
"""How the first line of a results file begins; what the journal calls the central store follows."""


_MICROSOFT = (
    ".core.windows.net",
    ".core.chinacloudapi.cn",
    ".core.cloudapi.de",
    ".core.usgovcloudapi.net",
    ".storage.azure.net",
)
"""The hosts to which azcopy shows a login by itself: `azcopy copy --help`."""


class Tool(StrEnum):
    """What moves the data."""

    AZ = "azcli"
    AZCOPY = "azcopy"


class Shell(StrEnum):
    """What runs the script."""

    BASH = "bash"
    CMD = "cmd"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A directory in a container: `endpoint` without a slash at its end, `prefix` without any at its ends."""

    endpoint: str
    container: str
    prefix: str = ""

    @property
    def url(self) -> str:
        return "/".join(part for part in (self.endpoint, self.container, self.prefix) if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """Where the files of a modality lie: an absolute path on the machine for which the script is written.

    Or a URL, without a credential: then they are copied from there, and never come by the machine. Without
    `follow_links` nothing is sent that lies behind a link to elsewhere.
    """

    modality: str
    path: str
    front: str | None = None
    """Another address of the same place, which is tried when nothing can be copied from `path`."""
    follow_links: bool = False

    @property
    def is_remote(self) -> bool:
        return self.path.startswith(("https://", "http://"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptFile:
    """One file: `id` is the journal's, `root` counts in `Work.roots`, `path` is below that, with slashes.

    `replaces` is the etag of the object under that key that is an earlier state of the file, and is to be overwritten.
    """

    id: int
    root: int
    path: str
    key: str
    size: int
    replaces: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One script's work, but for its files.

    `destination_name` is what the journal calls the central store; the results file begins with it. With `login`
    the tool's own login is used, else a SAS token from the environment. `standalone` scripts take the lock of
    `journal` (whose key is `journal_key`) with az; the others call chorus-upload, which `chorus` starts with the
    configuration `config`.
    """

    tool: Tool
    destination: Place
    destination_name: str
    login: bool
    standalone: bool
    journal: Place | None
    journal_key: str
    chorus: tuple[str, ...]
    config: str
    roots: tuple[Root, ...]
    files: int
    bytes: int
    written: datetime
    tool_version: str
    workers: int
    ca_bundle: str | None = None
    tier: str | None = None
    part: tuple[int, int] = (1, 1)

    @property
    def results_title(self) -> str:
        """The first line of the results file."""
        return f"{RESULTS_TITLE} {self.destination_name}"


def trusted_hosts(work: Work) -> str:
    """The hosts to which azcopy has to be allowed to show its login, with semicolons between; "" for none.

    By itself it shows it to hosts of Microsoft's clouds only.
    """
    if work.tool is not Tool.AZCOPY or not work.login:
        return ""
    places = [work.destination.endpoint]
    for root in work.roots:
        if root.is_remote:
            places += [root.path, root.front or ""]
    # With their ports: azcopy compares both.
    hosts = dict.fromkeys(urlsplit(place).netloc for place in places)
    return ";".join(host for host in hosts if host and not host.endswith(_MICROSOFT))


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """How scripts for one shell are written. `refuses` gives the reason why the shell cannot be given a file.

    `write` writes the program and `files`, all of which it does not refuse, to a text stream, and any lists that the
    program reads beside it to those that `beside` opens by their suffix.
    """

    refuses: Callable[[ScriptFile], str | None]
    write: Callable[[Work, Iterable[ScriptFile], TextIO, Callable[[str], TextIO]], None]
    suffixes: tuple[str, ...]
