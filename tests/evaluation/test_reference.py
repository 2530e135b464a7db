"""References in blocks: those of one piece, however many jobs made them, of what can be read."""

import numpy as np
import photos
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from selftrans.artifacts import load_arrays, save_arrays
from selftrans.data.packed import Packed
from selftrans.data.packing import Work, pack_images
from selftrans.data.pixels import from_uint8
from selftrans.data.stream import ImageStream
from selftrans.errors import UserError
from selftrans.evaluation import reference
from selftrans.evaluation.extractors import Extractor
from selftrans.evaluation.features import Features
from selftrans.evaluation.images import packed_images
from selftrans.evaluation.reference import PackedListing, ReferenceWriter
from selftrans.evaluation.statistics import Source


class Colours(nn.Module):
    """Mean colour and one pixel's; how many images were shown is counted."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.shown = 0

    def features(self, images):
        self.shown += len(images)
        x = self.weight * from_uint8(images)
        return Features(torch.cat([x.mean(dim=(2, 3)), x[:, :, 0, 0]], dim=1), x[:, 0, 0])


@pytest.fixture
def extractor():
    return Extractor(Colours(), "colours", "ab" * 32, batch_size=3)


@pytest.fixture
def files():
    return photos.photos()


@pytest.fixture
def blocks_of(monkeypatch):
    """Have so many images to a block, and keep so many rows."""

    def patch(size, rows=100):
        monkeypatch.setattr(reference, "BLOCK", size)
        monkeypatch.setattr(reference, "ROWS", rows)

    return patch


def stream(folder, files, max_broken=0.2, **changes):
    return ImageStream(photos.opened(photos.as_folder(folder, files)), "photos", 16, max_broken=max_broken, **changes)


def packed(images, folder):
    work = Work(max_broken=images.max_broken)
    rows: Packed = pack_images(images.source, folder, about={}, size=4, work=work)
    return PackedListing(rows, rows.sha256)


def made(writer):
    writer.make()
    return writer.gather()


def assert_same(found, expected):
    """To the last bit."""
    assert torch.equal(found.features, expected.features)
    for a, b in ((found.pool, expected.pool), (found.spatial, expected.spatial)):
        assert a.count == b.count
        assert torch.equal(a.mean, b.mean)
        assert torch.equal(a.covariance, b.covariance)


@pytest.mark.parametrize("broken", [(), (0,), (4, 11)])
@pytest.mark.parametrize("threads", [1, 3])
def test_one_block_is_what_evaluate_makes_of_the_packed_images(extractor, files, tmp_path, broken, threads):
    for number in broken:
        files[list(files)[number]] = b"no picture"
    images = stream(tmp_path / "photos", files, threads=threads)
    listing = packed(images, tmp_path / "packed")
    expected = Source(listing.packed.folder, packed_images(listing.packed)).statistics(extractor)
    found, unreadable = made(ReferenceWriter(tmp_path / "work", images, extractor, "key"))
    assert_same(found, expected)
    assert found.pool.count == 12 - len(broken)
    assert unreadable == listing.packed.unreadable
    left_out = {"unreadable": list(broken)} if broken else {}
    assert found.made_of == {"listing": images.source.sha256, "size": [16, 16], **left_out}
    found, unreadable = made(ReferenceWriter(tmp_path / "other", listing, extractor, "key"))
    assert_same(found, expected)
    assert (found.made_of, unreadable) == (expected.made_of, [])


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
@pytest.mark.parametrize("is_packed", [True, False])
def test_any_number_of_jobs_makes_the_same_bits(extractor, files, tmp_path, blocks_of, parts, is_packed):
    blocks_of(4, rows=5)
    images = stream(tmp_path / "photos", files)
    images = packed(images, tmp_path / "packed") if is_packed else images
    alone = ReferenceWriter(tmp_path / "alone", images, extractor, "key")
    assert len(alone) == 3
    expected, _ = made(alone)
    writer = ReferenceWriter(tmp_path / "work", images, extractor, "key")
    for part in reversed(range(1, parts + 1)):
        writer.make(part, parts)
    extractor.network.shown = 0
    assert_same(made(writer)[0], expected)
    assert extractor.network.shown == 0  # there was nothing left to do
    blocks_of(100)
    whole, _ = made(ReferenceWriter(tmp_path / "whole", images, extractor, "key"))
    torch.testing.assert_close(expected.pool.covariance, whole.pool.covariance, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(expected.spatial.mean, whole.spatial.mean, rtol=1e-12, atol=1e-14)
    assert torch.equal(expected.features, whole.features[[0, 2, 4, 7, 9]])


def test_who_goes_on_makes_what_is_missing_damaged_or_of_something_else(extractor, files, tmp_path, blocks_of):
    blocks_of(4)
    images = stream(tmp_path / "photos", files)
    writer = ReferenceWriter(tmp_path / "work", images, extractor, "key")
    expected, _ = made(writer)
    first, second, third = sorted(writer.folder.iterdir())
    first.unlink()
    second.write_bytes(second.read_bytes()[:700])
    arrays, header = load_arrays(third, reference.KIND)
    save_arrays(third, reference.KIND, arrays, header | {"extractor_sha256": "cd" * 32})
    assert [number in writer for number in range(3)] == [False, False, False]
    assert_same(made(writer)[0], expected)
    extractor.network.shown = 0
    third.unlink()
    writer.make(1, 2)
    assert extractor.network.shown == 4  # the first and third block are those of part 1
    other = ReferenceWriter(tmp_path / "work", images, Extractor(Colours(), "colours", "ef" * 32), "key")
    assert [number in other for number in range(3)] == [False, False, False]


def test_a_block_that_was_altered_is_refused(extractor, files, tmp_path, blocks_of):
    blocks_of(4)
    writer = ReferenceWriter(tmp_path / "work", stream(tmp_path / "photos", files), extractor, "key")
    writer.make()
    path = writer.folder / "block-00001.npz"
    arrays, header = load_arrays(path, reference.KIND)
    np.savez(path, **{**arrays, "pool_sum": arrays["pool_sum"] + 1}, header=np.load(path)["header"])
    with pytest.raises(UserError, match=r"block-00001\.npz: altered after it was written .*; delete it and run the sa"):
        writer.gather()
    save_arrays(path, reference.KIND, {"features": arrays["features"], "pool_count": np.array(3)}, header)
    with pytest.raises(UserError, match=r"block-00001\.npz: truncated or damaged"):
        writer.gather()


class Numbers(nn.Module):
    """The red of the first pixel."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def features(self, images):
        return Features(images[:, 0, :, 0].float())


class Numbered:
    """As packed images: image i is of one pixel, of colour i."""

    def __init__(self, count):
        self.labels = torch.zeros(count, dtype=torch.long)

    def __len__(self):
        return len(self.labels)

    def batches(self, batch_size, indices=None):
        wanted = torch.arange(len(self)) if indices is None else torch.tensor(indices)
        for batch in wanted.split(batch_size):
            yield batch.to(torch.uint8).view(-1, 1, 1, 1).repeat(1, 3, 1, 1), self.labels[batch]


@settings(deadline=None, max_examples=50)
@given(count=st.integers(2, 50), share=st.floats(0, 1), size=st.integers(5, 60))
def test_no_row_is_kept_twice_or_left_out(tmp_path_factory, count, share, size):
    rows = max(1, int(share * count))
    extractor, images = Extractor(Numbers(), "numbers", "ab" * 32), PackedListing(Numbered(count), "ab" * 32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "BLOCK", size)
        patch.setattr(reference, "ROWS", rows)
        found, _ = made(ReferenceWriter(tmp_path_factory.mktemp("work"), images, extractor, "key"))
    kept = found.features.flatten().int().tolist()
    assert len(kept) == rows
    assert kept == sorted(set(kept))
    gaps = np.diff([*kept, count])
    assert (kept[0], gaps.max() - gaps.min() <= 1) == (0, True)
    assert found.pool.count == count
    assert found.pool.mean.item() == pytest.approx((count - 1) / 2)


@pytest.mark.parametrize("size", [3, 100])
def test_too_many_unreadable_images_are_refused_with_where_they_lie(extractor, files, tmp_path, blocks_of, size):
    blocks_of(size, rows=5)
    names = list(files)
    for number in (4, 7):
        files[names[number]] = b"no picture"
    said = r"^photos: 2 of 12 images could not be read \(16.67%\), more than data.max_broken allows"
    images = stream(tmp_path / "photos", files, max_broken=0.1)
    with pytest.raises(UserError, match=said):
        ReferenceWriter(tmp_path / "work", images, extractor, "key").make()
    for part in (1, 2, 3, 4):  # each may think that it is the only one
        ReferenceWriter(tmp_path / "allowed", stream(tmp_path / "photos", files), extractor, "key").make(part, 4)
    with pytest.raises(UserError, match=said):
        ReferenceWriter(tmp_path / "allowed", images, extractor, "key").gather()
    for name in names:
        files[name] = b"no picture"
    with pytest.raises(UserError, match=r"^photos: none of 12 images could be read"):
        made(ReferenceWriter(tmp_path / "none", stream(tmp_path / "photos", files, 1.0), extractor, "key"))


def test_a_block_of_nothing_but_broken_images_and_one_image_left(extractor, files, tmp_path, blocks_of):
    blocks_of(4, rows=5)
    names = list(files)
    for name in names[4:8]:
        files[name] = b"no picture"
    found, unreadable = made(
        ReferenceWriter(tmp_path / "work", stream(tmp_path / "photos", files, 0.5), extractor, "key")
    )
    assert (found.pool.count, found.spatial.count, len(found.features)) == (
        8,
        8,
        3,
    )  # 4 and 7 of 0, 2, 4, 7, 9 are gone
    assert [index for index, *_ in unreadable] == [4, 5, 6, 7]
    for name in names[1:]:
        files[name] = b"no picture"
    writer = ReferenceWriter(tmp_path / "one", stream(tmp_path / "photos", files, 1.0), extractor, "key")
    with pytest.raises(ValueError, match="a covariance needs at least 2 rows, got 1"):
        made(writer)


def test_features_that_are_not_finite_are_refused_with_their_row(extractor, files, tmp_path, blocks_of):
    blocks_of(4)
    writer = ReferenceWriter(tmp_path / "work", stream(tmp_path / "photos", files), extractor, "key")
    writer.make(1, 3)
    extractor.network.weight.data.fill_(torch.nan)
    with pytest.raises(ValueError, match="pool features: row 4 holds NaN"):
        writer.make(2, 3)
    assert [path.name for path in writer.folder.iterdir()] == ["block-00000.npz"]
