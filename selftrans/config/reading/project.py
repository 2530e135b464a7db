"""YAML files -> a `Project`, everything checked before any job starts.

A wrong key or value is refused with file, key, what was found and what is allowed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selftrans.config.claims import Claim
from selftrans.config.project import Asked, Project, Settings
from selftrans.config.reading.claims import load_claims
from selftrans.config.reading.compute import load_compute
from selftrans.config.reading.rows import load_rows
from selftrans.config.reading.scales import load_scale
from selftrans.config.reading.tables import fits, keep, keep_tables, load_tables
from selftrans.config.records import check, read_yaml, refuse
from selftrans.config.rows import Row
from selftrans.config.tables import Table


def load_project(folder: Path, **asked: Any) -> Project:
    """Read a configuration folder; ``asked`` are settings to put in the place of those of config.yaml, if not None.

    Raises UserError with file, key, what was found and what is allowed.
    """
    folder = Path(folder)
    settings_file = folder / "config.yaml"
    asked = {key: value for key, value in asked.items() if value is not None}
    stated = read_yaml(settings_file)
    check(settings_file, Settings, stated)  # also what is asked for otherwise
    settings = check(settings_file, Settings, stated | asked)
    if settings.ranks % settings.nodes:
        refuse(settings_file, "nodes", settings.nodes, f"divisors of ranks ({settings.ranks})")
    scale_file, scale = load_scale(settings_file, settings.scale)
    rows, absent = load_rows(folder / "runs.yaml", scale, scale_file)
    tables, names = load_tables(folder / "tables.yaml", rows, absent, scale)
    claims = load_claims(folder / "claims.yaml", scale, scale_file, tables, absent)
    tables = keep_tables(scale_file, scale, tables)
    claims = {name: claim for name, claim in claims.items() if claim.table in (None, *tables)}
    absent |= names - tables.keys()
    compute_file = folder / "compute.yaml"
    compute = load_compute(compute_file, rows, absent, settings.only)
    if compute is None and compute_file.exists():
        absent |= {"compute"}
    if settings.only is not None:
        tables, claims = _kept(settings_file, settings.only, rows, tables, claims)
    return Project(
        folder=folder,
        scale=scale,
        scale_file=scale_file,
        rows=rows,
        tables=tables,
        claims=claims,
        compute=compute,
        seeds=settings.seeds or scale.seeds,
        claim_seeds=settings.claim_seeds or scale.claim_seeds,
        only=settings.only,
        ranks=settings.ranks,
        nodes=settings.nodes,
        wall_time=settings.wall_time,
        budget=settings.budget,
        absent=absent,
    )


def check_asked(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What ``--config`` of a call of Snakemake says: `load_project`'s settings, and the ``folder``.

    Raises UserError for a key that nothing would read, and for a value of another kind.
    """
    return check("--config", Asked, asked).model_dump(exclude_none=True)


def _kept(
    path: Path, only: str, rows: dict[str, Row], tables: dict[str, Table], claims: dict[str, Claim]
) -> tuple[dict[str, Table], dict[str, Claim]]:
    """The tables with those rows, and the claims about those runs, that fit ``only``."""
    narrowed = {name: keep(table, only, rows) for name, table in tables.items()}
    left = {name: table for name, table in narrowed.items() if table is not None}
    if not left:
        models = ", ".join(sorted({row.model for row in rows.values()}))
        refuse(path, "only", only, f"models ({models}) or patterns of runs' names, separated by commas")
    about = {name: claim.references.values() for name, claim in claims.items()}
    return left, {name: claim for name, claim in claims.items() if all(fits(run, only, rows) for run in about[name])}
