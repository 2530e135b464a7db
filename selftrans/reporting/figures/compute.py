"""Fréchet distance against everything that was paid, with bands over seeds; stage 1 is paid before the first step."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from selftrans.config.records import Record
from selftrans.errors import UserError
from selftrans.plan.plan import Plan

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DATA = "csv"


class Settings(Record):
    """What compute.yaml compares, as the table of that name does."""

    table: Literal["compute"] = "compute"


def inputs(plan: Plan, settings: Settings) -> list[Path]:
    """Metrics of each row of compute.yaml at its milestones and seeds. Raises UserError if there are none."""
    if not plan.curves:
        raise UserError("compute.yaml has nothing to compare at this scale")
    return plan.metrics_of_compute()


def draw(plan: Plan, settings: Settings) -> "tuple[Figure, pd.DataFrame]":
    """A curve for each row, and vanilla training's last distance across all; the data are a line for each point."""
    from selftrans.reporting.compute import build_curves
    from selftrans.reporting.figures.style import GREY, PAGE, features_in_words, frechet_name, new_picture, remark

    data = build_curves(plan)
    picture = new_picture(PAGE, 3.2)
    axes = picture.subplots()
    for name, points in data.groupby("run", sort=False):
        _curve(axes, plan, name, points)
    vanilla = data[data["run"] == plan.project.compute.vanilla]
    end = vanilla[vanilla["epochs"] == vanilla["epochs"].max()]["frechet"].mean()
    axes.axhline(end, color=GREY, linewidth=0.6, linestyle=":", zorder=1)
    example = data.iloc[0]
    axes.set(xscale="log", xlabel="paid until there, PFLOP", ylabel=f"{frechet_name(example)} ↓")
    axes.set_ylim(bottom=0)
    axes.legend()
    seeds = f"{len(plan.claim_seeds)} seeds" if len(plan.claim_seeds) > 1 else "one seed"
    about = f"scale {plan.scale.name}, at most {seeds} ± one standard deviation, {features_in_words(example)}"
    remark(picture, f"Ours: {about}. A bar with a dotted line: stage 1 is paid, and the first step not yet made.")
    return picture, data


def _curve(axes: "Axes", plan: Plan, name: str, points: "pd.DataFrame") -> None:
    """The mean over seeds at each milestone, and one standard deviation to each side."""
    from selftrans.reporting.figures.style import look_of

    look, over_seeds = look_of(plan.run(name, seed=0)), points.groupby("pflop")["frechet"]
    mean, spread = over_seeds.mean(), over_seeds.std().fillna(0)
    axes.plot(mean.index, mean, color=look.colour, marker=look.marker, label=look.name)
    axes.fill_between(mean.index, mean - spread, mean + spread, color=look.colour, alpha=0.2, linewidth=0)
    before = points["pflop_stage1"].iloc[0]
    if before > 0:
        first = [before, mean.index[0]], [mean.iloc[0]] * 2
        axes.plot(*first, color=look.colour, linestyle=":", linewidth=0.8, marker="|", markevery=[0], markersize=8)
