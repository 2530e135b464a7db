"""Files that say what they are come back as they were, or are refused with a sentence that says why."""

import json
import os
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from selftrans.artifacts import (
    Stream,
    arrays_header,
    load_arrays,
    load_tensors,
    read_record,
    save_arrays,
    save_tensors,
    seal,
    tensors_header,
    tensors_sha256,
    write_record,
)
from selftrans.errors import UserError

DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int8,
    torch.uint8,
    torch.bool,
]
ABOUT = {"run": "plain-s0-0a1b2c3d", "step": 640, "window": (0.0, 0.5), "name": "Fréchet"}
TENSORS = {"a": torch.arange(6.0), "b": torch.tensor([True, False])}
ARRAYS = {"a": np.arange(6.0), "b": np.array([[3], [4]], np.uint8)}
FORMS = ["record", "tensors", "arrays"]


def write(form, path, about=ABOUT, kind="thing"):
    """A file of each form, with the same things said of it."""
    match form:
        case "record":
            write_record(path, kind, {**about, "a": list(range(6))})
        case "tensors":
            save_tensors(path, kind, TENSORS, about)
        case "arrays":
            save_arrays(path, kind, ARRAYS, about)


def read(form, path, expected=None, kind="thing", **more):
    """(what is in it, what is said of it), as plain values that can be compared."""
    if form == "record":
        return {}, read_record(path, kind, expected, **more)
    load = load_tensors if form == "tensors" else load_arrays
    found, header = load(path, kind, expected, **more)
    return {name: (str(value.dtype), value.tolist()) for name, value in found.items()}, header


@st.composite
def tensors(draw):
    """A tensor of any type and shape, empty and 0-dimensional ones included, with any bytes as values."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    values = torch.randint(-100, 100, shape, generator=generator)
    if dtype is torch.bool:
        return values > 0
    return (values / 3).to(dtype) if dtype.is_floating_point else values.to(dtype)


def cut(array, size):
    """An array as blocks of ``size`` rows."""
    return Stream(array.shape, array.dtype, (array[at : at + size] for at in range(0, len(array), size)))


names = st.text("abc.é_", min_size=1)
values = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers())
headers = st.dictionaries(st.text(), values).map(lambda found: {f"of {key}": value for key, value in found.items()})


# ----------------------------------------------------------------------------------------------- round trips


@settings(max_examples=60, deadline=None)
@given(saved=st.dictionaries(names, tensors(), max_size=4), about=headers)
def test_tensors_and_header_come_back_as_they_were(tmp_path_factory, saved, about):
    path = tmp_path_factory.mktemp("tensors") / "file.safetensors"
    sha256 = save_tensors(path, "weights", saved, about)
    loaded, found = load_tensors(path, "weights", about)
    assert found == tensors_header(path, "weights") == {"kind": "weights", **about, "sha256": sha256}
    assert loaded.keys() == saved.keys()
    for name, tensor in saved.items():
        assert loaded[name].dtype == tensor.dtype
        assert loaded[name].shape == tensor.shape
        assert torch.equal(loaded[name], tensor)


@settings(max_examples=60, deadline=None)
@given(saved=st.dictionaries(names, tensors(), max_size=4), about=headers, size=st.integers(1, 3))
def test_arrays_and_header_come_back_as_they_were_however_they_are_cut(tmp_path_factory, saved, about, size):
    """In one piece, block by block, and in numpy's own eyes."""
    folder = tmp_path_factory.mktemp("arrays")
    arrays = {name: value.numpy() for name, value in saved.items() if value.dtype is not torch.bfloat16}
    streams = {name: cut(array, size) if array.ndim else array for name, array in arrays.items()}
    sha256 = save_arrays(folder / "whole.npz", "samples", arrays, about)
    assert save_arrays(folder / "streamed.npz", "samples", streams, about) == sha256
    assert (folder / "whole.npz").read_bytes() == (folder / "streamed.npz").read_bytes()
    loaded, found = load_arrays(folder / "whole.npz", "samples", about)
    assert found == arrays_header(folder / "whole.npz", "samples") == {"kind": "samples", **about, "sha256": sha256}
    with np.load(folder / "streamed.npz") as numpys:
        assert set(numpys.files) == {*arrays, "header"}
        for name, array in arrays.items():
            for other in (loaded[name], numpys[name]):
                assert other.dtype == array.dtype
                assert other.shape == array.shape
                assert np.array_equal(other, array)


@given(about=headers)
def test_a_record_comes_back_as_it_was(tmp_path_factory, about):
    path = tmp_path_factory.mktemp("records") / "file.json"
    write_record(path, "metrics", about)
    assert read_record(path, "metrics", about) == {"kind": "metrics", **about}


def test_transposed_and_trainable_tensors_are_saved_by_value(tmp_path):
    weight = torch.arange(6.0).reshape(2, 3).T.requires_grad_()
    save_tensors(tmp_path / "file", "weights", {"weight": weight}, {})
    assert torch.equal(load_tensors(tmp_path / "file", "weights")[0]["weight"], weight)


def test_sha256_of_tensors_sees_name_type_shape_and_value_but_not_their_order():
    one, two = torch.zeros(2), torch.ones(3)
    assert tensors_sha256({"a": one, "b": two}) == tensors_sha256({"b": two, "a": one})
    others = [{"a": two, "b": one}, {"a": one, "c": two}, {"a": one.int(), "b": two}, {"a": one[None], "b": two}]
    others += [{"a": one, "b": two * 2}, {"a": one}, {}]
    assert len({tensors_sha256(other) for other in [{"a": one, "b": two}, *others]}) == len(others) + 1


def test_sha256_of_arrays_sees_name_type_shape_and_value(tmp_path):
    one, two = np.zeros(2), np.ones(3)
    others = [{"a": two, "b": one}, {"a": one, "c": two}, {"a": one.astype(int), "b": two}, {"a": one[None], "b": two}]
    others += [{"a": one, "b": two * 2}, {"a": one}, {}]
    found = {save_arrays(tmp_path / "file", "thing", other, {}) for other in [{"a": one, "b": two}, *others]}
    assert len(found) == len(others) + 1


# ------------------------------------------------------------------------------------------- not written


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_not_written_and_what_was_there_stays(tmp_path, wrong):
    for form in FORMS:
        write(form, tmp_path / form)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    words = "not written, since .* NaN or infinity"
    with pytest.raises(UserError, match=f"record: {words}"):
        write_record(tmp_path / "record", "thing", {"frechet": [1.0, {"value": wrong}]})
    for dtype in (torch.float32, torch.bfloat16):
        with pytest.raises(UserError, match=f"tensors: {words}: the training has diverged"):
            save_tensors(tmp_path / "tensors", "thing", {"a": torch.tensor([1.0, wrong], dtype=dtype)}, {})
    with pytest.raises(UserError, match=f"arrays: {words}"):
        save_arrays(tmp_path / "arrays", "thing", {"a": np.array([1.0, wrong])}, {})
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("blocks", [[], [np.zeros(2)], [np.zeros(2), np.zeros(2)]], ids=len)
def test_blocks_that_do_not_add_up_leave_no_file(tmp_path, blocks):
    with pytest.raises(ValueError, match=rf"{2 * len(blocks)} numbers came for a of shape \(3,\)"):
        save_arrays(tmp_path / "file.npz", "thing", {"a": Stream((3,), np.dtype(float), blocks)}, {})
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------- whole but other


@pytest.mark.parametrize("form", FORMS)
def test_a_file_of_something_else_is_refused_with_what_differs(tmp_path, form):
    path = tmp_path / "file"
    write(form, path)
    assert read(form, path, ABOUT) == read(form, path)
    for key, other in {"run": "plain-s1-0a1b2c3d", "step": 80, "window": (0.0, 1.0), "seed": 0}.items():
        found = "null" if key == "seed" else json.dumps(ABOUT[key])
        with pytest.raises(UserError) as refused:
            read(form, path, {**ABOUT, key: other}, remedy="do something")
        words = f"not the thing asked for: its {key} is {found}, expected {json.dumps(other)}; do something"
        assert str(refused.value) == f"{path}: {words}"
    with pytest.raises(UserError) as refused:
        read(form, path, kind="other")
    assert str(refused.value) == f"{path}: thing, where other is wanted; delete it and run the same command again"


@pytest.mark.parametrize("form", FORMS)
def test_the_headers_of_tensors_and_arrays_are_refused_likewise(tmp_path, form):
    header = {"record": read_record, "tensors": tensors_header, "arrays": arrays_header}[form]
    write(form, tmp_path / "file")
    for wrong in ({"kind": "other"}, {"kind": "thing", "expected": {"step": 80}}):
        with pytest.raises(UserError, match="file: "):
            header(tmp_path / "file", **wrong)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("other", FORMS)
def test_a_file_of_another_form_is_refused(tmp_path, form, other):
    write(other, tmp_path / "file")
    if form != other:
        with pytest.raises(UserError, match="file: truncated or damaged"):
            read(form, tmp_path / "file")


@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_is_not_ours_is_refused(tmp_path, form):
    path = tmp_path / "file"
    match form:
        case "record":
            path.write_text(json.dumps(ABOUT))
        case "tensors":
            save_file({"a": torch.zeros(2)}, path, metadata={"format": "pt"})
        case "arrays":
            with path.open("wb") as file:
                np.savez(file, **ARRAYS)
    with pytest.raises(UserError, match=r"file: not a file that selftrans wrote \(it does not say what it is\)"):
        read(form, path)


def test_a_long_value_is_cut_in_the_message(tmp_path):
    write_record(tmp_path / "file", "thing", {"recipe": list(range(10**5))})
    with pytest.raises(UserError) as refused:
        read_record(tmp_path / "file", "thing", {"recipe": list(range(10**5, 0, -1))})
    assert len(str(refused.value)) < 800


# ------------------------------------------------------------------------------------------------- damaged


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A file of each form, and what is in it."""
    folder = tmp_path_factory.mktemp("files")
    for form in FORMS:
        write(form, folder / form)
    return {form: ((folder / form).read_bytes(), read(form, folder / form)) for form in FORMS}


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=100, deadline=None)
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_changes_nothing(tmp_path_factory, files, form, where, bit):
    """Also in the header, which says what run and step a file is of."""
    content, expected = files[form]
    altered = bytearray(content)
    altered[int(where * len(content))] ^= 1 << bit
    path = tmp_path_factory.mktemp("altered") / "file"
    path.write_bytes(altered)
    try:
        found = read(form, path)
    except UserError as error:
        text = str(error)  # either outcome is right
        assert text.startswith(f"{path}: ")
        assert len(text) < len(str(path)) + 300
    else:
        assert found == expected


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kept", [0, 1, 4, 50, 0.5, -1])
def test_a_truncated_file_is_refused(tmp_path, files, form, kept):
    content, _ = files[form]
    if (form, kept) == ("record", -1):
        kept = -2  # its last byte is the end of the line
    (tmp_path / "file").write_bytes(content[: int(kept * len(content)) if kept == 0.5 else kept])
    with pytest.raises(UserError, match=r"file: truncated or damaged .*; delete it and run the same command again"):
        read(form, tmp_path / "file")


@pytest.mark.parametrize("form", FORMS)
def test_what_a_file_says_of_itself_cannot_be_edited_by_hand(tmp_path, form):
    """The same length, and for arrays with the archive's own checksums put right."""
    path = tmp_path / "file"
    write(form, path)
    if form == "arrays":
        with np.load(path) as file:
            members = dict(file)
        members["header"] = np.array(str(members["header"]).replace("640", "641"))
        with path.open("wb") as file:
            np.savez(file, **members)
    else:
        path.write_bytes(path.read_bytes().replace(b"640", b"641"))
    with pytest.raises(UserError, match="file: altered after it was written"):
        read(form, path)


@pytest.mark.parametrize("form", ["tensors", "arrays"])
def test_other_content_under_the_same_header_is_refused(tmp_path, form):
    path = tmp_path / "file"
    write(form, path)
    if form == "arrays":
        with np.load(path) as file:
            members = dict(file)
        members["a"] = members["a"] + 1
        with path.open("wb") as file:
            np.savez(file, **members)
    else:
        header = {**tensors_header(path, "thing")}
        sealed = seal(header.pop("kind"), header)
        save_file(TENSORS | {"a": TENSORS["a"] + 1}, path, {"header": json.dumps(sealed)})
    with pytest.raises(UserError, match=r"file: altered after it was written \(its SHA-256 is another\)"):
        read(form, path)


@pytest.mark.parametrize("text", ["[" * 10**5, '{"a":' * 10**5, "1" * 10**4, "null", "[]", '"kind"', "\ud800"])
def test_json_of_another_structure_is_refused(tmp_path, text):
    (tmp_path / "file").write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(UserError, match=r"file: (truncated or damaged|not a file that selftrans wrote)") as refused:
        read_record(tmp_path / "file", "thing")
    assert len(str(refused.value)) < len(str(tmp_path)) + 300


def test_an_arrays_header_that_does_not_end_is_refused(tmp_path):
    """Large enough for numpy to read it before the archive's own checksum is compared."""
    path = tmp_path / "file.npz"
    save_arrays(path, "thing", {"a": np.zeros(1000)}, ABOUT)
    content = path.read_bytes()
    assert b"(1000,), }" in content
    path.write_bytes(content.replace(b"(1000,), }", b"(1000,(, }"))
    with pytest.raises(UserError, match=r"file\.npz: truncated or damaged"):
        load_arrays(path, "thing")


def test_an_array_that_claims_to_be_larger_than_memory_is_refused(tmp_path):
    path = tmp_path / "file.npz"
    layout = {"descr": "<f8", "fortran_order": False, "shape": (10**15,)}
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("a.npy", "header.npy"):
            with archive.open(name, "w") as file:
                np.lib.format.write_array_header_1_0(file, layout)
    with pytest.raises(UserError, match=r"file\.npz: truncated or damaged"):
        load_arrays(path, "thing")


# --------------------------------------------------------------------------------------------- no such file


@pytest.mark.parametrize("form", FORMS)
def test_what_is_no_file_is_named(tmp_path, form):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    words = {"nowhere": "no such file", "dangling": "no such file", "folder": "a folder, where a file is wanted"}
    for name, reason in {**words, "pipe": "a pipe, where a file is wanted"}.items():
        with pytest.raises(UserError) as refused:
            read(form, tmp_path / name)
        assert str(refused.value) == f"{tmp_path / name}: {reason}"


@pytest.mark.parametrize("form", FORMS)
def test_what_is_no_file_is_not_replaced(tmp_path, form):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(victim)
    for name, kind in {"folder": "a folder", "pipe": "a pipe", "link": "a link"}.items():
        with pytest.raises(UserError, match=rf"{name}: {kind}, which nothing here replaces"):
            write(form, tmp_path / name)
    assert victim.read_text() == "precious"
    assert {path.name for path in tmp_path.iterdir()} == {"victim", "folder", "pipe", "link"}


@pytest.mark.parametrize("form", FORMS)
def test_a_link_to_a_file_is_read(tmp_path, form):
    write(form, tmp_path / "file")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read(form, tmp_path / "link") == read(form, tmp_path / "file")


@pytest.mark.parametrize("form", FORMS)
def test_what_the_system_refuses_stays_what_it_is(tmp_path, form):
    """A name that is too long stands for every reason that is not the file's own; one place makes sentences of them."""
    with pytest.raises(OSError, match="File name too long"):
        read(form, tmp_path / ("x" * 300))


def test_arrays_that_would_swell_are_not_read(tmp_path):
    """A file of 20 kB that holds 20 MB of zeros: what selftrans writes is never compressed."""
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, arr_0=np.zeros(20_000_000, np.uint8), header=json.dumps(seal("samples", {})))
    with pytest.raises(UserError, match="compressed, which selftrans never does"):
        load_arrays(path, "samples")
