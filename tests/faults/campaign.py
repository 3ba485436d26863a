"""A site whose wire to the service is in trouble, and what has to hold whatever the trouble is.

At every moment: what the journal calls delivered is at the service, with that very content; nothing that it once called
delivered is forgotten, or sent again; nothing wrong lies under the key of a file. In the end: all is as it would have
been without trouble.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pprint import pformat
from random import Random
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.e2e.clouds import CENTRAL, LOCK, Cloud, ask, fetched, files_of, manifest_of, others_of, tables_of
from tests.e2e.mortal_program import Ended, Program
from tests.e2e.site import Site
from tests.faults.troubles import TROUBLES, Trouble
from tests.trees import contents
from tests.wire import Fault, Request, Wire

DOCUMENTED = frozenset({0, 3, 10, 11, 12, 14, 20, 21, 22, 23, 24, 25, 26, 27, 28})
"""The exit codes that a service in trouble can lead to (docs/exit-codes.md)."""
_MOST_TRIES = 40
_MOST_SHAKEN = 8
_RARER = 0.8
_TELLING = ("comp", "restype", "uploadType", "alt", "list-type", "uploads", "x-id")
_ROLES = (
    (r"journal\.db\.locked$", "lock"),
    (r"journal\.db\.\d+(-\d+)?\.backup$", "backup"),
    (r"journal/journal\.db$", "journal"),
    (r"journal\.db$", "copy of the journal"),
    (r"manifest-[^/]*$", "manifest"),
    (r"large[^/]*$", "large file"),
    (r"given/[^/]", "file of the source"),
    (r"data/[^/]+/", "file"),
)


def kind_of(request: Request) -> str:
    """What a request is about: requests of one kind are met by trouble in the same way."""
    parts = urlsplit(request.target)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    said = [f"{name}={query[name]}" for name in _TELLING if name in query]
    said += [name for name in ("partNumber", "uploadId", "upload_id", "rewriteToken") if name in query]
    path = unquote(parts.path)
    if "/rewriteTo/" in path:
        said.append("rewrite")
    name = query.get("name") or path.rpartition("/rewriteTo/")[2]
    role = next((role for form, role in _ROLES if re.search(form, name)), "")
    if prefix := query.get("prefix"):
        role = f"listing of {'the journal' if 'journal' in prefix else 'files'}"
    if "range" in request.headers or "x-ms-range" in request.headers:
        said.append("range")
    if any("copy-source" in header for header in request.headers):
        said.append("copy")
    return " ".join([request.method, role or "container", *said])


@dataclass(slots=True)
class Meddler:
    """Lets one kind of trouble happen to the first request of each kind, in each command; at most `most` times.

    Without trouble it only remembers which kinds there were.
    """

    trouble: Trouble | None = None
    most: int = 1_000
    met: dict[str, Request] = field(default_factory=dict)

    def __call__(self, request: Request) -> Fault | None:
        kind = kind_of(request)
        if self.trouble is None:
            self.met.setdefault(kind, request)
            return None
        if kind in self.met or len(self.met) >= self.most or not self.trouble.can_meet(request):
            return None
        self.met[kind] = request
        return self.trouble.happen(request)


@dataclass(slots=True)
class Chance:
    """Lets any kind of trouble happen to any request; a `share` of them meets some. Slow ones are rarer."""

    draw: Random
    share: float
    said: list[str] = field(default_factory=list)

    def __call__(self, request: Request) -> Fault | None:
        if self.draw.random() >= self.share:
            return None
        trouble = self.draw.choice([each for each in TROUBLES if each.can_meet(request)])
        if trouble.is_slow and self.draw.random() < _RARER:
            return None
        self.said.append(f"{trouble.name}: {kind_of(request)}")
        return trouble.happen(request)


@dataclass(slots=True)
class Watch:
    """Holds a site to what has to hold at every moment. `right` is every content that a file ever had, by its key."""

    site: Site
    wire: Wire
    right: dict[str, bytes] = field(default_factory=dict)
    delivered: dict[str, str] = field(default_factory=dict)
    _seen: int = 0

    def look(self) -> None:
        """After a command, however it ended."""
        stored = files_of(self.site.cloud.objects())
        recorded = {key: md5.hex() for key, md5 in ask(self.site.journal, "SELECT key, md5 FROM delivery")}
        for key, md5 in recorded.items():
            assert key in stored, f"{key} is called delivered, and is not there"
            assert _md5(stored[key]) == md5, f"{key} is called delivered, and is another one"
        for key, body in stored.items():
            assert self.right.get(key) == body, f"there is something wrong under {key}"
        lost = {key for key, md5 in self.delivered.items() if recorded and recorded.get(key) != md5}
        assert not lost, f"deliveries were forgotten: {lost}"
        again = [request for request in self.wire.requests[self._seen :] if self._sends_again(request)]
        assert not again, f"what was delivered was sent again: {again}"
        self._seen = len(self.wire.requests)
        self.delivered |= recorded

    def expect(self, files: Mapping[str, bytes], version: str) -> None:
        """These are files of a version."""
        self.right |= {f"{version}/{path}": body for path, body in files.items()}

    def _sends_again(self, request: Request) -> bool:
        if request.method not in ("PUT", "POST"):
            return False
        parts = urlsplit(request.target)
        name = dict(parse_qsl(parts.query)).get("name") or unquote(parts.path)
        _, found, key = name.partition(f"{CENTRAL}/")
        return bool(found) and key in self.delivered


@dataclass(frozen=True, slots=True)
class Step:
    """A command that is typed, after something was done to the source."""

    command: str
    before: Callable[[], None] = lambda: None


@dataclass(slots=True)
class Campaign:
    """A site in a story, on a wire to its service."""

    program: Program
    site: Site
    wire: Wire
    watch: Watch
    log: list[str] = field(default_factory=list)

    def tell(self, steps: list[Step]) -> list[dict[str, Request]]:
        """The story without trouble: of each kind of request that a command makes the first, for each command."""
        found = []
        for step in steps:
            step.before()
            self.wire.chance = meddler = Meddler()
            ended = self.type(step.command)
            assert ended.exit_code == 0, self.told(step.command, ended)
            found.append(meddler.met)
        self.wire.chance = None
        return found

    def disturb(self, step: Step, trouble: Trouble, *, most: int = 1_000) -> set[str]:
        """One command in trouble, until it meets no trouble any more; gives the kinds of requests that have met it."""
        step.before()
        self.wire.chance = meddler = Meddler(trouble, most)
        for _ in range(_MOST_TRIES):
            before = set(meddler.met)
            ended = self.type(step.command)
            if meddler.met.keys() == before:
                break
            self.log += [f"{trouble.name}: {kind}" for kind in meddler.met if kind not in before]
            assert ended.exit_code in DOCUMENTED, self.told(step.command, ended)
            if trouble.survived:
                assert ended.exit_code == 0, self.told(step.command, ended)
            self.watch.look()
        self.wire.chance = None
        done_before = 11 if step.command == "journal checkin" and meddler.met else 0
        assert ended.exit_code in (0, done_before), self.told(step.command, ended)
        self.watch.look()
        return set(meddler.met)

    def shake(self, step: Step, draw: Random, *, share: float) -> int:
        """One command, of whose requests that share meets any trouble, and fewer each time it is typed again."""
        step.before()
        met = 0
        for attempt in range(_MOST_TRIES):
            chance = Chance(draw, share / (1 + attempt))
            self.wire.chance = chance if attempt < _MOST_SHAKEN else None
            ended = self.type(step.command)
            self.log += chance.said
            met += len(chance.said)
            assert ended.exit_code in DOCUMENTED, self.told(step.command, ended)
            self.watch.look()
            if ended.exit_code in (0, 11 if step.command == "journal checkin" and attempt else 0):
                break
            assert attempt < _MOST_SHAKEN, self.told(step.command, ended)
        self.wire.chance = None
        return met

    def tidy_up(self) -> None:
        """What the next check-in sees to: backups that could not be removed."""
        for command in ("journal checkout", "journal checkin"):
            ended = self.type(command)
            assert ended.exit_code == 0, self.told(command, ended)

    def type(self, command: str) -> Ended:
        """Type a command, and hold it to good manners."""
        ended = self.program.run(*shlex.split(command), home=self.site.home)
        told = self.told(command, ended)
        assert "Traceback" not in told, told
        assert "Warning:" not in told, told
        assert not [secret for secret in self.site.cloud.secrets if secret in ended.out + ended.err], told
        self.log.append(f"$ {command}: {ended.exit_code} {ended.err.strip()[-300:]}")
        return ended

    def told(self, command: str, ended: Ended) -> str:
        return f"{command}: {ended.exit_code}\n{ended.out}\n{ended.err}\nbefore:\n" + "\n".join(self.log[-40:])


def outcome_of(site: Site) -> dict[str, object]:
    """Where a story has led: what the service holds, and what the journal says of it, but for times and evidence."""
    objects = site.cloud.objects()
    assert LOCK not in objects
    assert tables_of(site.journal) == tables_of(fetched(site.cloud, site.home.with_name("elsewhere")))
    assert ask(site.journal, "SELECT state FROM custody") == [("in",)]
    usual = {"journal.db", "journal.db.writer", "journal.db-wal", "journal.db-shm"}
    assert {path.name for path in site.home.glob("journal.db*")} <= usual
    assert 1 <= len(site.cloud.backups()) <= 3
    files = files_of(objects)
    said = {key: what[:2] for version in ("spring", "autumn") for key, what in manifest_of(objects, version).items()}
    assert said == {key: (len(body), _md5(body)) for key, body in files.items()}
    return {**files, "beside": others_of(objects), "files": set(ask(site.journal, _FILES))}


def require_same(ended: dict[str, object], expected: dict[str, object]) -> None:
    """Tell what of an outcome is another one than was expected; of two sets what is in one of them only."""
    found: dict[str, object] = {}
    for name in ended.keys() | expected.keys():
        this, other = ended.get(name), expected.get(name)
        if this != other:
            found[name] = this ^ other if isinstance(this, set) and isinstance(other, set) else name in ended
    assert not found, pformat(found)


def downloaded(site: Site) -> dict[str, bytes]:
    """What was brought back."""
    return contents(site.home / "back")


def kinds_met(log: list[str]) -> Counter[str]:
    return Counter(line.partition(": ")[0] for line in log if not line.startswith("$"))


# What the service copies by itself has no fingerprint, which another way of delivering it gives it. And a listing that
# was garbled may have given a file another time, which the next update of the same version has put right.
_FILES = """
    SELECT d.path, f.name, m.name, f.patient, f.size, iif(m.name = 'OMOP', '', hex(f.fingerprint)), hex(f.md5),
        iif(f.change = 'modified' AND i.id = 1, 'added', f.change), i.label, r.label, f.retirement, v.key, hex(v.md5)
    FROM file f JOIN directory d ON d.id = f.directory_id JOIN modality m ON m.id = f.modality_id
    JOIN version i ON i.id = f.introduced_by LEFT JOIN version r ON r.id = f.retired_by
    LEFT JOIN delivery v ON v.file_id = f.id
    WHERE v.key IS NOT NULL OR f.retired_by IS NULL OR f.retired_by <> f.introduced_by
    ORDER BY d.path, f.name, f.id
"""


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def place_of(cloud: Cloud) -> str:
    """The section of a `config.toml` for a source that lies at the same service, below `given`."""
    central = cloud.config.partition("[central_path]")[2]
    section = f"[site_path.OMOP]{central}".replace("[central_path.auth]", "[site_path.OMOP.auth]")
    return section.replace(f'/{CENTRAL}"', '/given"')
