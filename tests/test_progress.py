"""Bars are drawn on the workflow's terminal, each on its own line; without it work goes on without them."""

import os
import select
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

import pytest

from selftrans.progress import TERMINAL, progress_bar

ROOT = Path(__file__).parent.parent

BAR = """
from selftrans.progress import progress_bar

with progress_bar(1, "other", "step"):
    print("on", flush=True)
    input()
"""


@pytest.fixture
def terminal(monkeypatch, tmp_path):
    """What has been drawn since it was last asked for, on a pseudo-terminal that stands for the workflow's."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    screen, keyboard = os.openpty()
    termios.tcsetwinsize(keyboard, (24, 80))
    monkeypatch.setenv(TERMINAL, os.ttyname(keyboard))

    def drawn() -> str:
        parts = []
        while select.select([screen], [], [], 0.5)[0]:  # the kernel hands a terminal's text on in its own time
            parts.append(os.read(screen, 100_000))
        return b"".join(parts).decode()

    yield drawn
    os.close(keyboard)
    os.close(screen)


def test_bars_at_one_time_are_drawn_on_lines_of_their_own(terminal):
    with progress_bar(10, "first", "step") as one, progress_bar(10, "second", "step", initial=5) as two:
        assert (one.pos, two.pos) == (0, -1)  # as tqdm counts, downwards
        one.update()
        two.update()
        text = terminal()
    assert "first:" in text
    assert "second:" in text
    assert "5/10" in text
    with progress_bar(10, "third", "step") as three:
        assert three.pos == 0


def test_the_line_of_another_process_is_left_alone(terminal):
    other = subprocess.Popen(
        [sys.executable, "-c", BAR], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    with other:
        assert other.stdout.readline() == "on\n"
        with progress_bar(1, "mine", "step") as bar:
            assert bar.pos == -1
        other.communicate("go on\n")
    assert other.returncode == 0


def folder_of_bars(keyboard):
    return Path(tempfile.gettempdir()) / f"selftrans-{os.getuid()}-bars{keyboard.replace('/', '-')}"


def a_link_to_a_folder(folder, victim):
    victim.mkdir()
    folder.symlink_to(victim)


def a_folder_of_all(folder, victim):
    folder.mkdir()
    folder.chmod(0o777)
    (folder / "0").symlink_to(victim)


def a_link_in_the_place_of_a_line(folder, victim):
    victim.write_text("precious")
    folder.mkdir(mode=0o700)
    (folder / "0").symlink_to(victim)


def a_pipe_in_the_place_of_a_line(folder, victim):
    folder.mkdir(mode=0o700)
    os.mkfifo(folder / "0")


def a_file_in_the_place_of_the_folder(folder, victim):
    folder.touch()


@pytest.mark.parametrize(
    "plant",
    [
        a_link_to_a_folder,
        a_folder_of_all,
        a_link_in_the_place_of_a_line,
        a_pipe_in_the_place_of_a_line,
        a_file_in_the_place_of_the_folder,
    ],
)
def test_what_others_put_where_lines_are_counted_is_left_alone(terminal, tmp_path, plant):
    victim = tmp_path / "victim"
    plant(folder_of_bars(os.environ[TERMINAL]), victim)
    with progress_bar(1, "mine", "step") as bar:
        assert bar.pos == 0
        assert "mine:" in terminal()
    if victim.is_dir():
        assert list(victim.iterdir()) == []
    elif victim.exists():
        assert victim.read_text() == "precious"
    assert not victim.exists() or plant is not a_folder_of_all


def test_lines_are_counted_in_a_folder_of_ones_own(terminal):
    with progress_bar(1, "mine", "step"):
        assert folder_of_bars(os.environ[TERMINAL]).stat().st_mode & 0o777 == 0o700


def test_without_a_folder_for_temporary_files_there_is_a_bar(terminal, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with progress_bar(1, "mine", "step") as bar:
        assert bar.pos == 0


@pytest.mark.parametrize("name", ["/dev/pts/no-such-terminal", "/"])
def test_a_terminal_that_cannot_be_opened_stops_no_work(monkeypatch, name, capsys):
    """It is closed by now, or that of the machine that a cluster's job was sent from."""
    monkeypatch.setenv(TERMINAL, name)
    with progress_bar(3, "x", "step") as bar:
        bar.update()
        bar.set_postfix(loss="1.0", refresh=False)
    assert capsys.readouterr() == ("", "")


def test_without_a_terminal_there_is_no_bar(monkeypatch, capsys):
    monkeypatch.delenv(TERMINAL, raising=False)
    with progress_bar(3, "x", "step") as bar:
        bar.update()
    assert bar.disable
    assert capsys.readouterr().err == ""
