"""A run's folder is its name, its seed and a hash of its recipe; this says which recipe that is."""

import argparse
import csv
import json

from selftrans.commands.common import add_extent, plan_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own options."""
    add_extent(parser)


def run(arguments: argparse.Namespace) -> None:
    """Write results/INDEX.csv."""
    from selftrans.files import atomic_path
    from selftrans.reporting.results import INDEX, RESULTS, publish

    plan, path = plan_of(arguments), RESULTS / "INDEX.csv"
    with atomic_path(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "seed", "scale", "folder", "recipe"])
        for run in plan.runs.values():
            folder = plan.root / "runs" / run.id
            writer.writerow([run.name, run.seed, plan.scale.name, folder, json.dumps(run.recipe)])
    publish(plan, INDEX, [path])
