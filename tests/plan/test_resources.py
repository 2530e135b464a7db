"""What jobs ask a scheduler for, counted by hand on rows of depth 6 with milestones of 20, 40, 60 and 80 steps."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from snakemake_executor_plugin_slurm.submit_string import get_submit_command

from selftrans.config.reading.project import load_project
from selftrans.plan.plan import Plan
from selftrans.plan.resources import AT_LEAST, MARGIN, PROCESS, JobResources
from selftrans.plan.size import state_bytes, weights_bytes

BLOCK = 16 * (12 * 16**2 + 2 * 16 * 16)  # multiplications of 16 tokens of width 16
ROOT = Path(__file__).parents[2]


class Resources(SimpleNamespace):
    """As the plugin sees those of a job."""

    def get(self, name, default=None):
        return getattr(self, name, default)


@pytest.fixture
def plan_of(configuration):
    def plan(pace=True, **settings):
        # A step of four images takes 60 seconds a block, an image's step in the sampler 15.
        if pace:
            configuration.scale["pace"] = {"training": 12 * BLOCK / 60e9, "sampling": BLOCK / 15e9, "job": 30}
        configuration.settings |= settings
        configuration.every_milestone = True
        return configuration.plan()

    return plan


def test_a_training_asks_for_twice_its_time_shared_by_its_ranks(plan_of):
    plan = plan_of(wall_time=10_000)
    plain, guided = plan.run("plain", 0), plan.run("guided", 0)
    assert JobResources(plan).training_minutes(plain, 40) == pytest.approx(MARGIN * (20 * 6 + 0.5), abs=1)
    assert JobResources(plan).training_minutes(guided, 20) == pytest.approx(MARGIN * (20 * (6 + 8 / 3) + 0.5), abs=1)
    assert JobResources(plan).training_minutes(guided, 40) == pytest.approx(
        MARGIN * (10 * 6 + 0.5), abs=1
    )  # it was guided until 30
    assert JobResources(plan_of(ranks=2)).training_minutes(plain, 40) == pytest.approx(MARGIN * (10 * 6 + 0.5), abs=1)


@pytest.mark.parametrize("gpus", [0, 8])
def test_a_training_over_nodes_asks_for_a_task_on_each(plan_of, gpus):
    """In the words of sbatch; on one node nothing is said of tasks, since the plugin's own srun starts one."""
    assert JobResources(plan_of(ranks=8)).nodes == {}
    resources = Resources(**JobResources(plan_of(ranks=8, nodes=2)).nodes, gpu=gpus, mem_mb=1000)
    params = {"run_uuid": "x", "slurm_logfile": "x", "comment_str": "x", "account": "", "partition": "", "workdir": ""}
    line = get_submit_command(SimpleNamespace(resources=resources, threads=4), params)
    assert "--nodes=2 " in line
    assert "--ntasks=2 " in line
    assert "--cpus-per-task=4" in line
    assert "--ntasks-per-gpu" not in line


def test_no_job_asks_for_more_than_the_partition_allows(plan_of):
    plan = plan_of(wall_time=60)
    run = plan.run("plain", 0)
    resources, preset = JobResources(plan), run.family.presets["headline"]
    assert resources.training_minutes(run, 40) == 60
    assert resources.sampling_minutes(run, preset, shards=1, attempt=1) == MARGIN * (2 * 6 * 8 * 15 + 30) / 60
    assert resources.sampling_minutes(run, preset, shards=1, attempt=2) == 60
    assert resources.sampling_minutes(run, preset, shards=8, attempt=1) == AT_LEAST
    assert [resources.other_minutes(40, attempt) for attempt in (1, 2)] == [40, 60]
    assert resources.data_minutes(run.family.data) == AT_LEAST  # of the digits
    images = run.family.data.model_copy(update={"source": "images"})
    assert resources.data_minutes(images) == 60
    assert [resources.data_minutes(images.model_copy(update={"parts": parts})) for parts in (2, 8)] == [30, AT_LEAST]


def test_without_a_pace_work_may_take_as_long_as_a_job_may(plan_of):
    plan = plan_of(pace=False, wall_time=77)
    assert JobResources(plan).training_minutes(plan.run("plain", 0), 20) == 77


def test_memory_is_that_of_the_processes_of_a_machine_and_more_at_a_next_attempt(plan_of):
    run = plan_of().run("plain", 0)
    alone, eight, of_two_machines = (
        JobResources(plan_of(ranks=ranks, nodes=nodes)).training_memory(run)
        for ranks, nodes in ((1, 1), (8, 1), (8, 2))
    )
    assert alone == PROCESS + math.ceil(2 * state_bytes(run) / 1e6)
    assert (eight - alone, of_two_machines - alone) == (7 * PROCESS, 3 * PROCESS)
    resources = JobResources(plan_of())
    assert [resources.memory(1000, attempt) for attempt in (1, 2, 3, 9)] == [1000, 2000, 3000, 4000]
    images = resources.images_memory(run, run.family.presets["headline"], 1)
    assert images == PROCESS + 1  # eight images
    assert resources.sampling_memory(run, 1) == PROCESS + math.ceil(2 * weights_bytes(run) / 1e6)
    assert resources.sampling_memory(run, 2) == 2 * resources.sampling_memory(run, 1)


def test_memory_is_that_of_the_weights_that_are_really_there(configuration):
    """SiT-XL/2 of 32 x 32 latents of ImageNet: 675,111,184 parameters of 4 bytes, read into as many."""
    run = Plan(load_project(ROOT / "config", scale="imagenet")).run("sit-xl2", 0)
    assert JobResources(configuration.plan()).sampling_memory(run, 1) == PROCESS + 5401
    assert JobResources(configuration.plan()).training_memory(run) == PROCESS + 21604


def test_a_training_is_told_before_its_time_is_up():
    profile = yaml.safe_load((ROOT / "profiles" / "slurm" / "config.yaml").read_text())
    assert profile["default-resources"]["slurm_extra"] == "--signal=USR1@300"


def test_every_rule_that_uses_a_gpu_is_in_the_profile():
    """What a site says of GPUs reaches all of them, and no rule that has none."""
    rules, name = set(), None
    for file in (ROOT / "workflow" / "rules").glob("*.smk"):
        for line in file.read_text().splitlines():
            if line.strip().startswith("rule "):
                name = line.strip().removeprefix("rule ").rstrip(":")
            if line.strip().startswith("gpu="):
                rules.add(name)
    profile = yaml.safe_load((ROOT / "profiles" / "slurm" / "config.yaml").read_text())
    assert profile["set-resources"].keys() == rules | {"train_stage2"}  # which uses train_stage1
