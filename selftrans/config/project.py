"""All that a configuration folder says at one scale."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from selftrans.config.claims import Claim
from selftrans.config.compute import Compute
from selftrans.config.names import Name, RowName, Seeds
from selftrans.config.records import Record
from selftrans.config.rows import Row
from selftrans.config.scales import Scale
from selftrans.config.signatures import Size
from selftrans.config.tables import Table

HOURS = {"m": 1 / 60, "h": 1, "d": 24}


def hours_of(budget: str) -> float:
    """Of a budget such as 90m, 24h or 7d. Raises ValueError, which says what is allowed, if it is none."""
    found = re.fullmatch(r"([0-9]{1,7}(?:\.[0-9]{1,3})?)([mhd])", budget)
    if found is None:
        raise ValueError("a number of minutes, hours or days of a GPU or core, such as 90m, 24h or 7d")
    return float(found[1]) * HOURS[found[2]]


def _checked(budget: str) -> str:
    hours_of(budget)
    return budget


Budget = Annotated[str, AfterValidator(_checked)]


class Settings(Record):
    """config/config.yaml: what `--config` on the command line changes."""

    scale: Annotated[str, Field(max_length=500)] = "demo"
    seeds: Seeds | None = None  # as many as the scale says, if nothing is said here
    claim_seeds: Seeds | None = None
    only: Annotated[str, Field(max_length=500)] | None = (
        None  # models, or patterns of runs' names: tables keep these rows
    )
    ranks: Size = 1  # processes that train one run together
    nodes: Size = 1  # machines that they are on
    wall_time: Size = 1440  # minutes that a job of a cluster may take
    budget: Budget | None = None  # hours of a GPU or core, of which a call of Snakemake may not take more


class Asked(Settings):
    """What `--config` of a call of Snakemake may say; what it leaves out is as config.yaml has it."""

    folder: str | None = None  # of the configuration, instead of config/
    scale: Annotated[str, Field(max_length=500)] | None = None
    ranks: Size | None = None
    nodes: Size | None = None
    wall_time: Size | None = None


class Project(Record):
    """All of a configuration folder at one scale, before references are resolved."""

    folder: Path
    scale: Scale
    scale_file: Path
    rows: dict[RowName, Row]
    tables: dict[Name, Table]
    claims: dict[Name, Claim]
    compute: Compute | None = None  # rows that are compared by what they cost
    seeds: Seeds
    claim_seeds: Seeds
    only: str | None
    ranks: Size = 1
    nodes: Size = 1
    wall_time: Size = 1440
    budget: Budget | None = None
    absent: frozenset[str] = frozenset()  # names of rows and results of the folder that the scale has not
