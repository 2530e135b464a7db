"""Signs of life: a file's date, set by a process as long as it works, and read by its file system's clock."""

import os
import subprocess
import sys
import threading
import time

import pytest

from selftrans.beats import Clocks, beating
from selftrans.leases import PATIENCE

LONG_AGO = 1_000_000_000.0


def age(path, seconds):
    """Set a file's date to so long ago."""
    date = path.stat().st_mtime - seconds
    os.utime(path, (date, date))


def beats_of(path, seconds=5.0):
    """Whether the date of a file moves."""
    os.utime(path, (LONG_AGO, LONG_AGO))
    deadline = time.monotonic() + seconds
    while path.stat().st_mtime == LONG_AGO and time.monotonic() < deadline:
        time.sleep(0.01)
    return path.stat().st_mtime > LONG_AGO


def test_a_file_is_dated_as_long_as_the_work_lasts(tmp_path):
    path = tmp_path / "job.log"
    with path.open("w") as file:
        with beating(file.fileno(), every=0.02):
            assert beats_of(path)
            assert beats_of(path)
        assert not beats_of(path, seconds=0.2)
    assert "beat" not in {thread.name for thread in threading.enumerate()}


def test_what_is_no_file_has_no_date(tmp_path):
    reader, writer = os.pipe()
    for descriptor in (reader, writer):
        with beating(descriptor, every=0.02):
            assert "beat" not in {thread.name for thread in threading.enumerate()}
        os.close(descriptor)
    with beating(writer, every=0.02):  # closed by now
        assert "beat" not in {thread.name for thread in threading.enumerate()}


def test_a_verb_dates_the_log_that_its_output_goes_to(tmp_path):
    """Until it is killed, however silent it is."""
    code = """
import time
import selftrans.commands as commands
from selftrans.commands import plan
plan.run = lambda arguments: time.sleep(60)
commands.beating = lambda descriptor, beating=commands.beating: beating(descriptor, every=0.02)
commands.main(["plan"])
"""
    path = tmp_path / "job.log"
    with path.open("w") as log:
        process = subprocess.Popen([sys.executable, "-c", code], stdout=log)
    try:
        assert beats_of(path, seconds=60)
    finally:
        process.kill()
        process.wait()
    assert not beats_of(path, seconds=0.2)


def test_a_file_is_alive_if_its_date_is_of_a_moment_ago(tmp_path):
    path = tmp_path / "job.log"
    assert not Clocks().is_alive(path)
    path.touch()
    assert Clocks().is_alive(path)
    age(path, PATIENCE / 2)
    assert Clocks().is_alive(path)
    age(path, PATIENCE)
    assert not Clocks().is_alive(path)


@pytest.mark.parametrize("wrong", [-86400.0, 86400.0])
def test_a_wrong_clock_of_this_machine_changes_nothing(tmp_path, monkeypatch, wrong):
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + wrong)
    path = tmp_path / "job.log"
    path.touch()
    assert Clocks().is_alive(path)
    age(path, 2 * PATIENCE)
    assert not Clocks().is_alive(path)


def test_nothing_is_left_of_looking(tmp_path):
    path = tmp_path / "job.log"
    path.touch()
    clocks = Clocks()
    assert clocks.is_alive(path)
    assert list(tmp_path.iterdir()) == [path]
