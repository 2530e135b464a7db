"""Principal components as colours: joint, with signs that no basis changes."""

import numpy as np
import pytest

from selftrans.reporting.figures.components import brightness, colours, components

N, GRID, D = 30, 4, 12


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.fixture
def images():
    return np.random.default_rng(1).integers(256, size=(N, 3, 16, 16)).astype(np.uint8)


def tokens(seed=0):
    """Features with a few strong directions, at (N, 16, D)."""
    return noise(N, GRID * GRID, D, seed=seed) * np.geomspace(5, 0.1, D) + 3


def rotation(seed=0):
    return np.linalg.qr(noise(D, D, seed=seed))[0]


def test_components_are_those_of_the_covariance(images):
    """Of one panel, against the eigenvectors of its covariance; signs apart."""
    x = tokens()
    (found,) = components([x], images)
    centred = (x - x.mean(axis=0)).reshape(-1, D)
    vectors = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :3]
    expected = centred @ vectors
    for mine, theirs in zip(found.reshape(-1, 3).T, expected.T, strict=True):
        assert abs(np.corrcoef(mine, theirs)[0, 1]) == pytest.approx(1)
        assert np.std(mine) == pytest.approx(1)


@pytest.mark.parametrize("change", ["flip", "rotate", "scale", "places"])
def test_the_basis_of_the_features_does_not_matter(change, images):
    x = tokens()
    changed = {
        "flip": -x,
        "rotate": x @ rotation(),
        "scale": 100 * x,
        "places": x + 50 * noise(1, GRID * GRID, D, seed=5),  # what all images have at a place
    }[change]
    np.testing.assert_allclose(components([x], images)[0], components([changed], images)[0], atol=1e-6)


def test_components_grow_with_brightness(images):
    (found,) = components([tokens()], images)
    bright = brightness(images, GRID * GRID)
    assert all((bright * found[:, :, component]).sum() > 0 for component in range(3))


def test_panels_that_are_compared_share_their_components(images):
    """What is strong in one panel and weak in the other stays so; each alone would be turned to its own axes."""
    first, second = (noise(N, GRID * GRID, D, seed=seed) * 0.1 for seed in (0, 1))
    first[..., 3] *= 100
    second[..., 7] *= 100
    second[..., 5] *= 50  # so that its strongest is less of its variance
    joint = [np.square(x).mean(axis=(0, 1)) for x in components([first, second], images)]
    assert joint[0][0] > 1.9 > 0.1 > joint[1][0]  # the first component is the first panel's
    assert joint[1][1] > 1.9 > 0.1 > joint[0][1]
    for x in (first, second):
        np.testing.assert_allclose(np.square(components([x], images)[0]).mean(axis=(0, 1)), 1)


def test_equal_panels_have_equal_colours_whatever_their_size(images):
    x = tokens()
    one, other = components([x, 7 * x], images)
    np.testing.assert_allclose(one, other, atol=1e-9)


def test_brightness_is_the_mean_under_a_token():
    images = np.zeros((2, 3, 8, 8), np.uint8)
    images[0, :, 2:4, 4:6] = 100  # row 1, column 2 of a grid of 4
    found = brightness(images, tokens=16)
    assert found[0].reshape(4, 4)[1, 2] == 50  # 100 against 0 of the other image
    assert found[1].reshape(4, 4)[1, 2] == -50
    assert np.count_nonzero(found) == 2


def test_colours_are_grey_at_zero_and_in_range():
    assert (colours(np.zeros((1, 4, 3))) == 0.5).all()
    found = colours(10 * noise(5, 16, 3))
    assert found.shape == (5, 4, 4, 3)
    assert (found.min(), found.max()) == (0, 1)


def test_each_component_has_its_own_colour_contrast():
    """The first changes all channels alike, the second yellow against blue, the third red against green."""
    light, yellow, red = (colours(0.5 * np.eye(3)[[i]][:, None])[0, 0, 0] - 0.5 for i in range(3))
    assert np.ptp(light) == pytest.approx(0)
    assert yellow[0] == pytest.approx(yellow[1])
    assert yellow[0] > 0 > yellow[2]
    assert red[0] > 0 > red[1]
    assert red[2] == pytest.approx(0)
    assert light @ yellow == pytest.approx(0)
    assert light @ red == pytest.approx(0)
