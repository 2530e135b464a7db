"""compute.yaml: rows that are compared by what they cost, as far as a scale and ``only`` have them."""

from collections.abc import Collection, Mapping
from pathlib import Path

from selftrans.config.compute import Compute
from selftrans.config.reading.tables import fits
from selftrans.config.records import check, read_yaml, refuse
from selftrans.config.rows import Row


def load_compute(path: Path, rows: Mapping[str, Row], absent: Collection[str], only: str | None) -> Compute | None:
    """The comparison, without rows that are ``absent`` or do not fit ``only``.

    None without the file, or if the vanilla row or all others are left out. Raises UserError for a row that there is
    not, of another model than the vanilla one, or that nothing trains, and for a vanilla one with a method.
    """
    if not path.exists():
        return None
    stated = check(path, Compute, read_yaml(path))
    if stated.vanilla in stated.methods:
        refuse(path, "methods", stated.vanilla, "other rows than the vanilla one")
    for name in stated.rows:
        if name not in rows and name not in absent:
            refuse(path, "vanilla" if name == stated.vanilla else "methods", name, ", ".join(rows))
    left = [name for name in stated.rows if name in rows and (only is None or fits(name, only, rows))]
    if stated.vanilla not in left or len(left) == 1:
        return None
    vanilla = rows[stated.vanilla]
    if vanilla.method is not None:
        refuse(path, "vanilla", stated.vanilla, f"a row without a method; this one has {vanilla.method['name']}")
    for name in left:
        row = rows[name]
        if (row.family, row.model) != (vanilla.family, vanilla.model):
            refuse(path, "methods", name, f"rows of {vanilla.family} {vanilla.model}, as {stated.vanilla} is")
        if row.published is not None:
            refuse(path, "methods", name, "rows that are trained; the weights of this one are published")
    return stated.model_copy(update={"methods": tuple(left[1:])})
