"""Whose steps Sec. 4.5 times at a scale, and how many of which kind a row takes with all that it rests on."""

import csv

import pytest

from selftrans.config.reading.project import load_project
from selftrans.plan.plan import Plan
from selftrans.plan.speed import lengths, own_steps, paper_file, phases_of, steps_before, timed_runs
from workflow import REPOSITORY


@pytest.fixture
def told(configuration):
    """The small configuration, with the paper's figures."""
    (configuration.write() / "paper" / "speed.csv").write_text("phase,steps\nvanilla,10\n")
    return configuration


def labels(plan):
    return {phase.label: phase.kind for phase in phases_of(timed_runs(plan))}


def test_every_kind_of_step_has_the_papers_name(told):
    """Stage 1 has no stop, so its steps are of one kind; ours are of two."""
    expected = {"vanilla": ("plain", False), "VAE alignment": ("aligned", False)}
    expected |= {"ours guided": ("guided", False), "ours after its stop": ("guided", True)}
    assert labels(told.plan()) == expected
    told.rows["eye"] = {"like": "aligned", "method": {"name": "repa", "layer": 2}}
    assert list(labels(told.plan())) == ["vanilla", "VAE alignment", "REPA", "ours guided", "ours after its stop"]


def test_a_row_without_a_stop_has_one_kind_of_steps(told):
    told.rows["guided"]["stop"] = None
    assert labels(told.plan())["ours"] == ("guided", False)


def test_the_papers_example_comes_before_larger_models_and_those_before_smaller_ones(told):
    for name in ("plain", "aligned", "guided"):
        told.rows[f"small-{name}"] = {"like": name, "model": "nu"}
    told.rows["small-guided"]["teacher"] = "small-aligned@4"
    told.rows = dict(reversed(told.rows.items()))
    told.tables["main"]["rows"].append({"label": "small", "run": "small-guided@8"})
    told.paper += "24.0,60.0\n"
    assert timed_runs(told.plan())[-1].name == "guided"
    assert timed_runs(told.plan(only="small-*"))[-1].name == "small-guided"
    told.family["models"]["sit-b2"] = told.family["models"].pop("nu")
    for name in ("plain", "aligned", "guided"):
        told.rows[f"small-{name}"]["model"] = "sit-b2"
    assert [run.name for run in timed_runs(told.plan())] == ["small-plain", "small-aligned", "small-guided"]


def test_nothing_is_timed_without_the_papers_figures_or_without_ours(told):
    paper_file(told.plan()).unlink()
    assert timed_runs(told.plan()) == []
    paper_file(told.plan()).touch()
    assert timed_runs(told.plan(only="plain")) == []


def test_a_row_rests_on_its_guiding_model(told):
    """Guided for 30 of 80 steps, by the weights of another row after 40."""
    plan = told.plan()
    guided = plan.run("guided", 0)
    assert own_steps(guided, 80) == {("guided", False): 30, ("guided", True): 50}
    assert own_steps(guided, 20) == {("guided", False): 20}
    assert steps_before(guided) == {("aligned", False): 40}
    assert steps_before(plan.run("aligned", 0)) == {}


def test_a_guiding_model_that_was_guided_itself_brings_its_own(told):
    told.rows["again"] = {"like": "guided", "teacher": "guided@4"}
    told.rows["guided"]["weight"] = 0.25
    assert steps_before(told.plan().run("again", 0)) == {
        ("aligned", False): 40,
        ("guided", False): 30,
        ("guided", True): 10,
    }


def test_lengths_are_those_of_the_tables_each_once(told):
    told.tables["main"]["rows"][0]["run"] = "plain@4"
    told.tables["more"] = {**told.tables["main"], "rows": [{"label": "longer", "run": "plain@6"}], "paper": None}
    told.tables["more"]["rows"] += told.tables["main"]["rows"][:1]
    plan = told.plan()
    found = [(reference, step) for _, reference, step in lengths(plan, timed_runs(plan))]
    assert found == [("plain@4", 40), ("plain@6", 60), ("aligned@8", 80), ("guided@8", 80)]


@pytest.mark.parametrize("scale", ["demo", "imagenet", "imagenet100"])
def test_this_projects_scales_time_what_the_paper_times(scale):
    plan = Plan(load_project(REPOSITORY / "config", scale=scale))
    assert [run.name for run in timed_runs(plan)] == ["sit-b2", "sit-b2-vae", "sit-b2-repa", "sit-b2-st"]
    with paper_file(plan).open() as file:
        assert {line["phase"] for line in csv.DictReader(file)} == {*labels(plan), "ours"}


def test_the_papers_hours_are_its_steps_at_its_speeds():
    """To the rounding of the speeds; what has no hours of its own is a part of ours."""
    with (REPOSITORY / "config" / "paper" / "speed.csv").open() as file:
        lines = {line["phase"]: line for line in csv.DictReader(file)}
    hours = {
        phase: float(line["steps"]) / float(line["steps_per_second"]) / 3600
        for phase, line in lines.items()
        if line["steps_per_second"]
    }
    hours["ours"] = hours["ours guided"] + hours["ours after its stop"]
    said = {phase: float(line["hours"]) for phase, line in lines.items() if line["hours"]}
    assert said == pytest.approx({phase: hours[phase] for phase in said}, abs=0.02)
