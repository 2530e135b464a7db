"""The pace of trainings that were logged, of a scale, or of a GPU: which of them counts, and by how much."""

import json

import pytest

from selftrans.plan.paths import Pattern
from selftrans.reporting import pace as module
from selftrans.reporting.pace import devices_held, known_pace, recent_speeds
from selftrans.training.log import log_line

BLOCK = 16 * (12 * 16**2 + 2 * 16 * 16)  # multiplications of 16 tokens of width 16
STEP = 3 * 4 * 6 * BLOCK / 1e9  # 10^9 multiplications of a step of `plain`: four images, six blocks, three passes
STATED = {
    "training": STEP,
    "sampling": 2.0,
    "job": 3.0,
    "decoding": 0.5,
    "sources": {"train_encoder": 8.0},
}  # a step a second


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def logged(plan, name, *speeds, seed=0, first=20):
    """The log of a run with a line each 20 steps."""
    run = plan.run(name, seed)
    path = plan.path(Pattern.work, run=run.id) / "log.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    steps = range(first, first + 20 * len(speeds), 20)
    lines = zip(steps, speeds, strict=True)
    path.write_text(
        "".join(log_line(run.id, {"step": step, "loss": 1.5, "steps_per_second": speed}) for step, speed in lines)
    )
    return path, run


def test_without_anything_no_pace_is_known(configuration):
    assert known_pace(configuration.plan()) is None


def test_a_scale_says_its_pace(configuration):
    configuration.scale["pace"] = STATED
    plan = configuration.plan()
    known = known_pace(plan)
    assert (known.pace, known.source) == (plan.scale.pace, f"the pace of {plan.project.scale_file}")


def test_what_was_logged_goes_before_what_the_scale_says(configuration):
    """Two steps a second, where the scale has one: jobs and sources take half of its time."""
    configuration.scale["pace"] = STATED
    plan = configuration.plan()
    logged(plan, "plain", *[2.0] * 40)
    known = known_pace(plan)
    assert known.pace.sources == {"train_encoder": pytest.approx(4.0)}
    expected = {"training": 2 * STEP, "sampling": 4.0, "job": 1.5, "decoding": 0.25}
    assert known.pace.model_dump(include=set(expected)) == pytest.approx(expected)
    assert known.source == "the pace that a run had whose logs are in results/tiny/work"


def test_jobs_of_a_gpu_start_no_sooner_for_its_speed(configuration):
    configuration.scale["pace"] = STATED | {"device": "GPU"}
    plan = configuration.plan()
    logged(plan, "plain", *[2.0] * 40)
    assert (known_pace(plan).pace.job, known_pace(plan).pace.training) == pytest.approx((3.0, 2 * STEP))


def test_the_median_of_the_runs_counts_and_the_time_of_all_lines_of_a_run(configuration):
    configuration.scale["pace"] = STATED
    plan = configuration.plan(claim_seeds=3)
    for seed, speed in enumerate((1.0, 3.0, 100.0)):
        logged(plan, "plain", *[speed] * 40, seed=seed)
    assert known_pace(plan).pace.training == pytest.approx(3 * STEP)
    assert "3 runs" in known_pace(plan).source
    plan = configuration.plan()
    logged(plan, "plain", *[1.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0] * 5)  # every fourth line, from the last: all have 3
    assert known_pace(plan).pace.training == pytest.approx(3 * STEP)
    logged(plan, "plain", *[0.5, 9, 9, 2.0] * 5 + [0.5, 9, 9, 0.5] * 5)  # half of the steps in four fifths of the time
    assert known_pace(plan).pace.training == pytest.approx(0.8 * STEP)


def test_what_a_step_does_counts(configuration):
    """A guided step goes through a teacher too, and has a method; after its stop at 30 it has neither."""
    configuration.scale["pace"] = STATED | {"method": 1.5}
    plan = configuration.plan()
    logged(plan, "guided", *[1.0] * 20, first=1)  # one of four steps from the last on: 381, 301, ..., 61
    assert known_pace(plan).pace.training == pytest.approx(STEP)
    run = plan.run("guided", 0)
    lines = [log_line(run.id, {"step": step, "loss": 1.0, "steps_per_second": 1.0}) for step in range(1, 21)]
    (plan.path(Pattern.work, run=run.id) / "log.jsonl").write_text("".join(lines))
    assert known_pace(plan).pace.training == pytest.approx(1.5 * (6 + 8 / 3) / 6 * STEP)


def test_a_young_run_tells_nothing(configuration):
    configuration.scale["pace"] = STATED
    plan = configuration.plan()
    logged(plan, "plain", *[2.0] * 16)
    assert known_pace(plan).pace == plan.scale.pace
    logged(plan, "plain", *[2.0] * 17)
    assert known_pace(plan).pace.training == pytest.approx(2 * STEP)


def test_a_job_that_had_several_cores_or_gpus_shared_them(configuration):
    configuration.scale |= {"threads": {"train": 3, "other": 2}, "pace": STATED}
    plan = configuration.plan(ranks=2)
    logged(plan, "plain", *[12.0] * 40)
    assert known_pace(plan).pace.training == pytest.approx(12 / 6 * STEP)
    assert [devices_held(plan, "core", trains) for trains in (True, False)] == [6, 2]
    assert [devices_held(plan, "GPU", trains) for trains in (True, False)] == [2, 1]
    configuration.scale["pace"] |= {"device": "GPU"}
    assert known_pace(configuration.plan(ranks=2)).pace.training == pytest.approx(12 / 2 * STEP)


def test_without_a_scales_pace_what_was_logged_does(configuration):
    plan = configuration.plan()
    logged(plan, "plain", *[2.0] * 40)
    pace = known_pace(plan).pace
    assert (pace.device, pace.training, pace.sampling) == ("core", *[pytest.approx(2 * STEP)] * 2)


def test_the_end_of_a_long_log_is_read_and_damage_says_nothing(configuration):
    plan = configuration.plan()
    path, run = logged(plan, "plain", *[1.0] * 1000, *[2.0] * 200)
    speeds = recent_speeds(path, run.id)
    assert (max(speeds), set(speeds.values())) == (20 * 1200, {2.0})
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"kind": "log", "run": ')
    assert recent_speeds(path, run.id) == speeds
    path.write_bytes(b"\xff\x00\n" * 10 + b"[1]\n" * 10)
    assert recent_speeds(path, run.id) == {}
    path.write_bytes(whole)
    assert recent_speeds(path, "another-s0-00000000") == {}
    assert recent_speeds(path.with_name("nothing"), run.id) == {}


def test_lines_are_those_that_trainings_write(configuration):
    """Which names stand in a line, and in which order, is known to both."""
    path, run = logged(configuration.plan(), "plain", 12.25)
    assert list(json.loads(path.read_text()))[-2:] == ["steps_per_second", "seal"]
    assert recent_speeds(path, run.id) == {20: 12.25}


@pytest.mark.parametrize(
    ("kind", "peak", "name"),
    [
        ("NVIDIA H200", 989, "H200"),
        ("NVIDIA A100-SXM4-80GB", 312, "A100"),
        ("NVIDIA GeForce RTX 4090", 165, "RTX 4090"),
    ],
)
def test_a_gpu_has_a_share_of_its_peak(configuration, monkeypatch, kind, peak, name):
    monkeypatch.setattr(module, "kinds", lambda: [kind])
    assert known_pace(configuration.plan()) is None  # in float32, of which the peak says nothing
    configuration.family["precision"] = "bfloat16"
    known = known_pace(configuration.plan())
    assert known.pace.device == "GPU"
    assert known.pace.training == known.pace.sampling == pytest.approx(0.35 * peak * 1e3 / 2)
    assert known.source == f"35% of the {peak} TFLOP/s that an {name} does at most"
    monkeypatch.setattr(module, "kinds", lambda: ["NVIDIA GeForce GTX 1080"])
    assert known_pace(configuration.plan()) is None
