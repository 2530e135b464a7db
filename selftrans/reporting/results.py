"""Results under fixed names (tables, verdicts, figures, the index, the page): what each is made of, and whether it is.

The name ``results/table5.csv`` says nothing of the configuration that it was made with, and its date says nothing
either, after a copy or a clone. So each such result has a record beside it, ``results/table5.json``: the key (a hash)
of all that it was made of, and the SHA-256 of its files. `source` compares the key with the plan's and gives Snakemake
a small input that is newer than the result exactly if they differ; readers refuse a result that is not the plan's.
"""

import json
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from selftrans.artifacts import read_record, write_record
from selftrans.errors import UserError
from selftrans.files import file_sha256
from selftrans.plan import flops
from selftrans.plan.plan import Plan
from selftrans.plan.runs import Run, fingerprint
from selftrans.plan.speed import SPEED, lengths, paper_file, timed_runs
from selftrans.reporting.figures.registry import figures_of, inputs_of

RESULTS = Path("results")
INDEX, PAGE = "INDEX", "page"
REPORTING = Path(__file__).parent
OLDER = 1  # second of 1970: a date before that of any result


def names(plan: Plan) -> list[str]:
    """All results of a plan: tables, claims and compute, figures as ``figures/<name>``, speed, the index, the page."""
    speed = [SPEED] if timed_runs(plan) else []
    return [*plan.targets, *(f"figures/{name}" for name in figures_of(plan)), *speed, INDEX, PAGE]


def made_of(plan: Plan, name: str) -> dict[str, Any]:
    """All that a result depends on, as JSON has it. Raises UserError if the plan has no such result."""
    about: dict[str, Any] = {
        "result": name,
        "code": code_version(),
        "seeds": len(plan.seeds),
        "only": plan.project.only,
    }
    about["scale"] = [plan.scale.name, plan.scale.description]
    if name == INDEX:
        about["runs"] = {run.id: run.recipe for run in plan.runs.values()}
    elif name == PAGE:
        about |= {"results": {other: key_of(plan, other) for other in names(plan) if other != PAGE}}
        about |= {"rows": _rows(plan.runs.values()), "claim_seeds": len(plan.claim_seeds)}
    elif name == "claims" and plan.project.claims:
        about |= {"claims": _dumps(plan.project.claims), "compared_otherwise": _dumps(plan.scale.claims)}
        about |= {"claim_seeds": len(plan.claim_seeds), "inputs": _inputs(plan.metrics_of_claims())}
    elif name == SPEED and timed_runs(plan):
        about |= _speed(plan)
    elif name == "compute" and plan.curves:
        runs = [plan.run(row, seed=0) for row in plan.curves]
        about |= {"compute": plan.project.compute.model_dump(mode="json"), "rows": _rows(runs)}
        about |= {"claim_seeds": len(plan.claim_seeds), "inputs": _inputs(plan.metrics_of_compute())}
    elif name.startswith("figures/"):
        about |= _figure(plan, name.removeprefix("figures/"))
    elif name in plan.project.tables:
        about |= _table(plan, name)
    else:
        raise UserError(f"no result is called {name!r}; allowed: {', '.join(names(plan))}")
    return json.loads(json.dumps(about))


def _table(plan: Plan, name: str) -> dict[str, Any]:
    table = plan.project.tables[name]
    runs = [plan.milestone(row.run, seed=0)[0] for row in table.trained]
    runs += [run.teacher.run for run in runs if run.teacher is not None]
    families = {run.row.family: run.family for run in runs}
    return {
        "table": table.model_dump(mode="json"),
        "rows": _rows(runs),
        "families": {
            key: family.model_dump(mode="json", include={"stretch", "overrides"}) | {"bars": family.bars}
            for key, family in families.items()
        },
        "note": plan.scale.notes.get(name),
        "inputs": _inputs([*plan.metrics_of(table), *plan.reports_of(table)]),
    }


def _figure(plan: Plan, name: str) -> dict[str, Any]:
    files, figure = inputs_of(plan, name), figures_of(plan)[name]
    runs = [origin[0] for origin in map(plan.origin, files) if origin is not None]
    shown = getattr(figure.settings, "table", None)
    table = plan.project.tables[shown].model_dump(mode="json") if shown in plan.project.tables else None
    return {"figure": figure.model_dump(mode="json"), "table": table, "rows": _rows(runs), "inputs": _inputs(files)}


def _speed(plan: Plan) -> dict[str, Any]:
    """What is timed, and what is said of it; not the machine, whose figures stay right on another."""
    runs = timed_runs(plan)
    sizes = [
        run.family.model_dump(mode="json", include={"micro_batch"}) | {"encoder": run.keys.encoder} for run in runs
    ]
    return {
        "timed": [[run.name, run.recipe, run.backbone, size] for run, size in zip(runs, sizes, strict=True)],
        "lengths": [reference for _, reference, _ in lengths(plan, runs)],
        "inputs": _inputs([paper_file(plan)]),
    }


def _rows(runs: Iterable[Run]) -> dict[str, Any]:
    return {run.name: [run.row.model_dump(mode="json"), run.stop_epoch] for run in runs}


def _dumps(records: dict[str, Any]) -> dict[str, Any]:
    return {name: record.model_dump(mode="json") for name, record in records.items()}


def _inputs(files: Iterable[Path]) -> list[list[str]]:
    """Names of files, which say what is in them; of those outside of the results, such as the paper's, the hash too."""
    return [[str(path)] if path.is_relative_to(RESULTS) else [path.name, file_sha256(path)] for path in files]


@cache
def code_version() -> str:
    """A hash of the code that turns numbers into tables, figures and pages, and of that which says what runs cost."""
    files = [path for path in sorted(REPORTING.rglob("*")) if path.suffix in (".py", ".html", ".css", ".mplstyle")]
    hashes = [[path.relative_to(REPORTING).as_posix(), file_sha256(path)] for path in files]
    return fingerprint([*hashes, file_sha256(Path(flops.__file__))])


def key_of(plan: Plan, name: str) -> str:
    """The hash of all that a result of the plan depends on."""
    return fingerprint(made_of(plan, name))


# ------------------------------------------------------------------------------------------- what is there


@dataclass(frozen=True)
class Found:
    """What the record of a result says."""

    key: str
    settings: dict[str, Any]  # scale, seeds, claim_seeds, only
    files: dict[str, str]  # name -> SHA-256


def record_of(name: str) -> Path:
    """The record of a result; it lies beside it."""
    return RESULTS / f"{name}.json"


def publish(plan: Plan, name: str, files: Sequence[Path], **more: Any) -> None:
    """Write the record of a result whose ``files`` have just been written; ``more`` stands in it for readers."""
    hashes = {path.name: file_sha256(path) for path in files}
    about = {"result": name, "key": key_of(plan, name), "settings": _settings(plan), "files": hashes, **more}
    write_record(record_of(name), "result", about)


def _settings(plan: Plan) -> dict[str, Any]:
    seeds = {"seeds": len(plan.seeds), "claim_seeds": len(plan.claim_seeds)}
    return {"scale": plan.scale.name, **seeds, "only": plan.project.only}


def find(name: str) -> Found:
    """What is there. Raises UserError if the record is missing or damaged."""
    path = record_of(name)
    if not path.exists():
        raise UserError(f"{path}: missing, so that nothing says what {RESULTS / name} is made of; {_again(name)}")
    about = read_record(path, "result", {"result": name}, _again(name))
    return Found(about["key"], about["settings"], about["files"])


def result_named(csv: Path) -> str:
    """The name of the result that a CSV file is of. Raises UserError unless it lies in results/."""
    if csv.resolve().parent != RESULTS.resolve():
        raise UserError(f"{csv}: not in {RESULTS.resolve()}, where the workflow makes tables; run this in its folder")
    return csv.stem


def is_current(plan: Plan, name: str) -> bool:
    """Whether there is a result of that name that is whole and says that it is the plan's."""
    try:
        require_current(plan, name)
    except UserError:
        return False
    return True


def require_current(plan: Plan, name: str) -> None:
    """Raise UserError unless the result is there, whole, and the plan's."""
    found = find(name)
    if found.key != key_of(plan, name):
        now, then = _settings(plan), found.settings
        differ = ", ".join(f"{key} {then.get(key)} (now {now[key]})" for key in now if then.get(key) != now[key])
        why = f"with {differ}" if differ else "with another configuration, which was edited since"
        raise UserError(f"{RESULTS / name}: made {why}; ask for the same again, or {_again(name)}")
    for file, sha256 in found.files.items():
        path = record_of(name).with_name(file)
        if file_sha256(path) != sha256:
            raise UserError(f"{path}: altered after it was written; delete it, and {_again(name)}")


def _again(name: str) -> str:
    target = {PAGE: "index.html"}.get(name, f"{name}.pdf" if name.startswith("figures/") else f"{name}.csv")
    return f"make it with: snakemake --cores all {RESULTS / target}"


# ---------------------------------------------------------------------------------------- for the workflow


def source_of(plan: Plan, name: str) -> Path:
    """The small input that a result of a fixed name rests on: all that it is made of, under a name with its key."""
    return plan.root / "made_of" / f"{name}.{key_of(plan, name)}.json"


def date_sources(plan: Plan) -> None:
    """Write those inputs of all results, each with a date that says whether its result is to be made.

    It is older than anything if the result that is there is the plan's. If another one is there, the input is written
    now, so that its date alone, with or without Snakemake's records, makes Snakemake make the result anew.
    """
    for name in names(plan):
        path, about = source_of(plan, name), made_of(plan, name)
        _remove_others(path)
        if is_current(plan, name):
            if not path.exists():
                write_record(path, "made of", about)
            os.utime(path, (OLDER, OLDER))
        elif not path.exists() or any(record_of(name).parent.glob(f"{record_of(name).stem}.*")):
            # With the time in it, since Snakemake takes a small file of the same content for unchanged.
            write_record(path, "made of", {"asked": time.time_ns(), **about})


def _remove_others(path: Path) -> None:
    """Remove the inputs of a result under other keys; one that a living Snakemake may be about to read is newer."""
    for other in path.parent.glob(f"{path.stem.rpartition('.')[0]}.????????.json"):
        if other != path and other.stat().st_mtime == OLDER:
            other.unlink(missing_ok=True)
