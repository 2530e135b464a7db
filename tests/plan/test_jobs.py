"""The jobs behind results: those of the Snakefile, and no more of them than have to be done."""

import re

import pytest
from toy import SMOKE, smoke_plan

from selftrans.config.reading.project import load_project
from selftrans.plan.jobs import Jobs, job_of
from selftrans.plan.paths import Log, Pattern
from selftrans.plan.plan import Plan
from selftrans.reporting.figures.registry import figures_of
from selftrans.reporting.status import Status
from workflow import REPOSITORY, snakemake


@pytest.fixture
def plan(configuration, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
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
    names = [*plan.targets, *(f"figures/{name}" for name in figures_of(plan))]
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
