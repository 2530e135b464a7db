"""A folder has one holder at any time, who dies, stands still or lives elsewhere; who lost it publishes nothing."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from strangers import CALLED, STRANGER, take_over, write_lease

from selftrans.errors import Interrupted
from selftrans.leases import Held, _about_this_process, held, holders, take

ROOT = Path(__file__).parent.parent
HERE = socket.gethostname()

# Holds a folder, and asks for each line that it gets.
HOLD = """
import sys
from pathlib import Path
from selftrans.errors import Interrupted
from selftrans.leases import held

folder, patience = Path(sys.argv[1]), float(sys.argv[2])
with held(folder, "sit-b2", beat=patience / 10, patience=patience) as lease:
    print("mine", flush=True)
    for _ in sys.stdin:
        try:
            lease.check()
            print("still mine", flush=True)
        except Interrupted as error:
            print(error, flush=True)
"""

# Adds one to a number in a file as slowly as can be, so that of two who do it at once one is lost, and looks whether
# somebody else is there. With a third argument, it is killed in the middle of it.
COUNT = """
import os, signal, sys, time
from pathlib import Path
from selftrans.leases import held

folder, patience, killed = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
for _ in range(1 if killed else 5):
    with held(folder / "held", "counter", beat=patience / 10, patience=patience):
        inside = folder / "inside"
        inside.exists() and not inside.read_text().startswith("killed") and sys.exit("two at once")
        inside.write_text("somebody")
        number = int((folder / "number").read_text())
        time.sleep(0.02)
        (folder / "number").write_text(str(number + 1))
        inside.write_text("killed" if killed else "somebody")
        if killed:
            os.kill(os.getpid(), signal.SIGKILL)
        inside.unlink()
"""


def start(code, *arguments):
    """A real second process (without torch, so it starts at once)."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, **pipes)


def ask(process):
    """What a process that holds a folder says when it looks whether it still does."""
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline()


def ends(process):
    """Let a holder go on to its end."""
    process.stdin.close()
    assert process.wait(10) == 0


def beats(path):
    """A stranger that lives, and writes its beat ten times a second, until the event is set."""
    ended = threading.Event()

    def run():
        beat = 0
        while not ended.wait(0.1):
            beat += 1
            with path.open("r+") as file:  # which is never empty
                file.write(json.dumps(STRANGER | {"beat": beat}))

    threading.Thread(target=run, daemon=True).start()
    return ended


# ---------------------------------------------------------------------------------------------- who waits


def test_a_killed_holder_of_this_machine_is_followed_at_once(tmp_path):
    """With a patience of a minute, and though nobody has buried it yet."""
    with start(HOLD, tmp_path, 60) as first, start(HOLD, tmp_path, 60) as second:
        assert {first.stdout.readline(), second.stdout.readline()} == {"mine\n", f"sit-b2 is held by {told(tmp_path)}"}
        (holder,) = holders(tmp_path)
        holding, waiting = sorted((first, second), key=lambda process: process.pid != holder.about["pid"])
        assert waiting.poll() is None
        before = time.monotonic()
        holding.send_signal(signal.SIGKILL)
        assert waiting.stdout.readline() == "mine\n"
        assert time.monotonic() - before < 10
        assert str(holders(tmp_path)[0]) == f"process {waiting.pid} on {HERE}"
        ends(waiting)
    assert list(tmp_path.iterdir()) == []


def told(folder):
    return f"{holders(folder)[0]}; waiting\n"


def test_a_folder_is_free_again_after_its_owner_ends_or_fails(tmp_path, capsys):
    with pytest.raises(ZeroDivisionError), held(tmp_path / "new", "run"):
        raise ZeroDivisionError
    with held(tmp_path / "new", "run") as lease:
        assert [str(holder) for holder in holders(tmp_path / "new")] == [f"process {os.getpid()} on {HERE}"]
        lease.check()
    assert list((tmp_path / "new").iterdir()) == []
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("year", [0, 4e9])
def test_a_lease_of_another_machine_is_taken_over_when_it_has_stood_still(tmp_path, year, capsys):
    """However that machine's clock is set."""
    os.utime(write_lease(tmp_path), (year, year))
    before = time.monotonic()
    with held(tmp_path, "sit-b2", patience=0.5):
        assert time.monotonic() - before >= 0.5
        assert [holder.number for holder in holders(tmp_path)] == [2]
    assert capsys.readouterr().out == f"sit-b2 is held by {CALLED}; waiting\n"


def test_a_lease_that_moves_is_waited_for(tmp_path):
    ended = beats(write_lease(tmp_path))
    with start(HOLD, tmp_path, 0.5) as waiting:
        assert waiting.stdout.readline() == f"sit-b2 is held by {CALLED}; waiting\n"
        time.sleep(1.5)
        assert [str(holder) for holder in holders(tmp_path)] == [CALLED]
        ended.set()
        assert waiting.stdout.readline() == "mine\n"
        ends(waiting)


def test_while_who_waits_stands_still_itself_no_time_passes(tmp_path):
    write_lease(tmp_path)
    with start(HOLD, tmp_path, 1.5) as waiting:
        waiting.stdout.readline()
        waiting.send_signal(signal.SIGSTOP)
        time.sleep(2)
        waiting.send_signal(signal.SIGCONT)
        time.sleep(0.5)
        assert [str(holder) for holder in holders(tmp_path)] == [CALLED]
        assert waiting.stdout.readline() == "mine\n"
        ends(waiting)


@pytest.mark.parametrize("content", [b"", b"\xff{", b"[1]", b'{"pid": 1}', b"[" * 100_000], ids=range(5))
def test_a_damaged_lease_is_taken_over_when_it_has_stood_still(tmp_path, content, capsys):
    path = write_lease(tmp_path)
    path.write_bytes(content)
    before = time.monotonic()
    with held(tmp_path, "sit-b2", patience=0.3):
        assert time.monotonic() - before >= 0.3
        assert not path.exists()
    assert capsys.readouterr().out == f"sit-b2 is held by another process ({path} is damaged); waiting\n"


def test_a_process_that_has_the_number_of_the_dead_holds_nothing(tmp_path, capsys):
    write_lease(tmp_path, **(_about_this_process() | {"began": "12"}))
    with held(tmp_path, "sit-b2"):
        assert [holder.number for holder in holders(tmp_path)] == [2]
    assert capsys.readouterr().out == ""


def test_who_died_taking_over_is_followed_too(tmp_path):
    dead = start("")
    dead.wait()
    for number in (1, 2):
        write_lease(tmp_path, number, **(_about_this_process() | {"pid": dead.pid}))
    (tmp_path / f".lease-2.json.{HERE}.{dead.pid}.x.part").touch()
    with held(tmp_path, "sit-b2"):
        assert [path.name for path in tmp_path.iterdir()] == ["lease-3.json"]


def test_who_died_taking_over_from_the_living_does_not_hide_it(tmp_path):
    dead = start("")
    dead.wait()
    write_lease(tmp_path, 2, **(_about_this_process() | {"pid": dead.pid}))
    ended = beats(write_lease(tmp_path, 1))
    with start(HOLD, tmp_path, 0.5) as waiting:
        assert waiting.stdout.readline() == f"sit-b2 is held by {CALLED}; waiting\n"
        time.sleep(1)
        ended.set()
        assert waiting.stdout.readline() == "mine\n"
        ends(waiting)


def test_a_link_in_the_place_of_a_lease_is_refused(tmp_path):
    (tmp_path / "held").mkdir()
    (tmp_path / "held/lease-1.json").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        take(tmp_path / "held", "sit-b2")


# ------------------------------------------------------------------------------------- who does not wait


def test_who_does_not_wait_is_told_who_lives(tmp_path):
    with held(tmp_path, "run"), pytest.raises(Held, match=f"run is held by process {os.getpid()} on {HERE}"):
        take(tmp_path, "run", wait=0)
    ended = beats(write_lease(tmp_path))
    with pytest.raises(Held, match=re.escape(f"run is held by {CALLED}")):
        take(tmp_path, "run", wait=0)
    ended.set()


def test_who_does_not_wait_waits_for_a_sign_of_life(tmp_path, capsys):
    write_lease(tmp_path)
    before = time.monotonic()
    lease = take(tmp_path, "run", wait=0, patience=0.5)
    assert time.monotonic() - before >= 0.5
    lease.release()
    said = f"run is held by {CALLED}; waiting for a sign of life, 0.5 seconds at most\n"
    assert capsys.readouterr().out == said


# ------------------------------------------------------------------------------------------- one at a time


def test_of_many_who_ask_at_once_one_is_in_at_any_time_though_some_are_killed(tmp_path):
    (tmp_path / "number").write_text("0")
    counting = [start(COUNT, tmp_path, 60, *["killed"] * (number >= 6)) for number in range(9)]
    said = [process.communicate(timeout=120)[0] for process in counting]
    assert [process.returncode for process in counting] == [0] * 6 + [-signal.SIGKILL] * 3, said
    assert (tmp_path / "number").read_text() == str(6 * 5 + 3)
    assert all(holder.is_gone for holder in holders(tmp_path / "held"))


@pytest.mark.parametrize("attempt", range(3))
def test_of_many_who_take_over_at_once_one_is_in_at_any_time(tmp_path, attempt):
    (tmp_path / "number").write_text("0")
    write_lease(tmp_path / "held", number=9)
    counting = [start(COUNT, tmp_path, 3) for _ in range(8)]
    said = [process.communicate(timeout=120)[0] for process in counting]
    assert [process.returncode for process in counting] == [0] * 8, said
    assert (tmp_path / "number").read_text() == "40"


# --------------------------------------------------------------------------------------------- who lost it


def test_a_holder_that_stood_still_learns_who_has_it_and_leaves_it_to_that_one(tmp_path):
    with start(HOLD, tmp_path, 1) as first, start(HOLD, tmp_path, 1) as second:
        assert {first.stdout.readline()[:5], second.stdout.readline()[:5]} == {"mine\n", "sit-b"}
        (holder,) = holders(tmp_path)
        holding, waiting = sorted((first, second), key=lambda process: process.pid != holder.about["pid"])
        assert ask(holding) == "still mine\n"
        before = time.monotonic()
        holding.send_signal(signal.SIGSTOP)
        assert waiting.stdout.readline() == "mine\n"
        assert time.monotonic() - before > 0.9
        holding.send_signal(signal.SIGCONT)
        assert ask(holding) == (
            f"sit-b2: was taken over by process {waiting.pid} on {HERE} while this one stood still; it goes on there\n"
        )
        assert ask(waiting) == "still mine\n"
        ends(holding)
        time.sleep(0.5)  # five beats
        assert ask(waiting) == "still mine\n"
        assert [holder.about["pid"] for holder in holders(tmp_path)] == [waiting.pid]
        ends(waiting)


def test_the_dispossessed_never_writes_into_anothers_lease(tmp_path):
    lease = take(tmp_path, "sit-b2", beat=0.05)
    stolen = take_over(tmp_path)
    content = stolen.read_bytes()
    with pytest.raises(Interrupted, match=re.escape(f"sit-b2: was taken over by {CALLED} while this one stood still")):
        lease.check()
    time.sleep(0.2)
    lease.release()
    assert [path.name for path in tmp_path.iterdir()] == [stolen.name]
    assert stolen.read_bytes() == content


def test_a_lease_under_our_name_that_is_anothers_stays(tmp_path):
    lease = take(tmp_path, "sit-b2", beat=0.05)
    content = write_lease(tmp_path).read_bytes()
    time.sleep(0.2)
    with pytest.raises(Interrupted, match="was taken over by process 7"):
        lease.check()
    lease.release()
    assert (tmp_path / "lease-1.json").read_bytes() == content


def test_a_lease_that_somebody_removed_is_said(tmp_path):
    lease = take(tmp_path, "sit-b2")
    lease.path.unlink()
    with pytest.raises(Interrupted, match=r"sit-b2: somebody removed .*lease-1\.json, by which this process held it"):
        lease.check()


def test_a_beat_that_cannot_be_written_ends_nothing_and_is_tried_again(tmp_path):
    """A folder in the way of the lease's name, which is opened for writing, stands for a disk that does not answer."""
    with held(tmp_path, "sit-b2", beat=0.05) as lease:
        aside = lease.path.rename(tmp_path / "aside")
        lease.path.mkdir()
        time.sleep(0.2)
        lease.path.rmdir()
        aside.rename(lease.path)
        lease.check()
        before, deadline = lease.path.read_bytes(), time.monotonic() + 20
        while lease.path.read_bytes() == before:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert len(lease.path.read_bytes()) == len(before)


def test_a_forked_child_does_not_give_the_folder_back(tmp_path):
    lease = take(tmp_path, "sit-b2")
    if not (child := os.fork()):
        lease.release()
        os._exit(0)
    os.waitpid(child, 0)
    lease.check()
    lease.release()
    assert holders(tmp_path) == []
