"""What the page tells, read from what the workflow made: tables, claims, figures, training curves, runtimes."""

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from markdown_it import MarkdownIt
from markupsafe import Markup
from PIL import Image

from selftrans.plan.plan import Plan
from selftrans.plan.speed import SPEED
from selftrans.reporting import claims_markdown, compute_text, markdown
from selftrans.reporting.csv import read_csv
from selftrans.reporting.figures.registry import figures_of
from selftrans.reporting.page.charts import interval, lines
from selftrans.reporting.results import RESULTS, is_current
from selftrans.reporting.speed import ROW, STEP, speed_cells
from selftrans.reporting.status import Status, begun
from selftrans.reporting.tables import read_metrics, read_report
from selftrans.reporting.targets import results_of
from selftrans.reporting.training_log import log_file, read_log

BARS = ("frechet", "paper_fid")  # columns whose values are drawn as bars too: only their order can be compared
SCREEN = 150  # pixels that an inch of a figure takes, at most
PROSE = MarkdownIt("commonmark", {"html": False}).disable("image")  # tags are text, and a page needs no network

# What a training log holds -> what its panel is called, and whether its axis is logarithmic.
CURVES = {
    "diffusion": ("diffusion loss", False),
    "method": ("method's loss", False),
    "feature_norm": ("norm of aligned features", False),
    "gradient_norm": ("gradient norm, log", True),
    "steps_per_second": ("steps per second", False),
}


@dataclass(frozen=True)
class Cell:
    """Text, and its share of the column's largest value if that is drawn."""

    text: str
    share: float | None = None


@dataclass(frozen=True)
class TableSection:
    """A table with what stands above and below it."""

    name: str
    title: str
    introduction: Markup
    headers: list[str]
    rows: list[list[Cell]]
    notes: Markup


@dataclass(frozen=True)
class Verdict:
    """A judged claim."""

    says: str
    verdict: str
    difference: str
    picture: Markup
    p: str
    papers: str


@dataclass(frozen=True)
class ClaimsSection:
    """All claims by where the paper makes them, and how many got which verdict."""

    summary: str
    counts: dict[str, int]
    introduction: Markup
    groups: list[tuple[str, list[Verdict]]]
    notes: Markup


@dataclass(frozen=True)
class FigureSection:
    """A figure as a picture inside the page."""

    name: str
    title: str
    caption: str
    source: str  # a data: address
    width: int  # CSS pixels at which text has the size of the page's


@dataclass(frozen=True)
class RunSection:
    """The training curves of a row, over all of its seeds."""

    name: str
    steps: int
    seeds: int
    running: list[str]  # how far those are that are at work
    panels: list[tuple[str, str, Markup]]  # what, its range, picture


def result(plan: Plan, name: str) -> pd.DataFrame | None:
    """``results/<name>.csv`` if it is there, whole, and the plan's."""
    return read_csv(RESULTS / f"{name}.csv") if is_current(plan, name) else None


def tables(plan: Plan, columns: Sequence[str] = tuple(markdown.HEADERS)) -> Iterator[TableSection]:
    """Every table that is there, in the order of tables.yaml, with the run of each row as its last column."""
    for name in plan.project.tables:
        if (frame := result(plan, name)) is not None:
            yield table_section(plan, name, frame, columns)


def table_section(
    plan: Plan, name: str, frame: pd.DataFrame, columns: Sequence[str] = tuple(markdown.HEADERS)
) -> TableSection:
    """A table with the prose of its Markdown around it."""
    above, below = around_tables(RESULTS / f"{name}.md")
    cells = markdown.cells(frame, columns).assign(run=frame["run"].fillna(""))
    title = plan.project.tables[name].title
    return TableSection(name, title, above, list(cells.columns), _with_bars(frame, cells), below)


def speed(plan: Plan) -> Iterator[TableSection]:
    """The tables of the time that trainings take, if it was measured here; the first with the prose of the Markdown."""
    if (frame := result(plan, SPEED)) is None:
        return
    above, below = around_tables(RESULTS / f"{SPEED}.md")
    titles = {STEP: "Training time: a step", ROW: "Training time: a row, with all it rests on"}
    for about, title in titles.items():
        cells = speed_cells(frame, about).assign(run=frame["run"][frame["about"] == about].to_list())
        rows = [[Cell(text) for text in line] for line in cells.itertuples(index=False)]
        prose = (above, Markup()) if about == STEP else (Markup(), below)
        yield TableSection(SPEED, title, prose[0], list(cells.columns), rows, prose[1])


def _with_bars(frame: pd.DataFrame, cells: pd.DataFrame) -> list[list[Cell]]:
    """Cells; those of columns in BARS with their share of the column's largest value."""
    barred = [name for name in BARS if name in frame]
    shares = {markdown.header(name, frame): frame[name] / frame[name].max() for name in barred}

    def cell(line: int, header: str) -> Cell:
        return Cell(cells.at[line, header], _number(shares[header][line]) if header in shares else None)

    return [[cell(line, header) for header in cells.columns] for line in cells.index]


def _number(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)


def compute(plan: Plan) -> Iterator[TableSection]:
    """What methods cost, if that is there yet."""
    if (frame := result(plan, "compute")) is not None:
        yield compute_section(plan, frame)


def compute_section(plan: Plan, frame: pd.DataFrame) -> TableSection:
    """What methods cost, with the prose of its Markdown around it."""
    above, below = around_tables(RESULTS / "compute.md")
    cells = compute_text.compute_cells(plan, frame)
    rows = [[Cell(text) for text in row] for row in cells.itertuples(index=False)]
    return TableSection("compute", compute_text.TITLE, above, list(cells.columns), rows, below)


def claims(plan: Plan) -> ClaimsSection | None:
    """The judged claims, or None if there are none yet."""
    frame = result(plan, "claims")
    return None if frame is None else claims_section(plan, frame)


def claims_section(plan: Plan, frame: pd.DataFrame) -> ClaimsSection:
    """The judged claims by where the paper makes them, with the prose of their Markdown around them."""
    above, below = around_tables(RESULTS / "claims.md")
    groups = claims_markdown.marked(plan, frame).groupby("source", sort=False)
    found = [(source, _verdicts(group.reset_index(drop=True))) for source, group in groups]
    counts = {verdict: claims_markdown.tally(frame)[verdict] for verdict in ("holds", "contradicted", "undecided")}
    return ClaimsSection(claims_markdown.summary(frame), counts, above, found, below)


def _verdicts(group: pd.DataFrame) -> list[Verdict]:
    """Claims of one place in the paper; those of one metric share an axis."""
    cells = claims_markdown.claim_cells(group, "says")
    largest = group[["difference", "low", "high"]].astype("Float64").abs().max(axis=1)
    reach = largest.groupby(group["metric"]).transform("max")
    return [
        Verdict(
            says=line.says,
            verdict=line.verdict,
            difference=cells.at[number, "difference"],
            picture=interval(line.difference, _number(line.low), _number(line.high), float(reach[number]) or 1.0),
            p=cells.at[number, "p"],
            papers=cells.at[number, "the paper's"],
        )
        for number, line in zip(group.index, group.itertuples(), strict=True)
    ]


def around_tables(path: Path) -> tuple[Markup, Markup]:
    """The prose of a Markdown file above its first and below its last table, as HTML, without headings."""
    text = path.read_text(encoding="utf-8").splitlines()
    rows = [number for number, line in enumerate(text) if line.startswith("|")]
    parts = (text[: rows[0]], text[rows[-1] + 1 :])
    above, below = ("\n".join(line for line in part if not line.startswith("#")) for part in parts)
    return Markup(PROSE.render(above)), Markup(PROSE.render(below))


def figures(plan: Plan) -> Iterator[FigureSection]:
    """Every figure that is there, in the order of figures.yaml."""
    for name, figure in figures_of(plan).items():
        path = RESULTS / "figures" / f"{name}.png"
        if is_current(plan, f"figures/{name}"):
            source = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
            with Image.open(path) as picture:
                width = round(picture.width / picture.info["dpi"][0] * SCREEN)
            yield FigureSection(name, figure.title, figure.caption, source, width)


def curves(plan: Plan) -> Iterator[tuple[str, list[RunSection]]]:
    """(family and model, their runs that have logs, those at work up to now)."""
    groups: dict[str, list[RunSection]] = {}
    running = _running(plan)
    for name, row in plan.project.rows.items():
        runs = [plan.run(name, seed) for seed in plan.claim_seeds]
        logs = [log for log in (read_log(log_file(plan, run)) for run in runs) if not log.empty]
        if logs:
            said = [f"seed {run.seed} runs: {running[run.id]}" for run in runs if run.id in running]
            groups.setdefault(f"{row.family}, {row.model}", []).append(_run_section(name, logs, said))
    yield from groups.items()


def _running(plan: Plan) -> dict[str, str]:
    """{run: how far it is, how fast, how long still and where} of runs that are being trained."""
    names = [name for found in results_of(plan).values() for name in found]
    reports = Status(plan, names, begun(plan)).reports
    at_work = {report.job: report for report in reports if report.state == "running"}
    named = ((run, at_work.get(f"train/{run}")) for run in plan.runs)
    return {run: ", ".join(filter(None, report.cells()[2:])) for run, report in named if report is not None}


def _run_section(name: str, logs: Sequence[pd.DataFrame], running: list[str]) -> RunSection:
    until = max(int(log["step"].max()) for log in logs)
    panels = []
    for key, (title, logarithmic) in CURVES.items():
        shown = [log for log in logs if log[key].fillna(0).any()]
        if shown:
            values = pd.concat([log[key] for log in shown])
            drawn = [list(zip(log["step"], log[key], strict=True)) for log in shown]
            panels.append((title, f"{values.min():.3g} to {values.max():.3g}", lines(drawn, until, logarithmic)))
    return RunSection(name, until, len(logs), running, panels)


def qualities(plan: Plan) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, report) of each VAE, extractor and encoder that is there."""
    for folder in ("tokenizers", "extractors", "encoders"):
        for path in sorted((plan.root / folder).glob("*.json")):
            yield path.stem, read_report(path)


def metrics(plan: Plan) -> Iterator[dict[str, Any]]:
    """Every evaluation that a table or a claim rests on and that is there."""
    wanted = [path for name in plan.targets for path in plan.metrics_of_target(name)]
    yield from (read_metrics(path) for path in dict.fromkeys(wanted) if path.exists())
