"""The CSV is for machines; the Markdown beside it is for people and says how to read it, the LaTeX for papers."""

import argparse

from selftrans.commands.common import add_extent, plan_of
from selftrans.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own options."""
    parser.add_argument("name", help="a table of tables.yaml, such as table5")
    add_extent(parser)


def run(arguments: argparse.Namespace) -> None:
    """Write results/<name>.csv, and the same as .md, .tex and .html."""
    from selftrans.files import write_text
    from selftrans.reporting.csv import write_csv
    from selftrans.reporting.latex import to_latex
    from selftrans.reporting.markdown import to_markdown, to_text
    from selftrans.reporting.page.render import render_table
    from selftrans.reporting.results import RESULTS, publish
    from selftrans.reporting.tables import build_table, check_bars

    plan = plan_of(arguments)
    if arguments.name not in plan.project.tables:
        raise UserError(f"no table is called {arguments.name!r}; allowed: {', '.join(plan.project.tables)}")
    table = plan.project.tables[arguments.name]
    check_bars(plan, table)
    frame = build_table(plan, table)
    csv, markdown, latex, page = (RESULTS / f"{arguments.name}.{ending}" for ending in ("csv", "md", "tex", "html"))
    write_text(markdown, to_markdown(plan, table, frame))
    write_text(latex, to_latex(plan, arguments.name, frame))
    write_csv(csv, frame)
    write_text(page, render_table(plan, arguments.name, frame))
    publish(plan, arguments.name, [csv, markdown, latex, page])
    print(to_text(frame))
