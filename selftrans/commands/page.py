"""The page shows what is there and names what is not; as a target of the workflow, all of it is made first."""

import argparse

from selftrans.commands.common import add_extent, plan_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own options."""
    add_extent(parser)


def run(arguments: argparse.Namespace) -> None:
    """Write results/index.html, and by themselves its training curves and its provenance."""
    from selftrans.files import write_text
    from selftrans.reporting.page.render import PARTS, render_page
    from selftrans.reporting.results import PAGE, RESULTS, publish

    plan = plan_of(arguments)
    pages = {"index": PARTS, "training": ("curves",), "provenance": ("provenance",)}
    paths = {RESULTS / f"{name}.html": parts for name, parts in pages.items()}
    for path, parts in paths.items():
        write_text(path, render_page(plan, parts))
        print(path)
    publish(plan, PAGE, list(paths))
