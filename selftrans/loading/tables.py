"""tables.yaml: rows with their lines of the paper's file, sweeps written out, and what ``only`` keeps."""

import csv
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from selftrans.config import Row, Scale, Table
from selftrans.loading.entries import entries
from selftrans.records import check, refuse


def load_tables(path: Path, rows: dict[str, Row], scale: Scale) -> dict[str, Table]:
    """All tables by name."""
    tables = {name: _table(path, name, raw) for name, raw in entries(path).items()}
    return {name: _swept(path, name, table, rows, scale) for name, table in tables.items()}


def _table(path: Path, name: str, raw: Any) -> Table:
    """A checked table, whose rows hold the lines of the paper's file, one each."""
    table = check(path, Table, raw, name)
    if table.paper is None:
        for number, row in enumerate(table.rows, start=1):
            if row.run is None:
                refuse(path, f"{name}.rows.{number}.run", None, "run@epoch, since the table has no paper to cite")
        return table
    paper = path.parent / "paper" / table.paper
    if not paper.is_file():
        known = ", ".join(sorted(found.name for found in paper.parent.glob("*.csv")))
        refuse(path, f"{name}.paper", table.paper, f"a file of {paper.parent}: {known}")
    with paper.open(encoding="utf-8") as file:
        lines = [{key: _number(value) for key, value in line.items() if value} for line in csv.DictReader(file)]
    if len(lines) != len(table.rows):
        refuse(path, f"{name}.rows", f"{len(table.rows)} rows", f"{len(lines)}, one for each line of {paper}")
    rows = [row.model_copy(update={"paper": line}) for row, line in zip(table.rows, lines, strict=True)]
    for number, row in enumerate(rows, start=1):
        if row.run is None and not row.paper:
            refuse(path, f"{name}.rows.{number}", row.label, "a run, or a line of the paper's file to cite")
    return table.model_copy(update={"rows": tuple(rows)})


def _swept(path: Path, name: str, table: Table, rows: dict[str, Row], scale: Scale) -> Table:
    """The table with each row once for each preset of its sweep, if it has one."""
    if table.sweep is None:
        return table
    found = []
    for row in table.trained:
        run = row.run.partition("@")[0]
        family = scale.families[rows[run].family] if run in rows else None
        if family is None or table.sweep not in family.sweeps:
            allowed = (
                ", ".join(family.sweeps) if family and family.sweeps else "nothing, since its family has no sweeps"
            )
            refuse(path, f"{name}.sweep", table.sweep, allowed)
        sweep = family.sweeps[table.sweep]
        for ending, preset in sweep.presets(family.presets[sweep.preset]).items():
            label = f"{row.label}, scale {preset.cfg_scale:g}, t ≤ {preset.cfg_interval[1]:g}"
            found.append(row.model_copy(update={"label": label, "preset": f"{table.sweep}-{ending}"}))
    return table.model_copy(update={"rows": tuple(found)})


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def keep(table: Table, only: str, rows: dict[str, Row]) -> Table | None:
    """The table with those rows whose model, or whose run's name, fits ``only``; None if there are none."""
    kept = tuple(line for line in table.trained if fits(line.run, only, rows))
    return table.model_copy(update={"rows": kept}) if kept else None


def fits(reference: str, only: str, rows: dict[str, Row]) -> bool:
    """Whether the run's model, or its name, is among the patterns of ``only``."""
    run = reference.partition("@")[0]
    names = [run, *([rows[run].model] if run in rows else [])]
    return any(fnmatchcase(name, pattern.strip()) for name in names for pattern in only.split(","))
