"""The page shows what is there and names what is not; as a target of the workflow, all of it is made first."""

import argparse
from pathlib import Path

from selftrans.commands.common import add_extent, plan_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own options."""
    add_extent(parser)


def run(arguments: argparse.Namespace) -> None:
    """Write results/index.html, and by themselves its training curves and its provenance."""
    from selftrans.files import write_text
    from selftrans.reporting.page.render import PARTS, render_page

    plan = plan_of(arguments)
    pages = {"index": PARTS, "training": ("curves",), "provenance": ("provenance",)}
    for name, parts in pages.items():
        path = Path(f"results/{name}.html")
        write_text(path, render_page(plan, parts))
        print(path)
