"""Fréchet distance along training, with bands over seeds; the paper's own curves in a panel of their own."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING

from selftrans.config import Name
from selftrans.errors import UserError
from selftrans.plan import Plan
from selftrans.records import Record
from selftrans.reporting.figures.artifacts import metrics_file, milestones_until
from selftrans.signatures import Count

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DATA = "csv"

PAPERS_STEPS = 5000  # of an epoch at batch size 256


class Settings(Record):
    """Runs and how far they are followed; ``paper`` has a line for each of them, with steps as its columns."""

    runs: tuple[Name, ...]
    until: Count  # epoch
    preset: Name = "headline"
    paper: str  # a file of config/paper


def inputs(plan: Plan, settings: Settings) -> list[Path]:
    """Metrics of each run at each milestone and seed, and the paper's file."""
    return [*_metrics(plan, settings), _papers_file(plan, settings)]


def _metrics(plan: Plan, settings: Settings) -> list[Path]:
    return [metrics_file(plan, reference, settings.preset, seed) for reference, seed in _points(plan, settings)]


def _papers_file(plan: Plan, settings: Settings) -> Path:
    path = plan.project.folder / "paper" / settings.paper
    if not path.is_file():
        known = ", ".join(sorted(found.name for found in path.parent.glob("*.csv")))
        raise UserError(f"paper: found {settings.paper!r}; allowed: a file of {path.parent}: {known}")
    return path


def _points(plan: Plan, settings: Settings) -> list[tuple[str, int]]:
    references = [reference for run in settings.runs for reference in milestones_until(plan, run, settings.until)]
    return [(reference, seed) for reference in references for seed in plan.seeds]


def draw(plan: Plan, settings: Settings) -> "tuple[Figure, pd.DataFrame]":
    """Two panels side by side, ours and the paper's, each with axes of its own."""
    import pandas as pd

    from selftrans.reporting.figures.style import PAGE, features_in_words, frechet_name, in_words, new_picture, remark
    from selftrans.reporting.tables import check_comparable, read_metrics

    by_file = {path: read_metrics(path) for path in _metrics(plan, settings)}
    check_comparable(by_file)
    example = next(iter(by_file.values()))
    ours, papers = pd.DataFrame(_ours(plan, settings)), pd.DataFrame(_papers(plan, settings))
    picture = new_picture(PAGE, 2.7)
    left, right = picture.subplots(1, 2)
    _panel(left, plan, ours, "frechet")
    left.set(title="ours", ylabel=f"{frechet_name(example)} ↓")
    _panel(right, plan, papers, "paper_fid")
    right.set(title="the paper", ylabel="FID ↓")
    left.legend()
    about = f"{in_words(plan)}, {features_in_words(example)}"
    remark(picture, f"Ours: {about}. The paper: 10K samples, read off its figure.")
    return picture, pd.concat([ours, papers], ignore_index=True).convert_dtypes()


def _ours(plan: Plan, settings: Settings) -> list[dict[str, object]]:
    """One line for each milestone and seed."""
    from selftrans.reporting.tables import read_metrics

    lines = []
    for reference, seed in _points(plan, settings):
        run, step = plan.milestone(reference, seed)
        value = read_metrics(plan.metrics(reference, seed, settings.preset))["frechet"]
        line = {"source": "ours", "run": run.name, "epochs": run.milestones[step], "steps": step}
        lines.append(line | {"seed": seed, "frechet": value})
    return lines


def _papers(plan: Plan, settings: Settings) -> list[dict[str, object]]:
    """The lines of the paper's file, which are in the order of the runs. Raises UserError if they are not as many."""
    path = _papers_file(plan, settings)
    with path.open(encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    if len(found) != len(settings.runs):
        raise UserError(f"{path}: found {len(found)} lines; allowed: one for each of {', '.join(settings.runs)}")
    lines = []
    for run, values in zip(settings.runs, found, strict=True):
        for column, value in values.items():
            if column != "method":
                epochs = 1000 * int(column.removesuffix("K")) // PAPERS_STEPS
                line = {"source": "paper", "run": run, "epochs": epochs, "steps": epochs * PAPERS_STEPS}
                lines.append(line | {"paper_fid": float(value)})
    return lines


def _panel(axes: "Axes", plan: Plan, lines: "pd.DataFrame", metric: str) -> None:
    """A curve for each run, its band one standard deviation over seeds to each side."""
    from selftrans.reporting.figures.style import look_of

    for name, points in lines.groupby("run", sort=False):
        look = look_of(plan.run(name, seed=0))
        over_seeds = points.groupby("steps")[metric]
        mean, spread = over_seeds.mean(), over_seeds.std().fillna(0)
        axes.plot(mean.index, mean, color=look.colour, marker=look.marker, label=look.name)
        axes.fill_between(mean.index, mean - spread, mean + spread, color=look.colour, alpha=0.2, linewidth=0)
    steps = lines.groupby("steps")["epochs"].first()
    labels = [f"{step // 1000}K" if step % 1000 == 0 else str(step) for step in steps.index]
    axes.set_xticks(steps.index, labels)
    above = axes.secondary_xaxis("top")
    above.set_xticks(steps.index, [str(epoch) for epoch in steps])
    above.set_xlabel("epochs of the paper's schedule")
    axes.set_xlabel("training steps")
    axes.set_ylim(bottom=0)
