"""Training logs as data: what `selftrans.training.trainer` wrote while a run trained, a line every few steps."""

from pathlib import Path
from typing import TYPE_CHECKING

from selftrans.errors import UserError
from selftrans.plan.paths import Pattern
from selftrans.plan.plan import Plan
from selftrans.plan.runs import Run
from selftrans.training.log import read_lines

if TYPE_CHECKING:
    import pandas as pd

MEASURED = ("loss", "diffusion", "method", "feature_norm", "gradient_norm", "steps_per_second")


def log_file(plan: Plan, run: Run) -> Path:
    """Where a run's log is. It lies in the run's working folder, which is no output of the workflow."""
    return plan.path(Pattern.work, run=run.id) / "log.jsonl"


def read_log(path: Path) -> "pd.DataFrame":
    """A line each few steps: ``step``, and the means of MEASURED over the steps since the line before.

    NaN where a line has no such number. No lines if there is no file. Raises UserError at a line that is damaged, or
    not of the run whose folder it lies in.
    """
    import pandas as pd

    lines = read_lines(path, path.parent.name)
    return pd.DataFrame(lines, columns=["step", *MEASURED]).astype({"step": int})


def log_until(plan: Plan, run: Run, step: int) -> "pd.DataFrame":
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
