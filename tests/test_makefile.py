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
        ["python", "-m", "selftrans", "plan", "table5", "--brief", *options],
        ["snakemake", "--cores", "3", "--quiet", "rules", "host", *settings, "--", "results/table5.csv"],
        ["python", "-m", "selftrans", "show", *options[:-2], "results/table5.csv"],
    ]


def test_without_settings_there_are_no_options(make):
    _, plan, snakemake = make("figures")
    assert plan == ["python", "-m", "selftrans", "plan", "figures", "--brief"]
    assert snakemake == ["snakemake", "--cores", "all", "--quiet", "rules", "host", "--", "figures"]


def test_the_cpu_alone(make):
    """How long it takes is said for one GPU all the same, at scales that need them."""
    _, plan, snakemake = make("figures", "GPUS=0")
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
        assert plan[0][-len(options) :] == options


@pytest.mark.parametrize("text", RUNS + KEEPS)
def test_a_target_is_an_argument_and_no_command(make, text):
    target = f"results/{text}.csv"
    _, plan, snakemake, show = make(target)
    assert plan[3:] == ["plan", text, "--brief"]
    assert snakemake[-2:] == ["--", target]
    assert show[3:] == ["show", target]
