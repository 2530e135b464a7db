"""A row at one seed of a scale: what its weights depend on, its milestones, and what it rests on.

A run's folder is its name and seed plus eight characters of the hash of its recipe: everything that its weights
depend on, and nothing else (not its length, device, threads, or fields at their default). An edited row is another
run.
"""

import hashlib
import json
from collections.abc import Container
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from selftrans.config.families import (
    Extractor,
    Family,
    Model,
    PublishedEncoder,
    PublishedExtractor,
    PublishedTokenizer,
)
from selftrans.config.records import Record
from selftrans.config.rows import Row
from selftrans.config.signatures import signature
from selftrans.plan.asked import EVERY

RECIPE_VERSION = 1  # raise it by hand when numerics change, so that nothing old passes for new

NOT_OF_THE_BACKBONE = {"projector_width", "checkpoint_activations"}  # fields of a model


def fingerprint(recipe: Any) -> str:
    """Eight characters of the SHA-256 of a recipe's canonical JSON."""
    text = json.dumps(recipe, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Teacher:
    """The run, step, kind of weights and layer that a guided run learns from."""

    run: "Run"
    epoch: int
    weights: str
    layer: int

    @property
    def step(self) -> int:
        """The optimiser step of the teacher's milestone."""
        return self.run.step_at(self.epoch)


@dataclass(frozen=True, eq=False)
class Run:
    """A row at one seed of one scale."""

    name: str
    seed: int
    row: Row
    family: Family
    model: Model
    keys: "Keys"
    teacher: Teacher | None
    stop_epoch: int | None
    asked: Container[int] = EVERY  # epochs at which anything asks for its weights, and a training job ends

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """All that the weights depend on."""
        family, row = self.family, self.row
        if row.published is not None:
            return self._published_recipe()
        recipe = {
            "recipe_version": RECIPE_VERSION,
            "seed": self.seed,
            "model": self.model.model_dump(mode="json", exclude_defaults=True, exclude=NOT_OF_THE_BACKBONE),
            "latents": self.keys.latents,
            "batch_size": family.batch_size,
            "optimiser": _set_fields(family.optimiser),
            "average": _set_fields(family.average),
            "label_dropout": family.label_dropout,
            "t_law": family.t_law,
            "method": self._method_recipe(),
            "weight": row.weight,
            "stop": None if self.stop_epoch is None else self.step_at(self.stop_epoch),
        }
        if family.t_law_until is not None:
            recipe["t_law_until"] = family.step_at(family.t_law_until)
        for key, default in {"cosine_weight": 0, "precision": "float32", "compile": False, "draws": "cpu"}.items():
            if getattr(family, key) != default:
                recipe[key] = getattr(family, key)
        if row.initial_weights == "own":
            recipe["initial_weights"] = self.name
        if self.teacher is not None:
            recipe["teacher"] = [fingerprint(self.teacher.run.recipe), self.teacher.step, self.teacher.weights]
        if self.needs_images:
            recipe["encoder"] = self.keys.encoder
        if family.teacher_precision is not None and (self.teacher is not None or self.needs_images):
            recipe["teacher_precision"] = family.teacher_precision
        return recipe

    def _published_recipe(self) -> dict[str, Any]:
        """Published weights are what their file holds, or as long as that is not stated, the file's name."""
        published = self.row.published
        said = published.model_dump(mode="json", exclude_defaults=True, exclude={"file", "epoch"})
        return {
            "recipe_version": RECIPE_VERSION,
            "seed": self.seed,  # of the noise that they are sampled from
            "model": self.model.model_dump(mode="json", exclude_defaults=True, exclude=NOT_OF_THE_BACKBONE),
            "latents": self.keys.latents,
            "published": said if published.sha256 else {**said, "file": Path(published.file).name},
            "stop": None,
        }

    @property
    def needs_images(self) -> bool:
        """Whether the method looks at the images, through an encoder."""
        return self.row.method is not None and signature(self.row.method["name"]).needs_images

    def _method_recipe(self) -> dict[str, Any] | None:
        """The method without settings at their default, so that a new setting renames nothing."""
        if self.row.method is None:
            return None
        known = signature(self.row.method["name"]).settings
        settings = {
            key: value
            for key, value in self.row.method.items()
            if key == "name" or known[key][1] is ... or known[key][1] != value
        }
        return {**settings, "projector_width": self.model.projector_width}

    @cached_property
    def id(self) -> str:
        """The name of the run's folder."""
        return f"{self.name}-s{self.seed}-{fingerprint(self.recipe)}"

    @property
    def label(self) -> str:
        """The run's name for people."""
        return f"{self.name} seed {self.seed}"

    @property
    def backbone(self) -> dict[str, Any]:
        """The arguments of `backbones.build_backbone`."""
        tokenizer, data = self.family.tokenizer, self.family.data
        return {
            **self.model.model_dump(exclude=NOT_OF_THE_BACKBONE),
            "input_size": data.size // tokenizer.downsampling,
            "channels": tokenizer.latent_channels,
            "num_classes": data.classes,
        }

    @property
    def tokens(self) -> int:
        """How many tokens an image is to the backbone."""
        return (self.backbone["input_size"] // self.model.patch_size) ** 2

    @cached_property
    def multiplications(self) -> int:
        """Of one block for one image: the linear layers of attention and MLP, and attention itself."""
        tokens, width = self.tokens, self.model.width
        return tokens * (12 * width**2 + 2 * tokens * width)

    @cached_property
    def milestones(self) -> dict[int, int]:
        """{step: epoch} of every milestone: the family's grid plus the row's stop."""
        if self.row.published is not None:
            return {self.step_at(self.row.published.epoch): self.row.published.epoch}
        epochs = {*self.family.milestones, *([self.stop_epoch] if self.stop_epoch else [])}
        return {self.step_at(epoch): epoch for epoch in sorted(epochs)}

    def step_at(self, epoch: int) -> int:
        """Optimiser steps made after ``epoch`` epochs of the paper's schedule."""
        return self.family.step_at(epoch)

    @property
    def ends(self) -> list[int]:
        """The steps of the milestones that are asked for, at which training jobs end."""
        return [step for step, epoch in self.milestones.items() if epoch in self.asked]

    def milestone_before(self, step: int) -> int | None:
        """Where the job that trains to ``step`` begins: at the last milestone before it that is asked for, or None."""
        return max((end for end in self.ends if end < step), default=None)

    def preset_key(self, preset: str) -> str:
        """The name of a preset of the family with a hash of all that its samples depend on besides the run.

        An alias has that of the preset that it stands for: they share the samples.
        """
        tokenizer, recipe = self.family.tokenizer, self.family.presets[preset].recipe
        if isinstance(tokenizer, PublishedTokenizer) and tokenizer.decoder:  # no weights depend on it, but images do
            recipe = [recipe, tokenizer.decoder]
        return _key(self.own_name(preset), recipe)

    def own_name(self, preset: str) -> str:
        """The name of the preset that an alias stands for; of any other, its own."""
        return self.family.aliases.get(preset, preset)

    def preset_named(self, key: str) -> str:
        """The name of the preset whose key this is; "" if the family has none."""
        return self._presets.get(key, "")

    @cached_property
    def _presets(self) -> dict[str, str]:
        """{key: the first of the presets that have it}."""
        return {self.preset_key(name): name for name in reversed(self.family.presets)}

    def is_guided(self, step: int) -> bool:
        """Whether the job that trains to milestone ``step`` still needs the method."""
        return self.has_method_after(self.milestone_before(step) or 0)

    def guided_steps(self, begin: int, end: int) -> int:
        """How many of the steps from ``begin`` to ``end`` need the method."""
        if self.row.method is None:
            return 0
        stop = self.recipe["stop"]
        return end - begin if stop is None else max(min(stop, end) - begin, 0)

    def has_method_after(self, step: int) -> bool:
        """Whether the step after ``step`` steps still needs the method."""
        stop = self.recipe["stop"]
        return self.row.method is not None and (stop is None or step < stop)


@dataclass(frozen=True)
class Keys:
    """Names, with hashes, of what a family rests on."""

    data: str
    tokenizer: str
    latents: str
    extractor: str
    second_extractor: str | None
    encoder: str

    @classmethod
    def of(cls, family: Family) -> "Keys":
        """The keys of a family; families with equal recipes share the files."""
        data = _key(family.data.label, family.data.recipe)
        tokenizer = _tokenizer_key(family, data)
        second = family.second_extractor
        return cls(
            data=data,
            tokenizer=tokenizer,
            latents=_latents_key(family, data, tokenizer),
            extractor=_extractor_key(family, data, family.extractor),
            second_extractor=None if second is None else _extractor_key(family, data, second),
            encoder=_encoder_key(family, data),
        )


def _key(name: str, recipe: Any) -> str:
    return f"{name}-{fingerprint([RECIPE_VERSION, recipe])}"


def _tokenizer_key(family: Family, data: str) -> str:
    """A published VAE is what it encodes and decodes with, wherever its files lie and whatever it is used for."""
    recipe = family.tokenizer
    if isinstance(recipe, PublishedTokenizer):
        return _key(recipe.published, recipe.decoder)
    return _key(f"{family.data.label}-kl-vae", [data, _training_fields(recipe, "moments")])


def _latents_key(family: Family, data: str, tokenizer: str) -> str:
    """The VAE's own, where that is trained on the images and nothing else is to be said.

    Of a published VAE, what encodes matters alone: another decoder trains nothing again.
    """
    said = {key: value for key, value in {"flip": family.flip}.items() if value}
    said |= family.tokenizer.model_dump(include={"moments", "normalisation"}, exclude_defaults=True)
    if family.latents is not None:
        said["layout"] = family.latents.layout
    if isinstance(family.tokenizer, PublishedTokenizer):
        return _key(f"{family.data.label}-{family.tokenizer.published}", [data, family.tokenizer.published, said])
    return _key(f"{family.data.label}-kl-vae", [tokenizer, said]) if said else tokenizer


def _extractor_key(family: Family, data: str, recipe: Extractor) -> str:
    """An extractor and what samples are compared with through it."""
    reference = family.reference_of(recipe)
    said = [data] if reference is None else [reference.name]
    if isinstance(recipe, PublishedExtractor):
        return _key(recipe.label, said if recipe.name is None else [recipe.published, *said])
    return _key(recipe.label, [*said, _training_fields(recipe)])


def _encoder_key(family: Family, data: str) -> str:
    """A published encoder is its name and what images it is for, wherever its file lies."""
    if isinstance(family.encoder, PublishedEncoder):
        return _key(family.encoder.published, family.data.size)
    return _key(family.encoder.name, [data, _training_fields(family.encoder)])


def _set_fields(record: Record) -> dict[str, Any]:
    """A record without fields at their default, so that a new field renames nothing."""
    return record.model_dump(mode="json", exclude_defaults=True)


def _training_fields(record: Record, *others: str) -> dict[str, Any]:
    """As `_set_fields`, without ``others`` and the bars that the result must pass: they do not change it."""
    fields = _set_fields(record).items()
    return {key: value for key, value in fields if not key.startswith(("min_", "max_")) and key not in others}
