"""What a target names: results, and the files that they are made of."""

from pathlib import Path

from selftrans.errors import UserError
from selftrans.plan.plan import Plan
from selftrans.plan.speed import SPEED, timed_runs
from selftrans.reporting.figures.registry import figures_of, inputs_of


def results_of(plan: Plan, target: str | None = None) -> dict[str, list[str]]:
    """{target: names of its results}: the tables, the claims, all figures together, speed; or of one ``target`` alone.

    Raises UserError if there is no such target.
    """
    known = {name: [name] for name in plan.targets}
    known["figures"] = [f"figures/{name}" for name in figures_of(plan)]
    known |= {SPEED: [SPEED]} if timed_runs(plan) else {}
    if target is None:
        return known
    if target.startswith("figures/"):
        return {target: [target]}
    if target not in known:
        raise UserError(f"no target is called {target!r}; allowed: {', '.join(known)}, figures/<name>")
    return {target: known[target]}


def inputs_of_result(plan: Plan, result: str) -> list[Path]:
    """What a result is made of; speed, of nothing. Raises UserError if there is no such figure."""
    if result == SPEED:
        return []
    _, is_figure, figure = result.partition("figures/")
    return inputs_of(plan, figure) if is_figure else plan.metrics_of_target(result)
