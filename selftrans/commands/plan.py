"""Nothing is started; `snakemake -n <target>` lists the jobs themselves and why each would run."""

import argparse
import os
from pathlib import Path

from selftrans.commands.common import add_extent, plan_of
from selftrans.errors import UserError
from selftrans.plan.plan import Plan
from selftrans.plan.runs import Run
from selftrans.reporting.text import duration


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own options."""
    parser.add_argument(
        "target",
        nargs="?",
        help="a table of tables.yaml, claims, figures, or figures/fig4 for one of them (default: all)",
    )
    parser.add_argument("--brief", action="store_true", help="only what is not there yet, and how long that takes")
    parser.add_argument("--cores", type=int, default=os.cpu_count(), help="to do it on (default: all)")
    parser.add_argument("--gpus", type=int, default=1, help="to do it on, at scales that need them (default: 1)")
    add_extent(parser)


def run(arguments: argparse.Namespace) -> None:
    """Print each run that the targets need, how far it is trained, and who needs it; then what remains to be done."""
    devices = {"core": arguments.cores, "GPU": arguments.gpus}
    for device, count in devices.items():
        if count < 1:
            raise UserError(f"--{device.lower()}s: found {count}; allowed: 1 or more")
    plan = plan_of(arguments)
    files = files_of(plan, arguments.target)
    if not arguments.brief:
        _print_runs(plan, needed(plan, files))
    print(what_remains(plan, files, devices))


def files_of(plan: Plan, target: str | None) -> dict[str, list[Path]]:
    """{name: metrics and features that it is made of} of one target, or of all. Raises UserError if there is none."""
    from selftrans.reporting.figures.registry import figures_of, inputs_of

    files = {name: plan.metrics_of_target(name) for name in plan.targets}
    files["figures"] = [path for name in figures_of(plan) for path in inputs_of(plan, name)]
    if target is None:
        return files
    _, is_figure, figure = target.partition("figures/")
    if is_figure:
        files[target] = inputs_of(plan, figure)
    if target not in files:
        raise UserError(f"no target is called {target!r}; allowed: {', '.join(files)}, figures/<name>")
    return {target: files[target]}


def needed(plan: Plan, files: dict[str, list[Path]]) -> dict[Run, tuple[int, list[str]]]:
    """{run: (step to train to, who needs it)}, teachers before their students."""
    needs: dict[Run, tuple[int, list[str]]] = {}

    def need(run: Run, step: int, reason: str) -> None:
        if run.teacher is not None:
            need(run.teacher.run, run.teacher.step, "teaching")
        before, reasons = needs.get(run, (0, []))
        needs[run] = (max(step, before), list(dict.fromkeys([*reasons, reason])))

    for name, paths in files.items():
        for origin in filter(None, map(plan.origin, paths)):
            need(*origin, name)
    return needs


def _print_runs(plan: Plan, needs: dict[Run, tuple[int, list[str]]]) -> None:
    """A line for each run, and their sum."""
    width = max((len(run.id) for run in needs), default=0)
    for run, (step, reasons) in needs.items():
        done = max((found for found in run.milestones if plan.weights(run, found).exists()), default=0)
        print(f"{run.id:{width}}  {min(done, step):>7} of {step:>7} steps  for {', '.join(reasons)}")
    print(f"{len(needs)} runs, {sum(step for step, _ in needs.values())} steps")


def what_remains(plan: Plan, files: dict[str, list[Path]], devices: dict[str, int]) -> str:
    """What is not there yet of what targets are made of, and about how long it takes, if the scale knows its pace."""
    from selftrans.reporting.remaining import Remaining

    remaining = Remaining(plan, [path for paths in files.values() for path in paths])
    if not remaining.jobs:
        return "all of it is there"
    text = f"not there yet: {len(remaining.trained)} runs, {remaining.steps} steps, {remaining.images} samples"
    pace = plan.scale.pace
    if pace is None:
        return text
    count = devices[pace.device]
    about = f"about {duration(remaining.seconds(pace, count))} on {count} {pace.device}{'s' * (count > 1)}"
    return f"{text}; {about} at the pace of {plan.project.scale_file}"
