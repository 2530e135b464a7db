"""Jobs that remain, counted by hand on three rows of depth 6 with milestones of 20, 40, 60 and 80 steps."""

from pathlib import Path

import pytest

from selftrans.config.reading.project import load_project
from selftrans.config.scales import Pace
from selftrans.plan import size
from selftrans.plan.jobs import IMAGES
from selftrans.plan.paths import Log, Pattern
from selftrans.plan.plan import Plan, Probe
from selftrans.reporting.remaining import Remaining

CONFIG = Path(__file__).parents[2] / "config"

BLOCK = 16 * (12 * 16**2 + 2 * 16 * 16)  # multiplications of 16 tokens of width 16
# A second a block for a step of four images, each worth three passes; a quarter of that for an image that is sampled.
PACE = Pace(training=12 * BLOCK / 1e9, sampling=4 * BLOCK / 1e9, job=10.0)

VANILLA = 6.0  # blocks of a step
GUIDED = 6 + 2 / 3 * 4  # and two forward passes, of three that a step is worth, through the teacher's four blocks
SAMPLING = 10 + 2 * 6 * 8 / 4  # seconds for two steps, six blocks, eight images
EVALUATION = FREEZING = 10


@pytest.fixture
def plan(configuration, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    configuration.every_milestone = True
    return configuration.plan()


def remaining(plan, *references):
    return Remaining(plan, [plan.metrics(reference, 0, "headline") for reference in references])


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def training(*segments):
    """Seconds of jobs that make so many steps through so many blocks."""
    return sum(10 + steps * blocks for steps, blocks in segments)


def test_a_run_is_trained_milestone_by_milestone(plan):
    found = remaining(plan, "plain@8")
    assert (found.steps, found.images, [run.name for run in found.trained]) == (80, 8, ["plain"])
    assert found.seconds(PACE, devices=1) == pytest.approx(training(*[(20, VANILLA)] * 4) + SAMPLING + EVALUATION)


def test_a_guided_run_brings_its_teacher_and_is_slower_until_its_stop(plan):
    """Milestones at 20, the stop at 30, 40, 60, 80; the teacher is trained for 40 steps."""
    found = remaining(plan, "guided@8")
    assert (found.steps, found.images, {run.name for run in found.trained}) == (120, 8, {"aligned", "guided"})
    teacher = training((20, VANILLA), (20, VANILLA)) + FREEZING
    student = training((20, GUIDED), (10, GUIDED), (10, VANILLA), (20, VANILLA), (20, VANILLA))
    assert found.seconds(PACE, devices=1) == pytest.approx(teacher + student + SAMPLING + EVALUATION)


def test_what_several_need_is_done_once(plan):
    """The teacher is a row of its own, trained further."""
    found = remaining(plan, "guided@8", "aligned@8", "guided@8")
    assert (found.steps, found.images) == (160, 16)


def test_what_is_there_is_not_done_again(plan):
    run = plan.run("guided", 0)
    touch(plan.teacher_file(run.teacher))
    touch(plan.weights(run, 40))
    found = remaining(plan, "guided@8")
    assert (found.steps, found.images) == (40, 8)
    touch(plan.samples_file(run, 80, "headline"))
    found = remaining(plan, "guided@8")
    assert (found.steps, found.images, len(found.jobs)) == (0, 0, 1)
    touch(plan.metrics("guided@8", 0, "headline"))
    assert remaining(plan, "guided@8").jobs == {}
    assert remaining(plan, "guided@8").seconds(PACE, devices=2) == 0


def test_a_teacher_of_weights_that_are_gone_is_trained_again_from_the_milestone_before(plan, configuration):
    """Online weights are temporary: the moving average beside them does not help."""
    configuration.rows["guided"]["teacher_weights"] = "online"
    plan = configuration.plan()
    teacher = plan.run("guided", 0).teacher
    for step in (20, 40):
        touch(plan.weights(teacher.run, step))
    assert remaining(plan, "guided@8").steps == 80 + 20
    touch(plan.weights(teacher.run, 40, "online"))
    assert remaining(plan, "guided@8").steps == 80


def test_more_cores_help_as_far_as_jobs_do_not_wait_for_each_other(plan):
    alone = remaining(plan, "plain@8")
    assert alone.seconds(PACE, devices=100) == alone.seconds(PACE, devices=1)
    both = remaining(plan, "plain@8", "aligned@8")
    assert both.seconds(PACE, devices=1) == pytest.approx(2 * alone.seconds(PACE, devices=1))
    assert both.seconds(PACE, devices=2) == alone.seconds(PACE, devices=1)
    guided, teacher = remaining(plan, "guided@8"), training((20, VANILLA), (20, VANILLA)) + FREEZING
    until_the_teacher = training((20, GUIDED), (10, GUIDED), (10, VANILLA), (20, VANILLA), (20, VANILLA))
    longest = teacher + until_the_teacher + SAMPLING + EVALUATION
    assert guided.seconds(PACE, devices=100) == pytest.approx(longest)  # the student waits for all of its teacher


def test_a_preset_of_a_sweep_has_a_point_in_its_name(configuration, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    configuration.family["sweeps"] = {"sweep": {"preset": "headline", "cfg_scale": [1.5], "cfg_until": [0.75]}}
    plan = configuration.plan()
    (name,) = (name for name in plan.run("plain", 0).family.presets if name.startswith("sweep"))
    assert "." in name
    assert Remaining(plan, [plan.metrics("plain@8", 0, name)]).images == 8


def test_what_figures_look_at_is_trained_and_not_measured(plan):
    """Weights, features and samples; guiding features are the teacher's, trained for 40 steps."""
    guided = plan.run("guided", 0)
    samples = plan.samples_file(guided, 30, "headline")
    for path, steps, images in [
        (plan.weights(guided, 80), 120, 0),
        (plan.features("guided@8", 0, Probe(t=0.5, images=10)), 120, 0),
        (plan.features("guided@8", 0, Probe(t=0.5, images=10, layers="guiding")), 40, 0),
        (plan.features("aligned@8", 0, Probe(t=0.5, images=10, layers="guiding")), 0, 0),  # latents
        (samples, 40 + 30, 8),
        (plan.project.folder / "paper" / "main.csv", 0, 0),
    ]:
        found = Remaining(plan, [path])
        assert (found.steps, found.images) == (steps, images), path
    touch(samples)
    assert Remaining(plan, [samples]).jobs == {}


def test_features_of_a_teacher_need_it_frozen(plan):
    """Its weights are there."""
    teacher = plan.run("guided", 0).teacher
    touch(plan.weights(teacher.run, teacher.step, teacher.weights))
    found = Remaining(plan, [plan.features("guided@8", 0, Probe(t=0.5, images=10, layers="guiding"))])
    assert found.files == [plan.teacher_file(teacher)]
    assert (found.steps, found.seconds(PACE, devices=1)) == (0, FREEZING)


def test_what_runs_is_not_counted_and_nothing_waits_for_it(plan):
    run = plan.run("plain", 0)
    running = {plan.path(Log.train, run=run.id, step=step) for step in run.milestones}
    found = Remaining(plan, [plan.metrics("plain@8", 0, "headline")], running)
    assert (found.steps, found.images, found.trained) == (0, 8, set())
    assert found.seconds(PACE, devices=100) == pytest.approx(SAMPLING + EVALUATION)


def test_shards_of_samples_are_work_of_one_job(configuration, plan):
    alone = remaining(plan, "plain@8")
    configuration.family["presets"]["headline"] |= {"batch_size": 2, "shards": 4}
    found = remaining(configuration.plan(), "plain@8")
    assert (len(found.jobs), found.images) == (len(alone.jobs), alone.images)
    assert found.seconds(PACE, devices=2) == alone.seconds(PACE, devices=2)


def test_parts_of_images_and_latents_are_written_once(configuration, plan):
    alone = remaining(plan, "plain@8")
    configuration.family["data"] |= {"shard": 180, "parts": 4}
    plan = configuration.plan()
    found = remaining(plan, "plain@8")
    assert found.bytes() == alone.bytes()


def test_measuring_through_two_extractors_samples_once(configuration, plan):
    alone = remaining(plan, "plain@8")
    configuration.family["second_extractor"] = {"published": "dinov2-l", "weights": "dinov2.pth"}
    plan = configuration.plan()
    files = [found("plain@8", 0, "headline") for found in (plan.metrics, plan.second_metrics)]
    both = Remaining(plan, files)
    assert (both.steps, both.images) == (alone.steps, alone.images)
    assert both.seconds(PACE, devices=1) == pytest.approx(alone.seconds(PACE, devices=1) + EVALUATION)
    touch(files[0])
    assert len(Remaining(plan, files).jobs) == len(both.jobs) - 1


def test_what_is_written_is_counted_by_folder(plan):
    """Weights of each milestone, one state, a teacher, samples; images and latents of the digits."""
    run = plan.run("guided", 0)
    found = {path.name: count for path, count in remaining(plan, "guided@8").bytes().items()}
    weights = size.weights_bytes(run)
    assert found["runs"] == (2 + 5) * weights
    assert found["work"] == 2 * size.state_bytes(run)
    assert found["teachers"] == size.teacher_bytes(run.backbone, run.teacher.layer)
    assert found["samples"] == 8 * 16 * 16 * 3
    assert found["data"] == 1797 * 16 * 16 * 3
    assert found["latents"] == 1437 * 2 * 4 * 8 * 8 * 4


def test_what_is_there_is_not_written_again(plan):
    run = plan.run("plain", 0)
    touch(plan.weights(run, 20))
    touch(plan.path(Pattern.work, run=run.id) / "state.safetensors")
    touch(plan.path(Pattern.latent_stats, latents=run.keys.latents))
    touch(plan.path(Pattern.tokenizer, tokenizer=run.keys.tokenizer))
    for split in ("train", "test"):
        touch(plan.path(Pattern.images, data=run.keys.data, split=split) / "manifest.json")
    found = {path.name: count for path, count in remaining(plan, "plain@8").bytes().items()}
    assert found == {"runs": 3 * size.weights_bytes(run), "samples": 8 * 16 * 16 * 3}
    touch(plan.metrics("plain@8", 0, "headline"))
    assert remaining(plan, "plain@8").bytes() == {}


def test_sources_are_what_runs_rest_on(plan):
    """Not what is trained, sampled and measured."""
    run = plan.run("plain", 0)
    data = [plan.path(IMAGES, data=run.keys.data, split=split) for split in ("train", "test")]
    tokenizer = plan.path(Pattern.tokenizer, tokenizer=run.keys.tokenizer)
    latents = plan.path(Pattern.latent_stats, latents=run.keys.latents)
    judged = [plan.path(found, extractor=run.keys.extractor) for found in (Pattern.extractor, Pattern.reference)]
    assert set(remaining(plan, "plain@8").sources) == {*data, tokenizer, latents, *judged}
    touch(latents)
    assert set(Remaining(plan, [plan.weights(run, 20)]).sources) == set()


def test_published_weights_are_a_source_and_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = Plan(load_project(CONFIG, scale="imagenet"))
    run = plan.run("published-sit-xl2", 0)
    (step,) = run.milestones
    found = Remaining(plan, [plan.samples_file(run, step, "headline")])
    assert plan.weights(run, step) in found.sources
    assert (found.steps, found.trained, len(found.jobs)) == (0, set(), 1)
    assert found.bytes()[plan.root / "runs"] == size.weights_bytes(run)
    assert plan.root / "work" not in found.bytes()


def test_sources_of_a_figure_are_those_of_its_features(plan):
    features = plan.features("plain@8", 0, Probe(t=0.5, images=4))
    assert plan.path(IMAGES, data=plan.run("plain", 0).keys.data, split="test") in Remaining(plan, [features]).sources
