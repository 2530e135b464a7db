"""The CSV is for machines; the Markdown beside it is for people and says what a verdict means, the LaTeX for papers."""

import argparse

from selftrans.commands.common import add_extent, plan_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own options."""
    add_extent(parser)


def run(arguments: argparse.Namespace) -> None:
    """Write results/claims.csv, and the same as .md, .tex and .html."""
    from selftrans.files import write_text
    from selftrans.reporting.claims import build_claims
    from selftrans.reporting.claims_latex import claims_to_latex
    from selftrans.reporting.claims_markdown import claims_to_markdown, claims_to_text, summary
    from selftrans.reporting.csv import write_csv
    from selftrans.reporting.page.render import render_claims
    from selftrans.reporting.results import RESULTS, publish

    plan = plan_of(arguments)
    frame = build_claims(plan)
    csv, markdown, latex, page = (RESULTS / f"claims.{ending}" for ending in ("csv", "md", "tex", "html"))
    write_text(markdown, claims_to_markdown(plan, frame))
    write_text(latex, claims_to_latex(plan, frame))
    write_csv(csv, frame)
    write_text(page, render_claims(plan, frame))
    publish(plan, "claims", [csv, markdown, latex, page])
    print(claims_to_text(frame))
    print(summary(frame))
