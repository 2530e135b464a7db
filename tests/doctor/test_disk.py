"""Room on the real file system; and where it may be mounted, on a small one."""

import os
import subprocess

import pytest

from selftrans.doctor.disk import disk, existing, inodes, room


@pytest.mark.parametrize(
    ("free", "level"), [(2 * 10**9, "ok"), (1_200_000_000, "ok"), (1_100_000_000, "warning"), (900_000_000, "wrong")]
)
def test_what_is_written_must_find_room_and_leave_some(tmp_path, free, level):
    assert room(tmp_path, 10**9, free).level == level


def test_files_are_counted_too(tmp_path):
    assert inodes(tmp_path, 100, 100).level == "ok"
    assert inodes(tmp_path, 101, 100).level == "wrong"


def test_folders_of_one_file_system_share_its_room(tmp_path):
    about = os.statvfs(tmp_path)
    half = int(0.6 * about.f_bavail * about.f_frsize)
    one = list(disk({tmp_path / "results" / "runs": half}, 1, tmp_path))
    both = list(disk({tmp_path / "results" / name: half for name in ("runs", "samples")}, 1, tmp_path))
    assert [finding.level for finding in one if "written" in finding.what] == ["ok"]
    assert [finding.level for finding in both if "written" in finding.what] == ["wrong"]
    assert f"{tmp_path}: " in both[0].what  # the folders are not there yet


def test_where_nothing_is_written_the_folder_is_looked_at_all_the_same(tmp_path):
    found = list(disk({}, 0, tmp_path / "results"))
    assert {finding.level for finding in found} == {"ok"}


def test_a_folder_that_is_not_there_lies_where_the_next_one_above_does(tmp_path):
    assert existing(tmp_path / "a" / "b") == tmp_path
    assert existing(tmp_path) == tmp_path


def test_a_folder_that_cannot_be_written_is_wrong():
    (found,) = disk({}, 0, existing_read_only())
    assert (found.level, found.what) == ("wrong", f"{existing_read_only()}: cannot be written")


def existing_read_only():
    from pathlib import Path

    for folder in map(Path, ("/proc/self", "/sys/kernel", "/usr/bin")):
        if folder.exists() and not os.access(folder, os.W_OK):
            return folder
    pytest.skip("everything can be written here")


def test_a_link_to_a_small_disk_is_seen(tmp_path):
    """8 MB with 20 files: what fits elsewhere does not fit there."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m,nr_inodes=20", "tmpfs", str(small)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("nothing may be mounted here")
    try:
        (tmp_path / "samples").symlink_to(small)
        found = list(disk({tmp_path / "runs": 10**6, tmp_path / "samples": 9 * 10**6}, 100, tmp_path))
        levels = {(finding.what.partition(":")[0], "files" in finding.what): finding.level for finding in found}
        assert levels[str(tmp_path / "samples"), False] == "wrong"
        assert levels[str(tmp_path / "samples"), True] == "wrong"
        assert levels[str(tmp_path), False] == "ok"
        (small / "full").write_bytes(bytes(7 * 10**6))
        nearly = list(disk({tmp_path / "samples": 1_200_000}, 0, tmp_path))
        assert nearly[0].level == "warning"
    finally:
        subprocess.run(["umount", str(small)], check=True)
