import pytest
import torch

from selftrans.data.sources import digits
from selftrans.evaluation.extractors import Extractor, SmallClassifier
from selftrans.evaluation.features import Features
from selftrans.fitting import seeded, train_classifier


@pytest.fixture(scope="module")
def trained():
    recipe = {"steps": 200, "batch_size": 64, "learning_rate": 3e-3, "seed": 0, "name": "digit-classifier"}
    network, report = train_classifier(
        lambda: SmallClassifier(classes=10, size=32), digits("train"), digits("test"), **recipe
    )
    return Extractor(network, "digit-classifier"), report


@pytest.fixture(scope="module")
def images():
    return digits("test")[0][:20]


def gather(extractor, images, batch_size):
    batches = list(extractor.extract(images, batch_size))
    return {name: torch.cat([getattr(batch, name) for batch in batches]) for name in ("pool", "spatial", "logits")}


def test_two_hundred_steps_learn_the_digits(trained):
    assert trained[1].test_accuracy >= 0.97


def test_features_do_not_depend_on_the_batch_size(trained, images):
    together, alone = gather(trained[0], images, 20), gather(trained[0], images, 3)
    for name, features in together.items():
        torch.testing.assert_close(features, alone[name])


def test_shapes_and_layers(trained, images):
    extractor, _ = trained
    features = gather(extractor, images, 8)
    assert features["pool"].shape == (20, 64)
    assert features["spatial"].shape == (20, 8 * 8 * 7)
    assert (features["pool"] >= 0).all()
    assert (features["spatial"] >= 0).all()
    torch.testing.assert_close(extractor.network.head(features["pool"]), features["logits"])
    torch.testing.assert_close(extractor.network(images / 127.5 - 1), features["logits"])


def test_spatial_features_run_over_channels_first_then_columns(trained, images):
    network = trained[0].network
    x = images / 127.5 - 1
    middle = network.conv2(network.conv1(x))
    spatial = network.features(images).spatial
    row, column, channel = 5, 2, 6
    assert torch.equal(spatial[:, (row * 8 + column) * 7 + channel], middle[:, channel, row, column])


def test_only_uint8_images_are_taken(trained, images):
    with pytest.raises(ValueError, match="expected"):
        list(trained[0].extract(images.float()))


@pytest.mark.parametrize(("height", "width"), [(16, 16), (64, 64), (64, 16)])  # the last has as many pixels as fit
def test_images_of_another_size_are_refused(trained, height, width):
    images = torch.zeros(2, 3, height, width, dtype=torch.uint8)
    with pytest.raises(ValueError, match=f"images are {width}×{height} pixels, but the extractor takes 32×32"):
        list(trained[0].extract(images))


class Probe(torch.nn.Module):
    """Says what it was allowed to do in the place of a feature."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def features(self, images):
        allowed = torch.backends.cudnn.allow_tf32 or torch.get_float32_matmul_precision() != "highest"
        found = torch.tensor([[float(allowed), float(torch.is_grad_enabled()), float(self.training)]])
        return Features(found, found, found)


def test_no_tf32_no_gradients_and_eval_mode_while_features_are_made(images):
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        before = torch.backends.cudnn.allow_tf32
        found = list(Extractor(Probe().train(), "probe").extract(images, 10))
        assert (torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()) == (before, "high")
    finally:
        torch.set_float32_matmul_precision(precision)
    assert [batch.pool.tolist() for batch in found] == 2 * [[[0, 0, 0]]]


def test_the_layout_in_memory_does_not_matter(trained, images):
    for name, features in gather(trained[0], images.contiguous(memory_format=torch.channels_last), 20).items():
        assert torch.equal(features, gather(trained[0], images, 20)[name])


def test_save_and_load_give_the_same_extractor(trained, images, tmp_path):
    extractor, _ = trained
    assert extractor.save(tmp_path / "extractor.safetensors") == extractor.sha256
    loaded = Extractor.load(tmp_path / "extractor.safetensors")
    assert (loaded.name, loaded.sha256) == ("digit-classifier", extractor.sha256)
    for name, features in gather(loaded, images, 20).items():
        assert torch.equal(features, gather(extractor, images, 20)[name])


def test_other_weights_have_another_hash():
    def sha256(seed):
        with seeded(seed, "extractor"):
            return Extractor(SmallClassifier(classes=3, size=16), "toy").sha256

    assert sha256(0) == sha256(0)
    assert sha256(0) != sha256(1)
