"""Each process has GPUs of its own, however it is killed; locks are real, GPUs are names in CUDA_VISIBLE_DEVICES."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ranks import make_latents, verb

from selftrans.commands import main
from selftrans.gpus import VISIBLE, kinds, listed_by, visible
from workflow import snakemake

ROOT = Path(__file__).parent.parent
WHOLE = """\
GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-11111111-aaaa-0000-0000-000000000000)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-22222222-aaaa-0000-0000-000000000000)
"""
PARTS = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
  MIG 1g.5gb      Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)
  MIG 1g.5gb      Device  1: (UUID: MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-7a5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
"""

# Takes GPUs, says which, and holds them until its input ends.
LEASE = """
import os, sys
from selftrans.gpus import lease_gpus

lease_gpus(int(sys.argv[1]))
print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """One without an NVIDIA driver, whose locks are nobody else's; call it with what `nvidia-smi -L` says there."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.delenv(VISIBLE, raising=False)
    smi = tmp_path / "bin/nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    smi.chmod(0o755)

    def lists(text):
        smi.write_text(f"#!/bin/sh\ncat << 'END'\n{text}END\n")

    return lists


def start(count, gpus, stdin=subprocess.PIPE):
    """A process that takes ``count`` of ``gpus``."""
    pipes = {"stdin": stdin, "stdout": subprocess.PIPE, "text": True}
    surroundings = os.environ | {VISIBLE: gpus, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", LEASE, str(count)], env=surroundings, **pipes)


def said(process):
    return process.stdout.readline().strip()


def ends(*processes):
    for process in processes:
        process.stdin.close()
    assert [process.wait(20) for process in processes] == [0] * len(processes)


# ------------------------------------------------------------------------------------------- which there are


def test_kinds_are_those_of_whole_gpus(machine):
    assert kinds() == []
    machine(WHOLE)
    assert kinds() == ["NVIDIA H100 80GB HBM3"] * 2
    machine(PARTS)
    assert kinds() == ["NVIDIA A100-SXM4-40GB"]


def test_what_nvidia_smi_lists():
    assert listed_by(WHOLE) == [
        ["GPU-11111111-aaaa-0000-0000-000000000000"],
        ["GPU-22222222-aaaa-0000-0000-000000000000"],
    ]
    assert listed_by(PARTS) == [
        ["MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f", "MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb"],
        ["GPU-7a5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77"],
    ]
    assert listed_by("No devices were found\n") == []


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("0,1,2", ["0", "1", "2"]),
        (" 3 , 1", ["3", "1"]),
        ("", []),
        ("-1", []),
        ("0,-1,1", ["0"]),
        ("0,x,1", ["0"]),
        ("1,0,1,2", ["1", "0"]),
        ("1,01", ["1"]),
        ("GPU-1111,MIG-c6d4", ["GPU-1111", "MIG-c6d4"]),
        ("NoDevFiles", []),
    ],
)
def test_those_before_the_first_that_is_none_are_visible(monkeypatch, asked, found):
    monkeypatch.setenv(VISIBLE, asked)
    assert [gpu.name for gpu in visible()] == found


def test_without_a_driver_there_is_none():
    assert visible() == []


def test_without_a_choice_all_are_visible_by_what_they_are_called_everywhere(machine):
    machine(PARTS)
    assert [gpu.name[:8] for gpu in visible()] == ["MIG-c6d4", "MIG-cba6", "GPU-7a5b"]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("1,0", ["GPU-2222", "GPU-1111"]),
        ("0,GPU-2", ["GPU-1111", "GPU-2222"]),
        ("0,GPU-11111111-aaaa", ["GPU-1111"]),
        ("GPU-,0", []),
        ("1,2,0", ["GPU-2222"]),
    ],
)
def test_a_number_and_a_uuid_are_one_gpu(machine, monkeypatch, asked, found):
    machine(WHOLE)
    monkeypatch.setenv(VISIBLE, asked)
    assert [gpu.identity[:8] for gpu in visible()] == found
    assert [gpu.name for gpu in visible()] == asked.split(",")[: len(found)]


# ------------------------------------------------------------------------------------------------ leases


def test_each_has_its_own_and_that_of_a_killed_one_is_free():
    with start(1, "0,1,2") as one, start(1, "0,1,2") as two, start(1, "0,1,2") as three:
        devices = [said(process) for process in (one, two, three)]
        assert sorted(devices) == ["0", "1", "2"]
        with start(1, "0,1,2") as four:
            assert said(four) == "--gpus 1: 0 of 3 visible GPUs are free; waiting"
            two.send_signal(signal.SIGKILL)
            assert said(four) == devices[1]
            ends(one, three, four)


def test_who_waits_for_several_holds_none():
    with start(1, "0,1") as one:
        device = said(one)
        with start(2, "0,1") as both:
            assert said(both) == "--gpus 2: 1 of 2 visible GPUs are free; waiting"
            with start(1, "0,1") as other:
                while (line := said(other)).endswith("waiting"):  # both looked at the same moment
                    pass
                assert {device, line} == {"0", "1"}
                ends(one, other)
            assert said(both) == "0,1"
            ends(both)


def test_many_who_want_all_get_them_one_after_the_other():
    processes = [start(2, "0,1", stdin=subprocess.DEVNULL) for _ in range(5)]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [output.splitlines()[-1] for output in outputs] == ["0,1"] * 5


def test_one_gpu_by_its_number_and_by_its_uuid_is_taken_once(machine):
    machine(WHOLE)
    with start(1, "1") as one, start(1, "GPU-2222") as two:
        first = [said(one), said(two)]
        assert [line.endswith("waiting") for line in first].count(True) == 1
        winner, loser = (one, two) if first[1].endswith("waiting") else (two, one)
        ends(winner)
        assert said(loser) in ("1", "GPU-2222")
        ends(loser)


def test_with_none_no_gpu_is_seen_and_none_taken():
    with start(0, "0") as none, start(1, "0") as one:
        assert (said(none), said(one)) == ("", "0")
        ends(none, one)


def test_more_than_there_are_is_a_sentence(monkeypatch, capsys):
    monkeypatch.setenv(VISIBLE, "0,1")
    assert main(["sample", "--gpus", "3"]) == 2
    wanted = "error: --gpus: found 3; allowed: 0 to 2, which are visible here (CUDA_VISIBLE_DEVICES=0,1)\n"
    assert capsys.readouterr().err == wanted
    with pytest.raises(SystemExit):
        main(["sample", "--gpus", "-1"])


def test_the_ranks_of_a_training_share_what_its_command_took(tmp_path):
    """They would wait for ever, were they to take them again."""
    make_latents(tmp_path)
    command = [sys.executable, *verb("vanilla@10", "--ranks", "2", "--gpus", "2")]
    surroundings = os.environ | {VISIBLE: "0,1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=surroundings, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "starting" in done.stdout


# ---------------------------------------------------------------------------------------------- workflow

SNAKEFILE = """
rule all:
    input:
        expand("{number}", number=range(4)),

rule job:
    output:
        "{number}",
    resources:
        gpu=1,
    shell:
        "(echo begins; sleep 1) | $PYTHON $LEASE {resources.gpu} > {output}"
"""


def test_jobs_of_a_workflow_at_the_same_time_have_different_gpus(tmp_path):
    """Of four jobs, for which there would be cores, two run at a time."""
    (tmp_path / "lease.py").write_text(f"import time\nbegan = time.time()\n{LEASE}\nprint(began, time.time())")
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    surroundings = os.environ | {"PYTHON": sys.executable, "LEASE": "lease.py", "PYTHONPATH": str(ROOT), VISIBLE: "0,1"}
    command = [sys.executable, "-m", "snakemake", "--cores", "4", "--resources", "gpu=2"]
    done = subprocess.run(command, cwd=tmp_path, env=surroundings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    jobs = []
    for number in range(4):
        *waited, device, times = (tmp_path / str(number)).read_text().splitlines()
        assert waited == []
        jobs.append((device, *map(float, times.split())))
    for device, began, ended in jobs:
        others = [(other, start, end) for other, start, end in jobs if start < ended and began < end]
        assert len(others) == len({other for other, _, _ in others}) <= 2, (device, jobs)


@pytest.mark.workflow
@pytest.mark.xdist_group("workflow")
@pytest.mark.parametrize(
    ("gpus", "options", "asked"),
    [("0,1", [], "1"), ("0,1", ["--resources", "gpu=0"], "0"), (None, [], "0"), ("", [], "0")],
)
def test_a_job_gets_a_gpu_if_there_is_one(tmp_path, monkeypatch, gpus, options, asked):
    """What there is limits what jobs ask for."""
    if gpus is not None:
        monkeypatch.setenv(VISIBLE, gpus)
    planned = snakemake("-n", "-p", *options, "--", "results/methods.csv", folder=tmp_path)
    assert planned.returncode == 0, planned.stdout + planned.stderr
    calls = re.findall(r"python -m selftrans (\S+) (.*) > ", planned.stdout)
    with_gpu = {name for name, arguments in calls if f" --gpus {asked} " in f"{arguments} "}
    assert with_gpu == {"extract-latents", "make-reference", "train", "sample", "evaluate"}
    assert not any("--gpus" in arguments for name, arguments in calls if name not in with_gpu)
