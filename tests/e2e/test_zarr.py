"""Directory stores: a zarr array is a directory of very many small files, some of whose names begin with a dot."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import zarr

from tests.e2e.clouds import CENTRAL, Container, Disk, files_of
from tests.e2e.conftest import new_disk
from tests.e2e.site import Site
from tests.emulators import Azurite
from tests.trees import contents


def written(path: Path, *, zarr_format: Literal[2, 3], seed: int) -> np.ndarray:
    """A simulation's output: a group with an array in 400 chunks, and what describes it."""
    values = np.random.default_rng(seed).normal(size=(100, 100)).astype("float32")
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    group.attrs["experiment"] = "ocean 7"
    array = group.create_array("fields/temperature", shape=values.shape, chunks=(5, 5), dtype=values.dtype)
    array[:] = values
    return values


def read(path: Path) -> np.ndarray:
    found = zarr.open_group(path, mode="r")["fields/temperature"]
    assert isinstance(found, zarr.Array)
    return np.asarray(found[:])


def configure(site: Site, source: str) -> Site:
    site.configure(
        f"""
[configuration]
supported_modalities = "Simulations"

[journal]
journaling_mode = "full"

[journal.local]
path = "{site.journal}"
{site.cloud.config}
[site_path.Simulations]
path = "{source}"
pattern = "{{filepath}}"
"""
    )
    return site


@pytest.mark.parametrize(
    ("zarr_format", "dotted"),
    [(2, "run-1.zarr/fields/temperature/.zarray"), pytest.param(3, None, marks=pytest.mark.thorough)],
)
def test_a_store_goes_and_comes_back(
    tmp_path: Path, container: Container, zarr_format: Literal[2, 3], dotted: str | None
) -> None:
    source = tmp_path / "source"
    values = written(source / "run-1.zarr", zarr_format=zarr_format, seed=1)
    site = configure(Site(tmp_path / "home", source, container), str(source))
    update = site.run("--json", "journal", "update", "--version", "v1").event("update-finished")
    assert update["modalities"]["Simulations"]["added"]["files"] > 400
    site.run("file", "upload")
    objects = files_of(container.objects())
    assert objects == {f"v1/Simulations/{path}": body for path, body in contents(source).items()}
    assert dotted is None or f"v1/Simulations/{dotted}" in objects

    # One chunk is computed again: one file is sent.
    opened = zarr.open_group(source / "run-1.zarr", mode="a")["fields/temperature"]
    assert isinstance(opened, zarr.Array)
    opened[10:15, 20:25] = values[10:15, 20:25] = 0.5
    site.run("journal", "update", "--version", "v2")
    assert len(site.pending()) == 1
    site.run("file", "upload")

    site.run("file", "download", "--to", str(tmp_path / "back"))
    assert contents(tmp_path / "back") == contents(source)
    np.testing.assert_array_equal(read(tmp_path / "back/run-1.zarr"), values)


@pytest.mark.thorough
def test_a_store_that_lies_in_a_cloud(tmp_path: Path, azurite: Azurite, azure_container: str) -> None:
    """The chunks of an array whose name is that of a directory, and objects whose names begin with a dot."""
    values = written(tmp_path / "made/run.zarr", zarr_format=2, seed=2)
    with azurite.service() as service, service.get_container_client(azure_container) as origin:
        for path, body in contents(tmp_path / "made").items():
            origin.upload_blob(f"lab/{path}", body)
    disk: Disk = new_disk(tmp_path / "cloud")
    url = f"{azurite.account_url}/{azure_container}/lab?{azurite.sas(azure_container, permissions='rl')}"
    site = configure(Site(tmp_path / "home", tmp_path / "nothing", disk), url)
    site.run("journal", "update", "--version", "v1")
    site.run("file", "upload")
    np.testing.assert_array_equal(read(disk.root / CENTRAL / "v1/Simulations/run.zarr"), values)
