"""Speed and accuracy of the evaluation beside torch-fidelity's and SciPy's; prints JSON.

    python benchmarks/evaluation_speed.py [--only frechet,inception] [--threads 1] [--rounds 3] [--weights FILE]
    python benchmarks/evaluation_speed.py --only frechet [--spectra "k^-1.5,ReLU features"]
    python benchmarks/evaluation_speed.py --only frechet --spectra "Inception features" --rounds 2    # minutes
    python benchmarks/evaluation_speed.py --only precision_recall,large    # minutes
    python benchmarks/evaluation_speed.py --only inception --device cuda --threads 8

The sides take turns, so that whatever else the machine does meets both; each figure is the median over the turns.
On one CPU thread the clock is that thread's own time, which other processes do not spend. --device is Inception's;
beside a GPU, give it more than one thread, so that the clock is that on the wall. Features and images are random;
Inception's weights too, unless there is a file: what they hold costs nothing.
"""

import argparse
import contextlib
import functools
import io
import math
import os
import re
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import scipy.linalg
import torch
import torch.nn.functional as F
from report import show
from sklearn.datasets import load_sample_images
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x
from torch_fidelity.metric_fid import fid_statistics_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from selftrans.evaluation.frechet import frechet_distance
from selftrans.evaluation.inception import load_inception
from selftrans.evaluation.moments import Moments
from selftrans.evaluation.precision_recall import precision_recall
from selftrans.evaluation.resize import resize_bilinear
from selftrans.files import file_sha256
from selftrans.malloc import keep_freed_memory

WIDTH = 2048  # of Inception's pooled features
INCEPTION = "Inception features"  # a spectrum for which they are really made


def main() -> None:
    """Measure and print."""
    parts = {"frechet": frechet, "precision_recall": neighbours, "large": large, "inception": inception}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(parts), help=f"parts, of {', '.join(parts)} (default: all)")
    parser.add_argument(
        "--spectra", help=f"of the Fréchet distance, with commas between (default: all but {INCEPTION})"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--weights", type=Path, help="Inception's published weights (default: random ones)")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="of Inception (default: cpu)")
    arguments = parser.parse_args()
    keep_freed_memory()  # as every verb does
    torch.set_num_threads(arguments.threads)
    threadpool_limits(arguments.threads)  # NumPy's and SciPy's
    warnings.simplefilter("ignore")
    found = {name: parts[name](arguments) for name in arguments.only.split(",")}
    medians, ratios = taken(found, "seconds"), taken(found, "times_ours")
    show("the evaluation beside other implementations", "seconds", arguments, medians, ratios, parts=found)


def taken(found: dict[str, Any], key: str, path: tuple[str, ...] = ()) -> dict[str, Any]:
    """{where: value} of all that stands under ``key`` in nested mappings, which then have it no more."""
    values = {", ".join(path): found.pop(key)} if key in found else {}
    for name, inner in found.items():
        if isinstance(inner, dict):
            values |= taken(inner, key, (*path, name))
    return values


# ------------------------------------------------------------------------------------------------- distances


def frechet(arguments: argparse.Namespace) -> dict[str, Any]:
    """The Fréchet distance of two sets of moments, of one spectrum after the other; and the worst of all."""
    names = arguments.spectra.split(",") if arguments.spectra else [*commuting(), *measured()]
    report = {}
    for name in names:
        pair, exact = (commuting() | measured() | through_inception(arguments.weights))[name]()
        report[name] = _frechet(pair, exact, arguments)
        print(name, report[name]["seconds"], report[name]["times_ours"], file=sys.stderr, flush=True)
    sides = ("torch-fidelity", "scipy sqrtm")
    worst = {side: min((report[name]["times_ours"][side], name) for name in report) for side in sides}
    return {**report, "worst": worst}


Pair = tuple[list[Moments], float]


def commuting() -> dict[str, Callable[[], Pair]]:
    """Covariances with the same eigenvectors, whose distance is known: eigenvalues as flat and as steep as any."""
    k = torch.arange(1, WIDTH + 1).double()
    uniform = torch.rand(WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    spectra = {"full rank": (1 / k, (uniform + 0.01) ** 2)}
    spectra |= {f"k^-{power}": (k**-power, k**-power * (uniform + 0.5)) for power in (1, 1.5, 2, 2.5)}
    lengths = {f"exp(-k/{length})": torch.exp(-k / length) for length in (20, 50, 100)}
    spectra |= {name: (decay, decay * (uniform + 0.5)) for name, decay in lengths.items()}
    return {name: functools.partial(_commuting, *values) for name, values in spectra.items()}


def _commuting(first: Tensor, second: Tensor) -> Pair:
    basis = torch.linalg.qr(draw(WIDTH, WIDTH, seed=0)).Q
    covariances = [(basis * values) @ basis.T for values in (first, second)]
    mean = torch.zeros(WIDTH, dtype=torch.float64)
    exact = (first.sqrt() - second.sqrt()).square().sum().item()
    return [Moments(None, mean, (covariance + covariance.T) / 2) for covariance in covariances], exact


def measured() -> dict[str, Callable[[], Pair]]:
    """Covariances of features, whose distance is known by the nuclear norm of the product of the features."""
    rows = {"500 and 1000 rows": (500, 1000), "2000 and 2000 rows": (2000, 2000), "2000 and 4000 rows": (2000, 4000)}
    sets = {name: functools.partial(_of_rows, features, *counts) for name, counts in rows.items()}
    sets["ReLU features"] = functools.partial(_of_rows, rectified, 4000, 4000)
    sets["ReLU features, dead units"] = functools.partial(_of_rows, functools.partial(rectified, dead=True), 4000, 4000)
    return sets


def through_inception(weights: Path | None) -> dict[str, Callable[[], Pair]]:
    """What Inception, of random weights if there is no file, makes of parts of two photographs: minutes of work."""
    draw_features = functools.partial(seen_by_inception, weights=weights)
    return {INCEPTION: functools.partial(_of_rows, draw_features, 2100, 2100)}


def seen_by_inception(rows: int, seed: int, weights: Path | None) -> Tensor:
    """(rows, 2048) float32: pooled features of squares cut out of scikit-learn's two photographs, on all cores."""
    draws = torch.Generator().manual_seed(seed)
    photographs = [torch.from_numpy(image.copy()).permute(2, 0, 1) for image in load_sample_images().images]

    def part() -> Tensor:
        side, which = (int(torch.randint(*bounds, (), generator=draws)) for bounds in ((32, 400), (0, 2)))
        top, left = (int(torch.randint(size - side, (), generator=draws)) for size in photographs[which].shape[1:])
        cut = photographs[which][None, :, top : top + side, left : left + side]
        return F.interpolate(cut, (96, 96), mode="bilinear", antialias=True)

    found = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as folder:
        path = weights or save_random_weights(Path(folder) / "weights.pth")
        images = torch.cat([part() for _ in range(rows)])
        pooled = torch.cat([batch.pool for batch in load_inception(path, file_sha256(path)).extract(images)])
    torch.set_num_threads(found)
    return pooled


def _of_rows(draw_features: Callable[[int, int], Tensor], *counts: int) -> Pair:
    sets = [draw_features(rows, seed).double() for seed, rows in enumerate(counts, start=1)]
    gap = (sets[0].mean(dim=0) - sets[1].mean(dim=0)).square().sum()
    centred = [(x - x.mean(dim=0)) / math.sqrt(len(x) - 1) for x in sets]
    roots = [torch.linalg.qr(x).R if len(x) > WIDTH else x for x in centred]
    shared = torch.linalg.matrix_norm(roots[0] @ roots[1].T, "nuc")
    exact = gap + sum(x.square().sum() for x in centred) - 2 * shared
    return [Moments.from_features(x) for x in sets], exact.item()


def rectified(rows: int, seed: int, dead: bool = False) -> Tensor:
    """(rows, 2048) float32: a layer with a ReLU on 512 inputs whose deviations fall like k^-0.5; every fourth unit
    of the first set and every third of the second never fires if ``dead``."""
    weights = draw(512, WIDTH, seed=77) * (torch.arange(1, 513).double() ** -0.5)[:, None]
    found = (draw(rows, 512, seed=seed) @ weights - 0.6).relu().float()
    if dead:
        found[:, :: 5 - seed] = 0
    return found


def _frechet(pair: list[Moments], exact: float, arguments: argparse.Namespace) -> dict[str, Any]:
    stored = [{"mu": moments.mean.numpy(), "sigma": moments.covariance.numpy()} for moments in pair]

    def ours() -> float:
        return frechet_distance(*pair)

    def sqrtm() -> float:
        gap = stored[0]["mu"] - stored[1]["mu"]
        root = scipy.linalg.sqrtm(stored[0]["sigma"] @ stored[1]["sigma"]).real
        return float(gap @ gap + (stored[0]["sigma"] + stored[1]["sigma"] - 2 * root).trace())

    def fidelity() -> float:
        return fid_statistics_to_metric(*stored, verbose=False)["frechet_inception_distance"]

    report, found = compare({"selftrans": ours, "torch-fidelity": fidelity, "scipy sqrtm": sqrtm}, arguments)
    apart = sum(moments.covariance.trace() for moments in pair) + (pair[0].mean - pair[1].mean).square().sum()
    errors = {name: f"{(value - exact) / apart.item():.1e}" for name, value in found.items()}
    return {"exact": exact, **report, "error": errors}  # of |μa - μb|² + tr Sa + tr Sb


# ---------------------------------------------------------------------------------------- precision and recall


def neighbours(arguments: argparse.Namespace) -> dict[str, Any]:
    """Precision and recall where torch-fidelity's default still fits into memory (7 GB)."""
    reference, samples = features(10_000, seed=1), features(20_000, seed=2, spread=0.98)

    def ours() -> tuple[float, float]:
        return precision_recall(reference, samples)

    def fidelity() -> tuple[float, float]:
        values = prc_features_to_metric(samples, reference, verbose=False)
        return values["precision"], values["recall"]

    report, found = compare({"selftrans": ours, "torch-fidelity": fidelity}, arguments, rounds=1)
    return {"references": 10_000, "samples": 20_000, "dimensions": WIDTH, **report, "precision and recall": found}


def large(arguments: argparse.Namespace) -> dict[str, Any]:
    """Precision and recall at the size of the ADM suite, in a process of its own, whose memory is measured."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        seconds, gigabytes = pool.submit(_large, arguments.threads).result()
    sizes = {"references": 10_000, "samples": 50_000, "dimensions": WIDTH}
    return {**sizes, "seconds": round(seconds, 1), "peak_gigabytes_features_included": round(gigabytes, 2)}


def _large(threads: int) -> tuple[float, float]:
    torch.set_num_threads(threads)
    reference, samples = features(10_000, seed=1), features(50_000, seed=2, spread=0.98)
    began = clock(threads)
    precision_recall(reference, samples)
    seconds = clock(threads) - began
    # Linux counts the parent's memory too in what resource.getrusage says of a process that it started.
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return seconds, int(peak) * 1024 / 1e9


# -------------------------------------------------------------------------------------------------- Inception


def inception(arguments: argparse.Namespace) -> dict[str, Any]:
    """Resizing and Inception, each side in a process of its own, as its users run it.

    Ours keeps freed memory, as every verb does. torch-fidelity is measured as it comes and with memory kept too.
    """
    sides = {
        "selftrans": (_ours, True),
        "torch-fidelity": (_theirs, False),
        "torch-fidelity, memory kept": (_theirs, True),
    }
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        path = arguments.weights or save_random_weights(Path(folder) / "weights.pth")
        measures = {}
        for name, (build, keeps) in sides.items():
            options = {"initializer": _prepare, "initargs": (build, path, keeps, arguments.threads, arguments.device)}
            pool = stack.enter_context(ProcessPoolExecutor(1, mp_context=get_context("spawn"), **options))
            measures[name] = functools.partial(_elsewhere, pool, arguments.threads)
        resizing, resized = turns(measures, arguments.rounds, "resize")
        whole, pools = turns(measures, arguments.rounds, "whole")
    difference = (pools["selftrans"] - pools["torch-fidelity"]).abs().max() / pools["torch-fidelity"].abs().max()
    return {
        "images": "64 of 256 x 256",
        "resizing": {**resizing, "identical": torch.equal(resized["selftrans"], resized["torch-fidelity"])},
        "resizing and network": {**whole, "images_per_second": round(64 / whole["seconds"]["selftrans"], 2)},
        "largest relative difference of pooled features": f"{difference.item():.1e}",
    }


def _ours(path: Path, images: Tensor, device: str) -> dict[str, Callable[[], Tensor]]:
    extractor, there = load_inception(path, file_sha256(path)).on([device]), images.to(device)
    return {
        "resize": lambda: resize_bilinear(there, 299).cpu(),
        "whole": lambda: torch.cat([batch.pool for batch in extractor.extract(images)]),
    }


def _theirs(path: Path, images: Tensor, device: str) -> dict[str, Callable[[], Tensor]]:
    network = FeatureExtractorInceptionV3("own", ["2048", "logits_unbiased"], str(path)).to(device)
    there = images.to(device)
    resize = functools.partial(interpolate_bilinear_2d_like_tensorflow1x, size=(299, 299), align_corners=False)
    return {"resize": lambda: resize(there.float()).cpu(), "whole": lambda: network(images.to(device))[0].cpu()}


_functions: dict[str, Callable[[], Tensor]] = {}  # of a process that measures one side


def _prepare(
    build: Callable[..., dict[str, Callable[[], Tensor]]], path: Path, keeps: bool, threads: int, device: str
) -> None:
    if keeps:
        keep_freed_memory()
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")
    images = torch.randint(256, (64, 3, 256, 256), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    _functions.update(build(path, images, device))


def _elsewhere(pool: ProcessPoolExecutor, threads: int, name: str) -> tuple[float, Tensor]:
    return pool.submit(_measure, name, threads).result()


@torch.no_grad()
def _measure(name: str, threads: int) -> tuple[float, Tensor]:
    return timed(_functions[name], threads)


class Untrained(FeatureExtractorInceptionV3):
    """The network as it is before weights are loaded."""

    def load_state_dict(self, *_: object) -> None:
        """Keep what was drawn at random."""


def save_random_weights(path: Path) -> Path:
    """A file like the published one."""
    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    network, draws = Untrained("untrained", ["2048"], empty), torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=draws)
    torch.save(network.state_dict(), path)
    return path


# -------------------------------------------------------------------------------------------------------- how


def draw(*shape: int, seed: int) -> Tensor:
    """Standard normal float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def features(rows: int, seed: int, spread: float = 1.0) -> Tensor:
    """(rows, 2048) float32, not negative, with a spectrum that falls like 1/i, as pooled features have.

    A smaller ``spread``, of all deviations, is what samples have whose precision is higher than their recall.
    """
    basis = torch.linalg.qr(draw(WIDTH, WIDTH, seed=0)).Q.float()
    deviations = spread * torch.arange(1, WIDTH + 1) ** -0.5
    coordinates = torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(seed)) * deviations
    return (0.4 + 0.3 * coordinates @ basis).relu()


def compare(
    functions: dict[str, Callable[[], Any]], arguments: argparse.Namespace, rounds: int = 0
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Median seconds of each function over the turns, and how many times the first one's; and what each returned."""
    measures = {name: functools.partial(timed, function, arguments.threads) for name, function in functions.items()}
    return turns(measures, rounds or arguments.rounds)


def turns(
    measures: dict[str, Callable[..., tuple[float, Any]]], rounds: int, *inputs: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """As `compare`, of functions that measure themselves: each returns its seconds, and what it found."""
    seconds: dict[str, list[float]] = {name: [] for name in measures}
    found = {}
    for _ in range(rounds):
        for name, measure in measures.items():
            elapsed, found[name] = measure(*inputs)
            seconds[name].append(elapsed)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    ours, *others = medians
    report = {
        "seconds": {name: round(median, 3) for name, median in medians.items()},
        "times_ours": {name: round(medians[name] / medians[ours], 2) for name in others},
    }
    return report, found


def timed(function: Callable[[], Any], threads: int) -> tuple[float, Any]:
    """Seconds that it takes, and what it returns."""
    began = clock(threads)
    found = function()
    return clock(threads) - began, found


def clock(threads: int) -> float:
    """Seconds: of this process's own on one thread, of the wall on more."""
    return time.process_time() if threads == 1 else time.perf_counter()


if __name__ == "__main__":
    main()
