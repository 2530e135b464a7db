"""Crossings of made-up curves, worked out by hand; and the result over made-up evaluations."""

import csv
from math import exp, inf, log, sqrt

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy import write_metrics

from selftrans.commands import main
from selftrans.config.reading.project import load_project
from selftrans.errors import UserError
from selftrans.plan.flops import petaflop, spent, step_cost
from selftrans.plan.plan import Plan
from selftrans.reporting.compute import Between, ahead_from, build_compute, build_curves, over_seeds, reached, verdict
from selftrans.reporting.compute_text import compute_cells, compute_to_latex, compute_to_markdown
from selftrans.reporting.figures.registry import draw_figure, figures_of, inputs_of
from selftrans.reporting.page.sections import compute, compute_section
from selftrans.reporting.results import is_current, key_of

QUANTILE = 12.7062047  # 0.975 of Student's distribution with one degree of freedom


def metrics_of(frechet):
    """What `selftrans evaluate` writes."""
    zero = dict.fromkeys(("spatial_frechet", "inception_score", "precision", "recall", "accuracy"), 0.0)
    counts = {"samples": 8, "references": 1000, "k": 3, "split_size": 5000}
    return {"frechet": frechet, **zero, **counts, "extractor": "judge", "extractor_sha256": "0a1b"}


def known(cost):
    return Between(log(cost), log(cost))


def close(found, expected):
    return found == pytest.approx(tuple(expected), rel=1e-12)


# ------------------------------------------------------------------------------------------- crossing points

FALLING = [(1.0, 100.0), (10.0, 60.0), (100.0, 20.0)]  # 40 less for ten times the cost


@pytest.mark.parametrize(
    ("distance", "expected"),
    [
        (60.0, known(10)),
        (20.0, known(100)),
        (80.0, known(sqrt(10))),  # half way down is half way along the logarithm
        (50.0, known(10 ** (5 / 4))),
        (100.0, (-inf, log(1))),  # where the curve begins: it may have been there before
        (120.0, (-inf, log(1))),
        (19.0, (log(100), inf)),
    ],
)
def test_a_curve_comes_down_to_a_distance_where_its_line_does(distance, expected):
    assert close(reached(FALLING, distance), expected)


def test_the_first_time_counts_of_a_curve_that_rises_again():
    curve = [(1.0, 10.0), (2.0, 4.0), (4.0, 8.0), (8.0, 2.0)]
    assert close(reached(curve, 7.0), known(sqrt(2)))
    assert close(reached(curve, 3.0), known(4 * 2 ** (5 / 6)))


def test_a_curve_of_one_milestone_is_known_by_bounds_alone():
    assert reached([(5.0, 3.0)], 4.0) == (-inf, log(5))
    assert reached([(5.0, 3.0)], 2.0) == (log(5), inf)


@given(st.floats(0.5, 64), st.floats(0.1, 90))
def test_what_costs_times_as_much_everywhere_reaches_everything_as_much_later(times, distance):
    dearer = [(times * cost, found) for cost, found in FALLING]
    one, other = reached(FALLING, distance), reached(dearer, distance)
    assert [there - here for here, there in zip(one, other, strict=True) if abs(here) < inf] == [
        pytest.approx(log(times), abs=1e-9)
    ] * sum(abs(here) < inf for here in one)


# From 10 to 100 the one is at 60 - 40 x, the other at 100 - 100 x, if the cost is 10^(1 + x).
STEEP = [(10.0, 100.0), (100.0, 0.0)]
LEVEL = [(1.0, 50.0), (100.0, 50.0)]
UP_AND_DOWN = [(1.0, 0.0), (10.0, 100.0), (100.0, 0.0)]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (STEEP, FALLING, known(10 ** (5 / 3))),
        (FALLING, STEEP, (log(100), inf)),  # ahead until they meet, and not at the end
        (UP_AND_DOWN, LEVEL, known(10**1.5)),  # the second time, from where it stays
        (FALLING, [(cost, distance + 1) for cost, distance in FALLING], (-inf, log(1))),
        (FALLING, FALLING, (log(100), inf)),  # a tie is no lead
        ([(100.0, 5.0), (200.0, 1.0)], FALLING, (-inf, log(100))),  # one cost in common
        ([(101.0, 5.0), (200.0, 1.0)], FALLING, (-inf, inf)),
    ],
)
def test_a_curve_is_ahead_from_where_it_crosses_for_good(one, other, expected):
    assert close(ahead_from(one, other), expected)


# ------------------------------------------------------------------------------------------------- over seeds


def test_the_mean_is_geometric_and_its_interval_students():
    found = over_seeds([known(2.0), known(8.0)])
    error = QUANTILE * log(2)  # the deviation of log 2 and log 8 over the root of two
    assert found.mean == pytest.approx(4)
    assert (found.low, found.high) == pytest.approx((4 * exp(-error), 4 * exp(error)))
    assert (found.least, found.most, found.known) == (pytest.approx(4), pytest.approx(4), 2)


def test_one_seed_has_no_interval():
    found = over_seeds([known(3.0)])
    assert (found.mean, found.low, found.high, found.known) == (pytest.approx(3), None, None, 1)
    assert verdict(found) is None


@pytest.mark.parametrize(
    ("logs", "least", "most"),
    [
        ([known(2.0), Between(log(8), inf)], 4, None),  # a seed that never gets there makes the mean dearer
        ([known(2.0), Between(-inf, log(8))], None, 4),
        ([Between(log(2), inf), Between(log(8), inf)], 4, None),
        ([Between(-inf, log(2)), Between(log(8), inf)], None, None),
    ],
)
def test_seeds_known_by_bounds_bound_the_mean_and_are_not_left_out(logs, least, most):
    found = over_seeds(logs)
    assert (found.mean, found.low, found.high, verdict(found)) == (None,) * 4
    assert (found.least, found.most) == (least and pytest.approx(least), most and pytest.approx(most))
    assert found.known == sum(one.low == one.high for one in logs)


@pytest.mark.parametrize(
    ("ratios", "said"),
    [([0.5, 0.51, 0.49], "cheaper"), ([2.0, 2.1, 1.9], "dearer"), ([0.5, 2.0, 1.1], "undecided")],
)
def test_a_verdict_is_what_the_interval_leaves_out(ratios, said):
    assert verdict(over_seeds([known(ratio) for ratio in ratios])) == said


def test_a_ratio_of_bounds_is_a_bound_or_nothing():
    """Never there, against there; there, against never; neither is ever there."""
    never, there = Between(log(6), inf), known(3.0)
    assert close(never - there, (log(2), inf))
    assert close(there - never, (-inf, -log(2)))
    assert never - Between(log(5), inf) == (-inf, inf)


# ------------------------------------------------------------------------------------------------- the result

# Distances at epochs 2, 4, 6, 8 (steps 20, 40, 60, 80), of both seeds: the second has all of the first's later.
FIRST = {"plain": [100, 80, 60, 40], "aligned": [80, 40, 30, 20], "guided": [90, 70, 60, 50]}
SECOND = {"plain": [110, 90, 70, 50], "aligned": [90, 50, 40, 30], "guided": [100, 80, 70, 60]}


@pytest.fixture
def results(configuration, tmp_path, monkeypatch):
    """A factory of plans that compare costs, whose metrics are there, in the working directory."""
    monkeypatch.chdir(tmp_path)
    configuration.family["models"]["mu"]["projector_width"] = 8  # small beside the model, as at the paper's size
    configuration.compute = {"vanilla": "plain", "methods": ["aligned", "guided"], "preset": "headline"}

    def make(seeds=2, **asked):
        plan = configuration.plan(seeds=seeds, **asked)
        for seed, values in enumerate((FIRST, SECOND)[:seeds]):
            for name, distances in values.items():
                for epoch, distance in zip((2, 4, 6, 8), distances, strict=True):
                    path = plan.metrics(f"{name}@{epoch}", seed, "headline")
                    write_metrics(path, metrics_of(float(distance)))
        return plan

    return make


def line_of(frame, run):
    return frame.set_index("run").loc[run]


def test_curves_are_the_metrics_at_what_was_paid(results):
    plan = results()
    curves = build_curves(plan)
    assert len(curves) == 3 * 4 * 2
    for name in FIRST:
        for seed, values in enumerate((FIRST, SECOND)):
            found = curves[(curves["run"] == name) & (curves["seed"] == seed)]
            assert list(found["frechet"]) == values[name]
            assert list(found["steps"]) == [20, 40, 60, 80]
            assert list(found["pflop"]) == [petaflop(spent(plan.run(name, 0), step).total) for step in found["steps"]]
    guided = curves[curves["run"] == "guided"]
    assert set(guided["pflop_stage1"]) == {petaflop(40 * step_cost(plan.run("aligned", 0), 0).total)}
    parts = [f"pflop_{part}" for part in ("student", "projector", "target", "stage1")]
    assert guided[parts].sum(axis=1).to_list() == pytest.approx(guided["pflop"].to_list())


def test_what_reaches_vanillas_end_is_compared_there(results):
    """Alignment is at step 40 where vanilla training is at 80, in both seeds: half of the steps, each a bit dearer."""
    plan = results()
    found = line_of(build_compute(plan, build_curves(plan)), "aligned")
    aligned, plain = (step_cost(plan.run(name, 0), 0).total for name in ("aligned", "plain"))
    ratio = aligned / plain / 2
    assert 0.5 < ratio < 0.6
    assert found["final_pflop"] == pytest.approx(petaflop(40 * aligned))
    assert found["final_ratio"] == pytest.approx(ratio)
    assert (found["final_ratio_low"], found["final_ratio_high"]) == pytest.approx((ratio, ratio))
    assert (found["final_verdict"], found["final_ratio_known"]) == ("cheaper", 2)
    assert found["both_ratio"] == found["final_ratio"]  # vanilla training gets no further


def test_what_never_reaches_vanillas_end_is_known_by_a_bound_there_and_compared_where_it_ends(results):
    plan = results()
    found = line_of(build_compute(plan, build_curves(plan)), "guided")
    paid, plain = spent(plan.run("guided", 0), 80).total, step_cost(plan.run("plain", 0), 0).total
    assert found.isna()[["final_pflop", "final_ratio", "final_ratio_low", "final_verdict", "final_ratio_most"]].all()
    assert found["final_ratio_least"] == pytest.approx(paid / (80 * plain))
    assert found["final_pflop_known"] == 0
    half = sqrt(60 * 80) * plain  # vanilla training is at 50 half way from 60 to 40
    assert found["both_ratio"] == pytest.approx(paid / half)
    assert (found["both_verdict"], found["both_ratio_known"]) == ("dearer", 2)


def test_what_is_vanilla_has_nothing_to_be_compared_with(results):
    plan = results()
    found = line_of(build_compute(plan, build_curves(plan)), "plain")
    assert (found["frechet"], found["seeds"], found["pflop_stage1"]) == (45, 2, 0)
    assert found.isna()[["final_ratio", "both_ratio", "ahead_pflop"]].all()


def test_one_seed_has_ratios_but_no_verdict(results):
    plan = results(seeds=1)
    found = line_of(build_compute(plan, build_curves(plan)), "aligned")
    assert found["final_ratio"] > 0.5
    assert found.isna()[["final_ratio_low", "final_verdict", "frechet_std"]].all()


def test_people_read_what_is_known(results):
    plan = results()
    cells = compute_cells(plan, build_compute(plan, build_curves(plan))).set_index("run")
    assert cells.loc["aligned", "of vanilla's"].endswith(", cheaper")
    assert cells.loc["guided", "of vanilla's, as far as both get"].endswith(", dearer")
    assert cells.loc["guided", "of vanilla's"].startswith("≥ 1.")
    assert cells.loc["guided", "of vanilla's"].endswith(" (known at 0 of 2 seeds)")
    assert cells.loc["plain", "of vanilla's"] == cells.loc["plain", "stage 1 %"] == ""
    assert cells.loc["guided", "Fréchet ↓"] == "55.0 ± 7.1"


def test_the_verb_writes_what_the_plan_says(results, tmp_path, capsys):
    plan = results()
    assert main(["compute", "--config", str(plan.project.folder), "--seeds", "2"]) == 0
    assert "Self-Transcendence" in capsys.readouterr().out
    assert is_current(plan, "compute")
    lines = {line["run"]: line for line in csv.DictReader((tmp_path / "results/compute.csv").open())}
    frame = build_compute(plan, build_curves(plan))
    assert float(lines["aligned"]["final_ratio"]) == line_of(frame, "aligned")["final_ratio"]
    assert (tmp_path / "results/compute.md").read_text() == compute_to_markdown(plan, frame)
    assert (tmp_path / "results/compute.tex").read_text() == compute_to_latex(plan, frame)
    page = (tmp_path / "results/compute.html").read_text()
    assert "What a FLOP buys" in page
    assert "known at 0 of 2 seeds" in page
    assert list(compute(plan)) == [compute_section(plan, frame)]  # read from the CSV, as the whole page does it


def test_what_was_made_is_shown_as_it_was(results, capsys):
    plan = results()
    extent = ["--config", str(plan.project.folder), "--seeds", "2"]
    assert main(["compute", *extent]) == 0
    printed = capsys.readouterr().out
    assert main(["show", "results/compute.csv", *extent]) == 0
    assert capsys.readouterr().out.startswith(printed)


def test_the_result_is_another_if_what_it_compares_is(results, configuration):
    plan = results()
    key = key_of(plan, "compute")
    configuration.compute["methods"] = ["aligned"]
    assert key_of(configuration.plan(seeds=2), "compute") != key
    configuration.compute["methods"] = ["aligned", "guided"]
    assert key_of(configuration.plan(seeds=2), "compute") == key
    configuration.family["batch_size"] = 8
    assert key_of(configuration.plan(seeds=2), "compute") != key


# ------------------------------------------------------------------------------------------------- the figure


def test_the_figure_has_the_curves_of_the_table(results, tmp_path, monkeypatch):
    plan = results()
    entry = "compute: {title: Cost, caption: what is paid, kind: compute}\n"
    (plan.project.folder / "figures.yaml").write_text(entry)
    assert list(figures_of(plan)) == ["compute"]
    entry = figures_of(plan)["compute"]
    picture, data = entry.module.draw(plan, entry.settings)
    (axes,) = picture.axes
    plain, _, guided, stage1, end = axes.lines
    curves = build_curves(plan)
    pd.testing.assert_frame_equal(data, curves)
    assert plain.get_ydata().tolist() == [105, 85, 65, 45]
    assert guided.get_xdata().tolist() == sorted(set(curves[curves["run"] == "guided"]["pflop"]))
    assert stage1.get_xdata()[0] == curves[curves["run"] == "guided"]["pflop_stage1"].iloc[0]
    assert stage1.get_xdata()[1] == guided.get_xdata()[0]
    assert set(end.get_ydata()) == {45}
    assert axes.get_xscale() == "log"
    assert {path.suffix for path in draw_figure(plan, "compute", tmp_path)} == {".csv", ".pdf", ".png"}


def test_a_figure_of_costs_without_costs_is_refused_or_left_out(results, configuration):
    folder = results().project.folder
    (folder / "figures.yaml").write_text("compute: {title: Cost, caption: what is paid, kind: compute}\n")
    assert figures_of(Plan(load_project(folder, only="aligned"))) == {}
    (folder / "compute.yaml").unlink()
    plan = Plan(load_project(folder))
    with pytest.raises(UserError, match=r"figures\.yaml: compute: compute\.yaml has nothing to compare"):
        inputs_of(plan, "compute")
    with pytest.raises(UserError, match=r"compute\.yaml: nothing to compare"):
        build_curves(plan)
