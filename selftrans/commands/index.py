"""A run's folder is its name, its seed and a hash of its recipe; this says which recipe that is."""

import argparse
import json

from selftrans.commands.common import add_extent, plan_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own options."""
    add_extent(parser)


def run(arguments: argparse.Namespace) -> None:
    """Write results/INDEX.csv."""
    import pandas as pd

    from selftrans.reporting.csv import write_csv
    from selftrans.reporting.results import INDEX, RESULTS, publish

    plan, path = plan_of(arguments), RESULTS / "INDEX.csv"
    lines = [
        (run.name, run.seed, plan.scale.name, str(plan.root / "runs" / run.id), json.dumps(run.recipe))
        for run in plan.runs.values()
    ]
    write_csv(path, pd.DataFrame(lines, columns=["row", "seed", "scale", "folder", "recipe"]))
    publish(plan, INDEX, [path])
