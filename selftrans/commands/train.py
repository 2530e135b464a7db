"""To go on after any interruption, give the same command again: the weights come out the same, bit for bit."""

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selftrans.commands.common import add_milestone, cpus, images_of, milestone_of, need, plan_of
from selftrans.errors import UserError
from selftrans.plan.paths import STATE, Pattern
from selftrans.plan.plan import Plan
from selftrans.plan.runs import Run

if TYPE_CHECKING:
    import torch

    from selftrans.training.nodes import Meeting


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own options."""
    add_milestone(parser)
    parser.add_argument(
        "--save-every", type=float, default=300.0, metavar="S", help="seconds between states (default: 300)"
    )
    parser.add_argument("--ranks", type=_count, default=1, metavar="N", help="processes, one for each GPU (default: 1)")
    parser.add_argument(
        "--nodes",
        type=_count,
        default=1,
        metavar="N",
        help="machines that they are on, equally many on each: one task of srun each (default: 1)",
    )
    parser.add_argument(
        "--micro-batch", type=_count, metavar="N", help="examples that a GPU takes at once (default: the family's)"
    )
    parser.add_argument(
        "--rank-timeout",
        type=float,
        default=600.0,
        metavar="S",
        help="seconds that a process waits for the others before it ends (default: 600)",
    )


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"found {text!r}; allowed: 1 or more")
    return int(text)


def _here(ranks: int, nodes: int) -> "tuple[int, Meeting]":
    """(how many of ``ranks`` processes are this machine's, where it meets the others). Raises UserError if unequal."""
    from selftrans.training.nodes import Meeting

    if ranks % nodes:
        raise UserError(f"--nodes: found {nodes}; allowed: divisors of the number of ranks ({ranks})")
    return ranks // nodes, Meeting.of_slurm(nodes) if nodes > 1 else Meeting.on_one_machine()


def run(arguments: argparse.Namespace) -> None:
    """Train a run to a milestone, from where it is."""
    from selftrans.data.latent_stats import LatentStats
    from selftrans.data.latents import LatentDataset
    from selftrans.data.packed import Packed
    from selftrans.models.checkpoint import step_to_go_on_from
    from selftrans.training.distributed import join, launch
    from selftrans.training.trainer import Trainer, train

    plan = plan_of(arguments)
    run, step = milestone_of(arguments, plan)
    if run.row.published is not None:
        raise UserError(f"{run.name}: its weights are published: selftrans import-published {arguments.reference}")
    if max(arguments.ranks, arguments.nodes) > 1 and "RANK" not in os.environ:
        ranks, meeting = _here(arguments.ranks, arguments.nodes)
        launch(ranks, meeting, arguments.rank_timeout, arguments.given)
    if arguments.micro_batch:
        run = replace(run, family=run.family.model_copy(update={"micro_batch": arguments.micro_batch}))
    about = {"key": run.keys.latents}
    stats = LatentStats.load(need(plan.path(Pattern.latent_stats, latents=run.keys.latents)), about)
    threads = cpus(arguments)
    moments = Packed(need(plan.path(Pattern.latents, latents=run.keys.latents)), "moments", about, threads)
    images = images_of(plan, run.keys, "train", threads) if run.needs_images else None
    dataset = LatentDataset(moments, images, stats)
    work = plan.path(Pattern.work, run=run.id)

    def weights_path(at: int, kind: str) -> Path:
        return plan.weights(run, at, kind)

    with join(arguments.rank_timeout) as ranks:
        begin = step_to_go_on_from(work / STATE, run, until=step)
        trainer = Trainer(run, dataset, surroundings(plan, run, begin, ranks.device), ranks)
        train(trainer, step, work, weights_path, arguments.save_every)


def surroundings(plan: Plan, run: Run, begin: int, where: "torch.device") -> dict[str, Any]:
    """The teacher or the encoder that the run's method learns from, if it still does after step ``begin``."""
    from selftrans.models.checkpoint import weights_of
    from selftrans.models.encoders import Encoder
    from selftrans.models.teacher import FrozenTeacher

    if run.needs_images:
        path = plan.path(Pattern.encoder, encoder=run.keys.encoder)
        return {"encoder": Encoder.load(need(path), {"key": run.keys.encoder}).to(where)}
    if run.teacher is None or not run.has_method_after(begin):
        return {}
    teacher = run.teacher
    expected = weights_of(teacher.run, teacher.step, teacher.weights)
    expected |= {"layer": teacher.layer, "backbone": run.backbone}
    return {"teacher": FrozenTeacher.load(need(plan.teacher_file(teacher)), expected, where)}
