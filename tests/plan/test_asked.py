import pytest

from selftrans.config.reading.project import load_project
from selftrans.plan.asked import EVERY, asked_epochs
from selftrans.plan.plan import Plan
from workflow import REPOSITORY


@pytest.fixture(scope="module")
def demo():
    return Plan(load_project(REPOSITORY / "config", scale="demo"))


def test_rows_of_tables_and_what_they_are_compared_with(configuration):
    asked = asked_epochs(configuration.project())
    assert asked["plain"] == {8}


def test_a_row_of_an_ablation_is_trained_in_one_go(demo):
    run, step = demo.milestone("sit-b2-st-w15@80", 0)
    assert run.milestone_before(step) is None
    assert [found for found in run.milestones if found < step] == [160, 320]


def test_a_teacher_is_asked_for_by_its_student(demo):
    """Table 5's guiding models of 50K steps and more, at epochs that the scale has stretched."""
    stretch = demo.scale.families["sit256"].stretch.teacher
    asked = asked_epochs(demo.project)["sit-b2-vae"]
    for epoch in (10, 20, 40, 60):
        assert epoch * stretch in asked


def test_figures_ask_for_milestones_and_for_whole_runs(configuration):
    folder = configuration.write()
    (folder / "figures.yaml").write_text("one:\n  kind: curves\n  runs: [plain]\ntwo:\n  run: aligned@6\n")
    asked = asked_epochs(load_project(folder))
    assert asked["plain"] is EVERY
    assert asked["aligned"] == {4, 6, 8}
    plan = Plan(load_project(folder))
    plain, aligned = plan.run("plain", 0), plan.run("aligned", 0)
    assert [plain.milestone_before(step) for step in plain.milestones] == [None, *list(plain.milestones)[:-1]]
    assert aligned.milestone_before(aligned.step_at(8)) == aligned.step_at(6)
