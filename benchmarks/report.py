"""What the benchmarks share: how they are called, what they prepare, and the JSON that they print.

Medians are over turns that all sides take one after the other in one run, so that whatever else the machine does meets
each of them, and ratios are those of a turn. `benchmarks/page.py` makes docs/speed.md of what is saved in
benchmarks/results/.
"""

import argparse
import functools
import json
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from selftrans.malloc import keep_freed_memory
from selftrans.provenance import provenance
from selftrans.training.speed import Step

# What every report has; medians and ratios are {name: value}.
KEYS = ("what", "unit", "command", "device", "settings", "medians", "ratios", "provenance")


def add_options(parser: argparse.ArgumentParser, rounds: int) -> None:
    """The options --device, --threads and --rounds."""
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=rounds, help="turns of each side")


def prepare(options: argparse.Namespace) -> torch.device:
    """What every verb does at its start; returns where to measure."""
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    return torch.device(options.device)


def as_they_are(steps: Mapping[str, Step]) -> dict[str, Callable[[], Step]]:
    """Contenders of `take_turns` that have nothing to make anew."""
    return {name: functools.partial(_same, step) for name, step in steps.items()}


def _same(step: Step) -> Step:
    return step


def show(
    what: str,
    unit: str,
    options: argparse.Namespace,
    medians: Mapping[str, Any],
    ratios: Mapping[str, Any],
    **more: Any,
) -> None:
    """Print what was found of ``medians`` in a ``unit``, with all that it takes to measure it again."""
    settings = {key: value for key, value in vars(options).items() if value is not None and key != "device"}
    report = {
        "what": what,
        "unit": unit,
        "command": shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "device": options.device,
        "settings": {key: str(value) if isinstance(value, Path) else value for key, value in settings.items()},
        "medians": medians,
        "ratios": ratios,
        **more,
        "provenance": provenance(),
    }
    print(json.dumps(report, indent=2))


def rounded(values: Mapping[str, float], digits: int = 3) -> dict[str, float]:
    """To so many digits behind the point."""
    return {name: round(value, digits) for name, value in values.items()}
