"""What `make` calls: stand-ins for Snakemake and Python write down their arguments."""

import os
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
STAND_IN = '#!/bin/sh\nprintf "%s\\0" "${0##*/}" "$@" >> calls\nprintf "\\n" >> calls\n'

# make splits at white space; ${IFS} is the shell's.
RUNS = ["x;touch${IFS}y", "$(touch${IFS}y)", "`touch${IFS}y`", "';touch${IFS}y;'", "a&touch${IFS}y", "$(shell touch y)"]
KEEPS = ["it's", '"a"', "$$HOME", "$HOME", "*", "?", "~", "\\", "#", "a%b", "%", "(", "a,b", "ldit-*", "{a,b}", "!x"]


@pytest.fixture
def make(tmp_path):
    """Call make in an empty folder; gives the calls that it made, each as [program, arguments...]."""
    for program in ("snakemake", "python"):
        (tmp_path / program).write_text(STAND_IN)
        (tmp_path / program).chmod(0o755)

    def call(*arguments):
        command = ["make", "-f", str(REPOSITORY / "Makefile"), f"SNAKEMAKE={tmp_path}/snakemake", *arguments]
        clean = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
        done = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert {path.name for path in tmp_path.iterdir()} == {"snakemake", "python", "calls"}
        calls = (tmp_path / "calls").read_text(encoding="utf-8").split("\0\n")[:-1]
        return [line.split("\0") for line in calls]

    return call


def test_settings_reach_snakemake_and_the_verbs(make):
    calls = make("results/table5.csv", "CONFIG=seeds=4 claim_seeds=2 folder=mine", "CORES=3", "GPUS=2")
    settings = ["--resources", "gpu=2", "--config", "seeds=4", "claim_seeds=2", "folder=mine"]
    options = ["--seeds=4", "--claim-seeds=2", "--config=mine", "--cores=3", "--gpus=2"]
    assert calls[1:] == [
        ["python", "-m", "selftrans", "doctor", "table5", "--quick", *options],
        ["python", "-m", "selftrans", "plan", "table5", "--brief", *options],
        ["snakemake", "--cores", "3", "--quiet", "rules", "host", *settings, "--", "results/table5.csv"],
        ["python", "-m", "selftrans", "show", *options[:-2], "results/table5.csv"],
    ]


def test_how_jobs_are_shared_out_reaches_snakemake_alone(make):
    _, doctor, plan, snakemake, _ = make("results/table5.csv", "CONFIG=ranks=8 nodes=2 seeds=2 wall_time=60")
    assert (doctor[-1], plan[-1]) == ("--seeds=2", "--seeds=2")
    assert snakemake[-7:] == ["--config", "ranks=8", "nodes=2", "seeds=2", "wall_time=60", "--", "results/table5.csv"]


def test_a_budget_reaches_snakemake_and_those_who_look_ahead(make):
    _, doctor, plan, snakemake, show = make("results/table5.csv", "CONFIG=budget=24h seeds=2")
    assert (doctor[-2:], plan[-2:]) == (["--budget=24h", "--seeds=2"], ["--budget=24h", "--seeds=2"])
    assert snakemake[-5:] == ["--config", "budget=24h", "seeds=2", "--", "results/table5.csv"]
    assert show[-2:] == ["--seeds=2", "results/table5.csv"]


def test_what_is_wrong_with_the_machine_ends_it(tmp_path):
    """`doctor` says 1 then; nothing is planned or run."""
    for program, text in (("snakemake", STAND_IN), ("python", STAND_IN + '[ "$3" != doctor ]\n')):
        (tmp_path / program).write_text(text)
        (tmp_path / program).chmod(0o755)
    for target in ("results/table5.csv", "figures", "report"):
        command = ["make", "-f", str(REPOSITORY / "Makefile"), f"SNAKEMAKE={tmp_path}/snakemake", target]
        assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 2
        calls = (tmp_path / "calls").read_text(encoding="utf-8").split("\0\n")[:-1]
        assert [call.split("\0")[3] for call in calls] == ["unlock", "doctor"]
        (tmp_path / "calls").unlink()


def test_without_settings_there_are_no_options(make):
    _, doctor, plan, snakemake = make("figures")
    assert doctor == ["python", "-m", "selftrans", "doctor", "figures", "--quick"]
    assert plan == ["python", "-m", "selftrans", "plan", "figures", "--brief"]
    assert snakemake == ["snakemake", "--cores", "all", "--quiet", "rules", "host", "--", "figures"]


def test_the_cpu_alone(make):
    """How long it takes is said for one GPU all the same, at scales that need them."""
    *_, plan, snakemake = make("figures", "GPUS=0")
    assert plan == ["python", "-m", "selftrans", "plan", "figures", "--brief"]
    assert snakemake[5:] == ["host", "--resources", "gpu=0", "--", "figures"]


@pytest.mark.parametrize("text", RUNS + KEEPS)
@pytest.mark.parametrize("target", ["results/table5.csv", "figures", "report"])
def test_whatever_a_call_sets_is_an_argument_and_no_command(make, target, text):
    calls = make(target, f"CONFIG=only={text}", f"CORES={text}", f"GPUS={text}", f"TARGETS={text}")
    (_, *plan), (snakemake, *_) = ([found for found in calls if found[0] == name] for name in ("python", "snakemake"))
    words = f"only={text}".split()
    assert snakemake[1:] == [
        *("--cores", *text.split(), "--quiet", "rules", "host"),
        *("--resources", *(f"gpu={word}" for word in text.split()), "--config", *words, "--"),
        *(text.split() if target == "report" else [target]),
    ]
    if target != "report":
        options = [f"--{word}" for word in words] + [f"--cores={word}" for word in text.split()]
        options += [f"--gpus={word}" for word in text.split()]
        for call in plan[:2]:  # doctor and plan; show has no cores
            assert call[-len(options) :] == options


@pytest.mark.parametrize("text", RUNS + KEEPS)
def test_a_target_is_an_argument_and_no_command(make, text):
    target = f"results/{text}.csv"
    _, doctor, plan, snakemake, show = make(target)
    assert doctor[3:] == ["doctor", text, "--quick"]
    assert plan[3:] == ["plan", text, "--brief"]
    assert snakemake[-2:] == ["--", target]
    assert show[3:] == ["show", target]


def test_a_report_is_about_the_page_if_nothing_else_is_said(make):
    _, doctor, plan, *snakemake = make("report")
    assert (doctor[3:], plan[3:]) == (["doctor", "--quick"], ["plan", "--brief"])
    assert [call[-2:] for call in snakemake] == [["--", "results/index.html"]] * 2
