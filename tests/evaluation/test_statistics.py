"""Statistics: what is saved is read back, what others saved is understood, what is damaged is refused by name."""

import zipfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from selftrans.artifacts import load_arrays, save_arrays
from selftrans.config.names import INCEPTION
from selftrans.errors import UserError
from selftrans.evaluation import statistics
from selftrans.evaluation.extractors import Extractor, SmallClassifier
from selftrans.evaluation.features import Features
from selftrans.evaluation.result import evaluate
from selftrans.evaluation.statistics import Source, Statistics


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def reference():
    features = Features(pool=normal(40, 6), spatial=normal(40, 9, seed=1), logits=normal(40, 3, seed=2))
    return Statistics.gather([features], "digits-classifier", "ab" * 32)


@pytest.fixture
def path(reference, tmp_path):
    path = tmp_path / "made" / "reference.npz"
    reference.save(path)
    return path


def rewrite(path, about=(), **changes):
    """The file with other contents, whole and sealed; what is None is left out."""
    arrays, header = load_arrays(path, "statistics")
    arrays = {name: np.asarray(array) for name, array in (arrays | changes).items() if array is not None}
    save_arrays(path, "statistics", arrays, {**header, **dict(about)})


def test_made_from_batches(reference):
    batch = Features(pool=normal(40, 6), spatial=normal(40, 9, seed=1), logits=normal(40, 3, seed=2))
    batches = map(Features, *(tensor.split(7) for tensor in (batch.pool, batch.spatial, batch.logits)))
    streamed = Statistics.gather(batches, "digits-classifier", "ab" * 32)
    assert torch.equal(streamed.features, batch.pool)
    assert torch.equal(streamed.pool.covariance, reference.pool.covariance)
    torch.testing.assert_close(streamed.spatial.mean, batch.spatial.double().mean(dim=0))
    torch.testing.assert_close(streamed.spatial.covariance, torch.cov(batch.spatial.double().T))


def batches_of(size, *tensors):
    return map(Features, *(tensor.split(size) for tensor in tensors))


def test_an_extractor_may_have_neither_spatial_features_nor_logits():
    found = Statistics.gather(batches_of(7, normal(40, 6)), "dinov2-l", "ab" * 32, labels=torch.arange(40))
    assert (found.spatial, found.logits.shape) == (None, (40, 0))
    result = evaluate(found, found)
    assert (result.spatial_frechet, result.inception_score, result.accuracy) == (None, None, None)
    assert result.left_out["inception_score"] == result.left_out["accuracy"] == "dinov2-l gives no logits"
    assert (result.precision, result.recall) == (1, 1)


def test_there_and_back(reference, path):
    loaded = Statistics.load(path)
    assert (loaded.extractor, loaded.extractor_sha256) == ("digits-classifier", "ab" * 32)
    assert torch.equal(loaded.features, reference.features)
    assert loaded.features.dtype == torch.float32
    for found, made in (
        (loaded.pool, reference.pool),
        (loaded.spatial, reference.spatial),
    ):
        assert found.count == made.count == 40
        assert torch.equal(found.mean, made.mean)
        assert torch.equal(found.covariance, made.covariance)


def test_moments_have_the_names_of_the_adm_suite(path):
    with np.load(path) as file:
        shapes = {name: file[name].shape for name in ("mu", "sigma", "mu_s", "sigma_s")}
    assert shapes == {"mu": (6,), "sigma": (6, 6), "mu_s": (9,), "sigma_s": (9, 9)}


def test_moments_of_a_larger_set(reference, tmp_path):
    """As in the ADM suite: moments of the whole training set beside the features of a part of it."""
    larger = Statistics(
        reference.extractor, reference.extractor_sha256, reference.pool, reference.spatial, reference.features[:5]
    )
    larger.save(tmp_path / "larger.npz")
    loaded = Statistics.load(tmp_path / "larger.npz")
    assert len(loaded.features) == 5
    assert loaded.pool.count == 40


def test_float32_moments_are_read_as_float64(reference, path):
    rewrite(path, mu=reference.pool.mean.float().numpy())
    moments = Statistics.load(path).pool
    assert moments.mean.dtype == torch.float64
    torch.testing.assert_close(moments.mean, reference.pool.mean, rtol=1e-6, atol=1e-7)


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.npz: no such file"):
        Statistics.load(tmp_path / "nowhere.npz")


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.7, 0.999])
def test_truncated_file(path, share):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match=r"reference\.npz: (truncated or damaged|an empty file).*"):
        Statistics.load(path)


def test_a_flipped_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"reference\.npz: truncated or damaged"):
        Statistics.load(path)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_no_damage_goes_unnoticed(reference, path, where, bit):
    """One bit is flipped anywhere: the file is refused, or it was a bit that nothing depends on."""
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[int(where * len(whole))] ^= 1 << bit
    path.write_bytes(damaged)
    try:
        loaded = Statistics.load(path)
    except UserError:
        pass
    else:
        assert torch.equal(loaded.features, reference.features)
        assert torch.equal(loaded.pool.covariance, reference.pool.covariance)
        assert torch.equal(loaded.spatial.covariance, reference.spatial.covariance)
    finally:
        path.write_bytes(whole)


def test_something_else_entirely(path):
    path.write_text("a page that says the file has moved")
    with pytest.raises(UserError, match=r"reference\.npz: text, where images .* or statistics \(npz\) are wanted"):
        Statistics.load(path)


def test_a_single_array(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(UserError, match=r"reference\.npz: a single array \(\.npy\), where"):
        Statistics.load(path)


@pytest.mark.parametrize("key", ["mu", "sigma", "sigma_s"])
def test_a_key_is_missing(path, key):
    rewrite(path, **{key: None})
    with pytest.raises(UserError, match=rf"reference\.npz: not statistics of images \(it has no '{key}'"):
        Statistics.load(path)


def test_statistics_that_somebody_else_wrote(path, reference):
    np.savez(path, mu=reference.pool.mean, sigma=reference.pool.covariance)
    with pytest.raises(UserError, match=r"reference\.npz: not a file that selftrans wrote"):
        Statistics.load(path)


def test_other_numbers_under_the_same_header_are_refused(path, reference):
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **arrays | {"mu": arrays["mu"] + 1})
    with pytest.raises(UserError, match=r"reference\.npz: altered after it was written"):
        Statistics.load(path)


def test_statistics_of_another_extractor_or_another_kind_are_refused(path):
    rewrite(path, {"key": "judge-0123"})
    assert Statistics.load(path, {"key": "judge-0123"}).count == 40
    with pytest.raises(UserError, match=r'its key is "judge-0123", expected "judge-4567"; make it'):
        Statistics.load(path, {"key": "judge-4567"}, remedy="make it")
    arrays, header = load_arrays(path, "statistics")
    save_arrays(path, "features", arrays, {**header, "kind": "features"})
    with pytest.raises(UserError, match=r"reference\.npz: features, where statistics is wanted"):
        Statistics.load(path)
    with pytest.raises(UserError, match=r"reference\.npz: features, where samples is wanted"):
        Source.open(path)


def test_compressed_arrays_and_forged_sizes_are_refused_before_they_are_made_room_for(path, reference):
    with np.load(path) as file:
        arrays = dict(file)
    np.savez_compressed(path, **arrays | {"features": np.zeros((2000, 2000), np.float32)})
    with pytest.raises(UserError, match=r"\.npy is compressed, which selftrans never does"):
        Statistics.load(path)
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as member:
                if name == "features":
                    layout = {"descr": "<f4", "fortran_order": False, "shape": (10**9, 6)}
                    np.lib.format.write_array_header_1_0(member, layout)
                else:
                    np.lib.format.write_array(member, array)
    with pytest.raises(UserError, match=r"features says that it takes 24000000\d+ bytes, but has 128"):
        Statistics.load(path)


def test_what_may_be_missing(path):
    rewrite(path, features=None, mu_s=None, sigma_s=None, count=None, count_s=None)
    loaded = Statistics.load(path)
    assert (loaded.features, loaded.spatial, loaded.pool.count, loaded.count) == (None, None, None, None)
    loaded.save(path)
    assert Statistics.load(path).pool.mean.equal(loaded.pool.mean)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sigma": np.triu(np.ones((6, 6)))}, "not symmetric"),
        ({"sigma_s": -np.eye(9)}, "negative variance"),
        ({"sigma_s": np.eye(8)}, r"\(9,\) and \(8, 8\)"),
        ({"count": 1}, "at least 2 rows"),
        ({"mu": np.zeros(0)}, r"mu is \(0,\) float64; expected"),
        ({"mu_s": np.zeros(0), "sigma_s": np.zeros((0, 0))}, r"mu_s is \(0,\) float64; expected"),
        ({"sigma_s": np.zeros((0, 0), np.float32)}, r"sigma_s is \(0, 0\) float32; expected"),
        ({"sigma": np.eye(6) * 1j}, r"sigma is \(6, 6\) complex128; expected float16"),
        ({"mu": np.array(list("abcdef"))}, r"mu is \(6,\) <U1; expected float16"),
        ({"count": np.array([40, 40])}, r"count is \(2,\) int64; expected one integer"),
        ({"count_s": 40.5}, r"count_s is \(\) float64; expected one integer"),
        ({"features": np.ones((40, 6), complex)}, r"features is \(40, 6\) complex128; expected"),
        ({"features": np.ones((40, 5))}, r"\(40, 5\) and \(6,\)"),
    ],
)
def test_contents_that_cannot_be(path, changes, message):
    rewrite(path, **changes)
    with pytest.raises(UserError, match=rf"reference\.npz: .*{message}"):
        Statistics.load(path)


def test_nothing_that_is_not_finite_is_written(reference, path):
    before = path.read_bytes()
    features = reference.features.clone()
    features[3, 2] = torch.inf
    with pytest.raises(ValueError, match="row 3 holds NaN or infinity"):
        Statistics(reference.extractor, reference.extractor_sha256, reference.pool, features=features)
    with pytest.raises(UserError, match="not written, since mu holds NaN"):
        rewrite(path, mu=np.full(6, np.nan))
    assert path.read_bytes() == before


def test_a_failed_save_leaves_the_old_file(path, reference):
    before = path.read_bytes()
    broken = Statistics(
        reference.extractor,
        reference.extractor_sha256,
        reference.pool,
        features=reference.features.requires_grad_(),  # numpy refuses it
    )
    with pytest.raises(RuntimeError):
        broken.save(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


# -------------------------------------------------------------------------------- whatever a path names


class Mean(torch.nn.Module):
    """Features that are easy to know: the mean of each channel, and of each channel's first row."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def features(self, images):
        pixels = images.float()
        return Features(pixels.mean(dim=(2, 3)), pixels[:, :, 0].mean(dim=2), pixels[:, :, 0, :2].flatten(1))


def extractor(name=INCEPTION):
    return Extractor(Mean(), name, "cd" * 32, batch_size=7)


def images(count, seed):
    return torch.randint(256, (count, 3, 4, 5), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def rows(images):
    return images.permute(0, 2, 3, 1).numpy()


def read(path, name=INCEPTION):
    return Source.open(path).statistics(extractor(name))


@pytest.fixture
def stored():
    """Moments of a larger set, as ADM's reference has them: float32 means, float64 covariances."""
    pool, spatial = (torch.cov(normal(3, 50, seed=seed).double()).numpy() for seed in (5, 6))
    mean = normal(2, 3, seed=7).numpy()
    return {"mu": mean[0], "sigma": pool, "mu_s": mean[1], "sigma_s": spatial}


def test_images_without_moments(tmp_path):
    np.savez(tmp_path / "images.npz", arr_0=rows(images(20, seed=0)))
    for name in (INCEPTION, "mean"):
        found = read(tmp_path / "images.npz", name)
        expected = images(20, seed=0).float().mean(dim=(2, 3))
        torch.testing.assert_close(found.features, expected)
        torch.testing.assert_close(found.pool.covariance, torch.cov(expected.double().T), rtol=1e-6, atol=1e-6)
        assert (found.extractor, found.pool.count, found.spatial.count, len(found.logits)) == (name, 20, 20, 20)
        assert found.labels is None


def test_labels_of_samples(tmp_path):
    np.savez(tmp_path / "images.npz", arr_0=rows(images(20, seed=0)), arr_1=np.arange(20) % 3)
    assert read(tmp_path / "images.npz").labels.tolist() == [i % 3 for i in range(20)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_stored_moments_are_taken_and_images_are_for_the_features(tmp_path, stored, dtype):
    stored = {name: array.astype(dtype) for name, array in stored.items()}
    np.savez(tmp_path / "virtual.npz", arr_0=rows(images(20, seed=0)), **stored)
    found = read(tmp_path / "virtual.npz")
    for moments, suffix in ((found.pool, ""), (found.spatial, "_s")):
        assert moments.count is None
        assert moments.mean.tolist() == stored[f"mu{suffix}"].astype(np.float64).tolist()
        np.testing.assert_allclose(moments.covariance.numpy(), stored[f"sigma{suffix}"], rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(found.features, images(20, seed=0).float().mean(dim=(2, 3)))


def test_moments_alone(tmp_path, stored):
    """As pytorch-fid and JiT have them."""
    np.savez(tmp_path / "stats.npz", mu=stored["mu"], sigma=stored["sigma"])
    found = read(tmp_path / "stats.npz")
    assert (found.features, found.spatial, found.count) == (None, None, None)
    assert found.extractor_sha256 == "cd" * 32


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rounding_of_float32_makes_no_covariance_asymmetric(tmp_path, stored, dtype):
    sigma = stored["sigma"].astype(np.float32)
    sigma[0, 1] = np.nextafter(sigma[0, 1], np.float32(9))
    sigma = sigma.astype(dtype)
    np.savez(tmp_path / "stats.npz", mu=stored["mu"], sigma=sigma)
    covariance = read(tmp_path / "stats.npz").pool.covariance
    assert torch.equal(covariance, covariance.T)
    sigma[0, 1] *= 1.001
    np.savez(tmp_path / "stats.npz", mu=stored["mu"], sigma=sigma)
    with pytest.raises(UserError, match=r"stats\.npz: the covariance is not symmetric"):
        read(tmp_path / "stats.npz")


def test_moments_of_no_named_extractor_are_inceptions(tmp_path, stored):
    np.savez(tmp_path / "virtual.npz", **stored)
    with pytest.raises(UserError, match=r"virtual\.npz: mu and sigma of an extractor that it does not name.*of mean"):
        read(tmp_path / "virtual.npz", "mean")


def test_moments_of_another_width_than_the_features(tmp_path, stored):
    np.savez(tmp_path / "virtual.npz", arr_0=rows(images(20, seed=0)), mu=np.zeros(2), sigma=np.eye(2))
    with pytest.raises(UserError, match=r"virtual\.npz: .*\(20, 3\) and \(2,\)"):
        read(tmp_path / "virtual.npz")


def test_a_mean_without_a_covariance(tmp_path):
    np.savez(tmp_path / "stats.npz", mu=np.zeros(3))
    with pytest.raises(UserError, match=r"stats\.npz: it has moments, but no 'sigma'"):
        read(tmp_path / "stats.npz")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mu": np.zeros(0), "sigma": np.zeros((0, 0))}, r"mu is \(0,\) float64; expected"),
        ({"sigma_s": np.eye(3) * 1j}, r"sigma_s is \(3, 3\) complex128; expected"),
        ({"count": np.full(3, 50)}, r"count is \(3,\) int64; expected one integer"),
    ],
)
def test_stored_moments_that_cannot_be(tmp_path, stored, changes, message):
    np.savez(tmp_path / "stats.npz", **stored | changes)
    with pytest.raises(UserError, match=rf"stats\.npz: {message}"):
        read(tmp_path / "stats.npz")


def test_images_of_a_size_that_the_extractor_does_not_take(tmp_path):
    np.savez(tmp_path / "images.npz", arr_0=rows(images(20, seed=0)))
    small = Extractor(SmallClassifier(classes=3, size=8), "small")
    with pytest.raises(UserError, match=r"images\.npz: images are 5×4 pixels, but the extractor takes 8×8"):
        Source.open(tmp_path / "images.npz").statistics(small)


def test_one_image(tmp_path):
    np.savez(tmp_path / "one.npz", arr_0=rows(images(1, seed=0)))
    with pytest.raises(UserError, match=r"one\.npz: a covariance needs at least 2 rows, got 1"):
        read(tmp_path / "one.npz")


def test_saved_statistics_are_a_reference_of_their_extractor_only(tmp_path):
    np.savez(tmp_path / "images.npz", arr_0=rows(images(20, seed=0)))
    made = read(tmp_path / "images.npz")
    made.save(tmp_path / "saved.npz")
    again = read(tmp_path / "saved.npz")
    assert torch.equal(again.features, made.features)
    assert torch.equal(again.spatial.covariance, made.spatial.covariance)
    with pytest.raises(UserError, match=r"saved\.npz: statistics of extractor inception-2015-12-05 \(cdcdcdcdcdcd\)"):
        read(tmp_path / "saved.npz", "mean")


def test_nothing_there(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.npz: no such file"):
        read(tmp_path / "nowhere.npz")


# ------------------------------------------------------------------------------- what decides who is who


def test_the_same_images_have_the_same_hash_however_they_are_kept(tmp_path):
    pixels = rows(images(5, seed=0))
    np.savez(tmp_path / "a.npz", arr_0=pixels)
    np.savez_compressed(tmp_path / "b.npz", arr_0=np.asfortranarray(pixels), arr_1=np.arange(5) % 2)
    for number, image in enumerate(pixels):
        (tmp_path / "folder").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "folder" / f"{number}.png")
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        for path in (tmp_path / "folder").iterdir():
            archive.write(path, path.name)
    np.savez(tmp_path / "other.npz", arr_0=pixels[::-1])
    found = {name: read(tmp_path / name).made_of for name in ("a.npz", "b.npz", "folder", "c.zip", "other.npz")}
    assert found["a.npz"]["size"] == [4, 5]
    assert found["a.npz"] == found["folder"] == found["c.zip"]
    assert {**found["b.npz"], "labels": None} == {**found["a.npz"], "labels": None}
    assert found["other.npz"]["images"] != found["a.npz"]["images"]


def test_what_they_are_made_of_is_saved_with_them(tmp_path, stored):
    np.savez(tmp_path / "virtual.npz", arr_0=rows(images(20, seed=0)), arr_1=np.arange(20) % 2, **stored)
    made = read(tmp_path / "virtual.npz")
    assert made.made_of.keys() == {"images", "size", "labels", "moments"}
    assert made.named_extractor is None
    made.save(tmp_path / "saved.npz")
    assert read(tmp_path / "saved.npz").made_of == made.made_of
    stored["mu"] = stored["mu"] + 1
    np.savez(tmp_path / "virtual.npz", arr_0=rows(images(20, seed=0)), arr_1=np.arange(20) % 2, **stored)
    assert read(tmp_path / "virtual.npz").made_of["moments"] != made.made_of["moments"]


@pytest.mark.parametrize("label", [-1, 6])
def test_labels_outside_of_the_classes_are_an_error(tmp_path, label):
    """`Mean` has 6 logits. Inception's classes are not those of labels, so that nothing is known there."""
    np.savez(tmp_path / "images.npz", arr_0=rows(images(20, seed=0)), arr_1=np.full(20, label))
    with pytest.raises(
        UserError, match=rf"images\.npz: 20 labels such as {label} are none of the extractor's 6 classes"
    ):
        read(tmp_path / "images.npz", "mean")
    assert read(tmp_path / "images.npz").count == 20


def samples_of_ours(path, pixels, **header):
    save_arrays(path, "samples", {"arr_0": pixels, "arr_1": np.arange(len(pixels)) % 3}, header)


def test_samples_of_ours_are_compared_with_their_own_hash(tmp_path):
    path, other = tmp_path / "samples.npz", tmp_path / "other.npz"
    samples_of_ours(path, rows(images(20, seed=0)), run="plain")
    assert Source.open(path).images.header["run"] == "plain"
    assert read(path).count == 20
    samples_of_ours(other, rows(images(20, seed=1)), run="other")
    with np.load(path) as first, np.load(other) as second:
        header, swapped = first["header"], dict(second)
    np.savez(path, **swapped | {"header": header})
    with pytest.raises(UserError, match=r"samples\.npz: altered after it was written"):
        read(path)


def test_a_header_of_somebody_else_says_nothing(tmp_path):
    for header in (np.array('{"seed": 3}'), np.array("no JSON"), np.zeros(3), np.array(None)):
        np.savez(tmp_path / "images.npz", arr_0=rows(images(20, seed=0)), header=header)
        assert Source.open(tmp_path / "images.npz").images.header == {}


def test_a_covariance_of_zeros_that_would_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(statistics, "MOMENTS_BYTES", 50_000)
    np.savez_compressed(tmp_path / "stats.npz", mu=np.zeros(100), sigma=np.zeros((100, 100)))  # 1 kB
    with pytest.raises(UserError, match=r"stats\.npz: .*sigma has 80,128 bytes; at most 50,000 are read"):
        read(tmp_path / "stats.npz")
