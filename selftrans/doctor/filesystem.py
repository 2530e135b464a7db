"""How the file system behaves that results are on: tried, not looked up; its name says only what to look at first."""

import fcntl
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from selftrans.doctor.disk import existing
from selftrans.doctor.finding import Finding, ok, warning, wrong
from selftrans.leases import Held, take

MOUNTS = Path("/proc/self/mountinfo")
NETWORK = re.compile(
    r"nfs\d?|cifs|smb\d?|smbfs|lustre|gpfs|beegfs|ceph|panfs|afs|9p|glusterfs|orangefs|pvfs2|wekafs|fuse\..*|virtiofs"
)
SKEW = 2.0  # seconds that clocks may differ by
TEMPORARY = 64  # characters that host, process and a random ending add to the name of what is half written


@dataclass(frozen=True)
class Mount:
    """A line of /proc/self/mountinfo."""

    point: Path
    kind: str
    source: str

    @property
    def is_network(self) -> bool:
        """Whether other machines may have it too."""
        return NETWORK.fullmatch(self.kind) is not None


def mount_of(path: Path, mountinfo: str) -> Mount | None:
    """The mount that ``path`` (absolute) lies on; of several at one place the last, which hides the others."""
    found = None
    for line in mountinfo.splitlines():
        before, separator, after = line.partition(" - ")
        fields, (kind, source, *_) = before.split(), (*after.split(), "", "")
        if not separator or len(fields) < 5:
            continue
        point = Path(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4]))
        if path.is_relative_to(point) and (found is None or len(point.parts) >= len(found.point.parts)):
            found = Mount(point, kind, source)
    return found


def file_system(folder: Path, files: Iterable[Path]) -> Iterator[Finding]:
    """What can be relied on in ``folder``, and whether the names of the ``files`` that will be made fit."""
    place = existing(folder).resolve()
    mount = mount_of(place, MOUNTS.read_text(encoding="utf-8")) if MOUNTS.exists() else None
    if mount is not None:
        what = "a network file system" if mount.is_network else "of this machine"
        yield ok(f"{place}: on {mount.kind} ({mount.source}), {what}")
    with tempfile.TemporaryDirectory(prefix=".doctor-", dir=place) as scratch:
        yield from behaviour(Path(scratch), place, time.time)
    yield from names(place, files)


def behaviour(scratch: Path, place: Path, clock: Callable[[], float]) -> Iterator[Finding]:
    """Try in an empty folder what nothing here works without: dates, leases, links, renaming, names."""
    first, second = scratch / "first", scratch / "second"
    began = clock()
    first.write_text("first")
    written = first.stat().st_mtime
    ended = clock()
    yield clocks(place, max(began - written, written - ended, 0.0))
    yield leases(scratch / "held", place)
    try:
        os.link(first, second)
        linked = first.stat().st_nlink == 2
        second.unlink()
    except OSError:
        linked = False
    second.write_text("second")
    second.replace(first)
    if first.read_text() != "second" or second.exists():
        yield wrong(f"{place}: a renamed file is not the one that was renamed", "put results on another file system")
    else:
        yield ok(f"{place}: files are replaced as a whole")
    if not linked:
        yield warning(f"{place}: no hard links", "put results on another file system, if several machines share them")
    if (scratch / "FIRST").exists():
        yield warning(
            f"{place}: makes no difference between large and small letters",
            "names of rows that differ in nothing else would be one file",
        )
    yield locks(first, place)


def leases(folder: Path, place: Path) -> Finding:
    """Whether a folder that is held, as those of runs are, is held by one alone."""
    lease = take(folder, "a folder that is tried")
    try:
        take(folder, "a folder that is tried", wait=0.0).release()
    except Held:
        return ok(f"{place}: what one process holds, no other one gets")
    finally:
        lease.release()
    return wrong(
        f"{place}: two processes hold one folder, so that both would write the same run",
        "put results on another file system",
    )


def clocks(place: Path, skew: float) -> Finding:
    """Whether a file that was just written has today's date."""
    if skew <= SKEW:
        return ok(f"{place}: dates of files are those of this machine's clock")
    return warning(
        f"{place}: dates of files differ from this machine's clock by {skew:.0f} seconds",
        "tables are made again by date: have both clocks set (NTP)",
    )


def locks(path: Path, place: Path) -> Finding:
    """Whether the kernel locks a file for one alone, which other programs may ask for, and nothing here."""
    with path.open("a") as holder, path.open("a") as other:
        try:
            fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return ok(f"{place}: kernel locks are kept on this machine")
        except OSError as error:
            return ok(f"{place}: no kernel locks ({error.strerror}); nothing here needs them")
    return ok(f"{place}: kernel locks keep nobody out; nothing here needs them")


def names(place: Path, files: Iterable[Path]) -> Iterator[Finding]:
    """Whether the longest names fit, also while their files are half written."""
    longest = max((len(os.fsencode(path.name)) for path in files), default=0) + TEMPORARY
    deepest = max((len(os.fsencode(path.absolute())) for path in files), default=0) + TEMPORARY
    for what, needed, allowed in (
        ("names", longest, os.pathconf(place, "PC_NAME_MAX")),
        ("paths", deepest, os.pathconf(place, "PC_PATH_MAX")),
    ):
        if needed > allowed:
            yield wrong(
                f"{place}: {what} of {needed} characters are needed, and {allowed} are allowed",
                "shorten the names of rows and presets, or work in a folder nearer to the root",
            )
