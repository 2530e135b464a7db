"""What the Snakefile does besides rules: one Snakemake at a time in a folder, jobs that end with it, retries, profiles.

No torch here, since the Snakefile imports it.
"""

import argparse
import atexit
import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from selftrans.errors import UserError
from selftrans.failures import failure_of
from selftrans.leases import PATIENCE, Held, Lease, take

FOLDER = Path(".snakemake")  # Snakemake's own, in the folder that it works in
SNAKEMAKES_LOCKS = FOLDER / "locks"  # files of its own, which a killed Snakemake leaves behind
CLOCKS = 120.0  # seconds by which clocks of machines may differ
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


def end_jobs_on_sigterm(here: bool = True) -> None:
    """Pass SIGTERM on to the jobs: they save and end, and Snakemake ends with them.

    Jobs that do not run ``here`` but on a cluster are cancelled, as by Ctrl-C.
    Snakemake's own handler, which must be in place, starts no more jobs and waits for those that run, hours maybe.
    It also takes a lock that the interrupted code may hold; so the handler here only wakes a thread, which calls it.
    """
    stop_starting = signal.getsignal(signal.SIGTERM)
    reader, writer = os.pipe()

    def wake() -> None:
        if callable(stop_starting):
            stop_starting(signal.SIGTERM, None)

    def wait_and_tell() -> None:
        os.read(reader, 1)
        wake()
        if here:
            _tell_jobs()
            return
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        while True:  # a signal that comes just before a thread waits for a lock is not heard until that is released
            time.sleep(1.0)
            wake()

    threading.Thread(target=wait_and_tell, daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: os.write(writer, b"!") and None)


def retry_what_goes_on(progress_of: Callable[[Any], Path | None]) -> None:
    """Make Snakemake's retries (``--retries``, or a profile's) count attempts that came to nothing.

    A job whose log says that something is to be put right first is not tried again. One that has gone on since its last
    failure is, however often that was: a training that is longer than the wall time takes as many jobs as it needs.
    ``progress_of`` a job is the file or folder that it goes on from, if any, whose date tells.
    """
    from snakemake.jobs import GroupJob, Job

    given = Job.restart_times
    began = time.time() - CLOCKS
    failures: dict[Any, dict[int, int | None]] = {}  # of each job: {attempt: date of its progress}

    def restart_times(job: Any) -> int:
        logs = [Path(log) for log in job.log if Path(log).exists() and Path(log).stat().st_mtime > began]
        if any(failure.final for failure in map(failure_of, logs) if failure):
            return 0
        progress = progress_of(job)
        date = progress.stat().st_mtime_ns if progress and progress.exists() else None
        dates = failures.setdefault(job, {})
        dates[job.attempt] = date
        fruitless = sum(found == date for found in dates.values())
        return job.attempt - fruitless + given.fget(job)

    Job.restart_times = property(restart_times)
    GroupJob.restart_times = property(lambda group: min(job.restart_times for job in group.jobs))


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


def require_accounting(executor: Any) -> None:
    """Raise UserError if Snakemake's settings ``executor`` ask SLURM's accounting, which does not answer.

    The executor would wait for its jobs for ever.
    """
    if getattr(executor, "status_command", None) != "sacct":
        return
    asked = subprocess.run(["sacct", "-n", "-X", "-j", "1"], capture_output=True, text=True)
    if asked.returncode:
        reason = asked.stderr.strip() or f"it ended with {asked.returncode}"
        raise UserError(
            f"profile: jobs are looked after by sacct, which says: {reason}; where there is no accounting, set "
            "`slurm-status-command: squeue` in the profile, or --slurm-status-command squeue"
        )


def require_nodes(nodes: int, here: bool) -> None:
    """Raise UserError if jobs that want several ``nodes`` are to run ``here``, on this one."""
    if nodes > 1 and here:
        raise UserError(
            f"nodes: found {nodes}, but jobs run on this machine alone; allowed: 1, or a cluster that gives a job "
            "several: --workflow-profile profiles/slurm"
        )


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
