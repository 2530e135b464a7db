"""Drawn from what the workflow made; the data behind the picture lies beside it."""

import argparse

from selftrans.commands.common import add_extent, need, plan_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own options."""
    parser.add_argument("name", help="a figure of figures.yaml, such as fig4")
    add_extent(parser)


def run(arguments: argparse.Namespace) -> None:
    """Write results/figures/<name>.pdf, .png, and .csv or .npz."""
    from selftrans.reporting.figures.registry import draw_figure, inputs_of
    from selftrans.reporting.results import RESULTS, publish

    plan = plan_of(arguments)
    for path in inputs_of(plan, arguments.name):
        need(path)
    paths = draw_figure(plan, arguments.name, RESULTS / "figures")
    publish(plan, f"figures/{arguments.name}", paths)
    for path in paths:
        print(path)
