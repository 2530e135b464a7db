"""Signs of life: a job at work sets the date of its log to now every few seconds.

So whoever looks at nothing but files, from whatever machine, can tell a job at work from one that was killed.
"""

import contextlib
import os
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from selftrans.leases import BEAT, PATIENCE


@contextlib.contextmanager
def beating(descriptor: int, every: float = BEAT) -> Iterator[None]:
    """Set the date of an open file to now every so many seconds; anything else than a regular file has no date."""
    if not _is_file(descriptor):
        yield
        return
    over = threading.Event()

    def beat() -> None:
        while not over.wait(every):
            with contextlib.suppress(OSError):  # no work stops because its sign of life does
                os.utime(descriptor)  # by the clock of whoever keeps the file

    thread = threading.Thread(target=beat, name="beat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _is_file(descriptor: int) -> bool:
    try:
        return stat.S_ISREG(os.fstat(descriptor).st_mode)
    except OSError:  # closed
        return False


class Clocks:
    """How old files are, by the clocks of their file systems: that of the machine at hand may be another's or wrong."""

    def __init__(self) -> None:
        self._now: dict[int, float] = {}  # by file system

    def is_alive(self, path: Path) -> bool:
        """Whether a file was there and had its date set a moment ago.

        Raises OSError where it lies in a folder that cannot be written: the time is that of a file that is made there.
        """
        try:
            with path.open("rb") as file:  # a file server is asked anew when a file is opened
                found = os.fstat(file.fileno())
        except FileNotFoundError:
            return False
        if found.st_dev not in self._now:
            with tempfile.TemporaryFile(dir=path.parent) as file:
                self._now[found.st_dev] = os.fstat(file.fileno()).st_mtime
        return self._now[found.st_dev] - found.st_mtime < PATIENCE
