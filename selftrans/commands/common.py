"""What several verbs need: the plan, a family, a run at a milestone, a file that must be there."""

import argparse
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selftrans.config.families import Extractor, Family
from selftrans.config.project import Project
from selftrans.config.reading.project import load_project
from selftrans.errors import UserError
from selftrans.files import require_regular
from selftrans.gpus import visible
from selftrans.plan.paths import Pattern
from selftrans.plan.plan import Plan
from selftrans.plan.runs import Keys, Run

if TYPE_CHECKING:
    import torch

    from selftrans.data.packed import Packed


def project_of(arguments: argparse.Namespace, **more: Any) -> Project:
    """What --config and --scale name, the extent and --budget where a verb has them, and ``more``."""
    asked = {key: getattr(arguments, key, None) for key in ("scale", "seeds", "claim_seeds", "only", "budget")}
    return load_project(Path(arguments.config), **asked, **more)


def plan_of(arguments: argparse.Namespace, **more: Any) -> Plan:
    """The plan of `project_of`."""
    return Plan(project_of(arguments, **more))


def add_extent(parser: argparse.ArgumentParser) -> None:
    """How many seeds, and which rows."""
    parser.add_argument("--seeds", type=int, help="seeds 0 .. SEEDS-1 (default: config.yaml's, or the scale's)")
    parser.add_argument("--claim-seeds", type=int, help="seeds that claims are judged by (default: as --seeds)")
    parser.add_argument("--only", help="models or patterns of runs' names, such as sit-b2,ldit-*: rows to keep")


def add_target(parser: argparse.ArgumentParser, default: str = "all") -> None:
    """The target, ``default`` if none is named, and the seeds and rows of it."""
    parser.add_argument(
        "target",
        nargs="?",
        help="a table of tables.yaml, claims, compute, speed, figures, or figures/fig4 for one of them "
        f"(default: {default})",
    )
    add_extent(parser)


def files_of(arguments: argparse.Namespace, plan: Plan) -> dict[str, list[Path]]:
    """{target: the files that it is made of}, for the one that is asked for, or all.

    Raises UserError if there is no such target.
    """
    from selftrans.reporting.targets import inputs_of_result, results_of

    targets = results_of(plan, arguments.target)
    return {
        name: [path for found in results for path in inputs_of_result(plan, found)] for name, results in targets.items()
    }


def add_devices(parser: argparse.ArgumentParser) -> None:
    """The options --cores and --gpus."""
    parser.add_argument("--cores", type=int, default=os.cpu_count(), help="to do it on (default: all)")
    parser.add_argument(
        "--gpus", type=int, help="to do it on, at scales that need them (default: all, or one if there is none)"
    )


def add_budget(parser: argparse.ArgumentParser) -> None:
    """The option --budget."""
    parser.add_argument(
        "--budget", help="hours of GPUs or cores that it may cost, such as 24h (default: config.yaml's)"
    )


def devices_of(arguments: argparse.Namespace, device: str) -> int:
    """How many there are to work on of "core" or "GPU". Raises UserError if an option says fewer than one."""
    for option, count in {"cores": arguments.cores, "gpus": arguments.gpus}.items():
        if count is not None and count < 1:
            raise UserError(f"--{option}: found {count}; allowed: 1 or more")
    return arguments.cores if device == "core" else arguments.gpus or len(visible()) or 1


def add_family(parser: argparse.ArgumentParser) -> None:
    """The option --family."""
    parser.add_argument("--family", required=True, help="family of rows whose recipe is used, such as sit256")


def family_of(arguments: argparse.Namespace, plan: Plan) -> tuple[Family, Keys]:
    """The family that --family names. Raises UserError if the scale has no such family."""
    families = plan.scale.families
    if arguments.family not in families:
        raise UserError(f"--family: found {arguments.family!r}; allowed: {', '.join(families)}")
    return families[arguments.family], plan.keys[arguments.family]


def add_extractor(parser: argparse.ArgumentParser) -> None:
    """The options --family and --second."""
    add_family(parser)
    parser.add_argument("--second", action="store_true", help="the family's second extractor (default: its first)")


def extractor_of(arguments: argparse.Namespace, plan: Plan) -> tuple[Extractor, str]:
    """(recipe, key) of the extractor that --family and --second name. Raises UserError if there is none."""
    family, keys = family_of(arguments, plan)
    if not arguments.second:
        return family.extractor, keys.extractor
    if keys.second_extractor is None:
        raise UserError(f"--second: {plan.project.scale_file}: families.{arguments.family} has no second_extractor")
    return family.second_extractor, keys.second_extractor


def extractor_key(arguments: argparse.Namespace) -> str:
    """What a family calls the extractor."""
    return f"families.{arguments.family}.{'second_extractor' if arguments.second else 'extractor'}"


def add_part(parser: argparse.ArgumentParser) -> None:
    """The option --part."""
    parser.add_argument("--part", metavar="K/N", default="1/1", help="make part K of N only (default: all)")


def part_of(option: str, text: str) -> tuple[int, int]:
    """(K, N) of K/N, counted from 1. Raises UserError that names the ``option`` if it is nothing of the kind."""
    match = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", text)
    if not match or int(match[1]) > int(match[2]):
        raise UserError(f"{option}: found {text!r}; allowed: part K of N, counted from 1, such as 3/8")
    return int(match[1]), int(match[2])


def cpus(arguments: argparse.Namespace) -> int:
    """The threads that a verb may have: --threads, or as many as this process may use."""
    return arguments.threads or len(os.sched_getaffinity(0))


def add_milestone(parser: argparse.ArgumentParser) -> None:
    """The reference RUN@EPOCH, the seed, and the check that the workflow asks for."""
    parser.add_argument("reference", metavar="RUN@EPOCH", help="a row of runs.yaml at a milestone: sit-b2@80")
    parser.add_argument("--seed", type=int, default=0, help="training seed (default: 0)")
    parser.add_argument("--expect", metavar="ID", help="stop unless the row still resolves to this run")


def milestone_of(arguments: argparse.Namespace, plan: Plan) -> tuple[Run, int]:
    """(run, step) that the reference names.

    Raises UserError if there is none, or if the configuration changed since the workflow was planned.
    """
    run, step = plan.milestone(arguments.reference, arguments.seed)
    if arguments.expect not in (None, run.id):
        raise UserError(
            f"{arguments.reference} is now {run.id}, but the workflow was planned with {arguments.expect}: the "
            "configuration was edited while it ran; run the same snakemake command again"
        )
    return run, step


def need(path: Path) -> Path:
    """``path``, a file or folder that an earlier step makes. Raises UserError that says how, if it is not there."""
    if not path.exists():
        raise UserError(f"{path}: not made yet; make it with: snakemake --cores all {path}")
    if not path.is_dir():
        require_regular(path)
    return path


def images_of(plan: Plan, keys: Keys, split: str, threads: int = 1) -> "Packed":
    """The packed images of a split."""
    from selftrans.data.packed import Packed

    folder = need(plan.path(Pattern.images, data=keys.data, split=split))
    return Packed(folder, "images", {"key": keys.data, "split": split}, threads)


def read_split(plan: Plan, keys: Keys, split: str) -> "tuple[torch.Tensor, torch.Tensor]":
    """(images (N, 3, H, W) uint8, labels (N,)) of a packed split, in memory."""
    return images_of(plan, keys, split).all()


def check_accuracy(plan: Plan, key: str, accuracy: float, allowed: float) -> None:
    """Raise UserError if an extractor or encoder, ``key`` of the scale, is below the scale's bar."""
    if not accuracy >= allowed:  # NaN is too bad as well
        kind = key.rpartition(".")[2].replace("_", " ")
        raise UserError(
            f"the {kind} is too bad to build on: test accuracy {accuracy:.3f}, at least {allowed} is asked for "
            f"({plan.project.scale_file}: {key}.min_test_accuracy); train it longer ({key}.steps)"
        )


def device() -> "torch.device":
    """The GPU if there is one, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def devices() -> "list[torch.device]":
    """All GPUs that there are, else the CPU."""
    import torch

    return [torch.device("cuda", number) for number in range(torch.cuda.device_count())] or [torch.device("cpu")]
