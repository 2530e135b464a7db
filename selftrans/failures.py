"""Why a job failed, from the end of its log: what it said itself, and whether doing it again would end otherwise."""

import re
from dataclasses import dataclass
from pathlib import Path

# How the last words of a verb begin.
ERROR = "error: "  # something is to be put right first
STOPPED = "stopped: "  # the same command goes on
TRACEBACK = "Traceback (most recent call last):"

LAST_WORDS = re.compile(f"^({ERROR}|{STOPPED}|{re.escape(TRACEBACK)})", re.MULTILINE)
END = 16_384  # bytes of a log that are looked at


@dataclass(frozen=True)
class Failure:
    """Why a job ended before its time."""

    sentence: str
    final: bool  # doing the same again would end the same way


def failure_of(log: Path) -> Failure | None:
    """The last words of a job, or None if its log is not there, or ends without any (killed, at work, or done)."""
    try:
        with Path(log).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - END))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return None
    found = list(LAST_WORDS.finditer(text))
    if not found:
        return None
    # Of several ranks one errs, and the others stop since it is gone.
    last = next((words for words in reversed(found) if words[1] != STOPPED), found[-1])
    end = next((words.start() for words in found if words.start() > last.start()), None)
    said = text[last.end() : end].strip()
    if last[1] == TRACEBACK:
        said = said.splitlines()[-1] if said else "a traceback"
    return Failure(said, final=last[1] != STOPPED)
