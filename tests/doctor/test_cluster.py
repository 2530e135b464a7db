"""What SLURM says, in the forms of sinfo(1) and slurm.conf(5), and what follows for the profile."""

import shutil
from pathlib import Path

import pytest

from selftrans.doctor.cluster import (
    PROFILE,
    cluster,
    gpus_of,
    job_age,
    minutes_of,
    partitions_of,
    profile_lines,
    states,
)

# An emulated cluster of two nodes with two GPUs each (`sinfo` and `scontrol show config` of SLURM 22.05).
EMULATED = "emulated*|up|infinite|2|gpu:2|8|200000\n"
WITHOUT_ACCOUNTING = """AccountingStorageType   = accounting_storage/none
KillWait                = 15 sec
MinJobAge               = 3600 sec
SelectType              = select/cons_tres
SelectTypeParameters    = CR_CORE_MEMORY
"""
# A site with a partition for CPUs, two kinds of GPUs, and an older one that is down.
SITE = """cpu*|up|2-00:00:00|120|(null)|64|256000+
gpu|up|1-00:00:00|16|gpu:a100:4(S:0-1)|64|512000
gpu|up|1-00:00:00|4|gpu:h100:8(S:0-3),shard:8|96|1024000
long|up|7-00:00:00|2|gpu:v100:2|32|128000
old|down|12:00:00|3|gpu:4|16|64000
"""
STAND_IN = """#!/bin/sh
{}
"""


def test_time_limits_are_minutes():
    limits = {"30:00": 30, "12:00:00": 720, "1-00:00:00": 1440, "7-12:30:00": 10830, "infinite": None, "n/a": None}
    assert {limit: minutes_of(limit) for limit in limits} == limits


@pytest.mark.parametrize(
    ("gres", "gpus"),
    [
        ("(null)", ()),
        ("gpu:2", (("", 2),)),
        ("gpu:a100:4(S:0-1)", (("a100", 4),)),
        ("gpu:tesla_v100-32gb:8(S:0-1),mps:800", (("tesla_v100-32gb", 8),)),
        ("gpu:a100:2,gpu:h100:4", (("a100", 2), ("h100", 4))),
        ("fpga:2", ()),
        ("mygpu:2", ()),
    ],
)
def test_gpus_are_told_from_other_resources(gres, gpus):
    assert gpus_of(gres) == gpus


def test_partitions_are_read_line_by_line():
    (found,) = partitions_of(EMULATED)
    assert (found.name, found.default, found.up, found.minutes, found.nodes) == ("emulated", True, True, None, 2)
    assert str(found) == "emulated: no time limit, 2 nodes of 8 CPUs, 200000 MB, 2 × GPU each"
    site = partitions_of(SITE)
    assert [found.name for found in site] == ["cpu", "gpu", "gpu", "long", "old"]
    assert str(site[-1]).endswith(", 4 × GPU each, down")
    assert partitions_of("something else\n") == []


def lines(*arguments, **options):
    """Without the file that each is to be written in, which is the profile but for the wall time."""
    return [line.removeprefix("profiles/slurm/config.yaml: ") for line in profile_lines(*arguments, **options)]


def test_the_lines_of_a_site_with_accounting():
    """The partition with most GPUs, of one kind."""
    config = "SelectType              = select/cons_tres\nMinJobAge               = 300 sec\n"
    assert lines(partitions_of(SITE), config, True, ["group", "other"]) == [
        "default-resources: slurm_partition: cpu",
        "default-resources: slurm_account: group # or other",
        "set-resources: train_stage1: &train {slurm_partition: gpu, gpu_model: a100}",
        "set-resources: sample: &gpu {slurm_partition: gpu, gpu_model: a100}",
        "config/config.yaml: wall_time: 1440",
    ]


def test_the_lines_of_a_site_without_accounting():
    assert lines(partitions_of(EMULATED), WITHOUT_ACCOUNTING, False) == [
        "default-resources: slurm_partition: emulated",
        "set-resources: train_stage1: &train {slurm_partition: emulated}",
        "set-resources: sample: &gpu {slurm_partition: emulated}",
        "slurm-status-command: squeue",
    ]


def test_the_lines_of_a_site_that_forgets_jobs_soon_and_knows_no_gpus_option():
    config = "SelectType              = select/linear\nMinJobAge               = 60 sec\n"
    assert lines(partitions_of("gpu*|up|1:00:00|4|gpu:a100:4|64|512000\n"), config, False, gpus=4) == [
        "default-resources: slurm_partition: gpu",
        'set-resources: train_stage1: &train {slurm_partition: gpu, gpu: 0, gres: "gpu:a100:4"}',
        'set-resources: sample: &gpu {slurm_partition: gpu, gpu: 0, gres: "gpu:a100:1"}',
        "slurm-status-command: squeue",
        "slurm-init-seconds-before-status-checks: 20",
        "config/config.yaml: wall_time: 60",
    ]


def test_the_lines_are_keys_of_the_profile():
    """What is said to be written there is there to be written, in a comment or not."""
    profile = (Path(__file__).parents[2] / PROFILE).read_text(encoding="utf-8")
    for word in (
        "default-resources:",
        "set-resources:",
        "train_stage1: &train {",
        "sample: &gpu {",
        "slurm_partition:",
    ):
        assert word in profile
    for word in ("slurm_account:", "slurm-status-command: squeue", "gpu_model:", 'gpu: 0, gres: "gpu:1"'):
        assert word in profile


def test_a_site_without_gpus_is_told_how_to_do_without(programs):
    programs(sinfo="echo 'cpu*|up|1:00:00|4|(null)|64|512000'", scontrol="exit 1", sacct="exit 0")
    assert [finding.advice for finding in cluster() if finding.level == "warning"] == [
        "on CPUs alone: snakemake --resources gpu=0"
    ]


def test_states_need_accounting_or_a_memory_for_ended_jobs():
    """The executor first asks after 40 seconds, and wants to find a job that ended meanwhile."""
    reason = "Slurm accounting storage is disabled"
    assert states(True, "", 0).level == "ok"
    assert states(False, reason, job_age(WITHOUT_ACCOUNTING)).level == "ok"
    assert states(False, reason, 119).level == "warning"
    assert job_age("MinJobAge               = (null)") == job_age("") == 0


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Only the programs that a test writes, by name, are found."""

    def write(**texts):
        for name, text in texts.items():
            (tmp_path / name).write_text(STAND_IN.format(text))
            (tmp_path / name).chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    (tmp_path / "cat").symlink_to("/bin/cat")
    return write


def test_without_slurm_jobs_run_here(programs):
    assert [str(finding) for finding in cluster()] == ["ok       no SLURM here: jobs run on this machine"]


def test_a_controller_that_does_not_answer_is_a_warning(programs):
    programs(sinfo="echo 'slurm_load_partitions: Unable to contact slurm controller (connect failure)' >&2; exit 1")
    (found,) = cluster()
    assert found.level == "warning"
    assert "Unable to contact slurm controller" in found.what


@pytest.mark.skipif(shutil.which("sinfo") is None, reason="SLURM is not installed")
def test_slurms_own_commands_without_a_cluster(monkeypatch, tmp_path):
    """Where there is no configuration, or its controller is not to be reached."""
    config = tmp_path / "slurm.conf"
    config.write_text("ClusterName=none\nSlurmctldHost=localhost(127.0.0.1)\nSlurmctldPort=1\nAuthType=auth/none\n")
    monkeypatch.setenv("SLURM_CONF", str(config))
    (found,) = cluster()
    assert (found.level, "no controller answers" in found.what) == ("warning", True)


def test_partitions_settings_and_lines_are_all_said(programs):
    programs(
        sinfo=f"cat <<'END'\n{EMULATED}END",
        scontrol=f"cat <<'END'\n{WITHOUT_ACCOUNTING}END",
        sacct="echo 'Slurm accounting storage is disabled' >&2; exit 1",
    )
    found = list(cluster())
    assert {finding.level for finding in found} == {"ok"}
    assert found[-1].what == "fits this site: profiles/slurm/config.yaml: slurm-status-command: squeue"


def test_accounting_brings_the_accounts_of_the_user(programs):
    programs(
        sinfo=f"cat <<'END'\n{SITE}END",
        scontrol="echo 'SelectType = select/cons_tres'",
        sacct="exit 0",
        sacctmgr="echo group; echo group; echo another",
    )
    assert any("slurm_account: another # or group" in finding.what for finding in cluster())


def test_inside_of_a_job_or_without_partitions_something_is_odd(programs, monkeypatch):
    programs(sinfo="echo 'debug*|down|infinite|1|(null)|8|1000'")
    monkeypatch.setenv("SLURM_JOB_ID", "45")
    assert [finding.level for finding in cluster()] == ["warning", "wrong"]
