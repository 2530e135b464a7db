"""What a plan needs that nothing here makes: images, and files that other people published."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from selftrans.config.families import PublishedEncoder, PublishedExtractor, PublishedTokenizer
from selftrans.errors import UserError
from selftrans.plan.paths import Pattern
from selftrans.plan.plan import Plan


@dataclass(frozen=True)
class Outside:
    """A file or folder that somebody has to bring: which file's key names it, and what it is called."""

    key: str  # <file>: <key>
    name: str
    path: Path


def outside(plan: Plan) -> list[Outside]:
    """All that rows of the plan rest on, each path once, in the order of the scale's families."""
    used = {run.row.family for run in plan.runs.values()}
    found: dict[Path, Outside] = {}
    for family in plan.keys:
        for _, needed in _needs(plan, family) if family in used else ():
            found.setdefault(needed.path, needed)
    for _, needed in _checkpoints(plan):
        found.setdefault(needed.path, needed)
    return list(found.values())


def outside_of(plan: Plan, made: Iterable[Path]) -> list[Outside]:
    """What of outside the files ``made`` are made of, each path once."""
    files = list(made)
    needs = chain(_checkpoints(plan), *(_needs(plan, family) for family in plan.keys))
    found: dict[Path, Outside] = {}
    for source, needed in needs:
        if _any_of(files, source):
            found.setdefault(needed.path, needed)
    return list(found.values())


def require_outside(plan: Plan, made: Iterable[Path]) -> None:
    """Raise UserError that names what is not there of what the files ``made`` are made of, each in a line."""
    missing = [found for found in outside_of(plan, made) if not found.path.exists()]
    if missing:
        scale = plan.project.scale_file
        how = f"`selftrans fetch {scale}` brings what can be had, and says where the rest is"
        lines = [f"{found.key}: {found.path} ({found.name}) is not there" for found in missing]
        raise UserError("\n".join([*lines[:-1], f"{lines[-1]}; {how}"]))


def _any_of(files: Iterable[Path], source: Path) -> bool:
    """Whether any of the files is ``source``, in it, or a part of it that one of several jobs makes."""
    beginnings = (f"{source}/", f"{source}.parts/")
    return any(path == source or str(path).startswith(beginnings) for path in files)


def _checkpoints(plan: Plan) -> Iterator[tuple[Path, Outside]]:
    """(weights, the checkpoint that they are imported from) of rows that train nothing."""
    for run in plan.runs.values():
        if run.row.published is not None:
            (step,) = run.milestones
            key = f"{plan.rows_file}: {run.name}.published.file"
            yield plan.weights(run, step), Outside(key, run.name, Path(run.row.published.file))


def _needs(plan: Plan, name: str) -> Iterator[tuple[Path, Outside]]:
    """(what is made, what of outside it is made of) of a family."""
    family, keys = plan.scale.families[name], plan.keys[name]
    here = f"{plan.project.scale_file}: families.{name}"
    images = None
    if family.data.path is not None:
        images = Outside(f"{here}.data.path", family.data.label, Path(family.data.path))
        for split in ("train", "test"):
            yield plan.path(Pattern.images, data=keys.data, split=split), images
        if family.latents is None:
            yield plan.path(Pattern.latents, latents=keys.latents), images
    if family.latents is not None:
        latents = Outside(f"{here}.latents.folder", f"{family.latents.layout}'s latents", Path(family.latents.folder))
        yield plan.path(Pattern.latents, latents=keys.latents), latents
    if isinstance(family.tokenizer, PublishedTokenizer):
        made = plan.path(Pattern.tokenizer, tokenizer=keys.tokenizer)
        vae = family.tokenizer
        yield made, Outside(f"{here}.tokenizer.weights", vae.published, Path(vae.weights))
        if vae.decoder is not None:
            yield made, Outside(f"{here}.tokenizer.decoder_weights", vae.decoder, Path(vae.decoder_weights))
    for kind in ("extractor", "second_extractor"):
        recipe, key = getattr(family, kind), getattr(keys, kind)
        if isinstance(recipe, PublishedExtractor):
            weights = Outside(f"{here}.{kind}.weights", recipe.published, Path(recipe.weights))
            yield plan.path(Pattern.extractor, extractor=key), weights
            if family.reference is not None and recipe.published == "inception":
                reference = Outside(f"{here}.reference.file", family.reference.name, Path(family.reference.file))
                yield plan.path(Pattern.reference, extractor=key), reference
            elif images is not None:
                yield plan.path(Pattern.reference, extractor=key), images
    if isinstance(family.encoder, PublishedEncoder) and any(
        run.needs_images and run.row.family == name for run in plan.runs.values()
    ):
        weights = Outside(f"{here}.encoder.weights", family.encoder.published, Path(family.encoder.weights))
        yield plan.path(Pattern.encoder, encoder=keys.encoder), weights
