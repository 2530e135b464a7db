"""A disk that is full or cannot be written: a sentence with path and reason, nothing half-written, and then it goes on.

Each verb works in a folder of the smallest configuration, on a disk of its own that holds what the verb needs.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Configuration

from selftrans.commands import main
from selftrans.commands.common import check_accuracy
from selftrans.errors import UserError
from selftrans.leases import held
from selftrans.models.tokenizer import Tokenizer

ROOT = Path(__file__).parents[2]
FAMILY = ("--family", "small")

# In the order in which each finds what it needs.
VERBS = {
    "pack-images": [("pack-images", *FAMILY, "--split", split) for split in ("train", "test")],
    "train-tokenizer": [("train-tokenizer", *FAMILY)],
    "extract-latents": [("extract-latents", *FAMILY)],
    "train-extractor": [("train-extractor", *FAMILY)],
    "make-reference": [("make-reference", *FAMILY)],
    "train": [("train", "plain@2")],
    "sample": [("sample", "plain@2")],
    "sample --grid": [("sample", "plain@2", "--grid", "grid.png", "--each", "1", "--steps", "2")],
    "evaluate": [("evaluate", "plain@2")],
    "export": [("export", "plain@2")],
    "table": [("table", "main")],
    "show": [("show", "results/main.csv")],
    "tensorboard": [("tensorboard", "plain@2")],
    "index": [("index",)],
    "page": [("page",)],
}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """One row, trained for twenty steps, and a table of it."""
    configuration = Configuration(tmp_path_factory.mktemp("small") / "config")
    configuration.family["extractor"]["min_test_accuracy"] = 0.0
    configuration.tables["main"] |= {"rows": [{"label": "vanilla", "run": "plain@2"}], "compare_with": None}
    configuration.tables["main"]["columns"] = []
    configuration.paper = "fid,is\n38.60,41.95\n"
    return configuration.write()


def call(config, *arguments):
    return main([*arguments, "--config", str(config), "--threads", "1"])


@pytest.fixture(scope="module")
def stages(config, tmp_path_factory):
    """{verb: a folder as it is before the verb}."""
    work, saved = tmp_path_factory.mktemp("work"), tmp_path_factory.mktemp("saved")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work)
        for verb, calls in VERBS.items():
            shutil.copytree(work, saved / verb)
            for arguments in calls:
                assert call(config, *arguments) == 0
    return saved


@pytest.fixture
def disk(tmp_path):
    """A disk of 64 MB, and the options that it can be mounted with again."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if os.getuid() != 0 or sys.platform != "linux" or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("a disk of its own needs root on Linux")

    mount("size=64m")
    yield folder, lambda options: mount(f"remount,{options}")
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder):
    """Leave not a byte; returns the file to delete."""
    with (folder / "filler").open("wb", buffering=0) as file:
        size = 2**20
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2
    return folder / "filler"


def parts(folder):
    return [path for path in folder.rglob("*") if path.name.endswith(".part")]


WRITING = [verb for verb in VERBS if verb != "show"]


@pytest.mark.parametrize("verb", WRITING)
def test_a_full_disk_is_a_sentence_and_the_next_call_goes_on(config, stages, disk, verb, monkeypatch, capsys):
    folder, _ = disk
    shutil.copytree(stages / verb, folder, dirs_exist_ok=True)
    monkeypatch.chdir(folder)
    filler = fill(folder)
    assert 2 in [call(config, *arguments) for arguments in VERBS[verb]]
    error = capsys.readouterr().err
    assert "the disk is full; free some space and give the same command again, which goes on" in error
    path = error.rpartition("error: ")[2].partition(": ")[0]
    assert path.startswith(("results/", "grid.png"))
    assert not parts(folder)
    filler.unlink()
    assert [call(config, *arguments) for arguments in VERBS[verb]] == [0] * len(VERBS[verb])


@pytest.mark.parametrize("verb", WRITING)
def test_a_disk_that_is_read_only_is_a_sentence(config, stages, disk, verb, monkeypatch, capsys):
    folder, remount = disk
    shutil.copytree(stages / verb, folder, dirs_exist_ok=True)
    monkeypatch.chdir(folder)
    remount("ro")
    assert [call(config, *arguments) for arguments in VERBS[verb]] == [2] * len(VERBS[verb])
    error = capsys.readouterr().err
    assert "the file system is read-only; work in a folder that can be written" in error
    remount("rw")
    assert [call(config, *arguments) for arguments in VERBS[verb]] == [0] * len(VERBS[verb])


@pytest.mark.parametrize("verb", ["train", "sample", "table"])
def test_a_folder_of_somebody_elses_is_a_sentence(config, stages, tmp_path, verb):
    folder = tmp_path / "work"
    shutil.copytree(stages / verb, folder)
    for found in (folder / "results", *folder.rglob("results/**/")):
        found.chmod(0o555)
    bound = []
    if os.getuid() == 0:  # whom permissions do not bind, unless this is taken away
        bound = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--"]
        if shutil.which("setpriv") is None:
            pytest.skip("root is bound by permissions through setpriv only")
    done = run(config, folder, *VERBS[verb][0], before=bound)
    assert done.returncode == 2
    assert done.stderr.startswith("error: results/")
    assert done.stderr.endswith(": permission denied; ask its owner, or work in a folder of your own\n")


# ------------------------------------------------------------------------------------- in a process of its own


def command(config, *arguments):
    return [sys.executable, "-m", "selftrans", *arguments, "--config", str(config), "--threads", "1"]


def surroundings():
    return os.environ | {"PYTHONPATH": str(ROOT)}


def run(config, folder, *arguments, before=(), **options):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    calls = [*before, *command(config, *arguments)]
    return subprocess.run(calls, cwd=folder, env=surroundings(), text=True, check=False, **pipes)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is always full")
def test_output_onto_a_full_disk_is_a_sentence(config):
    with Path("/dev/full").open("w") as full:
        done = run(config, ROOT, "plan", stdout=full)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: the disk is full")


def test_a_reader_who_leaves_is_no_error(config):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as output:
        done = run(config, ROOT, "plan", stdout=output)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


def test_too_little_memory_is_a_sentence(config, tmp_path):
    scale = tmp_path / "scale.yaml"
    scale.touch()
    os.truncate(scale, 8 * 2**30)  # of which the disk holds nothing
    done = run(config, ROOT, "plan", "--scale", str(scale), before=["sh", "-c", 'ulimit -v 4000000; exec "$@"', "sh"])
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: ")


@pytest.mark.parametrize(
    ("number", "name"),
    [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")],
)
def test_a_signal_ends_a_verb_without_a_traceback(config, stages, tmp_path, number, name):
    folder = tmp_path / "work"
    shutil.copytree(stages / "train", folder)
    work = next(iter((stages / "sample").glob("results/tiny/work/plain-*"))).relative_to(stages / "sample")
    with held(folder / work, "plain"):
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": folder}
        # As from a terminal: a shell lets jobs in the background ignore SIGINT, and they hand that on.
        options["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)
        with subprocess.Popen(command(config, "train", "plain@2"), env=surroundings(), **options) as verb:
            assert "is held by process" in verb.stdout.readline()
            verb.send_signal(number)
            assert verb.communicate()[1] == f"stopped: by {name}; the same command begins or goes on where it can\n"
    assert verb.returncode == 128 + number


SLOW = """
import sys, time
from pathlib import Path
from selftrans.commands import main, show
from selftrans.files import atomic_path

def write(arguments):
    with atomic_path(Path("file")) as part:
        part.write_text("half")
        print("half", flush=True)
        time.sleep(60)

show.run = write
sys.exit(main(["show", "file"]))
"""


def test_who_writes_a_file_when_sigterm_comes_leaves_nothing(tmp_path):
    pipes = {"stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", SLOW], cwd=tmp_path, env=surroundings(), **pipes) as verb:
        assert verb.stdout.readline() == "half\n"
        (part,) = tmp_path.iterdir()
        assert part.name.endswith(".part")
        for _ in range(2):
            verb.terminate()
    assert verb.returncode == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


DEAF = """
import sys, time
import selftrans.commands
from selftrans.commands import main, show

def sleep(arguments):
    for _ in range(2):
        try:
            print("asleep", flush=True)
            time.sleep(60)
        except SystemExit:
            pass

show.run = sleep
selftrans.commands.GRACE = 1
sys.exit(main(["show", "file"]))
"""


def test_who_keeps_sigterm_to_himself_is_ended_all_the_same(tmp_path):
    pipes = {"stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", DEAF], cwd=tmp_path, env=surroundings(), **pipes) as verb:
        assert verb.stdout.readline() == "asleep\n"
        verb.terminate()
        verb.communicate()
    assert verb.returncode == -signal.SIGALRM


# ------------------------------------------------------------------------- links, pipes, devices


@pytest.fixture
def finished(stages, tmp_path, monkeypatch):
    """The working directory, with all but the page in it."""
    shutil.copytree(stages / "page", tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def planted(path, kind):
    """Something that is no regular file at ``path``; returns the file that a link points to."""
    victim = path.with_name("victim")
    victim.write_text("precious")
    if kind == "a link":
        path.symlink_to(victim)
    elif kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a device":
        try:
            os.mknod(path, 0o600 | 0o020000, os.makedev(1, 3))
        except PermissionError:
            pytest.skip("only root makes devices")
    else:
        path.mkdir()
    return victim


GRID = ("sample", "plain@2", "--each", "1", "--steps", "2", "--classes", "0", "--grid")


@pytest.mark.parametrize("kind", ["a link", "a pipe", "a device", "a folder"])
@pytest.mark.parametrize("verb", ["sample", "evaluate"])
def test_nothing_but_a_file_is_replaced(config, finished, kind, verb, capsys):
    output = finished / "output"
    victim = planted(output, kind)
    before = output.lstat()
    (extractor,) = finished.glob("results/tiny/extractors/*.safetensors")
    (samples,) = finished.glob("results/tiny/samples/*.npz")
    (reference,) = finished.glob("results/tiny/references/*.npz")
    files = ("--samples", str(samples), "--reference", str(reference), "--extractor", str(extractor))
    arguments = {"sample": GRID, "evaluate": ("evaluate", *files, "--output")}
    assert call(config, *arguments[verb], "output") == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert victim.read_text() == "precious"
    assert (output.lstat().st_ino, output.lstat().st_mode) == (before.st_ino, before.st_mode)


INPUTS = {
    "results/tiny/runs/*/*.ema.safetensors": GRID,
    "results/tiny/latents/*/stats.json": GRID,
    "results/tiny/extractors/*.safetensors": ("evaluate", "plain@2"),
    "results/tiny/samples/*.npz": ("evaluate", "plain@2"),
    "results/tiny/work/*/log.jsonl": ("tensorboard",),
}


@pytest.mark.parametrize("pattern", INPUTS)
def test_a_pipe_in_the_place_of_an_input_is_not_waited_for(config, finished, pattern, capsys):
    (path,) = finished.glob(pattern)
    path.unlink()
    os.mkfifo(path)
    arguments = (*INPUTS[pattern], "grid.png") if INPUTS[pattern] == GRID else INPUTS[pattern]
    assert within(60, lambda: call(config, *arguments)) == 2
    assert f"{path.relative_to(finished)}: a pipe, where a file is wanted" in capsys.readouterr().err


def test_a_pipe_in_the_place_of_the_configuration_is_not_waited_for(config, tmp_path, capsys):
    copy = shutil.copytree(config, tmp_path / "config")
    (copy / "runs.yaml").unlink()
    os.mkfifo(copy / "runs.yaml")
    assert within(60, lambda: call(copy, "plan")) == 2
    assert "runs.yaml: a pipe, where a file is wanted" in capsys.readouterr().err


def within(seconds, work):
    """What ``work()`` returns, unless it hangs."""

    def hang(*_):
        raise TimeoutError("it waits")

    previous = signal.signal(signal.SIGALRM, hang)
    signal.alarm(seconds)
    try:
        return work()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def test_a_vae_whose_error_is_nan_does_not_pass_its_bar(config, stages, tmp_path, monkeypatch, capsys):
    """No learning rate that a configuration may have spoils it so far; what it reconstructs is spoilt here."""
    shutil.copytree(stages / "train-tokenizer", tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    encode = Tokenizer.encode
    monkeypatch.setattr(Tokenizer, "encode", lambda self, images: encode(self, images) * float("nan"))
    assert call(config, *VERBS["train-tokenizer"][0]) == 2
    assert "the VAE is too bad to build on: test MSE nan, allowed 1.0" in capsys.readouterr().err
    assert not Path("results/tiny/tokenizers").exists()


def test_an_accuracy_that_is_nan_does_not_pass_its_bar(configuration):
    with pytest.raises(UserError, match=r"test accuracy nan, at least 0\.5 is asked for"):
        check_accuracy(configuration.plan(), "families.small.extractor", float("nan"), 0.5)
