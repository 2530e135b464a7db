"""One bar for each thing that takes time, also when the workflow sends a job's output to its log."""

import itertools
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from selftrans.errors import UserError
from selftrans.files import open_own, own_temporary_folder, take

TERMINAL = "SELFTRANS_TERMINAL"  # set by the Snakefile to the terminal that it was started from


@contextmanager
def progress_bar(total: int, description: str, unit: str, initial: int = 0, shown: bool = True) -> Iterator[tqdm]:
    """A tqdm bar with rate and time left.

    Run by hand, it is drawn on standard error. Under the workflow it is drawn on the terminal that the
    workflow was started from, each job on a line of its own. Without a terminal there is no bar, nor with
    one that cannot be opened, since it is closed by now or another machine's. Of several processes at one work only
    one has its bar ``shown``.
    """
    if not shown:
        yield tqdm(disable=True)
        return
    options: dict[str, Any] = {"total": total, "initial": initial, "desc": description, "unit": unit}
    options["unit_scale"] = unit == "B"  # bytes are said in kB, MB and GB
    terminal = os.environ.get(TERMINAL)
    if terminal is None:
        with tqdm(**options, disable=None) as bar:
            yield bar
        return
    try:
        screen = open(terminal, "w")  # noqa: PTH123, SIM115 - a device, closed below
    except OSError:
        yield tqdm(**options, disable=True)
        return
    with (
        screen,
        _free_line(terminal) as line,
        tqdm(**options, file=screen, position=line, leave=False, dynamic_ncols=True) as bar,
    ):
        yield bar


@contextmanager
def _free_line(terminal: str) -> Iterator[int]:
    """The lowest line that no other process draws on: a kernel lock per line, gone with its process.

    Where locks cannot be had it is the lowest of all: no work stops for want of a line.
    """
    with ExitStack() as stack:
        try:
            line = _take_line(own_temporary_folder(f"bars{terminal.replace('/', '-')}"), stack)
        except (OSError, UserError):  # there is no room, or somebody has put something else in a file's place
            line = 0
        yield line


def _take_line(folder: Path, stack: ExitStack) -> int:
    """Lock a line until the stack is left."""
    return next(line for line in itertools.count() if take(stack.enter_context(open_own(folder / str(line)))) is None)
