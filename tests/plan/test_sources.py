"""What has to be made before anything is trained, sampled or measured; and never more than that."""

from pathlib import Path

import pytest

from selftrans.config.reading.project import load_project
from selftrans.plan.plan import Plan
from selftrans.plan.sources import missing_sources

CONFIG = Path(__file__).parents[2] / "config"


@pytest.fixture
def imagenet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Plan(load_project(CONFIG, scale="imagenet"))


def kinds(plan, *files):
    """The folders under the scale's in which something is missing."""
    return sorted({path.relative_to(plan.root).parts[0] for path in missing_sources(plan, files)})


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_a_training_needs_latents_and_those_the_vae(imagenet):
    run = imagenet.run("sit-b2", 0)
    assert kinds(imagenet, (imagenet.weights(run, 400_000), run)) == ["latents", "tokenizers"]
    repa = imagenet.run("sit-b2-repa", 0)
    assert kinds(imagenet, (imagenet.weights(repa, 400_000), repa)) == ["data", "encoders", "latents", "tokenizers"]


def test_what_is_measured_needs_extractor_and_reference(imagenet):
    run = imagenet.run("sit-b2", 0)
    assert kinds(imagenet, (imagenet.metrics("sit-b2@80", 0, "headline"), run)) == ["extractors", "references"]


def test_published_weights_need_no_latents(imagenet):
    run = imagenet.run("published-sit-xl2", 0)
    (step,) = run.milestones
    assert kinds(imagenet, (imagenet.samples_file(run, step, "headline"), run)) == ["runs", "tokenizers"]


def test_what_is_there_is_not_asked_for_nor_what_it_was_made_of(imagenet):
    run = imagenet.run("sit-b2", 0)
    files = (imagenet.weights(run, 400_000), run), (imagenet.samples_file(run, 400_000, "headline"), run)
    touch(imagenet.root / "latents" / run.keys.latents / "manifest.json")
    assert kinds(imagenet, files[0]) == []
    assert kinds(imagenet, *files) == ["tokenizers"]


def test_what_is_trained_here_needs_the_images_of_both_splits(configuration, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = configuration.plan()
    run = plan.run("plain", 0)
    missing = missing_sources(plan, [(plan.weights(run, 20), run)])
    assert {str(path.relative_to(plan.root)) for path in missing} == {
        f"latents/{run.keys.latents}/manifest.json",
        f"tokenizers/{run.keys.tokenizer}.safetensors",
        f"data/{run.keys.data}/train/manifest.json",
        f"data/{run.keys.data}/test/manifest.json",
    }
