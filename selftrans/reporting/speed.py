"""Sec. 4.5 of the paper: what a step of each method takes on this machine, and a row with all that it rests on."""

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import pandas as pd

from selftrans.config.reading.papers import Line, read_paper
from selftrans.config.records import refuse
from selftrans.plan.plan import Plan
from selftrans.plan.speed import Kind, label_of, lengths, own_steps, paper_file, phases_of, steps_before, timed_runs
from selftrans.reporting.markdown import as_table
from selftrans.reporting.text import one_line

Seconds = Mapping[Kind, Sequence[float]]  # a step's, in each turn

BOUNDS = {"steps": (1, 1e9), "steps_per_second": (1e-6, 1e6), "hours": (1e-6, 1e9)}  # columns of the paper's file

# What the paper times, by the labels of phases and rows.
PHASES = ("vanilla", "VAE alignment", "REPA", "ours guided", "ours after its stop", "ours")

# What a line is about: a step; a row as long as a table has it; the paper's own schedule at the speeds of this machine.
STEP, ROW, PAPER = "step", "row", "paper's schedule"

STEPS_HEADERS = {
    "row": "",
    "steps_per_second": "steps/s",
    "range": "over turns",
    "ratio_to_vanilla": "of vanilla",
    "hours_per_million_steps": "hours for 1M steps",
    "paper_steps_per_second": "paper: steps/s",
    "paper_ratio_to_vanilla": "paper: of vanilla",
}
PRICE_HEADERS = {
    "row": "",
    "steps": "steps",
    "hours": "hours",
    "steps_before": "steps of guiding models",
    "hours_before": "their hours",
    "whole_hours": "hours in all",
    "ratio_to_vanilla": "of vanilla's as long",
    "paper_hours": "paper: hours",
    "paper_whole_hours": "paper: hours in all",
}


def build_speed(plan: Plan, seconds: Seconds, machine: Mapping[str, Any]) -> pd.DataFrame:
    """A line for each kind of step, each row at each length that a table has it at, and each of the paper's rows.

    ``seconds`` are those of `phases_of` the timed runs, in the same turns; ``machine`` is said in every line. Raises
    UserError if the paper's file names what the paper does not time.
    """
    runs = timed_runs(plan)
    lines = [*_steps(plan, seconds), *_rows(plan, seconds), *_papers(plan, seconds)]
    about = {"scale": plan.scale.name, "model": runs[-1].row.model, "batch_size": runs[-1].family.batch_size, **machine}
    return pd.DataFrame([line | about for line in lines]).convert_dtypes()


def read_speeds(plan: Plan) -> dict[str, Line]:
    """{phase or row: what the paper says of it}. Raises UserError for what it does not time, or without steps."""
    path = paper_file(plan)
    lines = read_paper(path, BOUNDS.get)
    for number, line in enumerate(lines, start=2):
        if line.get("phase") not in PHASES:
            refuse(path, f"line {number}: phase", line.get("phase"), ", ".join(PHASES))
        if "steps" not in line:
            refuse(path, f"line {number}: steps", None, "how many there are")
    return {str(line["phase"]): line for line in lines}


def _steps(plan: Plan, seconds: Seconds) -> list[dict[str, Any]]:
    phases, paper = phases_of(timed_runs(plan)), read_speeds(plan)
    vanilla = seconds[phases[0].kind]
    papers_vanilla = paper.get(phases[0].label, {}).get("steps_per_second")
    lines = []
    for phase in phases:
        own = seconds[phase.kind]
        papers = paper.get(phase.label, {}).get("steps_per_second")
        lines.append(
            {
                "about": STEP,
                "row": phase.label,
                "run": phase.run.name,
                "steps_per_second": 1 / median(own),
                "slowest": 1 / max(own),
                "fastest": 1 / min(own),
                "ratio_to_vanilla": median(theirs / ours for theirs, ours in zip(vanilla, own, strict=True)),
                "hours_per_million_steps": 1e6 * median(own) / 3600,
                "paper_steps_per_second": papers,
                "paper_ratio_to_vanilla": papers / papers_vanilla if papers and papers_vanilla else None,
            }
        )
    return lines


def _rows(plan: Plan, seconds: Seconds) -> list[dict[str, Any]]:
    runs = timed_runs(plan)
    vanilla = (runs[0].name, False)
    lines = []
    for run, reference, step in lengths(plan, runs):
        price = _price(seconds, own_steps(run, step), steps_before(run), Counter({vanilla: step}))
        lines.append({"about": ROW, "row": label_of(run), "run": reference, **price})
    return lines


def _papers(plan: Plan, seconds: Seconds) -> list[dict[str, Any]]:
    """Ours with the guiding model that the paper trains; of what this scale times all parts of."""
    paper, runs = read_speeds(plan), timed_runs(plan)
    kinds = {phase.label: phase.kind for phase in phases_of(runs)}

    def steps_of(*labels: str) -> Counter[Kind]:
        return Counter({kinds[label]: round(paper[label]["steps"]) for label in labels})

    parts = {"vanilla": (["vanilla"], []), "REPA": (["REPA"], [])}
    parts["ours"] = (["ours guided", "ours after its stop"], ["VAE alignment"])
    lines = []
    for label, (own, before) in parts.items():
        if not {*own, *before} <= {*kinds} & {*paper} or label not in paper:
            continue
        steps = steps_of(*own)
        price = _price(seconds, steps, steps_of(*before), Counter({kinds["vanilla"]: steps.total()}))
        hours = [paper[name].get("hours") for name in (label, *before)]
        whole = None if None in hours else sum(hours)
        lines.append({"about": PAPER, "row": label, **price, "paper_hours": hours[0], "paper_whole_hours": whole})
    return lines


def _price(
    seconds: Seconds, own: Counter[Kind], before: Counter[Kind], vanilla: Counter[Kind]
) -> dict[str, int | float]:
    """Hours of steps, each kind at its own speed; beside them those of ``vanilla`` training."""

    def hours(steps: Counter[Kind]) -> float:
        return sum(count * median(seconds[kind]) for kind, count in steps.items()) / 3600

    return {
        "steps": own.total(),
        "hours": hours(own),
        "steps_before": before.total(),
        "hours_before": hours(before),
        "whole_hours": hours(own) + hours(before),
        "ratio_to_vanilla": (hours(own) + hours(before)) / hours(vanilla),
    }


# -------------------------------------------------------------------------------------------------- for people


def speed_to_markdown(plan: Plan, frame: pd.DataFrame) -> str:
    """Title, how it was measured, the tables, and what their hours leave out."""
    machine = frame.iloc[0]
    threads = "1 thread" if machine["threads"] == 1 else f"{machine['threads']} threads"
    where = machine["machine"] if machine["device"] == "cuda" else f"{machine['machine']}, {threads}"
    text = [
        "# Training time (Sec. 4.5)",
        "",
        f"Scale `{plan.scale.name}`: {one_line(plan.scale.description)}. `{machine['model']}`, batch "
        f"{machine['batch_size']}, on {where}, torch {machine['torch']}. Medians over {machine['turns']} turns of "
        f"{machine['steps_of_a_turn']} steps, which all rows take side by side on random latents; *over turns* is the "
        "slowest and the fastest. The paper's speeds are those of SiT-B/2 at batch 256 on eight A800: compare ratios.",
        "",
        "## A step",
        "",
        _table(frame, STEP),
        "",
        "## A row, with all it rests on",
        "",
        "Rows as long as the tables have them. Steps before and after a row's stop count at their own speeds; what "
        "guides a row was trained first, at its own.",
        "",
        _table(frame, ROW),
        "",
        "## The paper's schedule at these speeds",
        "",
        _table(frame, PAPER),
        "",
        "The paper's hours of ours leave its guiding model out, whose hours the paper gives by themselves. Hours are "
        "of steps alone, on this one device: no VAE, no latents, no samples, and not what the encoder of REPA cost "
        "whoever trained it.",
        "",
    ]
    return "\n".join(text)


def speed_to_text(frame: pd.DataFrame) -> str:
    """The tables without words, for a terminal."""
    return "\n\n".join(_table(frame, about) for about in (STEP, ROW, PAPER))


def speed_cells(frame: pd.DataFrame, about: str) -> pd.DataFrame:
    """What readers see of the lines that are about a step or a price, as text under headers."""
    shown = frame[frame["about"] == about].dropna(axis=1, how="all")
    lines = [{name: _cell(line, name) for name in shown.columns} for _, line in shown.iterrows()]
    if about == STEP:
        lines = [line | {"range": f"{line['slowest']} to {line['fastest']}"} for line in lines]
    headers = STEPS_HEADERS if about == STEP else PRICE_HEADERS
    found = pd.DataFrame(lines)
    if about == ROW:
        found["row"] += ", " + found["run"]
    return found[[name for name in headers if name in found]].rename(columns=headers)


def _table(frame: pd.DataFrame, about: str) -> str:
    return as_table(speed_cells(frame, about))


def _cell(line: pd.Series, name: str) -> str:
    value = line[name]
    if pd.isna(value):
        return ""
    if "ratio" in name:
        return f"{value:.2f}"
    return f"{value:.4g}" if isinstance(value, float) else f"{value}"
