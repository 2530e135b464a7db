"""The verb adopt: what another folder has is taken if it is whole and what the plan needs, and nothing here is lost."""

import filecmp
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import ranks
from damage import DAMAGE, flip
from made import FAMILY, PROBE, call
from toy import SMOKE, smoke_plan

from selftrans.commands import main
from selftrans.plan.paths import Pattern
from selftrans.plan.plan import Plan

pytestmark = pytest.mark.filterwarnings("ignore:.* rows for .* dimensions:UserWarning")  # of so few samples

VERBS = (
    *(("pack-images", *FAMILY, "--split", split) for split in ("train", "test")),
    *((verb, *FAMILY) for verb in ("train-tokenizer", "extract-latents", "train-encoder", "train-extractor")),
    ("make-reference", *FAMILY),
    ("train", "vanilla@20"),
    ("train", "aligned@10"),
    ("freeze-teacher", "aligned@10", "--layer", "8"),
    ("sample", "vanilla@20", "--preset", "sweep-cfg4-t0.65"),
    ("evaluate", "vanilla@20", "--preset", "sweep-cfg4-t0.65"),
    ("probe-features", "vanilla@10", *PROBE),
)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working directory of somebody else, where something of each kind was made."""
    folder, here = tmp_path_factory.mktemp("theirs"), Path.cwd()
    os.chdir(folder)
    try:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            for verb in VERBS:
                assert call(*verb) == 0, verb
    finally:
        os.chdir(here)
    return folder


Adopt = Callable[..., tuple[int, str, str]]


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """That of an empty folder, which is the working directory."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return smoke_plan()


@pytest.fixture
def adopt(plan: Plan, capsys: pytest.CaptureFixture[str]) -> Adopt:
    """(exit code, output, errors) of the verb."""

    def adopted(*arguments: object, config: Path = SMOKE) -> tuple[int, str, str]:
        code = main(["adopt", *map(str, arguments), "--config", str(config)])
        return code, *capsys.readouterr()

    return adopted


@pytest.fixture
def copy(theirs: Path, tmp_path: Path) -> Path:
    """Their results, without dates, for a test to harm."""
    return Path(shutil.copytree(theirs / "results", tmp_path / "copy", copy_function=shutil.copyfile)) / "smoke"


def files(root: Path) -> set[Path]:
    """The files of a scale that are worth keeping, from there."""
    found = {path.relative_to(root) for path in root.rglob("*") if path.is_file() and path.name != "lock"}
    return {path for path in found if path.parts[:2] != ("work", "samples")}


def equal(root: Path, other: Path, names: Iterator[Path] | set[Path]) -> bool:
    return all(filecmp.cmp(root / name, other / name, shallow=False) for name in names)


@pytest.mark.parametrize("named", [".", "results", "results/smoke"])
def test_all_that_is_there_is_taken_once(adopt: Adopt, plan: Plan, theirs: Path, named: str) -> None:
    code, out, err = adopt(theirs / named)
    names = files(theirs / "results/smoke")
    assert (code, err) == (0, "")
    assert files(plan.root) == names
    assert equal(plan.root, theirs / "results/smoke", names)
    assert f"{len(names)} files, " in out
    assert "not there yet: " in out
    code, out, _ = adopt(theirs / named)
    assert code == 0
    assert f"0 files, 0 GB, are taken; {len(names)} were here already" in out
    assert main(["verify", "--config", str(SMOKE)]) == 0


def test_a_training_goes_on_from_what_was_adopted(adopt: Adopt, theirs: Path, capsys: pytest.CaptureFixture) -> None:
    adopt(theirs)
    assert call("train", "vanilla@40") == 0
    assert "going on from step 20" in capsys.readouterr().out


def test_without_states_and_latents_it_is_said_what_that_means(adopt: Adopt, plan: Plan, copy: Path) -> None:
    for gone in ("work", "latents"):
        shutil.rmtree(copy / gone)
    code, out, _ = adopt(copy)
    assert code == 0
    assert f"{plan.run('vanilla', 0).id}: came without a training state: its milestones stay, a later one begins" in out
    assert f"the latents {plan.run('vanilla', 0).keys.latents} did not come" in out


def test_a_target_takes_what_it_needs(adopt: Adopt, plan: Plan, theirs: Path) -> None:
    assert adopt(theirs, "sweep")[0] == 0
    names = {str(name) for name in files(plan.root)}
    assert any("vanilla" in name for name in names)
    assert not any("aligned" in name for name in names)
    assert adopt(theirs, "nothing")[2].startswith("error: no target is called 'nothing'; allowed: ")


@pytest.mark.parametrize("damage", [name for name in DAMAGE if name not in ("a folder", "cut at 100%")])
@pytest.mark.parametrize("pattern", ["runs/vanilla*/step-20.ema.*", "metrics/*.json"])
def test_what_is_damaged_is_named_and_all_else_taken(
    adopt: Adopt, plan: Plan, theirs: Path, copy: Path, pattern: str, damage: str
) -> None:
    (path,) = copy.glob(pattern)
    DAMAGE[damage](path)
    there = os.path.lexists(path)
    code, out, err = adopt(copy)
    assert code == (2 if there else 0)
    assert files(plan.root) == files(theirs / "results/smoke") - {path.relative_to(copy)}
    if there:
        assert out.count(": not taken: ") == 1
        assert f"{path}: not taken: " in out
        assert err.startswith("error: 1 of ")
    assert adopt(theirs)[0] == 0  # from elsewhere
    assert files(plan.root) == files(theirs / "results/smoke")


def test_half_a_folder_of_rows_is_no_folder_of_rows(adopt: Adopt, plan: Plan, theirs: Path, copy: Path) -> None:
    """Its whole shards are taken, which whoever makes the others need not make again."""
    (shard,) = copy.glob("latents/*/shard-*.npz")
    flip(shard, shard.stat().st_size // 2, 3)
    code, out, _ = adopt(copy)
    assert code == 2
    stats = plan.path(Pattern.latent_stats, latents=plan.run("vanilla", 0).keys.latents)
    missing = {path.relative_to(plan.root) for path in (stats, stats.with_name("manifest.json"))}
    assert files(theirs / "results/smoke") - files(plan.root) == {shard.relative_to(copy), *missing}
    assert out.count(": not taken: ") == 3


def test_another_recipe_is_not_taken(adopt: Adopt, plan: Plan, theirs: Path, tmp_path: Path) -> None:
    config = Path(shutil.copytree(SMOKE, tmp_path / "config"))
    text = (config / "runs.yaml").read_text()
    assert "layer: n/6}, weight: 0.5" in text
    (config / "runs.yaml").write_text(text.replace("layer: n/6}, weight: 0.5", "layer: n/6}, weight: 0.4", 1))
    code, out, _ = adopt(theirs, config=config)
    assert code == 0
    assert {path.parts[0] for path in files(plan.root) if "aligned" in str(path)} == set()
    assert any("vanilla" in str(path) for path in files(plan.root))
    assert f"runs/{plan.run('aligned', 0).id}: not taken: of another recipe than aligned-s0-" in out


def test_a_file_under_anothers_name_is_not_taken(adopt: Adopt, plan: Plan, copy: Path) -> None:
    (weights,) = copy.glob("runs/vanilla*/step-20.ema.*")
    shutil.copy(weights.with_name("step-10.ema.safetensors"), weights)
    assert f"{weights}: not taken: not the weights asked for: its step is 10, expected 20" in adopt(copy)[1]


def test_what_is_here_stays(adopt: Adopt, plan: Plan, theirs: Path) -> None:
    (metrics,) = (theirs / "results/smoke").glob("metrics/*")
    here = plan.root / "metrics" / metrics.name
    here.parent.mkdir(parents=True)
    here.write_text("mine")
    assert adopt(theirs)[0] == 0
    assert here.read_text() == "mine"


def test_weights_of_other_latents_than_those_here_are_not_taken(adopt: Adopt, plan: Plan, theirs: Path) -> None:
    ranks.make_latents(Path.cwd())
    code, out, _ = adopt(theirs)
    assert code == 2
    assert not list(plan.root.glob("runs/*/*"))
    assert not list(plan.root.glob("work/*/state.safetensors"))
    assert "step-20.ema.safetensors: not taken: of latents with the SHA-256 " in out


def test_links_leave_the_bytes_where_they_are(adopt: Adopt, plan: Plan, copy: Path) -> None:
    """From a disk that can be read alone; what a training writes to is copied."""
    for path in (copy, *copy.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    assert adopt(copy, "--link")[0] == 0
    names = files(plan.root)
    linked = {name for name in names if (plan.root / name).is_symlink()}
    assert {name.parts[0] for name in names - linked} == {"work"}
    assert equal(plan.root, copy, names)
    assert main(["verify", "--config", str(SMOKE)]) == 0
    assert call("train", "vanilla@40") == 0
    for path in (copy, *copy.rglob("*")):
        path.chmod(0o755)


def test_two_at_once_take_the_same(plan: Plan, theirs: Path) -> None:
    command = [sys.executable, "-m", "selftrans", "adopt", str(theirs), "--config", str(SMOKE)]
    surroundings = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, env=surroundings, **pipes) for _ in range(2)]
    ends = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    assert files(plan.root) == files(theirs / "results/smoke")
    assert equal(plan.root, theirs / "results/smoke", files(plan.root))


def test_rows_that_lie_elsewhere_come_with_their_folder_alone(adopt: Adopt, plan: Plan, copy: Path) -> None:
    from selftrans.data.existing_latents import index_latents, open_existing
    from selftrans.data.packing import Work

    elsewhere = copy.parent / "vae-sd"
    elsewhere.mkdir()
    for index in range(5):
        np.save(elsewhere / f"{index}.npy", np.full((8, 2, 2), index, np.float32))
    (elsewhere / "dataset.json").write_text('{"labels": [' + ",".join(f'["{i}.npy", 0]' for i in range(5)) + "]}")
    key = plan.run("vanilla", 0).keys.latents
    shutil.rmtree(copy / "latents")
    existing = open_existing("repa", elsewhere, (8, 2, 2), flip=False)
    about = {"key": key}
    index_latents(existing, copy / "latents" / key, classes=1, source={}, about=about, size=5, work=Work())
    elsewhere.rename(copy.parent / "gone")
    assert f"not taken: its rows lie in {elsewhere}, which is not there" in adopt(copy)[1]
    (copy.parent / "gone").rename(elsewhere)
    adopt(copy)
    assert (plan.root / "latents" / key / "manifest.json").exists()


def test_where_nothing_is_to_be_had_is_said(adopt: Adopt, plan: Plan, tmp_path: Path) -> None:
    plan.path(Pattern.metrics, run="a", step=1, preset="b", extractor="c").parent.mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", Path()):
        assert adopt(folder)[2].startswith(f"error: {folder}: no results of another folder; name a repository, ")
    assert adopt("nowhere")[2] == "error: nowhere: no such folder\n"
