"""Sec. 4.5 as a table: known seconds become known speeds, hours and prices, beside the paper's."""

import re

import pytest

from selftrans.commands import main
from selftrans.errors import UserError
from selftrans.plan.paths import Log
from selftrans.plan.speed import SPEED, paper_file
from selftrans.reporting.csv import read_csv
from selftrans.reporting.page.render import render_page
from selftrans.reporting.results import find, is_current, key_of, names, publish
from selftrans.reporting.speed import build_speed, speed_to_markdown, speed_to_text
from selftrans.reporting.status import Status

PAPER = """phase,steps,steps_per_second,hours
vanilla,1000,10.0,100
VAE alignment,200,9.0,22
ours guided,100,7.0,
ours after its stop,900,10.0,
ours,1000,,103
"""
MACHINE = {"device": "cpu", "threads": 2, "machine": "Abacus, CPU", "torch": "2.9.0", "commit": "c0ffee"}
MACHINE |= {"turns": 3, "steps_of_a_turn": 10}
SECONDS = {  # of three turns, the last of them on a busy machine
    ("plain", False): [1.0, 1.0, 4.0],
    ("aligned", False): [1.25, 1.25, 5.0],
    ("guided", False): [2.0, 2.0, 8.0],
    ("guided", True): [1.0, 1.0, 4.0],
}


@pytest.fixture
def plan(configuration, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (configuration.write() / "paper" / "speed.csv").write_text(PAPER)
    return configuration.plan()


@pytest.fixture
def frame(plan):
    return build_speed(plan, SECONDS, MACHINE)


def lines(frame, about):
    found = frame[frame["about"] == about]
    return {line["row"]: line for line in found.to_dict("records")}


def test_steps_are_medians_over_turns_and_ratios_those_of_a_turn(frame):
    steps = lines(frame, "step")
    assert {name: line["steps_per_second"] for name, line in steps.items()} == {
        "vanilla": 1.0,
        "VAE alignment": 0.8,
        "ours guided": 0.5,
        "ours after its stop": 1.0,
    }
    assert [line["ratio_to_vanilla"] for line in steps.values()] == [1.0, 0.8, 0.5, 1.0]
    guided = steps["ours guided"]
    assert (guided["slowest"], guided["fastest"]) == (0.125, 0.5)
    assert guided["hours_per_million_steps"] == pytest.approx(2e6 / 3600)
    assert (guided["paper_steps_per_second"], guided["paper_ratio_to_vanilla"]) == (7.0, 0.7)


def test_a_rows_price_is_its_own_steps_and_those_of_what_guided_it(frame):
    """30 guided steps at 2 s and 50 after the stop at 1 s; the guiding model took 40 at 1.25 s; vanilla, 80 at 1 s."""
    ours = lines(frame, "row")["ours"]
    assert (ours["run"], ours["steps"], ours["steps_before"]) == ("guided@8", 80, 40)
    assert ours["hours"] == pytest.approx(110 / 3600)
    assert ours["whole_hours"] == pytest.approx(160 / 3600)
    assert ours["ratio_to_vanilla"] == pytest.approx(2.0)


def test_the_papers_schedule_is_priced_at_these_speeds(frame):
    """100 at 2 s, 900 at 1 s, and 200 of stage 1 at 1.25 s; the paper's whole price is the sum of what it says."""
    priced = lines(frame, "paper's schedule")
    assert set(priced) == {"vanilla", "ours"}
    assert priced["ours"]["hours"] == pytest.approx(1100 / 3600)
    assert priced["ours"]["whole_hours"] == pytest.approx(1350 / 3600)
    assert (priced["ours"]["paper_hours"], priced["ours"]["paper_whole_hours"]) == (103, 125)


def test_every_line_says_where_it_was_measured(frame):
    assert set(frame["scale"]) == {"tiny"}
    assert set(frame["machine"]) == {"Abacus, CPU"}
    assert set(frame["batch_size"]) == {4}


def test_people_see_how_it_was_measured_and_every_table(plan, frame):
    text = speed_to_markdown(plan, frame)
    assert "`mu`, batch 4, on Abacus, CPU, 2 threads, torch 2.9.0. Medians over 3 turns of 10 steps" in text
    assert re.search(r"ours guided +\| 0\.5 +\| 0\.125 to 0\.5 +\| 0\.50 +\| 555\.6", text)
    assert re.search(r"ours, guided@8 +\| 80 ", text)
    assert re.search(r"ours +\| 1000 .*\| 103 +\| 125 ", text)
    assert all(table in text for table in speed_to_text(frame).split("\n\n"))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("VAE alignment", "VAE", "line 3: phase: found 'VAE'; allowed: vanilla, VAE alignment, REPA, ours guided"),
        ("ours guided,100", "ours guided,", "line 4: steps: found None; allowed: how many there are"),
        ("ours guided,100", "ours guided,0", "line 4: steps: found 0.0; allowed: a number from 1 to"),
    ],
)
def test_what_the_papers_file_cannot_say_is_refused(plan, old, new, words):
    paper_file(plan).write_text(PAPER.replace(old, new))
    with pytest.raises(UserError, match=words):
        build_speed(plan, SECONDS, MACHINE)


# ------------------------------------------------------------------------------------------------ as a result


@pytest.fixture
def call(plan, configuration, capsys):
    def run(*arguments):
        configuration.write()
        code = main(arguments)
        return code, *capsys.readouterr()

    return run


def test_the_verb_measures_and_its_result_says_where(plan, call):
    code, out, error = call("speed", "--rounds", "2", "--steps", "1")
    assert (code, error) == (0, "")
    assert is_current(plan, SPEED)
    frame = read_csv(find(SPEED) and paper_file(plan).parents[2] / "results" / "speed.csv")
    assert set(frame["about"]) == {"step", "row", "paper's schedule"}
    assert (frame["steps_per_second"].dropna() > 0).all()
    assert call("show", "results/speed.csv") == (0, out + "How to read it: results/speed.md\n", "")
    assert "Training time: a row, with all it rests on" in render_page(plan)


def test_where_there_is_nothing_to_compare_the_verb_says_so(plan, call):
    code, _, error = call("speed", "--only", "plain")
    assert code == 2
    assert "no row of Self-Transcendence is kept" in error


def make(plan):
    path = plan.root.parent / "speed.csv"
    path.parent.mkdir(exist_ok=True)
    path.write_text("row\nvanilla\n")
    publish(plan, SPEED, [path], machine=MACHINE)


EDITS = {
    "a row that is timed": (lambda it: it.rows["aligned"].update(weight=0.25), True),
    "what is done at once": (lambda it: it.family.update(micro_batch=2), True),
    "the length of a row": (lambda it: it.tables["main"]["rows"][0].update(run="plain@4"), True),
    "the paper's": (lambda it: (it.folder / "paper" / "speed.csv").write_text(PAPER.replace("103", "104")), True),
    "a label": (lambda it: it.tables["main"]["rows"][0].update(label="SiT"), False),
    "a preset": (lambda it: it.family["presets"]["headline"].update(steps=3), False),
    "threads": (lambda it: it.scale.update(threads={"train": 2}), False),
}


@pytest.mark.parametrize("what", EDITS)
def test_an_edit_of_what_is_measured_makes_another_result(plan, configuration, what):
    make(plan)
    assert is_current(plan, SPEED)
    edit, changes = EDITS[what]
    edit(configuration)
    assert is_current(configuration.plan(), SPEED) != changes


def test_it_is_a_result_where_the_paper_has_figures(plan, configuration):
    assert names(plan) == ["main", "speed", "INDEX", "page"]
    paper_file(plan).unlink()
    with pytest.raises(UserError, match="no result is called 'speed'; allowed: main, INDEX, page"):
        key_of(configuration.plan(), SPEED)


NOTHING = "nothing has to be made before; it is measured when it is made"


def test_plan_and_status_know_the_job(plan, call):
    assert call("plan", "speed") == (0, f"0 runs, 0 steps\n{NOTHING}\n", "")
    (job,) = Status(plan, [SPEED]).jobs.to_do
    assert (job.rule, job.log, job.inputs) == ("speed", plan.path(Log.speed), ())
    assert call("status", "speed")[1].startswith("speed: 0 of 1 done, 1 waiting\n")
    make(plan)
    assert call("status", "speed")[1] == "speed: 1 of 1 done\n"
