"""Whether SLURM answers, what it has, and which lines of profiles/slurm/config.yaml fit it."""

import getpass
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from selftrans.doctor.finding import Finding, ok, output_of, warning, wrong

SINFO = ("sinfo", "--noheader", "--format=%P|%a|%l|%D|%G|%c|%m")
CONFIG = ("scontrol", "show", "config")
ACCOUNTING = ("sacct", "--noheader", "--allocations", "--format=jobid")
ACCOUNTS = ("sacctmgr", "--noheader", "--parsable2", "show", "associations", "format=account")
PROFILE = "profiles/slurm/config.yaml"
FIRST_LOOK = 40  # seconds after which the executor asks for a job's state first, where nothing else is said
LOOKS = 3  # times that, a finished job must be known to `squeue`


@dataclass(frozen=True)
class Partition:
    """A line of `sinfo`: nodes of a kind in a partition."""

    name: str
    default: bool
    up: bool
    minutes: int | None  # that a job may take; None for any time
    nodes: int
    gpus: tuple[tuple[str, int], ...]  # (type or "", how many to a node)
    cpus: str
    memory: str  # MB of a node

    def __str__(self) -> str:
        limit = "no time limit" if self.minutes is None else f"{self.minutes} minutes"
        gpus = " and ".join(f"{count} × {kind or 'GPU'} each" for kind, count in self.gpus) or "no GPU"
        down = "" if self.up else ", down"
        return f"{self.name}: {limit}, {self.nodes} nodes of {self.cpus} CPUs, {self.memory} MB, {gpus}{down}"


def partitions_of(sinfo: str) -> list[Partition]:
    """The partitions in the answer to `SINFO`."""
    found = []
    for line in sinfo.splitlines():
        fields = line.strip().split("|")
        if len(fields) == 7:
            name, up, limit, nodes, gres, cpus, memory = fields
            found.append(
                Partition(
                    name=name.rstrip("*"),
                    default=name.endswith("*"),
                    up=up == "up",
                    minutes=minutes_of(limit),
                    nodes=int(nodes),
                    gpus=gpus_of(gres),
                    cpus=cpus,
                    memory=memory,
                )
            )
    return found


def minutes_of(limit: str) -> int | None:
    """SLURM's time limits, [days-]hours:minutes:seconds and shorter; None if there is no limit."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", limit)
    if match is None:
        return None
    days, hours, minutes, _ = (int(part or 0) for part in match.groups())
    return (days * 24 + hours) * 60 + minutes


def gpus_of(gres: str) -> tuple[tuple[str, int], ...]:
    """(type, count) of the GPUs among generic resources such as gpu:a100:4(S:0-1),shard:8."""
    found = re.finditer(r"(?:^|,)gpu(?::([^:,()\d][^:,()]*))?:(\d+)", gres)
    return tuple((match[1] or "", int(match[2])) for match in found)


def setting(config: str, name: str) -> str | None:
    """A setting in the answer to `CONFIG`."""
    match = re.search(rf"^{name}\s*=\s*(.*?)\s*$", config, re.MULTILINE)
    return None if match is None else match[1]


def cluster(gpus: int = 1) -> Iterator[Finding]:
    """Ask SLURM, if it is here; without it, jobs run on this machine. A training takes ``gpus`` on a node."""
    answer = output_of(SINFO)
    if answer is None:
        yield ok("no SLURM here: jobs run on this machine")
        return
    if answer.code != 0:
        yield warning(
            f"SLURM's commands are here but no controller answers: {answer.reason}",
            "on a cluster, ask its administrators; elsewhere nothing needs it, and jobs run on this machine",
        )
        return
    if job := os.environ.get("SLURM_JOB_ID"):
        yield warning(f"this is inside of SLURM's job {job}", "call snakemake on a login node instead")
    partitions = partitions_of(answer.output)
    if not any(partition.up for partition in partitions):
        yield wrong("SLURM answers, but has no partition that is up", "ask its administrators")
        return
    yield from (ok(f"SLURM's partition {partition}") for partition in partitions)
    config, accounting = output_of(CONFIG), output_of(ACCOUNTING)
    text = config.output if config is not None else ""
    accounted = accounting is not None and accounting.code == 0
    yield states(accounted, "there is no sacct" if accounting is None else accounting.reason, job_age(text))
    yield selection(text, any(partition.gpus for partition in partitions))
    accounts = accounts_of(getpass.getuser()) if accounted else []
    for line in profile_lines(partitions, text, accounted, accounts, gpus):
        yield ok(f"fits this site: {line}")


def accounts_of(user: str) -> list[str]:
    """The accounts that a user may submit jobs under."""
    answer = output_of([*ACCOUNTS, f"user={user}"])
    return sorted(set(answer.output.split())) if answer is not None and answer.code == 0 else []


def job_age(config: str) -> int:
    """Seconds for which `squeue` knows a job that has ended."""
    match = re.match(r"\d+", setting(config, "MinJobAge") or "")
    return int(match[0]) if match else 0


def states(accounted: bool, reason: str, age: int) -> Finding:
    """How the executor learns that a job has ended: by accounting, or while `squeue` still knows it."""
    if accounted:
        return ok("SLURM's accounting answers")
    if age >= LOOKS * FIRST_LOOK:
        return ok(f"SLURM has no accounting ({reason}), but squeue knows ended jobs for {age} seconds")
    return warning(
        f"SLURM has no accounting ({reason}), and squeue knows ended jobs for {age} seconds only",
        f"ask for MinJobAge={LOOKS * FIRST_LOOK} or more; until then look for jobs sooner, as a line below says",
    )


def selection(config: str, has_gpus: bool) -> Finding:
    """How jobs ask for GPUs."""
    if not has_gpus:
        return warning("no partition of SLURM's has GPUs", "on CPUs alone: snakemake --resources gpu=0")
    if gives_gpus(config):
        return ok("SLURM gives GPUs by --gpus")
    return warning(
        f"SLURM's {setting(config, 'SelectType') or 'SelectType'} knows no --gpus",
        "ask for them by gres, as the lines below say",
    )


def profile_lines(
    partitions: Sequence[Partition], config: str, accounted: bool, accounts: Sequence[str] = (), gpus: int = 1
) -> Iterator[str]:
    """What to write in the profile, and in config.yaml; ``gpus`` are those of a training, on a node."""
    there = by_preference([found for found in partitions if found.up])
    with_gpus = [found for found in there if found.gpus]
    without = [found for found in there if not found.gpus] or there
    yield f"{PROFILE}: default-resources: slurm_partition: {without[0].name}"
    if len(accounts) > 1:
        yield f"{PROFILE}: default-resources: slurm_account: {accounts[0]} # or {', '.join(accounts[1:])}"
    for rule, count in (("train_stage1: &train", gpus), ("sample: &gpu", 1)) if with_gpus else ():
        yield f"{PROFILE}: set-resources: {rule} {{{resources(with_gpus, config, count)}}}"
    if not accounted:
        yield f"{PROFILE}: slurm-status-command: squeue"
        if 0 < job_age(config) < LOOKS * FIRST_LOOK:
            yield f"{PROFILE}: slurm-init-seconds-before-status-checks: {max(job_age(config) // LOOKS, 1)}"
    if (limit := (with_gpus or there)[0].minutes) is not None:
        yield f"config/config.yaml: wall_time: {limit}"


def resources(partitions: Sequence[Partition], config: str, count: int) -> str:
    """Of a rule that takes ``count`` GPUs on a node, in the first of the ``partitions``."""
    best = partitions[0]
    kinds = list(
        dict.fromkeys(kind for found in partitions if found.name == best.name for kind, _ in found.gpus if kind)
    )
    said = f"slurm_partition: {best.name}"
    if not gives_gpus(config):
        return f'{said}, gpu: 0, gres: "gpu:{f"{kinds[0]}:" if kinds else ""}{count}"'
    return f"{said}, gpu_model: {kinds[0]}" if len(set(kinds)) > 1 else said


def gives_gpus(config: str) -> bool:
    """Whether jobs may ask for GPUs by `--gpus`."""
    return (setting(config, "SelectType") or "").endswith("cons_tres")


def by_preference(partitions: Sequence[Partition]) -> list[Partition]:
    """The default partition first, then those that have more GPUs, where queues are shorter, or give more time."""
    gpus: Counter[str] = Counter()
    for found in partitions:
        gpus[found.name] += found.nodes * sum(count for _, count in found.gpus)
    return sorted(partitions, key=lambda found: (not found.default, -gpus[found.name], -(found.minutes or math.inf)))
