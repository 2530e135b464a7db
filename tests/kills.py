"""Verbs of the command line that are killed, go on, and are compared with what was never killed.

A small project is made once, verb after verb, and the working folder is kept as it was before each. A trial copies
that folder, gives the verb in a forked process that is killed, looks at what is left, and gives the verb again. A
process kills itself before a file operation of its own (an audit hook counts them), or the kernel kills it: at a byte
of a file (the limit of a file's size) or at a moment (a timer). Nothing in the process runs after that, as with
SIGKILL, or is written.
"""

import contextlib
import hashlib
import io
import itertools
import json
import math
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import timm
import torch
from conftest import Configuration
from published_vaes import TINY, random_vae
from torch import Tensor, nn

from selftrans.artifacts import load_arrays, load_tensors
from selftrans.commands import main
from selftrans.errors import UserError
from selftrans.evaluation import inception, reference
from selftrans.evaluation.features import Features
from selftrans.models.backbones import build_backbone
from selftrans.models.encoders import OPTIONS, PUBLISHED
from selftrans.models.published_vaes import LAYOUTS
from selftrans.models.weight_import import MODELS
from selftrans.plan.paths import Pattern
from selftrans.plan.plan import Plan
from selftrans.training.log import read_lines

HANG = 60  # seconds, after which a verb that says nothing is taken for hanging

# Events of `sys.addaudithook` that change files; "open" is one if it is for writing.
CHANGES = {
    f"os.{change}" for change in ("rename", "remove", "mkdir", "rmdir", "truncate", "chmod", "utime", "link", "symlink")
}
# Where only who goes on looks: at two scales, the second of which has what it adopts from the first.
WORKING = tuple(f"results/{scale}/{Path(Pattern.work).parts[0]}/" for scale in ("tiny", "twin"))
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Verb(NamedTuple):
    """A verb with its arguments; one that is only there for those after it is not killed."""

    arguments: tuple[str, ...]
    killed: bool = True


class Kill(NamedTuple):
    """Where a process dies: before its ``at``-th file "operation", after "byte" ``at`` of a file, or "moment" (s)."""

    what: str
    at: float

    def __str__(self) -> str:
        return f"{self.what} {self.at:g}"


SIGNALS = {"operation": signal.SIGKILL, "byte": signal.SIGXFSZ, "moment": signal.SIGALRM}


class Outcome(NamedTuple):
    """What came out of a trial."""

    verb: str
    kills: str
    killed: int  # how many of them came before the verb had ended by itself
    wrong: str | None


# ------------------------------------------------------------------------------------------------ a project


def configure(folder: Path) -> Plan:
    """Write the tests' small configuration with short trainings, and the files that two families' verbs import."""
    configuration = Configuration(folder / "config")
    family, published = configuration.family, folder / "published"
    family |= {"steps_per_epoch": 4, "milestones": [1, 2]}
    family["data"] |= {"shard": 600}
    family["presets"]["headline"] |= {"batch_size": 4}
    family["tokenizer"] |= {"steps": 2}
    family["extractor"] |= {"steps": 30, "min_test_accuracy": 0.0}
    family["encoder"] |= {"steps": 2, "min_test_accuracy": 0.0}
    encoder = {"published": "dino-s", "weights": "published/encoder.pth"}
    extractor = {"published": "inception", "weights": "published/inception.pth", "name": "random-net"}
    reference = {"name": "toy", "file": "published/reference.npz"}
    tokenizer = {"published": "sd-vae-ft-mse", "weights": "published/vae"}
    other = {"tokenizer": tokenizer, "encoder": encoder, "extractor": extractor, "reference": reference}
    configuration.scale["families"]["other"] = {**family, **other}
    for model in family["models"].values():
        model["projector_width"] = 16
    configuration.rows["aligned"]["method"]["layer"] = 2
    configuration.rows["guided"] |= {"stop": 1, "teacher": "aligned@1"}
    theirs = {"file": "published/theirs.pt", "origin": "sit", "epoch": 2}
    configuration.rows["theirs"] = {"family": "other", "model": "nu", "published": theirs}
    table = configuration.tables["main"]
    table["compare_with"] = "guided@2"
    for row in table["rows"]:
        row["run"] = row["run"].replace("@8", "@2")
    sides = {"better": "guided@2", "worse": "plain@2", "table": "main"}
    configuration.claims = {"guidance-helps": {"says": "guidance helps", "source": "Table 4", **sides}}
    configuration.compute = {"vanilla": "plain", "methods": ["guided"], "preset": "headline"}
    plan = configuration.plan()
    twin = (folder / "config/scales/tiny.yaml").read_text().replace("name: tiny", "name: twin")
    (folder / "config/scales/twin.yaml").write_text(twin)
    gallery = "kind: gallery, run: guided@2, preset: headline, classes: [0, 3], each: 1"
    (folder / "config" / "figures.yaml").write_text(f"gallery: {{title: Samples, caption: Some., {gallery}}}\n")
    about = "what: a network, home: https://example.org, licence: MIT"
    file = "{name: inception.pth, address: https://example.org/inception.pth}"  # which is there: nothing is asked for
    (folder / "config" / "publications.yaml").write_text(f"inception: {{{about}, files: [{file}]}}\n")
    published.mkdir()
    torch.save(
        timm.create_model(PUBLISHED["dino-s"], num_classes=0, **OPTIONS["dino-s"]).state_dict(),
        folder / encoder["weights"],
    )
    torch.save({"weight": torch.eye(5, 3)}, folder / extractor["weights"])
    images = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8)
    np.savez(folder / reference["file"], arr_0=images, mu=np.zeros(5), sigma=np.eye(5))
    sizes = {"input_size": 32, "channels": 4, "num_classes": 1000, "out_channels": 8}
    torch.save(build_backbone(**MODELS["sit-mu8"], **sizes).state_dict(), published / "model.pt")
    torch.save(build_backbone(**plan.run("theirs", 0).backbone).state_dict(), folder / theirs["file"])
    random_vae("f8d4").save_pretrained(folder / tokenizer["weights"])
    return plan


class SmallInception(nn.Module):
    """Sees five colours in an image."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.weight = nn.Parameter(weights["weight"])

    def features(self, images: Tensor) -> Features:
        """Images (n, 3, H, W) uint8 -> pool and logits (n, 5)."""
        colours = images.float().mean(dim=(2, 3)) @ self.weight.T
        return Features(colours, logits=colours)


@contextlib.contextmanager
def small_models() -> Iterator[None]:
    """A published encoder, extractor and model, and blocks of a reference, that are as small as the rest."""
    large, inception.InceptionV3 = inception.InceptionV3, SmallInception
    block, reference.BLOCK = reference.BLOCK, 300
    layout = LAYOUTS["f8d4"]
    LAYOUTS["f8d4"] = layout | TINY["f8d4"] | {"norm_groups": 2}
    MODELS["sit-mu8"] = {"backbone": "sit", "depth": 2, "width": 16, "heads": 2, "patch_size": 8}
    OPTIONS["dino-s"] = {"embed_dim": 24, "depth": 2, "num_heads": 2}
    try:
        yield
    finally:
        inception.InceptionV3 = large
        reference.BLOCK = block
        LAYOUTS["f8d4"] = layout
        del MODELS["sit-mu8"], OPTIONS["dino-s"]


def verbs(plan: Plan) -> list[Verb]:
    """Every verb that writes, in an order in which each finds what it needs."""
    family = ("--family", "small")
    keys = plan.keys["small"]
    judge = plan.path(Pattern.extractor, extractor=keys.extractor)
    samples = plan.samples_file(*plan.milestone("plain@2", 0), "headline")
    shown = (str(path) for path in (samples, plan.path(Pattern.reference, extractor=keys.extractor), judge))
    files = [text for pair in zip(("--samples", "--reference", "--extractor"), shown, strict=True) for text in pair]
    found = [
        Verb(("fetch", "tiny", "inception")),
        Verb(("pack-images", *family, "--split", "train", "--part", "1/2")),
        Verb(("pack-images", *family, "--split", "train")),
        Verb(("pack-images", *family, "--split", "test"), killed=False),
        Verb(("train-tokenizer", *family)),
        Verb(("extract-latents", *family, "--batch-size", "512")),
        Verb(("train-extractor", *family)),
        Verb(("make-reference", *family, "--part", "1/2")),
        Verb(("make-reference", *family)),
        Verb(("train-encoder", *family)),
        Verb(("import-tokenizer", "--family", "other")),
        Verb(("import-encoder", "--family", "other")),
        Verb(("import-extractor", "--family", "other")),
        Verb(("import-reference", "--family", "other")),
        Verb(
            (
                "import-weights",
                "published/model.pt",
                "--as",
                "sit-mu8",
                "--from",
                "sit",
                "--output",
                "out/sit.safetensors",
            )
        ),
        Verb(("import-published", "theirs@2")),
        Verb(("verify-checkpoint", "published/theirs.pt", "--seed", "1", "--samples", "5")),
        Verb(("train", "plain@2"), killed=False),
        Verb(("train", "aligned@2"), killed=False),
        Verb(("freeze-teacher", "aligned@1", "--layer", "4")),
        Verb(("train", "guided@2", "--save-every", "0")),
        Verb(("probe-features", "guided@2", "--t", "0.4", "--images", "20")),
        *(Verb((verb, f"{run}@2"), killed=False) for run in ("plain", "aligned") for verb in ("sample", "evaluate")),
        Verb(("sample", "guided@2", "--shard", "1/2")),
        Verb(("sample", "guided@2")),
        Verb(("sample", "guided@2", "--grid", "out/grid.png", "--steps", "2", "--classes", "1,2")),
        Verb(("evaluate", "guided@2")),
        Verb(("export", "guided@2")),
        Verb(("evaluate", *files, "--output", "out/metrics.json", "--save-statistics", "out/statistics.npz")),
        Verb(("table", "main")),
        Verb(("claims",)),
        *(Verb((verb, f"{run}@1"), killed=False) for run in ("plain", "guided") for verb in ("sample", "evaluate")),
        Verb(("compute",)),
        Verb(("figure", "gallery")),
        Verb(("index",)),
        Verb(("page",)),
        Verb(("tensorboard",)),
        Verb(("adopt", "results/tiny", "--scale", "twin")),
    ]
    return [Verb((*verb.arguments, "--config", "config"), verb.killed) for verb in found]


@dataclass(frozen=True)
class Stage:
    """A verb, and the working folder before and after it, where nothing interrupted it."""

    verb: Verb
    before: Path
    after: Path
    operations: int  # how many file operations it has

    @cached_property
    def found(self) -> dict[str, str]:
        """The files before it."""
        return digests(self.before)

    @cached_property
    def made(self) -> dict[str, str]:
        """The files after it."""
        return digests(self.after)

    @property
    def outputs(self) -> dict[str, str]:
        """The files that it makes."""
        return {name: digest for name, digest in self.made.items() if self.found.get(name) != digest}

    @property
    def goes_on(self) -> bool:
        """Whether the verb, killed, does not begin anew."""
        return self.verb.arguments[0] in ("train", "make-reference", "sample", "verify-checkpoint")

    @property
    def name(self) -> str:
        """The verb as it is given, but for --config."""
        return " ".join(self.verb.arguments[:-2])


def make_project(folder: Path) -> list[Stage]:
    """Give every verb once, uninterrupted and in this process, which from then on has imported all that they need."""
    here = Path.cwd()
    work = folder / "work"
    work.mkdir(parents=True)
    plan = configure(work)
    operations, stages = watch(work), []
    try:
        for number, verb in enumerate(verbs(plan)):
            before, after = folder / f"{number:02d}", folder / f"{number + 1:02d}"
            if not number:
                shutil.copytree(work, before)
            os.chdir(work)
            operations.clear()
            with contextlib.redirect_stdout(io.StringIO()):
                code = main(verb.arguments)
            if code:
                raise RuntimeError(f"{verb.arguments} ended with {code}")
            stages.append(Stage(verb, before, after, len(operations)))
            shutil.copytree(work, after)
    finally:
        os.chdir(here)
    return [stage for stage in stages if stage.verb.killed]


# ------------------------------------------------------------------------------------------------- trials


def attempt(stage: Stage, kills: Sequence[Kill], folder: Path, again: bool = False) -> Outcome:
    """Give a verb once for each of ``kills``, then once without; ``again``, where all that it makes is there already.

    Works in ``folder``, which must not exist.
    """
    shutil.copytree(stage.after if again else stage.before, folder)
    killed, wrong = 0, None
    for kill in kills:
        code, said = in_child(folder, stage.verb, kill)
        if code not in (0, -SIGNALS[kill.what]):
            wrong = f"ended with {code}: {last_line(said)}"
        killed += code != 0
        wrong = wrong or wrong_after_kill(stage, folder, again)
        if wrong is not None or code == 0:
            break
    if wrong is None:
        code, said = in_child(folder, stage.verb)
        if code == -signal.SIGALRM:
            wrong = f"hangs for more than {HANG} s"
        elif code or "Traceback" in said:
            wrong = f"does not go on, but ends with {code}: {last_line(said)}"
        else:
            wrong = wrong_at_the_end(stage, folder)
    shutil.rmtree(folder)
    return Outcome(stage.name, ("again: " if again else "") + ", ".join(map(str, kills)), killed, wrong)


def last_line(said: str) -> str:
    """What a process said last."""
    return said.strip().rpartition("\n")[2] or "without a word"


def in_child(folder: Path, verb: Verb, kill: Kill | None = None) -> tuple[int, str]:
    """Give a verb in a forked process: (exit code, or minus the signal that ended it; what it said)."""
    log = folder.with_suffix(".log")
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.chdir(folder)
            with log.open("w") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            arm(kill)
            code = main(verb.arguments)
        except SystemExit as error:
            code = error.code
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    said = log.read_text(errors="replace")
    log.unlink()
    return os.waitstatus_to_exitcode(status), said


def arm(kill: Kill | None) -> None:
    """Let this process, which works in a folder of its own, die where ``kill`` says, or after HANG seconds."""
    what, at = kill or (None, math.inf)
    signal.setitimer(signal.ITIMER_REAL, at if what == "moment" else HANG)  # nobody handles SIGALRM: it kills
    if what == "operation":
        watch(Path.cwd(), at)
    if what == "byte":
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(at), int(at)))


def watch(folder: Path, last: float = math.inf) -> list[str]:
    """A list that fills with this process's file operations below ``folder``; before the ``last``-th, it dies."""
    operations: list[str] = []

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in CHANGES and not (event == "open" and arguments[2] & WRITES):
            return
        path = arguments[0]  # or a number, of what is open already
        if isinstance(path, str | bytes | os.PathLike) and folder in Path(Path.cwd(), os.fsdecode(path)).parents:
            operations.append(event)
            if len(operations) == last:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)
    return operations


# ----------------------------------------------------------------------------------------- what is left


def wrong_after_kill(stage: Stage, folder: Path, again: bool) -> str | None:
    """What is wrong with what a killed verb left: a file that is neither as before it nor as after it."""
    found = digests(folder)
    for name, digest in found.items():
        if name.startswith(WORKING):
            if (unreadable := why_unreadable(folder / name)) is not None:
                return f"{name}: {unreadable}"
        elif ".part/" not in f"{name}/" and digest not in (stage.found.get(name), stage.made.get(name)):
            return f"{name}: neither as before nor as after"
    there = stage.made.keys() - stage.outputs.keys() if again else stage.found
    gone = [name for name in there if name not in found and not name.startswith(WORKING)]
    return f"{gone[0]}: gone" if gone else None


def wrong_at_the_end(stage: Stage, folder: Path) -> str | None:
    """How a folder differs from that where the verb was never killed."""
    found = digests(folder)
    for name in sorted(found.keys() ^ stage.made.keys()):
        return f"{name}: {'left over' if name in found else 'missing'} at the end"
    for name, digest in found.items():
        if digest != stage.made[name] and not name.endswith("/log.jsonl"):
            return f"{name}: another than if nothing was killed"
        if name.startswith(WORKING) and (unreadable := why_unreadable(folder / name)) is not None:
            return f"{name}: {unreadable}"
    return None


def why_unreadable(path: Path) -> str | None:
    """What is wrong with a working file, by its own reader."""
    try:
        match path.name:
            case "state.safetensors":
                load_tensors(path, "state")
            case "log.jsonl":
                read_lines(path, path.parent.name)
            case name if name.startswith("batch-"):
                load_arrays(path, "batch")
            case name if name.startswith("block-"):
                load_arrays(path, reference.KIND)
            case name if not name.startswith("lease-") and not name.endswith(".part"):
                return "nothing that is known"
    except UserError as error:
        return str(error)
    return None


def digests(folder: Path) -> dict[str, str]:
    """{name: a hash of what is in it} of all files in a folder; names and contents without times of day."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {name_of(path, folder): digest_of(path) for path in paths}


def name_of(path: Path, folder: Path) -> str:
    """A file's name in a folder; that of TensorBoard's events, which holds a time and a process, without these."""
    name = path.relative_to(folder)
    return str(name.with_name("events") if name.name.startswith("events.out.tfevents.") else name)


def digest_of(path: Path) -> str:
    """A hash of a file's bytes, but for what differs from one making of it to the next."""
    data = path.read_bytes()
    with contextlib.suppress(ValueError):  # a file that is damaged: its bytes
        if path.name.startswith("events.out.tfevents."):
            data = json.dumps(scalars_of(path.parent)).encode()
        elif path.suffix == ".json" and "seconds" in (report := json.loads(data)):
            data = json.dumps({key: report[key] for key in report if key not in ("seconds", "seal")}).encode()
    return hashlib.sha256(data).hexdigest()


def scalars_of(folder: Path) -> dict[str, list[list[float]]]:
    """All numbers in a folder of TensorBoard's event files, with step and time."""
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    read = EventAccumulator(str(folder), size_guidance={SCALARS: 0})
    read.Reload()
    tags = read.Tags()["scalars"]
    return {tag: [[event.wall_time, event.step, event.value] for event in read.Scalars(tag)] for tag in tags}


# ------------------------------------------------------------------------------------------ which kills


def at_every_operation(stage: Stage, folder: Path, again: bool = False) -> Iterator[Outcome]:
    """A trial for each file operation of a verb, until it ends by itself."""
    for number in itertools.count(1):
        outcome = attempt(stage, [Kill("operation", number)], folder, again)
        if not outcome.killed:
            return
        yield outcome


def at_random(stage: Stage, folder: Path, draws: random.Random, seconds: float) -> Outcome:
    """A trial in which a verb is killed once to three times, one after the other, wherever."""
    kills = [_draw_kill(stage, draws, seconds) for _ in range(draws.randint(1, 3))]
    return attempt(stage, kills, folder)


def _draw_kill(stage: Stage, draws: random.Random, seconds: float) -> Kill:
    match draws.choice(["operation", "byte", "moment"]):
        case "operation":
            return Kill("operation", draws.randint(1, stage.operations))
        case "byte":
            return _byte(stage, draws)
    return Kill("moment", draws.uniform(1e-3, seconds))


def _byte(stage: Stage, draws: random.Random) -> Kill:
    made = [path for path in sorted(stage.after.rglob("*")) if name_of(path, stage.after) in stage.outputs]
    return Kill("byte", draws.randrange(draws.choice(made).stat().st_size))


def seconds_of(stage: Stage, folder: Path) -> float:
    """How long a verb takes, uninterrupted."""
    shutil.copytree(stage.before, folder)
    before = time.monotonic()
    in_child(folder, stage.verb)
    shutil.rmtree(folder)
    return time.monotonic() - before


def some_trials(folder: Path, seed: int) -> list[Outcome]:
    """A trial of every verb, in the empty ``folder``, killed at its first and last file operation and between."""
    draws, found = random.Random(seed), []
    with small_models():
        for stage in make_project(folder):
            between = [Kill("operation", draws.randint(2, stage.operations)), _byte(stage, draws)]
            between += [Kill("moment", draws.uniform(0.01, 0.2)) for _ in range(2 * stage.goes_on)]
            found.append(
                attempt(stage, [Kill("operation", 1), *between, Kill("operation", stage.operations)], folder / "trial")
            )
    return found
