"""Sizes by arithmetic, against networks and files that are really made."""

from pathlib import Path

import pytest
import torch
from toy import smoke_plan

from selftrans.config.publications import Publication
from selftrans.config.reading.project import load_project
from selftrans.config.reading.publications import load_publications
from selftrans.models.backbones import build_backbone
from selftrans.plan.plan import Plan
from selftrans.plan.size import (
    DIGITS,
    count_images,
    images_bytes,
    in_words,
    latents_bytes,
    parameters,
    samples_bytes,
    state_bytes,
    weights_bytes,
)

CONFIG = Path(__file__).parents[2] / "config"


@pytest.mark.parametrize("scale", ["demo", "imagenet", "imagenet100"])
def test_parameters_are_those_of_the_networks(scale):
    runs = Plan(load_project(CONFIG, scale=scale)).runs.values()
    for backbone in {str(run.backbone): run.backbone for run in runs}.values():
        for blocks in (None, 3):
            with torch.device("meta"):
                built = build_backbone(**backbone, blocks=blocks)
            assert parameters(backbone, blocks) == sum(weight.numel() for weight in built.parameters())


@pytest.mark.parametrize("kind", ["sit", "lightningdit"])
def test_norms_of_queries_and_keys_count(kind):
    sizes = {"depth": 2, "width": 16, "heads": 2, "patch_size": 1, "input_size": 4, "channels": 3, "num_classes": 5}
    backbone = {"backbone": kind, "qk_norm": True, **sizes}
    assert parameters(backbone) == sum(weight.numel() for weight in build_backbone(**backbone).parameters())


def test_what_an_image_takes():
    run = smoke_plan().run("vanilla", 0)
    side = run.family.data.size
    preset = next(iter(run.family.presets))
    assert samples_bytes(run, preset) == run.family.presets[preset].samples * side * side * 3
    assert images_bytes(run.family.data, 7) == 7 * side * side * 3
    assert state_bytes(run) == 4 * weights_bytes(run)


def test_latents_of_imagenet_are_what_the_docs_say():
    """docs/reproducing.md: 42, 168 and 168 GB."""
    families = load_project(CONFIG, scale="imagenet").scale.families
    publications = load_publications(CONFIG)
    found = {}
    for name, family in families.items():
        images = count_images(family.data, "train", publications)
        assert images == pytest.approx(1_281_167, rel=1e-3)
        found[name] = round(latents_bytes(family, images) / 1e9)
    assert found == {"sit256": 42, "ldit256": 168, "sit512": 168}
    half = families["sit256"].tokenizer.model_copy(update={"moments": "float16"})
    assert latents_bytes(families["sit256"].model_copy(update={"tokenizer": half}), 10) == 10 * 8 * 32 * 32 * 2


def test_images_are_counted_where_that_is_known():
    digits = smoke_plan().run("vanilla", 0).family.data
    assert [count_images(digits, split, {}) for split in ("train", "test")] == [DIGITS["train"], DIGITS["test"]]
    own = digits.model_copy(update={"source": "images", "name": "own", "classes": 3, "held_out": 0.1})
    assert count_images(own, "train", {}) is None
    home = "https://example.org/"
    known = {"own": Publication(what="images", home=home, licence="MIT", images_per_class=100)}
    assert (count_images(own, "train", known), count_images(own, "test", known)) == (270, 30)


def test_the_digits_are_as_many_as_they_are_counted():
    from selftrans.data.sources.digits import digits

    for split, count in DIGITS.items():
        assert len(digits(split)[0]) == count


def test_bytes_in_words_are_rounded_up():
    assert [in_words(count) for count in (0, 1, 999_999_999, 10**9, 1_510_000_000, 2 * 10**12)] == [
        *("0 MB", "1 MB", "1000 MB"),
        *("1 GB", "1.6 GB", "2 TB"),
    ]
