"""The emulated cluster does what real ones do, is in nobody's way, and leaves nothing behind."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from cluster import NODES, Cluster

pytestmark = pytest.mark.slurm


def until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def submit(cluster: Cluster, command: str, folder: Path, *options: str) -> str:
    """A batch job's id."""
    placed = ("--parsable", f"--chdir={folder}", "--output=log", "--time=5")
    return cluster.run("sbatch", *placed, *options, "--wrap", command).strip()


def state(cluster: Cluster, job: str) -> str:
    return cluster.run("squeue", "--states=all", "--noheader", "--format=%T", f"--jobs={job}").strip()


def test_a_step_over_both_nodes_gets_a_gpu_of_each(cluster):
    tell = "echo $SLURMD_NODENAME $SLURM_PROCID $CUDA_VISIBLE_DEVICES"
    told = cluster.run("srun", "--nodes=2", "--ntasks=2", "--gres=gpu:1", "sh", "-c", tell)
    assert sorted(told.split("\n")[:2]) == ["n1 0 0", "n2 1 0"]


def test_a_job_without_slurms_variables_still_finds_the_cluster(cluster, folder):
    """As in Snakemake's jobs, which keep next to none of them."""
    job = submit(cluster, "env -u SLURM_CONF srun --ntasks=1 hostname", folder)
    until(lambda: state(cluster, job) == "COMPLETED")


def test_the_jobs_of_a_node_whose_plug_is_pulled_end_at_once_and_it_comes_back(cluster, folder):
    # A requeued job would begin again.
    job = submit(cluster, "srun sh -c 'echo $$; exec sleep 600'", folder, "--nodelist=n1", "--no-requeue")
    log = folder / "log"
    until(lambda: log.exists() and log.read_text().endswith("\n"))
    process = psutil.Process(int(log.read_text()))
    cluster.take_down("n1")
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    assert cluster.states()["n1"].startswith("down")
    assert state(cluster, job) == "NODE_FAIL"
    cluster.bring_up("n1")
    assert cluster.run("srun", "--nodelist=n1", "echo", "back") == "back\n"


def test_a_second_cluster_ends_with_whoever_started_it_even_if_killed(cluster, tmp_path):
    """Its jobs too, and the first one stays."""
    start = """
import signal, sys
from pathlib import Path
from cluster import Cluster
with Cluster(Path(sys.argv[1])) as cluster:
    print(cluster.states(), flush=True)
    cluster.run("sbatch", "--chdir=/", "--output=/dev/null", "--wrap", "sleep 601")
    signal.pause()
"""
    work = tmp_path / "own"
    arguments = [sys.executable, "-c", start, str(work)]
    owner = subprocess.Popen(arguments, cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout.readline() == f"{dict.fromkeys(NODES, 'idle')}\n"
        until(lambda: sleepers("601"))
    finally:
        owner.kill()
        owner.wait()
    until(lambda: not sleepers("601") and not working_below(work))
    assert set(cluster.states().values()) == {"idle"}


def sleepers(seconds: str) -> list[psutil.Process]:
    found = psutil.process_iter(["name", "cmdline"])
    return [one for one in found if one.info["name"] == "sleep" and (one.info["cmdline"] or [])[1:] == [seconds]]


def working_below(folder: Path) -> list[psutil.Process]:
    found = psutil.process_iter(["cwd"])
    return [one for one in found if (one.info["cwd"] or "").startswith(f"{folder}/")]
