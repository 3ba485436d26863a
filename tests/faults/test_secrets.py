"""No credential is found in anything that a run leaves behind: said, logged, written, sent, or seen by others.

A story with every way to log in, all of whose commands are told to be talkative, goes wrong where services repeat what
they were sent. Then everything is searched that there is: what was printed, every file below the home directory and
the directory for temporary files, every object in the store, and, while real processes work, the list of processes.
"""

from __future__ import annotations

import base64
import json
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote

import pytest

from tests.e2e.ends import End
from tests.e2e.mortal_program import Program, running_program
from tests.e2e.site import Ran, Site
from tests.emulators import MARK, Azurite
from tests.faults.figures import THOROUGH, Figures
from tests.gs import Service
from tests.s3 import SeaweedFS
from tests.trees import Bytes, build
from tests.wire import Answer, Wire

TREE = {
    "OMOP/person.csv": Bytes(3_000),
    "1001/Images/scan.dcm": Bytes(70_000),
    "1001/Waveforms/large.h5": Bytes(9 << 20),
}
COMMANDS = (
    "config check",
    "config check --online",
    "config show",
    "journal update --version spring",
    "file upload --dry-run",
    "file list --output-type azcli --output-file upload.sh",
    "file list --output-type azcli --standalone --output-file carry.sh",
    "file list --output-type azcopy --output-file copy.sh",
    "file list --output-type azcli --shell cmd --output-file upload.bat",
    "file upload",
    "file verify --deep --report report.csv",
    "journal checkout",
    "journal list",
    "journal check",
    "journal checkin",
    "remote list -r",
    "remote download -r spring --to there",
    "file download --to back",
    "history",
)
PASSWORD = "VerySecretWord-0123456789"


def spellings_of(secret: str) -> set[bytes]:
    """A secret as it could be written somewhere; of a token or a connection string, its secret part."""
    for mark in ("sig=", "AccountKey="):
        if mark in secret:
            secret = secret.partition(mark)[2].partition("&" if mark == "sig=" else ";")[0]
    plain = unquote(secret)
    quoted = {quote(plain, safe=""), quote(plain), quote(quote(plain, safe=""), safe="")}
    texts = {secret, plain, json.dumps(plain)[1:-1], *quoted, *map(str.lower, quoted)}
    return {text.encode() for text in texts} | {
        base64.b64encode(plain.encode()).rstrip(b"="),
        plain.encode("utf-16-le"),
    }


@dataclass(frozen=True, slots=True)
class Search:
    """Looks for secrets, and counts where it has looked."""

    secrets: tuple[str, ...]
    figures: Figures

    def holds(self, text: bytes) -> bool:
        return any(spelling in text for secret in self.secrets for spelling in spellings_of(secret))

    def files_with(self, root: Path) -> set[str]:
        """The files below `root` that hold one."""
        found = set()
        for path in sorted(root.rglob("*")):
            if path.is_file() and not path.is_symlink():
                self.figures.count("files searched")
                if self.holds(path.read_bytes()) or self.holds(str(path).encode()):
                    found.add(path.relative_to(root).as_posix())
        return found

    def objects_with(self, objects: dict[str, bytes]) -> set[str]:
        self.figures.count("objects searched", len(objects))
        return {key for key, body in objects.items() if self.holds(body) or self.holds(key.encode())}


@contextmanager
def watching_processes(search: Search) -> Iterator[list[str]]:
    """Look at the command lines of all processes again and again, as anybody on the machine can."""
    over, found = threading.Event(), list[str]()

    def look() -> None:
        while not over.wait(0.01):
            search.figures.count("process lists read")
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                # Processes end while they are looked at.
                with suppress(OSError):
                    if search.holds(line := path.read_bytes()):
                        found.append(line.decode(errors="replace"))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


@dataclass(frozen=True, slots=True)
class Secluded:
    """The program, whose user's home and whose temporary files are here."""

    program: Program
    root: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"HOME": f"{self.root}/home", "TMPDIR": f"{self.root}/temporary"}


@pytest.fixture(scope="module")
def secluded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secluded]:
    root = build(tmp_path_factory.mktemp("secluded"), {"home/.keep": "", "temporary/.keep": ""})
    with running_program(within=("env", f"HOME={root}/home", f"TMPDIR={root}/temporary")) as program:
        yield Secluded(program, root)


def configure(site: Site, *, central: str) -> None:
    site.configure(
        f"""
[configuration]
retry_seconds = 0
[journal]
journaling_mode = "full"
[journal.local]
path = "{site.journal}"
{central}
[site_path.default]
path = "{site.source}"
"""
    )


def run(program: Program, site: Site, search: Search, command: str) -> Ran:
    """Type a command as talkative as it gets; what it says is searched."""
    ended = program.run(*command.split(), home=site.home)
    search.figures.count("commands run")
    told = f"{command}\n{ended.out}\n{ended.err}"
    assert not search.holds(told.encode()), told
    return Ran(ended.exit_code, ended.out, ended.err)


THOROUGHLY = ("key", "connection-string", "s3", "google")
WAYS = ("sas", *(pytest.param(each, marks=pytest.mark.thorough) for each in THOROUGHLY))


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, end: Callable[[str, str], End]) -> tuple[End, tuple[str, ...], int]:
    """A central store with the secrets that lead in, and the port of its service."""
    kind = {"s3": "s3", "google": "gs"}.get(request.param, "az")
    place = end(kind, "central")
    if kind == "s3":
        seaweedfs: SeaweedFS = request.getfixturevalue("seaweedfs")
        return place, (seaweedfs.secret,), seaweedfs.port
    if kind == "gs":
        gcs: Service = request.getfixturevalue("gcs")
        return place, place.secrets, gcs.port
    azurite: Azurite = request.getfixturevalue("azurite")
    if request.param == "key":
        auth = f'azure_account_url = "{azurite.account_url}"\nazure_account_name = "{azurite.account}"\n'
        return replace(place, auth=f'{auth}azure_account_key = "{azurite.key}"'), (azurite.key,), azurite.port
    if request.param == "connection-string":
        auth = f'azure_connection_string = "{azurite.connection_string}"'
        return replace(place, auth=auth), (azurite.key,), azurite.port
    (token,) = parse_qs(place.auth.partition("azure_sas_token = ")[2].strip('"'))["sig"]
    return place, (token,), azurite.port


def test_nothing_that_a_run_leaves_behind_holds_one(
    way: tuple[End, tuple[str, ...], int], secluded: Secluded, tmp_path: Path, figures: Figures
) -> None:
    place, secrets, _ = way
    search = Search(secrets, figures)
    site = Site(tmp_path / "home", build(tmp_path / "source", TREE), place)
    configure(site, central=place.config)

    for number, command in enumerate(COMMANDS):
        options = "-v" if number % 2 else "-v --json"
        ran = run(secluded.program, site, search, f"{options} {command}")
        # azcopy and az know nothing of the other services.
        assert ran.exit_code == 0 or "--output-type az" in command, (command, ran)
    with watching_processes(search) as seen:
        site.run("-v", "file", "verify", program=site.program, exit_code=0)
        (site.source / "OMOP/person.csv").write_text("more")
        real = replace(site, environment=secluded.environment)
        real.run("journal", "update", "--version", "summer")
        real.run("-v", "file", "upload")

    assert seen == []
    # The search itself is no use unless it finds what is there: what the user wrote.
    told_by_the_user = {"home/config.toml"} if "google" not in place.auth else {"token"}
    assert search.files_with(secluded.root) == set()
    assert search.files_with(tmp_path) == told_by_the_user
    assert search.objects_with(place.objects()) == set()
    loose = [path.name for path in site.home.glob("journal.db*") if stat.S_IMODE(path.stat().st_mode) & 0o077]
    assert loose == [], "others can read these"


# Of Azure and S3, whose refusals these are; what Google refuses is known by its JSON.
_MARKS = (MARK, ("x-amz-request-id", "1"))
ECHOES = (
    Answer(403, (*_MARKS, ("Content-Type", "application/xml")), b"<Error><Code>SignatureDoesNotMatch</Code>%s</Error>"),
    Answer(
        400, (*_MARKS, ("Content-Type", "text/html"), ("x-ms-error-code", "InvalidHeaderValue")), b"<html>%s</html>"
    ),
    Answer(409, (*_MARKS, ("Content-Type", "application/json")), b'{"error": {"code": 409, "message": "%s"}}'),
    Answer(503, (), b"%s"),
    Answer(302, (*_MARKS, ("Location", "http://127.0.0.1:1/?%s")), b""),
)


def test_a_service_that_repeats_what_it_was_sent(
    way: tuple[End, tuple[str, ...], int], secluded: Secluded, tmp_path: Path, figures: Figures
) -> None:
    """Every request of a command is answered with the credentials in the error, in turn."""
    place, secrets, port = way
    search = Search(secrets, figures)
    site = Site(tmp_path / "home", build(tmp_path / "source", {"OMOP/person.csv": "1"}), place)
    with Wire(port) as wire:
        configure(site, central=place.config.replace(f":{port}", f":{wire.port}"))
        run(secluded.program, site, search, "journal update --version spring")
        for echo in ECHOES:
            said = "&".join([*secrets, *(quote(each, safe="") for each in secrets)])
            if "google" not in place.auth and len(secrets[0]) < 60:
                said += f"&sig={secrets[0]}"
            faulty = replace(
                echo,
                headers=tuple((name, value.replace("%s", quote(said))) for name, value in echo.headers),
                body=echo.body.replace(b"%s", said.encode()),
            )
            for command in ("file upload", "file verify", "journal check", "remote list"):
                before = len(wire.requests)
                wire.script(faulty, times=50)
                ran = run(secluded.program, site, search, f"-v {command}")
                figures.count("answers with the credentials in them", len(wire.requests) - before)
                wire.forget()
                assert ran.exit_code != 0
                assert len(wire.requests) > before
    assert search.files_with(secluded.root) == set()
    assert search.files_with(tmp_path) == ({"home/config.toml"} if "google" not in place.auth else {"token"})


@pytest.mark.parametrize(
    "line",
    [
        f'[site_path.Images]\npath = "sftp://somebody:{PASSWORD}@127.0.0.1:1/images"',
        f'[site_path.Images]\npath = "smb://somebody:{PASSWORD}@127.0.0.1:1/share/images"',
        f'[site_path.Images]\npath = "http://somebody:{PASSWORD}@127.0.0.1:1/images/"',
        f'[site_path.Images]\npath = "http://127.0.0.1:1/images/?X-Amz-Signature={PASSWORD}"',
        f'[site_path.Images]\npath = "zip://::http://127.0.0.1:1/images.zip?sig={PASSWORD}"',
        f'[site_path.Images]\npath = "https://a.blob.core.windows.net/c/x?sv=2024&sr=c&sp=r&sig={PASSWORD}"',
        f'[site_path.Images]\npath = "http://127.0.0.1:1/x"\n[configuration.x]\nproxy = "http://me:{PASSWORD}@h:1"',
        f'[site_path.Images]\npath = "s3://b/x"\n[site_path.Images.auth]\naws_secret_access_key = "{PASSWORD}"',
        f'[site_path.Images]\nazure_sas_token = "{PASSWORD}"\npath = 7',
        f'[site_path.Images]\npath = "az://c/x"\nazure_account_key = "{PASSWORD}',
    ],
)
def test_places_that_fail_do_not_tell_how_one_gets_in(
    line: str, secluded: Secluded, tmp_path: Path, figures: Figures
) -> None:
    search = Search((PASSWORD,), figures)
    site = Site(tmp_path / "home", build(tmp_path / "source", {"OMOP/a": "1"}), End("", "", print, dict))
    central = build(tmp_path / "central", {"data/.keep": ""})
    configure(
        site, central=f'[journal.source]\npath = "{central}/journal.db"\n[central_path]\npath = "{central}/data"\n'
    )
    proxy = f'[configuration]\nproxy = "http://somebody:{PASSWORD}@127.0.0.1:1"'
    text = site.config.read_text().replace("[configuration]", proxy)
    site.configure(f"{text}{line}\n")
    codes = [
        run(secluded.program, site, search, f"-v {options}{command}").exit_code
        for command in (
            "config check",
            "config check --online",
            "config show",
            "journal update",
            "file upload",
            "history",
        )
        for options in (("", "--json ") if THOROUGH else ("",))
    ]

    assert any(codes)
    assert search.files_with(secluded.root) == set()
    assert search.files_with(tmp_path) == {"home/config.toml"}


@pytest.mark.thorough
def test_credentials_in_the_environment(secluded: Secluded, tmp_path: Path, azurite: Azurite, figures: Figures) -> None:
    """A token that is in no file at all is nowhere afterwards."""
    container = azurite.create_container()
    token = azurite.sas(container)
    (signature,) = parse_qs(token)["sig"]
    search = Search((signature,), figures)
    place = End(f"az://{container}", f'azure_account_url = "{azurite.account_url}"', print, dict)
    site = Site(tmp_path / "home", build(tmp_path / "source", TREE), place)
    configure(site, central=place.config)
    names = ("CHORUS_UPLOAD_JOURNAL_AZURE_SAS_TOKEN", "CHORUS_UPLOAD_CENTRAL_PATH_AZURE_SAS_TOKEN")
    real = replace(site, environment={**dict.fromkeys(names, token), **secluded.environment})
    with watching_processes(search) as seen:
        for command in ("journal update --version spring", "-v file upload", "-v --json file verify", "config show"):
            ran = real.run(*command.split())
            assert not search.holds(f"{ran.out}{ran.err}".encode())
            figures.count("commands run")

    assert seen == []
    assert search.files_with(secluded.root) == set()
    assert search.files_with(tmp_path) == set()
    assert secluded.program.run("history", home=site.home).exit_code != 0
    assert os.environ.get(names[0]) is None
