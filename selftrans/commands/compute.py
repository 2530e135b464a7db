"""The CSV is for machines; the Markdown beside it is for people and says what is counted, the LaTeX for papers."""

import argparse

from selftrans.commands.common import add_extent, plan_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own options."""
    add_extent(parser)


def run(arguments: argparse.Namespace) -> None:
    """Write results/compute.csv, and the same as .md, .tex and .html."""
    from selftrans.files import write_text
    from selftrans.reporting.compute import build_compute, build_curves
    from selftrans.reporting.compute_text import compute_cells, compute_to_latex, compute_to_markdown
    from selftrans.reporting.csv import write_csv
    from selftrans.reporting.markdown import as_table
    from selftrans.reporting.page.render import render_compute
    from selftrans.reporting.results import RESULTS, publish

    plan = plan_of(arguments)
    frame = build_compute(plan, build_curves(plan))
    csv, markdown, latex, page = (RESULTS / f"compute.{ending}" for ending in ("csv", "md", "tex", "html"))
    write_text(markdown, compute_to_markdown(plan, frame))
    write_text(latex, compute_to_latex(plan, frame))
    write_csv(csv, frame)
    write_text(page, render_compute(plan, frame))
    publish(plan, "compute", [csv, markdown, latex, page])
    print(as_table(compute_cells(plan, frame)))
