"""Whether what a target writes finds room."""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from selftrans.doctor.finding import Finding, ok, warning, wrong
from selftrans.plan.size import in_words

SPARE = 0.2  # of what is written: logs, what is half written, what others write meanwhile
FILES = 10  # that a job makes: results, logs, benchmarks, records, locks


def disk(written: Mapping[Path, int], jobs: int, fallback: Path) -> Iterator[Finding]:
    """For each file system: room, and files, against ``written`` ({folder: bytes}) and the number of ``jobs``.

    Folders may be links to other disks. ``fallback`` is looked at where nothing is written.
    """
    places: dict[int, Path] = {}
    needs: dict[int, int] = defaultdict(int)
    for folder, count in (written or {fallback: 0}).items():
        place = existing(folder)
        device = place.stat().st_dev
        places.setdefault(device, place)
        needs[device] += count
    for device, place in places.items():
        if not os.access(place, os.W_OK):
            yield wrong(f"{place}: cannot be written", "ask its owner, or work in a folder of your own")
            continue
        about = os.statvfs(place)
        yield room(place, needs[device], about.f_bavail * about.f_frsize)
        if about.f_files:  # some file systems have as many as there is room for, and say 0
            yield inodes(place, FILES * jobs, about.f_favail)


def room(place: Path, needed: int, free: int) -> Finding:
    """Whether so many bytes find room; quotas are seen where the file system shows them."""
    what = f"{place}: {in_words(free)} are free, and about {in_words(needed)} will be written"
    if needed > free:
        return wrong(what, "free some, or make results/<scale> a link to a larger disk")
    if (1 + SPARE) * needed > free:
        return warning(what, "which leaves little for anything else")
    return ok(what)


def inodes(place: Path, needed: int, free: int) -> Finding:
    """Whether so many files do."""
    what = f"{place}: {free:,} files more are allowed, and about {needed:,} will be made"
    return ok(what) if needed <= free else wrong(what, "delete some, or ask for a larger quota")


def existing(path: Path) -> Path:
    """``path``, or the nearest folder above it that is there."""
    path = path.absolute()
    return next(found for found in (path, *path.parents) if found.exists())
