"""Nothing is started; `snakemake -n <target>` lists the jobs themselves and why each would run."""

import argparse
from pathlib import Path

from selftrans.commands.common import add_budget, add_devices, add_target, devices_of, files_of, plan_of
from selftrans.plan.plan import Plan
from selftrans.plan.runs import Run
from selftrans.plan.size import in_words
from selftrans.plan.speed import SPEED


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own options."""
    add_target(parser)
    parser.add_argument("--brief", action="store_true", help="only what is not there yet, and what that costs")
    add_devices(parser)
    add_budget(parser)


def run(arguments: argparse.Namespace) -> None:
    """Print each run that the targets need, how far it is trained, and who needs it; then what remains to be done."""
    devices_of(arguments, "core")  # a wrong option is refused, whether it is needed or not
    plan = plan_of(arguments)
    files = files_of(arguments, plan)
    if not arguments.brief:
        _print_runs(plan, needed(plan, files))
    print(what_remains(arguments, plan, files))


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


def what_remains(arguments: argparse.Namespace, plan: Plan, files: dict[str, list[Path]]) -> str:
    """What is not there yet of what targets are made of, and what that costs: disk, time, hours of devices, memory.

    The time is that on --cores or --gpus, if a pace is known.
    """
    from selftrans.reporting.price import Price
    from selftrans.reporting.remaining import Remaining

    if list(files) == [SPEED]:
        return "nothing has to be made before; it is measured when it is made"
    remaining = Remaining(plan, [path for paths in files.values() for path in paths])
    if not remaining.jobs:
        return "all of it is there"
    text = f"not there yet: {len(remaining.trained)} runs, {remaining.steps} steps, {remaining.images} samples"
    text += f", {in_words(sum(remaining.bytes().values()))}"
    price = Price(remaining)
    estimate = price.estimate(devices_of(arguments, price.device))
    over = (
        f"{'over' if price.known else 'perhaps over'} the budget of {plan.project.budget}" if price.refusal() else None
    )
    return "; ".join(filter(None, (text, estimate, price.memory(), over)))
