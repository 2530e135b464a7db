"""Of a run at a milestone, the numbers are those of the scale's extractor, whose name stands beside them; of files
that anybody made, with --samples and --reference, they are FID and its kin.
"""

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selftrans.commands.common import device, milestone_of, need, plan_of
from selftrans.errors import UserError
from selftrans.paths import Pattern

if TYPE_CHECKING:
    from selftrans.evaluation.extractors import Extractor
    from selftrans.evaluation.images import ImageSet
    from selftrans.evaluation.result import Result
    from selftrans.evaluation.statistics import Statistics

# The options of one use only, with their defaults.
RUN = {"seed": 0, "expect": None, "preset": "headline"}
FILES = {
    "samples": None,
    "against": None,
    "extractor": "inception",
    "weights": None,
    "kid": False,
    "output": None,
    "save_statistics": None,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own options."""
    run = parser.add_argument_group("a run of the configuration", argument_default=argparse.SUPPRESS)
    run.add_argument(
        "reference", metavar="RUN@EPOCH", nargs="?", default=None, help="a row of runs.yaml at a milestone: sit-b2@80"
    )
    run.add_argument("--seed", type=int, help="training seed (default: 0)")
    run.add_argument("--expect", metavar="ID", help="stop unless the row still resolves to this run")
    run.add_argument("--preset", help="sampling preset of the scale (default: headline)")
    files = parser.add_argument_group(
        "files",
        "PATH is an npz with arr_0 (N, H, W, 3) uint8, a folder of PNG or JPEG, packed images, or statistics",
        argument_default=argparse.SUPPRESS,
    )
    files.add_argument("--samples", type=Path, metavar="PATH", help="what is measured")
    files.add_argument("--reference", dest="against", type=Path, metavar="PATH", help="what it is compared with")
    files.add_argument(
        "--extractor", metavar="inception|FILE", help="what the images are seen through (default: inception)"
    )
    files.add_argument("--weights", type=Path, metavar="FILE", help="Inception's weights (default: torch.hub's file)")
    files.add_argument("--kid", action="store_true", help="the Kernel Inception Distance too")
    files.add_argument("--output", type=Path, metavar="JSON", help="file for the result")
    files.add_argument(
        "--save-statistics", type=Path, metavar="NPZ", help="file for the samples' statistics, to be a reference"
    )


def run(arguments: argparse.Namespace) -> None:
    """Measure the samples of a run at a milestone, or those in files."""
    files = "samples" in arguments
    if files == (arguments.reference is not None):
        raise UserError("evaluate what? Name either RUN@EPOCH, or --samples PATH and --reference PATH")
    own, other, use = (FILES, RUN, "RUN@EPOCH") if files else (RUN, FILES, "--samples PATH")
    for name in other:
        if name in arguments:
            raise UserError(f"{option(name)}: only with {use}, see selftrans evaluate --help")
    options = argparse.Namespace(**(own | vars(arguments)))
    if files:
        evaluate_files(options)
    else:
        evaluate_run(options)


def option(name: str) -> str:
    """How the command line spells it; --reference has another name inside, where RUN@EPOCH has that one."""
    return "--reference" if name == "against" else f"--{name.replace('_', '-')}"


def evaluate_run(arguments: argparse.Namespace) -> None:
    """The metrics of a run's samples, against the training images of its family."""
    from selftrans.artifacts import arrays_header, write_record
    from selftrans.evaluation.extractors import Extractor
    from selftrans.evaluation.statistics import statistics_of

    plan = plan_of(arguments)
    run, step = milestone_of(arguments, plan)
    if arguments.preset not in run.family.presets:
        raise UserError(f"--preset: found {arguments.preset!r}; allowed: {', '.join(run.family.presets)}")
    path = need(plan.samples_file(run, step, arguments.preset))
    arrays_header(path, "samples", {"file": path.name})
    extractor = Extractor.load(need(plan.path(Pattern.extractor, extractor=run.keys.extractor)))
    against = need(plan.path(Pattern.reference, extractor=run.keys.extractor))
    reference, samples = (statistics_of(found, extractor, open_images) for found in (against, path))
    result = measure(samples, reference, str(path))
    about = {**provenance_of(path), **open_images(path).header}
    metrics = plan.metrics_file(run, step, arguments.preset)
    of = {
        "file": metrics.name,
        "run": run.id,
        "step": step,
        "seed": run.seed,
        "preset": run.preset_key(arguments.preset),
    }
    write_record(metrics, "metrics", {**of, **result.to_dict(), "about": about})
    print(f"{run.label} step {step}: Fréchet distance {result.frechet:.2f} ({extractor.name})")


def evaluate_files(arguments: argparse.Namespace) -> None:
    """The metrics of samples against a reference, or only the samples' statistics, saved."""
    from selftrans.evaluation.kid import SUBSETS
    from selftrans.evaluation.statistics import statistics_of
    from selftrans.files import write_json

    if arguments.against is None and (arguments.save_statistics is None or arguments.output or arguments.kid):
        raise UserError("--reference: missing; without one, nothing but --save-statistics NPZ can be done")
    require_writable(arguments)
    require_readable(arguments)
    extractor = extractor_of(arguments)
    if arguments.against is not None:  # before the samples, which may take hours
        reference = statistics_of(arguments.against, extractor, open_images)
    samples = statistics_of(arguments.samples, extractor, open_images)
    if arguments.save_statistics is not None:
        samples.save(arguments.save_statistics)
        counted = "" if samples.count is None else f", {samples.count} images"
        print(f"{arguments.save_statistics}: statistics of {arguments.samples}{counted}")
    if arguments.against is None:
        return
    what = f"{arguments.samples} against {arguments.against}"
    result = measure(samples, reference, what, kid_subsets=SUBSETS if arguments.kid else 0)
    if arguments.output is not None:
        about = {"reference": str(arguments.against), **provenance_of(arguments.samples)}
        write_json(arguments.output, {**result.to_dict(), "about": about})
    print(f"{what}\n{result.summary()}")


def require_writable(arguments: argparse.Namespace) -> None:
    """Raise UserError if no file can be written where an option wants one; its folder is made."""
    for name in ("output", "save_statistics"):
        path = getattr(arguments, name)
        if path is None:
            continue
        try:
            if path.is_dir():
                raise UserError(f"{option(name)}: {path} is a folder; name a file in it")
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path.parent):
                pass
        except OSError as error:
            reason = f"{path} cannot be written ({error.strerror})"
            raise UserError(f"{option(name)}: {reason}; name another file") from error


def require_readable(arguments: argparse.Namespace) -> None:
    """Raise UserError if there is nothing to read, or less than KID needs; no image is looked at."""
    from selftrans.evaluation.images import arrays_in
    from selftrans.evaluation.kid import SUBSET_SIZE

    for path in filter(None, (arguments.samples, arguments.against)):
        arrays_in(path)  # or what is wrong with the file
        if arguments.kid and (rows := rows_in(path)) < SUBSET_SIZE:
            raise UserError(
                f"--kid: {path} gives {rows} rows of features, fewer than the {SUBSET_SIZE} of a subset; take more "
                "images, or leave --kid out"
            )


def rows_in(path: Path) -> int:
    """Rows of features that ``path`` gives: those stored, else one of each image; 0 where it has moments only."""
    from selftrans.evaluation.images import arrays_in
    from selftrans.evaluation.statistics import Statistics

    names = arrays_in(path)
    if "extractor" in names:
        features = Statistics.load(path).features
        return 0 if features is None else len(features)
    return 0 if "mu" in names and "arr_0" not in names else len(open_images(path))


def extractor_of(arguments: argparse.Namespace) -> "Extractor":
    """What --extractor and --weights name, on the GPU if there is one."""
    from selftrans.evaluation.extractors import Extractor
    from selftrans.evaluation.inception import load_inception

    named = arguments.extractor != "inception"
    if named and arguments.weights is not None:
        raise UserError("--weights: they are Inception's, so they go with --extractor inception only")
    extractor = Extractor.load(Path(arguments.extractor)) if named else load_inception(arguments.weights)
    extractor.network.to(device())
    return extractor


def open_images(path: Path) -> "ImageSet":
    """The images in an npz, in a folder of pictures, or packed."""
    from selftrans.data.packed import Packed
    from selftrans.evaluation.images import ImageSet, open_images

    if not (path / "manifest.json").exists():
        return open_images(path)
    packed = Packed(path, "images")
    return ImageSet(len(packed), lambda size: (rows for rows, _ in packed.batches(size)), packed.labels)


def measure(samples: "Statistics", reference: "Statistics", what: str, kid_subsets: int = 0) -> "Result":
    """`evaluate`, where the metrics' own refusals (too few samples, ...) become a user's mistake about ``what``."""
    from selftrans.evaluation.result import evaluate

    try:
        return evaluate(samples, reference, kid_subsets=kid_subsets)
    except ValueError as error:
        raise UserError(f"{what}: {error}") from error


def provenance_of(samples: Path) -> dict[str, Any]:
    """What was measured, by what."""
    from selftrans.files import file_sha256
    from selftrans.provenance import provenance

    about = {"samples": str(samples), "evaluated": provenance()}
    return about | ({} if samples.is_dir() else {"samples_sha256": file_sha256(samples)})
