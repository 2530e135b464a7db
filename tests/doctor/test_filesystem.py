"""The real file system behaves; others are known by name, and by what they would do."""

import os
import time
from pathlib import Path

import pytest

from selftrans.doctor import filesystem
from selftrans.doctor.filesystem import MOUNTS, behaviour, clocks, file_system, leases, locks, mount_of, names

# Lines as proc_pid_mountinfo(5) has them; a space in a path is \040.
MOUNTINFO = """22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:26 / /dev/shm rw shared:4 - tmpfs tmpfs rw
36 22 0:45 / /home rw,relatime shared:20 - nfs4 store:/export/home rw,vers=4.2,hard
37 36 0:46 / /home/group\\040disk rw - lustre 10.0.0.1@o2ib:/scratch rw,flock
38 22 0:47 / /mnt rw - fuse.sshfs me@there: rw
39 22 0:48 / /mnt rw - overlay overlay rw
"""


@pytest.mark.parametrize(
    ("path", "kind", "is_network"),
    [
        ("/work/results", "ext4", False),
        ("/home/me/results", "nfs4", True),
        ("/home/group disk/results", "lustre", True),
        ("/home2/results", "ext4", False),
        ("/mnt/results", "overlay", False),  # mounted later, over the other
    ],
)
def test_a_path_lies_on_the_innermost_mount(path, kind, is_network):
    found = mount_of(Path(path), MOUNTINFO)
    assert (found.kind, found.is_network) == (kind, is_network)


def test_lines_of_another_form_are_passed_over():
    assert mount_of(Path("/work"), "nonsense\n\n1 2 - \n") is None


def test_this_file_system_will_do(tmp_path):
    before = list(tmp_path.iterdir())
    found = list(file_system(tmp_path / "results", [tmp_path / "results" / "a.safetensors"]))
    assert {finding.level for finding in found} == {"ok"}
    assert list(tmp_path.iterdir()) == before
    assert MOUNTS.exists()
    assert found[0].what.startswith(f"{tmp_path}: on ")


def test_a_clock_that_is_ahead_of_the_files_is_noticed(tmp_path):
    """As if files were dated by a server whose clock is an hour behind, or ahead."""
    for shift in (-3600, 3600):
        scratch = tmp_path / f"{shift}"
        scratch.mkdir()
        found = list(behaviour(scratch, tmp_path, lambda shift=shift: time.time() + shift))
        assert [finding.level for finding in found] == ["warning", "ok", "ok", "ok"]
        assert "by 3600 seconds" in found[0].what
    assert clocks(tmp_path, 1.0).level == "ok"


def test_a_folder_is_held_by_one_alone_and_given_back(tmp_path):
    assert leases(tmp_path / "held", tmp_path).level == "ok"
    assert list((tmp_path / "held").iterdir()) == []


def test_two_that_hold_one_folder_are_wrong(tmp_path, monkeypatch):
    """As on a file system that makes the same file for both."""

    class Anyone:
        def release(self):
            pass

    monkeypatch.setattr(filesystem, "take", lambda *_, **__: Anyone())
    assert leases(tmp_path / "held", tmp_path).level == "wrong"


def test_kernel_locks_are_looked_at_and_not_needed(tmp_path):
    path = tmp_path / "lock"
    path.touch()
    assert str(locks(path, tmp_path)) == f"ok       {tmp_path}: kernel locks are kept on this machine"


def test_names_must_fit_with_what_is_added_while_they_are_written(tmp_path):
    longest = os.pathconf(tmp_path, "PC_NAME_MAX")
    assert list(names(tmp_path, [tmp_path / ("a" * (longest - 64))])) == []
    (found,) = names(tmp_path, [tmp_path / ("a" * (longest - 63))])
    assert (found.level, f"names of {longest + 1} characters" in found.what) == ("wrong", True)
    deep = tmp_path.joinpath(*["folder"] * 700)
    (found,) = names(tmp_path, [deep])
    assert "paths of" in found.what
