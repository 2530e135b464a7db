"""A configuration small enough to read at a glance, as dictionaries that a test edits before they are loaded."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: workers side by side are faster than their threads

import pytest
import yaml
from toy import smoke_plan

from selftrans.config.project import Project
from selftrans.config.reading.project import load_project
from selftrans.leases import held
from selftrans.plan.plan import Plan
from workflow import OTHER_METHODS, TARGETS, snakemake


class Configuration:
    """Three rows (vanilla, stage 1, stage 2) of a model of depth 6, and a table of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings: dict[str, Any] = {"scale": "tiny", "seeds": 1, "claim_seeds": 1}
        self.family: dict[str, Any] = {
            "data": {"source": "digits", "size": 16},
            "tokenizer": {
                "block_channels": [8, 8],
                "steps": 5,
                "learning_rate": 0.001,
                "kl_weight": 0.0,
                "l1_weight": 0.0,
                "max_test_mse": 1.0,
            },
            "extractor": {"name": "judge", "steps": 5, "learning_rate": 0.001, "min_test_accuracy": 0.5},
            "encoder": {"name": "eye", "steps": 5, "learning_rate": 0.001, "min_test_accuracy": 0.5},
            "models": {"mu": {"depth": 6, "width": 16, "heads": 2}, "nu": {"depth": 6, "width": 8, "heads": 2}},
            "steps_per_epoch": 10,
            "milestones": [2, 4, 6, 8],
            "batch_size": 4,
            "optimiser": {"learning_rate": 0.001},
            "presets": {"headline": {"sampler": "euler_ode", "steps": 2, "samples": 8}},
        }
        self.scale: dict[str, Any] = {
            "name": "tiny",
            "description": "a scale for tests",
            "families": {"small": self.family},
        }
        self.rows: dict[str, Any] = {
            "plain": {"family": "small", "model": "mu"},
            "aligned": {"like": "plain", "method": {"name": "vae_align", "layer": "n/6"}, "weight": 0.5},
            "guided": {
                "like": "plain",
                "method": {
                    "name": "self_transcendence",
                    "guided_layer": "n/2",
                    "guiding_layer": "2n/3",
                    "guidance_scale": 30.0,
                },
                "weight": 0.5,
                "stop": 3,
                "teacher": "aligned@4",
            },
        }
        self.tables: dict[str, Any] = {
            "main": {
                "title": "Main results",
                "paper": "main.csv",
                "preset": "headline",
                "compare_with": "guided@8",
                "columns": ["stage1", "guided"],
                "rows": [
                    {"label": "vanilla", "run": "plain@8"},
                    {"label": "stage 1", "run": "aligned@8"},
                    {"label": "stage 2", "run": "guided@8"},
                ],
            }
        }
        self.claims: dict[str, Any] = {}
        self.compute: dict[str, Any] = {}
        self.paper = "fid,is\n38.60,41.95\n32.20,52.38\n22.91,70.37\n"
        self.every_milestone = False  # whether a figure asks for the weights at every milestone of every row

    def write(self) -> Path:
        """Write the folder; returns it."""
        for part in ("scales", "paper"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        texts = {"config": self.settings, "scales/tiny": self.scale, "runs": self.rows, "tables": self.tables}
        texts |= {name: found for name in ("claims", "compute") if (found := getattr(self, name))}
        if self.every_milestone:
            curves = {"kind": "curves", "runs": [*self.rows], "until": 8, "preset": "headline"}
            texts["figures"] = {"curves": {"title": "Curves", "caption": "All rows.", **curves}}
        for name, value in texts.items():
            text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
            (self.folder / f"{name}.yaml").write_text(text, encoding="utf-8")
        (self.folder / "paper" / "main.csv").write_text(self.paper)
        return self.folder

    def project(self, **asked: Any) -> Project:
        """Write and load."""
        return load_project(self.write(), **asked)

    def plan(self, **asked: Any) -> Plan:
        """Write, load and resolve."""
        return Plan(self.project(**asked))


@pytest.fixture
def configuration(tmp_path: Path) -> Configuration:
    return Configuration(tmp_path / "config")


@pytest.fixture
def with_repa(configuration: Configuration) -> Configuration:
    """A fourth row, which learns from an encoder, and a fifth, guided by it with everything else as in the third."""
    configuration.rows["repa"] = {"like": "aligned", "method": {"name": "repa", "layer": 2}}
    configuration.rows["guided-repa"] = {"like": "guided", "teacher": "repa@4"}
    return configuration


def made_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A copy, of this process alone, of a folder that the first of all test processes to ask for it makes."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared" / name
    with held(shared, name):
        if not (shared / "made").exists():
            shutil.rmtree(shared / "part", ignore_errors=True)
            (shared / "part").mkdir()
            make(shared / "part")
            (shared / "part").rename(shared / "made")
    return Path(shutil.copytree(shared / "made", tmp_path_factory.mktemp(name) / "copy"))


@pytest.fixture(scope="session")
def sd_vae_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of diffusers, as Stable Diffusion's VAE is published: of its size, 335 MB, with random weights."""
    import torch
    from diffusers import AutoencoderKL

    folder = tmp_path_factory.mktemp("sd-vae")
    torch.manual_seed(0)
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        sample_size=256,
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the toy tables and claims were made from nothing, and every method was trained."""

    def make(folder: Path) -> None:
        plan = smoke_plan()
        others = [str(plan.weights(plan.run(name, 0), 10)) for name in OTHER_METHODS]
        made = snakemake("--", *(f"results/{target}" for target in TARGETS), *others, folder=folder)
        assert made.returncode == 0, made.stderr

    return made_once(tmp_path_factory, "finished", make)


@pytest.fixture(scope="session")
def everything(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with every figure and the page."""

    def make(folder: Path) -> None:
        shutil.copytree(finished, folder, dirs_exist_ok=True)
        made = snakemake("--", "results/index.html", folder=folder)
        assert made.returncode == 0, made.stderr

    return made_once(tmp_path_factory, "everything", make)
