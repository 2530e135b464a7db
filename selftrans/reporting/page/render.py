"""Sections -> HTML through one template, with its styles inside."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from selftrans.plan.plan import Plan
from selftrans.reporting.figures.registry import figures_of
from selftrans.reporting.markdown import SHORT
from selftrans.reporting.page import sections
from selftrans.reporting.page.runtimes import origins, stages
from selftrans.reporting.results import is_current

PARTS = ("headline", "claims", "figures", "tables", "curves", "provenance")  # in the order of the page


def render_page(plan: Plan, parts: Sequence[str] = PARTS) -> str:
    """The page of what is there at this scale, or some parts of it.

    What is not there yet is listed with the command that makes it. Raises UserError for files that cannot be read.
    """
    found: dict[str, Any] = {}
    if "headline" in parts:
        found["headline"] = next(sections.tables(plan, SHORT), None)
    if "claims" in parts:
        found["claims"] = sections.claims(plan)
    if "figures" in parts:
        found["figures"] = list(sections.figures(plan))
    if "tables" in parts:
        found["tables"] = [*sections.tables(plan), *sections.compute(plan), *sections.speed(plan)]
    if "curves" in parts:
        found["curves"] = list(sections.curves(plan))
    if "provenance" in parts:
        made_by = origins(sections.metrics(plan))
        found |= {"stages": stages(plan), "origins": made_by, "qualities": list(sections.qualities(plan))}
        found["missing"] = missing(plan)
    return _fill(plan, parts, found)


def render_table(plan: Plan, name: str, frame: pd.DataFrame) -> str:
    """A page of one table, whose Markdown is there."""
    return _fill(plan, ("tables",), {"tables": [sections.table_section(plan, name, frame)]})


def render_claims(plan: Plan, frame: pd.DataFrame) -> str:
    """A page of the judged claims, whose Markdown is there."""
    return _fill(plan, ("claims",), {"claims": sections.claims_section(plan, frame)})


def render_compute(plan: Plan, frame: pd.DataFrame) -> str:
    """A page of what methods cost, whose Markdown is there."""
    return _fill(plan, ("tables",), {"tables": [sections.compute_section(plan, frame)]})


def missing(plan: Plan) -> list[str]:
    """The targets of tables, claims, compute and figures that are not there."""
    made = [f"results/{name}.csv" for name in plan.targets if not is_current(plan, name)]
    return made + [
        f"results/figures/{name}.pdf" for name in figures_of(plan) if not is_current(plan, f"figures/{name}")
    ]


def _fill(plan: Plan, parts: Sequence[str], found: dict[str, Any]) -> str:
    """The template with what was found; what was not asked for is empty."""
    environment = Environment(
        loader=PackageLoader("selftrans.reporting.page", package_path="."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    empty = {"headline": None, "claims": None, "figures": [], "tables": [], "curves": []}
    whole = tuple(parts) == PARTS
    return environment.get_template("page.html").render(parts=parts, whole=whole, scale=plan.scale, **(empty | found))
