"""The jobs behind results: those of the Snakefile, and no more of them than have to be done."""

import re

import pytest
from toy import SMOKE, smoke_plan

from selftrans.config.reading.project import load_project
from selftrans.plan.jobs import Jobs, job_of
from selftrans.plan.paths import Log, Pattern
from selftrans.plan.plan import Curve, Plan
from selftrans.reporting.figures.registry import figures_of
from selftrans.reporting.status import Status
from workflow import REPOSITORY, snakemake


@pytest.fixture
def plan(configuration, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    configuration.every_milestone = True
    return configuration.plan()


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def asked(plan, *paths):
    jobs = Jobs(plan)
    jobs.ask(paths)
    return jobs


def rules(jobs):
    return sorted(job.rule for job in jobs)


@pytest.mark.workflow
@pytest.mark.parametrize("scale", [None, "imagenet"])
def test_they_are_those_that_snakemake_would_run(tmp_path, scale):
    """Of what trains, imports, shares the work among parts and shards, guides, and is drawn."""
    folder = SMOKE if scale is None else REPOSITORY / "config"
    plan = smoke_plan() if scale is None else Plan(load_project(folder, scale=scale))
    names = [*plan.targets, *(f"figures/{name}" for name in figures_of(plan)), *(["speed"] if scale else [])]
    targets = [f"results/{name}.{'pdf' if '/' in name else 'csv'}" for name in names]
    options = () if scale is None else ("--config", f"folder={folder}", f"scale={scale}")
    planned = snakemake("-n", "--quiet", "progress", *options, "--", *targets, folder=tmp_path, config=folder)
    assert planned.returncode == 0, planned.stderr
    logs = set(re.findall(r"^    log: (\S+)", planned.stdout + planned.stderr, re.MULTILINE))
    assert len(logs) > 50
    assert {str(job.log) for job in Status(plan, names).jobs.to_do} == logs


def test_a_file_is_made_by_the_job_whose_log_says_the_same(plan):
    run = plan.run("guided", 0)
    job = job_of(plan, plan.weights(run, 30))
    assert (job.rule, job.log) == ("train", plan.path(Log.train, run=run.id, step=30))
    assert job.name == f"train/{run.id}.step-30"
    stats = plan.path(Pattern.latent_stats, latents=run.keys.latents)
    assert job.inputs == (plan.weights(run, 20), stats, plan.teacher_file(run.teacher))
    assert job_of(plan, plan.weights(run, 40)).inputs == (plan.weights(run, 30), stats)  # after the stop


def test_files_of_nobody_here_are_made_by_no_job(plan):
    assert job_of(plan, plan.root / "notes.txt") is None
    assert job_of(plan, plan.root.parent / "table5.csv") is None
    assert job_of(plan, plan.path(Pattern.ema, run="other-s0-01234567", step=20)) is None


def test_what_a_file_was_made_of_is_not_missed_once_it_is_there(plan):
    """Weights at 20 are there, at 40 not: the shared data below them, gone or not, are needed by the second alone."""
    run = plan.run("plain", 0)
    touch(plan.weights(run, 20), plan.path(Pattern.latent_stats, latents=run.keys.latents))
    jobs = asked(plan, plan.weights(run, 20))
    assert (jobs.to_do, rules(jobs.done)) == ([], ["extract_latents", "train"])
    jobs = asked(plan, plan.weights(run, 20), plan.weights(run, 40))
    assert (rules(jobs.to_do), rules(jobs.done)) == (["train"], ["extract_latents", "train"])
    jobs = asked(plan, plan.weights(run, 20), plan.metrics("plain@4", 0, "headline"))
    stages = ["evaluate", "make_reference", "pack_images", "pack_images", "sample", "train"]
    assert rules(jobs.to_do) == [*stages, "train_extractor", "train_tokenizer"]


def test_temporary_weights_that_a_teacher_still_needs_are_made_again(plan, configuration):
    configuration.rows["guided"]["teacher_weights"] = "online"
    plan = configuration.plan()
    teacher = plan.run("guided", 0).teacher
    touch(plan.weights(teacher.run, 20), plan.weights(teacher.run, 40))
    jobs = asked(plan, plan.weights(teacher.run, 40), plan.teacher_file(teacher))
    assert [job.name for job in jobs.to_do if job.rule == "train"] == [f"train/{teacher.run.id}.step-40"]
    touch(plan.teacher_file(teacher))
    assert asked(plan, plan.weights(teacher.run, 40), plan.teacher_file(teacher)).to_do == []


def test_a_job_stands_after_those_that_it_waits_for(plan):
    """Thirteen trainings, three samples, three metrics, a teacher; images twice, and four more below all."""
    jobs = asked(plan, *plan.metrics_of(plan.project.tables["main"]))
    place = {job.log: number for number, job in enumerate(jobs.to_do)}
    assert len(place) == 26
    for job in jobs.to_do:
        assert all(place[before.log] < place[job.log] for before in jobs.waits_for(job)), job.name


# ------------------------------------------------------------------------ below what is trained, sampled, measured


@pytest.fixture
def imagenet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Plan(load_project(REPOSITORY / "config", scale="imagenet"))


def below(plan, *paths):
    """The rules of what has to be done for some files, parts apart, but for the jobs that make these themselves."""
    jobs = asked(plan, *paths)
    own = {job_of(plan, path).log for path in paths}
    return {job.rule.removesuffix("_part") for job in jobs.to_do if job.log not in own}


def test_a_training_needs_latents_and_those_the_vae(imagenet):
    run = imagenet.run("sit-b2", 0)
    (first, *_) = run.milestones
    assert below(imagenet, imagenet.weights(run, first)) == {"extract_latents", "import_tokenizer"}
    repa = imagenet.run("sit-b2-repa", 0)
    images = {"pack_images", "import_encoder"}
    assert below(imagenet, imagenet.weights(repa, first)) == {"extract_latents", "import_tokenizer", *images}


def test_what_is_measured_needs_extractor_and_reference(imagenet):
    run, step = imagenet.milestone("sit-b2@80", 0)
    touch(imagenet.samples_file(run, step, "headline"))
    assert below(imagenet, imagenet.metrics("sit-b2@80", 0, "headline")) == {"import_extractor", "import_reference"}


def test_published_weights_need_no_latents(imagenet):
    run = imagenet.run("published-sit-xl2", 0)
    (step,) = run.milestones
    samples = imagenet.samples_file(run, step, "headline")
    assert below(imagenet, samples) == {"import_published", "import_tokenizer", "sample_shard"}


def test_neither_what_is_there_nor_what_it_was_made_of_is_made(imagenet):
    run = imagenet.run("sit-b2", 0)
    (step, *_) = run.milestones
    touch(imagenet.path(Pattern.latent_stats, latents=run.keys.latents))
    assert below(imagenet, imagenet.weights(run, step)) == set()
    both = imagenet.weights(run, step), imagenet.samples_file(run, step, "headline")
    assert below(imagenet, *both) == {"import_tokenizer", "sample_shard"}


def test_what_is_trained_here_needs_the_images_of_both_splits(plan):
    run = plan.run("plain", 0)
    jobs = asked(plan, plan.weights(run, 20))
    packed = [job.wildcards["split"] for job in jobs.to_do if job.rule == "pack_images"]
    assert sorted(packed) == ["test", "train"]
    assert rules(jobs.to_do) == ["extract_latents", "pack_images", "pack_images", "train", "train_tokenizer"]


# ------------------------------------------------------------------------------------------------ what methods cost


def test_the_curves_of_what_is_paid_are_as_long_as_others_need_the_runs(configuration):
    """Alignment teaches until epoch 4 and stands in the table until 2; of the second seed only a claim knows."""
    configuration.compute = {"vanilla": "plain", "methods": ["aligned", "guided"], "preset": "headline"}
    rows = configuration.tables["main"]["rows"]
    configuration.tables["main"] |= {"compare_with": "plain@8", "rows": rows}
    rows[1]["run"] = "aligned@2"
    assert configuration.plan().curves == {
        "plain": Curve((2, 4, 6, 8), (0,)),
        "aligned": Curve((2, 4), (0,)),
        "guided": Curve((2, 4, 6, 8), (0,)),
    }
    claim = {"says": "", "source": "", "better": "guided@6", "worse": "plain@8"}
    configuration.claims = {"helps": claim}
    found = configuration.plan(claim_seeds=2).curves
    assert found["plain"] == Curve((2, 4, 6, 8), (0, 1))
    assert found["guided"] == Curve((2, 4, 6), (0, 1))  # as far as it goes at both seeds
    claim["worse"] = "aligned@2"
    assert configuration.plan(claim_seeds=2).curves["guided"] == Curve((2, 4, 6, 8), (0,))  # none to compare with


def test_without_a_vanilla_run_that_others_need_nothing_is_compared(configuration):
    configuration.compute = {"vanilla": "plain", "methods": ["aligned"], "preset": "headline"}
    configuration.tables["main"] |= {"compare_with": "aligned@8", "paper": None}
    configuration.tables["main"]["rows"] = [{"label": "stage 1", "run": "aligned@8"}]
    plan = configuration.plan()
    assert (plan.curves, "compute" in plan.targets) == ({}, False)


@pytest.mark.parametrize("scale", ["demo", "imagenet", "imagenet100"])
def test_nothing_is_trained_for_what_methods_cost(scale, tmp_path, monkeypatch):
    """Only milestones that are passed anyway are sampled and measured besides."""
    plan = Plan(load_project(REPOSITORY / "config", scale=scale))
    monkeypatch.chdir(tmp_path)
    others = [name for name in plan.targets if name != "compute"]
    anyway = asked(plan, *(path for name in others for path in plan.metrics_of_target(name)))
    found = asked(plan, *plan.metrics_of_compute())
    added = {job.log for job in found.to_do} - {job.log for job in anyway.to_do}
    rules_added = {job.rule for job in found.to_do if job.log in added}
    assert added
    assert rules_added <= {"sample", "sample_shard", "evaluate"}
