"""Drawn from what the workflow made; the data behind the picture lies beside it."""

import argparse
from pathlib import Path

from selftrans.commands.common import add_extent, need, plan_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own options."""
    parser.add_argument("name", help="a figure of figures.yaml, such as fig4")
    add_extent(parser)


def run(arguments: argparse.Namespace) -> None:
    """Write results/figures/<name>.pdf, .png, and .csv or .npz."""
    from selftrans.reporting.figures.registry import draw_figure, inputs_of

    plan = plan_of(arguments)
    for path in inputs_of(plan, arguments.name):
        need(path)
    for path in draw_figure(plan, arguments.name, Path("results/figures")):
        print(path)
