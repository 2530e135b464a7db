"""Trainings that several processes share, and the script that each of them runs: python tests/ranks.py FOLDER."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from toy import SMOKE, random_backbone, smoke_plan, smoke_run, toy_dataset

from selftrans.data.latent_stats import LatentStats
from selftrans.data.packed import Packed, write_packed
from selftrans.models.teacher import FrozenTeacher
from selftrans.plan.paths import Pattern
from selftrans.training.distributed import Ranks, join
from selftrans.training.input import Examples
from selftrans.training.trainer import Trainer, train

TESTS = Path(__file__).parent
ALONE = Ranks(torch.device("cpu"))
SRA = {"name": "sra", "layer": 2, "teacher_layer": 4, "time_gap": 0.5, "fade_after": 5, "fade_tenfold": 50}
SCALED = {"name": "vae_align", "layer": 2, "t_window": (0.3, 0.7), "window": "scale"}

# {name: (row, method instead of the row's, fields of the family)}; a batch has eight examples.
CASES: dict[str, tuple[str, dict[str, Any] | None, dict[str, Any]]] = {
    "guided": ("guided", None, {}),  # its method leaves after ten steps
    "averaged": ("aligned", SRA, {"micro_batch": 2}),
    "scaled": ("aligned", SCALED, {}),
    "rounded": ("vanilla", None, {"precision": "bfloat16", "micro_batch": 2}),
    "grouped": ("disperse", {"name": "dispersive", "layer": 12, "group": 2}, {"micro_batch": 3}),
}


def trainer_of(name: str, folder: Path, ranks: Ranks = ALONE, **more: Any) -> Trainer:
    """A case at its first step, with ``more`` fields of its family."""
    row, method, fields = CASES[name]
    run = smoke_run(row)
    run = replace(run, family=run.family.model_copy(update={"milestones": (7, 12), **fields, **more}))
    if name == "rounded":
        run = replace(run, model=run.model.model_copy(update={"checkpoint_activations": True}))
    if method is not None:
        run = replace(run, row=run.row.model_copy(update={"method": method}))
    context = {}
    if run.teacher is not None:
        sizes = {key: value for key, value in run.backbone.items() if key != "backbone"}
        context["teacher"] = FrozenTeacher(random_backbone(**(sizes | {"blocks": 8})), 8, {"sha256": "0"})
    return Trainer(run, toy_dataset(folder / f"latents-{ranks.rank}"), context, ranks)


def train_cases(folder: Path, ranks: Ranks = ALONE) -> None:
    """Each case in one go, then one of them in two."""
    for name in CASES:
        train(trainer_of(name, folder, ranks), 12, folder / name, weights_in(folder / name))
    for until in (7, 12):
        train(trainer_of("guided", folder, ranks), until, folder / "parts", weights_in(folder / "parts"))


def weights_in(folder: Path):
    """Where weights go."""
    return lambda step, kind: folder / f"{step}.{kind}.safetensors"


def settled(trainer: Trainer) -> list[bool]:
    """Whether ranks know the order of their sums before the first step of the objective with a method, and without."""
    found = []
    original = trainer._copied_objective

    def copied(part: Examples) -> nn.Module:
        objective = original(part)
        found.append(objective.reducer._rebuild_buckets())  # what a forward pass does once the order is known
        return objective

    trainer._copied_objective = copied
    while trainer.step < 11:
        trainer.train_step()
    return found


# ------------------------------------------------------------------------------------------- processes


def start(rank: int, count: int, port: int, *command: str, folder: Path) -> subprocess.Popen:
    """A process that is told its rank as torchrun does."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    return _started(place, *command, folder=folder)


def start_task(task: int, nodes: int, step: str, *command: str, folder: Path) -> subprocess.Popen:
    """A process that is told by SLURM that it is the task of one of several machines, which are all this one."""
    job, number = step.split(".")
    place = {"SLURM_JOB_ID": job, "SLURM_STEP_ID": number, "SLURM_PROCID": task, "SLURM_STEP_NODELIST": "localhost"}
    place |= dict.fromkeys(("SLURM_STEP_NUM_NODES", "SLURM_STEP_NUM_TASKS"), nodes)
    return _started(place, *command, folder=folder)


def _started(place: dict[str, Any], *command: str, folder: Path) -> subprocess.Popen:
    environment = os.environ | {key: str(value) for key, value in place.items()}
    environment["PYTHONPATH"] = f"{TESTS.parent}:{TESTS}"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, *command], cwd=folder, env=environment, **pipes)


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def make_latents(folder: Path) -> None:
    """Random latents where `selftrans train` looks for those of the smoke configuration."""
    plan = smoke_plan()
    key = plan.run("vanilla", 0).keys.latents
    latents = folder / plan.path(Pattern.latents, latents=key)
    draws = torch.Generator().manual_seed(2)
    rows = (torch.rand(20, 8, 8, 8, generator=draws), torch.arange(20) % 10)
    write_packed(latents, "moments", [rows], count=20, source={"images": "none"}, about={"key": key})
    sha256 = Packed(latents, "moments").sha256
    stats = LatentStats((0.0,) * 4, (1.0,) * 4, key=key, latents_sha256=sha256)
    stats.save(folder / plan.path(Pattern.latent_stats, latents=key))


def verb(*arguments: str) -> Sequence[str]:
    """`selftrans train` on the smoke configuration."""
    return ("-m", "selftrans", "train", *arguments, "--config", str(SMOKE), "--threads", "1")


def main(folder: Path) -> None:
    """All cases, as one of several ranks."""
    torch.set_num_threads(1)
    with join(timeout=60) as ranks:
        train_cases(folder, ranks)
        whole = Trainer(smoke_run("vanilla"), toy_dataset(folder / f"latents-{ranks.rank}"), {}, ranks)
        train(whole, 40, folder / "whole", weights_in(folder / "whole"))
        found = settled(trainer_of("guided", folder, ranks))
        (folder / f"rank-{ranks.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
