"""What would be made, from what, and where: references, milestones, hashes and paths as pure functions.

The Snakefile and the commands both ask this module, so a path has one definition. A run's folder is its name
and seed plus eight characters of the hash of its recipe: everything that its weights depend on, and nothing
else (not its length, device, threads, or fields at their default). An edited row is another run.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from selftrans.config import Claim, Family, Model, Project, PublishedEncoder, Row, Table
from selftrans.errors import UserError
from selftrans.loading.tables import fits
from selftrans.records import Record, refuse
from selftrans.signatures import signature

Evaluation = tuple[str, int, str]  # run@epoch, seed, preset: what one metric file measures

RECIPE_VERSION = 1  # raise it by hand when numerics change, so that nothing old passes for new

Source = Literal["weights", "teacher", "encoder", "latents"]  # where probed features come from

GUIDED_BY: dict[str, Source] = {  # what each method aligns its student with comes from
    "self_transcendence": "teacher",
    **dict.fromkeys(("repa", "irepa", "haste"), "encoder"),
    **dict.fromkeys(("vae_align", "vae_repa"), "latents"),
    **dict.fromkeys(("layersync", "sra"), "weights"),  # the run's own
}

NOT_OF_THE_BACKBONE = {"projector_width", "checkpoint_activations"}  # fields of a model


class Pattern:
    """Where everything lies under ``results/<scale>/``; the Snakefile's rules use the same strings."""

    images = "data/{data}/{split}"
    tokenizer = "tokenizers/{tokenizer}.safetensors"
    tokenizer_report = "tokenizers/{tokenizer}.json"
    latents = "latents/{tokenizer}"
    latent_stats = "latents/{tokenizer}/stats.json"
    extractor = "extractors/{extractor}.safetensors"
    extractor_report = "extractors/{extractor}.json"
    reference = "references/{extractor}.npz"
    encoder = "encoders/{encoder}.safetensors"
    encoder_report = "encoders/{encoder}.json"
    ema = "runs/{run}/step-{step}.ema.safetensors"
    online = "runs/{run}/step-{step}.online.safetensors"
    work = "work/{run}"  # not an output: the state that a killed training goes on from, and its log
    teacher = "teachers/{run}.step-{step}.{weights}.layers-{layer}.safetensors"
    samples = "samples/{run}.step-{step}.{preset}.npz"
    batches = "work/samples/{run}.step-{step}.{preset}.{key}"  # not an output: what was drawn of samples so far
    shard = "shards/{run}.step-{step}.{preset}/{shard}-of-{shards}.json"
    metrics = "metrics/{run}.step-{step}.{preset}.json"
    features = "features/{run}.step-{step}.layers-{layers}.t-{t}.{split}-{images}.{form}.npz"


def fingerprint(recipe: Any) -> str:
    """Eight characters of the SHA-256 of a recipe's canonical JSON."""
    text = json.dumps(recipe, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Reference:
    """``run@epoch``, as rows and tables write it."""

    name: str
    epoch: int

    @classmethod
    def parse(cls, text: str) -> "Reference":
        """Raises UserError unless ``text`` is ``<run>@<epoch>``."""
        name, at, epoch = text.partition("@")
        if not at or not epoch.isdecimal():
            raise UserError(f"{text!r} is not a reference; write <run>@<epoch>, such as sit-b2@80")
        return cls(name, int(epoch))


@dataclass(frozen=True)
class Probe:
    """Which features are looked at: of the first ``images`` that a split has for this, noised until time ``t``.

    ``layers`` are those of the backbone, counted from 1, or "all" of them, or "guiding": what the run's method aligns
    its student with. The ``form`` is the features of each token, or their mean over tokens ("pooled").
    """

    t: float
    images: int
    layers: tuple[int, ...] | Literal["all", "guiding"] = "all"
    form: Literal["tokens", "pooled"] = "pooled"
    split: Literal["train", "test"] = "test"

    @property
    def wildcards(self) -> dict[str, str]:
        """Its part of a file's name, and the verb's options."""
        layers = self.layers if isinstance(self.layers, str) else ",".join(map(str, self.layers))
        return {
            "layers": layers,
            "t": f"{self.t:g}",
            "split": self.split,
            "images": str(self.images),
            "form": self.form,
        }


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

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """All that the weights depend on."""
        family, row = self.family, self.row
        recipe = {
            "recipe_version": RECIPE_VERSION,
            "seed": self.seed,
            "model": self.model.model_dump(mode="json", exclude_defaults=True, exclude=NOT_OF_THE_BACKBONE),
            "latents": self.keys.tokenizer,
            "batch_size": family.batch_size,
            "optimiser": _set_fields(family.optimiser),
            "average": _set_fields(family.average),
            "label_dropout": family.label_dropout,
            "t_law": family.t_law,
            "method": self._method_recipe(),
            "weight": row.weight,
            "stop": None if self.stop_epoch is None else self.step_at(self.stop_epoch),
        }
        if family.cosine_weight:
            recipe["cosine_weight"] = family.cosine_weight
        if row.initial_weights == "own":
            recipe["initial_weights"] = self.name
        if self.teacher is not None:
            recipe["teacher"] = [fingerprint(self.teacher.run.recipe), self.teacher.step, self.teacher.weights]
        if self.needs_images:
            recipe["encoder"] = self.keys.encoder
        return recipe

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
            "input_size": data.size // 2 ** (len(tokenizer.block_channels) - 1),
            "channels": tokenizer.latent_channels,
            "num_classes": data.classes,
        }

    @property
    def tokens(self) -> int:
        """How many tokens an image is to the backbone."""
        return (self.backbone["input_size"] // self.model.patch_size) ** 2

    @cached_property
    def milestones(self) -> dict[int, int]:
        """{step: epoch} of every milestone: the family's grid plus the row's stop."""
        epochs = {*self.family.milestones, *([self.stop_epoch] if self.stop_epoch else [])}
        return {self.step_at(epoch): epoch for epoch in sorted(epochs)}

    def step_at(self, epoch: int) -> int:
        """Optimiser steps made after ``epoch`` epochs of the paper's schedule."""
        return self.family.step_at(epoch)

    def milestone_before(self, step: int) -> int | None:
        """The step of the milestone before ``step``, or None for the first."""
        return max((found for found in self.milestones if found < step), default=None)

    def is_guided(self, step: int) -> bool:
        """Whether the segment that ends at milestone ``step`` still needs the method."""
        return self.has_method_after(self.milestone_before(step) or 0)

    def has_method_after(self, step: int) -> bool:
        """Whether the step after ``step`` steps still needs the method."""
        stop = self.recipe["stop"]
        return self.row.method is not None and (stop is None or step < stop)


@dataclass(frozen=True)
class Keys:
    """Names, with hashes, of what a family rests on."""

    data: str
    tokenizer: str
    extractor: str
    encoder: str

    @classmethod
    def of(cls, family: Family) -> "Keys":
        """The keys of a family; families with equal recipes share the files."""
        data = _key(family.data.source, _set_fields(family.data))
        return cls(
            data=data,
            tokenizer=_key(f"{family.data.source}-kl-vae", [data, _training_fields(family.tokenizer)]),
            extractor=_key(family.extractor.name, [data, _training_fields(family.extractor)]),
            encoder=_encoder_key(family, data),
        )


def _key(name: str, recipe: Any) -> str:
    return f"{name}-{fingerprint([RECIPE_VERSION, recipe])}"


def _encoder_key(family: Family, data: str) -> str:
    """A published encoder is its name and what images it is for, wherever its file lies."""
    if isinstance(family.encoder, PublishedEncoder):
        return _key(family.encoder.published, family.data.size)
    return _key(family.encoder.name, [data, _training_fields(family.encoder)])


def _set_fields(record: Record) -> dict[str, Any]:
    """A record without fields at their default, so that a new field renames nothing."""
    return record.model_dump(mode="json", exclude_defaults=True)


def _training_fields(record: Record) -> dict[str, Any]:
    """As `_set_fields`, without the bars that the result must pass: they do not change it."""
    return {key: value for key, value in _set_fields(record).items() if not key.startswith(("min_", "max_"))}


class Plan:
    """All runs of a project at its scale and seeds, resolved and checked."""

    def __init__(self, project: Project) -> None:
        """Raises UserError for references that lead nowhere, cycles, and rows with one recipe."""
        self.project = project
        self.scale = project.scale
        self.rows_file = project.folder / "runs.yaml"
        self.root = Path("results") / project.scale.name
        self.keys = {name: Keys.of(family) for name, family in project.scale.families.items()}
        self.seeds = range(project.seeds)
        self.claim_seeds = range(max(project.seeds, project.claim_seeds))
        self.runs: dict[str, Run] = {}  # by id
        self._resolved: dict[tuple[str, int], Run] = {}
        for seed in self.claim_seeds:
            for name in project.rows:
                run = self.run(name, seed)
                self.runs[run.id] = run
        self._refuse_equal_recipes(seed=0)
        for name, table in project.tables.items():
            self._check_table(name, table)
        for name, claim in project.claims.items():
            self._check_claim(name, claim)

    # ------------------------------------------------------------------ references

    def run(self, name: str, seed: int, chain: tuple[str, ...] = ()) -> Run:
        """The run of row ``name`` at ``seed``. Raises UserError if there is no such row."""
        if name in chain:
            cycle = " -> ".join([*chain[chain.index(name) :], name])
            raise UserError(
                f"{self.rows_file}: {name}.teacher: a cycle of teachers: {cycle}; one of them must learn without"
            )
        if name not in self.project.rows:
            known = ", ".join(self.project.rows)
            raise UserError(f"{self.rows_file}: no row is called {name!r}; allowed: {known}")
        if (name, seed) not in self._resolved:
            row = self.project.rows[name]
            family = self.scale.families[row.family]
            self._resolved[name, seed] = Run(
                name=name,
                seed=seed,
                row=row,
                family=family,
                model=family.models[row.model],
                keys=self.keys[row.family],
                teacher=self._teacher(name, row, seed, (*chain, name)),
                stop_epoch=None if row.stop is None else self._stretched(row.stop, "stop", family),
            )
        return self._resolved[name, seed]

    def milestone(self, text: str, seed: int, where: str = "RUN@EPOCH") -> tuple[Run, int]:
        """(run, step) of a reference ``run@epoch``.

        Raises UserError, which begins with ``where``, if there is no such row or the epoch is no milestone.
        """
        reference = self._reference(text, where)
        run = self.run(reference.name, seed)
        step = run.step_at(reference.epoch)
        if step not in run.milestones:
            allowed = ", ".join(f"{run.name}@{epoch}" for epoch in run.milestones.values())
            raise UserError(f"{where}: found {text!r}; allowed: the milestones {allowed}")
        return run, step

    def keeps(self, run: Run) -> bool:
        """Whether a run is among those that the project keeps ``only``."""
        only = self.project.only
        return only is None or fits(run.name, only, self.project.rows)

    def _reference(self, text: str, where: str) -> Reference:
        reference = Reference.parse(text)
        if reference.name not in self.project.rows:
            known = ", ".join(self.project.rows)
            raise UserError(f"{where}: found {text!r}; allowed: <run>@<epoch> with <run> one of {known}")
        return reference

    def _teacher(self, name: str, row: Row, seed: int, chain: tuple[str, ...]) -> Teacher | None:
        if row.teacher is None:
            return None
        file, key = self.rows_file, f"{name}.teacher"
        reference = self._reference(row.teacher, f"{file}: {key}")
        run = self.run(reference.name, seed, chain)
        if (run.row.family, run.row.model) != (row.family, row.model):
            allowed = f"a run of {row.family} {row.model}, as the student is; this one is of"
            refuse(file, key, row.teacher, f"{allowed} {run.row.family} {run.row.model}")
        epoch = self._stretched(reference.epoch, "teacher", run.family)
        if run.step_at(epoch) not in run.milestones:
            stretch = run.family.stretch.teacher
            allowed = ", ".join(f"{run.name}@{found / stretch:g}" for found in run.milestones.values())
            times = f" (times {stretch:g} at scale {self.scale.name})" if stretch != 1 else ""
            refuse(file, key, row.teacher, f"the milestones {allowed}{times}")
        return Teacher(run, epoch, row.teacher_weights, row.method["guiding_layer"])

    def _stretched(self, epoch: int, what: str, family: Family) -> int:
        """The paper's ``epoch`` times the scale's factor for teachers or stops."""
        factor = getattr(family.stretch, what)
        if abs(epoch * factor - round(epoch * factor)) > 1e-9:
            allowed = f"a factor that makes {what} {epoch} a whole number of epochs"
            refuse(self.project.scale_file, f"stretch.{what}", factor, allowed)
        return round(epoch * factor)

    def _refuse_equal_recipes(self, seed: int) -> None:
        seen: dict[str, str] = {}
        for name in self.project.rows:
            recipe = fingerprint(self.run(name, seed).recipe)
            if recipe in seen:
                raise UserError(
                    f"{self.rows_file}: {name} and {seen[recipe]} have one recipe; delete {name} and "
                    f"reference {seen[recipe]} in its place"
                )
            seen[recipe] = name

    def _check_table(self, name: str, table: Table) -> None:
        path = self.project.folder / "tables.yaml"
        if name == "claims":
            refuse(path, name, name, "another name, since results/claims.csv has the verdicts on claims.yaml")
        for number, row in enumerate(table.rows, start=1):
            if row.run is None:
                continue
            run, _ = self.milestone(row.run, 0, where=f"{path}: {name}.rows.{number}.run")
            presets = {
                "preset": table.preset,
                "second_preset": table.second_preset,
                f"rows.{number}.preset": row.preset,
            }
            for key, preset in presets.items():
                if preset is not None and preset not in run.family.presets:
                    refuse(path, f"{name}.{key}", preset, ", ".join(run.family.presets))
            if row.compare_with is not None:
                self.milestone(row.compare_with, 0, where=f"{path}: {name}.rows.{number}.compare_with")
        if table.compare_with is not None:
            self.milestone(table.compare_with, 0, where=f"{path}: {name}.compare_with")

    def _check_claim(self, name: str, claim: Claim) -> None:
        path = str(self.project.folder / "claims.yaml")
        if name in self.scale.claims:
            path += f" with the claims of {self.project.scale_file}"
        for key, reference in claim.references.items():
            run, _ = self.milestone(reference, 0, where=f"{path}: {name}.{key}")
            if claim.preset not in run.family.presets:
                refuse(path, f"{name}.preset", claim.preset, ", ".join(run.family.presets))

    # ----------------------------------------------------------------------- paths

    def origin(self, path: Path) -> tuple[Run, int] | None:
        """(run, step) whose weights a file is made from, or None if it is made from those of no run."""
        if path.name.startswith("step-"):
            name, step = path.parent.name, path.name
        else:
            name, _, step = path.name.partition(".")
        if name not in self.runs:
            return None
        run, step = self.runs[name], int(step.removeprefix("step-").partition(".")[0])
        if ".layers-guiding." in path.name:
            source, _ = self.probed(run, step, "guiding")
            if source == "teacher":
                return run.teacher.run, run.teacher.step
            return (run, step) if source == "weights" else None
        return run, step

    def path(self, pattern: str, **wildcards: Any) -> Path:
        """The path of ``pattern`` (one of `Pattern`) under the scale's folder."""
        return self.root / pattern.format(**wildcards)

    def weights(self, run: Run, step: int, kind: str = "ema") -> Path:
        """The weights of a run at a milestone, ``kind`` "ema" or "online"."""
        return self.path(getattr(Pattern, kind), run=run.id, step=step)

    def teacher_file(self, teacher: Teacher) -> Path:
        """The frozen teacher of a reference."""
        wildcards = {"step": teacher.step, "weights": teacher.weights, "layer": teacher.layer}
        return self.path(Pattern.teacher, run=teacher.run.id, **wildcards)

    def features(self, reference: str, seed: int, probe: Probe) -> Path:
        """The features of ``run@epoch`` at one seed."""
        run, step = self.milestone(reference, seed)
        self.probed(run, step, probe.layers)
        return self.path(Pattern.features, run=run.id, step=step, **probe.wildcards)

    def probed(self, run: Run, step: int, layers: tuple[int, ...] | str) -> tuple[Source, Path]:
        """What features come from, and its file.

        Raises UserError if the backbone has no such layer, or if a run without guiding features is asked for them.
        """
        for layer in layers if isinstance(layers, tuple) else ():
            if not 1 <= layer <= run.model.depth:
                raise UserError(f"layers of {run.name}: found {layer}; allowed: 1 to {run.model.depth}")
        method = run.row.method["name"] if run.row.method else None
        source = GUIDED_BY.get(method) if layers == "guiding" else "weights"
        match source:
            case "weights":
                return source, self.weights(run, step)
            case "teacher":
                return source, self.teacher_file(run.teacher)
            case "encoder":
                return source, self.path(Pattern.encoder, encoder=run.keys.encoder)
            case "latents":
                return source, self.path(Pattern.tokenizer, tokenizer=run.keys.tokenizer)
        raise UserError(f"{run.name} has no guiding features; allowed: rows whose method is {', '.join(GUIDED_BY)}")

    def metrics(self, reference: str, seed: int, preset: str) -> Path:
        """The metric file of ``run@epoch`` at one seed."""
        run, step = self.milestone(reference, seed)
        return self.path(Pattern.metrics, run=run.id, step=step, preset=preset)

    def evaluations_of(self, table: Table) -> list[Evaluation]:
        """What a table is made of: its rows, what they are compared with, second samplers."""
        measured = [(row.run, row.preset or table.preset) for row in table.trained]
        compared = [(row.compare_with or table.compare_with, row.preset or table.preset) for row in table.trained]
        measured += [(reference, preset) for reference, preset in compared if reference is not None]
        found = [(reference, seed, preset) for reference, preset in measured for seed in self.seeds]
        if table.second_preset is not None:
            found += [(row.run, 0, table.second_preset) for row in table.trained]
        return list(dict.fromkeys(found))

    def evaluations_of_claims(self) -> list[Evaluation]:
        """What the claims are judged by."""
        found = [
            (reference, seed, claim.preset)
            for seed in self.claim_seeds
            for claim in self.project.claims.values()
            for reference in claim.references.values()
        ]
        return list(dict.fromkeys(found))

    @property
    def targets(self) -> dict[str, list[Evaluation]]:
        """{name: what results/<name>.csv is made of}, for all tables and, if there are any, the claims."""
        tables = {name: self.evaluations_of(table) for name, table in self.project.tables.items()}
        return tables | ({"claims": self.evaluations_of_claims()} if self.project.claims else {})

    def metrics_of(self, table: Table) -> list[Path]:
        """The metric files that a table is made of."""
        return [self.metrics(*evaluation) for evaluation in self.evaluations_of(table)]

    def metrics_of_claims(self) -> list[Path]:
        """The metric files that the claims are judged by."""
        return [self.metrics(*evaluation) for evaluation in self.evaluations_of_claims()]

    def reports_of(self, table: Table) -> list[Path]:
        """The reports on what a table's numbers rest on: VAE, extractor, and the encoder if a run has one."""
        runs = [self.milestone(row.run, seed=0)[0] for row in table.trained]
        runs += [run.teacher.run for run in runs if run.teacher is not None]
        paths = [self.path(Pattern.tokenizer_report, tokenizer=run.keys.tokenizer) for run in runs]
        paths += [self.path(Pattern.extractor_report, extractor=run.keys.extractor) for run in runs]
        paths += [self.path(Pattern.encoder_report, encoder=run.keys.encoder) for run in runs if run.needs_images]
        return list(dict.fromkeys(paths))

    def family_of(self, kind: str, key: str) -> str:
        """The name of a family whose ``kind`` (data, tokenizer, ...) has this key."""
        return next(name for name, keys in self.keys.items() if getattr(keys, kind) == key)
