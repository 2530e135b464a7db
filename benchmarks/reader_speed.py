"""How fast batches are read, checksums and random draws included, beside the fastest step of training; prints JSON.

    python benchmarks/reader_speed.py [--rows 4096] [--batch-size 256] [--batches 20] [--threads 1 2 4] [--folder DIR]

Batches are those of a training on latents of 4 x 32 x 32 (ImageNet at 256 pixels): shuffled rows of a folder of
shards, each compared with its checksum, a draw from the posterior, normalisation; and of images (3 x 256 x 256) as a
method wants them, raw and compressed. The images are photographs that scikit-learn brings, cropped at random: noise
does not compress. Rows that were just written are in the page cache; --folder on another disk and more rows than
memory holds measure that disk. Beside rows per second of the clock there are those per second that a core was really
computing, which is what one core would deliver if nothing else ran; the comparison with training is by these.

A training step is compared by its arithmetic: SiT-B/2 makes 23.0 G multiply-adds for an image forward, thrice as many
with the backward pass, which is 138 GFLOP an example. An H200 has 989 TFLOPS in bfloat16; at 40 % of them, more than
what trainings of this size reach, that is 2,866 examples/s (--step-rate).
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from report import show
from torch import Tensor

from selftrans.data.latent_stats import LatentStats
from selftrans.data.latents import LatentDataset, batch_indices
from selftrans.data.packed import Packed, PackedWriter
from selftrans.malloc import keep_freed_memory

SHARD = 512


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--step-rate", type=float, default=2866.0, metavar="R", help="examples/s of the fastest step")
    parser.add_argument("--folder", type=Path)
    parser.set_defaults(device="cpu")
    arguments = parser.parse_args()
    keep_freed_memory()  # as every verb does
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        kinds = [*(("moments", dtype) for dtype in ("float32", "float16")), ("images", "raw"), ("images", "compressed")]
        packed = {f"{name}, {form}": write(Path(folder), name, form, arguments) for name, form in kinds}
        speeds = {
            f"{name}, {threads} threads": measure(path, name.split(",")[0], threads, arguments)
            for name, path in packed.items()
            for threads in arguments.threads
        }
        sizes = {name: bytes_of(path) / len(Packed(path, name.split(",")[0])) for name, path in packed.items()}
    show(
        "rows read per second",
        "rows/s",
        arguments,
        {name: round(wall) for name, (wall, _) in speeds.items()},
        {f"{name}: times the fastest step": round(cpu / arguments.step_rate, 1) for name, (_, cpu) in speeds.items()},
        rows_per_second_of_computing={name: round(computing) for name, (_, computing) in speeds.items()},
        bytes_per_row={name: round(size) for name, size in sizes.items()},
        seconds_to_shuffle_1281167=round(shuffle_seconds(), 4),
    )


def write(folder: Path, name: str, form: str, arguments: argparse.Namespace) -> Path:
    """Random moments of a type, or photographs in a form, in shards; returns their folder."""
    draws = torch.Generator().manual_seed(0)
    count, stored = (arguments.rows, "raw") if name == "moments" else (arguments.images, form)
    writer = PackedWriter(folder / f"{name}-{form}", name, count, {"images": "none"}, {}, SHARD, stored=stored)
    for shard in range(writer.shards):
        shown = len(writer.images(shard))
        rows = torch.rand(shown, 8, 32, 32, generator=draws).to(getattr(torch, form)) if name == "moments" else None
        block = photographs(shown, draws) if rows is None else rows.numpy()
        writer.write(shard, [block], np.zeros(shown, np.int64))
    writer.gather()
    return writer.folder


def photographs(count: int, draws: torch.Generator) -> np.ndarray:
    """Crops (N, 3, 256, 256) uint8."""
    from sklearn.datasets import load_sample_images

    pictures = load_sample_images().images  # (427, 640, 3) each
    tops, lefts = (torch.randint(size - 256, (count,), generator=draws).tolist() for size in (427, 640))
    corners = enumerate(zip(tops, lefts, strict=True))
    crops = [pictures[at % 2][top : top + 256, left : left + 256] for at, (top, left) in corners]
    return np.ascontiguousarray(np.stack(crops).transpose(0, 3, 1, 2))


def measure(folder: Path, name: str, threads: int, arguments: argparse.Namespace) -> tuple[float, float]:
    """Rows per second of the clock, and of the time that all threads were computing, by the median batch."""
    packed = Packed(folder, name, threads=threads)
    read: Callable[[Tensor, int], object] = lambda indices, step: packed.read(indices)  # noqa: E731
    if name == "moments":
        dataset = LatentDataset(packed, None, LatentStats((0.0,) * 4, (1.0,) * 4))
        read = lambda indices, step: dataset.batch(indices, 0, step)  # noqa: E731
    size = min(arguments.batch_size, len(packed))
    seconds: list[tuple[float, float]] = []
    for step in range(arguments.batches):
        before = time.perf_counter(), time.process_time()
        read(batch_indices(len(packed), size, 0, step), step)
        seconds.append((time.perf_counter() - before[0], time.process_time() - before[1]))
    wall, computing = (statistics.median(times) for times in zip(*seconds, strict=True))
    return size / wall, size / computing


def bytes_of(folder: Path) -> int:
    """What a folder takes on disk."""
    return sum(path.stat().st_size for path in folder.iterdir())


def shuffle_seconds() -> float:
    """What the first batch of an epoch of ImageNet waits for."""
    before = time.perf_counter()
    batch_indices(1_281_167, 256, 0, 0)
    return time.perf_counter() - before


if __name__ == "__main__":
    main()
