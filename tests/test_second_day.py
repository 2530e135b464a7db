"""The second day: what was made is edited, put back, moved, copied; Snakemake itself says what it would make again."""

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from toy import smoke_plan

from selftrans.reporting.results import names
from workflow import REPOSITORY, SMOKE, environment, snakemake

pytestmark = [pytest.mark.workflow, pytest.mark.long, pytest.mark.xdist_group("workflow")]

FIGURES = {name for name in names(smoke_plan()) if name.startswith("figures/")}
OF_SAMPLES = {"figures/gallery", "figures/gallery-over-training"}
OF_METRICS = {"compute", "figures/curves", "figures/early-stop", "figures/ablation", "figures/guidance", "figures/cost"}
TABLES = {"methods", "samplers", "sweep"}
OF_GUIDED = {"figures/curves", "figures/gallery", "figures/gallery-over-training", "figures/early-stop"}
OF_GUIDED |= {"figures/ablation", "figures/components", "figures/classes", "figures/omega", "figures/training"}
OF_GUIDED |= {"compute", "figures/cost"}


@dataclass(frozen=True)
class Made:
    """What is made: rows that are trained, and sampled, results of fixed names, and rules of what is made once."""

    trained: frozenset[str]
    sampled: frozenset[str]
    results: frozenset[str]
    once: frozenset[str]

    @classmethod
    def of(cls, trained=(), sampled=(), results=(), once=()):
        return cls(*map(frozenset, (trained, sampled, results, once)))


def planned(folder: Path, config: Path = SMOKE, target: str = "results/index.html", *settings: str) -> Made:
    """What Snakemake would make, without its records."""
    shutil.rmtree(folder / ".snakemake", ignore_errors=True)
    done = snakemake("-n", *settings, "--", target, "results/INDEX.csv", folder=folder, config=config)
    assert done.returncode == 0, done.stdout + done.stderr
    text = done.stdout + done.stderr
    jobs = re.findall(r"^(?:local)?(?:rule )?(\w+):\n(?:    input: .*\n)?    output: (.*)$", text, re.MULTILINE)
    found: dict[str, set[str]] = {"trained": set(), "sampled": set(), "results": set(), "once": set()}
    for rule, output in jobs:
        first = output.split(", ")[0]
        match rule:
            case "train_stage1" | "train_stage2":
                found["trained"].add(Path(first).parent.name.rpartition("-s")[0])
            case "sample":
                found["sampled"].add(Path(first).name.partition(".")[0].rpartition("-s")[0])
            case "table" | "claims" | "compute" | "figure" | "figure_of_arrays" | "index" | "page":
                name = next(file for file in output.split(", ") if file.endswith(".json"))
                found["results"].add(name.removeprefix("results/").removesuffix(".json"))
            case "freeze_teacher" | "evaluate" | "probe_features":
                pass
            case _:
                found["once"].add(rule)
    return Made.of(**found)


@pytest.fixture
def edited(tmp_path):
    """The configuration with a text replaced in one of its files."""
    config = tmp_path / "config"
    shutil.copytree(SMOKE, config)

    def edit(file: str, old: str, new: str) -> Path:
        path = config / file
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
        return config

    return edit


ALL_RESULTS = {*TABLES, "claims", "compute", *FIGURES, "INDEX", "page"}
SCALE = "scales/smoke.yaml"

# Kind of entry -> (file, old text, new text, what is made again).
EDITS: dict[str, Any] = {
    "a comment": ("runs.yaml", "# One row", "# One single row", Made.of()),
    "a row": (
        "runs.yaml",
        "layer: n/6}, weight: 0.5",
        "layer: n/6}, weight: 0.4",
        Made.of(
            trained={"aligned", "guided"},
            sampled={"aligned", "guided"},
            results={"methods", "claims", "INDEX", "page"} | OF_GUIDED,
        ),
    ),
    "a row that nothing shows": ("runs.yaml", "group", "group", None),
    "a preset": (
        SCALE,
        "headline: {sampler: euler_ode, steps: 2, samples: 20",
        "headline: {sampler: euler_ode, steps: 3, samples: 20",
        Made.of(
            sampled={"vanilla", "aligned", "external", "guided", "lightning"},
            results={
                "methods",
                "samplers",
                "claims",
                "compute",
                "page",
                "figures/cost",
                "figures/curves",
                "figures/early-stop",
                "figures/ablation",
            },
        ),
    ),
    "how a preset's work is shared": (
        SCALE,
        "samples: 40, batch_size: 20,",
        "samples: 40, batch_size: 20, shards: 2,",
        Made.of(),
    ),
    "a sweep": (
        SCALE,
        "cfg_scale: [1.9, 4.0]",
        "cfg_scale: [1.9, 3.0]",
        Made.of(sampled={"vanilla"}, results={"sweep", "figures/guidance", "page"}),
    ),
    "the extractor": (
        SCALE,
        "name: toy-classifier, steps: 3",
        "name: toy-classifier, steps: 4",
        Made.of(results=TABLES | OF_METRICS | {"claims", "page"}, once={"train_extractor", "make_reference"}),
    ),
    "a bar": (SCALE, "max_test_mse: 10.0", "max_test_mse: 9.0", Made.of(results=TABLES | {"page"})),
    "what the scale is": (SCALE, "description: toy size", "description: small size", Made.of(results=ALL_RESULTS)),
    "a note": (SCALE, "name: smoke\n", "name: smoke\nnotes: {methods: Hm.}\n", Made.of(results={"methods", "page"})),
    "threads": (SCALE, "threads: {train: 1,", "threads: {train: 2,", Made.of()),
    "a table": (
        "tables.yaml",
        "title: Another backbone",
        "title: Some backbone",
        Made.of(results={"samplers", "page"}),
    ),
    "a table that a figure shows": (
        "tables.yaml",
        "label: VAE alignment, run: aligned@20",
        "label: VAE alignment, run: aligned@20, compare_with: external@20",
        Made.of(results={"methods", "figures/ablation", "page"}),
    ),
    "what is compared by its cost": (
        "compute.yaml",
        "[aligned, guided]",
        "[guided]",
        Made.of(results={"compute", "figures/cost", "page"}),
    ),
    "a claim": ("claims.yaml", "is better than none", "is better", Made.of(results={"claims", "page"})),
    "a figure": ("figures.yaml", "title: Samples\n", "title: Pictures\n", Made.of(results={"figures/gallery", "page"})),
    "a paper's value": (
        "paper/methods.csv",
        "38.60",
        "38.61",
        Made.of(results={"methods", "claims", "figures/ablation", "page"}),
    ),
    "a figure's paper": ("paper/curves.csv", "96", "97", Made.of(results={"figures/curves", "page"})),
}
del EDITS["a row that nothing shows"]


@pytest.mark.parametrize("kind", EDITS)
def test_an_edit_remakes_what_depends_on_it_and_nothing_else(everything, edited, kind):
    *edit, expected = EDITS[kind]
    assert planned(everything, edited(*edit)) == expected


def test_put_back_nothing_is_made_that_is_still_there(everything, edited):
    assert planned(everything, edited("tables.yaml", "title: Another backbone", "title: Some backbone")) != Made.of()
    assert planned(everything) == Made.of()


def test_a_copy_without_dates_trains_samples_and_measures_nothing(everything, tmp_path):
    """Formatting again what has a fixed name is all that dates may cost."""
    copy = tmp_path / "copy"
    shutil.copytree(everything, copy, copy_function=shutil.copyfile)
    made = planned(copy)
    assert (made.trained, made.sampled, made.once) == (set(), set(), set())


@pytest.mark.parametrize("how", [(), ("--link",)])
def test_what_is_adopted_is_there_for_snakemake(everything, tmp_path, how):
    """In another place, with other dates and without its records; tables and figures are formatted anew."""
    here = tmp_path / "here"
    here.mkdir()
    command = [sys.executable, "-m", "selftrans", "adopt", str(everything), *how, "--config", str(SMOKE)]
    done = subprocess.run(command, cwd=here, env=environment() | {"PYTHONPATH": str(REPOSITORY)}, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b"all of it is there" in done.stdout
    made = planned(here)
    assert (made.trained, made.sampled, made.once) == (set(), set(), set())
    table = "results/methods.csv"
    assert snakemake("--", table, folder=here).returncode == 0
    assert (here / table).read_bytes() == (everything / table).read_bytes()


def test_a_result_that_was_altered_is_made_again(everything, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(everything, copy)
    table = copy / "results/samplers.csv"
    table.write_text(table.read_text().replace("LightningDiT", "HeavyDiT"))
    assert planned(copy) == Made.of(results={"samplers", "page"})


def test_more_seeds_train_more_runs_and_format_everything(everything, edited):
    made = planned(everything, edited("config.yaml", "seeds: 1\nclaim_seeds: 1", "seeds: 2\nclaim_seeds: 2"))
    assert made.trained == {"vanilla", "aligned", "external", "guided", "lightning"}
    assert made.results == ALL_RESULTS
    assert made.once == set()
