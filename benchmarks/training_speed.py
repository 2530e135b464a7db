"""Training steps per second of every method, as a ratio to vanilla, with memory and parameters; prints JSON.

    python benchmarks/training_speed.py                                        # the demo's size
    python benchmarks/training_speed.py --width 384 --tokens 256 --batch-size 8 --steps 1     # half as wide as SiT-B/2
    python benchmarks/training_speed.py --device cuda --scale imagenet --model sit-xl2
    python benchmarks/training_speed.py --against field --width 384 --tokens 256 --batch-size 8 --steps 1 --compile

Rows take turns, so that whatever else the machine does meets all of them, and figures are medians over turns. On
one CPU thread the clock is that thread's own time, which other processes do not spend. Peak memory is that of a
process for each row: on a CPU what it grows by after its imports, on a GPU what its tensors take.

Latents, images, teacher and encoder are random: what they hold costs nothing. With --width, rows are as
config/runs.yaml has them, and the encoder has the backbone's width and depth, as DINOv2-B has those of SiT-B/2.

With --against field, vanilla and guided training take turns with a baseline in the style of the field
(benchmarks/field_style.py), which reads a file per image; memory is not measured then.
"""

import argparse
import functools
import math
import re
import resource
import statistics
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import yaml
from field_style import FieldTrainer, write_random_moments
from report import add_options, prepare, rounded, show
from torch import nn

from selftrans.config.reading.project import load_project
from selftrans.config.records import read_yaml
from selftrans.models.backbones import build_backbone
from selftrans.models.encoders import Encoder
from selftrans.plan.plan import Plan
from selftrans.plan.runs import Run
from selftrans.training.speed import RandomTraining, Step, clock_of, random_encoder, ratio, take_turns

CONFIG = Path(__file__).parent.parent / "config"
FAMILY_OPTIONS = ("compile", "precision", "draws", "micro_batch")  # keys of a family
AFTER_STOP = "self_transcendence after its stop"
SUFFIXES = {  # of a model's rows, by method
    "vanilla": "",
    "self_transcendence": "-st",
    AFTER_STOP: "-st",
    "vae_align": "-vae",
    "vae_repa": "-vae-repa",
    "repa": "-repa",
    "irepa": "-irepa",
    "haste": "-haste",
    "sra": "-sra",
    "layersync": "-layersync",
    "dispersive": "-disperse",
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", default="demo")
    parser.add_argument("--model", default="sit-b2", help="whose rows, such as sit-xl2 or ldit-xl1 (default: sit-b2)")
    parser.add_argument("--methods", help=f"of {', '.join(SUFFIXES)}, with commas between; vanilla is always measured")
    parser.add_argument("--against", choices=["field"], help="vanilla and guided training beside a baseline")
    parser.add_argument("--width", type=int, help="of a wider backbone than the scale's, with 64 channels a head")
    parser.add_argument("--tokens", type=int, help="tokens of an image (default: the scale's)")
    parser.add_argument("--batch-size", type=int, help="(default: the scale's)")
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, help="blocks run compiled code (default: the scale's)"
    )
    parser.add_argument("--precision", choices=["float32", "tf32", "bfloat16"], help="(default: the scale's)")
    parser.add_argument("--draws", choices=["cpu", "cuda"], help="whose random numbers (default: the scale's)")
    parser.add_argument("--micro-batch", type=int, help="examples at once (default: the scale's, or all)")
    parser.add_argument("--steps", type=int, default=10, help="measured steps of a turn, after one to warm up")
    add_options(parser, rounds=30)
    options = parser.parse_args()
    if options.against:
        against_field(options)
    else:
        by_method(options)


def by_method(options: argparse.Namespace) -> None:
    """All methods of a model beside its vanilla row."""
    runs = runs_of(options)
    rows = {method: {"row": run.name, **in_own_process(method, options)} for method, run in runs.items()}
    device = prepare(options)
    contenders = {method: training(method, run, options, device) for method, run in runs.items()}
    seconds = turns(contenders, options, device)
    show(
        "training speed by method",
        "steps/s",
        options,
        rounded({method: 1 / statistics.median(own) for method, own in seconds.items()}),
        rounded({method: ratio(own, seconds["vanilla"]) for method, own in seconds.items()}),
        rows=rows,
        **size_of(runs["vanilla"]),
    )


def against_field(options: argparse.Namespace) -> None:
    """Vanilla and guided training, ours and the field's."""
    device, runs = prepare(options), runs_of(options)
    runs = {"vanilla": runs["vanilla"], "guided": runs["self_transcendence"]}
    with tempfile.TemporaryDirectory() as folder:
        write_random_moments(Path(folder), runs["vanilla"], 4 * runs["vanilla"].family.batch_size)
        contenders: dict[str, Callable[[], Step]] = {}
        for name, run in runs.items():
            contenders[f"ours, {name}"] = RandomTraining(run, device)
            contenders[f"field's, {name}"] = functools.partial(field_step, run, Path(folder), device)
        seconds = turns(contenders, options, device)
    ratios = {f"ours to field's, {name}": ratio(seconds[f"ours, {name}"], seconds[f"field's, {name}"]) for name in runs}
    for side in ("ours", "field's"):
        ratios[f"guided to vanilla, {side}"] = ratio(seconds[f"{side}, guided"], seconds[f"{side}, vanilla"])
    medians = {name: 1 / statistics.median(own) for name, own in seconds.items()}
    what = "training speed beside a baseline in the field's style"
    show(what, "steps/s", options, rounded(medians), rounded(ratios), **size_of(runs["vanilla"]))


# ------------------------------------------------------------------------------------------- measuring


def turns(
    contenders: dict[str, Callable[[], Step]], options: argparse.Namespace, device: torch.device
) -> dict[str, list[float]]:
    """Seconds per step of each contender in each turn."""

    def tell(turn: int) -> None:
        print(f"turn {turn} of {options.rounds}", file=sys.stderr)

    return take_turns(contenders, options.rounds, options.steps, clock_of(device), tell)


def in_own_process(method: str, options: argparse.Namespace) -> dict[str, Any]:
    """`memory_and_parameters` in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(memory_and_parameters, method, options).result()


def memory_and_parameters(method: str, options: argparse.Namespace) -> dict[str, Any]:
    """The peak of memory over three steps, and how many parameters are trained."""
    device = prepare(options)
    run, memory = runs_of(options)[method], peak_memory(device)
    trainer = training(method, run, options, device).trainer()
    parts = [trainer.backbone, trainer.method or nn.Identity()]
    of_backbone, of_method = (sum(parameter.numel() for parameter in part.parameters()) for part in parts)
    for _ in range(3):
        trainer.train_step()
    used = round((peak_memory(device) - memory) / 2**20)
    return {"peak_memory_mib": used, "backbone_parameters": of_backbone, "method_parameters": of_method}


def peak_memory(device: torch.device) -> int:
    """Bytes at the peak so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    if sys.platform == "linux":  # where getrusage counts the peak of the process that started this one too
        (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        return int(kilobytes) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


# ------------------------------------------------------------------------------------- what is measured


def runs_of(options: argparse.Namespace) -> dict[str, Run]:
    """{method: its row's run}, of those methods that are asked for and that the model has a row of."""
    with tempfile.TemporaryDirectory() as folder:
        plan = Plan(load_project(CONFIG, scale=str(sized(options, Path(folder) / "scale.yaml"))))
    asked = ["vanilla", *(options.methods.split(",") if options.methods else SUFFIXES)]
    rows = {method: f"{options.model}{SUFFIXES[method]}" for method in dict.fromkeys(asked)}
    return {method: plan.run(row, 0) for method, row in rows.items() if row in plan.project.rows}


def sized(options: argparse.Namespace, copy: Path) -> Path:
    """A copy of the scale's file with the sizes and the keys of a family that are asked for."""
    project = load_project(CONFIG, scale=options.scale)
    scale, row = read_yaml(project.scale_file), project.rows[options.model]
    family = scale["families"][row.family]
    model = family["models"][row.model]
    if options.width:
        model |= {"width": options.width, "heads": options.width // 64, "projector_width": 8 * options.width // 3}
        family["overrides"] = []
    if options.tokens:
        pixels = model.get("patch_size", 2) * 2 ** (len(family["tokenizer"]["block_channels"]) - 1)
        family["data"] = family["data"] | {"size": math.isqrt(options.tokens) * pixels}
    if options.batch_size:
        group = {"method": {"group": min(32, options.batch_size)}}
        override = {"rows": "*-disperse", "set": group, "reason": "a group is no larger than the batch"}
        family |= {"batch_size": options.batch_size, "overrides": [*family.get("overrides", []), override]}
    family |= {key: value for key in FAMILY_OPTIONS if (value := getattr(options, key)) is not None}
    copy.write_text(yaml.safe_dump(scale), encoding="utf-8")
    return copy


def training(method: str, run: Run, options: argparse.Namespace, device: torch.device) -> RandomTraining:
    """A method's run, at its first step or at its stop."""
    return RandomTraining(run, device, method == AFTER_STOP, functools.partial(encoder_of, wide=bool(options.width)))


def encoder_of(run: Run, wide: bool) -> Encoder:
    """The family's, or with --width one as wide and as deep as the backbone."""
    model = run.model
    return random_encoder(run, **({"width": model.width, "depth": model.depth, "heads": model.heads} if wide else {}))


def field_step(run: Run, folder: Path, device: torch.device) -> Step:
    """The baseline's, with the weights that ours begins with."""
    backbone = build_backbone(**run.backbone)
    backbone.initialise(torch.Generator().manual_seed(0))
    return FieldTrainer(run, folder, device, backbone.state_dict()).train_step


def size_of(run: Run) -> dict[str, Any]:
    """What a vanilla step has to do: a forward pass and two passes' worth backward, of the blocks."""
    flop = 3 * 2 * run.model.depth * run.multiplications
    return {"batch": run.family.batch_size, "tokens": run.tokens, "gflop_of_an_image": round(flop / 1e9, 3)}


if __name__ == "__main__":
    main()
