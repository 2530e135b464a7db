"""GPUs: the driver, whether this build of torch goes with it, and what torch makes of them."""

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from selftrans.doctor.finding import Finding, ok, output_of, warning, wrong
from selftrans.errors import UserError
from selftrans.plan.size import in_words

DRIVER = Path("/proc/driver/nvidia")
OLDEST_DRIVER = {11: 450, 12: 525, 13: 580}  # that a version of CUDA works with, its own compatibility aside
PROBE = Path(__file__).with_name("probe.py")
PATIENCE = 180.0  # seconds for torch, which may be on a network file system
HIDE = "or hide the GPUs, if the CPU is what you want: CUDA_VISIBLE_DEVICES="


@dataclass(frozen=True)
class Gpu:
    """A GPU as torch sees it; bytes."""

    name: str
    free: int
    total: int
    right: bool  # products of matrices
    bfloat16: bool  # whether it has units for it
    right_bfloat16: bool


def torch_build() -> tuple[str, str | None]:
    """(version, version of CUDA or None) of the torch that is installed, without importing it; ("", None) of none."""
    found = find_spec("torch")
    if found is None or found.origin is None:
        return "", None
    try:
        named = version("torch")
    except PackageNotFoundError:
        named = "of unknown version"
    about = Path(found.origin).with_name("version.py")
    text = about.read_text(encoding="utf-8") if about.exists() else ""
    cuda = re.search(r"^cuda\b[^=]*= *'([\d.]+)'", text, re.MULTILINE)
    return named, cuda[1] if cuda else None


def kernel_driver(folder: Path = DRIVER) -> tuple[str, int] | None:
    """(version, number of GPUs) of the driver in the kernel; None if there is none."""
    path = folder / "version"
    if not path.exists():
        return None
    found = re.search(r"\s(\d{3,}\.\d+(?:\.\d+)?)\s", path.read_text(encoding="utf-8"))
    return found[1] if found else "of unknown version", len(list((folder / "gpus").glob("*")))


def hidden(environment: Mapping[str, str]) -> bool:
    """Whether CUDA_VISIBLE_DEVICES hides all GPUs."""
    return environment.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1")


def build(
    torch: tuple[str, str | None], driver: tuple[str, int] | None, environment: Mapping[str, str]
) -> Iterator[Finding]:
    """Whether torch's build and the driver go together, as far as their versions say."""
    (named, cuda), visible = torch, environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        yield ok(f"CUDA_VISIBLE_DEVICES={visible}" + (": no GPU is used" if hidden(environment) else ""))
    if driver is None or driver[1] == 0:
        yield ok("no NVIDIA GPU here: work runs on the CPU")
        return
    gpus = f"{driver[1]} GPU{'s' * (driver[1] > 1)} (driver {driver[0]})"
    if hidden(environment):
        return
    if cuda is None:
        yield wrong(
            f"torch {named} is a build for CPUs, beside {gpus}",
            f"install the one for CUDA, `pip install --force-reinstall torch torchvision`, {HIDE}",
        )
        return
    oldest = OLDEST_DRIVER.get(int(cuda.split(".")[0]), 0)
    compatible = "compat" in environment.get("LD_LIBRARY_PATH", "")
    if driver[0][0].isdigit() and int(driver[0].split(".")[0]) < oldest and not compatible:
        yield wrong(
            f"torch {named} is built for CUDA {cuda}, which asks for driver {oldest} or newer, beside {gpus}",
            f"have the driver updated, or install a torch for an older CUDA (https://pytorch.org), {HIDE}",
        )
        return
    yield ok(f"torch {named} for CUDA {cuda}, beside {gpus}")


def expected() -> bool:
    """Whether there is a driver, in the kernel or (in WSL) by its program alone, whose GPUs are not hidden."""
    driver = kernel_driver()
    there = driver[1] > 0 if driver else shutil.which("nvidia-smi") is not None
    return there and not hidden(os.environ)


def driver_answers() -> Iterator[Finding]:
    """What nvidia-smi says of each GPU."""
    query = "index,name,memory.total,memory.used,driver_version"
    answer = output_of(["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"])
    if answer is None:
        return
    if answer.code != 0:
        yield wrong(f"nvidia-smi: {answer.reason}", "have the driver loaded: after an update, restart the machine")
        return
    yield from (ok(f"nvidia-smi: GPU {line.strip()}") for line in answer.output.splitlines() if line.strip())


def torch_sees(found: list[Gpu]) -> Iterator[Finding]:
    """Whether torch sees the GPUs that there are, and whether they work."""
    if not found:
        yield wrong("torch sees no GPU, though there are some", f"look at nvidia-smi and at torch's build, {HIDE}")
    for number, gpu in enumerate(found):
        what = f"torch: GPU {number}, {gpu.name}, {in_words(gpu.free)} of {in_words(gpu.total)} free"
        if not (gpu.right and gpu.right_bfloat16):
            yield wrong(f"{what}: products of matrices come out wrong", "do not use it; have it looked at")
        elif not gpu.bfloat16:
            yield warning(f"{what}: is slow in bfloat16", "set precision: float32 in the family, another recipe")
        elif gpu.free < gpu.total / 2:
            yield warning(f"{what}: others use it", "look at nvidia-smi, or choose others by CUDA_VISIBLE_DEVICES")
        else:
            yield ok(what)


def gpus() -> list[Gpu]:
    """The GPUs as torch sees them, tried in a process of its own. Raises UserError with the reason if that fails."""
    answer = output_of([sys.executable, "-P", str(PROBE)], PATIENCE)
    if answer is None or answer.code != 0:
        raise UserError(f"torch does not work with these GPUs: {answer.reason if answer else sys.executable}")
    return [Gpu(**about) for about in json.loads(answer.output.splitlines()[-1])]


def shared_memory(count: int, folder: Path = Path("/dev/shm")) -> Iterator[Finding]:
    """Ranks of one machine exchange gradients through /dev/shm, of which containers have little."""
    if count > 1 and folder.exists():
        about = os.statvfs(folder)
        size = about.f_blocks * about.f_frsize
        if size < 1e9:
            yield warning(f"{folder}: {in_words(size)}", "for several ranks: docker run --ipc=host, or --shm-size=8g")
        else:
            yield ok(f"{folder}: {in_words(size)}")
