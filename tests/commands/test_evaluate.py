"""selftrans evaluate on files: what comes out is what other implementations make of the same features."""

import hashlib
import json
import warnings

import numpy as np
import pytest
import scipy.linalg
import scipy.special
import torch
from evaluation.random_inception import save_random_weights
from PIL import Image
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric
from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

from selftrans.commands import main
from selftrans.data.packed import write_packed
from selftrans.evaluation import inception
from selftrans.evaluation.extractors import Extractor, SmallClassifier
from selftrans.evaluation.moments import Moments
from selftrans.evaluation.statistics import Statistics
from selftrans.paths import Pattern
from selftrans.samples import Samples

pytestmark = [
    pytest.mark.xdist_group("inception"),  # one process makes the weights for all
    pytest.mark.filterwarnings("ignore:.* rows for .* dimensions"),
]


def draw(count, seed, size=16):
    """Coarse squares under noise, which is stronger with the seed, so that sets differ."""
    draws = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=draws)
    coarse = coarse.repeat_interleave(size // 4, dim=2).repeat_interleave(size // 4, dim=3)
    noise = torch.rand(count, 3, size, size, generator=draws)
    return (255 * ((1 - 0.1 * seed) * coarse + 0.1 * seed * noise)).to(torch.uint8)


def rows(images):
    return images.permute(0, 2, 3, 1).numpy()


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """An extractor of ours with random weights, none of its units dead: (file, extractor)."""
    network = SmallClassifier(classes=10, size=16)
    draws = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(0, (2 / parameter[0].numel()) ** 0.5, generator=draws)
    network.hidden.bias.data.fill_(4)
    path = tmp_path_factory.mktemp("extractor") / "extractor.safetensors"
    Extractor(network, "judge").save(path)
    return path, Extractor.load(path)


def features_of(extractor, images):
    batches = list(extractor.extract(images))
    return [torch.cat([getattr(batch, name) for batch in batches]) for name in ("pool", "spatial", "logits")]


def restated_frechet(a, b):
    a, b = a.double().numpy(), b.double().numpy()
    gap = a.mean(axis=0) - b.mean(axis=0)
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(first @ second).real
    return gap @ gap + np.trace(first + second - 2 * root)


def restated_precision_recall(reference, samples, k=3):
    squared = [((x[:, None] - y) ** 2).sum(-1) for x, y in ((reference, reference), (samples, samples))]
    radii = [np.sort(distances, axis=1)[:, k] for distances in squared]
    between = ((reference[:, None] - samples) ** 2).sum(-1)
    return (between <= radii[0][:, None]).any(axis=0).mean(), (between <= radii[1]).any(axis=1).mean()


def restated_score(logits):
    p = scipy.special.softmax(logits.double().numpy(), axis=1)
    return np.exp((p * (np.log(p) - np.log(p.mean(axis=0)))).sum(axis=1).mean())


def test_agrees_with_torch_fidelity_and_with_the_formulas(classifier, tmp_path, capsys):
    """From files to numbers, through the command: full rank, 1e-9; equal precision and recall."""
    path, extractor = classifier
    real, made = draw(500, seed=1), draw(400, seed=2)
    np.savez(tmp_path / "reference.npz", arr_0=rows(real))
    np.savez(tmp_path / "samples.npz", arr_0=rows(made), arr_1=np.arange(400) % 10)
    files = ["--samples", str(tmp_path / "samples.npz"), "--reference", str(tmp_path / "reference.npz")]
    assert main(["evaluate", *files, "--extractor", str(path), "--output", str(tmp_path / "result.json")]) == 0
    result = json.loads((tmp_path / "result.json").read_text())

    (pool, spatial, logits), (real_pool, real_spatial, _) = (features_of(extractor, x) for x in (made, real))
    for key, sets in (("frechet", (pool, real_pool)), ("spatial_frechet", (spatial, real_spatial))):
        assert result[key] == pytest.approx(restated_frechet(*sets), rel=1e-9)
        statistics = (fid_features_to_statistics(features.double()) for features in sets)
        assert result[key] == pytest.approx(fid_statistics_to_metric(*statistics, False)[KEY_METRIC_FID], rel=1e-9)
        statistics = (fid_features_to_statistics(features) for features in sets)  # float32 means, as it has them
        assert result[key] == pytest.approx(fid_statistics_to_metric(*statistics, False)[KEY_METRIC_FID], rel=1e-5)

    second = isc_features_to_metric(logits, splits=1, shuffle=False)[KEY_METRIC_ISC_MEAN]
    assert result["inception_score"] == pytest.approx(second, rel=1e-9)
    assert result["inception_score"] == pytest.approx(restated_score(logits), rel=1e-9)

    second = prc_features_to_metric(pool, real_pool, prc_neighborhood=3, verbose=False)
    found = (result["precision"], result["recall"])
    assert found == pytest.approx((second[KEY_METRIC_PRECISION], second[KEY_METRIC_RECALL]), abs=1e-7)
    assert found == restated_precision_recall(real_pool.double().numpy(), pool.double().numpy())
    assert 0 < found[0] < 1
    assert 0 < found[1] < 1

    assert result["accuracy"] == (logits.argmax(dim=1) == torch.arange(400) % 10).double().mean().item()
    assert (result["samples"], result["references"], result["reference_images"]) == (400, 500, 500)
    assert (result["k"], result["split_size"]) == (3, 5000)
    assert (result["extractor"], result["extractor_sha256"]) == ("judge", extractor.sha256)
    assert result["about"]["samples_sha256"] == hashlib.sha256((tmp_path / "samples.npz").read_bytes()).hexdigest()
    shown = capsys.readouterr().out
    assert f"Fréchet distance{result['frechet']:>21.4f}   400 samples, 500 reference images" in shown
    assert "FID" not in shown


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_random_weights(tmp_path_factory.mktemp("inception") / "weights.pth")


def nuclear_distance(mean_a, root_a, mean_b, root_b):
    """The Fréchet distance of Gaussians with covariances A Aᵀ and B Bᵀ of any rank."""
    gap = mean_a - mean_b
    shared = np.linalg.svd(root_a.T @ root_b, compute_uv=False).sum()
    return gap @ gap + (root_a**2).sum() + (root_b**2).sum() - 2 * shared


def test_inception_with_a_reference_of_the_adm_suite(weights, tmp_path, monkeypatch, capsys):
    """Stored moments, float32 means, 1000 images in the place of 10,000 here 6; everything beside its restatement."""
    monkeypatch.setattr(inception, "PUBLISHED_SHA256", hashlib.sha256(weights.read_bytes()).hexdigest())
    draws = np.random.default_rng(0)
    stored, roots = {}, {}
    for suffix, width in (("", 2048), ("_s", 2023)):
        roots[suffix] = 0.01 * draws.standard_normal((width, 30))
        stored[f"mu{suffix}"] = draws.random(width, np.float32)
        stored[f"sigma{suffix}"] = roots[suffix] @ roots[suffix].T
    real, made = draw(6, seed=1, size=20), draw(7, seed=2, size=20)
    np.savez(tmp_path / "virtual.npz", arr_0=rows(real), **stored)
    np.savez(tmp_path / "samples.npz", arr_0=rows(made), arr_1=np.zeros(7, int))
    files = ["--samples", str(tmp_path / "samples.npz"), "--reference", str(tmp_path / "virtual.npz")]
    more = ["--weights", str(weights), "--output", str(tmp_path / "result.json")]
    assert main(["evaluate", *files, *more, "--save-statistics", str(tmp_path / "saved.npz")]) == 0
    result = json.loads((tmp_path / "result.json").read_text())

    extractor = inception.load_inception(weights)
    (pool, spatial, logits), (real_pool, _, _) = (features_of(extractor, x) for x in (made, real))
    for key, features, suffix in (("frechet", pool, ""), ("spatial_frechet", spatial, "_s")):
        features, mean = features.double().numpy(), stored[f"mu{suffix}"].astype(np.float64)
        root = (features - features.mean(axis=0)).T / np.sqrt(6)
        expected = nuclear_distance(features.mean(axis=0), root, mean, roots[suffix])
        assert result[key] == pytest.approx(expected, rel=1e-9)
    assert result["inception_score"] == pytest.approx(restated_score(logits), rel=1e-9)
    expected = restated_precision_recall(real_pool.double().numpy(), pool.double().numpy())
    assert (result["precision"], result["recall"]) == expected
    assert result["accuracy"] is None
    assert (result["samples"], result["references"], result["reference_images"]) == (7, 6, None)
    with np.load(tmp_path / "saved.npz") as saved:
        assert np.array_equal(saved["features"], pool.numpy())
        assert saved["mu_s"].shape == (2023,)
    out = capsys.readouterr().out
    for words in ("through inception-2015-12-05", "FID ", "sFID ", "Inception Score", "6 references"):
        assert words in out


def test_a_run_is_measured_with_the_files_of_its_scale(classifier, configuration, tmp_path, monkeypatch, capsys):
    """What the workflow's rule calls; its numbers are those of the same files by hand."""
    monkeypatch.chdir(tmp_path)
    plan = configuration.plan()
    run = plan.run("plain", 0)
    real, made = draw(80, seed=1), draw(70, seed=2)
    extractor = plan.path(Pattern.extractor, extractor=run.keys.extractor)
    Extractor.load(classifier[0]).save(extractor)
    reference = plan.path(Pattern.reference, extractor=run.keys.extractor)
    np.savez(tmp_path / "real.npz", arr_0=rows(real))
    assert evaluate(classifier, "--samples", tmp_path / "real.npz", "--save-statistics", reference) == 0
    where = {"run": run.id, "step": run.step_at(8), "preset": "headline"}
    samples = plan.path(Pattern.samples, **where)
    Samples(made, torch.arange(70) % 10, {"run": run.id, "name": "Fréchet"}).save(samples)

    capsys.readouterr()
    # As the workflow's rule has it.
    rule = ["plain@8", "--seed", "0", "--expect", run.id, "--preset", "headline", "--threads", "1"]
    assert main(["evaluate", *rule]) == 0
    result = json.loads(plan.path(Pattern.metrics, **where).read_text())
    assert capsys.readouterr().out == f"plain seed 0 step 80: Fréchet distance {result['frechet']:.2f} (judge)\n"
    about = result.pop("about")
    assert (about["run"], about["name"]) == (run.id, "Fréchet")
    assert about["samples_sha256"] == hashlib.sha256(samples.read_bytes()).hexdigest()
    assert evaluate(classifier, "--samples", samples, "--reference", reference, "--output", "by-hand.json") == 0
    by_hand = json.loads((tmp_path / "by-hand.json").read_text())
    assert by_hand.pop("about")["reference"] == str(reference)
    assert by_hand == result

    assert main(["evaluate", "plain@8", "--expect", "another"]) == 2
    assert f"plain@8 is now {run.id}" in capsys.readouterr().err
    samples.write_bytes(samples.read_bytes()[:-100])
    assert main(["evaluate", "plain@8"]) == 2
    assert f"{samples}: truncated, damaged or no npz" in capsys.readouterr().err


def evaluate(classifier, *arguments):
    """Run the command with our extractor: its exit code."""
    return main(["evaluate", "--extractor", str(classifier[0]), *map(str, arguments)])


@pytest.fixture
def npz(tmp_path):
    """A function that writes images of the ADM suite's kind."""

    def write(name, images, **more):
        np.savez(tmp_path / f"{name}.npz", arr_0=rows(images), **more)
        return tmp_path / f"{name}.npz"

    return write


def test_folders_packed_images_and_npz_are_measured_alike(classifier, npz, tmp_path):
    real, made = draw(40, seed=1), draw(30, seed=2)
    (tmp_path / "pictures").mkdir()
    for number, image in enumerate(rows(made)):
        Image.fromarray(image).save(tmp_path / "pictures" / f"{number:05}.png")
    write_packed(tmp_path / "packed", "images", [(made, torch.arange(30) % 10)], count=30, source={})
    results = []
    for samples in (npz("made", made), tmp_path / "pictures", tmp_path / "packed"):
        output = tmp_path / "result.json"
        assert evaluate(classifier, "--samples", samples, "--reference", npz("real", real), "--output", output) == 0
        result = json.loads(output.read_text())
        assert result.pop("about")["samples"] == str(samples)
        results.append({key: value for key, value in result.items() if key != "accuracy"})
    assert results[0] == results[1] == results[2]


def test_saved_statistics_are_a_reference(classifier, npz, tmp_path, capsys):
    real, made, saved = npz("real", draw(40, seed=1)), npz("made", draw(30, seed=2)), tmp_path / "statistics.npz"
    assert evaluate(classifier, "--samples", real, "--save-statistics", saved) == 0
    assert f"{saved}: statistics of {real}, 40 images" in capsys.readouterr().out
    results = []
    for reference in (real, saved):
        assert evaluate(classifier, "--samples", made, "--reference", reference, "--output", tmp_path / "r.json") == 0
        results.append(json.loads((tmp_path / "r.json").read_text()))
        results[-1].pop("about")
    assert results[0] == results[1]


def test_statistics_of_an_unknown_number_of_images_are_saved_without_one(classifier, tmp_path, capsys):
    _, extractor = classifier
    stored, saved = tmp_path / "stored.npz", tmp_path / "saved.npz"
    moments = Moments(None, torch.zeros(64, dtype=torch.float64), torch.eye(64, dtype=torch.float64))
    Statistics(extractor.name, extractor.sha256, moments).save(stored)
    assert evaluate(classifier, "--samples", stored, "--save-statistics", saved) == 0
    assert capsys.readouterr().out == f"{saved}: statistics of {stored}\n"


def test_real_against_real(classifier, npz, tmp_path):
    real = npz("real", draw(40, seed=1))
    assert evaluate(classifier, "--samples", real, "--reference", real, "--output", tmp_path / "r.json") == 0
    result = json.loads((tmp_path / "r.json").read_text())
    assert -1e-9 <= result["frechet"] <= 1e-9
    assert -1e-9 <= result["spatial_frechet"] <= 1e-9
    assert (result["precision"], result["recall"]) == (1, 1)


def test_kid(classifier, npz, tmp_path, monkeypatch):
    monkeypatch.setattr("selftrans.evaluation.kid.SUBSETS", 2)  # all 100 take ten seconds
    real, made = draw(1000, seed=1, size=8), draw(1001, seed=2, size=8)
    extractor = Extractor(SmallClassifier(classes=3, size=8), "judge")
    extractor.save(tmp_path / "e.safetensors")
    files = ["--samples", npz("made", made), "--reference", npz("real", real), "--output", tmp_path / "r.json"]
    assert evaluate([tmp_path / "e.safetensors"], *files, "--kid") == 0
    pools = [features_of(extractor, images)[0] for images in (made, real)]
    second = kid_features_to_metric(*pools, kid_subsets=2, kid_subset_size=1000, verbose=False)
    assert json.loads((tmp_path / "r.json").read_text())["kid"] == second[KEY_METRIC_KID_MEAN]


def test_warnings_reach_the_user(classifier, npz):
    """Few samples, copies of one, labels in order."""
    made = draw(1, seed=2).repeat(5001, 1, 1, 1)
    samples = npz("made", made, arr_1=np.arange(5001) // 2500)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert evaluate(classifier, "--samples", samples, "--reference", npz("real", draw(20, seed=1))) == 0
    text = " ".join(str(warning.message) for warning in caught)
    for words in ("20 rows for 64 dimensions", "zero variance", "100.0% of the samples occur", "sorted by class"):
        assert words in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "evaluate what? Name either RUN@EPOCH, or --samples PATH and --reference PATH"),
        (["plain@8", "--samples", "x.npz"], "evaluate what?"),
        (["--samples", "x.npz"], "--reference: missing"),
        (["--samples", "z.npz", "--reference", "y.npz"], "z.npz: no such file or folder"),  # without fetching weights
        (["--samples", "x.npz", "--save-statistics", "y.npz", "--kid"], "--reference: missing"),
        (["--samples", "x.npz", "--reference", "y.npz", "--extractor", "z"], "z: no such file"),
        (["--samples", "x.npz", "--reference", "y.npz", "--extractor", "z", "--weights", "w"], "--weights: they are"),
        (["--samples", "x.npz", "--reference", "y.npz", "--weights", "w.pth"], "w.pth: no such file; Inception's"),
        (["plain@8", "--kid"], "--kid: only with --samples PATH, see selftrans evaluate --help"),
        (["plain@8", "--output", "r.json"], "--output: only with --samples PATH"),
        (["plain@8", "--extractor", "inception"], "--extractor: only with --samples PATH"),
        (["plain@8", "--weights", "w.pth"], "--weights: only with --samples PATH"),
        (["plain@8", "--reference", "y.npz"], "--reference: only with --samples PATH"),
        (["plain@8", "--save-statistics", "y.npz"], "--save-statistics: only with --samples PATH"),
        (["--samples", "x.npz", "--reference", "y.npz", "--preset", "headline"], "--preset: only with RUN@EPOCH"),
        (["--samples", "x.npz", "--reference", "y.npz", "--expect", "me"], "--expect: only with RUN@EPOCH"),
        (["--samples", "x.npz", "--reference", "y.npz", "--seed", "0"], "--seed: only with RUN@EPOCH"),
    ],
)
def test_a_mistake_ends_in_a_sentence(npz, tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    npz("x", draw(5, seed=1))
    npz("y", draw(5, seed=2))
    assert main(["evaluate", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_too_few_samples_for_a_distance(classifier, npz, capsys):
    files = ["--samples", npz("made", draw(1, seed=1)), "--reference", npz("real", draw(20, seed=1))]
    assert evaluate(classifier, *files) == 2
    assert "made.npz: a covariance needs at least 2 rows" in capsys.readouterr().err


def test_too_few_samples_for_recall(classifier, npz, capsys):
    files = ["--samples", npz("made", draw(3, seed=1)), "--reference", npz("real", draw(20, seed=1))]
    with pytest.warns(UserWarning, match=r"no precision and recall: sample features: .* at least k\+1 = 4 rows, got 3"):
        assert evaluate(classifier, *files) == 0
    shown = capsys.readouterr().out
    assert "3 samples, 20 reference images" in shown
    assert "recall" not in shown


@pytest.fixture
def two_sets(npz):
    """--samples whose images are damaged, so that who looks at them fails, and --reference."""
    samples, reference = npz("made", draw(20, seed=1)), npz("real", draw(20, seed=2))
    damaged = bytearray(samples.read_bytes())
    damaged[1000] ^= 1
    samples.write_bytes(damaged)
    return ["--samples", samples, "--reference", reference]


@pytest.mark.parametrize("option", ["--output", "--save-statistics"])
@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("folder", "folder is a folder; name a file in it"),
        ("file.txt/result", "file.txt/result cannot be written (File exists); name another file"),
        (f"{'long' * 99}/result", "cannot be written (File name too long)"),
        ("/proc/result", "/proc/result cannot be written ("),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_first(classifier, two_sets, tmp_path, capsys, option, path, words):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.txt").write_text("in the way")
    assert evaluate(classifier, *two_sets, option, tmp_path / path) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {option}: ")
    assert words in error


def test_missing_samples_are_refused_before_the_reference_is_looked_at(classifier, two_sets, tmp_path, capsys):
    _, damaged, *_ = two_sets
    assert evaluate(classifier, "--samples", tmp_path / "none.npz", "--reference", damaged) == 2
    assert f"error: {tmp_path / 'none.npz'}: no such file or folder" in capsys.readouterr().err


def test_too_few_images_for_kid_are_refused_first(classifier, two_sets, npz, tmp_path, capsys):
    _, made, _, real = two_sets
    assert evaluate(classifier, *two_sets, "--kid") == 2
    assert f"error: --kid: {made} gives 20 rows of features, fewer than the 1000" in capsys.readouterr().err
    many = npz("many", draw(1000, seed=1))
    assert evaluate(classifier, "--samples", many, "--reference", made, "--kid") == 2
    assert f"error: --kid: {made} gives 20 rows" in capsys.readouterr().err
    stored = tmp_path / "statistics.npz"
    assert evaluate(classifier, "--samples", real, "--save-statistics", stored) == 0
    moments = tmp_path / "moments.npz"
    np.savez(moments, mu=np.zeros(64), sigma=np.eye(64))
    for reference, rows in ((stored, 20), (moments, 0)):
        assert evaluate(classifier, "--samples", many, "--reference", reference, "--kid") == 2
        assert f"error: --kid: {reference} gives {rows} rows" in capsys.readouterr().err


def test_a_wrong_reference_is_refused_before_the_samples_are_looked_at(classifier, npz, tmp_path, capsys):
    (tmp_path / "moved.npz").write_text("moved permanently")
    files = ["--samples", npz("made", draw(20, seed=1)), "--reference", tmp_path / "moved.npz"]
    assert evaluate(classifier, *files) == 2
    error = capsys.readouterr().err
    assert "moved.npz: truncated, damaged or no npz" in error
    assert "made.npz" not in error
