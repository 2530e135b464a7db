"""The log of a training: a JSON object on a line for every few steps, each sealed and naming its run."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selftrans.artifacts import check_header, seal
from selftrans.errors import UserError
from selftrans.files import require_regular

END = 16_384  # bytes, in which there is a whole line


def log_line(run: str, values: Mapping[str, Any]) -> str:
    """A line of the log of ``run`` (its id), with its end."""
    return json.dumps(seal("log", {"run": run, **values})) + "\n"


def read_lines(path: Path, run: str) -> list[dict[str, Any]]:
    """The values of all lines; none if there is no file. What a killed or living trainer left of a last line is not
    looked at.

    Raises UserError at a line that is damaged, or of another run.
    """
    if not path.exists():
        return []
    require_regular(path)
    whole = path.read_bytes().split(b"\n")[:-1]
    return [_values(f"{path}: line {number}", line, run) for number, line in enumerate(whole, start=1)]


def last_line(path: Path, run: str) -> dict[str, Any] | None:
    """The values of the last whole line, for which only the end of the file is read; None if there is no line.

    Raises UserError if it is damaged, or of another run.
    """
    if not path.exists():
        return None
    require_regular(path)
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - END))
        whole = file.read().split(b"\n")[:-1]
    return _values(f"{path}: last line", whole[-1], run) if whole else None


def _values(where: str, line: bytes, run: str) -> dict[str, Any]:
    try:
        header = json.loads(line)
    except (ValueError, RecursionError):
        raise UserError(f"{where}: found {line[:80]!r}, which is no line of a log; delete that line") from None
    found = check_header(Path(where), header, "log", {"run": run}, "delete that line")
    return {key: value for key, value in found.items() if key not in ("kind", "run")}
