"""The verb sample: a preset in one piece, in shards, killed and gone on with; and pictures of any weights."""

import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from strangers import CALLED, take_over
from toy import random_backbone

from selftrans.artifacts import load_tensors, read_record, save_tensors
from selftrans.commands import main
from selftrans.data.latent_stats import LatentStats
from selftrans.models.backbones.backbone import Backbone
from selftrans.models.checkpoint import save_weights
from selftrans.models.tokenizer import Tokenizer, build_vae
from selftrans.plan.paths import Pattern
from selftrans.sampling.samples import Samples
from workflow import REPOSITORY, environment, snakemake

PRESETS = {
    "headline": {"sampler": "euler_ode", "steps": 2, "samples": 10, "batch_size": 2},
    "sde": {"sampler": "euler_maruyama_sde", "steps": 3, "samples": 10, "batch_size": 3, "cfg_scale": 2.0},
    "long": {"sampler": "euler_ode", "steps": 50, "samples": 40, "batch_size": 2},
}


@pytest.fixture
def plan(configuration, tmp_path, monkeypatch):
    """Weights and VAE of the row plain at its last milestone, as if trained, in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    configuration.family["presets"] = dict(PRESETS)
    plan = configuration.plan()
    run = plan.run("plain", 0)
    backbone = random_backbone(**{key: value for key, value in run.backbone.items() if key != "backbone"})
    with torch.no_grad():
        backbone.final_layer.linear.weight *= 0.02
    save_weights(plan.weights(run, 80), backbone, run, 80, "ema", {"latents": "0"})
    architecture = {"block_channels": (8, 8), "latent_channels": 4, "layers_per_block": 1, "norm_groups": 8}
    torch.manual_seed(0)
    vae, tokenizer = {"key": run.keys.tokenizer}, Tokenizer(build_vae(**architecture), architecture)
    tokenizer.save(plan.path(Pattern.tokenizer, tokenizer=run.keys.tokenizer), vae)
    made_of = {"tokenizer_sha256": tokenizer.sha256, "latents_sha256": "0"}
    LatentStats((0.0,) * 4, (1.0,) * 4, **vae, **made_of).save(
        plan.path(Pattern.latent_stats, latents=run.keys.latents)
    )
    return plan


@pytest.fixture
def weights(plan):
    return plan.weights(plan.run("plain", 0), 80)


def samples_file(plan, preset="headline"):
    return plan.samples_file(plan.run("plain", 0), 80, preset)


def batch_files(plan):
    return sorted((plan.root / "work" / "samples").rglob("batch-*.npz"))


@contextmanager
def forward_passes():
    """How many examples each forward pass of a backbone is shown."""
    sizes = []

    def count(module, inputs, output):
        if isinstance(module, Backbone):
            sizes.append(len(inputs[0]))

    hook = torch.nn.modules.module.register_module_forward_hook(count)
    yield sizes
    hook.remove()


# ------------------------------------------------------------------------------------------------ a preset


def test_samples_say_what_they_are_made_of_and_no_batch_remains(plan, weights, capsys):
    assert main(["sample", "plain@8"]) == 0
    assert capsys.readouterr().out == f"{samples_file(plan)}: 10 images\n"
    samples = Samples.load(samples_file(plan))
    assert samples.images.shape == (10, 3, 16, 16)
    assert samples.labels.tolist() == list(range(10))
    assert samples.header["weights_sha256"] == load_tensors(weights, "weights")[1]["sha256"]
    assert samples.header["preset"]["steps"] == 2
    assert not batch_files(plan)


@pytest.mark.parametrize("preset", ["headline", "sde"])
def test_shards_in_any_order_make_the_same_samples(plan, preset):
    assert main(["sample", "plain@8", "--preset", preset]) == 0
    whole = Samples.load(samples_file(plan, preset))
    samples_file(plan, preset).unlink()
    for shard in ("2/3", "3/3", "1/3"):
        assert main(["sample", "plain@8", "--preset", preset, "--shard", shard]) == 0
        run, (part, parts) = plan.run("plain", 0), shard.split("/")
        where = {"run": run.id, "step": 80, "preset": run.preset_key(preset), "shard": part, "shards": parts}
        marker = read_record(plan.path(Pattern.shard, **where), "shard", {"run": run.id, "step": 80, "seed": 0})
        assert marker["provenance"]["commit"]
        assert not samples_file(plan, preset).exists()
    with forward_passes() as sizes:
        assert main(["sample", "plain@8", "--preset", preset]) == 0
    assert sizes == []
    gathered = Samples.load(samples_file(plan, preset))
    assert torch.equal(gathered.images, whole.images)
    assert torch.equal(gathered.labels, whole.labels)
    assert gathered.header == whole.header


def test_what_shards_did_not_make_is_made_at_the_end(plan):
    main(["sample", "plain@8", "--shard", "1/5"])
    main(["sample", "plain@8", "--shard", "4/5"])
    with forward_passes() as sizes:
        assert main(["sample", "plain@8"]) == 0
    assert sizes == [2] * 2 * 3
    assert len(Samples.load(samples_file(plan)).images) == 10


def test_batches_of_an_edited_preset_are_not_mixed_in(plan, configuration):
    main(["sample", "plain@8", "--shard", "1/2"])
    configuration.family["presets"]["headline"] = PRESETS["headline"] | {"steps": 3}
    configuration.write()
    with forward_passes() as sizes:
        assert main(["sample", "plain@8"]) == 0
    assert sizes == [2] * 3 * 5


def test_more_shards_are_no_other_samples(plan, configuration):
    main(["sample", "plain@8", "--shard", "1/2"])
    configuration.family["presets"]["headline"] = PRESETS["headline"] | {"shards": 5}
    configuration.write()
    with forward_passes() as sizes:
        assert main(["sample", "plain@8"]) == 0
    assert sizes == [2] * 2 * 3


def start(*arguments):
    command = [sys.executable, "-m", "selftrans", "sample", "plain@8", *arguments]
    return subprocess.Popen(command, env=environment() | {"PYTHONPATH": str(REPOSITORY)}, stdout=subprocess.DEVNULL)


def test_a_killed_sampler_goes_on_where_it_was(plan):
    process = start("--preset", "long")
    deadline = time.monotonic() + 300
    while len(batch_files(plan)) < 3:
        assert process.poll() is None, "the process ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    kept = len(batch_files(plan))
    assert 3 <= kept < 20
    assert not samples_file(plan, "long").exists()
    with forward_passes() as sizes:
        assert main(["sample", "plain@8", "--preset", "long"]) == 0
    assert len(sizes) == (20 - kept) * 50
    resumed = Samples.load(samples_file(plan, "long"))
    samples_file(plan, "long").unlink()
    assert main(["sample", "plain@8", "--preset", "long"]) == 0
    unbroken = Samples.load(samples_file(plan, "long"))
    assert torch.equal(resumed.images, unbroken.images)
    assert not list(plan.root.rglob("*.part"))


@pytest.mark.parametrize(("shard", "forward_pass", "kept"), [("1/1", 4, 1), ("1/1", 10, 4), ("2/2", 2, 0)])
def test_samples_that_another_has_taken_over_are_not_written(plan, capsys, shard, forward_pass, kept):
    passes = []

    def lose(module, inputs, output):
        if isinstance(module, Backbone):
            passes.append(module)
            if len(passes) == forward_pass:
                take_over(next((plan.root / "work" / "samples").glob(f"*/{shard.replace('/', '-of-')}")))

    hook = torch.nn.modules.module.register_module_forward_hook(lose)
    assert main(["sample", "plain@8", "--shard", shard]) != 0
    hook.remove()
    assert f"plain seed 0 samples: was taken over by {CALLED} while this one stood still" in capsys.readouterr().err
    assert len(batch_files(plan)) == kept
    assert not samples_file(plan).exists()
    assert not list(plan.root.glob("shards/**/*.json"))


# ------------------------------------------------------------------------------------------------- a picture


def picture(path):
    return np.rint(imread(path)[..., :3] * 255).astype(np.uint8)


def test_a_grid_of_weights_alone(plan, weights, tmp_path, capsys):
    """VAE and statistics are found from the weights' place and header, without any configuration."""
    shutil.rmtree(tmp_path / "config")
    arguments = ["sample", "--weights", str(weights), "--grid", "out.png", "--steps", "3", "--seed", "7"]
    assert main([*arguments, "--classes", "2,7", "--each", "3", "--cfg-scale", "4"]) == 0
    assert capsys.readouterr().out == "out.png: 3 images of each of the classes 2, 7\n"
    both = picture(tmp_path / "out.png")
    assert both.shape == (2 * 16, 3 * 16, 3)
    main([*arguments, "--classes", "7", "--each", "3", "--cfg-scale", "4"])
    assert np.abs(picture(tmp_path / "out.png").astype(int) - both[16:]).max() <= 1
    main([*arguments, "--classes", "7", "--each", "3"])
    assert np.abs(picture(tmp_path / "out.png").astype(int) - both[16:]).max() > 1


def test_a_grid_of_a_run_has_the_first_eight_classes(plan, tmp_path):
    assert main(["sample", "plain@8", "--grid", "out.png", "--steps", "2"]) == 0
    assert picture(tmp_path / "out.png").shape == (8 * 16, 4 * 16, 3)


def test_weights_elsewhere_need_to_be_told_their_vae(plan, weights, tmp_path, capsys):
    elsewhere = tmp_path / "kept.safetensors"
    shutil.copy(weights, elsewhere)
    arguments = ["sample", "--weights", str(elsewhere), "--grid", "out.png", "--steps", "2"]
    assert main(arguments) == 2
    words = capsys.readouterr().err
    assert words.startswith(f"error: {elsewhere}: there is no latents/digits-")
    assert "--tokenizer and --stats" in words
    keys = plan.run("plain", 0).keys
    tokenizer, stats = (
        str(plan.path(pattern, tokenizer=keys.tokenizer, latents=keys.latents))
        for pattern in (Pattern.tokenizer, Pattern.latent_stats)
    )
    assert main([*arguments, "--tokenizer", tokenizer, "--stats", stats]) == 0


def test_imported_weights_say_that_they_name_no_vae(weights, tmp_path, capsys):
    tensors, header = load_tensors(weights, "weights")
    for key in ("kind", "recipe"):
        del header[key]
    save_tensors(tmp_path / "imported.safetensors", "weights", tensors, header)
    assert main(["sample", "--weights", "imported.safetensors", "--grid", "out.png"]) == 2
    assert "imported.safetensors: imported weights do not say what VAE" in capsys.readouterr().err


def test_statistics_of_other_latents_are_refused(plan, weights, tmp_path, capsys):
    LatentStats((0.0,) * 4, (1.0,) * 4, latents_sha256="1").save(tmp_path / "stats.json")
    assert main(["sample", "--weights", str(weights), "--grid", "out.png", "--stats", "stats.json"]) == 2
    assert "stats.json: of other latents (SHA-256 1…) than " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "RUN@EPOCH: missing, such as sit-b2@80"),
        (["plain@8", "--preset", "best"], "--preset: found 'best'; allowed: headline, sde, long"),
        (["plain@8", "--shard", "4/3"], "--shard: found '4/3'; allowed: part K of N, counted from 1, such as 3/8"),
        (["plain@8", "--shard", "0/3"], "--shard: found '0/3'"),
        (["plain@8", "--cfg-scale", "4"], "--cfg-scale: only with --grid"),
        (["--weights", "w.safetensors"], "--weights: only with --grid"),
        (["plain@8", "--grid", "out.png", "--preset", "sde"], "--preset: only without --grid"),
        (["--grid", "out.png"], "--grid: of what? Name either RUN@EPOCH or --weights FILE"),
        (["plain@8", "--grid", "out.png", "--weights", "w.safetensors"], "--grid: of what?"),
        (["plain@6", "--grid", "out.png"], "step-60.ema.safetensors: not made yet"),
        (["--weights", "w.safetensors", "--grid", "out.png"], "w.safetensors: no such file"),
        (["plain@8", "--grid", "out.png", "--classes", "3,10"], "--classes: found '10'; allowed: 0 to 9"),
        (["plain@8", "--grid", "out.png", "--classes", "cat"], "--classes: found 'cat'"),
        (["plain@8", "--grid", "out.png", "--each", "0"], "--each: found 0; allowed: 1 or more"),
        (["plain@8", "--grid", "out.png", "--steps", "1"], "steps: found 1; allowed: greater than or equal to 2"),
        (["plain@8", "--grid", "out.png", "--cfg-scale", "-1"], "cfg_scale: found -1.0; allowed: greater than or"),
    ],
)
def test_a_mistake_ends_in_a_sentence(plan, capsys, arguments, words):
    assert main(["sample", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert words in error


# ------------------------------------------------------------------------------------------------- workflow


@pytest.mark.long
@pytest.mark.workflow
@pytest.mark.xdist_group("workflow")
def test_shards_are_jobs_of_the_workflow_and_change_nothing(configuration, tmp_path, monkeypatch):
    """Three jobs and one that gathers; asked for again, in one piece, there is nothing to do."""
    preset = configuration.family["presets"]["headline"]
    preset.update(batch_size=2, shards=3)
    plan = configuration.plan()
    run = plan.run("plain", 0)
    target = plan.samples_file(run, 20, "headline")
    made = snakemake("--", str(target), folder=tmp_path, config=configuration.folder)
    assert made.returncode == 0, made.stderr
    logs = tmp_path / plan.root / "logs" / "sample_shard" / f"{run.id}.step-20.{run.preset_key('headline')}"
    assert {path.name for path in logs.iterdir()} == {f"{shard}-of-3.log" for shard in (1, 2, 3)}
    assert not list((tmp_path / plan.root).rglob("*-of-3.json"))
    preset.update(shards=1)
    configuration.write()
    planned = snakemake("-n", "--", str(target), folder=tmp_path, config=configuration.folder)
    assert "Nothing to be done" in planned.stdout + planned.stderr
    in_shards = Samples.load(tmp_path / target)
    monkeypatch.chdir(tmp_path)
    assert main(["sample", "plain@2"]) == 0
    assert torch.equal(Samples.load(target).images, in_shards.images)
