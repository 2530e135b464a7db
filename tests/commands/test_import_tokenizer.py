"""A family's published VAE: from a line of the scale and a folder of weights to images that it decodes."""

import os
import re
import shutil
import subprocess

import pytest
import torch
from published_vaes import make_layouts_tiny, publish_va_vae, random_latent_diffusion, random_vae
from toy import random_backbone

from selftrans.artifacts import read_record, save_tensors, tensors_header
from selftrans.commands import main
from selftrans.data.latent_stats import LatentStats
from selftrans.files import file_sha256
from selftrans.models.backbones import build_backbone
from selftrans.models.checkpoint import save_weights
from selftrans.models.latent_space import latent_stats_for
from selftrans.models.published_vaes import LAYOUTS
from selftrans.models.tokenizer import Tokenizer
from selftrans.models.weight_import import SD_VAE, VA_VAE
from selftrans.plan.paths import Pattern
from selftrans.sampling.image_model import ImageModel
from workflow import snakemake

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of a VAE as Stable Diffusion's is published, with few channels."""
    make_layouts_tiny(monkeypatch)
    random_vae("f8d4").save_pretrained(tmp_path / "sd-vae-ft-mse")
    return tmp_path / "sd-vae-ft-mse"


@pytest.fixture
def published(configuration):
    """The small configuration with the published VAE in ``sd-vae-ft-mse``."""
    configuration.family["data"]["size"] = 32
    configuration.family["tokenizer"] = {"published": "sd-vae-ft-mse", "weights": "sd-vae-ft-mse"}
    return configuration


@pytest.fixture
def call(configuration, tmp_path, monkeypatch, capsys):
    """Run a verb in a folder of its own: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        configuration.write()
        return main(arguments), *capsys.readouterr()

    return run


def files_of(configuration):
    """(VAE, report) of the configuration's family."""
    plan = configuration.plan()
    key = plan.keys["small"].tokenizer
    return plan.path(Pattern.tokenizer, tokenizer=key), plan.path(Pattern.tokenizer_report, tokenizer=key)


def test_what_it_makes_and_says(call, published, folder):
    code, out, error = call("import-tokenizer", "--family", "small")
    path, report = files_of(published)
    assert (code, error) == (0, "")
    assert out == f"{path.stem}: 4 channels of 4x4 for 32 px\n"
    file = folder / "diffusion_pytorch_model.safetensors"
    source = {"published": "sd-vae-ft-mse", "file": file.name, "sha256": file_sha256(file)}
    about = {
        "key": path.stem,
        "latents": {"vae": "sd-vae", "channels": 4, "pixels": 8, "mean": [0.0] * 4, "std": [1 / 0.18215] * 4},
        "source": {"encoder": source, "decoder": source},
        "made_of": {"encoder": source["sha256"], "decoder": source["sha256"]},
    }
    space = Tokenizer.load(path, about).space_sha256
    assert read_record(report, "report", {"key": path.stem}) == {"kind": "report", "encoder_sha256": space, **about}


def test_the_folder_is_not_needed_later(call, published, folder):
    call("import-tokenizer", "--family", "small")
    shutil.rmtree(folder)
    assert call("pack-images", "--family", "small", "--split", "train")[0] == 0
    assert call("extract-latents", "--family", "small")[0] == 0


def test_what_of_a_file_is_left_out_is_said(call, published, folder, tmp_path):
    path = publish_va_vae(tmp_path, random_latent_diffusion("f16d32"))
    published.family["tokenizer"] = {"published": "va-vae", "weights": str(path)}
    published.family["models"] = {"mu": {"depth": 6, "width": 16, "heads": 2, "patch_size": 1}}
    code, out, _ = call("import-tokenizer", "--family", "small")
    assert code == 0
    assert out.splitlines() == [
        "dropped foundation_model.*: what VA-VAE was aligned with in training",
        "dropped linear_proj.*: the projection for it, used in training only",
        "dropped loss.*: discriminator and perceptual network of its training",
        f"{files_of(published)[0].stem}: 32 channels of 2x2 for 32 px",
    ]


@pytest.mark.parametrize(
    ("tokenizer", "words"),
    [
        ({"published": "sd-vae"}, "small.tokenizer.published: found 'sd-vae'; allowed: 'sd-vae-ft-mse', 'sd-vae-ft-e"),
        ({"published": "va-vae"}, "small.tokenizer.weights: missing; needed: published, weights"),
        ({"published": "va-vae", "weights": "x", "steps": 3}, "small.tokenizer.steps: unknown key; allowed: published"),
        ({"published": "va-vae", "weights": "x", "normalisation": "own"}, "normalisation: found 'own'; allowed: 'publ"),
    ],
)
def test_a_wrong_vae_is_refused_with_its_key(call, published, tokenizer, words):
    published.family["tokenizer"] = tokenizer
    code, _, error = call("plan")
    assert (code, words in error) == (2, True), error


def test_images_of_the_wrong_size_are_refused_before_any_work(call, published):
    published.family["data"]["size"] = 36
    code, _, error = call("plan")
    assert code == 2
    assert "families.small.data.size: found 36; allowed: a multiple of 8, by which the VAE shrinks images" in error


def test_weights_that_are_not_there_are_said_to_be_whose(call, published):
    code, _, error = call("import-tokenizer", "--family", "small")
    assert code == 2
    assert error == (
        "error: sd-vae-ft-mse: no such file or folder; sd-vae-ft-mse is stabilityai/sd-vae-ft-mse at revision "
        "31f26fdeee1355a5c34592e401dd41e45d25a493 on the Hugging Face Hub: copy it there (docs/vaes.md)\n"
    )


def test_each_kind_of_vae_has_its_verb(call, published, configuration):
    scale = "error: config/scales/tiny.yaml: families.small.tokenizer: "
    error = call("train-tokenizer", "--family", "small")[2]
    assert error.endswith("families.small.tokenizer: sd-vae-ft-mse is published, not trained; use import-tokenizer\n")
    assert error.startswith(scale)
    recipe = {"block_channels": [8, 8], "steps": 5, "learning_rate": 0.001, "kl_weight": 0.0, "l1_weight": 0.0}
    configuration.family["tokenizer"] = {**recipe, "max_test_mse": 1.0}
    assert call("import-tokenizer", "--family", "small")[2] == f"{scale}not published; train it with train-tokenizer\n"


# ------------------------------------------------------------------------------------------ what it decodes


def imported_weights(path, latents):
    """Weights with the header that import-weights gives them."""
    torch.manual_seed(0)
    sizes = {"backbone": "sit", "depth": 1, "width": 16, "heads": 2, "patch_size": 1}
    sizes |= {"input_size": 2, "channels": latents["channels"], "num_classes": 10, "qk_norm": False}
    header = {"weights": "ema", "run": "imported-01234567", "step": None, "seed": None, "backbone": sizes}
    save_tensors(path, "weights", build_backbone(**sizes).state_dict(), {**header, "latents": latents, "made_of": {}})
    return path


def grid(call, *arguments):
    return call("sample", "--weights", "w.safetensors", "--grid", "out.png", "--steps", "2", "--each", "1", *arguments)


def test_imported_weights_find_their_decoder_and_its_statistics(call, published, folder, tmp_path):
    imported_weights(tmp_path / "w.safetensors", SD_VAE)
    code, _, error = grid(call)
    assert code == 2
    assert error == (
        "error: w.safetensors: trained on latents of sd-vae: no VAE of these was imported (selftrans import-tokenizer, "
        "docs/vaes.md); name one by --tokenizer\n"
    )
    call("import-tokenizer", "--family", "small")
    assert grid(call)[0] == 0
    model = ImageModel.load(tmp_path / "w.safetensors", CPU)
    assert model.tokenizer.header["key"] == files_of(published)[0].stem
    assert model.stats == LatentStats((0.0,) * 4, (1 / 0.18215,) * 4)


def test_of_several_decoders_one_is_to_be_named(call, published, folder, tmp_path):
    imported_weights(tmp_path / "w.safetensors", SD_VAE)
    call("import-tokenizer", "--family", "small")
    shutil.copytree(tmp_path / "results/tiny", tmp_path / "results/other")  # the same VAE, of another scale
    assert grid(call)[0] == 0
    published.family["tokenizer"] |= {"published": "sd-vae-ft-ema", "weights": "ema"}
    random_vae("f8d4", seed=1).save_pretrained(tmp_path / "ema")
    call("import-tokenizer", "--family", "small")
    code, _, error = grid(call)
    assert (code, "decode them all; name one by --tokenizer" in error) == (2, True)
    assert grid(call, "--tokenizer", str(files_of(published)[0]))[0] == 0


def test_a_vae_of_other_latents_does_not_decode_imported_weights(call, published, folder, tmp_path):
    imported_weights(tmp_path / "w.safetensors", VA_VAE)
    call("import-tokenizer", "--family", "small")
    code, _, error = grid(call, "--tokenizer", str(files_of(published)[0]))
    assert (code, "a VAE with latents of sd-vae, but w.safetensors was trained on those of va-vae" in error) == (
        2,
        True,
    )


def test_a_vae_trained_here_brings_no_statistics(call, configuration, tmp_path):
    imported_weights(tmp_path / "w.safetensors", SD_VAE)
    assert call("pack-images", "--family", "small", "--split", "train")[0] == 0
    assert call("pack-images", "--family", "small", "--split", "test")[0] == 0
    assert call("train-tokenizer", "--family", "small")[0] == 0
    code, _, error = grid(call, "--tokenizer", str(files_of(configuration)[0]))
    assert (code, "no published VAE, which would bring statistics of its latents" in error) == (2, True), error


def test_a_run_finds_its_decoder_by_what_the_statistics_of_its_latents_say(call, published, folder, tmp_path):
    """Its VAE is named otherwise than its latents."""
    call("import-tokenizer", "--family", "small")
    plan = published.plan()
    run, (path, _) = plan.run("plain", 0), files_of(published)
    assert run.keys.latents != run.keys.tokenizer == path.stem
    sizes = {key: value for key, value in run.backbone.items() if key != "backbone"}
    weights = plan.weights(run, 20)
    save_weights(weights, random_backbone(**sizes), run, 20, "ema", {"latents": "0"})
    measured = LatentStats((0.0,) * 4, (1.0,) * 4, key=run.keys.latents, latents_sha256="0")
    stats = latent_stats_for(run.family.tokenizer, Tokenizer.load(path), measured)
    stats.save(plan.path(Pattern.latent_stats, latents=run.keys.latents))
    model = ImageModel.load(weights, CPU)
    assert model.tokenizer.header["key"] == path.stem
    assert model.stats.std == (1 / 0.18215,) * 4
    assert call("sample", "plain@2")[0] == 0


# ------------------------------------------------------------------------------------------------- workflow


def planned(configuration, row, folder) -> subprocess.CompletedProcess[str]:
    """What Snakemake would do for a row's first milestone."""
    plan = configuration.plan()
    target = str(plan.weights(plan.run(row, 0), 20))
    return snakemake("-n", "--quiet", "rules", "--", target, folder=folder, config=configuration.folder)


@pytest.mark.workflow
def test_the_workflow_imports_the_vae_that_latents_need(published, tmp_path):
    (tmp_path / "sd-vae-ft-mse").mkdir()
    done = planned(published, "plain", tmp_path)
    assert done.returncode == 0, done.stderr
    jobs = set(re.findall(r"^(\w+) +\d+$", done.stdout + done.stderr, re.MULTILINE))
    assert "import_tokenizer" in jobs
    assert "train_tokenizer" not in jobs
    published.family["tokenizer"] |= {"decoder": "sd-vae-ft-ema", "decoder_weights": "sd-vae-ft-ema"}
    assert planned(published, "plain", tmp_path).returncode == 0  # a plan is shown without files from outside
    path, _ = files_of(published)
    refused = snakemake("--", str(path), folder=tmp_path, config=published.folder)
    assert refused.returncode != 0
    assert "tokenizer.decoder_weights: sd-vae-ft-ema (sd-vae-ft-ema) is not there" in refused.stdout + refused.stderr


@pytest.mark.long
@pytest.mark.workflow
def test_a_copy_of_the_folder_with_another_date_is_not_imported_again(published, sd_vae_folder, tmp_path):
    """Of the published size, since the workflow's jobs know no other."""
    copy = shutil.copytree(sd_vae_folder, tmp_path / "sd-vae-ft-mse")
    path, report = files_of(published)
    arguments = {"folder": tmp_path, "config": published.folder}
    done = snakemake("--", str(path), **arguments)
    assert done.returncode == 0, done.stderr
    assert read_record(tmp_path / report, "report")["latents"]["vae"] == "sd-vae"
    assert tensors_header(tmp_path / path, "VAE")["architecture"]["block_channels"] == list(
        LAYOUTS["f8d4"]["block_channels"]
    )
    os.utime(copy)
    os.utime(copy / "diffusion_pytorch_model.safetensors")
    again = snakemake("-n", "--", str(path), **arguments)
    assert "Nothing to be done" in again.stdout + again.stderr
