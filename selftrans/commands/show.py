"""The short form; the Markdown beside the CSV has every column and says how to read them."""

import argparse
from pathlib import Path

from selftrans.commands.common import add_extent, plan_of
from selftrans.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own options."""
    add_extent(parser)
    parser.add_argument("csv", type=Path, help="a table that the workflow made, such as results/table5.csv")


def run(arguments: argparse.Namespace) -> None:
    """Print a table."""
    from selftrans.reporting.csv import read_csv
    from selftrans.reporting.markdown import as_table, to_text
    from selftrans.reporting.results import require_current, result_named

    if not arguments.csv.exists():
        raise UserError(f"{arguments.csv}: not made yet; make it with: snakemake --cores all {arguments.csv}")
    plan = plan_of(arguments)
    require_current(plan, result_named(arguments.csv))
    frame = read_csv(arguments.csv)
    if "verdict" in frame:
        from selftrans.reporting.claims_markdown import claims_to_text, summary

        print(claims_to_text(frame))
        print(summary(frame))
    elif "steps_per_second" in frame:
        from selftrans.reporting.speed import speed_to_text

        print(speed_to_text(frame))
    elif "pflop" in frame:
        from selftrans.reporting.compute_text import compute_cells

        print(as_table(compute_cells(plan, frame)))
    else:
        print(to_text(frame))
    if {"seeds", "scale", "extractor"} <= set(frame):
        seeds, scale, extractor = frame.dropna(subset="seeds").iloc[0][["seeds", "scale", "extractor"]]
        many = "s" if seeds > 1 else ""
        print(f"{seeds} seed{many} at scale {scale}; Fréchet and IS over {extractor}, which are no FIDs.")
    print(f"How to read it: {arguments.csv.with_suffix('.md')}")
