"""A family's published extractors and reference: from files of weights and an npz in ADM's layout to metrics."""

import json
import re
from pathlib import Path

import numpy as np
import photos
import pytest
import timm
import torch
from evaluation.random_inception import save_random_weights

from selftrans.artifacts import load_tensors, read_record, save_arrays, save_tensors
from selftrans.commands import main
from selftrans.commands.evaluate import files_of
from selftrans.config.families import ClassifierRecipe
from selftrans.config.names import INCEPTION
from selftrans.data.packed import write_packed
from selftrans.data.sources import open_source
from selftrans.errors import UserError
from selftrans.evaluation import inception, reference
from selftrans.evaluation.extractors import Extractor
from selftrans.evaluation.published import load_extractor
from selftrans.evaluation.statistics import Source, Statistics
from selftrans.files import file_sha256
from selftrans.plan.paths import Pattern
from workflow import snakemake

pytestmark = [
    pytest.mark.xdist_group("inception"),  # one process makes the weights for all
    pytest.mark.filterwarnings("ignore:.* rows for .* dimensions", "ignore:samples of 16×16 pixels"),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Random weights as two publishers have them, and a reference of random moments and 6 images in ADM's layout."""
    folder = tmp_path_factory.mktemp("published")
    save_random_weights(folder / "inception.pth")
    torch.manual_seed(0)
    torch.save(timm.create_model("vit_small_patch14_dinov2.lvd142m", num_classes=0).state_dict(), folder / "dinov2.pth")
    draws = np.random.default_rng(0)
    root = 0.01 * draws.standard_normal((2048, 30))  # those of sFID would take as long again
    stored = {"mu": draws.random(2048, np.float32), "sigma": root @ root.T}
    np.savez(folder / "adm.npz", arr_0=draws.integers(0, 256, (6, 16, 16, 3), np.uint8), **stored)
    return folder


@pytest.fixture
def published(configuration, files, tmp_path, monkeypatch):
    """The small configuration with Inception's layout under a name of its own, a reference, and DINOv2 beside it."""
    monkeypatch.chdir(tmp_path)
    configuration.family |= {
        "extractor": {"published": "inception", "weights": str(files / "inception.pth"), "name": "random-net"},
        "second_extractor": {"published": "dinov2-s", "weights": str(files / "dinov2.pth")},
        "reference": {"name": "adm-toy", "file": str(files / "adm.npz")},
    }
    return configuration


@pytest.fixture
def call(published, capsys):
    """Run a verb: (exit code, standard output, standard error)."""

    def run(*arguments):
        published.write()
        return main(arguments), *capsys.readouterr()

    return run


FAMILY = ("--family", "small")


def test_what_import_makes_and_says(call, published, files):
    keys = published.plan().keys["small"]
    for options, key, name, file in (
        ([], keys.extractor, "random-net", files / "inception.pth"),
        (["--second"], keys.second_extractor, "dinov2-s", files / "dinov2.pth"),
    ):
        path = published.plan().path(Pattern.extractor, extractor=key)
        code, out, error = call("import-extractor", *FAMILY, *options)
        assert (code, out, error) == (0, f"{path}: {name} of {file.name}\n", "")
        assert re.fullmatch(f"{name}-[0-9a-f]{{8}}", key)
        report = read_record(path.with_suffix(".json"), "report", {"key": key})
        assert report == {
            **{"kind": "report", "key": key},
            **{"extractor": name, "file": file.name, "sha256": file_sha256(file)},
        }
        assert load_extractor(path, {"key": key, "made_of": {"file": file_sha256(file)}}).name == name


def features(extractor):
    images = torch.randint(256, (3, 3, 32, 32), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    return torch.cat([batch.pool for batch in extractor.extract(images)])


def test_what_is_imported_sees_what_the_publishers_file_sees(call, published, files):
    call("import-extractor", *FAMILY)
    path = published.plan().path(Pattern.extractor, extractor=published.plan().keys["small"].extractor)
    sha256 = file_sha256(files / "inception.pth")
    own = inception.load_inception(files / "inception.pth", sha256)
    assert torch.equal(features(load_extractor(path)), features(own))
    assert load_extractor(path).sha256 == own.sha256 == sha256


def test_other_weights_are_not_inception_unless_they_have_another_name(call, published, files, monkeypatch):
    del published.family["extractor"]["name"]
    code, _, error = call("import-extractor", *FAMILY)
    assert code == 2
    assert f"{files / 'inception.pth'}: a file of PyTorch (.pt, .pth), but not the published Inception" in error
    published.family["extractor"]["name"] = "my-inception"
    assert "extractor.name: found 'my-inception'; allowed: a name without 'inception'" in call("plan")[2]
    # And a file that says so of itself:
    published.family["extractor"]["name"] = "random-net"
    call("import-extractor", *FAMILY)
    path = published.plan().path(Pattern.extractor, extractor=published.plan().keys["small"].extractor)
    tensors, header = load_tensors(path, "extractor")
    save_tensors(path, "extractor", tensors, header | {"name": INCEPTION})
    with pytest.raises(UserError, match="not the published weights, under the name of inception-2015-12-05"):
        load_extractor(path)
    monkeypatch.setattr(inception, "PUBLISHED_SHA256", file_sha256(files / "inception.pth"))
    assert load_extractor(path).name == INCEPTION


def test_a_file_of_another_network_is_refused(call, published, files):
    published.family["extractor"]["weights"] = str(files / "dinov2.pth")
    assert f"{files / 'dinov2.pth'}: not the weights of this network" in call("import-extractor", *FAMILY)[2]
    published.family["second_extractor"]["weights"] = str(files / "inception.pth")
    error = call("import-extractor", *FAMILY, "--second")[2]
    assert f"{files / 'inception.pth'}: not the weights of dinov2-s" in error


def test_an_imported_file_of_another_network_is_refused(call, published):
    call("import-extractor", *FAMILY, "--second")
    path = published.plan().path(Pattern.extractor, extractor=published.plan().keys["small"].second_extractor)
    tensors, header = load_tensors(path, "extractor")
    for other in ("dinov2-b", "inception", "resnet", 7):
        save_tensors(path, "extractor", tensors, header | {"architecture": {"published": other}})
        with pytest.raises(UserError, match=re.escape(str(path))):
            load_extractor(path)


def test_each_kind_of_extractor_and_reference_has_its_verb(call, published):
    where = "error: config/scales/tiny.yaml: families.small"
    error = call("train-extractor", *FAMILY)[2]
    assert error == f"{where}.extractor: inception is published, not trained; use import-extractor\n"
    error = call("import-reference", *FAMILY, "--second")[2]
    assert error == f"{where}: no published reference of dinov2-s; make its own with make-reference\n"
    published.family["second_extractor"] = {
        **{"name": "eye", "steps": 5, "learning_rate": 0.001, "min_test_accuracy": 0.5}
    }
    error = call("import-extractor", *FAMILY, "--second")[2]
    assert error == f"{where}.second_extractor: eye is not published; train it with train-extractor\n"
    del published.family["second_extractor"]
    for verb in (("make-reference", *FAMILY), ("evaluate", "plain@8")):
        error = call(*verb, "--second")[2]
        assert error == "error: --second: config/scales/tiny.yaml: families.small has no second_extractor\n"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"reference": {"name": "adm", "file": "x"}, "extractor": "judge"}, "small.reference: found 'adm'; allowed: n"),
        ({"second_extractor": "judge", "extractor": "judge"}, "second_extractor: found 'judge'; allowed: another one"),
        ({"extractor": {"published": "vgg", "weights": "x"}}, "extractor.published: found 'vgg'; allowed: 'inception'"),
        ({"extractor": {"published": "inception"}}, "extractor.weights: missing; needed: published, weights"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_key(call, published, change, words):
    judge = {"name": "judge", "steps": 5, "learning_rate": 0.001, "min_test_accuracy": 0.5}
    published.family |= {key: judge if value == "judge" else value for key, value in change.items()}
    code, _, error = call("plan")
    assert (code, words in error) == (2, True), error


# --------------------------------------------------------------------------------------- from files to metrics


def write_inputs(plan):
    """Twelve packed images, and ten samples of plain@8."""
    draws = torch.Generator().manual_seed(0)
    keys, run = plan.keys["small"], plan.run("plain", 0)
    images = torch.randint(256, (12, 3, 16, 16), generator=draws).to(torch.uint8)
    folder = plan.path(Pattern.images, data=keys.data, split="train")
    about = {"key": keys.data, "split": "train"}
    write_packed(folder, "images", [(images, torch.arange(12) % 10)], count=12, source={}, about=about)
    samples, _, about = files_of(plan, run, run.step_at(8), "headline")
    made = torch.randint(200, (10, 16, 16, 3), generator=draws).to(torch.uint8)
    save_arrays(samples, "samples", {"arr_0": made.numpy(), "arr_1": np.arange(10)}, about)
    return images, made.permute(0, 3, 1, 2)


@pytest.mark.long
def test_a_run_is_measured_through_both(call, published, files):
    plan = published.plan()
    keys = plan.keys["small"]
    images, made = write_inputs(plan)
    for verb in (
        *(("import-extractor", *FAMILY), ("import-extractor", *FAMILY, "--second")),
        *(("import-reference", *FAMILY), ("make-reference", *FAMILY, "--second")),
    ):
        assert call(*verb)[0] == 0, verb
    code, out, _ = call("evaluate", "plain@8")
    assert code == 0
    assert "Fréchet distance" in out
    assert "FID" not in out
    assert "no kernel distance: 10 samples and 6 references, and a subset needs 1000" in out
    code, out, _ = call("evaluate", "plain@8", "--second")
    assert code == 0
    assert "no inception score, accuracy: dinov2-s gives no logits" in out

    run = plan.run("plain", 0)
    _, first, about = files_of(plan, run, run.step_at(8), "headline")
    found = read_record(first, "metrics", {**about, "extractor_key": keys.extractor})
    assert (found["extractor"], found["references"], found["samples"]) == ("random-net", 6, 10)
    with np.load(files / "adm.npz") as adm:
        extractor = load_extractor(plan.path(Pattern.extractor, extractor=keys.extractor))
        pool = torch.cat([batch.pool for batch in extractor.extract(made)]).double().numpy()
        gap = pool.mean(axis=0) - adm["mu"]
        cross = np.linalg.svd(((pool - pool.mean(axis=0)) / 3), compute_uv=False)  # for the trace of its covariance
        upper = gap @ gap + (cross**2).sum() + np.trace(adm["sigma"])
        lower = upper - 2 * np.sqrt((cross**2).sum() * np.trace(adm["sigma"]))
    assert lower <= found["frechet"] <= upper

    _, second, about = files_of(plan, run, run.step_at(8), "headline", second=True)
    assert second != first
    found = read_record(second, "metrics", {**about, "extractor_key": keys.second_extractor})
    assert (found["extractor"], found["references"], found["samples"]) == ("dinov2-s", 12, 10)
    assert (found["spatial_frechet"], found["inception_score"], found["kid"]) == (None, None, None)
    dinov2 = load_extractor(plan.path(Pattern.extractor, extractor=keys.second_extractor))
    both = [torch.cat([batch.pool for batch in dinov2.extract(x)]).double().numpy() for x in (images, made)]
    roots = [(x - x.mean(axis=0)) / np.sqrt(len(x) - 1) for x in both]
    gap = both[0].mean(axis=0) - both[1].mean(axis=0)
    shared = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    expected = gap @ gap + sum((root**2).sum() for root in roots) - 2 * shared
    assert found["frechet"] == pytest.approx(expected, rel=1e-6)

    # The same by hand.
    samples, key = plan.samples_file(run, run.step_at(8), "headline"), keys.second_extractor
    given = {"--samples": samples, "--reference": plan.path(Pattern.reference, extractor=key)}
    given |= {"--extractor": plan.path(Pattern.extractor, extractor=key), "--output": "by-hand.json"}
    assert call("evaluate", *(str(word) for pair in given.items() for word in pair))[0] == 0
    assert json.loads(Path("by-hand.json").read_text())["frechet"] == found["frechet"]


def test_the_kernel_distance_is_measured_where_there_are_enough(call, published, monkeypatch):
    """Subsets of 5 of the 12 and 10 rows in the place of 1000 of 50,000."""
    monkeypatch.setattr("selftrans.evaluation.kid.SUBSET_SIZE", 5)
    monkeypatch.setattr("selftrans.evaluation.kid.SUBSETS", 3)
    plan = published.plan()
    write_inputs(plan)
    call("import-extractor", *FAMILY, "--second")
    call("make-reference", *FAMILY, "--second")
    assert call("evaluate", "plain@8", "--second")[0] == 0
    run = plan.run("plain", 0)
    found = json.loads(files_of(plan, run, run.step_at(8), "headline", second=True)[1].read_text())
    assert found["kid"] is not None
    assert "kid" not in found["left_out"]


def test_a_reference_of_many_images_keeps_some_rows(call, published, monkeypatch):
    monkeypatch.setattr(reference, "ROWS", 5)
    plan = published.plan()
    write_inputs(plan)
    call("import-extractor", *FAMILY, "--second")
    assert call("make-reference", *FAMILY, "--second")[0] == 0
    key = plan.keys["small"].second_extractor
    found = Statistics.load(plan.path(Pattern.reference, extractor=key), {"key": key})
    assert (found.pool.count, found.count, found.size) == (12, 5, (16, 16))
    assert call("evaluate", "plain@8", "--second")[0] == 0


def test_a_published_vae_leaves_the_reference_without_packed_images(call, published, tmp_path, monkeypatch):
    """What a trained extractor has seen is packed; other references are made of the files themselves."""
    files = photos.photos(count=2)
    files["n01440764/n01440764_0.JPEG"] = b"no picture"
    photos.as_folder(tmp_path / "photos", files)
    data = {"source": "images", "name": "photos", "path": "photos", "size": 16, "classes": 3, "max_broken": 0.2}
    published.family |= {"data": data, "tokenizer": {"published": "sd-vae-ft-mse", "weights": "unused"}}
    plan = published.plan()
    family, keys = plan.scale.families["small"], plan.keys["small"]
    assert call("import-extractor", *FAMILY, "--second")[0] == 0
    code, out, error = call("make-reference", *FAMILY, "--second")
    assert code == 0, error
    path = plan.path(Pattern.reference, extractor=keys.second_extractor)
    assert out.startswith(f"{path}: 5 images; 1 could not be read:\n  photos: n01440764/n01440764_0.JPEG: ")
    found = Statistics.load(path, {"key": keys.second_extractor})
    listing = open_source(family.data, "train").sha256
    assert found.made_of == {"listing": listing, "size": [16, 16], "unreadable": [0]}
    assert (found.pool.count, found.count) == (5, 5)
    monkeypatch.setattr(reference, "BLOCK", 2)
    blocks = plan.path(Pattern.reference_blocks, extractor=keys.second_extractor)
    for part, made in (("1/2", (0, 2)), ("2/2", (0, 1, 2))):
        assert call("make-reference", *FAMILY, "--second", "--part", part)[0] == 0
        assert {file.name for file in blocks.iterdir()} == {f"block-0000{number}.npz" for number in made}
    assert call("make-reference", *FAMILY, "--second")[1] == out
    again = Statistics.load(path, {"key": keys.second_extractor})
    assert (again.made_of, again.pool.count) == (found.made_of, 5)
    torch.testing.assert_close(again.pool.covariance, found.pool.covariance, rtol=1e-4, atol=1e-6)
    assert not plan.path(Pattern.images, data=keys.data, split="train").exists()
    judge = {"name": "judge", "steps": 5, "learning_rate": 0.001, "min_test_accuracy": 0.5}
    assert family.compares_packed_images(ClassifierRecipe(**judge))
    published.family["data"]["max_broken"] = 0.1
    error = call("make-reference", *FAMILY, "--second")[2]
    assert error.startswith("error: photos: 1 of 6 images could not be read (16.67%), more than data.max_broken allows")
    published.family["data"] |= {"only": ["n01440764"], "classes": 1, "max_broken": 0.5}
    call("import-extractor", *FAMILY, "--second")
    assert (
        call("make-reference", *FAMILY, "--second")[2] == "error: photos: a covariance needs at least 2 rows, got 1\n"
    )


def test_a_published_reference_has_moments(call, published, tmp_path):
    call("import-extractor", *FAMILY)
    np.savez(tmp_path / "images.npz", arr_0=np.zeros((3, 16, 16, 3), np.uint8))
    published.family["reference"]["file"] = "images.npz"
    error = call("import-reference", *FAMILY)[2]
    assert error == "error: images.npz: it has no moments (mu, sigma), as a published reference does\n"


def test_moments_are_those_of_the_extractor_that_the_reference_is_for(files, tmp_path):
    """Anywhere else, moments that name no extractor are Inception's."""

    class Eye(torch.nn.Module):
        pass

    eye = Extractor(Eye(), "eye", "ab" * 32)
    with pytest.raises(UserError, match="cannot be compared with features of eye"):
        Source.open(files / "adm.npz").statistics(eye)
    np.savez(tmp_path / "moments.npz", mu=np.zeros(3), sigma=np.eye(3))
    found = Source.open(tmp_path / "moments.npz", moments_by="eye").statistics(eye)
    assert isinstance(found, Statistics)
    assert (found.extractor, found.named_extractor) == ("eye", None)


# ------------------------------------------------------------------------------------------------ workflow


@pytest.mark.workflow
def test_the_workflow_imports_what_a_table_needs(published, tmp_path):
    planned = snakemake(
        *("-n", "--quiet", "rules", "--", "results/main.csv"), folder=tmp_path, config=published.write()
    )
    assert planned.returncode == 0, planned.stderr
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", planned.stdout + planned.stderr, re.MULTILINE))
    assert "train_extractor" not in jobs
    assert {name: jobs[name] for name in ("import_extractor", "import_reference", "make_reference")} == {
        **{"import_extractor": "2", "import_reference": "1", "make_reference": "1"}
    }
    assert (jobs["sample"], jobs["evaluate"]) == ("3", "6")


@pytest.mark.long
@pytest.mark.workflow
def test_the_workflow_measures_through_both(published, tmp_path):
    plan = published.plan()
    write_inputs(plan)
    run = plan.run("plain", 0)
    targets = [str(found(run, 80, "headline")) for found in (plan.metrics_file, plan.second_metrics_file)]
    made = snakemake("--", *targets, folder=tmp_path, config=published.folder)
    assert made.returncode == 0, made.stderr
    assert {json.loads((tmp_path / path).read_text())["extractor"] for path in targets} == {"random-net", "dinov2-s"}
