"""What FOLDER has of what the plan needs is checked and copied, file by file: data, VAE, latents, weights, training
states, samples, metrics. FOLDER may be a copy, another disk or a group's, readable alone; what is here stays as it is.
Killed, the same command goes on. The exit code is 2 if something there was damaged, or does not fit what is here.
"""

import argparse
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from selftrans.commands.common import add_devices, add_target, files_of, plan_of
from selftrans.commands.plan import needed, what_remains
from selftrans.commands.verify import reason_of
from selftrans.errors import UserError
from selftrans.plan.paths import Pattern, wildcards_of
from selftrans.plan.plan import Plan
from selftrans.plan.runs import Keys, Run

LOG = f"{Pattern.work}/log.jsonl"

# {pattern: kind}, in an order in which each finds what it was made of.
KEYED = {  # their one wildcard is the key that they say
    Pattern.tokenizer: "VAE",
    Pattern.tokenizer_report: "report",
    Pattern.latent_stats: "latent statistics",
    Pattern.extractor: "extractor",
    Pattern.extractor_report: "report",
    Pattern.reference: "statistics",
    Pattern.encoder: "encoder",
    Pattern.encoder_report: "report",
}
TRAINED = {Pattern.teacher: "teacher", Pattern.ema: "weights", Pattern.online: "weights", Pattern.state: "state"}
NAMED = {Pattern.samples: "samples", Pattern.metrics: "metrics", Pattern.features: "features"}  # which say their name
PACKED = (Pattern.images, Pattern.latents)  # folders of rows
KEYS = {field.name for field in fields(Keys)}
ORDER = [*PACKED, *KEYED, LOG, *TRAINED, *NAMED]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own options."""
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="a repository, its results/, or one scale of them")
    add_target(parser)
    parser.add_argument(
        "--link", action="store_true", help="link instead of copying, but for what trainings write to: FOLDER must stay"
    )
    add_devices(parser)


def run(arguments: argparse.Namespace) -> None:
    """Take what fits, say what does not, and what remains to be made."""
    from selftrans.progress import progress_bar

    plan = plan_of(arguments)
    files = files_of(arguments, plan)
    wanted = {run: max(run.milestones) for run in plan.runs.values()}
    if arguments.target is not None:
        wanted = {run: step for run, (step, _) in needed(plan, files).items()}
    roots = roots_in(arguments.folder, plan)
    offered = sorted((offer for root in roots for offer in offers(plan, wanted, root)), key=lambda offer: offer.place)
    taken, refused = set(), {}
    with progress_bar(sum(offer.size for offer in offered), "adopt", "B") as bar:
        for offer in offered:
            try:
                if take(plan, offer, arguments.link):
                    taken.add(offer)
            except UserError as error:
                refused[offer] = reason_of(error, offer.source)
            bar.update(offer.size)
    for line in others(wanted, roots):
        print(line)
    refused = {offer: reason for offer, reason in refused.items() if not os.path.lexists(offer.target)}
    for offer, reason in refused.items():
        print(f"{offer.source}: not taken: {reason}")
    for line in without_origin(plan, taken):
        print(line)
    there = len(offered) - len(taken) - len(refused)
    size = sum(offer.size for offer in taken) / 1e9
    print(f"{len(taken)} files, {size:.3g} GB, are taken; {there} were here already")
    print(what_remains(arguments, plan, files))
    if refused:
        raise UserError(f"{len(refused)} of {len(offered)} files of {arguments.folder} are damaged or do not fit")


@dataclass(frozen=True, eq=False)
class Offer:
    """A file that the plan knows by its name."""

    source: Path
    target: Path
    pattern: str
    kind: str
    expected: Mapping[str, Any]  # of its header
    run: Run | None  # that it is of

    @property
    def place(self) -> tuple[int, bool, Path]:
        """Its place in the order; the manifest of packed rows comes after them."""
        return ORDER.index(self.pattern), self.source.name == "manifest.json", self.source

    @property
    def size(self) -> int:
        """Bytes."""
        return self.source.lstat().st_size


def roots_in(folder: Path, plan: Plan) -> list[Path]:
    """The folders of scales in a repository, in its results/, or ``folder`` itself.

    Raises UserError if there are none besides the plan's own.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    heads = {pattern.partition("/")[0] for pattern in ORDER}
    near = [folder, *sorted(folder.glob("*/")), *sorted(folder.glob("results/*/"))]
    found = [root for root in near if any((root / head).is_dir() for head in heads)]
    found = [root for root in found if root.resolve() != plan.root.resolve()]
    if not found:
        raise UserError(
            f"{folder}: no results of another folder; name a repository, its results/, or one scale of them"
        )
    return found


def offers(plan: Plan, wanted: Mapping[Run, int], root: Path) -> Iterator[Offer]:
    """The files below ``root`` that wanted runs (up to a step each) are made of, or that are made of them."""
    runs = {run.id: run for run in wanted}
    keys = {key for run in wanted for key in vars(run.keys).values()}
    for path in root.rglob("*"):
        if path.is_dir():
            continue
        for pattern in ORDER:
            name = path.relative_to(root)
            found = wildcards_of(pattern, name.parent if pattern in PACKED else name)
            if found is None:
                continue
            run = runs.get(found.get("run", ""))
            known = "run" not in found or (run is not None and int(found.get("step", 0)) <= wanted[run])
            if known and all(found[key] in keys for key in found.keys() & KEYS):
                kind, expected = _identity(pattern, path, found, run)
                if kind is not None:
                    yield Offer(path, plan.root / name, pattern, kind, expected, run)


def _identity(pattern: str, path: Path, found: Mapping[str, str], run: Run | None) -> tuple[str | None, dict[str, Any]]:
    """(kind, what its header says) of the file that a path promises; no kind for what lies beside packed rows."""
    if pattern in PACKED:
        kinds = {"manifest.json": "packed rows"} | ({path.name: "packed shard"} if path.suffix == ".npz" else {})
        split = {"split": found["split"]} if "split" in found else {}
        return kinds.get(path.name), {"key": found["data" if split else "latents"], **split}
    if pattern in KEYED:
        return KEYED[pattern], {"key": next(iter(found.values()))}
    if pattern in NAMED:
        return NAMED[pattern], {"file": path.name}
    about: dict[str, Any] = {"run": run.id, "seed": run.seed}
    if pattern == LOG:
        return "log", about
    if pattern == Pattern.state:
        return "state", about | {"recipe": run.recipe}
    about |= {
        "step": int(found["step"]),
        "weights": found.get("weights", "ema" if pattern == Pattern.ema else "online"),
    }
    return TRAINED[pattern], about | ({"layer": int(found["layer"])} if "layer" in found else {})


def take(plan: Plan, offer: Offer, link: bool) -> bool:
    """Copy or link a file, if there is none in its place; returns whether it did.

    Raises UserError if it is damaged, is not what its name says, or does not fit what is here.
    """
    from selftrans.leases import held

    in_work = offer.pattern in (LOG, Pattern.state)
    if os.path.lexists(offer.target):
        return False
    _check(plan, offer)
    with held(offer.target.parent, offer.run.id) if in_work else nullcontext():
        if os.path.lexists(offer.target):
            return False
        _place(offer, link and not in_work)
    return True


def _place(offer: Offer, link: bool) -> None:
    from selftrans.files import atomic_path

    if link:
        offer.target.parent.mkdir(parents=True, exist_ok=True)
        offer.target.symlink_to(offer.source.resolve())
        return
    with atomic_path(offer.target) as part:
        shutil.copyfile(offer.source, part)


def _check(plan: Plan, offer: Offer) -> None:
    """Raise UserError unless a file is whole, what its name says, and made of what is here, as far as that is here."""
    from selftrans.artifacts import whole_header
    from selftrans.data.shards import Shard
    from selftrans.training.log import read_lines

    if offer.pattern == LOG:
        read_lines(offer.source, offer.run.id)
        return
    header = whole_header(offer.source, offer.kind, offer.expected)
    if header is None:
        raise UserError(f"{offer.source}: it does not say what it is; none of ours")
    if offer.kind == "packed rows":
        if "shards" not in header:
            raise UserError(f"{offer.source}: of an earlier version of selftrans; make it again")
        for entry in header["shards"]:
            if not (shard := offer.target.with_name(entry["file"])).exists():
                raise UserError(f"{offer.source}: {shard} is not here; it comes first")
            Shard.of(shard, {"sha256": entry["sha256"]})
    if offer.kind == "packed shard" and Shard.of(offer.source).is_index and not Path(header["folder"]).is_dir():
        raise UserError(f"{offer.source}: its rows lie in {header['folder']}, which is not there; bring that")
    made_of = header.get("made_of", {}) if offer.pattern in TRAINED else {}
    if offer.pattern == Pattern.latent_stats:
        made_of = {"rows": header["latents_sha256"]}
    for what, path in _origins(plan, offer).items():
        if what in made_of and made_of[what] != (here := _sha256(path)):
            raise UserError(
                f"{offer.source}: of {what} with the SHA-256 {made_of[what][:12]}, but {path} "
                f"{f'has {here[:12]}' if here else 'is not here'}; {offer.target} is not made of that"
            )


def _origins(plan: Plan, offer: Offer) -> dict[str, Path]:
    """The files of the hashes that a header names, if they are here; latents are needed by their statistics."""
    if offer.pattern == Pattern.latent_stats:
        return {"rows": offer.target.with_name("manifest.json")}
    if offer.run is None:
        return {}
    keys, teacher = offer.run.keys, offer.run.teacher
    found = {"latents": plan.path(Pattern.latents, latents=keys.latents) / "manifest.json"}
    found["encoder"] = plan.path(Pattern.encoder, encoder=keys.encoder)
    found |= {"teacher": plan.teacher_file(teacher)} if teacher else {}
    return {what: path for what, path in found.items() if path.exists()}


def _sha256(path: Path) -> str | None:
    """The SHA-256 that a file says of what it holds, if it is here."""
    from selftrans.artifacts import read_record, tensors_header

    if not path.exists():
        return None
    if path.suffix == ".json":
        return read_record(path, "packed rows")["sha256"]
    return tensors_header(path, "teacher" if path.parent.name == "teachers" else "encoder")["sha256"]


def others(wanted: Mapping[Run, int], roots: list[Path]) -> Iterator[str]:
    """A line for each run there whose row and seed are wanted, but not its recipe."""
    ids = {run.id.rpartition("-")[0]: run.id for run in wanted}
    for root in roots:
        for folder in sorted(root.glob(f"{Path(Pattern.ema).parts[0]}/*/")):
            here = ids.get(folder.name.rpartition("-")[0], folder.name)
            if here != folder.name and not (folder.parent / here).exists():
                yield f"{folder}: not taken: of another recipe than {here}"


def without_origin(plan: Plan, taken: set[Offer]) -> Iterator[str]:
    """A line for what can be gone on from no more, or only from the start."""
    weights = [offer for offer in taken if offer.kind in ("weights", "state")]
    runs = sorted({offer.run for offer in weights}, key=lambda run: run.id)
    trained = [run for run in runs if run.row.published is None]
    for key in sorted({run.keys.latents for run in trained}):
        if not plan.path(Pattern.latent_stats, latents=key).exists():
            yield (
                f"the latents {key} did not come: made anew, they may be others in their last bits, and weights that "
                "came are then neither sampled nor trained further; bring them too"
            )
    for run in trained:
        if not plan.path(Pattern.state, run=run.id).exists():
            yield f"{run.id}: came without a training state: its milestones stay, a later one begins at step 0"
