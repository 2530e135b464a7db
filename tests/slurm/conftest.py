"""The cluster that the tests in this folder run against, one for all of them."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import DEBIAN, Cluster, missing


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if programs := missing():
        reason = f"SLURM is not installed ({', '.join(programs)} missing); {DEBIAN}"
        (pytest.fail if os.environ.get("SELFTRANS_REQUIRE_SLURM") == "1" else pytest.skip)(reason)
    with Cluster(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a test's jobs work."""
    (tmp_path / "selftrans").mkdir()
    return tmp_path / "selftrans"
