"""Leases written by hand, as another machine would have written them."""

import json
from pathlib import Path
from typing import Any

from selftrans.leases import holders

STRANGER = {"token": "0", "host": "n2", "boot": "another", "pid": 7, "began": "1", "job": "45", "beat": 0}
CALLED = "process 7 on n2 (SLURM job 45)"


def write_lease(folder: Path, number: int = 1, **said: Any) -> Path:
    """A lease of process 7 on n2, but for what is ``said`` otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"lease-{number}.json"
    path.write_text(json.dumps(STRANGER | said))
    return path


def take_over(folder: Path) -> Path:
    """What another machine does to a lease that stood still."""
    (found,) = holders(folder)
    stolen = write_lease(folder, found.number + 1)
    found.path.unlink()
    return stolen
