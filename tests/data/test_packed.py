import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selftrans.data.packed import Packed, write_packed
from selftrans.errors import UserError

FILES = {"images.npy", "labels.npy", "crc32.npy", "manifest.json"}
ABOUT = {"key": "toy-01234567", "split": "train"}


def rows_and_labels(count, shape=(3, 4, 4), dtype=torch.uint8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(256, (count, *shape), generator=generator)
    return (values - 7.5 if dtype.is_floating_point else values).to(dtype), torch.arange(count) % 5


def write(folder, rows, labels, batch_size=4):
    batches = zip(rows.split(batch_size), labels.split(batch_size), strict=True)
    write_packed(folder, "images", batches, count=len(rows), source={"source": "test"}, about=ABOUT)


def flip(path, position):
    """Flip one bit of a byte counted from the file's end (negative) or start."""
    content = bytearray(path.read_bytes())
    content[position] ^= 0b100
    path.write_bytes(content)


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "train", *rows_and_labels(10))
    return tmp_path / "train"


@settings(deadline=None, max_examples=30)
@given(
    count=st.integers(1, 20),
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    dtype=st.sampled_from([torch.uint8, torch.float32, torch.int64]),
    batch_size=st.integers(1, 25),
    data=st.data(),
)
def test_what_was_written_is_read_in_any_order(tmp_path_factory, count, shape, dtype, batch_size, data):
    folder = tmp_path_factory.mktemp("packed")
    rows, labels = rows_and_labels(count, tuple(shape), dtype)
    write(folder, rows, labels, batch_size)
    packed = Packed(folder, "images")
    assert {path.name for path in folder.iterdir()} == FILES
    assert len(packed) == count
    assert torch.equal(packed.labels, labels)
    indices = torch.tensor(data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=30)))
    read = packed.read(indices)
    assert read.dtype == dtype
    assert torch.equal(read, rows[indices])
    assert torch.equal(torch.cat([batch for batch, _ in packed.batches(3)]), rows)
    assert torch.equal(packed.all()[0], rows)


def test_numpy_reads_the_rows_without_us(folder):
    rows, labels = rows_and_labels(10)
    assert np.array_equal(np.load(folder / "images.npy"), rows.numpy())
    assert np.array_equal(np.load(folder / "labels.npy"), labels.numpy())


def test_a_row_that_was_read_can_be_changed_without_changing_the_file(folder):
    packed = Packed(folder, "images")
    packed.read(torch.tensor([0])).zero_()
    assert torch.equal(packed.read(torch.tensor([0])), rows_and_labels(10)[0][:1])


def test_the_hash_is_that_of_the_contents(tmp_path):
    rows, labels = rows_and_labels(10)
    changed = rows.clone()
    changed[9, 2, 3, 3] ^= 1

    def sha256(name, *arguments):
        write(tmp_path / name, *arguments)
        return Packed(tmp_path / name, "images").sha256

    reference = sha256("reference", rows, labels)
    assert sha256("other batches", rows, labels, 3) == reference
    assert sha256("other row", changed, labels) != reference
    assert sha256("other label", rows, labels.flip(0)) != reference


def test_the_manifest_says_what_and_where_from(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["rows"] == 10
    assert ABOUT.items() <= manifest.items()
    assert manifest["arrays"]["images"]["shape"] == [10, 3, 4, 4]
    assert manifest["arrays"]["images"]["dtype"] == "uint8"
    assert Packed(folder, "images").source == {"source": "test"}


@settings(deadline=None, max_examples=30)
@given(row=st.integers(0, 9), byte=st.integers(0, 47))
def test_a_flipped_byte_names_file_and_row(tmp_path_factory, row, byte):
    folder = tmp_path_factory.mktemp("packed")
    write(folder, *rows_and_labels(10))
    flip(folder / "images.npy", -480 + 48 * row + byte)
    packed = Packed(folder, "images")
    others = [index for index in range(10) if index != row]
    assert torch.equal(packed.read(torch.tensor(others)), rows_and_labels(10)[0][others])
    with pytest.raises(UserError, match=rf"images\.npy: row {row} is damaged.*delete the folder and run"):
        packed.read(torch.tensor([*others, row]))


@pytest.mark.parametrize("name", ["labels.npy", "crc32.npy"])
def test_a_flipped_byte_in_a_small_array_names_the_file(folder, name):
    flip(folder / name, -1)
    with pytest.raises(UserError, match=rf"{name}: altered.*delete the folder and run"):
        Packed(folder, "images")


@pytest.mark.parametrize("name", ["images.npy", "labels.npy", "crc32.npy"])
@pytest.mark.parametrize("missing", [1, 40])
def test_a_truncated_file_is_named(folder, name, missing):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-missing])
    sizes = f"{len(content) - missing} bytes where the manifest says {len(content)}"
    with pytest.raises(UserError, match=rf"{name}: {sizes}; delete the folder and run"):
        Packed(folder, "images")


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(UserError, match=rf"{name}.*delete the folder and run"):
        Packed(folder, "images")


def test_another_kind_of_rows_is_refused(folder):
    with pytest.raises(UserError, match="holds images, labels, crc32, but no moments"):
        Packed(folder, "moments")


@pytest.mark.parametrize(("key", "other"), [("key", "toy-89abcdef"), ("split", "test")])
def test_whole_rows_of_something_else_are_refused(folder, key, other):
    assert len(Packed(folder, "images", ABOUT)) == 10
    found = rf"its {key} is \"{ABOUT[key]}\", expected \"{other}\"; delete the folder"
    with pytest.raises(UserError, match=rf"manifest\.json: not the packed rows asked for: {found}"):
        Packed(folder, "images", ABOUT | {key: other})


def test_a_writer_that_stops_leaves_no_manifest_not_even_the_old_one(folder):
    rows, labels = rows_and_labels(10, seed=1)

    def interrupted():
        yield rows[:4], labels[:4]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_packed(folder, "images", interrupted(), count=10, source={}, about=ABOUT)
    assert {path.name for path in folder.iterdir()} == FILES - {"manifest.json"}
    write(folder, rows, labels)
    assert torch.equal(Packed(folder, "images").all()[0], rows)


def test_too_few_rows_are_refused(tmp_path):
    rows, labels = rows_and_labels(9)
    with pytest.raises(ValueError, match="10 rows were announced, 9 rows and 9 labels came"):
        write_packed(tmp_path, "images", [(rows, labels)], count=10, source={}, about=ABOUT)
    assert not list(tmp_path.iterdir())
