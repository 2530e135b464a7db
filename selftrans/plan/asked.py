"""Which milestones anything asks for: a table, a claim, a figure, a student of its teacher.

A training job ends at each of them. The weights of those in between it writes as it passes.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from selftrans.config.names import REFERENCE
from selftrans.config.project import Project
from selftrans.config.records import read_yaml

EVERY = range(10**9)  # epoch


def asked_epochs(project: Project) -> Mapping[str, range | set[int]]:
    """{row: the epochs at which its weights are asked for}; where a curve is drawn of a row, at every epoch."""
    references = [*_of_tables(project), *_of_claims(project), *_of_teachers(project)]
    files = (project.folder / name for name in ("figures.yaml", "compute.yaml"))
    named = {text for file in files if file.exists() for text in _texts(read_yaml(file))}
    found: defaultdict[str, range | set[int]] = defaultdict(set)
    for text in (*references, *named):
        if match := re.fullmatch(REFERENCE, text):
            found[match[1]].add(int(match[2]))
    return found | dict.fromkeys(named & project.rows.keys(), EVERY)


def _of_tables(project: Project) -> Iterator[str]:
    for table in project.tables.values():
        for row in table.trained:
            yield from filter(None, (row.run, row.compare_with or table.compare_with))


def _of_claims(project: Project) -> Iterator[str]:
    for claim in project.claims.values():
        yield from claim.references.values()


def _of_teachers(project: Project) -> Iterator[str]:
    """At the scale's epochs."""
    for row in project.rows.values():
        if row.teacher is not None and (match := re.fullmatch(REFERENCE, row.teacher)) and match[1] in project.rows:
            family = project.scale.families[project.rows[match[1]].family]
            yield f"{match[1]}@{round(int(match[2]) * family.stretch.teacher)}"


def _texts(value: Any) -> Iterator[str]:
    """All texts in what a YAML file holds."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)
