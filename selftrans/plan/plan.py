"""What would be made, from what, and where: every run of a project, references to them, and the paths of files.

The Snakefile and the commands both ask this module, so a path has one definition.
"""

import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from selftrans.config.claims import Claim
from selftrans.config.families import Extractor, Family, PublishedReference
from selftrans.config.names import REFERENCE
from selftrans.config.project import Project
from selftrans.config.reading.tables import fits
from selftrans.config.records import refuse, shown
from selftrans.config.rows import Row
from selftrans.config.tables import Table
from selftrans.errors import UserError
from selftrans.plan.asked import asked_epochs
from selftrans.plan.paths import Pattern, wildcards_of
from selftrans.plan.runs import Keys, Run, Teacher, fingerprint

Evaluation = tuple[str, int, str]  # run@epoch, seed, preset: what one metric file measures

Source = Literal["weights", "teacher", "encoder", "latents"]  # where probed features come from

GUIDED_BY: dict[str, Source] = {  # what each method aligns its student with comes from
    "self_transcendence": "teacher",
    **dict.fromkeys(("repa", "irepa", "haste"), "encoder"),
    **dict.fromkeys(("vae_align", "vae_repa"), "latents"),
    **dict.fromkeys(("layersync", "sra"), "weights"),  # the run's own
}

MAX_TEACHERS = 20  # of one another


@dataclass(frozen=True)
class Reference:
    """``run@epoch``, as rows and tables write it."""

    name: str
    epoch: int

    @classmethod
    def parse(cls, text: str) -> "Reference":
        """Raises UserError unless ``text`` is ``<run>@<epoch>``."""
        found = re.fullmatch(REFERENCE, text)
        if found is None:
            raise UserError(f"{shown(text)} is not a reference; write <run>@<epoch>, such as sit-b2@80")
        return cls(found[1], int(found[2]))


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
class Judge:
    """An extractor of a family, with what it is called there."""

    family: str
    recipe: Extractor
    second: bool
    reference: PublishedReference | None  # instead of the training images

    @property
    def option(self) -> str:
        """The value of --family for the verbs that make it or what it sees."""
        return f"{self.family} --second" if self.second else self.family


@dataclass(frozen=True)
class Curve:
    """The milestones of a row, and the seeds, at which it is compared with others by what it cost."""

    epochs: tuple[int, ...]
    seeds: tuple[int, ...]


class Plan:
    """All runs of a project at its scale and seeds, resolved and checked."""

    def __init__(self, project: Project) -> None:
        """Raises UserError for references that lead nowhere, cycles, and rows with one recipe."""
        self.project = project
        self.scale = project.scale
        self.rows_file = project.folder / "runs.yaml"
        self.root = Path("results") / project.scale.name
        self.keys = {name: Keys.of(family) for name, family in project.scale.families.items()}
        self.judges = self._judges()
        self.seeds = range(project.seeds)
        self.claim_seeds = range(max(project.seeds, project.claim_seeds))
        self.runs: dict[str, Run] = {}  # by id
        self._resolved: dict[tuple[str, int], Run] = {}
        self._asked = asked_epochs(project)
        for seed in self.claim_seeds:
            for name in project.rows:
                run = self.run(name, seed)
                self.runs[run.id] = run
        self._refuse_equal_recipes(seed=0)
        for name, table in project.tables.items():
            self._check_table(name, table)
        for name, claim in project.claims.items():
            self._check_claim(name, claim)
        if (compute := project.compute) is not None:
            presets = self.run(compute.vanilla, seed=0).family.presets
            if compute.preset not in presets:
                refuse(project.folder / "compute.yaml", "preset", compute.preset, ", ".join(presets))

    def _judges(self) -> dict[str, Judge]:
        """{key: extractor}; of families that share one, the first."""
        found: dict[str, Judge] = {}
        for name, family in self.scale.families.items():
            keys = self.keys[name]
            judges = {keys.extractor: family.extractor, keys.second_extractor: family.second_extractor}
            for number, (key, recipe) in enumerate(judges.items()):
                if key is not None:
                    found.setdefault(key, Judge(name, recipe, number > 0, family.reference_of(recipe)))
        return found

    # ------------------------------------------------------------------ references

    def run(self, name: str, seed: int, chain: tuple[str, ...] = ()) -> Run:
        """The run of row ``name`` at ``seed``. Raises UserError if there is no such row."""
        if name in chain:
            cycle = " -> ".join([*chain[chain.index(name) :], name])
            raise UserError(
                f"{self.rows_file}: {name}.teacher: a cycle of teachers: {cycle}; one of them must learn without"
            )
        if len(chain) > MAX_TEACHERS:
            allowed = f"at most {MAX_TEACHERS} generations of teachers"
            refuse(self.rows_file, f"{chain[0]}.teacher", self.project.rows[chain[0]].teacher, allowed)
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
                asked=self._asked.get(name, ()),
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
        if run.row.published is not None and row.teacher_weights != "ema":
            refuse(file, f"{name}.teacher_weights", row.teacher_weights, "ema, since the teacher's are published")
        epoch = reference.epoch
        if run.row.published is None:
            epoch = self._stretched(epoch, "teacher", run.family)
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
            if claim.preset_of(reference) not in run.family.presets:
                refuse(path, f"{name}.preset", claim.preset_of(reference), ", ".join(run.family.presets))

    # ----------------------------------------------------------------------- paths

    def origin(self, path: Path) -> tuple[Run, int] | None:
        """(run, step) whose weights a file is made from, or None if it is made from those of no run."""
        if not path.is_relative_to(self.root):
            return None
        for pattern in (
            Pattern.ema,
            Pattern.online,
            Pattern.teacher,
            Pattern.samples,
            Pattern.metrics,
            Pattern.features,
        ):
            found = wildcards_of(pattern, path.relative_to(self.root))
            if found is None or found["run"] not in self.runs:
                continue
            run, step = self.runs[found["run"]], int(found["step"])
            source = self.probed(run, step, "guiding")[0] if found.get("layers") == "guiding" else "weights"
            if source == "teacher":
                return run.teacher.run, run.teacher.step
            return (run, step) if source == "weights" else None
        return None

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
        """The features of ``run@epoch`` at one seed; of training images, where there are none to test with."""
        run, step = self.milestone(reference, seed)
        if not run.family.data.tested:
            probe = replace(probe, split="train")
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
        return self.metrics_file(run, step, preset)

    def metrics_file(self, run: Run, step: int, preset: str, extractor: str | None = None) -> Path:
        """The metric file of a run at a milestone, through its family's extractor if no other key is given."""
        keys = {"preset": run.preset_key(preset), "extractor": extractor or run.keys.extractor}
        return self.path(Pattern.metrics, run=run.id, step=step, **keys)

    def second_metrics(self, reference: str, seed: int, preset: str) -> Path | None:
        """The metric file of ``run@epoch`` at one seed, through the family's second extractor; None if it has none."""
        run, step = self.milestone(reference, seed)
        return self.second_metrics_file(run, step, preset)

    def second_metrics_file(self, run: Run, step: int, preset: str) -> Path | None:
        """The metric file of a run at a milestone, through its family's second extractor; None if it has none."""
        key = run.keys.second_extractor
        return None if key is None else self.metrics_file(run, step, preset, key)

    def samples_file(self, run: Run, step: int, preset: str) -> Path:
        """The samples of a run at a milestone."""
        return self.path(Pattern.samples, run=run.id, step=step, preset=run.preset_key(preset))

    def evaluations_of(self, table: Table) -> list[Evaluation]:
        """What a table is made of: its rows, what they are compared with, second samplers."""
        measured = [(row.run, row.preset or table.preset) for row in table.trained]
        compared = [(row.compare_with or table.compare_with, row.preset or table.preset) for row in table.trained]
        measured += [(reference, preset) for reference, preset in compared if reference is not None]
        found = [(reference, seed, preset) for reference, preset in measured for seed in self.seeds]
        if table.second_preset is not None:
            found += [(row.run, 0, table.second_preset) for row in table.trained]
        return self._each_once(found)

    def seeds_of(self, claim: Claim) -> range:
        """The seeds that a claim is judged over."""
        return self.claim_seeds[: claim.seeds]

    def evaluations_of_claims(self) -> list[Evaluation]:
        """What the claims are judged by."""
        found = [
            (reference, seed, claim.preset_of(reference))
            for seed in self.claim_seeds
            for claim in self.project.claims.values()
            if seed in self.seeds_of(claim)
            for reference in claim.references.values()
        ]
        return self._each_once(found)

    @cached_property
    def curves(self) -> dict[str, Curve]:
        """{row of compute.yaml: its milestones and seeds}: those that tables and claims have it trained to anyway.

        Milestones are those that it has at all of its seeds; seeds are among the vanilla row's, which is the first.
        Empty if there is nothing to compare.
        """
        curves: dict[str, Curve] = {}
        for name in self.project.compute.rows if self.project.compute else ():
            seeds = [seed for row, seed in self._trained if row == name]
            if curves:
                seeds = [seed for seed in seeds if seed in curves[self.project.compute.vanilla].seeds]
            family, last = self.run(name, seed=0).family, min((self._trained[name, seed] for seed in seeds), default=-1)
            epochs = [epoch for epoch in sorted(family.milestones) if family.step_at(epoch) <= last]
            if epochs:
                curves[name] = Curve(tuple(epochs), tuple(sorted(seeds)))
            elif not curves:
                return {}
        return curves if len(curves) > 1 else {}

    @cached_property
    def _trained(self) -> dict[tuple[str, int], int]:
        """{(row, seed): the step that tables and claims have it trained to}, for themselves or as a teacher."""
        found: dict[tuple[str, int], int] = {}

        def train(run: Run, step: int) -> None:
            found[run.name, run.seed] = max(step, found.get((run.name, run.seed), 0))
            if run.teacher is not None:
                train(run.teacher.run, run.teacher.step)

        measured = [found for table in self.project.tables.values() for found in self.evaluations_of(table)]
        for reference, seed, _ in [*measured, *self.evaluations_of_claims()]:
            train(*self.milestone(reference, seed))
        return found

    def evaluations_of_compute(self) -> list[Evaluation]:
        """What the curves are made of: each row at its milestones and seeds."""
        return self._each_once(
            [
                (f"{name}@{epoch}", seed, self.project.compute.preset)
                for name, curve in self.curves.items()
                for epoch in curve.epochs
                for seed in curve.seeds
            ]
        )

    def _each_once(self, evaluations: list[Evaluation]) -> list[Evaluation]:
        """The evaluations without repetitions: aliases of presets are what they stand for."""
        own = [(name, seed, self.milestone(name, seed)[0].own_name(preset)) for name, seed, preset in evaluations]
        return list(dict.fromkeys(own))

    @property
    def targets(self) -> dict[str, list[Evaluation]]:
        """{name: what results/<name>.csv is made of}: all tables and, where there are such, claims and compute."""
        found = {name: self.evaluations_of(table) for name, table in self.project.tables.items()}
        if self.project.claims:
            found["claims"] = self.evaluations_of_claims()
        if self.curves:
            found["compute"] = self.evaluations_of_compute()
        return found

    def metrics_of(self, table: Table) -> list[Path]:
        """The metric files that a table is made of: through the extractors, then through the second ones."""
        evaluations = self.evaluations_of(table)
        return [*(self.metrics(*found) for found in evaluations), *self.second_metrics_of(table)]

    def second_metrics_of(self, table: Table) -> list[Path]:
        """Those of the second extractors alone."""
        files = [self.second_metrics(*found) for found in self.evaluations_of(table)]
        return [path for path in files if path is not None]

    def metrics_of_target(self, name: str) -> list[Path]:
        """The metric files that results/<name>.csv is made of: a table's, the claims', or those of the curves."""
        match name:
            case "claims":
                return self.metrics_of_claims()
            case "compute":
                return self.metrics_of_compute()
        return self.metrics_of(self.project.tables[name])

    def metrics_of_claims(self) -> list[Path]:
        """The metric files that the claims are judged by."""
        return [self.metrics(*evaluation) for evaluation in self.evaluations_of_claims()]

    def metrics_of_compute(self) -> list[Path]:
        """The metric files that curves of what is paid are drawn from."""
        return [self.metrics(*evaluation) for evaluation in self.evaluations_of_compute()]

    def reports_of(self, table: Table) -> list[Path]:
        """The reports on what a table's numbers rest on: VAE, extractor, and the encoder if a run has one."""
        runs = [self.milestone(row.run, seed=0)[0] for row in table.trained]
        runs += [run.teacher.run for run in runs if run.teacher is not None]
        paths = [self.path(Pattern.tokenizer_report, tokenizer=run.keys.tokenizer) for run in runs]
        judges = [(run.keys.extractor, run.keys.second_extractor) for run in runs]
        paths += [self.path(Pattern.extractor_report, extractor=key) for pair in judges for key in pair if key]
        paths += [self.path(Pattern.encoder_report, encoder=run.keys.encoder) for run in runs if run.needs_images]
        return list(dict.fromkeys(paths))

    def family_of(self, kind: str, key: str) -> str:
        """The name of a family whose ``kind`` (data, tokenizer, ...) has this key."""
        return next(name for name, keys in self.keys.items() if getattr(keys, kind) == key)
