"""Results under fixed names say what they are made of; one of another configuration is not taken for the plan's."""

import os

import pytest

from selftrans.errors import UserError
from selftrans.reporting import results
from selftrans.reporting.results import (
    OLDER,
    date_sources,
    find,
    is_current,
    key_of,
    names,
    publish,
    record_of,
    require_current,
    source_of,
)


@pytest.fixture
def plan(configuration, tmp_path, monkeypatch):
    """A plan whose table is there, in the working directory."""
    monkeypatch.chdir(tmp_path)
    plan = configuration.plan()
    make(plan)
    return plan


def make(plan):
    path = results.RESULTS / "main.csv"
    path.parent.mkdir(exist_ok=True)
    path.write_text("row\nvanilla\n")
    publish(plan, "main", [path])


EDITS = {
    "a label": lambda it: it.tables["main"]["rows"][0].update(label="SiT"),
    "a value of the paper": lambda it: setattr(it, "paper", it.paper.replace("38.60", "38.61")),
    "a note": lambda it: it.scale.update(notes={"main": "Hm."}),
    "the scale's description": lambda it: it.scale.update(description="another"),
    "a row": lambda it: it.rows["aligned"].update(weight=0.25),
    "its teacher's row": lambda it: it.rows["guided"].update(teacher="aligned@6"),
    "a preset": lambda it: it.family["presets"]["headline"].update(steps=3),
    "the extractor": lambda it: it.family["extractor"].update(steps=6),
    "a bar": lambda it: it.family["extractor"].update(min_test_accuracy=0.6),
    "a reason": lambda it: it.family.update(stretch={"reason": "small"}),
    "the seeds": lambda it: it.settings.update(seeds=2, claim_seeds=2),
    "rows to keep": lambda it: it.settings.update(only="plain,aligned"),
}


@pytest.mark.parametrize("what", EDITS)
def test_an_edit_makes_another_result(plan, configuration, what):
    require_current(plan, "main")
    EDITS[what](configuration)
    edited = configuration.plan()
    assert not is_current(edited, "main")
    with pytest.raises(UserError, match=r"^results/main: made with .*snakemake --cores all results/main\.csv"):
        require_current(edited, "main")
    make(edited)
    assert is_current(edited, "main")
    assert not is_current(plan, "main")


def test_what_it_does_not_depend_on_makes_no_other_result(plan, configuration):
    configuration.scale["threads"] = {"train": 2}
    configuration.family["presets"]["headline"]["shards"] = 1
    configuration.family["presets"]["unused"] = {"sampler": "euler_ode", "steps": 9, "samples": 8}
    configuration.rows["unused"] = {"like": "plain", "method": {"name": "layersync", "pairs": [[2, 4]]}, "weight": 0.2}
    configuration.claims = {"c": {"says": "", "source": "", "better": "aligned@8", "worse": "plain@8"}}
    assert is_current(configuration.plan(), "main")
    assert key_of(configuration.plan(), "INDEX") != key_of(plan, "INDEX")


def test_what_differs_is_named(configuration, plan):
    with pytest.raises(UserError, match=r"made with seeds 1 \(now 3\), claim_seeds 1 \(now 3\); ask for the same"):
        require_current(configuration.plan(seeds=3), "main")


def test_other_code_makes_other_results(plan, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "REPORTING", tmp_path)
    (tmp_path / "tables.py").write_text("a formatter")
    results.code_version.cache_clear()
    try:
        assert not is_current(plan, "main")
    finally:
        results.code_version.cache_clear()


DAMAGE = {
    "altered": lambda path: path.write_text("row\nvanila\n"),
    "emptied": lambda path: path.write_text(""),
    "gone": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
}


@pytest.mark.parametrize("what", DAMAGE)
@pytest.mark.parametrize("file", ["csv", "json"])
def test_a_damaged_result_is_none(plan, what, file):
    DAMAGE[what](results.RESULTS / f"main.{file}")
    assert not is_current(plan, "main")
    with pytest.raises(UserError, match=rf"results/main\.{file}: "):
        require_current(plan, "main")


def test_a_record_of_another_result_is_refused(plan):
    record_of("main").rename(record_of("other"))
    with pytest.raises(UserError, match='its result is "main", expected "other"'):
        find("other")


def test_a_name_that_is_none_is_refused_with_those_that_are(plan):
    assert names(plan) == ["main", "INDEX", "page"]
    with pytest.raises(UserError, match="no result is called 'table9'; allowed: main, INDEX, page"):
        key_of(plan, "table9")


# ------------------------------------------------------------------------------------------------- dates


def dates(plan):
    date_sources(plan)
    return {name: source_of(plan, name).stat().st_mtime == OLDER for name in names(plan)}


def test_dates_say_what_is_to_be_made(plan, configuration):
    assert dates(plan) == {"main": True, "INDEX": False, "page": False}
    configuration.tables["main"]["title"] = "Other results"
    edited = configuration.plan()
    assert dates(edited) == {"main": False, "INDEX": False, "page": False}
    assert source_of(edited, "main").stat().st_mtime > (results.RESULTS / "main.csv").stat().st_mtime - 1
    assert dates(plan)["main"] is True  # put back, before anything was made
    make(edited)
    assert dates(edited)["main"] is True
    assert dates(plan)["main"] is False  # put back, after it was made


def test_an_input_that_is_asked_for_again_has_other_contents(plan, configuration):
    """Snakemake takes a small file of the same contents for unchanged, whatever its date."""
    configuration.tables["main"]["title"] = "Other results"
    edited = configuration.plan()
    contents = set()
    for _ in range(2):
        date_sources(edited)
        contents.add(source_of(edited, "main").read_bytes())
    assert len(contents) == 2
