"""Training logs as data: what `selftrans.trainer` wrote while a run trained, a line every few steps."""

import json
from pathlib import Path

import pandas as pd

from selftrans.errors import UserError
from selftrans.files import require_regular
from selftrans.paths import Pattern
from selftrans.plan import Plan
from selftrans.runs import Run

MEASURED = ("loss", "diffusion", "method", "feature_norm", "gradient_norm", "steps_per_second")
ABSENT = {"feature_norm"}  # where no method looks at features, and in logs older than it


def log_file(plan: Plan, run: Run) -> Path:
    """Where a run's log is. It lies in the run's working folder, which is no output of the workflow."""
    return plan.path(Pattern.work, run=run.id) / "log.jsonl"


def read_log(path: Path) -> pd.DataFrame:
    """A line each few steps: ``step``, and the means of MEASURED over the steps since the line before.

    NaN where a line has no such number. No lines if there is no file; what a killed or living trainer left of a last
    line is not looked at. Raises UserError at a damaged line.
    """
    text = ""
    if path.exists():
        require_regular(path)
        text = path.read_text(encoding="utf-8", errors="replace")
    whole = text.split("\n")[:-1]
    lines = [_values(path, number, line) for number, line in enumerate(whole, start=1)]
    return pd.DataFrame(lines, columns=["step", *MEASURED]).astype({"step": int})


def _values(path: Path, number: int, line: str) -> dict[str, float]:
    try:
        found = json.loads(line)
        return {name: float(found[name]) for name in ("step", *MEASURED) if name in found or name not in ABSENT}
    except (ValueError, TypeError, KeyError):
        raise UserError(
            f"{path}: line {number}: found {line!r}; allowed: an object with the numbers step, {', '.join(MEASURED)}; "
            "delete the line and run the same command again"
        ) from None


def log_until(plan: Plan, run: Run, step: int) -> pd.DataFrame:
    """`read_log` of a run up to optimiser step ``step``. Raises UserError if it has no line so early."""
    path = log_file(plan, run)
    log = read_log(path)
    log = log[log["step"] <= step]
    if log.empty:
        found = f"no line up to step {step}" if path.exists() else "no such file"
        raise UserError(
            f"{path}: {found}; a log is written while a run trains. To have it, delete {path.parent} and "
            f"{plan.weights(run, step).parent} and run snakemake again, which trains the run to the same weights"
        )
    return log
