"""Sec. 4.5 of the paper at a scale: whose steps are timed, and how many steps a row and all it rests on take."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from selftrans.plan.plan import Plan
from selftrans.plan.runs import Run

SPEED = "speed"  # the result's name
MODEL = "sit-b2"  # the paper's example

# What the paper's methods are called, by the method of a run; another method goes by its own name.
LABELS = {None: "vanilla", "vae_align": "VAE alignment", "repa": "REPA", "self_transcendence": "ours"}
GUIDED, STOPPED = "guided", "after its stop"

Kind = tuple[str, bool]  # a run's name, and whether its stop is behind: steps of a kind cost the same


@dataclass(frozen=True)
class Phase:
    """Steps of a run with its method, or, ``stopped``, of the same run after its stop."""

    run: Run
    stopped: bool

    @property
    def kind(self) -> Kind:
        """By which steps are counted."""
        return self.run.name, self.stopped

    @property
    def label(self) -> str:
        """For people, and in the paper's file."""
        stop = "" if self.run.recipe["stop"] is None else f" {STOPPED if self.stopped else GUIDED}"
        return label_of(self.run) + stop


def label_of(run: Run) -> str:
    """What the paper calls the method of a run."""
    method = _method(run)
    return LABELS.get(method, str(method))


def paper_file(plan: Plan) -> Path:
    """The paper's own figures. Without them there is no such section to make."""
    return plan.project.folder / "paper" / "speed.csv"


def timed_runs(plan: Plan) -> list[Run]:
    """Vanilla, the guiding model (and its own, if it has one), REPA if there is such a row, and ours.

    They are of the paper's example, or, where no row of ours of that model is kept, of the largest model that one is
    kept of; each is the first of its kind in runs.yaml. None where ours or vanilla is missing, or the paper's figures.
    """
    runs = [plan.run(name, 0) for name in plan.project.rows]
    trained = [run for run in runs if run.row.published is None]
    ours = [run for run in trained if _method(run) == "self_transcendence" and plan.keeps(run)]
    if not ours or not paper_file(plan).exists():
        return []
    guided = max(ours, key=lambda run: (run.row.model == MODEL, run.model.depth * run.multiplications))  # the first

    def beside(method: str | None) -> list[Run]:
        like = (guided.row.family, guided.row.model)
        return [run for run in trained if _method(run) == method and (run.row.family, run.row.model) == like][:1]

    vanilla = beside(None)
    return list(dict.fromkeys([*vanilla, *_teachers(guided), *beside("repa"), guided])) if vanilla else []


def phases_of(runs: Sequence[Run]) -> list[Phase]:
    """What is timed of each run: its steps, and those after its stop if it has one."""
    return [Phase(run, stopped) for run in runs for stopped in (False, True)[: 2 - (run.recipe["stop"] is None)]]


def lengths(plan: Plan, runs: Sequence[Run]) -> list[tuple[Run, str, int]]:
    """(run, run@epoch, step) of each length at which a table has one of ``runs``."""
    cited = {row.run for table in plan.project.tables.values() for row in table.trained}
    found = {plan.milestone(reference, 0): reference for reference in cited}
    ends = [(run, found[end], end[1]) for run in runs for end in found if end[0] is run]
    return sorted(ends, key=lambda end: (runs.index(end[0]), end[2]))


def own_steps(run: Run, step: int) -> Counter[Kind]:
    """The steps of a run up to ``step``, by what they cost."""
    stop = run.recipe["stop"]
    guided = step if stop is None else min(step, stop)
    return +Counter({(run.name, False): guided, (run.name, True): step - guided})


def steps_before(run: Run) -> Counter[Kind]:
    """The steps of its guiding model, and of that one's."""
    if run.teacher is None:
        return Counter()
    return own_steps(run.teacher.run, run.teacher.step) + steps_before(run.teacher.run)


def _teachers(run: Run) -> list[Run]:
    """The first one's first."""
    return [] if run.teacher is None else [*_teachers(run.teacher.run), run.teacher.run]


def _method(run: Run) -> str | None:
    return run.row.method["name"] if run.row.method else None
