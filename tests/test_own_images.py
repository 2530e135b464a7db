"""A folder of JPEGs through the scale own_images, for real: trained models, grid, metrics, page, pipeline."""

import subprocess
import sys

import pandas as pd
import pytest
import yaml
from external import write_external
from PIL import Image

from workflow import REPOSITORY, environment, snakemake

pytestmark = [pytest.mark.workflow, pytest.mark.long, pytest.mark.xdist_group("paper shapes")]

CONFIG = REPOSITORY / "config"


def small(scale):
    """own_images with its three lines edited, and of toy size: the way is the same."""
    family = scale["families"]["sit256"]
    family["data"] |= {"path": "external/jpegs", "size": 64, "name": "jpegs"}
    family["extractor"] |= {"name": "random-net", "weights": "external/inception.pth"}
    family["tokenizer"]["weights"] = "external/sd-vae"
    family["models"]["sit-b2"] = {"depth": 12, "width": 32, "heads": 2, "projector_width": 16}
    family |= {"steps_per_epoch": 1, "milestones": [80], "batch_size": 4}
    family["presets"] = {"headline": {"sampler": "euler_ode", "steps": 2, "samples": 8, "batch_size": 8}}
    return scale | {"threads": {"train": 1, "other": 2}}


def test_from_a_folder_of_jpegs_to_a_pipeline(tmp_path, sd_vae_folder):
    write_external(tmp_path / "external", sd_vae_folder)
    scale = small(yaml.safe_load((CONFIG / "scales" / "own_images.yaml").read_text()))
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(scale))
    asked = ("--config", f"folder={CONFIG}", "scale=mine.yaml")
    done = snakemake(*asked, "--", "results/methods.csv", "results/index.html", folder=tmp_path, config=CONFIG)
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "results" / "methods.csv").set_index("row")
    assert list(table.index) == ["SiT-B/2", "VAE alignment", "Self-Transcendence"]
    assert (table.frechet > 0).all()
    assert set(table.extractor) == {"random-net"}
    assert "Self-Transcendence" in (tmp_path / "results" / "index.html").read_text()

    def verb(*arguments):
        command = [sys.executable, "-m", "selftrans", *arguments, "--config", str(CONFIG), "--scale", "mine.yaml"]
        own = environment() | {"PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run(command, cwd=tmp_path, env=own, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    verb("sample", "sit-b2-st@80", "--grid", "grid.png", "--each", "2", "--steps", "2")
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.height >= 3 * 64  # a row of images for each class
    verb("export", "sit-b2-st@80", "--output", "pipeline")
    card = (tmp_path / "pipeline" / "README.md").read_text()
    assert "random-net" in card
    assert (tmp_path / "pipeline" / "model_index.json").exists()
    verb("verify")
