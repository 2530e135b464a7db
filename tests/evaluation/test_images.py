"""Images that others made: read in order and whole, or refused with the reason."""

import json
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from selftrans.errors import UserError
from selftrans.evaluation.images import arrays_in, open_images


def pixels(count=11, height=4, width=5, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)


def everything(path, batch_size):
    return torch.cat(list(open_images(path).split(batch_size))).permute(0, 2, 3, 1).numpy()


def assert_flipped_bit_is_noticed(whole, bit, path, given, expected):
    """``path`` gets the bytes ``whole`` but for a bit; ``given`` then reads as the pixels expected, or is refused."""
    data = bytearray(whole)
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
    try:
        found = everything(given, 4)
    except UserError as error:
        assert str(path) in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert np.array_equal(found, expected)


@pytest.fixture
def npz(tmp_path):
    np.savez(tmp_path / "samples.npz", arr_0=pixels())
    return tmp_path / "samples.npz"


# ------------------------------------------------------------------------------------------------------- npz


@pytest.mark.parametrize("batch_size", [1, 4, 11, 100])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arr_0_comes_in_order_whatever_the_batch_size(tmp_path, batch_size, save):
    save(tmp_path / "samples.npz", arr_0=pixels())
    assert len(open_images(tmp_path / "samples.npz")) == 11
    assert np.array_equal(everything(tmp_path / "samples.npz", batch_size), pixels())


def test_batches_are_as_networks_take_them(npz):
    batch = next(open_images(npz).split(4))
    assert (batch.shape, batch.dtype) == ((4, 3, 4, 5), torch.uint8)
    assert batch[3, 2, 1, 4] == pixels()[3, 1, 4, 2]


def test_reading_twice_gives_the_same(npz):
    images = open_images(npz)
    first, second = (torch.cat(list(images.split(3))) for _ in range(2))
    assert torch.equal(first, second)


def test_one_batch_at_a_time_is_in_memory(tmp_path):
    np.savez(tmp_path / "many.npz", arr_0=np.zeros((400, 64, 64, 3), np.uint8))  # 4.9 MB
    tracemalloc.start()
    for _ in open_images(tmp_path / "many.npz").split(10):  # 0.12 MB
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e6


def test_labels_and_header(tmp_path):
    np.savez(tmp_path / "ours.npz", arr_0=pixels(), arr_1=np.arange(11), header=json.dumps({"run": "plain"}))
    images = open_images(tmp_path / "ours.npz")
    assert images.labels.tolist() == list(range(11))
    assert images.labels.dtype == torch.int64
    assert images.header == {"run": "plain"}
    assert arrays_in(tmp_path / "ours.npz") == {"arr_0", "arr_1", "header"}


def test_without_labels(npz):
    assert open_images(npz).labels is None
    assert open_images(npz).header == {}


def test_fortran_order(tmp_path):
    np.savez(tmp_path / "fortran.npz", arr_0=np.asfortranarray(pixels()))
    assert np.array_equal(everything(tmp_path / "fortran.npz", 4), pixels())


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_versions_of_npy(tmp_path, version):
    with zipfile.ZipFile(tmp_path / "v.npz", "w") as archive, archive.open("arr_0.npy", "w") as member:
        np.lib.format.write_array(member, pixels(), version=version)
    assert np.array_equal(everything(tmp_path / "v.npz", 4), pixels())


def test_version_3_of_npy(tmp_path):
    with zipfile.ZipFile(tmp_path / "v.npz", "w") as archive, archive.open("arr_0.npy", "w") as member:
        np.lib.format.write_array(member, pixels(), version=(3, 0))
    with pytest.raises(UserError, match=r"v\.npz: .*npy version \(3, 0\), expected 1\.0 or 2\.0"):
        open_images(tmp_path / "v.npz")


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (pixels().astype(np.float32) / 255, r"\(11, 4, 5, 3\) float32"),
        (pixels().transpose(0, 3, 1, 2), r"\(11, 3, 4, 5\) uint8"),
        (pixels()[..., :1], r"\(11, 4, 5, 1\) uint8"),
        (pixels()[0], r"\(4, 5, 3\) uint8"),
        (pixels().astype(np.int64), "int64"),
    ],
)
def test_other_arrays_are_refused_and_never_rescaled(tmp_path, array, found):
    np.savez(tmp_path / "other.npz", arr_0=array)
    with pytest.raises(UserError, match=rf"other\.npz: arr_0 is .*{found}.*expected \(N, H, W, 3\) uint8"):
        open_images(tmp_path / "other.npz")


def test_no_images(tmp_path):
    np.savez(tmp_path / "empty.npz", arr_0=pixels(0))
    with pytest.raises(UserError, match=r"empty\.npz: arr_0 holds no images"):
        open_images(tmp_path / "empty.npz")
    np.savez(tmp_path / "stats.npz", mu=np.zeros(3))
    with pytest.raises(UserError, match=r"stats\.npz: no images in it: found mu; expected arr_0"):
        open_images(tmp_path / "stats.npz")


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint16, ">i8"])
def test_labels_of_any_integer_type(tmp_path, dtype):
    np.savez(tmp_path / "labels.npz", arr_0=pixels(), arr_1=np.arange(11).astype(dtype))
    labels = open_images(tmp_path / "labels.npz").labels
    assert (labels.tolist(), labels.dtype) == (list(range(11)), torch.int64)


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.arange(10), r"\(10,\) int64"),
        (np.eye(11, dtype=int), r"\(11, 11\) int64"),
        (np.linspace(0, 1, 11), r"\(11,\) float64"),
        (np.array(["cat"] * 11), r"\(11,\) <U3"),
        (np.array([{"class": 3}] * 11), r"\(11,\) object"),
        (np.array(None), r"\(\) object"),
    ],
)
def test_an_arr_1_that_is_no_labels_is_ignored(tmp_path, array, found):
    np.savez(tmp_path / "other.npz", arr_0=pixels(), arr_1=array)
    with pytest.warns(UserWarning, match=rf"other\.npz: arr_1 is {found}; labels would be 11 integers"):
        images = open_images(tmp_path / "other.npz")
    assert images.labels is None
    assert np.array_equal(torch.cat(list(images.split(4))).permute(0, 2, 3, 1), pixels())


@pytest.mark.parametrize("change", [(b"'shape': (11,)", b"'shape': (10,)"), (b"<i8", b"<f8"), (b"\x05", b"\x06")])
def test_damaged_labels_are_not_taken_for_something_else(tmp_path, change):
    path = tmp_path / "damaged.npz"
    np.savez(path, arr_0=np.zeros((11, 4, 5, 3), np.uint8), arr_1=np.full(11, 5))
    before, labels, after = path.read_bytes().rpartition(b"\x93NUMPY")
    path.write_bytes(before + labels + after.replace(*change, 1))
    with pytest.raises(UserError, match=r"damaged\.npz: truncated, damaged or no npz \(Bad CRC-32"):
        open_images(path)


@pytest.mark.parametrize("share", [0, 0.3, 0.9, 0.999])
def test_a_truncated_npz(npz, share):
    whole = npz.read_bytes()
    npz.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match=r"samples\.npz: truncated, damaged or no npz"):
        everything(npz, 4)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_no_flipped_bit_goes_unnoticed(tmp_path, where, bit):
    path = tmp_path / "flipped.npz"
    np.savez(path, arr_0=pixels())
    whole = path.read_bytes()
    assert_flipped_bit_is_noticed(whole, 8 * int(where * len(whole)) + bit, path, path, pixels())


def test_a_smaller_shape_in_the_header_is_seen(tmp_path):
    """Fewer bytes than are there would be read, and the end, where zip files check themselves, never reached."""
    path = tmp_path / "fewer.npz"
    np.savez(path, arr_0=np.zeros((12, 64, 64, 3), np.uint8))
    path.write_bytes(path.read_bytes().replace(b"'shape': (12, 64, 64, 3)", b"'shape': (10, 64, 64, 3)"))
    with pytest.raises(UserError, match=r"fewer\.npz: truncated, damaged or no npz"):
        everything(path, 4)


def test_a_page_that_says_the_file_has_moved(tmp_path):
    (tmp_path / "moved.npz").write_text("moved permanently")
    with pytest.raises(UserError, match=r"moved\.npz: truncated, damaged or no npz"):
        open_images(tmp_path / "moved.npz")


def test_nothing_there(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such file or folder"):
        open_images(tmp_path / "nowhere")


# ---------------------------------------------------------------------------------------------------- folder


@pytest.fixture
def folder(tmp_path):
    for number, array in enumerate(pixels()):
        place = tmp_path / "images" / f"class-{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(place / f"{number:03}.png")
    (tmp_path / "images" / "notes.txt").write_text("not an image")
    return tmp_path / "images"


def png(depth, rows):
    """A PNG (RGB, nothing else) of 2×1 pixels, which Pillow cannot write with 16 bits."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 2, 1, depth, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"\0" + rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_a_folder_is_read_in_the_order_of_its_paths(folder, batch_size):
    assert len(open_images(folder)) == 11
    assert np.array_equal(everything(folder, batch_size), pixels()[[0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9]])


def test_jpeg(tmp_path):
    grey = np.full((16, 16, 3), 100, np.uint8)
    for name in ("a.jpg", "b.JPEG"):
        Image.fromarray(grey).save(tmp_path / name, quality=95)
    found = everything(tmp_path, 2)
    assert found.shape == (2, 16, 16, 3)
    assert np.abs(found.astype(int) - 100).max() <= 1


def test_files_of_another_size(folder):
    Image.fromarray(pixels(1, 8, 9)[0]).save(folder / "class-1" / "large.png")
    with pytest.raises(UserError, match=r"large\.png: 9×8 pixels, but .*000\.png has 5×4"):
        open_images(folder)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_files_that_are_not_rgb(tmp_path, mode):
    suffix = "jpg" if mode == "CMYK" else "png"
    Image.new(mode, (5, 4)).save(tmp_path / f"other.{suffix}")
    with pytest.raises(UserError, match=rf"other\.{suffix}: its mode is {mode}, expected RGB"):
        open_images(tmp_path)


def test_16_bits(tmp_path):
    path = tmp_path / "deep.png"
    path.write_bytes(png(8, bytes(range(6))))
    assert everything(tmp_path, 1).flatten().tolist() == list(range(6))
    path.write_bytes(png(16, bytes(range(12))))
    with pytest.raises(UserError, match=r"deep\.png: it has 16 bits per channel, expected 8; convert it"):
        open_images(tmp_path)


def test_a_transparent_colour(tmp_path):
    Image.fromarray(pixels(1)[0]).save(tmp_path / "holes.png", transparency=(1, 2, 3))
    with pytest.raises(UserError, match=r"holes\.png: it has transparency \(tRNS\), expected none; convert it"):
        open_images(tmp_path)


def test_a_file_that_is_no_image(folder):
    (folder / "broken.png").write_text("nothing")
    with pytest.raises(UserError, match=r"broken\.png: truncated, damaged or no image"):
        open_images(folder)


def test_a_truncated_file(folder):
    path = folder / "class-0" / "000.png"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"000\.png: truncated, damaged or no image"):
        everything(folder, 4)


def test_no_flipped_bit_of_a_png_goes_unnoticed(tmp_path):
    """Up to the pixels, each bit: for lengths, names and contents, Pillow has exceptions of different kinds."""
    whole = png(8, bytes(range(6)))
    for bit in range(8 * whole.index(b"IDAT") + 32):
        assert_flipped_bit_is_noticed(whole, bit, tmp_path / "flipped.png", tmp_path, np.arange(6).reshape(1, 1, 2, 3))


def test_a_folder_without_images(tmp_path):
    with pytest.raises(UserError, match=r"no images in it; expected \.jpeg, \.jpg, \.png"):
        open_images(tmp_path)
