"""tables.yaml: rows with their lines of the paper's file, sweeps written out, and what ``only`` keeps."""

import re
from collections.abc import Collection
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from selftrans.config.names import run_of
from selftrans.config.reading.entries import entries, those_like
from selftrans.config.reading.papers import check_numbers, check_order, papers_file, read_paper
from selftrans.config.records import check, refuse
from selftrans.config.rows import Row
from selftrans.config.scales import Scale
from selftrans.config.tables import Table, TableRow

# What else lies in results/ under a name; file systems may not tell capitals from small letters.
TAKEN = {
    "claims": "results/claims.csv has the verdicts on claims.yaml",
    "compute": "results/compute.csv has what the rows of compute.yaml cost",
    "figures": "results/figures/ has the figures",
    "index": "results/INDEX.csv says which row is which folder",
    "provenance": "results/provenance.html is a page of its own",
    "readme": "results/README.md says what lies there",
    "report": "results/report.html is Snakemake's report",
    "speed": "results/speed.csv has the time that trainings take",
    "training": "results/training.html is a page of its own",
}


def load_tables(
    path: Path, rows: dict[str, Row], absent: Collection[str], scale: Scale
) -> tuple[dict[str, Table], frozenset[str]]:
    """(tables by name, names of all tables): without rows that are ``absent`` at the scale, and tables of no others."""
    stated = {name: _table(path, name, raw) for name, raw in entries(path).items()}
    tables = {name: _without(table, absent) for name, table in stated.items()}
    there = {name: _swept(path, name, table, rows, scale) for name, table in tables.items() if table is not None}
    return there, frozenset(stated)


def keep_tables(path: Path, scale: Scale, tables: dict[str, Table]) -> dict[str, Table]:
    """The tables that the scale's file, ``path``, names."""
    there = those_like(path, "tables", scale.tables, tables)
    return {name: table for name, table in tables.items() if name in there}


def _without(table: Table, absent: Collection[str]) -> Table | None:
    """The table without rows whose run is ``absent``; None if it had a run for some of its rows and has no more."""
    kept = tuple(row for row in table.rows if row.run is None or run_of(row.run) not in absent)
    left = any(row.run is not None for row in kept) or not table.trained
    return table.model_copy(update={"rows": kept}) if left else None


def _table(path: Path, name: str, raw: Any) -> Table:
    """A checked table, whose rows hold the lines of the paper's file, one each."""
    if name in TAKEN:
        refuse(path, name, name, f"another name, since {TAKEN[name]}")
    table = check(path, Table, raw, name)
    if table.paper is None:
        for number, row in enumerate(table.rows, start=1):
            if row.run is None:
                refuse(path, f"{name}.rows.{number}.run", None, "run@epoch, since the table has no paper to cite")
            check_numbers(path, f"{name}.rows.{number}.paper", row.paper)
        return table
    paper = papers_file(path.parent, table.paper, f"{path}: {name}.paper")
    lines = read_paper(paper)
    if len(lines) != len(table.rows):
        refuse(path, f"{name}.rows", f"{len(table.rows)} rows", f"{len(lines)}, one for each line of {paper}")
    check_order(paper, lines, [row.label for row in table.rows])
    for number, (row, line) in enumerate(zip(table.rows, lines, strict=True), start=1):
        key = f"{name}.rows.{number}"
        if row.paper:
            refuse(path, f"{key}.paper", row.paper, f"nothing, since {paper} has the paper's values")
        if row.run is None and not line:
            refuse(path, key, row.label, "a run, or a line of the paper's file to cite")
        _check_epochs(paper, f"entry {number}: epochs", row, line.get("epochs"))
    rows = [row.model_copy(update={"paper": line}) for row, line in zip(table.rows, lines, strict=True)]
    return table.model_copy(update={"rows": tuple(rows)})


def _check_epochs(path: Path, key: str, row: TableRow, stated: float | str | None) -> None:
    """The paper's epochs, exact or such as >=1200, are those of the row's run."""
    if stated is None:
        return
    found = re.fullmatch(r"(>=)?([1-9][0-9]{0,5})", f"{stated:g}" if isinstance(stated, float) else stated)
    if found is None:
        refuse(path, key, stated, "a whole number of epochs, or at least as many, such as >=1200")
    if row.run is not None:
        epoch, least = int(row.run.partition("@")[2]), int(found[2])
        if epoch < least or (epoch > least and not found[1]):
            refuse(path, key, stated, f"{epoch}, as {row.run} has, whose line this is")


def _swept(path: Path, name: str, table: Table, rows: dict[str, Row], scale: Scale) -> Table:
    """The table with each row once for each preset of its sweep, if it has one."""
    if table.sweep is None:
        return table
    found = []
    for row in table.trained:
        run = run_of(row.run)
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


def keep(table: Table, only: str, rows: dict[str, Row]) -> Table | None:
    """The table with those rows whose model, or whose run's name, fits ``only``; None if there are none."""
    kept = tuple(line for line in table.trained if fits(line.run, only, rows))
    return table.model_copy(update={"rows": kept}) if kept else None


def fits(reference: str, only: str, rows: dict[str, Row]) -> bool:
    """Whether the run's model, or its name, is among the patterns of ``only``."""
    run = run_of(reference)
    names = [run, *([rows[run].model] if run in rows else [])]
    return any(fnmatchcase(name, pattern.strip()) for name in names for pattern in only.split(","))
