"""Statistics: what is saved is read back, what others saved is understood, what is damaged is refused by name."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from selftrans.errors import UserError
from selftrans.evaluation.extractors import Extractor, SmallClassifier
from selftrans.evaluation.features import INCEPTION, Features
from selftrans.evaluation.images import open_images
from selftrans.evaluation.statistics import Statistics, statistics_of


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


def rewrite(path, **changes):
    with np.load(path) as file:
        arrays = dict(file) | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


def test_made_from_batches(reference):
    batch = Features(pool=normal(40, 6), spatial=normal(40, 9, seed=1), logits=normal(40, 3, seed=2))
    batches = map(Features, *(tensor.split(7) for tensor in (batch.pool, batch.spatial, batch.logits)))
    streamed = Statistics.gather(batches, "digits-classifier", "ab" * 32)
    assert torch.equal(streamed.features, batch.pool)
    assert torch.equal(streamed.pool.covariance, reference.pool.covariance)
    torch.testing.assert_close(streamed.spatial.mean, batch.spatial.double().mean(dim=0))
    torch.testing.assert_close(streamed.spatial.covariance, torch.cov(batch.spatial.double().T))


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
    with pytest.raises(UserError, match=r"reference\.npz: truncated, damaged or no npz.*make it again"):
        Statistics.load(path)


def test_a_flipped_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"reference\.npz: truncated, damaged or no npz"):
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
    with pytest.raises(UserError, match=r"reference\.npz: truncated, damaged or no npz"):
        Statistics.load(path)


def test_a_single_array(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(UserError, match=r"reference\.npz"):
        Statistics.load(path)


@pytest.mark.parametrize("key", ["mu", "sigma", "sigma_s"])
def test_a_key_is_missing(path, key):
    rewrite(path, **{key: None})
    with pytest.raises(UserError, match=rf"reference\.npz: not statistics of images \(it has no '{key}'"):
        Statistics.load(path)


@pytest.mark.parametrize("key", ["extractor", "extractor_sha256"])
def test_nobody_knows_the_extractor(path, key):
    rewrite(path, **{key: None})
    with pytest.raises(UserError, match=r"reference\.npz: .*does not name an extractor"):
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
        ({"mu": np.full(6, np.nan)}, "the mean holds NaN"),
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
        ({"features": np.full((40, 6), np.inf)}, "row 0 holds NaN or infinity"),
    ],
)
def test_contents_that_cannot_be(path, changes, message):
    rewrite(path, **changes)
    with pytest.raises(UserError, match=rf"reference\.npz: .*{message}"):
        Statistics.load(path)


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
    return statistics_of(path, extractor(name), open_images)


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
        statistics_of(tmp_path / "images.npz", small, open_images)


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
    with pytest.raises(UserError, match=r"nowhere\.npz: no such file or folder"):
        read(tmp_path / "nowhere.npz")
