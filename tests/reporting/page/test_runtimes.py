"""Sums over made-up benchmarks; who made how many results."""

import pytest

from selftrans.errors import UserError
from selftrans.reporting.page.runtimes import Stage, origins, stages

HEADER = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"


@pytest.fixture
def plan(configuration, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return configuration.plan()


def write_benchmark(plan, name, seconds, memory):
    path = plan.root / "benchmarks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{HEADER}{seconds}\t0:00:01\t{memory}\t1\t1\t1\t0\t0\t9\t1\n")


def test_jobs_of_a_rule_are_summed_and_the_longest_rule_comes_first(plan):
    write_benchmark(plan, "sample/one.tsv", 2.5, "NA")
    write_benchmark(plan, "train/one.step-8.tsv", 10.0, 300.5)
    write_benchmark(plan, "train/two.step-8.tsv", 20.0, 200.0)
    write_benchmark(plan, "claims.tsv", 0.5, "-")
    assert stages(plan) == [
        Stage("train", 2, 30.0, 300.5),
        Stage("sample", 1, 2.5, None),
        Stage("claims", 1, 0.5, None),
    ]


def test_without_benchmarks_there_are_no_stages(plan):
    assert stages(plan) == []


@pytest.mark.parametrize("text", ["", "a\tb\n1\t2\n", HEADER, HEADER + "soon\t1\t1\t1\t1\t1\t1\t1\t1\t1\n"])
def test_a_file_that_is_no_benchmark_is_named(plan, text):
    write_benchmark(plan, "train/one.tsv", 1.0, 1.0)
    (plan.root / "benchmarks/train/two.tsv").write_text(text)
    with pytest.raises(UserError, match=r"benchmarks/train/two\.tsv: not a benchmark"):
        stages(plan)


def test_origins_count_results_and_not_mentions():
    old = {"commit": "aaa", "machine": "abacus", "torch": "2"}
    new = old | {"commit": "bbb"}
    results = [
        {"about": {"provenance": old, "evaluated": old}},
        {"about": {"provenance": old, "evaluated": new}},
        {"about": {}},
    ]
    assert origins(results) == [
        ("commit", "aaa", 2),
        ("commit", "bbb", 1),
        ("machine", "abacus", 2),
        ("torch", "2", 2),
    ]
