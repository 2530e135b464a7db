"""Every kind of file that the workflow makes, made by its verbs at toy size; and how the workflow reads each."""

import operator
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from toy import SMOKE

from selftrans.artifacts import AGAIN, arrays_header, tensors_sha256
from selftrans.commands import main
from selftrans.commands.common import images_of
from selftrans.commands.evaluate import files_of
from selftrans.commands.train import surroundings
from selftrans.config.reading.project import load_project
from selftrans.data.latent_stats import LatentStats
from selftrans.data.latents import LatentDataset
from selftrans.data.packed import Packed
from selftrans.evaluation.extractors import Extractor
from selftrans.evaluation.statistics import Source, Statistics
from selftrans.models.checkpoint import load_backbone, load_state, weights_of
from selftrans.plan.paths import Pattern
from selftrans.plan.plan import Plan, Probe
from selftrans.plan.runs import Run
from selftrans.reporting.figures.mosaic import images_of_class
from selftrans.reporting.figures.probed import read_features
from selftrans.reporting.results import INDEX, RESULTS, find, require_current
from selftrans.reporting.tables import read_metrics, read_report
from selftrans.reporting.training_log import log_file, log_until
from selftrans.sampling.image_model import ImageModel
from selftrans.sampling.samples import BatchFolder
from selftrans.training.trainer import STATE, TrainingLog

SHARD = "shard-00000.npz"
CPU = torch.device("cpu")
FAMILY = ("--family", "sit256")
PROBE = ("--t", "0.6", "--images", "10", "--layers", "2")
SWEEP = ("sweep-cfg1.9-t0.65", "sweep-cfg4-t0.65")  # the presets of the table sweep

VERBS: tuple[tuple[str, ...], ...] = (
    *(("pack-images", *FAMILY, "--split", split) for split in ("train", "test")),
    *((verb, *FAMILY) for verb in ("train-tokenizer", "extract-latents", "train-encoder", "train-extractor")),
    ("make-reference", *FAMILY),
    *(("train", f"vanilla@{epoch}") for epoch in (10, 20)),
    ("train", "vanilla@10", "--seed", "1"),
    *(("train", "aligned@10", "--seed", seed) for seed in ("0", "1")),
    ("freeze-teacher", "aligned@10", "--layer", "8"),
    ("freeze-teacher", "aligned@10", "--layer", "8", "--seed", "1"),
    ("freeze-teacher", "aligned@10", "--layer", "8", "--weights", "online"),
    ("freeze-teacher", "aligned@10", "--layer", "6"),
    ("freeze-teacher", "vanilla@10", "--layer", "8"),
    *(("sample", f"vanilla@{epoch}", "--preset", "few") for epoch in (10, 20)),
    ("sample", "vanilla@10", "--preset", "few", "--seed", "1"),
    *(("sample", "vanilla@20", "--preset", preset) for preset in SWEEP),
    *(("evaluate", "vanilla@20", "--preset", preset) for preset in SWEEP),
    *(("sample", "vanilla@10", "--preset", "second", "--shard", shard) for shard in ("1/3", "2/3", "3/3")),
    ("sample", "vanilla@10", "--preset", "headline", "--shard", "1/2"),
    ("probe-features", "vanilla@10", *PROBE),
    ("probe-features", "vanilla@10", *PROBE, "--seed", "1"),
    ("probe-features", "vanilla@10", *PROBE, "--form", "tokens"),
    ("table", "sweep"),
    ("index",),
)


def call(*verb: str) -> int:
    """A verb on the smoke configuration, in the working directory; its exit code."""
    return main([*verb, "--config", str(SMOKE)])


@contextmanager
def made(folder: Path) -> Iterator[Plan]:
    """Make everything in ``folder``, which is the working directory in the block."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        for verb in VERBS:
            assert call(*verb) == 0, verb
        yield plan_of(1)
    finally:
        os.chdir(before)


def plan_of(seeds: int) -> Plan:
    """The smoke plan over this many seeds."""
    return Plan(load_project(SMOKE, seeds=seeds, claim_seeds=seeds))


# ---------------------------------------------------------------------------------------------- kinds


@dataclass(frozen=True)
class Kind:
    """Where a file of a kind lies, and what the workflow reads there, as a value that can be compared."""

    path: Callable[[Plan], Path]
    read: Callable[[Plan], Any]
    same: Callable[[Any, Any], bool] = operator.eq  # (what is read, what was read of the whole file)


def vanilla(plan: Plan) -> Run:
    """The run that most files are of."""
    return plan.run("vanilla", 0)


def weights_file(plan: Plan, name: str = "vanilla", seed: int = 0, step: int = 10, kind: str = "ema") -> Path:
    """Weights."""
    return plan.weights(plan.run(name, seed), step, kind)


def teacher_file(
    plan: Plan, name: str = "aligned", seed: int = 0, weights: str = "ema", layer: int = 8, step: int = 10
) -> Path:
    """A frozen teacher; without options, that of the row guided."""
    return plan.path(Pattern.teacher, run=plan.run(name, seed).id, step=step, weights=weights, layer=layer)


def samples_file(plan: Plan, preset: str = "few", seed: int = 0, step: int = 10) -> Path:
    """Samples."""
    return plan.samples_file(plan.run("vanilla", seed), step, preset)


def metrics_file(plan: Plan, preset: str = SWEEP[0], seed: int = 0, step: int = 20) -> Path:
    """Metrics."""
    return plan.metrics_file(plan.run("vanilla", seed), step, preset)


def features_file(plan: Plan, seed: int = 0, form: str = "pooled", t: float = 0.6) -> Path:
    """Features."""
    return plan.features(f"{vanilla(plan).name}@10", seed, Probe(t, 10, (2,), form))


def state_file(plan: Plan, name: str = "vanilla", seed: int = 0) -> Path:
    """What a run goes on from."""
    return plan.path(Pattern.work, run=plan.run(name, seed).id) / STATE


def batch_file(plan: Plan, batch: int = 0, preset: str = "second") -> Path:
    """A batch of samples in the making."""
    run = vanilla(plan)
    where = {"run": run.id, "step": 10, "preset": run.preset_key(preset), "key": "*"}
    (folder,) = plan.root.glob(str(plan.path(Pattern.batches, **where).relative_to(plan.root)))
    return folder / f"batch-{batch:05d}.npz"


def of(pattern: str) -> Callable[[Plan], Path]:
    """The file of the family that the workflow knows under ``pattern``."""

    def path(plan: Plan) -> Path:
        keys = vanilla(plan).keys
        names = {kind: getattr(keys, kind) for kind in ("data", "tokenizer", "latents", "extractor", "encoder")}
        return plan.path(pattern, split="test", **names)

    return path


def inside(pattern: str, name: str) -> Callable[[Plan], Path]:
    """A file in the family's folder of packed rows."""
    return lambda plan: of(pattern)(plan) / name


def plain(value: Any) -> Any:
    """Tensors, arrays and modules as type, shape and hash."""
    if isinstance(value, nn.Module):
        return tensors_sha256(value.state_dict())
    if isinstance(value, Tensor):
        return tensors_sha256({"": value})
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, sha256(np.ascontiguousarray(value)).hexdigest()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def _images(plan: Plan) -> Any:
    packed = images_of(plan, vanilla(plan).keys, "test")
    return packed.sha256, packed.source, packed.all()


def _latents(plan: Plan) -> Any:
    about = {"key": vanilla(plan).keys.latents}
    packed = Packed(of(Pattern.latents)(plan), "moments", about)
    dataset = LatentDataset(packed, None, LatentStats.load(of(Pattern.latent_stats)(plan), about))
    return dataset.sha256, packed.source, packed.all(), dataset.stats


def _model(plan: Plan) -> Any:
    decoder = of(Pattern.tokenizer)(plan), of(Pattern.latent_stats)(plan)
    model = ImageModel.load(weights_file(plan), CPU, *decoder, weights_of(vanilla(plan), 10))
    return model.backbone, model.tokenizer.vae, model.stats, model.header


def _teacher(plan: Plan) -> Any:
    teacher = surroundings(plan, plan.run("guided", 0), 0, CPU)["teacher"]
    return teacher.backbone, teacher.layer, teacher.header


def _encoder(plan: Plan) -> Any:
    return surroundings(plan, plan.run("external", 0), 0, CPU)["encoder"].vit


def _batch(about: dict[str, Any]) -> Callable[[Plan], Any]:
    return lambda plan: BatchFolder(batch_file(plan).parent, about).load(0)


def _samples(plan: Plan) -> Any:
    path, _, about = files_of(plan, vanilla(plan), 10, "few")
    header = arrays_header(path, "samples", about)
    seen = Source.open(path).statistics(_extractor(plan))
    return header, seen.features, seen.labels, seen.made_of


def _extractor(plan: Plan) -> Extractor:
    return Extractor.load(of(Pattern.extractor)(plan), {"key": vanilla(plan).keys.extractor})


def _reference(plan: Plan) -> Any:
    found = Statistics.load(of(Pattern.reference)(plan), {"key": vanilla(plan).keys.extractor}, AGAIN)
    return found.extractor_sha256, found.made_of, found.features, found.pool.mean, found.pool.covariance


def _log(plan: Plan) -> Any:
    """As figures read it, and as the trainer does, which writes the same again."""
    path = log_file(plan, vanilla(plan))
    found = log_until(plan, vanilla(plan), 20).to_csv()
    TrainingLog(path, vanilla(plan).id, 20)
    assert log_until(plan, vanilla(plan), 20).to_csv() == found
    return found


def _report(path: Callable[[Plan], Path]) -> Callable[[Plan], Any]:
    return lambda plan: read_report(path(plan))


def _result(plan: Plan) -> Any:
    require_current(plan, INDEX)
    return find(INDEX), (RESULTS / "INDEX.csv").read_bytes()


def kinds(plan: Plan) -> dict[str, Kind]:
    """Every kind, after everything was made."""
    packed = {
        f"{what}: {name}": Kind(inside(pattern, name), read)
        for what, pattern, read in (("images", Pattern.images, _images), ("latents", Pattern.latents, _latents))
        for name in ("manifest.json", SHARD)
    }
    reports = {
        f"report on the {what}": Kind(of(pattern), _report(of(pattern)))
        for what, pattern in (
            ("VAE", Pattern.tokenizer_report),
            ("extractor", Pattern.extractor_report),
            ("encoder", Pattern.encoder_report),
        )
    }
    header = arrays_header(batch_file(plan), "batch")
    about = {key: value for key, value in header.items() if key not in ("kind", "batch", "sha256")}
    return {
        **packed,
        **reports,
        "latent statistics": Kind(of(Pattern.latent_stats), lambda plan: (_latents(plan), _model(plan))),
        "VAE": Kind(of(Pattern.tokenizer), _model),
        "weights": Kind(weights_file, _model),
        "online weights": Kind(
            lambda plan: weights_file(plan, kind="online"),
            lambda plan: load_backbone(weights_file(plan, kind="online"), weights_of(vanilla(plan), 10, "online")),
        ),
        "teacher": Kind(teacher_file, _teacher),
        "encoder": Kind(of(Pattern.encoder), _encoder),
        "state": Kind(state_file, lambda plan: load_state(state_file(plan), vanilla(plan), {})),
        # A killed trainer leaves the same as one whose log was cut short; figures say where a log ends.
        "log": Kind(lambda plan: log_file(plan, vanilla(plan)), _log, lambda found, whole: whole.startswith(found)),
        "batch": Kind(batch_file, _batch(about)),
        "samples to measure": Kind(samples_file, _samples),
        "samples to show": Kind(samples_file, lambda plan: images_of_class(samples_file(plan), 3, 1)),
        "extractor": Kind(of(Pattern.extractor), lambda plan: _extractor(plan).network),
        "reference": Kind(of(Pattern.reference), _reference),
        "metrics": Kind(metrics_file, lambda plan: read_metrics(metrics_file(plan))),
        "features": Kind(features_file, lambda plan: read_features(features_file(plan))),
        "result": Kind(lambda plan: RESULTS / "INDEX.csv", _result),
        "record of a result": Kind(lambda plan: RESULTS / "INDEX.json", _result),
    }
