"""Sites whose files go by generated scripts, and the scripts run as an administrator runs them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.clouds import Container
from tests.e2e.conftest import settle
from tests.e2e.site import Ran, Site, quick_program
from tests.emulators import real
from tests.trees import Content, build

TOOLS = {"azcli": "az", "azcopy": "azcopy"}


@dataclass(frozen=True, slots=True)
class Script:
    """A script at a site, with the environment in which it is run."""

    site: Site
    path: Path
    environment: Mapping[str, str]

    def run(self, *arguments: str, exit_code: int = 0, environment: Mapping[str, str] | None = None) -> Ran:
        """Run it to its end, and hold it to its exit code and to keeping the token to itself."""
        done = subprocess.run(
            ["bash", str(self.path), *arguments],
            cwd=self.path.parent,
            env=self.environment if environment is None else environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=500,
        )
        ran = Ran(done.returncode, done.stdout, done.stderr)
        told = f"{ran.out}\n{ran.err}\n{self.log}"
        assert ran.exit_code == exit_code, told
        assert not [secret for secret in self.site.cloud.secrets if secret in told], told
        return ran

    @contextmanager
    def running(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """Run it and do something else meanwhile. At the end it is killed without a warning."""
        with subprocess.Popen(
            ["bash", str(self.path), *arguments],
            cwd=self.path.parent,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def beside(self, suffix: str) -> Path:
        """One of the files that it keeps."""
        return self.path.with_name(self.path.name + suffix)

    @property
    def log(self) -> str:
        log = self.beside(".log")
        return log.read_text(errors="replace") if log.exists() else ""

    @property
    def results(self) -> list[str]:
        """The keys that it says have arrived."""
        results = self.beside(".results")
        lines = results.read_text().splitlines()[1:] if results.exists() else []
        return [line.partition(" ")[2] for line in lines]


def site_with(root: Path, tree: Mapping[str, Content], cloud: Container) -> Site:
    """A site with one version in its journal, of which nothing was sent."""
    site = settle(root / "home", build(root / "source", tree), cloud)
    site.run("journal", "update", "--version", "spring")
    return site


def write(site: Site, tool: str, *options: str, name: str = "upload.sh") -> Script:
    """Have a script written, and find it ready to be run."""
    path = site.home / name
    site.run("file", "list", "--output-type", tool, "--output-file", str(path), *options)
    return script_at(site, path)


def script_at(site: Site, path: Path) -> Script:
    """A script, in the environment of somebody who has the tools and the token."""
    assert isinstance(site.cloud, Container)
    directories = [str(real(name).parent) for name in TOOLS.values()]
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("AZURE_", "AZCOPY_", "CHORUS_"))
    }
    environment |= {
        "PATH": os.pathsep.join([*directories, environment["PATH"]]),
        "HOME": str(site.home),
        "AZURE_STORAGE_SAS_TOKEN": site.cloud.token,
        "CHORUS_UPLOAD": quick_program().command,
    }
    return Script(site, path, environment)
