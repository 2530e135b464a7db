"""Image i is the same whatever the batch size, and all rows share labels and noise. All GPUs that are visible share the
work; a preset's samples may be shared among processes or machines too (--shard); killed, the same command goes on.
With --grid, a few images to look at.
"""

import argparse
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selftrans.commands.common import device, devices, milestone_of, need, part_of, plan_of
from selftrans.config.presets import Preset
from selftrans.config.records import check
from selftrans.errors import UserError
from selftrans.plan.paths import Pattern
from selftrans.plan.plan import Plan
from selftrans.plan.runs import RECIPE_VERSION, Run, fingerprint

if TYPE_CHECKING:
    from selftrans.sampling.image_model import ImageModel

# The options of one use only, with their defaults.
MEASURE = {"preset": "headline", "shard": "1/1"}
LOOK = {"weights": None, "classes": None, "each": 4, "cfg_scale": 1.0, "steps": 50, "tokenizer": None, "stats": None}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own options."""
    parser.add_argument(
        "reference", metavar="RUN@EPOCH", nargs="?", help="a row of runs.yaml at a milestone: sit-b2@80"
    )
    parser.add_argument("--seed", type=int, default=0, help="training seed; with --weights, of the noise (default: 0)")
    parser.add_argument("--expect", metavar="ID", help="stop unless the row still resolves to this run")
    parser.add_argument("--grid", type=Path, metavar="PNG", help="picture to write, of a few images to look at")
    add_compile(parser)
    measure = parser.add_argument_group("without --grid", argument_default=argparse.SUPPRESS)
    measure.add_argument("--preset", help="sampling preset of the scale (default: headline)")
    measure.add_argument("--shard", metavar="K/N", help="make part K of N only (default: all that is missing)")
    look = parser.add_argument_group("with --grid", argument_default=argparse.SUPPRESS)
    look.add_argument("--weights", type=Path, metavar="FILE", help="weights, in the place of RUN@EPOCH")
    look.add_argument("--classes", metavar="A,B,...", help="a row of images each (default: the first 8)")
    look.add_argument("--each", type=int, metavar="N", help="images of a class (default: 4)")
    look.add_argument("--cfg-scale", type=float, metavar="S", help="classifier-free guidance (default: 1, none)")
    look.add_argument("--steps", type=int, metavar="N", help="steps of Euler's method (default: 50)")
    look.add_argument(
        "--tokenizer", type=Path, metavar="FILE", help="VAE (default: that of the weights' results folder)"
    )
    look.add_argument("--stats", type=Path, metavar="FILE", help="statistics of its latents (default: likewise)")


def add_compile(parser: argparse.ArgumentParser) -> None:
    """The option --compile."""
    parser.add_argument(
        "--compile",
        action="store_true",
        default="SELFTRANS_COMPILE" in os.environ,
        help="compile the backbone before it is used, for a GPU (default: if $SELFTRANS_COMPILE is set)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Sample a run at a milestone, or look at weights."""
    own, other, use = (LOOK, MEASURE, "without") if arguments.grid else (MEASURE, LOOK, "with")
    for name in other:
        if name in arguments:
            raise UserError(f"--{name.replace('_', '-')}: only {use} --grid, see selftrans sample --help")
    options = argparse.Namespace(**(own | vars(arguments)))
    if options.grid:
        look(options)
    else:
        sample(options)


def sample(options: argparse.Namespace) -> None:
    """All samples that RUN@EPOCH and --preset name, or a shard of them."""
    if options.reference is None:
        raise UserError("RUN@EPOCH: missing, such as sit-b2@80 (or, with --grid, --weights FILE)")
    plan = plan_of(options)
    sample_run(options, plan, *milestone_of(options, plan))


def sample_run(options: argparse.Namespace, plan: Plan, run: Run, step: int) -> None:
    """All samples of --preset, or the --shard of them; each batch is a file of its own until all are there."""
    from selftrans.artifacts import write_record
    from selftrans.leases import held
    from selftrans.models.checkpoint import weights_of
    from selftrans.provenance import provenance
    from selftrans.sampling.image_model import batches_of, sample_batches, sample_labels
    from selftrans.sampling.samples import BatchFolder, write_samples

    preset = preset_of(options, run)
    shard, shards = part_of("--shard", options.shard)
    decoder = [need(plan.path(Pattern.tokenizer, tokenizer=run.keys.tokenizer))]
    if run.row.published is None:  # else the VAE brings the statistics: no latents were extracted
        decoder.append(need(plan.path(Pattern.latent_stats, latents=run.keys.latents)))
    model = load_model(options, need(plan.weights(run, step)), *decoder, expected=weights_of(run, step))
    labels = sample_labels(preset, model.backbone.num_classes, run.seed)
    where = {"run": run.id, "step": step, "preset": run.preset_key(options.preset)}
    made_of = {
        "run": run.id,
        "step": step,
        "seed": run.seed,
        "preset_key": where["preset"],
        "weights_sha256": model.header["sha256"],
        "tokenizer_sha256": model.tokenizer.sha256,
        "latent_stats": model.stats.record,
    }
    # The folder is named for all that its batches depend on, the bits of the weights included.
    drawn = plan.path(Pattern.batches, **where, key=fingerprint([RECIPE_VERSION, made_of]))
    batches = batches_of(preset, shard, shards)
    with held(drawn / f"{shard}-of-{shards}", f"{run.label} samples") as lease:
        folder = BatchFolder(drawn, made_of, lease.check)
        replicas = model.replicas(devices()[1:])
        compile_all(options, replicas)
        sample_batches(model, labels, preset, run.seed, batches, folder, f"{run.label} samples", replicas)
        lease.check()
        header = {**made_of, "preset": preset.model_dump(mode="json", exclude={"shards"}), "provenance": provenance()}
        if shards > 1:
            path = plan.path(Pattern.shard, **where, shard=shard, shards=shards)
            write_record(path, "shard", {**header, "batches": len(batches)})
            print(f"{path}: {len(batches)} batches")
        else:
            path = plan.samples_file(run, step, options.preset)
            write_samples(path, map(folder.load, batches), labels, {"file": path.name, **header})
            lease.check()
            shutil.rmtree(drawn, ignore_errors=True)
            print(f"{path}: {len(labels)} images")


def preset_of(options: argparse.Namespace, run: Run) -> Preset:
    """The preset that --preset names. Raises UserError if the run's family has no such preset."""
    presets = run.family.presets
    if options.preset not in presets:
        raise UserError(f"--preset: found {options.preset!r}; allowed: {', '.join(presets)}")
    return presets[options.preset]


def look(options: argparse.Namespace) -> None:
    """A picture with a row of images for each class."""
    import torch

    from selftrans.progress import progress_bar
    from selftrans.sampling.image_model import sample_images
    from selftrans.sampling.samples import save_grid

    if (options.reference is None) == (options.weights is None):
        raise UserError("--grid: of what? Name either RUN@EPOCH or --weights FILE")
    if options.each < 1:
        raise UserError(f"--each: found {options.each}; allowed: 1 or more")
    weights = options.weights
    if weights is None:
        plan = plan_of(options)
        weights = need(plan.weights(*milestone_of(options, plan)))
    asked = {"steps": options.steps, "cfg_scale": options.cfg_scale, "samples": options.each}
    preset = check("command line", Preset, {"sampler": "euler_ode", **asked})
    model = load_model(options, weights, options.tokenizer, options.stats)
    classes = classes_of(options, model.backbone.num_classes)
    indices = torch.arange(options.each)
    rows = []
    with progress_bar(len(classes) * options.each, "images", "image") as bar:
        for label in classes:
            rows.append(sample_images(model, torch.full_like(indices, label), indices, preset, options.seed))
            bar.update(options.each)
    save_grid(options.grid, torch.stack(rows))
    print(f"{options.grid}: {options.each} images of each of the classes {', '.join(map(str, classes))}")


def classes_of(options: argparse.Namespace, known: int) -> list[int]:
    """The labels that --classes lists. Raises UserError for those that a model of ``known`` classes has not."""
    if options.classes is None:
        return list(range(min(known, 8)))
    names = options.classes.split(",")
    for name in names:
        if not name.strip().isdecimal() or int(name) >= known:
            raise UserError(f"--classes: found {name!r}; allowed: 0 to {known - 1}, separated by commas")
    return [int(name) for name in names]


def load_model(
    options: argparse.Namespace, weights: Path, *decoder: Path | None, expected: Mapping[str, Any] | None = None
) -> "ImageModel":
    """The weights, which are as ``expected``, with their VAE and its statistics, compiled if asked for."""
    from selftrans.sampling.image_model import ImageModel

    model = ImageModel.load(weights, device(), *decoder, expected=expected)
    compile_all(options, [model])
    return model


def compile_all(options: argparse.Namespace, models: "Sequence[ImageModel]") -> None:
    """What --compile asks for."""
    for model in models if options.compile else ():
        model.backbone.compile()
