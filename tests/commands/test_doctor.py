"""`selftrans doctor` on this machine: lines, exit codes, and what the quick part leaves out."""

import subprocess
import sys
from pathlib import Path

import pytest

from selftrans.commands import main

LEVELS = {"ok", "warning", "wrong"}
ROOT = Path(__file__).parents[2]


@pytest.fixture
def doctor(configuration, tmp_path, monkeypatch, capsys):
    """Run it in an empty folder: (exit code, lines)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        configuration.write()
        try:
            code = main(["doctor", *arguments])
        except SystemExit as ended:
            code = ended.code
        out, err = capsys.readouterr()
        assert err == ""
        return code, out.splitlines()

    return run


def test_every_line_says_how_bad_it_is_and_the_last_one_counts(doctor):
    code, lines = doctor("main")
    found = [line.split()[0] for line in lines[:-1]]
    assert (code, set(found) <= LEVELS) == (0, True)
    assert lines[-1] == f"{found.count('ok')} ok, {found.count('warning')} warnings, 0 wrong"
    text = "\n".join(lines)
    for word in ("Python", "libraries", "GPU", "are free", "training mu of small", "SLURM", "no other one gets"):
        assert word in text
    assert not Path("results").exists()


def test_the_quick_part_says_only_what_is_not_ok(doctor):
    code, lines = doctor("main", "--quick")
    assert code == 0
    assert not [line for line in lines if line.startswith(("ok", "wrong"))]


def test_a_missing_file_from_outside_is_wrong_where_the_target_needs_it(doctor, configuration):
    configuration.family["extractor"] = {"published": "inception", "weights": "external/inception.pth"}
    code, lines = doctor("main", "--quick")
    missing = [line for line in lines if line.startswith("wrong")]
    assert (code, len(missing)) == (1, 1)
    assert "families.small.extractor.weights: external/inception.pth (inception) is not there" in missing[0]
    plan = configuration.plan()
    for path in plan.metrics_of_target("main"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert doctor("main", "--quick")[0] == 0  # all of it is there


def test_what_is_over_the_budget_is_wrong(doctor, configuration):
    configuration.scale["pace"] = {"training": 1.0, "sampling": 1.0, "job": 600.0}
    code, lines = doctor("main", "--quick", "--budget", "90m")
    (over,) = [line for line in lines if line.startswith("wrong")]
    assert (code, "budget: 90m allowed, about " in over, "; raise the budget" in over) == (1, True, True)
    assert doctor("main", "--quick", "--budget", "7d")[0] == 0
    assert "ok       within the budget of 7d" in doctor("main", "--budget", "7d")[1]


def test_a_wrong_target_or_option_is_refused_as_by_plan(configuration, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = str(configuration.write())
    for arguments, words in (
        (["table9"], "no target is called 'table9'; allowed: main"),
        (["--cores", "0"], "--cores: found 0; allowed: 1 or more"),
        (["--ranks", "0"], "ranks: found 0; allowed: greater than 0"),
    ):
        assert main(["doctor", *arguments, "--config", config]) == 2
        assert words in capsys.readouterr().err


def test_the_quick_part_imports_nothing_large_and_asks_no_program():
    code = """
import subprocess, sys
from selftrans.commands import main
def refuse(*arguments, **options):
    raise AssertionError("another program is asked")
subprocess.run = subprocess.Popen = refuse
main(["doctor", "table5", "--quick"])
print(sorted({"torch", "diffusers", "timm", "scipy", "sklearn", "numpy"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
