"""The GPUs of a machine, shared out among the processes of its user: each asks for as many as it needs.

No torch here, since CUDA reads once which GPUs it may see.
"""

import os
import random
import re
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple

from selftrans.errors import UserError
from selftrans.files import open_own, own_temporary_folder, take

VISIBLE = "CUDA_VISIBLE_DEVICES"
PAUSE = 0.5  # seconds between two looks of who waits

_kept = ExitStack()  # locks of this process; gone with it, however it ends


class Gpu(NamedTuple):
    """A GPU, or a part of one that MIG made."""

    name: str  # by which CUDA is told of it
    identity: str  # the same however it is called: its UUID, if that is known


def visible() -> list[Gpu]:
    """The GPUs that this process may use: those of CUDA_VISIBLE_DEVICES if that is set, else all that nvidia-smi lists.

    Of the former, as CUDA does, those before the first that is not there, or was named already.
    """
    asked = os.environ.get(VISIBLE)
    listed = listed_by(_nvidia_smi())
    if asked is None:
        return [Gpu(uuid, uuid) for uuids in listed for uuid in uuids]
    found: list[Gpu] = []
    for name in map(str.strip, asked.split(",")):
        identity = _identity(name, listed)
        if identity is None or identity in [gpu.identity for gpu in found]:
            break
        found.append(Gpu(name, identity))
    return found


def listed_by(text: str) -> list[list[str]]:
    """What `nvidia-smi -L` says: of each GPU, in its order, the UUIDs of its parts, or its own if it has none."""
    listed: list[list[str]] = []
    for line in text.splitlines():
        uuid = re.search(r"\(UUID: (.+)\)", line)
        if uuid and line.startswith("GPU"):
            listed.append([uuid[1]])
        elif uuid and listed:  # a part; CUDA uses the whole no more
            whole, *parts = listed[-1]
            listed[-1] = [*([] if whole.startswith("GPU") else [whole]), *parts, uuid[1]]
    return listed


def kinds() -> list[str]:
    """What nvidia-smi calls the GPUs of this machine that are not divided by MIG, such as NVIDIA H200."""
    return re.findall(r"^GPU \d+: (.+) \(UUID: .+\)$(?!\n +MIG)", _nvidia_smi(), re.MULTILINE)


def _nvidia_smi() -> str:
    """What it lists; nothing if it is missing or fails, as it does without a driver."""
    try:
        return subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout
    except OSError:
        return ""


def _identity(name: str, listed: Sequence[Sequence[str]]) -> str | None:
    """Which GPU an entry of CUDA_VISIBLE_DEVICES names, by its number or the beginning of its UUID; None if none."""
    if name.isdecimal():
        if not listed:
            return str(int(name))
        return listed[int(name)][0] if int(name) < len(listed) else None
    if not name.startswith(("GPU-", "MIG-")):
        return None
    known = [uuid for uuids in listed for uuid in uuids if uuid.startswith(name)]
    return known[0] if len(known) == 1 else name if not listed else None


def lease_gpus(count: int) -> None:
    """Take ``count`` of the visible GPUs for this process and its children, until it ends; with 0, none is seen.

    Waits, with a sentence, until as many are free at once: nobody holds some while waiting for others. Of the same
    user's processes, each of which asks, none gets another's. Raises UserError if there are not as many.
    """
    found = visible()
    if count > len(found):
        known = f" ({VISIBLE}={os.environ[VISIBLE]})" if VISIBLE in os.environ else ""
        raise UserError(f"--gpus: found {count}; allowed: 0 to {len(found)}, which are visible here{known}")
    told = False
    while True:
        with ExitStack() as locks:
            taken = _take(count, found, locks)
            if len(taken) == count:
                _kept.enter_context(locks.pop_all())
                break
        if not told:
            print(f"--gpus {count}: {len(taken)} of {len(found)} visible GPUs are free; waiting", flush=True)
            told = True
        time.sleep(random.uniform(PAUSE / 2, PAUSE))  # two who took half each do not meet again
    os.environ[VISIBLE] = ",".join(gpu.name for gpu in taken)


def _take(count: int, gpus: Sequence[Gpu], locks: ExitStack) -> list[Gpu]:
    """Those of ``gpus`` that are free, ``count`` at most, locked until ``locks`` are left."""
    taken: list[Gpu] = []
    for gpu in gpus:
        if len(taken) == count:
            break
        lock = open_own(own_temporary_folder("gpus") / gpu.identity.replace("/", "-"))
        if take(lock) is None:
            locks.enter_context(lock)
            taken.append(gpu)
        else:
            lock.close()
    return taken
