"""One process at a time in a folder that several machines may share, whatever dies: a lease that its holder renews.

A kernel lock is as good as a network file system's support for it, so this one asks for less: that a file is created
for one alone (`files.create_text`), and that who opens a file anew sees what was written when another closed it.

- A lease is a file, ``lease-<n>.json``, that says who holds the folder, and counts a beat up as long as that one lives.
- Who finds one of a process of this machine that is gone takes over at once; else when the file has stood still for
  `PATIENCE` seconds of looking at it. No two clocks are compared.
- To take over is to create the file of the next number, which one alone can, and then to see that what was judged is
  still there as it was, and nothing else. If not, somebody was faster, or the holder lives: the file is withdrawn.
  Else the predecessor's is removed. Nobody ever writes into another's file.
- A holder that stood still and was dispossessed finds its file gone when it asks `Lease.check`, as it does before it
  publishes anything.
"""

import errno
import json
import math
import os
import random
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from selftrans.errors import Interrupted, UserError
from selftrans.files import create_text, is_alive, remove_leftovers

BEAT = 10.0  # seconds between two beats of a holder
PATIENCE = 60.0  # seconds that a lease may stand still
PAUSE = 1.0  # seconds between two looks of who waits
NAME = "lease-{}.json"
FIELDS = {"token", "host", "boot", "pid", "began", "job", "beat"}
DIGITS = 12  # room for the beat: a file keeps its size


@dataclass(frozen=True)
class Holder:
    """A lease as it was found: its file, and the bytes in it, which change while the holder lives."""

    path: Path
    content: bytes

    @cached_property
    def about(self) -> dict[str, Any]:
        """token, host, boot, pid, began, job and beat of the holder; nothing if the file is damaged."""
        try:
            about = json.loads(self.content)
        except (ValueError, RecursionError):
            return {}
        known = isinstance(about, dict) and about.keys() >= FIELDS
        return about if known and isinstance(about["pid"], int) else {}

    def __str__(self) -> str:
        if not self.about:
            return f"another process ({self.path} is damaged)"
        job = f" (SLURM job {self.about['job']})" if self.about["job"] else ""
        return f"process {self.about['pid']} on {self.about['host']}{job}"

    @property
    def number(self) -> int:
        """That of its file; a successor has the next."""
        return int(re.findall(r"\d+", self.path.name)[0])

    @property
    def is_of_this_machine(self) -> bool:
        """Whether its process would be seen from here."""
        this = _about_this_process()
        return bool(self.about) and all(self.about[key] == this[key] for key in ("host", "boot"))

    @property
    def is_gone(self) -> bool:
        """Whether it is known to have ended; of another machine, nothing is known."""
        return self.is_of_this_machine and not _lives(self.about["pid"], self.about["began"])


class Held(UserError):  # noqa: N818 - not the caller's error
    """Somebody else, who lives, holds the folder."""

    def __init__(self, what: str, holder: Holder) -> None:
        super().__init__(f"{what} is held by {holder}")
        self.holder = holder


def holders(folder: Path) -> list[Holder]:
    """The leases in a folder, by number: none, or one; for a moment, or if somebody died in it, a successor too."""
    paths = [path for path in Path(folder).glob(NAME.format("*")) if re.fullmatch(NAME.format(r"\d+"), path.name)]
    found = [Holder(path, content) for path in paths if (content := _read(path)) is not None]
    return sorted(found, key=lambda holder: holder.number)


class Lease:
    """A folder that this process holds, from when it is made until `release`; a thread renews it."""

    def __init__(self, path: Path, what: str, about: dict[str, Any], beat: float) -> None:
        self.path, self.what, self._about, self._beats = path, what, about, 0
        self._released = threading.Event()
        threading.Thread(target=self._renew_every, args=(beat,), name=f"lease of {what}", daemon=True).start()

    def check(self) -> None:
        """Raise Interrupted if the folder is another's by now."""
        if self._is_ours(_read(self.path)):
            return
        now = holders(self.path.parent)
        if now:
            reason = f"was taken over by {now[-1]} while this one stood still; it goes on there"
        else:
            reason = f"somebody removed {self.path}, by which this process held it; the same command goes on"
        raise Interrupted(f"{self.what}: {reason}")

    def release(self) -> None:
        """Give the folder back, if it is still ours; a forked child, which does not hold it, does nothing."""
        if os.getpid() != self._about["pid"]:
            return
        self._released.set()
        if self._is_ours(_read(self.path)):
            self.path.unlink(missing_ok=True)

    def _renew_every(self, seconds: float) -> None:
        """Until it is released or lost. A full disk or a server that does not answer ends nothing: `check` tells."""
        while not self._released.wait(seconds):
            try:
                if not self._renew():
                    return
            except OSError:
                continue

    def _renew(self) -> bool:
        """Write the next beat into our own file, wherever its name has gone; returns whether it is there."""
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        with os.fdopen(descriptor, "r+b", buffering=0) as file:  # closing sends it to the server
            if not self._is_ours(file.read()):
                return False
            self._beats += 1
            file.seek(0)
            file.write(_text(self._about, self._beats).encode())
        return True

    def _is_ours(self, content: bytes | None) -> bool:
        return content is not None and Holder(self.path, content).about.get("token") == self._about["token"]


@contextmanager
def held(folder: Path, what: str, beat: float = BEAT, patience: float = PATIENCE) -> Iterator[Lease]:
    """Hold ``folder`` for this process alone; wait, with a sentence that begins with ``what``, while another has it."""
    lease = take(folder, what, beat=beat, patience=patience)
    try:
        yield lease
    finally:
        lease.release()


def take(folder: Path, what: str, wait: float = math.inf, beat: float = BEAT, patience: float = PATIENCE) -> Lease:
    """The lease of ``folder``, which is made if it is not there.

    A holder that is known to live is waited for ``wait`` seconds, one of which nothing is known until it moves, or has
    stood still for ``patience`` seconds. Raises Held after that.
    """
    watch, told = _Watch(Path(folder), patience), None
    deadline = time.monotonic() + wait
    while True:
        holder = watch.look()
        if holder is None:
            lease = _succeed(Path(folder), what, watch.found, beat)
            if lease is not None:
                return lease
            time.sleep(random.uniform(0, 0.05))  # two who withdrew for each other do not meet again
            continue
        if watch.lives(holder) and time.monotonic() >= deadline:
            raise Held(what, holder)
        if told != str(holder) and (wait == math.inf or not watch.lives(holder)):
            sign = "" if wait == math.inf else f" for a sign of life, {patience:g} seconds at most"
            print(f"{what} is held by {holder}; waiting{sign}", flush=True)
            told = str(holder)
        time.sleep(min(PAUSE, patience / 10))


class _Watch:
    """The leases of a folder, and for how long each has stood still while it was looked at."""

    def __init__(self, folder: Path, patience: float) -> None:
        self.folder, self.patience = folder, patience
        self._still: dict[Holder, float] = {}
        self._moved: set[Path] = set()
        self._looked = time.monotonic()

    @property
    def found(self) -> Sequence[Holder]:
        """What was seen at the last look."""
        return list(self._still)

    def look(self) -> Holder | None:
        """A holder that must be waited for; None if there is none, or all are dead.

        Time in which nobody looked, since this process or the file system stood still itself, counts little.
        """
        now = time.monotonic()
        passed, self._looked = min(now - self._looked, self.patience / 5), now
        known, found = {holder.path for holder in self._still}, holders(self.folder)
        self._moved |= {holder.path for holder in found if holder.path in known and holder not in self._still}
        self._still = {holder: self._still.get(holder, -passed) + passed for holder in found}
        waited = (holder for holder, still in self._still.items() if still < self.patience and not holder.is_gone)
        return max(waited, key=lambda holder: holder.number, default=None)

    def lives(self, holder: Holder) -> bool:
        """Whether it was seen to beat, or its process is one of this machine."""
        return holder.is_of_this_machine or holder.path in self._moved


def _succeed(folder: Path, what: str, dead: Sequence[Holder], beat: float) -> Lease | None:
    """The lease that follows the ``dead``; None if another was faster, or one of them lives after all."""
    path = folder / NAME.format(1 + max((holder.number for holder in dead), default=0))
    about = {"token": secrets.token_hex(8), **_about_this_process()}
    if not create_text(path, _text(about, 0)):
        return None
    if {holder for holder in holders(folder) if holder.path != path} != set(dead):
        path.unlink(missing_ok=True)
        return None
    for holder in dead:
        remove_leftovers(holder.path)
        holder.path.unlink(missing_ok=True)
    return Lease(path, what, about, beat)


def _text(about: dict[str, Any], beat: int) -> str:
    """What stands in a lease's file; always as long, so that it is written over in its place."""
    return json.dumps({**about, "beat": beat}).ljust(len(json.dumps({**about, "beat": 0})) + DIGITS) + "\n"


def _read(path: Path) -> bytes | None:
    """The bytes of a file that is opened anew; None if it is gone. A link or folder in its place is refused."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            return file.read()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESTALE):
            raise
        return None


def _about_this_process() -> dict[str, Any]:
    """Who this is: host, boot (within which process ids mean the same), process, when it began, and its SLURM job."""
    return {
        "host": socket.gethostname(),
        "boot": _boot(),
        "pid": os.getpid(),
        "began": (_stat(os.getpid()) or ("", ""))[1],
        "job": os.environ.get("SLURM_JOB_ID"),
    }


def _boot() -> str:
    """The running of the kernel, and the container's own process ids in it; empty where they cannot be asked for."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _lives(pid: int, began: str) -> bool:
    """Whether a process of this machine is there, and no other that has its number by now.

    Where that is not told, it is believed to live: its beat says more.
    """
    if not is_alive(pid):
        return False
    found = _stat(pid)
    return found is None or (found[0] not in "ZX" and found[1] == began)


def _stat(pid: int) -> tuple[str, str] | None:
    """(state, beginning in ticks since the boot) of a process; None where that cannot be asked for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], fields[19]
