"""The verb status: what files tell of jobs that run, stopped, failed, were killed, or were never begun."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Configuration

from selftrans.commands import main
from selftrans.leases import PATIENCE
from selftrans.plan.paths import Log, Pattern
from selftrans.reporting.status import Status
from selftrans.reporting.training_log import log_file
from selftrans.training.log import log_line

STEPS = 100_000  # of a training that nobody waits for


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """(configuration, folder): two rows whose trainings take minutes, guided by another, with their latents."""
    folder = tmp_path_factory.mktemp("prepared")
    configuration = Configuration(folder / "config")
    configuration.family["steps_per_epoch"] = STEPS // 2
    configuration.family["presets"]["headline"] |= {"batch_size": 2}
    configuration.write()
    steps = [("pack-images", "--split", "train"), ("pack-images", "--split", "test")]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for step in (*steps, ("train-tokenizer",), ("extract-latents",)):
            assert main([*step, "--family", "small", "--config", "config", "--threads", "1"]) == 0
    return configuration, folder


@pytest.fixture
def plan(prepared, tmp_path, monkeypatch):
    """Its plan, in a working folder of the test's own."""
    configuration, folder = prepared
    shutil.copytree(folder, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return configuration.plan()


@pytest.fixture
def status(capsys):
    """Ask for the status: (exit code, lines)."""

    def ask(*arguments):
        capsys.readouterr()
        code = main(["status", *arguments, "--config", "config"])
        return code, capsys.readouterr().out.splitlines()

    return ask


@pytest.fixture
def start():
    """Start a verb with its output in a log, as the workflow does."""
    started = []

    def begin(log, *verb):
        Path(log).parent.mkdir(parents=True, exist_ok=True)
        call = shlex.join([sys.executable, "-m", "selftrans", *verb, "--config", "config", "--threads", "1"])
        command = ["bash", "-c", f"exec {call} > {log} 2> >(tee -a {log} >&2)"]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()


def train(plan, start, name="plain", step=4 * STEPS):
    """(the process, the run, its job's log) of a training that has logged steps and saved its state."""
    run = plan.run(name, 0)
    log = plan.path(Log.train, run=run.id, step=step)
    process = start(log, "train", f"{name}@8", "--save-every", "0.5")
    until(lambda: log_file(plan, run).exists() and log_file(plan, run).read_text().count("\n") > 1, process)
    until(plan.path(Pattern.state, run=run.id).exists, process)
    return process, run, log


def until(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


def hold(plan, run):
    """The lease of a training on another machine."""
    lease = plan.path(Pattern.work, run=run.id) / "lease-1.json"
    lease.parent.mkdir(parents=True)
    about = {"token": "0a", "host": "n2", "boot": "b", "pid": 7, "began": "1", "job": "45", "beat": 3}
    lease.write_text(json.dumps(about))


def wait_long(plan):
    """Let all files be as old as they are when nobody has been at work for a while."""
    for path in plan.root.rglob("*"):
        date = path.stat().st_mtime - 2 * PATIENCE
        os.utime(path, (date, date))


def of(lines, state):
    """The lines of jobs in a state."""
    return [line for line in lines if line.split()[0] == state]


def reports(status, *arguments):
    _, lines = status(*arguments, "--json")
    return {report["job"]: report for report in json.loads("\n".join(lines))}


# ------------------------------------------------------------------------------------------------ nothing begun


def test_of_nothing_all_waits_and_it_is_said_what_for(configuration, tmp_path, monkeypatch, status):
    """Three runs, three samples, three metrics, a teacher; images twice, and five more below all."""
    monkeypatch.chdir(tmp_path)
    configuration.write()
    code, lines = status("main")
    assert (code, lines[0]) == (0, "main: 0 of 17 done, 17 waiting")
    assert lines[1].startswith("waiting: ")
    counts = {part.split(" for ")[1]: int(part.split(" for ")[0]) for part in lines[1][9:].split(", ")}
    assert counts == {
        "samples": 3,  # to be measured
        "weights": 4,  # to sample from, and to make a teacher of
        "latents": 3,
        "images": 4,  # by VAE, latents, extractor and reference
        "metrics": 1,
        "their turn": 2,
    }
    assert status() == (0, ["begun: nothing"])
    assert len(of(status("main", "--all")[1], "waiting")) == 17


def test_a_target_that_is_not_there_is_refused(plan, status, capsys):
    assert main(["status", "table9", "--config", "config"]) == 2
    assert "no target is called 'table9'; allowed: main, figures, figures/<name>" in capsys.readouterr().err


def test_files_from_outside_are_waited_for(configuration, tmp_path, monkeypatch, status):
    monkeypatch.chdir(tmp_path)
    configuration.family["data"] |= {"source": "images", "path": "pictures", "name": "mine", "classes": 2}
    configuration.write()
    assert "2 for files from outside" in status("main")[1][1]
    (tmp_path / "pictures").mkdir()
    assert "2 for their turn" in status("main")[1][1]


def test_what_waits_is_timed_by_the_pace_of_the_scale(configuration, tmp_path, monkeypatch, status):
    monkeypatch.chdir(tmp_path)
    configuration.scale["pace"] = {"training": 1.0, "sampling": 1.0, "job": 3600.0}
    configuration.write()
    _, lines = status("main", "--cores", "2")
    assert lines[-1].startswith("what does not run yet: about ")
    assert " at the pace of config/scales/tiny.yaml" in lines[-1]
    assert status("--cores", "0") == (2, [])


def test_what_runs_is_not_what_is_still_ahead(configuration, tmp_path, monkeypatch):
    """All trainings of a run, whichever of them is at work; its samples and metrics are ahead."""
    monkeypatch.chdir(tmp_path)
    plan = configuration.plan()
    run = plan.run("plain", 0)
    assert Status(plan, ["main"]).remaining().steps == 240
    log = plan.path(Log.train, run=run.id, step=80)
    log.parent.mkdir(parents=True)
    log.touch()
    ahead = Status(plan, ["main"]).remaining()
    assert (ahead.steps, ahead.images) == (160, 24)
    assert run not in ahead.trained


# ------------------------------------------------------------------------------------------------ a training


def test_a_training_runs_is_killed_stops_and_goes_on(plan, start, status):
    process, run, log = train(plan, start)
    code, (summary, line) = status()
    assert (code, summary) == (0, "begun: 4 of 5 done, 1 running")
    assert line.split()[:2] == ["running", f"train/{run.id}"]
    assert " of 400000 steps " in line
    assert " steps/s " in line
    assert line.split(" left")[0].split()[-1] in ("minutes", "hours", "days")
    report = reports(status, "main")[f"train/{run.id}"]
    assert (report["state"], report["total"], report["unit"]) == ("running", 4 * STEPS, "steps")
    assert 0 < report["made"] < STEPS
    assert report["seconds_left"] == pytest.approx((4 * STEPS - report["made"]) / report["rate"])

    process.kill()
    process.wait()
    wait_long(plan)
    code, (summary, line) = status()
    assert (code, summary) == (0, "begun: 4 of 5 done, 1 ended")
    assert line.endswith(f"{log}: without a word (killed?); the same command goes on")
    assert " of 400000 steps " in line
    assert "left" not in line

    process, *_ = train(plan, start)
    until(lambda: "going on from step" in log.read_text(), process)
    assert of(status()[1], "running")
    process.terminate()
    process.wait()
    code, (summary, line) = status()
    assert (code, summary) == (0, "begun: 4 of 5 done, 1 stopped")
    assert f"{log}: plain seed 0 by SIGTERM at step " in line
    assert line.endswith("; the same command goes on")


def test_a_training_that_stands_still_runs_no_more(plan, start, status):
    process, *_ = train(plan, start)
    process.send_signal(signal.SIGSTOP)
    wait_long(plan)
    assert of(status()[1], "ended")
    process.send_signal(signal.SIGCONT)
    until(lambda: of(status()[1], "running"), process)


def test_a_training_by_hand_runs_and_stops(plan, start, status, tmp_path):
    """Without a job's log; it is what was begun, whether a target asks for it or not."""
    process = start(tmp_path / "mine.log", "train", "aligned@4", "--seed", "0")
    run = plan.run("aligned", 0)
    until(lambda: log_file(plan, run).exists() and log_file(plan, run).stat().st_size, process)
    (line,) = of(status()[1], "running")
    assert line.split()[1] == f"train/{run.id}"
    process.terminate()
    process.wait()
    wait_long(plan)
    (line,) = of(status()[1], "stopped")
    assert line.endswith("begun by hand; the same command goes on")


def test_one_on_another_machine_runs_as_long_as_its_lease_is_renewed(plan, status):
    """Nothing but its files is seen of it."""
    run = plan.run("plain", 0)
    hold(plan, run)
    log_file(plan, run).write_text(log_line(run.id, {"step": 1000, "steps_per_second": 0.05}))
    (line,) = of(status()[1], "running")
    assert line.split()[1:] == (
        f"train/{run.id} 1000 of 400000 steps 3 steps/min 92 days left process 7 on n2 (SLURM job 45)".split()
    )
    assert reports(status)[f"train/{run.id}"]["where"] == "process 7 on n2 (SLURM job 45)"
    wait_long(plan)
    (line,) = of(status()[1], "ended")
    assert "1000 of 400000 steps" in line


def test_an_error_is_said_with_its_log_and_what_hangs_on_it(plan, start, status):
    run = plan.run("aligned", 0)
    shard = plan.path(Pattern.latents, latents=run.keys.latents) / "shard-00000.npz"
    shard.write_bytes(shard.read_bytes()[:-100])
    log = plan.path(Log.train, run=run.id, step=run.step_at(4))  # where a teacher is asked for
    assert start(log, "train", "aligned@4").wait() == 2
    code, lines = status("main")
    (line,) = of(lines, "failed")
    assert code == 1
    assert line.split()[:2] == ["failed", f"train/{run.id}"]
    assert f"{log}: {shard}: " in line
    assert lines[1] == line
    # Its samples and metrics, the teacher, and the run that it guides with its samples and metrics; and the table.
    assert "7 for what failed" in lines[-1]
    report = reports(status)[f"train/{run.id}"]
    assert (report["state"], report["log"]) == ("failed", str(log))
    assert str(shard) in report["reason"]


def test_an_error_of_an_earlier_attempt_is_forgotten_when_it_runs_again(plan, status):
    run = plan.run("plain", 0)
    log = plan.path(Log.train, run=run.id, step=run.step_at(8))
    log.parent.mkdir(parents=True)
    log.write_text("error: the disk is full\n")
    assert status()[0] == 1
    hold(plan, run)
    code, (_, line) = status()
    assert (code, line.split()[0]) == (0, "running")


def test_what_is_there_is_done_whatever_its_log_says(plan, status):
    run = plan.run("plain", 0)
    log = plan.path(Log.train, run=run.id, step=4 * STEPS)
    for path in (plan.weights(run, 4 * STEPS), log):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("error: no\n")
    assert reports(status, "main")[f"train/{run.id}"]["state"] == "done"
    code, lines = status("main", "--all")
    assert code == 0
    assert f"done     train/{run.id}" in [line.rstrip() for line in lines]


# ------------------------------------------------------------------------------------------------ other jobs


def test_of_packed_rows_the_shards_are_counted_in_each_part(configuration, tmp_path, monkeypatch, status):
    """Eight shards, of which the second of two jobs makes every other one, and has not made the last."""
    monkeypatch.chdir(tmp_path)
    configuration.family["data"] |= {"shard": 180, "parts": 2}
    configuration.write()
    plan = configuration.plan()
    assert main(["pack-images", "--family", "small", "--split", "train", "--part", "2/2", "--config", "config"]) == 0
    where = {"data": plan.keys["small"].data, "split": "train"}
    name = f"{where['data']}.train"
    found = reports(status, "main")
    assert found[f"pack_images/{name}.2-of-2"]["state"] == "done"
    assert found[f"pack_images/{name}.1-of-2"]["reason"] == "their turn"
    assert found[f"pack_images/{name}"]["reason"] == "images"

    plan.path(Pattern.images_part, **where, part=2, parts=2).unlink()
    *_, last = sorted(plan.path(Pattern.images, **where).glob("shard-*.npz"))
    last.unlink()
    log = plan.path(Log.pack_images_part, **where, part=2, parts=2)
    log.parent.mkdir(parents=True)
    log.touch()
    (line,) = of(status("main")[1], "running")
    assert line.split()[1:6] == [f"pack_images/{name}.2-of-2", "3", "of", "4", "shards"]


@pytest.mark.parametrize("shards", [1, 2])
def test_of_samples_the_batches_are_counted_and_timed(configuration, tmp_path, monkeypatch, status, shards):
    """Four batches of two images, one every ten seconds, by one job or two; three are there."""
    monkeypatch.chdir(tmp_path)
    configuration.family["presets"]["headline"] |= {"batch_size": 2, "shards": shards}
    plan = configuration.plan()
    run = plan.run("plain", 0)
    where = {"run": run.id, "step": 80, "preset": run.preset_key("headline")}
    folder = plan.path(Pattern.batches, **where, key="0a1b2c3d")
    folder.mkdir(parents=True)
    for number in range(3):
        path = folder / f"batch-{number:05d}.npz"
        path.touch()
        os.utime(path, (1e9 + 10 * number,) * 2)
    log = plan.path(Log.sample_shard, **where, shard=1, shards=2) if shards == 2 else plan.path(Log.sample, **where)
    log.parent.mkdir(parents=True)
    log.touch()
    (line,) = of(status("main")[1], "running")
    made = "2 of 2" if shards == 2 else "3 of 4"
    assert f"{made} batches  0.1 batches/s  1 minute left" in line


def test_a_table_that_fails_is_said_like_all_else(plan, status):
    log = plan.path(Log.table, table="main")
    log.parent.mkdir(parents=True)
    log.write_text("reading\nerror: config/paper/main.csv: 2 lines\nwhere the table has 3; add one\n")
    code, lines = status("main")
    assert code == 1
    assert lines[1] == f"failed  table/main  {log}: config/paper/main.csv: 2 lines where the table has 3; add one"


def test_the_log_of_an_earlier_making_says_nothing_of_the_next(configuration, tmp_path, monkeypatch, status):
    """After an edit a table waits for its rows, however fresh the log of its last making is."""
    monkeypatch.chdir(tmp_path)
    plan = configuration.plan()
    log = plan.path(Log.table, table="main")
    log.parent.mkdir(parents=True)
    log.write_text("results/main.csv\n")
    _, lines = status("main")
    assert not any(line.startswith(("running", "ended")) for line in lines)


def test_of_a_log_the_end_alone_is_read(configuration, tmp_path, monkeypatch, status):
    monkeypatch.chdir(tmp_path)
    plan = configuration.plan(seeds=4)
    for run in plan.runs.values():
        hold(plan, run)
        line = log_line(run.id, {"step": 10, "steps_per_second": 1.5})
        log_file(plan, run).write_text("not a line of a log\n" * 10_000 + line)
    code, lines = status("--seeds", "4")
    assert (code, len(of(lines, "running"))) == (0, 12)
