"""Images straight from files: in order, any range of them, but for those that cannot be read."""

import photos
import pytest
import torch

from selftrans.data.stream import ImageStream
from selftrans.errors import UserError


@pytest.fixture
def files():
    return photos.photos()


def opened(folder, files, **settings):
    return ImageStream(photos.opened(photos.as_folder(folder, files)), "photos", 16, **settings)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_range_is_read_in_order_without_what_is_broken(files, tmp_path, threads):
    files[list(files)[4]] = b"no picture"
    stream = opened(tmp_path, files, threads=threads, max_broken=0.1)
    part = stream.part(range(2, 9))
    assert (len(stream), len(part)) == (12, 7)
    for _ in range(2):
        found = torch.cat(list(part.split(4)))
        expected = [stream.source.read(index) for index in range(2, 9) if index != 4]
        assert torch.equal(found, torch.stack(expected))
        assert [index for index, *_ in part.unreadable] == [4]
    assert stream.made_of(part.unreadable) == {"listing": stream.sha256, "size": [16, 16], "unreadable": [4]}
    assert stream.made_of([]) == {"listing": stream.sha256, "size": [16, 16]}


def test_too_many_unreadable_images_are_refused_with_where_they_lie(files, tmp_path):
    for name in files:
        files[name] = b"no picture"
    stream = opened(tmp_path, files, max_broken=0.2)
    with pytest.raises(UserError, match=r"^photos: 3 of 12 images could not be read \(25.00%\), more than data.max_br"):
        list(stream.part(range(12)).split(4))
    with pytest.raises(UserError, match=r"^photos: none of 12 images could be read"):
        list(opened(tmp_path, files, max_broken=1.0).part(range(12)).split(4))


def test_large_images_come_in_smaller_batches(files, tmp_path, monkeypatch):
    monkeypatch.setattr("selftrans.data.stream.BATCH_BYTES", 5 * 3 * 16 * 16)
    part = opened(tmp_path, files).part(range(12))
    assert [len(batch) for batch in part.split(8)] == [5, 5, 2]
    assert [len(batch) for batch in part.split(4)] == [4, 4, 4]
