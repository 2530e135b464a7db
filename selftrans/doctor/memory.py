"""Whether trainings fit into the memory that they will have: a GPU's, or without one the machine's."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil

from selftrans.doctor.finding import Finding, ok, warning, wrong
from selftrans.plan.memory import PROCESS, Need, need_with_teacher
from selftrans.plan.plan import Plan
from selftrans.plan.resources import JobResources
from selftrans.plan.runs import Run
from selftrans.plan.size import in_words

COMMON = (24, 40, 80, 141)  # GB of GPUs that are to be had
LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container, or of a job


def free_memory(limit: Path = LIMIT) -> int:
    """Bytes that this process and its children may still take."""
    free = psutil.virtual_memory().available
    if limit.exists() and (text := limit.read_text().strip()).isdecimal():
        used = limit.with_name("memory.current")
        free = min(free, int(text) - (int(used.read_text()) if used.exists() else 0))
    return free


def memory(plan: Plan, runs: Iterable[Run], gpus: list[int], cores: int) -> Iterator[Finding]:
    """What the ``runs`` that will be trained need, on GPUs of which so many bytes are free, or on ``cores``."""
    ranks = plan.project.ranks
    jobs = max(1, cores // (plan.scale.threads.train * ranks))
    kinds: dict[tuple[str, str], Run] = {}
    for run in runs:
        known = kinds.setdefault((run.row.family, run.row.model), run)
        if known.teacher is None and run.teacher is not None:
            kinds[run.row.family, run.row.model] = run
    host = free_memory()
    for (family, model), run in kinds.items():
        batch = run.family.batch_size // ranks
        need, what = need_with_teacher(run, ranks), f"training {model} of {family}"
        if gpus:
            yield fits(what, need, min(gpus), batch, "GPU memory", run.model.checkpoint_activations)
        elif run.family.draws == "cuda":
            yield wanted(what, need, batch)
        else:
            share = host // jobs - PROCESS
            yield fits(what, need, share, batch, f"memory ({jobs} at a time)", run.model.checkpoint_activations)
    if gpus and kinds:
        resources, at_once = JobResources(plan), min(jobs, max(1, len(gpus) // ranks))
        most = max(resources.training_memory(run) for run in kinds.values()) * 10**6
        yield host_memory(most * at_once, host, at_once)


def fitting(need: Need, free: int, batch: int) -> int:
    """The most of ``batch`` examples that fit at once and divide it; 0 if not even one does."""
    most = (free - need.weights) // need.example
    return max((size for size in range(1, batch + 1) if batch % size == 0 and size <= most), default=0)


def fits(what: str, need: Need, free: int, batch: int, where: str, checkpointed: bool) -> Finding:
    """Whether a step fits into ``free`` bytes."""
    said = f"{what}: at least {in_words(need.total)} of {where} for {need.micro_batch} examples at once, "
    said += f"{in_words(max(free, 0))} are free"
    if need.total <= free:
        return ok(said)
    if most := fitting(need, free, batch):
        return wrong(said, f"set micro_batch: {most} in the family, which changes no result")
    return wrong(said, "take more memory" + ("" if checkpointed else ", or set checkpoint_activations of the model"))


def wanted(what: str, need: Need, batch: int) -> Finding:
    """Which GPUs would do, where none is at hand, such as on a login node."""
    found: dict[int, int] = {}  # the most that fit: the size that it takes
    for size in COMMON:
        found.setdefault(fitting(need, size * 10**9, batch), size)
    enough = ", ".join(f"{most} fit into {size} GB" for most, size in found.items() if most)
    return ok(
        f"{what}: at least {in_words(need.total)} of GPU memory for {need.micro_batch} examples at once",
        f"by micro_batch, {enough}" if enough else "more than GPUs have: set checkpoint_activations of the model",
    )


def host_memory(needed: int, free: int, at_once: int) -> Finding:
    """Whether the machine can hold the states that trainings save."""
    what = f"{at_once} training{'s' * (at_once > 1)} at a time: about {in_words(needed)} of the machine's memory, "
    what += f"{in_words(free)} are free"
    return ok(what) if needed <= free else warning(what, "fewer at a time: a lower --cores")
