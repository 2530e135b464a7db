"""A family's published encoder: from a line of the scale and a file of weights to a row that is aligned with it."""

import json
import os
import re
import shutil
import subprocess

import pytest
import timm
import torch

from selftrans.artifacts import read_record, tensors_header
from selftrans.commands import main
from selftrans.data.latent_stats import LatentStats
from selftrans.data.packed import Packed, write_packed
from selftrans.files import file_sha256
from selftrans.models.encoders import Encoder
from selftrans.plan.paths import Pattern
from workflow import snakemake


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of random weights such as github.com/facebookresearch/dino publishes, of ViT-S/16."""
    path = tmp_path_factory.mktemp("published") / "dino_deitsmall16_pretrain.pth"
    torch.save(timm.create_model("vit_small_patch16_224.dino", num_classes=0).state_dict(), path)
    return path


@pytest.fixture
def published(configuration, weights):
    """The small configuration at 64 pixels and 16 tokens, with a REPA row and the encoder of ``weights``."""
    configuration.family["data"]["size"] = 64
    configuration.family["tokenizer"] |= {"block_channels": [8, 8, 8], "steps": 1}
    configuration.family["models"]["mu"] |= {"patch_size": 4, "projector_width": 16}
    configuration.family |= {"encoder": {"published": "dino-s", "weights": str(weights)}, "steps_per_epoch": 1}
    configuration.rows["repa"] = {"like": "aligned", "method": {"name": "repa", "layer": 2}}
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
    """(encoder, report) of the configuration's family."""
    plan = configuration.plan()
    key = plan.keys["small"].encoder
    return plan.path(Pattern.encoder, encoder=key), plan.path(Pattern.encoder_report, encoder=key)


def test_what_it_makes_and_says(call, published, weights):
    code, out, error = call("import-encoder", "--family", "small")
    path, report = files_of(published)
    assert (code, error) == (0, "")
    assert out == f"{path.stem}: 16 tokens of width 384 for 64 px\n"
    source = {"file": weights.name, "sha256": file_sha256(weights)}
    made = {"kind": "report", "key": path.stem, "image_size": 64, "tokens": 16, "width": 384, **source}
    assert read_record(report, "report", {"key": path.stem}) == made
    expected = {"key": path.stem, "source": source, "made_of": {"file": source["sha256"]}}
    assert tensors_header(path, "encoder", expected)["architecture"] == {"published": "dino-s", "image_size": 64}
    images = torch.randint(256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    known = Encoder.from_published("dino-s", weights, image_size=64)
    assert torch.equal(Encoder.load(path).features(images), known.features(images))


def write_latents(plan):
    """Eight random images, and random moments that pass for theirs."""
    keys, draws = plan.keys["small"], torch.Generator().manual_seed(0)
    labels = torch.arange(8)
    images = torch.randint(256, (8, 3, 64, 64), generator=draws).to(torch.uint8)
    folder = plan.path(Pattern.images, data=keys.data, split="train")
    about = {"key": keys.data, "split": "train"}
    write_packed(folder, "images", [(images, labels)], count=8, source={}, about=about)
    moments = torch.rand(8, 8, 16, 16, generator=draws)
    source, vae = {"images": Packed(folder, "images").sha256}, {"key": keys.tokenizer}
    latents = plan.path(Pattern.latents, latents=keys.latents)
    write_packed(latents, "moments", [(moments, labels)], count=8, source=source, about=vae)
    stats = LatentStats((0.0,) * 4, (1.0,) * 4, **vae, latents_sha256=Packed(latents, "moments").sha256)
    stats.save(plan.path(Pattern.latent_stats, latents=keys.latents))


def test_a_row_is_aligned_with_it(call, published):
    call("import-encoder", "--family", "small")
    plan = published.plan()
    write_latents(plan)
    assert call("train", "repa@2")[0] == 0
    run = plan.run("repa", 0)
    recipe = tensors_header(plan.weights(run, 2), "weights")["recipe"]
    assert recipe["encoder"] == plan.keys["small"].encoder
    (line,) = (plan.path(Pattern.work, run=run.id) / "log.jsonl").read_text().splitlines()
    assert 0 < abs(json.loads(line)["method"]) < 1  # minus a cosine


def test_the_path_of_the_file_is_no_part_of_the_recipe(published):
    before = {run.name: run.id for run in published.plan().runs.values()}
    published.family["encoder"]["weights"] = "/elsewhere/dino.pth"
    assert {run.name: run.id for run in published.plan().runs.values()} == before
    published.family["encoder"]["published"] = "mocov3-s"
    after = {run.name: run.id for run in published.plan().runs.values()}
    assert {name for name in before if after[name] != before[name]} == {"repa"}


def test_its_key_is_its_name_and_the_size_of_images(published):
    (path, _), key = files_of(published), published.plan().keys["small"].encoder
    assert re.fullmatch(r"dino-s-[0-9a-f]{8}", key)
    published.family["extractor"]["steps"] = 9
    assert files_of(published)[0] == path
    published.family["data"]["size"] = 128
    assert files_of(published)[0] != path


@pytest.mark.parametrize(
    ("encoder", "words"),
    [
        ({"published": "dinov3"}, "small.encoder.published: found 'dinov3'; allowed: 'dinov2-s', 'dinov2-b', "),
        ({"published": "dino-s", "weights": 3}, "small.encoder.weights: found 3; allowed: text"),
        ({"published": "dino-s"}, "small.encoder.weights: missing; needed: published, weights"),
        ({"published": "dino-s", "file": "x"}, "small.encoder.file: unknown key; allowed: published, weights"),
        ({"name": "eye", "file": "x"}, "encoder.file: unknown key; allowed: name, steps, batch_size, learning_rate"),
        ("dino-s", "small.encoder: found 'dino-s'; allowed: a mapping"),
    ],
)
def test_a_wrong_encoder_is_refused_with_its_key(call, published, encoder, words):
    published.family["encoder"] = encoder
    code, _, error = call("plan")
    assert (code, words in error) == (2, True), error


def test_a_model_with_other_tokens_cannot_be_aligned_with_it(call, published):
    published.family["models"]["mu"]["patch_size"] = 2
    code, _, error = call("plan")
    assert code == 2
    assert error == (
        "error: config/runs.yaml: repa.model: found 'mu'; allowed: a model with a token for 16×16 "
        "pixels, as dino-s has; this one has one for 8×8\n"
    )


def test_each_kind_of_encoder_has_its_verb(call, published):
    scale = "error: config/scales/tiny.yaml: families.small.encoder: "
    error = call("train-encoder", "--family", "small")[2]
    assert error == f"{scale}dino-s is published, not trained; use import-encoder\n"
    published.family["encoder"] = {"name": "eye", "steps": 5, "learning_rate": 0.001, "min_test_accuracy": 0.5}
    error = call("import-encoder", "--family", "small")[2]
    assert error == f"{scale}eye is not published; train it with train-encoder\n"


# ------------------------------------------------------------------------------------------------ workflow


def planned(configuration, row, folder) -> subprocess.CompletedProcess[str]:
    """What Snakemake would do for a row's first milestone."""
    target = first_milestone(configuration, row)
    return snakemake("-n", "--quiet", "rules", "--", target, folder=folder, config=configuration.folder)


def first_milestone(configuration, row) -> str:
    plan = configuration.plan()
    return str(plan.weights(plan.run(row, 0), 2))


@pytest.mark.workflow
def test_the_workflow_imports_what_a_row_needs(published, tmp_path):
    done = planned(published, "repa", tmp_path)
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", done.stdout + done.stderr, re.MULTILINE))
    assert jobs.pop("total") == str(len(jobs) + 1)  # two splits are packed
    assert set(jobs) == {"pack_images", "train_tokenizer", "extract_latents", "import_encoder", "train_stage1"}


@pytest.mark.long
@pytest.mark.workflow
def test_the_file_is_needed_by_rows_that_need_it_alone(published, tmp_path):
    """A plan is shown without it; before the first job it is asked for."""
    published.family["encoder"]["weights"] = "weights/missing.pth"
    assert planned(published, "repa", tmp_path).returncode == 0
    refused = snakemake("--", first_milestone(published, "repa"), folder=tmp_path, config=published.folder)
    assert refused.returncode != 0
    assert "tiny.yaml: families.small.encoder.weights: weights/missing.pth (dino-s) is not there" in refused.stderr
    assert not (tmp_path / "results" / "tiny" / "data").exists()
    target = first_milestone(published, "plain")
    assert snakemake("--", target, folder=tmp_path, config=published.folder).returncode == 0


@pytest.mark.workflow
def test_a_copy_of_the_file_with_another_date_is_not_imported_again(published, weights, tmp_path):
    copy = shutil.copy(weights, tmp_path)
    published.family["encoder"]["weights"] = str(copy)
    path, report = files_of(published)
    arguments = {"folder": tmp_path, "config": published.folder}
    assert snakemake("--", str(path), **arguments).returncode == 0
    assert read_record(tmp_path / report, "report")["sha256"] == file_sha256(weights)
    os.utime(copy)
    again = snakemake("-n", "--", str(path), **arguments)
    assert "Nothing to be done" in again.stdout + again.stderr
