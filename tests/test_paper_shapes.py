"""The paper's way from JPEGs to Table 5, for real, on files of the formats that people publish, with random weights.

A VAE of Stable Diffusion's size and one of VA-VAE's, latents in shards of float16 that two jobs make, two ranks that
train, a frozen teacher, samples in two shards, Inception against statistics in ADM's layout. Once straight, and once
killed on the way three times: the same weights, samples and table come out.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from external import write_external

from selftrans.artifacts import load_tensors
from selftrans.config.reading.project import load_project
from selftrans.plan.paths import Pattern
from selftrans.plan.plan import Plan
from workflow import REPOSITORY, environment, snakemake

pytestmark = [pytest.mark.workflow, pytest.mark.long, pytest.mark.xdist_group("paper shapes")]

CONFIG = REPOSITORY / "tests" / "paper_shapes"


@pytest.fixture(scope="module")
def external(tmp_path_factory, sd_vae_folder):
    folder = tmp_path_factory.mktemp("external")
    write_external(folder, sd_vae_folder)
    return folder


@pytest.fixture
def workplace(external, tmp_path) -> Callable[[str], Path]:
    """Make a folder with what comes from outside."""

    def make(name: str) -> Path:
        (tmp_path / name).mkdir()
        (tmp_path / name / "external").symlink_to(external)
        return tmp_path / name

    return make


def make(folder: Path, *targets: str) -> None:
    done = snakemake("--config", f"folder={CONFIG}", "ranks=2", "--", *targets, folder=folder, config=CONFIG)
    assert done.returncode == 0, done.stderr + "".join(
        path.read_text() for path in folder.glob("results/shapes/logs/**/*.log") if "error" in path.read_text()
    )


def kill_when_there(folder: Path, pattern: str, *arguments: str) -> None:
    """Start a verb, with the threads that its rule has, and kill all of it once a file of the pattern is there."""
    threads = "1" if arguments[0] == "train" else "2"
    command = [sys.executable, "-m", "selftrans", *arguments, "--config", str(CONFIG), "--threads", threads]
    own = environment() | {"PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(command, cwd=folder, env=own, start_new_session=True)
    while not any(folder.glob(pattern)):
        assert process.poll() is None, f"{arguments} ended with {process.returncode} before there was a {pattern}"
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was done before it was killed"


def made(folder: Path, plan: Plan) -> dict[str, object]:
    """What came out: weights, samples, the table."""
    found: dict[str, object] = {"table": (folder / "results" / "table5.csv").read_text()}
    run, step = plan.milestone("sit-b2-st@8", 0)
    found["weights"] = load_tensors(folder / plan.weights(run, step), "weights")[1]["sha256"]
    with np.load(folder / plan.samples_file(run, step, "headline")) as samples:
        found["samples"] = samples["arr_0"].tobytes()
    return found


def test_from_jpegs_to_table_5_killed_three_times(workplace, monkeypatch):
    straight, killed = workplace("straight"), workplace("killed")
    monkeypatch.chdir(straight)  # where the configuration's paths begin
    plan = Plan(load_project(CONFIG))
    make(straight, "results/table5.csv", "results/index.html")
    expected = made(straight, plan)
    assert "Ablation, on files of the published formats" in (straight / "results" / "index.html").read_text()

    # The guided run and the latents that it learns from are made again; the rest is there.
    shutil.copytree(straight / "results", killed / "results")
    keys, (guided, step) = plan.keys["sit256"], plan.milestone("sit-b2-st@8", 0)
    latents, stats = (plan.path(of, latents=keys.latents) for of in (Pattern.latents, Pattern.latent_stats))
    for again in (latents, *(f"{plan.root}/{kind}/{guided.id}*" for kind in ("runs", "work", "samples", "metrics"))):
        for path in killed.glob(str(again)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    (killed / "results" / "table5.json").unlink()
    kill_when_there(killed, f"{latents}/shard-*.npz", "extract-latents", "--family", "sit256", "--part", "1/2")
    make(killed, str(stats))
    kill_when_there(killed, str(plan.weights(guided, 4)), "train", "sit-b2-st@8", "--ranks", "2")
    make(killed, str(plan.weights(guided, step)))
    kill_when_there(killed, f"{plan.root}/work/samples/{guided.id}*/batch-*.npz", "sample", "sit-b2-st@8")
    make(killed, "results/table5.csv")
    assert made(killed, plan) == expected
