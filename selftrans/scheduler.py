"""What the Snakefile does besides rules: one Snakemake at a time in a folder, jobs that end with it, profiles.

No torch here, since the Snakefile imports it.
"""

import argparse
import atexit
import contextlib
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from selftrans.errors import UserError
from selftrans.leases import PATIENCE, Held, Lease, take

FOLDER = Path(".snakemake")  # Snakemake's own, in the folder that it works in
SNAKEMAKES_LOCKS = FOLDER / "locks"  # files of its own, which a killed Snakemake leaves behind
WAIT = 2.0  # seconds; `release_stale_locks` holds the folder for a moment


def hold_folder(patience: float = PATIENCE) -> None:
    """Take this folder until this process ends. Raises UserError if another Snakemake runs jobs here.

    That may be one on another machine; if it was killed, it is waited for ``patience`` seconds.
    """
    atexit.register(_take(WAIT, patience).release)


def _take(wait: float, patience: float = PATIENCE) -> Lease:
    """The lease of this folder, for which a Snakemake that lives is waited for ``wait`` seconds."""
    try:
        return take(FOLDER, str(Path.cwd()), wait, patience=patience)
    except Held as refused:
        raise UserError(
            f"{Path.cwd()}: {refused.holder} is a snakemake at work here: wait for it to end, or stop it"
        ) from None


def release_stale_locks() -> bool:
    """Remove Snakemake's own locks if their owner was killed; returns whether there were any.

    Raises UserError while a Snakemake runs jobs here.
    """
    if not any(SNAKEMAKES_LOCKS.glob("*")):
        return False
    lease = _take(0.0)
    try:
        for lock in SNAKEMAKES_LOCKS.glob("*"):
            lock.unlink(missing_ok=True)
    finally:
        lease.release()
    return True


def end_jobs_on_sigterm() -> None:
    """Pass SIGTERM on to the jobs: they save and end, and Snakemake ends with them.

    Snakemake's own handler, which must be in place, starts no more jobs and waits for those that run, hours maybe.
    It also takes a lock that the interrupted code may hold; so the handler here only wakes a thread, which calls it.
    """
    stop_starting = signal.getsignal(signal.SIGTERM)
    reader, writer = os.pipe()

    def wait_and_tell() -> None:
        os.read(reader, 1)
        if callable(stop_starting):
            stop_starting(signal.SIGTERM, None)
        _tell_jobs()

    threading.Thread(target=wait_and_tell, daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: os.write(writer, b"!") and None)


def _tell_jobs() -> None:
    """Send SIGTERM to each child of this process once, also to those that are only being started."""
    import psutil

    told: set[psutil.Process] = set()
    while True:
        for job in set(psutil.Process().children()) - told:
            with contextlib.suppress(psutil.NoSuchProcess):
                job.terminate()
            told.add(job)
        time.sleep(0.2)


def check_profile(arguments: Sequence[str], root: Path) -> None:
    """Raise UserError if ``arguments`` of a snakemake call name a workflow profile that is not there.

    Snakemake looks for it from where it was called and beside the Snakefile, in ``root``, and without a word goes on
    without it: what was meant for a cluster would run on the machine at hand.
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--workflow-profile")
    asked = parser.parse_known_args(arguments)[0].workflow_profile
    if asked in (None, "none"):
        return
    called_from = {Path.cwd(), Path(os.environ.get("PWD", "."))}  # with --directory, they differ
    places = [folder / asked for folder in called_from]
    places += [folder / "profiles" / asked for folder in (*called_from, root)]
    if not any(place.exists() for place in places):
        there = sorted(f"profiles/{path.parent.name}" for path in (root / "profiles").glob("*/config.yaml"))
        raise UserError(
            f"--workflow-profile: found {asked!r}, which is not there, and without it every job would run on this "
            f"machine; allowed: none, {', '.join(there)}, or the path of a profile of your own"
        )
