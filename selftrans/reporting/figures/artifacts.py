"""Which files of a run a figure is drawn from."""

from pathlib import Path

from selftrans.plan import Plan
from selftrans.records import refuse
from selftrans.runs import Run


def milestones_until(plan: Plan, run: str, epoch: int) -> list[str]:
    """The references ``run@e`` of the family's milestones up to ``epoch``. Raises UserError if there is no such run."""
    grid = plan.run(run, seed=0).family.milestones
    return [f"{run}@{found}" for found in sorted(grid) if found <= epoch]


def metrics_file(plan: Plan, reference: str, preset: str, seed: int) -> Path:
    """The metrics of ``run@epoch`` at a seed. Raises UserError if the plan has no such milestone or preset."""
    return plan.metrics_file(*_sampled(plan, reference, preset, seed), preset)


def samples_file(plan: Plan, reference: str, preset: str, seed: int = 0) -> Path:
    """The samples of ``run@epoch`` at a seed. Raises UserError if the plan has no such milestone or preset."""
    return plan.samples_file(*_sampled(plan, reference, preset, seed), preset)


def _sampled(plan: Plan, reference: str, preset: str, seed: int) -> tuple[Run, int]:
    run, step = plan.milestone(reference, seed)
    if preset not in run.family.presets:
        refuse(plan.project.scale_file, f"families.{run.row.family}.presets", preset, ", ".join(run.family.presets))
    return run, step
