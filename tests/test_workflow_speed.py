"""results/speed.csv, really made by Snakemake: once, and anew when what it times is edited."""

import shutil

import pytest

from selftrans.reporting.csv import read_csv
from workflow import SMOKE, snakemake

pytestmark = [pytest.mark.long, pytest.mark.workflow, pytest.mark.xdist_group("workflow")]

TARGET = "results/speed.csv"


@pytest.fixture
def config(tmp_path):
    """The smoke configuration, with what the paper says of vanilla training."""
    folder = tmp_path / "config"
    shutil.copytree(SMOKE, folder)
    (folder / "paper" / "speed.csv").write_text("phase,steps,steps_per_second,hours\nvanilla,1000000,9.28,29.93\n")
    return folder


def planned(folder, config):
    done = snakemake("-n", "--", TARGET, folder=folder, config=config)
    assert done.returncode == 0, done.stdout + done.stderr
    return "rule speed:" in done.stdout + done.stderr


def test_it_needs_nothing_and_is_made_once(tmp_path, config):
    done = snakemake("--", TARGET, folder=tmp_path, config=config)
    assert done.returncode == 0, done.stdout + done.stderr
    frame = read_csv(tmp_path / TARGET)
    steps = frame[frame["about"] == "step"]
    assert list(steps["run"]) == ["vanilla", "aligned", "external", "guided", "guided"]
    assert (steps["steps_per_second"] > 0).all()
    assert not (tmp_path / "results" / "smoke" / "latents").exists()
    assert not planned(tmp_path, config)
    rows = config / "runs.yaml"
    text = rows.read_text()
    rows.write_text(text.replace("layer: n/6}, weight: 0.5", "layer: n/6}, weight: 0.4", 1))
    assert planned(tmp_path, config)
    rows.write_text(text)
    assert not planned(tmp_path, config)
