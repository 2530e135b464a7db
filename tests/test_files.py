"""Files are whole or not there, whatever happens to their writer."""

import errno
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from selftrans.errors import UserError
from selftrans.files import append_text, atomic_folder, atomic_path, create_text, file_sha256, write_json, write_text

ROOT = Path(__file__).parent.parent


def start(code: str, *arguments: object) -> subprocess.Popen:
    """A real second process that runs ``code`` (without torch, so it starts at once)."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def dead_pid() -> int:
    """The id of a process that has ended."""
    process = start("")
    process.wait()
    return process.pid


# ---------------------------------------------------------------------------------------------- text, JSON


def test_json_is_readable_and_never_holds_what_is_no_number(tmp_path):
    path = tmp_path / "folder" / "file.json"
    write_json(path, {"Fréchet": [1, 2.5, None]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"Fréchet": [1, 2.5, None]}
    assert "Fréchet" in path.read_text(encoding="utf-8")
    for wrong in (float("nan"), float("inf")):
        with pytest.raises(UserError, match=r"file\.json: not written, since it would hold NaN or infinity"):
            write_json(path, {"frechet": wrong})
    assert json.loads(path.read_text(encoding="utf-8")) == {"Fréchet": [1, 2.5, None]}


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
    dead = tmp_path / f".file.txt.{host}.{dead_pid()}.x1.part"
    living = tmp_path / f".file.txt.{host}.{os.getppid()}.x1.part"
    elsewhere = tmp_path / f".file.txt.{host}2.{dead_pid()}.x1.part"
    other_host = tmp_path / f".file.txt.{host}.cluster.{dead_pid()}.x1.part"
    other_file = tmp_path / f".file.txt2.{host}.{dead_pid()}.x1.part"
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
    write_text(path, "whole")  # the same command again
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


def test_a_folder_that_is_replaced_is_removed_when_the_new_one_is_there(tmp_path, monkeypatch):
    """Not before: a half-removed folder, which whoever is killed would leave, is neither the old one nor the new."""
    path, removed = tmp_path / "folder", []
    rmtree = shutil.rmtree

    def look(folder, **options):
        removed.extend((found.name, (path / "new").exists()) for found in Path(folder).glob("*"))
        rmtree(folder, **options)

    with atomic_folder(path) as part:
        (part / "old").touch()
    monkeypatch.setattr(shutil, "rmtree", look)
    with atomic_folder(path) as part:
        (part / "new").touch()
    assert removed == [("old", True)]
    assert [found.name for found in tmp_path.iterdir()] == ["folder"]


def test_a_file_in_a_folder_in_the_making_is_told_as_the_folder(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, atomic_folder(tmp_path / "folder") as part:
        (part / "missing" / "file").touch()
    assert caught.value.filename == str(tmp_path / "folder")


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


# ------------------------------------------------------------------------------------------- made by one

CREATE = """
import sys
from pathlib import Path
from selftrans.files import create_text

sys.stdin.readline()
print([create_text(Path(sys.argv[1]) / str(number), sys.argv[2]) for number in range(50)])
"""


def test_of_those_who_create_a_file_at_once_one_does(tmp_path):
    processes = [start(CREATE, tmp_path, str(number) * 1000) for number in range(4)]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    made = [json.loads(process.communicate()[0].lower()) for process in processes]
    assert [sum(one) for one in zip(*made, strict=True)] == [1] * 50
    for number, by in enumerate(zip(*made, strict=True)):
        assert (tmp_path / str(number)).read_text() == str(by.index(True)) * 1000
    assert len(list(tmp_path.iterdir())) == 50


def test_a_file_system_without_links_does_too(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert [create_text(tmp_path / "file", text) for text in ("mine", "yours")] == [True, False]
    assert (tmp_path / "file").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1
