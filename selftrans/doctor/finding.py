"""A finding: how bad it is, what was found, what to do; and what other programs answer."""

import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from selftrans.errors import UserError, system_error

PATIENCE = 20.0  # seconds for another program's answer


@dataclass(frozen=True)
class Finding:
    """A line of the doctor's. What is wrong ends the work sooner or later, of what is a warning it may be so."""

    level: Literal["ok", "warning", "wrong"]
    what: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.level:7}  {self.what}" + (f"; {self.advice}" if self.advice else "")


def ok(what: str, advice: str = "") -> Finding:
    """All is as it should be."""
    return Finding("ok", what, advice)


def warning(what: str, advice: str) -> Finding:
    """It may do harm."""
    return Finding("warning", what, advice)


def wrong(what: str, advice: str) -> Finding:
    """It will not do."""
    return Finding("wrong", what, advice)


def findings_of(checks: Iterable[Callable[[], Iterable[Finding]]]) -> Iterator[Finding]:
    """What the checks find, one after the other. What stops one of them is a finding, and the next goes on."""
    for check in checks:
        try:
            yield from check()
        except UserError as error:
            yield wrong(str(error), "nothing more was looked at here")
        except OSError as error:
            yield wrong(system_error(error), "nothing more was looked at here")


class Answer(NamedTuple):
    """What another program answered."""

    code: int
    output: str
    errors: str

    @property
    def reason(self) -> str:
        """The last line that it said, which of an error is what is the matter."""
        lines = [line.strip() for line in (self.errors or self.output).splitlines() if line.strip()]
        return lines[-1] if lines else f"exit code {self.code}"


def output_of(command: Sequence[str], patience: float = PATIENCE) -> Answer | None:
    """Run a program, and wait for it; None if it is not here. One that says nothing for too long is ended."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=patience, check=False)
    except FileNotFoundError:
        return None
    except subprocess.TimeoutExpired:
        return Answer(124, "", f"no answer within {patience:g} seconds")
    return Answer(done.returncode, done.stdout, done.stderr)
