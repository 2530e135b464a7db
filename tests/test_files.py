"""Files are whole or not there, whatever happens to their writer; what was altered is refused."""

import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from selftrans.errors import UserError
from selftrans.files import (
    append_text,
    atomic_folder,
    atomic_path,
    exclusive,
    file_sha256,
    load_tensors,
    read_json,
    save_tensors,
    tensors_sha256,
    write_json,
    write_text,
)

ROOT = Path(__file__).parent.parent

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


headers = st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers()))


def start(code: str, *arguments: object) -> subprocess.Popen:
    """A real second process that runs ``code`` (without torch, so it starts at once)."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def dead_pid() -> int:
    """The id of a process that has ended."""
    process = start("")
    process.wait()
    return process.pid


# ------------------------------------------------------------------------------------------ tensors


@settings(max_examples=60, deadline=None)
@given(saved=st.dictionaries(st.text("abc.é_", min_size=1), tensors(), max_size=4), header=headers)
def test_tensors_and_header_come_back_as_they_were(tmp_path_factory, saved, header):
    path = tmp_path_factory.mktemp("tensors") / "file.safetensors"
    sha256 = save_tensors(path, saved, header)
    loaded, found = load_tensors(path)
    assert found == {**header, "sha256": sha256}
    assert loaded.keys() == saved.keys()
    for name, tensor in saved.items():
        assert loaded[name].dtype == tensor.dtype
        assert loaded[name].shape == tensor.shape
        assert torch.equal(loaded[name], tensor)


def test_transposed_and_trainable_tensors_are_saved_by_value(tmp_path):
    weight = torch.arange(6.0).reshape(2, 3).T.requires_grad_()
    save_tensors(tmp_path / "file", {"weight": weight}, {})
    assert torch.equal(load_tensors(tmp_path / "file")[0]["weight"], weight)


def test_sha256_of_tensors_sees_name_type_shape_and_value_but_not_their_order():
    one, two = torch.zeros(2), torch.ones(3)
    assert tensors_sha256({"a": one, "b": two}) == tensors_sha256({"b": two, "a": one})
    others = [{"a": two, "b": one}, {"a": one, "c": two}, {"a": one.int(), "b": two}, {"a": one[None], "b": two}]
    others += [{"a": one, "b": two * 2}, {"a": one}, {}]
    assert len({tensors_sha256(other) for other in [{"a": one, "b": two}, *others]}) == len(others) + 1


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A small file of `save_tensors` and what it holds."""
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    save_tensors(path, {"a": torch.arange(6.0), "b": torch.tensor([True, False])}, {"step": 640})
    return path, path.read_bytes()


@settings(max_examples=150, deadline=None)
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_changes_nothing(weights, where, bit):
    """Also in the header, which says what run and step the weights are of."""
    path, content = weights
    altered = bytearray(content)
    altered[int(where * len(content))] ^= 1 << bit
    copy = path.with_name("altered.safetensors")
    copy.write_bytes(altered)
    try:
        found, header = load_tensors(copy)
    except UserError as error:
        assert str(copy) in str(error)  # noqa: PT017 - either outcome is right
    else:
        original, original_header = load_tensors(path)
        assert header == original_header
        assert tensors_sha256(found) == tensors_sha256(original)


@pytest.mark.parametrize("kept", [0, 4, 50, -1])
def test_a_truncated_file_is_refused(weights, kept):
    path, content = weights
    copy = path.with_name("truncated.safetensors")
    copy.write_bytes(content[:kept])
    with pytest.raises(UserError, match=r"truncated\.safetensors: truncated or damaged"):
        load_tensors(copy)


def test_a_safetensors_file_of_others_is_refused(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "foreign", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"foreign: a safetensors file, but not one that selftrans wrote"):
        load_tensors(tmp_path / "foreign")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: no such file"):
        load_tensors(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"nowhere: no such file"):
        read_json(tmp_path / "nowhere")


# --------------------------------------------------------------------------------------- text, JSON


def test_json_comes_back_and_broken_json_is_named(tmp_path):
    path = tmp_path / "folder" / "file.json"
    write_json(path, {"Fréchet": [1, 2.5, None]})
    assert read_json(path) == {"Fréchet": [1, 2.5, None]}
    assert "Fréchet" in path.read_text(encoding="utf-8")
    for broken in (b'{"a": 1', b"", b"\xff\xfe"):
        path.write_bytes(broken)
        with pytest.raises(UserError, match=r"file\.json: not valid JSON"):
            read_json(path)


def test_file_sha256_is_that_of_its_bytes(tmp_path):
    """Known from FIPS 180-2: SHA-256 of "abc"."""
    (tmp_path / "abc").write_bytes(b"abc")
    assert file_sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


# ------------------------------------------------------------------------------------------- atomic


def write_half_of(path):
    with atomic_path(path) as part:
        part.write_text("half of the new")
        raise ValueError("unwritable")


def test_a_failed_writer_leaves_nothing_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with pytest.raises(ValueError, match="unwritable"):
        write_half_of(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_appears_only_when_it_is_whole(tmp_path):
    path = tmp_path / "a" / "b" / "file.txt"
    with atomic_path(path) as part:
        assert part.parent == path.parent
        part.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_a_reader_of_the_old_file_is_not_disturbed(tmp_path):
    """The new file takes the old one's name; it is not written into it."""
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with path.open() as reader:
        write_text(path, "new")
        assert reader.read() == "old"
    assert path.read_text() == "new"


def test_temporary_files_of_the_dead_are_removed_and_of_the_living_kept(tmp_path):
    host = socket.gethostname()
    dead = tmp_path / f".file.txt.{host}.{dead_pid()}.part"
    living = tmp_path / f".file.txt.{host}.{os.getppid()}.part"
    elsewhere = tmp_path / f".file.txt.{host}2.{dead_pid()}.part"
    other_host = tmp_path / f".file.txt.{host}.cluster.{dead_pid()}.part"
    other_file = tmp_path / f".file.txt2.{host}.{dead_pid()}.part"
    for part in (dead, living, elsewhere, other_host, other_file):
        part.touch()
    write_text(tmp_path / "file.txt", "new")
    expected = {living, elsewhere, other_host, other_file, tmp_path / "file.txt"}
    assert set(tmp_path.iterdir()) == expected


def test_links_under_names_that_could_be_guessed_are_not_written_through(tmp_path):
    host, victim = socket.gethostname(), tmp_path / "victim"
    victim.write_text("precious")
    for name in (".file.part", "file.part", f".file.{host}.{os.getpid()}.part", f".file.{host}.{dead_pid()}.part"):
        (tmp_path / name).symlink_to(victim)
    write_text(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "new"
    assert victim.read_text() == "precious"


WRITE_HALF = """
import sys, time
from pathlib import Path
from selftrans.files import atomic_path

with atomic_path(Path(sys.argv[1])) as part, part.open("wb") as file:
    file.write(bytes(1000))
    file.flush()
    print("half", flush=True)
    time.sleep(60)
"""


def test_a_writer_killed_in_mid_write_leaves_nothing_under_the_final_name(tmp_path):
    path = tmp_path / "weights.safetensors"
    with start(WRITE_HALF, path) as writer:
        assert writer.stdout.readline() == "half\n"
        (part,) = tmp_path.iterdir()
        assert part.stat().st_size == 1000
        writer.kill()
    assert list(tmp_path.iterdir()) == [part]
    save_tensors(path, {"a": torch.zeros(2)}, {})  # the same command again
    assert list(tmp_path.iterdir()) == [path]


def fill_as_torch_does(path, error):
    with atomic_path(path) as part:
        part.write_bytes(bytes(2**16))
        raise error


@pytest.mark.parametrize("error", [RuntimeError("file write failed"), OSError("8 requested and 0 written")])
def test_a_reason_that_a_library_keeps_to_itself_is_asked_for_again(tmp_path, error):
    """A limit of the size of files stands for a disk that is full; what fails for another reason stays as it is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(type(error), match=str(error)):
        fill_as_torch_does(tmp_path / "file", error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**17, hard))
    try:
        with pytest.raises(OSError, match="File too large") as refused:
            fill_as_torch_does(tmp_path / "file", error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert refused.value.filename == str(tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_text_is_added_to_a_file_of_our_own_only(tmp_path):
    path = tmp_path / "log"
    for line in ("one\n", "é\n"):
        append_text(path, line)
    assert path.read_text(encoding="utf-8") == "one\né\n"
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(OSError, match="link"):
        append_text(tmp_path / "link", "three\n")
    assert path.read_text(encoding="utf-8") == "one\né\n"


# ------------------------------------------------------------------------------------ atomic folders


def test_a_folder_is_replaced_only_when_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a" / "folder"
    for content in ("old", "new"):
        with atomic_folder(path) as part:
            (part / content).touch()
            assert part.parent == path.parent
            assert not (path / content).exists()
        assert [found.name for found in path.iterdir()] == [content]
    with pytest.raises(ZeroDivisionError), atomic_folder(path) as part:
        raise ZeroDivisionError
    assert [found.name for found in path.rglob("*")] == ["new"]
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("plant", [Path.touch, os.mkfifo, lambda path: path.symlink_to(path.parent)])
def test_nothing_but_a_folder_is_replaced_by_a_folder(tmp_path, plant):
    plant(tmp_path / "folder")
    with (
        pytest.raises(UserError, match=r"folder: a (file|pipe|link), where a folder is wanted"),
        atomic_folder(tmp_path / "folder"),
    ):
        raise AssertionError("nothing is written")


def test_temporary_folders_of_the_dead_are_removed(tmp_path):
    dead = tmp_path / f".folder.{socket.gethostname()}.{dead_pid()}.x.part"
    (dead / "inside").mkdir(parents=True)
    with atomic_folder(tmp_path / "folder"):
        assert not dead.exists()


# ---------------------------------------------------------------------------------------- exclusive

HOLD = """
import sys, time
from pathlib import Path
from selftrans.files import exclusive

with exclusive(Path(sys.argv[1]), "sit-b2"):
    print("mine", flush=True)
    time.sleep(60 if sys.argv[2] == "hold" else 0)
"""


def test_a_second_process_waits_until_the_first_is_killed(tmp_path):
    """The sentence names the holder; SIGKILL, after which nothing can tidy up, releases the folder."""
    with start(HOLD, tmp_path, "hold") as first:
        assert first.stdout.readline() == "mine\n"
        with start(HOLD, tmp_path, "go") as second:
            expected = f"sit-b2 is held by process {first.pid} on {socket.gethostname()}; waiting\n"
            assert second.stdout.readline() == expected
            assert second.poll() is None
            first.send_signal(signal.SIGKILL)
            assert second.stdout.readline() == "mine\n"
            assert second.wait() == 0


def test_a_folder_is_free_again_after_its_owner_ends_or_fails(tmp_path, capsys):
    with pytest.raises(ZeroDivisionError), exclusive(tmp_path / "new", "run"):
        raise ZeroDivisionError
    with exclusive(tmp_path / "new", "run"):
        assert f"process {os.getpid()}" in (tmp_path / "new" / "lock").read_text()
    assert capsys.readouterr().out == ""
