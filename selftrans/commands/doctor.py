"""A line for each finding: ok, warning or wrong, what was found, what to do. The exit code is 1 if anything is wrong,
else 0, also with warnings. Nothing is changed.
"""

import argparse
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import selftrans
from selftrans.commands.common import add_budget, add_devices, add_target, devices_of, files_of, plan_of
from selftrans.doctor import devices
from selftrans.doctor.cluster import cluster
from selftrans.doctor.disk import disk
from selftrans.doctor.filesystem import file_system
from selftrans.doctor.finding import Finding, findings_of, ok, wrong
from selftrans.doctor.outside import outside_files
from selftrans.plan.outside import outside_of
from selftrans.plan.plan import Plan

if TYPE_CHECKING:
    from selftrans.reporting.remaining import Remaining

Check = Callable[[], Iterable[Finding]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own options."""
    add_target(parser)
    add_devices(parser)
    add_budget(parser)
    parser.add_argument("--ranks", type=int, help="processes that train one run together (default: config.yaml's)")
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument("--quick", action="store_true", help="only what takes no time, and only what is not ok")
    extent.add_argument("--full", action="store_true", help="also read files from outside, for their published hashes")


def run(arguments: argparse.Namespace) -> None:
    """Look at this machine, and at what a target needs of it."""
    from selftrans.reporting.remaining import Remaining

    cores, plan = devices_of(arguments, "core"), plan_of(arguments, ranks=arguments.ranks)
    files = [path for paths in files_of(arguments, plan).values() for path in paths]
    remaining = Remaining(plan, files)
    checks = quick_checks(plan, remaining, arguments.full)
    if not arguments.quick:
        checks += slow_checks(plan, remaining, cores)
    levels = []
    for finding in findings_of(checks):
        levels.append(finding.level)
        if finding.level != "ok" or not arguments.quick:
            print(finding, flush=True)
    if not arguments.quick:
        print(f"{levels.count('ok')} ok, {levels.count('warning')} warnings, {levels.count('wrong')} wrong")
    if "wrong" in levels:
        raise SystemExit(1)


def quick_checks(plan: Plan, remaining: "Remaining", hashed: bool) -> list[Check]:
    """Those that import nothing large and write nothing."""
    from selftrans.config.reading.publications import load_publications
    from selftrans.doctor.software import software

    repository = Path(selftrans.__file__).parents[1]
    checks: list[Check] = []
    if (repository / "pyproject.toml").exists():  # not where a copy is installed
        checks.append(partial(software, repository))
    needed = outside_of(plan, remaining.sources)
    publications = load_publications(plan.project.folder)
    return [
        *checks,
        lambda: devices.build(devices.torch_build(), devices.kernel_driver(), os.environ),
        partial(budget, remaining),
        partial(disk, remaining.bytes(), len(remaining.jobs), plan.root),
        partial(outside_files, needed, publications, plan.project.scale_file, hashed),
    ]


def budget(remaining: "Remaining") -> Iterator[Finding]:
    """Whether it may cost what it does."""
    from selftrans.reporting.price import Price

    if remaining.plan.project.budget is not None:
        refused = Price(remaining).refusal()
        yield wrong(*refused) if refused else ok(f"within the budget of {remaining.plan.project.budget}")


def slow_checks(plan: Plan, remaining: "Remaining", cores: int) -> list[Check]:
    """Those that import torch, write into the folder of results, or ask other programs."""
    return [
        devices.driver_answers,
        partial(training, plan, remaining, cores),
        partial(file_system, plan.root, remaining.files),
        partial(cluster, plan.project.ranks // plan.project.nodes),
    ]


def training(plan: Plan, remaining: "Remaining", cores: int) -> Iterator[Finding]:
    """What torch makes of the GPUs, and whether what will be trained fits."""
    from selftrans.doctor.memory import memory

    found: list[devices.Gpu] = []
    if devices.expected():
        found = devices.gpus()
        yield from devices.torch_sees(found)
        yield from devices.shared_memory(len(found))
    yield from memory(plan, remaining.trained, [gpu.free for gpu in found], cores)
