"""The verbs pack-images and extract-latents: parts, what each is made of, and the jobs that Snakemake makes of them."""

import json
import re

import pytest
import torch
from safetensors.torch import save_file

from selftrans.commands import main
from selftrans.config.families import Data
from selftrans.data.latent_stats import LatentStats
from selftrans.data.packed import Packed
from selftrans.data.sources import digits, open_source
from selftrans.models.fitting import seeded
from selftrans.models.tokenizer import Tokenizer, build_vae
from selftrans.plan.paths import Pattern
from workflow import snakemake

TINY = {"block_channels": (8, 8), "latent_channels": 4, "layers_per_block": 1, "norm_groups": 8}
FAMILY = ("--family", "small", "--threads", "1")


@pytest.fixture
def project(configuration, tmp_path, monkeypatch):
    """1437 digits to train on, 300 to a shard, and a VAE that knows nothing."""
    monkeypatch.chdir(tmp_path)
    configuration.family["data"] |= {"shard": 300}
    plan = configuration.plan()
    key = plan.keys["small"].tokenizer
    with seeded(0, "tokenizer"):
        Tokenizer(build_vae(**TINY), TINY).save(plan.path(Pattern.tokenizer, tokenizer=key), {"key": key})
    return configuration


def packed_of(configuration, pattern=Pattern.images, name="images"):
    plan = configuration.plan()
    keys = plan.keys["small"]
    return Packed(plan.path(pattern, data=keys.data, latents=keys.latents, split="train"), name)


def marks(plan):
    return sorted(path.name for path in plan.root.rglob("*-of-*.json"))


def test_parts_make_together_what_one_job_makes(project, tmp_path, capsys):
    plan = project.plan()
    for part in ("2/2", "1/2"):
        assert main(["pack-images", *FAMILY, "--split", "train", "--part", part]) == 0
    assert marks(plan) == ["1-of-2.json", "2-of-2.json"]
    images = plan.path(Pattern.images, data=plan.keys["small"].data, split="train")
    assert not (images / "manifest.json").exists()
    assert main(["pack-images", *FAMILY, "--split", "train"]) == 0
    assert torch.equal(packed_of(project).all()[0], digits("train", 16)[0])
    assert capsys.readouterr().out.endswith(f"{images}: 1437 images\n")

    for part in ("1/3", "2/3", "3/3"):
        assert main(["extract-latents", *FAMILY, "--part", part]) == 0
    assert len(marks(plan)) == 5
    assert main(["extract-latents", *FAMILY]) == 0
    moments = packed_of(project, Pattern.latents, "moments")
    assert len(list(moments.folder.glob("shard-*.npz"))) == 5
    assert moments.source["images"] == packed_of(project).sha256
    stats = LatentStats.load(moments.folder / "stats.json", {"key": plan.keys["small"].latents})
    assert stats.latents_sha256 == moments.sha256


@pytest.mark.parametrize("verb", [("pack-images", "--split", "train"), ("extract-latents",)])
@pytest.mark.parametrize("part", ["0/2", "3/2", "1", "one/two", "1/2/3"])
def test_a_part_that_is_none_is_refused(project, capsys, verb, part):
    assert main([*verb, *FAMILY, "--part", part]) == 2
    said = f"error: --part: found '{part}'; allowed: part K of N, counted from 1, such as 3/8\n"
    assert capsys.readouterr().err == said


def test_families_say_how_rows_are_stored(project):
    project.family |= {"flip": True}
    project.family["data"]["stored"] = "compressed"
    project.family["tokenizer"]["moments"] = "float16"
    plan = project.plan()
    keys = plan.keys["small"]
    with seeded(0, "tokenizer"):
        tokenizer = Tokenizer(build_vae(**TINY), TINY)
    tokenizer.save(plan.path(Pattern.tokenizer, tokenizer=keys.tokenizer), {"key": keys.tokenizer})
    assert main(["pack-images", *FAMILY, "--split", "train"]) == 0
    assert main(["extract-latents", *FAMILY]) == 0
    images, moments = packed_of(project), packed_of(project, Pattern.latents, "moments")
    size = sum(path.stat().st_size for path in images.folder.iterdir())
    assert size < images.all()[0].numel()
    assert (moments.dtype, moments.views, len(moments)) == ("float16", 2, 2 * 1437)
    found = json.loads((moments.folder / "manifest.json").read_text())
    assert found["listed"] == 1437


@pytest.fixture
def published(project):
    """The same with a VAE that passes for a published one: nothing needs packed images."""
    project.family["tokenizer"] = {
        **{"published": "sd-vae-ft-mse", "weights": "vae.safetensors"},
        "normalisation": "measured",  # since it brings no statistics
    }
    plan = project.plan()
    key = plan.keys["small"].tokenizer
    with seeded(0, "tokenizer"):
        Tokenizer(build_vae(**TINY), TINY).save(plan.path(Pattern.tokenizer, tokenizer=key), {"key": key})
    return project


def test_latents_of_a_published_vae_come_straight_from_the_source(published):
    assert main(["extract-latents", *FAMILY]) == 0
    moments = packed_of(published, Pattern.latents, "moments")
    assert moments.source["listing"] == open_source(Data(source="digits", size=16), "train").sha256
    with seeded(0, "tokenizer"):
        tokenizer = Tokenizer(build_vae(**TINY), TINY)
    images, labels = digits("train", 16)
    assert torch.equal(moments.labels, labels)
    torch.testing.assert_close(moments.read(torch.arange(64)), tokenizer.encode(images[:64]))


@pytest.mark.parametrize("statistics", [False, True])
def test_latents_that_are_there_already_are_indexed(published, tmp_path, capsys, statistics):
    published.family |= {"latents": {"layout": "lightningdit", "folder": "theirs"}, "flip": True}
    latents, mirrored = torch.randn(2, 20, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    (tmp_path / "theirs").mkdir()
    tensors = {"latents": latents, "latents_flip": mirrored, "labels": torch.arange(20) % 10}
    save_file(tensors, tmp_path / "theirs" / "latents_rank00_shard000.safetensors")
    expected = LatentStats.of([torch.cat([found, torch.zeros_like(found)], 1) for found in (latents, mirrored)])
    if statistics:
        torch.save({"mean": torch.zeros(1, 4, 1, 1), "std": torch.ones(1, 4, 1, 1)}, "theirs/latents_stats.pt")
        expected = LatentStats((0.0,) * 4, (1.0,) * 4)
    plan = published.plan()
    keys = plan.keys["small"]
    with seeded(0, "tokenizer"):
        Tokenizer(build_vae(**TINY), TINY).save(
            plan.path(Pattern.tokenizer, tokenizer=keys.tokenizer), {"key": keys.tokenizer}
        )
    assert main(["extract-latents", *FAMILY, "--part", "1/1"]) == 0
    moments = packed_of(published, Pattern.latents, "moments")
    assert (len(moments), moments.views) == (40, 2)
    stats = LatentStats.load(moments.folder / "stats.json", {"key": keys.latents, "latents_sha256": moments.sha256})
    assert stats.mean == pytest.approx(expected.mean)
    assert stats.std == pytest.approx(expected.std)


def planned(configuration, target, folder):
    """{rule: how many jobs} that Snakemake would run."""
    done = snakemake("-n", "--quiet", "rules", "--", str(target), folder=folder, config=configuration.write())
    assert done.returncode == 0, done.stderr
    return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", done.stdout + done.stderr, re.MULTILINE)}


@pytest.mark.workflow
def test_as_many_jobs_share_the_work_as_the_data_say(configuration, tmp_path):
    configuration.family["data"] |= {"parts": 3}
    plan = configuration.plan()
    jobs = planned(configuration, plan.path(Pattern.latent_stats, latents=plan.keys["small"].latents), tmp_path)
    packing = {"pack_images": 2, "pack_images_part": 6}  # two splits, which the VAE is trained on
    encoding = {"train_tokenizer": 1, "extract_latents": 1, "extract_latents_part": 3}
    assert jobs == packing | encoding | {"total": 13}


@pytest.mark.long
@pytest.mark.workflow
def test_a_missing_shard_is_made_again_alone(project, tmp_path):
    plan = project.plan()
    target = plan.path(Pattern.images, data=plan.keys["small"].data, split="train") / "manifest.json"
    folder = project.folder.parent
    for missing in (range(5), (3,)):
        made = snakemake("--", str(target), folder=folder, config=project.write())
        assert made.returncode == 0, made.stderr
        shards = sorted(target.parent.glob("shard-*.npz"))
        if len(missing) == 5:
            dates = [path.stat().st_mtime_ns for path in shards]
            shards[3].unlink()
            target.unlink()
    assert [path.stat().st_mtime_ns == date for path, date in zip(shards, dates, strict=True)] == [
        number != 3 for number in range(5)
    ]
