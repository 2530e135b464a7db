"""Images that others made: read in order and whole, or refused with the reason."""

import os
import re
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

from selftrans.artifacts import save_arrays
from selftrans.errors import UserError
from selftrans.evaluation import images as sets
from selftrans.evaluation.images import open_images


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
    save_arrays(tmp_path / "ours.npz", "samples", {"arr_0": pixels(), "arr_1": np.arange(11)}, {"run": "plain"})
    images = open_images(tmp_path / "ours.npz")
    assert images.labels.tolist() == list(range(11))
    assert images.labels.dtype == torch.int64
    assert (images.header["kind"], images.header["run"]) == ("samples", "plain")
    assert np.array_equal(everything(tmp_path / "ours.npz", 4), pixels())


def test_a_header_of_ours_that_was_altered(tmp_path):
    save_arrays(tmp_path / "ours.npz", "samples", {"arr_0": pixels(), "arr_1": np.arange(11)}, {"run": "plain"})
    with np.load(tmp_path / "ours.npz") as file:
        arrays = dict(file)
    np.savez(tmp_path / "ours.npz", **arrays | {"header": str(arrays["header"]).replace("plain", "other")})
    with pytest.raises(UserError, match=r"ours\.npz: altered after it was written"):
        open_images(tmp_path / "ours.npz")


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
    with pytest.raises(UserError, match=r"damaged\.npz: truncated or damaged"):
        open_images(path)


@pytest.mark.parametrize("share", [0, 0.3, 0.9, 0.999])
def test_a_truncated_npz(npz, share):
    whole = npz.read_bytes()
    npz.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match=r"samples\.npz: (truncated or damaged|an empty file, where images)"):
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
    with pytest.raises(UserError, match=r"fewer\.npz: .*arr_0 says that it takes 123008 bytes, but has 147584"):
        everything(path, 4)


def test_a_page_that_says_the_file_has_moved(tmp_path):
    (tmp_path / "moved.npz").write_text("moved permanently")
    with pytest.raises(UserError, match=r"moved\.npz: text, where images .* or statistics \(npz\) are wanted"):
        open_images(tmp_path / "moved.npz")


def test_nothing_there(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such file"):
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
    with pytest.raises(UserError, match=r"broken\.png: text, where PNG or JPEG is wanted; convert it"):
        open_images(folder)


def test_a_truncated_file(folder):
    path = folder / "class-0" / "000.png"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"000\.png: truncated or damaged"):
        everything(folder, 4)


def test_no_flipped_bit_of_a_png_goes_unnoticed(tmp_path):
    """Up to the pixels, each bit: for lengths, names and contents, Pillow has exceptions of different kinds."""
    whole = png(8, bytes(range(6)))
    for bit in range(8 * whole.index(b"IDAT") + 32):
        assert_flipped_bit_is_noticed(whole, bit, tmp_path / "flipped.png", tmp_path, np.arange(6).reshape(1, 1, 2, 3))


def test_a_folder_without_images(tmp_path):
    with pytest.raises(UserError, match=r"no images in it; expected \.jpeg, \.jpg, \.png"):
        open_images(tmp_path)


def test_linked_folders_are_read_and_hidden_ones_are_not(folder, tmp_path):
    more = tmp_path / "elsewhere"
    more.mkdir()
    for number, array in enumerate(pixels(3, seed=1)):
        Image.fromarray(array).save(more / f"{number}.png")
    (folder / "linked").symlink_to(more)
    (more / "up").symlink_to(folder)  # a cycle
    (folder / "one.png").symlink_to(more / "0.png")
    for hidden in (".ipynb_checkpoints/000-checkpoint.png", ".trash/deep/1.png", ".hidden.png"):
        (folder / hidden).parent.mkdir(parents=True, exist_ok=True)
        (folder / hidden).write_text("never looked at")
    images = open_images(folder)
    assert images.folders == {"class-0": 6, "class-1": 5, "linked": 3, ".": 1}
    assert str(images) == "15 images of 5×4 pixels, of class-0 (6), class-1 (5), linked (3), . (1)"
    assert np.array_equal(everything(folder, 4)[11:14], pixels(3, seed=1))


def test_a_message_names_a_few_folders_only(tmp_path):
    for number in range(50):
        (tmp_path / f"{number:02}").mkdir()
        Image.fromarray(pixels()[0]).save(tmp_path / f"{number:02}" / "a.png")
    assert str(open_images(tmp_path)).endswith("of 00 (1), 01 (1), 02 (1), 03 (1), 04 (1) and 45 more")


OTHERS = {
    "GIF": "a GIF picture",
    "WEBP": "a WebP picture",
    "TIFF": "a TIFF picture",
    "BMP": "a BMP picture",
    "EPS": "PostScript",
    "PDF": "a PDF document",
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_format_under_the_name_of_a_png_is_told_what_it_is(folder, name):
    """No program is started on it, such as Ghostscript on EPS."""
    Image.fromarray(pixels()[0]).save(folder / "other.png", format=name)
    with pytest.raises(UserError, match=rf"other\.png: {OTHERS[name]}, where PNG or JPEG is wanted; convert it"):
        open_images(folder)


def test_an_animated_png(folder):
    frames = [Image.fromarray(array) for array in pixels(3)]
    frames[0].save(folder / "moving.png", save_all=True, append_images=frames[1:])
    with pytest.raises(UserError, match=r"moving\.png: an animated PNG of 3 pictures, expected one"):
        open_images(folder)


@pytest.mark.parametrize(
    ("width", "height"), [(4097, 4096), (12_000, 12_000), (50_000, 50_000), (2**31 - 1, 2**31 - 1)]
)
@pytest.mark.filterwarnings("error")
def test_a_picture_that_would_fill_the_memory_is_refused_by_its_header(tmp_path, width, height):
    whole = png(8, bytes(6))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    forged = b"IHDR" + header
    (tmp_path / "bomb.png").write_bytes(whole[:12] + forged + struct.pack(">I", zlib.crc32(forged)) + whole[33:])
    with pytest.raises(UserError, match=r"bomb\.png: .*pixels; at most 16,777,216 \(4096×4096\) are decoded"):
        open_images(tmp_path)


def test_a_pipe_is_not_waited_for_and_a_broken_link_is_told(folder):
    os.mkfifo(folder / "pipe.png")
    with pytest.raises(UserError, match=r"pipe\.png: a pipe, where a file is wanted"):
        open_images(folder)
    (folder / "pipe.png").unlink()
    (folder / "gone.png").symlink_to(folder / "nowhere")
    with pytest.raises(UserError, match=r"gone\.png: no such file"):
        open_images(folder)


def test_a_picture_that_changes_while_it_is_read(folder):
    images = open_images(folder)
    Image.fromarray(pixels(1, 8, 9)[0]).save(folder / "class-0" / "000.png")
    with pytest.raises(UserError, match=r"000\.png: it changed while the others were read"):
        list(images.split(4))


def test_large_files_of_few_pixels_are_not_read(folder):
    with (folder / "class-0" / "000.png").open("ab") as file:
        file.truncate(1 << 27)
    with pytest.raises(UserError, match=r"000\.png: more than 64 MiB"):
        everything(folder, 4)


# ------------------------------------------------------------------------------------------------------- zip


@pytest.fixture
def archive(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "images.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(folder.rglob("*"), reverse=True):
            file.write(path, path.relative_to(folder.parent))
        for hidden in ("__MACOSX/images/._000.png", "images/.hidden.png", ".trash/0.png", "nested.zip"):
            file.writestr(hidden, "never looked at")
    return tmp_path / "images.zip"


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_a_zip_is_read_as_the_folder_that_it_holds(archive, folder, batch_size):
    images = open_images(archive)
    assert images.folders == {"images/class-0": 6, "images/class-1": 5}
    assert np.array_equal(everything(archive, batch_size), everything(folder, 4))
    assert {path.name for path in archive.parent.iterdir()} == {"images", "images.zip"}  # nothing is unpacked


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_no_flipped_bit_of_a_zip_of_pictures_changes_a_pixel(archive, folder, where, bit):
    path = archive.with_name("flipped.zip")
    data = bytearray(archive.read_bytes())
    data[int(where * len(data))] ^= 1 << bit
    path.write_bytes(data)
    try:
        found = everything(path, 4)
    except UserError as error:
        assert str(path) in str(error)  # noqa: PT017 - either outcome is right
    else:  # or a name was hit, or a flag
        whole = {row.tobytes() for row in everything(folder, 4)}
        assert {row.tobytes() for row in found} <= whole


def test_a_zip_of_anything_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "notes.zip", "w") as file:
        for number in range(50_000):
            file.writestr(f"{number}.txt", "")
    with pytest.raises(UserError, match=r"notes\.zip: a zip archive with neither arrays nor pictures") as refused:
        open_images(tmp_path / "notes.zip")
    assert "0.txt, 1.txt, 2.txt, 3.txt, 4.txt and 49,995 more" in str(refused.value)
    assert len(str(refused.value)) < 500


def test_an_npz_of_many_arrays_has_a_short_message(tmp_path):
    np.savez(tmp_path / "many.npz", **{f"a{number:04}": np.zeros(1) for number in range(1000)})
    with pytest.raises(UserError, match=r"many\.npz: no images in it: found a0000, .* and 995 more; expected arr_0"):
        open_images(tmp_path / "many.npz")


def test_a_member_that_says_that_it_is_small(tmp_path):
    """A picture whose 200 MB of zeros are some kilobytes in the archive: no more than its bound is unpacked."""
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as file, file.open("a.png", "w") as member:
        member.write(png(8, bytes(6)))
        for _ in range(200):
            member.write(bytes(1 << 20))
    images = open_images(tmp_path / "bomb.zip")
    tracemalloc.start()
    with pytest.raises(UserError, match=r"bomb\.zip: a\.png: more than 64 MiB"):
        list(images.split(4))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150 << 20


def test_a_locked_member(tmp_path, archive):
    data = bytearray(archive.read_bytes())
    for entry in re.finditer(rb"PK\x01\x02", bytes(data)):
        data[entry.start() + 8] |= 1
    archive.write_bytes(data)
    with pytest.raises(UserError, match="is encrypted"):
        everything(archive, 4)


# ----------------------------------------------------------------------------------------------------- bombs


def write_rows(path, shape, rows):
    """An npz, compressed, whose arr_0 says it has that shape, and has zeros for so many rows."""
    layout = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("arr_0.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, layout)
        for _ in range(rows):
            member.write(bytes(int(np.prod(shape[1:]))))


def test_an_npz_of_images_that_would_fill_the_memory(tmp_path):
    write_rows(tmp_path / "bomb.npz", (1, 4097, 4096, 3), 1)
    tracemalloc.start()
    with pytest.raises(UserError, match=r"bomb\.npz: arr_0: 4096×4097 pixels; at most 16,777,216 \(4096×4096\)"):
        open_images(tmp_path / "bomb.npz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 << 20


@pytest.mark.parametrize("shape", [(10**15, 4, 5, 3), (2, 10**9, 10**9, 3), (-1, 4, 5, 3), (10**12, 0, 5, 3)])
def test_a_forged_shape_takes_no_memory(tmp_path, shape):
    with zipfile.ZipFile(tmp_path / "forged.npz", "w") as archive, archive.open("arr_0.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, {"descr": "|u1", "fortran_order": False, "shape": shape})
        member.write(bytes(120))
    with pytest.raises(UserError, match=r"forged\.npz: .*(says that it takes|holds no images|not valid)"):
        open_images(tmp_path / "forged.npz")


def test_batches_are_bounded_by_bytes_as_well_as_by_count(tmp_path, monkeypatch):
    monkeypatch.setattr(sets, "BATCH_BYTES", 3 * 64 * 64 * 3 + 1)
    np.savez(tmp_path / "large.npz", arr_0=pixels(10, 64, 64))
    assert [len(batch) for batch in open_images(tmp_path / "large.npz").split(256)] == [3, 3, 3, 1]
    monkeypatch.setattr(sets, "BATCH_BYTES", 1)
    assert [len(batch) for batch in open_images(tmp_path / "large.npz").split(256)] == [1] * 10
    assert np.array_equal(everything(tmp_path / "large.npz", 256), pixels(10, 64, 64))


def test_fortran_order_of_many_images_is_refused_since_it_is_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(sets, "WHOLE_BYTES", 600)
    np.savez(tmp_path / "fortran.npz", arr_0=np.asfortranarray(pixels()))
    with pytest.raises(UserError, match=r"fortran\.npz: arr_0 lies in Fortran order .*save it in C order"):
        open_images(tmp_path / "fortran.npz")


def test_labels_and_headers_that_would_fill_the_memory_are_not_read(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", arr_0=pixels(), arr_1=np.zeros(10**7), header=np.array(" " * (5 * 10**6)))
    tracemalloc.start()
    with pytest.warns(UserWarning, match=r"arr_1 is \(10000000,\) float64; labels would be 11 integers"):
        images = open_images(tmp_path / "a.npz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (images.labels, images.header) == (None, {})
    assert peak < 10 << 20
