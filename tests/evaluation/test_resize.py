"""TensorFlow 1's resizing: the rule spelt out, and torch-fidelity's, bit for bit."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from selftrans.evaluation.resize import resize_bilinear


def draw(*shape):
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def restated(image, size):
    """Pixel by pixel in float32: the source of pixel i is i·H/size, clamped at the far edge."""
    height, width, channels = image.shape
    result = np.empty((size, size, channels), np.float32)
    for row in range(size):
        y = np.float32(row) * np.float32(height / size)
        low, high = int(y), min(int(y) + 1, height - 1)
        for column in range(size):
            x = np.float32(column) * np.float32(width / size)
            left, right = int(x), min(int(x) + 1, width - 1)
            pixels = image.astype(np.float32)
            above = pixels[low, left] + (pixels[low, right] - pixels[low, left]) * (x - np.float32(left))
            below = pixels[high, left] + (pixels[high, right] - pixels[high, left]) * (x - np.float32(left))
            result[row, column] = above + (below - above) * (y - np.float32(low))
    return result


@pytest.mark.parametrize(("height", "width", "size"), [(8, 8, 13), (13, 7, 9), (5, 5, 5), (1, 1, 4), (2, 30, 11)])
def test_the_rule_spelt_out(height, width, size):
    image = draw(1, 3, height, width)
    found = resize_bilinear(image, size)[0].permute(1, 2, 0).numpy()
    assert np.array_equal(found, restated(image[0].permute(1, 2, 0).numpy(), size))


@settings(deadline=None, max_examples=20)
@given(height=st.integers(1, 600), width=st.integers(1, 600), size=st.sampled_from([299, 64]))
def test_torch_fidelitys_bit_for_bit(height, width, size):
    images = draw(2, 3, height, width)
    second = interpolate_bilinear_2d_like_tensorflow1x(images.float(), size=(size, size), align_corners=False)
    found = resize_bilinear(images, size)
    assert torch.equal(found, second)
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("size", [32, 64, 256, 299, 512])
def test_torch_fidelitys_at_the_sizes_of_the_field(size):
    images = draw(2, 3, size, size)
    second = interpolate_bilinear_2d_like_tensorflow1x(images.float(), size=(299, 299), align_corners=False)
    assert torch.equal(resize_bilinear(images, 299), second)


def test_nothing_changes_at_the_size_itself():
    images = draw(2, 3, 299, 299)
    assert torch.equal(resize_bilinear(images, 299), images.float())


def test_the_layout_in_memory_does_not_matter():
    images = draw(2, 3, 20, 30)
    assert torch.equal(
        resize_bilinear(images.contiguous(memory_format=torch.channels_last), 64), resize_bilinear(images, 64)
    )
