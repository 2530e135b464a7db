"""What files of runs rest on besides one another: packed images, VAE, latents, extractor and reference, encoder."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from selftrans.config.families import ClassifierRecipe, TokenizerRecipe
from selftrans.plan.paths import Pattern, wildcards_of
from selftrans.plan.plan import Plan
from selftrans.plan.runs import Run

MANIFEST = "manifest.json"


def missing_sources(plan: Plan, files: Iterable[tuple[Path, Run]]) -> dict[Path, Run]:
    """{what is not there: a run that needs it}, for weights, samples, metrics and features that are to be made.

    The manifest stands for a folder of packed rows.
    """
    missing: dict[Path, Run] = {}
    waiting = list(files)
    while waiting:
        path, run = waiting.pop()
        for source in _sources_of(plan, path, run):
            if source not in missing and not source.exists():
                missing[source] = run
                waiting.append((source, run))
    return missing


def _sources_of(plan: Plan, path: Path, run: Run) -> Iterator[Path]:
    """What a file is made of; ``run`` is one whose family it is of."""
    found, family, keys = path.relative_to(plan.root), run.family, run.keys
    train, test = (plan.path(Pattern.images, data=keys.data, split=split) / MANIFEST for split in ("train", "test"))
    tokenizer = plan.path(Pattern.tokenizer, tokenizer=keys.tokenizer)
    latents = plan.path(Pattern.latents, latents=keys.latents) / MANIFEST
    encoder = plan.path(Pattern.encoder, encoder=keys.encoder)
    if wildcards_of(Pattern.ema, found):
        if run.row.published is None:
            yield latents
        if run.needs_images:
            yield from (encoder, train)
    elif wildcards_of(Pattern.samples, found):
        yield tokenizer
        yield latents if run.row.published is None else plan.weights(run, *run.milestones)
    elif wildcards := wildcards_of(Pattern.metrics, found) or wildcards_of(Pattern.reference, found):
        yield plan.path(Pattern.extractor, extractor=wildcards["extractor"])
        if "run" in wildcards:
            yield plan.path(Pattern.reference, extractor=wildcards["extractor"])
        elif _compares_packed_images(plan, wildcards["extractor"]):
            yield train
    elif wildcards := wildcards_of(Pattern.features, found):
        yield train if wildcards["split"] == "train" else test
    elif path == latents:
        yield tokenizer
        if family.encodes_packed_images and family.latents is None:
            yield train
    elif _is_trained_on_images(plan, path, run):
        yield from (train, test)


def _is_trained_on_images(plan: Plan, path: Path, run: Run) -> bool:
    """Whether a file is a VAE, an extractor or an encoder that is trained here."""
    if wildcards := wildcards_of(Pattern.extractor, path.relative_to(plan.root)):
        return isinstance(plan.judges[wildcards["extractor"]].recipe, ClassifierRecipe)
    if path == plan.path(Pattern.tokenizer, tokenizer=run.keys.tokenizer):
        return isinstance(run.family.tokenizer, TokenizerRecipe)
    is_encoder = path == plan.path(Pattern.encoder, encoder=run.keys.encoder)
    return is_encoder and isinstance(run.family.encoder, ClassifierRecipe)


def _compares_packed_images(plan: Plan, extractor: str) -> bool:
    """Whether the reference of an extractor is made of packed images."""
    judge = plan.judges[extractor]
    family = plan.scale.families[judge.family]
    return judge.reference is None and family.compares_packed_images(judge.recipe)
