"""What is paid, counted by hand on rows of depth 6 with milestones of 20, 40, 60 and 80 steps; and budgets."""

from pathlib import Path
from typing import get_args

import pytest

from selftrans.config.reading.project import load_project
from selftrans.config.scales import Source
from selftrans.errors import UserError
from selftrans.plan.memory import PROCESS, need_with_teacher
from selftrans.plan.paths import Log, Pattern
from selftrans.plan.plan import Plan
from selftrans.plan.size import in_words
from selftrans.reporting.price import Price, hours_in_words, require_budget
from selftrans.reporting.remaining import Remaining

CONFIG = Path(__file__).parents[2] / "config"
BLOCK = 16 * (12 * 16**2 + 2 * 16 * 16)  # multiplications of 16 tokens of width 16
# A minute a block for a step of four images; a quarter of that for an image that is sampled.
PACE = {"training": 12 * BLOCK / 60e9, "sampling": 4 * BLOCK / 60e9, "job": 60.0}

TRAINING = 4 + 80 * 6  # minutes of `plain`: four jobs, 80 steps through six blocks
SAMPLING = 1 + 2 * 6 * 8 / 4  # two steps, six blocks, eight images
EVALUATION = 1


@pytest.fixture
def price_of(configuration, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    configuration.scale["pace"] = PACE
    configuration.every_milestone = True

    def price(reference="plain@8", **settings):
        plan = configuration.plan(**settings)
        return Price(Remaining(plan, [plan.metrics(reference, 0, "headline")]))

    return price


def minutes(price):
    return 60 * price.hours(price.known.pace)


def test_hours_are_of_all_cores_together(price_of):
    price = price_of()
    assert minutes(price) == pytest.approx(TRAINING + SAMPLING + EVALUATION)
    assert " hours on 4 cores (8.5 core-hours) at the pace of " in price.estimate(4)


def test_ranks_hold_a_gpu_each(configuration, price_of):
    """The work is shared, the start of a job is not."""
    configuration.scale["pace"] = PACE | {"device": "GPU"}
    assert minutes(price_of(ranks=2)) == pytest.approx(TRAINING + 4 + SAMPLING + EVALUATION)


def test_a_method_and_decoding_take_their_time(configuration, price_of):
    configuration.scale["pace"] = PACE | {"method": 1.5, "decoding": 30}
    assert minutes(price_of("aligned@8")) == pytest.approx(4 + 1.5 * 80 * 6 + SAMPLING + 8 / 2 + EVALUATION)


def test_sources_are_counted_where_their_time_is_known(configuration, price_of):
    assert "6 jobs for data, VAE, extractor, encoder not counted" in price_of().estimate(1)
    sources = {
        "train_tokenizer": 120,
        "pack_images": 30,
        "extract_latents": 0,
        "train_extractor": 0,
        "make_reference": 0,
    }
    configuration.scale["pace"] = PACE | {"sources": sources}
    price = price_of()
    assert "not counted" not in price.estimate(1)
    assert minutes(price) == pytest.approx(TRAINING + SAMPLING + EVALUATION + 6 + 2 + 2 * 0.5)


def test_the_demo_counts_all_of_its_jobs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = Plan(load_project(CONFIG, scale="demo"))
    files = [path for name in plan.targets for path in plan.metrics_of_target(name)]
    assert "not counted" not in Price(Remaining(plan, files)).estimate(2)


def test_sources_are_called_as_their_rules_are():
    assert {name for name in get_args(Source) if not hasattr(Log, name)} == set()


def test_what_waits_for_sources_comes_after_them(configuration, price_of):
    """However many cores: images, VAE, latents, then the training."""
    configuration.scale["pace"] = PACE | {
        "sources": dict.fromkeys(("pack_images", "train_tokenizer", "extract_latents"), 60)
    }
    price = price_of()
    assert price.remaining.seconds(price.known.pace, 100) == pytest.approx(60 * (6 + TRAINING + SAMPLING + EVALUATION))


def test_memory_is_that_of_the_largest_training(configuration, price_of):
    configuration.rows["plain"]["model"] = "mu"
    price = price_of("guided@8")
    largest = max(need_with_teacher(run, 1).total for run in price.remaining.trained)
    assert price.memory() == f"about {in_words(PROCESS + largest)} of memory for a process"
    configuration.scale["pace"] = PACE | {"device": "GPU"}
    assert price_of("guided@8").memory() == f"at least {in_words(largest)} of GPU memory (guided)"


def test_without_a_training_there_is_no_memory(price_of):
    price = price_of()
    run = price.plan.run("plain", 0)
    for step in run.milestones:
        path = price.plan.weights(run, step)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert price_of().memory() is None


def test_a_budget_allows_what_costs_no_more(price_of):
    assert price_of(budget="9h").refusal() is None
    assert price_of().refusal() is None


def test_a_refusal_names_estimate_budget_and_the_largest_parts(price_of):
    price = price_of(budget="8h")
    what, advice = price.refusal()
    assert what == (
        f"budget: 8h allowed, about 8.5 core-hours at the pace of {price.plan.project.scale_file} asked for, "
        "the most of it for train plain (8.1 core-hours), sample plain (25 core-minutes), "
        "evaluate plain (1 core-minutes)"
    )
    assert "raise the budget" in advice


def test_what_nobody_knows_is_refused_too(configuration, price_of):
    del configuration.scale["pace"]
    configuration.settings["budget"] = "7d"
    what, advice = price_of().refusal()
    assert what.startswith("budget: 7d, but nobody knows what this costs: ")
    assert "tiny.yaml says no pace, no training was logged under results/tiny/work, and no GPU" in what
    assert "pace (docs/reproducing.md), or no budget" in advice


def test_what_is_there_is_paid_unless_it_is_made_again(configuration, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    configuration.scale["pace"] = PACE
    configuration.every_milestone = True
    plan = configuration.plan(budget="90m")
    run = plan.run("plain", 0)
    weights = [plan.weights(run, step) for step in run.milestones]
    with pytest.raises(UserError, match=r"budget: 90m allowed, about 8\.1 core-hours"):
        require_budget(plan, weights)
    for path in weights:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    metrics = plan.metrics("plain@8", 0, "headline")
    require_budget(plan, [metrics])  # half an hour
    with pytest.raises(UserError, match=r"about 2\.0 core-hours .* for train plain \(2\.0 core-hours\); raise"):
        require_budget(plan, [weights[-1]])
    require_budget(configuration.plan(), weights)
    require_budget(plan, [plan.path(Pattern.export, run=run.id, step=80)])  # not priced


@pytest.mark.parametrize(
    ("hours", "words"),
    [
        (0, "0 core-minutes"),
        (0.01, "1 core-minutes"),
        (1.9, "114 core-minutes"),
        (99, "99.0 core-hours"),
        (2095, "2,095 core-hours"),
    ],
)
def test_hours_in_words(configuration, hours, words):
    configuration.scale["pace"] = PACE
    assert hours_in_words(hours, configuration.plan().scale.pace) == words
