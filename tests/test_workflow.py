"""The DAG, run for real at toy size: made once, planned for the whole paper, killed at any moment."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from toy import smoke_plan

from selftrans.artifacts import load_tensors
from selftrans.config.reading.project import load_project
from selftrans.config.signatures import method_names
from selftrans.plan.paths import Pattern
from selftrans.plan.plan import Plan
from selftrans.reporting.figures.registry import load_figures
from selftrans.sampling.samples import Samples
from workflow import OTHER_METHODS, REPOSITORY, SMOKE, environment, snakemake, snakemake_command

pytestmark = [pytest.mark.workflow, pytest.mark.long, pytest.mark.xdist_group("workflow")]

TABLE = "results/methods.csv"


def test_one_of_each_kind_is_made(finished: Path) -> None:
    rows = list(csv.DictReader((finished / TABLE).open()))
    assert [row["row"] for row in rows] == ["vanilla", "VAE alignment", "REPA", "Self-Transcendence"]
    assert {row["scale"] for row in rows} == {"smoke"}
    assert {row["samples"] for row in rows} == {"20"}
    assert float(rows[0]["paper_fid"]) == 38.60
    assert (finished / "results/methods.md").read_text().count("|\n") > 4
    assert len((finished / "results/INDEX.csv").read_text().splitlines()) == 1 + 5 + len(OTHER_METHODS)


def test_another_backbone_goes_through_two_samplers_and_a_sweep_of_guidance(finished: Path) -> None:
    (line,) = csv.DictReader((finished / "results/samplers.csv").open())
    assert line["second_sampler"] == "euler_maruyama_sde, 3 steps"
    assert float(line["second_frechet"]) != float(line["frechet"])
    lines = list(csv.DictReader((finished / "results/sweep.csv").open()))
    assert [(line["cfg_scale"], line["cfg_until"], line["samples"]) for line in lines] == [
        ("1.9", "0.65", "12"),
        ("4.0", "0.65", "12"),
    ]


def test_one_seed_decides_no_claim(finished: Path) -> None:
    lines = list(csv.DictReader((finished / "results/claims.csv").open()))
    assert [line["claim"] for line in lines] == ["guidance-helps", "gain-over-alignment"]
    assert {line["verdict"] for line in lines} == {"undecided"}
    assert float(lines[0]["paper_difference"]) == pytest.approx(38.60 - 22.91)


def test_every_method_is_trained(finished: Path) -> None:
    trained = {run.row.method["name"] for run in smoke_plan().runs.values() if run.row.method}
    assert trained == set(method_names())
    for name in OTHER_METHODS:
        weights = finished / smoke_plan().weights(smoke_plan().run(name, 0), 10)
        assert load_tensors(weights, "weights")[1]["step"] == 10


def test_every_stage_leaves_log_and_benchmark(finished: Path) -> None:
    root = finished / "results/smoke"
    rules = {"pack_images", "train_tokenizer", "extract_latents", "train_extractor", "make_reference"}
    rules |= {"train_encoder", "train", "freeze_teacher", "sample", "evaluate", "table"}
    for kind in ("logs", "benchmarks"):
        assert {path.name for path in (root / kind).iterdir()} - {
            "index.log",
            "index.tsv",
            "claims.log",
            "claims.tsv",
        } == rules


def test_metrics_say_where_they_come_from(finished: Path) -> None:
    for path in (finished / "results/smoke/metrics").iterdir():
        result = json.loads(path.read_text())
        assert result["extractor"] == "toy-classifier"
        assert path.name.startswith(f"{result['about']['run']}.step-{result['about']['step']}.")
        assert result["about"]["provenance"]["commit"]


def test_nothing_half_written_and_no_online_weights_remain(finished: Path) -> None:
    files = list((finished / "results").rglob("*"))
    assert not [path for path in files if path.name.endswith(".part")]
    online = {path.parent.name.split("-s0-")[0] for path in files if ".online." in path.name}
    assert online == set(OTHER_METHODS)  # whose weights were asked for by name; no teacher asked for any


def test_a_second_call_has_nothing_to_do(finished: Path) -> None:
    again = snakemake("-n", "--", TABLE, folder=finished)
    assert "Nothing to be done" in again.stdout + again.stderr


def test_several_nodes_are_for_clusters(finished: Path) -> None:
    """There srun starts a training on each of them; here they are refused before the first job."""
    settings = ("--config", f"folder={SMOKE}", "ranks=4", "nodes=2", "--forcerun", "train_stage1", "--", TABLE)
    rehearsed = snakemake("-n", "-p", *settings, folder=finished)
    commands = re.findall(r"Shell command: (.* train .*?) >", rehearsed.stdout)
    assert commands, rehearsed.stderr
    each = "srun --nodes=2 --ntasks=2 --cpus-per-task=2 --kill-on-bad-exit=0 --wait=0 python -m selftrans train "
    assert all(command.startswith(each) and " --ranks 4 --nodes 2 " in command for command in commands)
    assert rehearsed.stdout.count("mpi=srun, nodes=2, tasks=2, tasks_per_gpu=0") == len(commands)
    refused = snakemake(*settings, folder=finished)
    assert refused.returncode == 1
    assert "nodes: found 2, but jobs run on this machine alone; allowed: 1, or a cluster that" in refused.stderr
    assert list(finished.rglob("*.safetensors"))  # no output of a job was removed
    plain = snakemake("-n", "-p", "--forcerun", "train_stage1", "--", TABLE, folder=finished)
    assert "srun" not in plain.stdout
    assert "mpi" not in plain.stdout


def test_what_costs_more_than_the_budget_is_not_begun(tmp_path: Path) -> None:
    """Nor what nobody knows the price of; a rehearsal costs nothing."""
    config = tmp_path / "config"
    shutil.copytree(SMOKE, config)
    settings = {"folder": tmp_path, "config": config}
    unknown = snakemake("--config", f"folder={config}", "budget=24h", "--", TABLE, **settings)
    assert unknown.returncode == 1
    assert "budget: 24h, but nobody knows what this costs" in unknown.stderr
    with (config / "scales" / "smoke.yaml").open("a") as scale:
        scale.write("\npace: {training: 1.0, sampling: 1.0, job: 60}\n")
    dear = snakemake("--config", f"folder={config}", "budget=5m", "--", TABLE, **settings)
    assert dear.returncode == 1
    assert "budget: 5m allowed, about " in dear.stderr
    assert "at the pace of" in dear.stderr
    assert "; raise the budget, or ask for less" in dear.stderr
    assert not (tmp_path / "results/smoke/data").exists()
    rehearsed = snakemake("-n", "--config", f"folder={config}", "budget=5m", "--", TABLE, **settings)
    assert rehearsed.returncode == 0


def test_every_kind_of_figure_is_drawn_and_reported(everything: Path, tmp_path: Path) -> None:
    folder = tmp_path / "figures"
    shutil.copytree(everything, folder)
    page = (folder / "results/index.html").read_text(encoding="utf-8")
    assert "not made yet" not in page
    assert page.count("data:image/png;base64,") == len(load_figures(SMOKE))
    report = snakemake("--report", "results/report.html", "--", "results/index.html", folder=folder)
    assert report.returncode == 0, report.stderr
    shown = set(re.findall(r"Adding (\S+) \(", report.stderr))
    assert shown == {
        *(f"{name}.png" for name in load_figures(SMOKE)),
        *(f"{name}.html" for name in (*smoke_plan().targets, "index", "training", "provenance")),
    }
    for name, figure in load_figures(SMOKE).items():
        for ending in ("pdf", "png", figure.data):
            assert (folder / f"results/figures/{name}.{ending}").stat().st_size


def test_a_new_milestone_between_two_others_retrains_nothing(finished: Path, tmp_path: Path) -> None:
    config = tmp_path / "config"
    shutil.copytree(SMOKE, config)
    scale = config / "scales/smoke.yaml"
    scale.write_text(scale.read_text().replace("milestones: [10, 20,", "milestones: [10, 15, 20,"))
    planned = snakemake("-n", "--quiet", "rules", "--", TABLE, folder=finished, config=config)
    assert planned.returncode == 0, planned.stderr
    assert "Nothing to be done" in planned.stdout + planned.stderr


@pytest.mark.parametrize("scale", ["demo", str(SMOKE / "scales/smoke.yaml")], ids=["demo", "smoke"])
def test_the_whole_paper_is_planned(scale: str, tmp_path: Path) -> None:
    targets = ("--", "all", "results/claims.csv", "results/compute.csv")
    command = snakemake_command("-n", "--quiet", "rules", *targets, folder=tmp_path, config=REPOSITORY / "config")
    command.insert(command.index("--config") + 1, f"scale={scale}")
    planned = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert planned.returncode == 0, planned.stderr
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", planned.stdout + planned.stderr, re.MULTILINE))
    plan = Plan(load_project(REPOSITORY / "config", scale=scale))
    metrics = {path for table in plan.project.tables.values() for path in plan.metrics_of(table)}
    metrics |= {*plan.metrics_of_claims(), *plan.metrics_of_compute()}
    assert int(jobs["sample"]) == int(jobs["evaluate"]) == len(metrics)
    assert int(jobs["table"]) == len(plan.project.tables)
    for kind in ("tokenizer", "extractor", "encoder"):
        assert int(jobs[f"train_{kind}"]) == len({getattr(keys, kind) for keys in plan.keys.values()})
    figures = subprocess.run([*command[:-3], "figures"], capture_output=True, text=True, env=environment(), check=False)
    assert figures.returncode == 0, figures.stderr
    drawn = dict(re.findall(r"^(figure|figure_\w+) +(\d+)$", figures.stdout, re.MULTILINE))
    assert sum(map(int, drawn.values())) == len(load_figures(REPOSITORY / "config"))


def test_the_rule_graph_reads_like_the_pipeline(tmp_path: Path) -> None:
    graph = snakemake("--rulegraph", "dot", "--", TABLE, folder=tmp_path).stdout
    names = dict(re.findall(r'(\d+)\[label = "(\w+)"', graph))
    edges = {(names[one], names[other]) for one, other in re.findall(r"(\d+) -> (\d+)", graph)}
    chain = ["pack_images", "train_tokenizer", "extract_latents", "train_stage1", "freeze_teacher"]
    chain += ["train_stage2", "sample", "evaluate", "table"]
    assert set(pairwise(chain)) <= edges
    assert {("train_extractor", "make_reference"), ("make_reference", "evaluate")} <= edges
    assert {("train_encoder", "train_stage1"), ("train_stage1", "sample")} <= edges


def test_what_snakemake_is_asked_for_is_known(tmp_path: Path) -> None:
    command = snakemake_command("--", TABLE, folder=tmp_path)
    command.insert(command.index("--config") + 1, "seed=4")
    refused = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert refused.returncode != 0
    assert (
        "--config: seed: unknown key; allowed: scale, seeds, claim_seeds, only, ranks, nodes, wall_time, budget, folder"
        in refused.stderr
    )
    assert "Traceback" not in refused.stderr


def test_a_wrong_configuration_is_refused_before_any_job(tmp_path: Path) -> None:
    config = tmp_path / "config"
    shutil.copytree(SMOKE, config)
    rows = config / "runs.yaml"
    rows.write_text(rows.read_text().replace("layer: n/6", "layer: 13"))
    refused = snakemake("--", TABLE, folder=tmp_path, config=config)
    assert refused.returncode != 0
    assert "runs.yaml: aligned.method.layer: found 13; allowed: 1 to 12" in refused.stderr
    assert not (tmp_path / "results").exists()


# ------------------------------------------------------------------------------------------------ killed


@pytest.fixture
def prepared(finished: Path, tmp_path: Path) -> Path:
    """A folder with data, VAE and latents, but nothing trained."""
    for name in ("data", "tokenizers", "latents", "encoders", "extractors", "references"):
        shutil.copytree(finished / "results/smoke" / name, tmp_path / "results/smoke" / name)
    return tmp_path


def selftrans(*arguments: str, folder: Path) -> subprocess.Popen[bytes]:
    """A verb in a process of its own, working in ``folder``."""
    command = [sys.executable, "-m", "selftrans", *arguments, "--config", str(SMOKE), "--threads", "1"]
    return subprocess.Popen(command, cwd=folder, env=environment() | {"PYTHONPATH": str(REPOSITORY)})


def same(one: Path, other: Path) -> bool:
    first, second = load_tensors(one, "weights")[0], load_tensors(other, "weights")[0]
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def wait_for(condition, process: subprocess.Popen[bytes], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the process ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_killed_trainer_goes_on_to_the_same_weights(finished: Path, prepared: Path) -> None:
    plan = smoke_plan()
    run = plan.run("aligned", 0)
    log = prepared / plan.path(Pattern.work, run=run.id) / "log.jsonl"
    for step in (20, 40):
        trainer = selftrans("train", "aligned@80", "--save-every", "0", folder=prepared)
        wait_for(lambda step=step: log.exists() and f'"step": {step},' in log.read_text(), trainer)
        trainer.kill()
        assert trainer.wait() == -signal.SIGKILL
        assert not (prepared / plan.weights(run, 80)).exists()
    assert selftrans("train", "aligned@80", folder=prepared).wait() == 0
    assert same(prepared / plan.weights(run, 20), finished / plan.weights(run, 20))
    whole = prepared / "whole"
    shutil.copytree(finished / "results/smoke/latents", whole / "results/smoke/latents")
    assert selftrans("train", "aligned@80", folder=whole).wait() == 0
    assert same(prepared / plan.weights(run, 80), whole / plan.weights(run, 80))


def test_a_guided_run_is_trained_by_hand_past_its_stop_in_one_go(finished: Path, prepared: Path) -> None:
    run = smoke_plan().run("guided", 0)
    assert run.is_guided(10)
    assert not run.is_guided(20)
    shutil.copytree(finished / "results/smoke/teachers", prepared / "results/smoke/teachers")
    assert selftrans("train", "guided@20", folder=prepared).wait() == 0
    weights = smoke_plan().weights(run, 20)
    assert same(prepared / weights, finished / weights)


def test_a_killed_sampler_leaves_nothing_and_starts_again(finished: Path, prepared: Path) -> None:
    plan = smoke_plan()
    run = plan.run("vanilla", 0)
    weights, samples = plan.weights(run, 20), plan.samples_file(run, 20, "headline")
    (prepared / weights).parent.mkdir(parents=True)
    shutil.copy(finished / weights, prepared / weights)
    for seconds in (1.0, 2.0, 3.0):
        sampler = selftrans("sample", "vanilla@20", folder=prepared)
        time.sleep(seconds)
        sampler.kill()
        if sampler.wait() == 0:
            break
        assert not (prepared / samples).exists()
    assert selftrans("sample", "vanilla@20", folder=prepared).wait() == 0
    assert torch.equal(Samples.load(prepared / samples).images, Samples.load(finished / samples).images)


def test_a_killed_snakemake_goes_on_to_the_same_weights(finished: Path, prepared: Path) -> None:
    plan = smoke_plan()
    targets = [str(plan.weights(plan.run(name, 0), 20)) for name in ("vanilla", "aligned", "external", "guided")]
    command = snakemake_command("--", *targets, folder=prepared)
    for seconds in (3.0, 5.0, 7.0):
        workflow = subprocess.Popen(
            command, env=environment(), start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(seconds)
        os.killpg(workflow.pid, signal.SIGKILL)
        workflow.wait()
        assert selftrans("unlock", folder=prepared).wait() == 0
    done = snakemake("--", *targets, folder=prepared)
    assert done.returncode == 0, done.stderr
    assert all(same(prepared / target, finished / target) for target in targets)
    assert not list(prepared.rglob("*.part"))
