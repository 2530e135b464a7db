"""The command line: every verb explains itself, and a user's mistake ends in a sentence."""

import csv
import json
import shutil
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
from toy import write_metrics, write_report

import selftrans
from selftrans.commands import VERBS, main
from selftrans.plan.paths import Pattern
from selftrans.reporting.results import RESULTS, publish

ROOT = Path(__file__).parents[2]


@pytest.fixture
def call(configuration, tmp_path, monkeypatch, capsys):
    """Run a verb on the small configuration in a folder of its own: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        configuration.write()
        code = main(arguments)
        return code, *capsys.readouterr()

    return run


def help_of(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--help"])
    assert ended.value.code == 0
    return " ".join(capsys.readouterr().out.split())


def test_help_lists_every_verb_with_what_it_makes_of_what(capsys):
    text = help_of(capsys)
    for verb, summary in VERBS.items():
        assert f"{verb} {summary}" in text


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_and_its_options(capsys, verb):
    text = help_of(capsys, verb)
    summary = VERBS[verb]
    assert f"{summary[0].upper()}{summary[1:]}. " in text
    for option in ("--config FOLDER configuration", "--scale SCALE name in", "--threads THREADS CPU threads"):
        assert option in text


def test_the_module_runs_without_installing_anything(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "selftrans", "--version"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"selftrans {selftrans.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["plan", "table9"], "no target is called 'table9'; allowed: main"),
        (["plan", "figures/fig9"], "no figure is called 'fig9'; allowed: none, without figures.yaml"),
        (["plan", "--cores", "0"], "--cores: found 0; allowed: 1 or more"),
        (["plan", "--gpus", "0"], "--gpus: found 0; allowed: 1 or more"),
        (["plan", "--seeds", "0"], "config/config.yaml: seeds: found 0; allowed: greater than 0"),
        (["plan", "--scale", "huge"], "config/config.yaml: scale: found 'huge'; allowed: tiny, or a path"),
        (["plan", "--config", "nowhere"], "nowhere/config.yaml: no such file"),
        (["table", "table9"], "no table is called 'table9'; allowed: main"),
        (["table", "main"], ".json: no such file"),
        (["claims"], "claims.yaml: no claims, so there is nothing to judge"),
        (["train", "guided"], "'guided' is not a reference; write <run>@<epoch>, such as sit-b2@80"),
        (["sample", "guided@7"], "RUN@EPOCH: found 'guided@7'; allowed: the milestones guided@2, guided@3"),
        (["evaluate", "nobody@8"], "RUN@EPOCH: found 'nobody@8'; allowed: <run>@<epoch> with <run> one of plain"),
        (["extract-latents", "--family", "big"], "--family: found 'big'; allowed: small"),
        (["sample", "plain@8", "--expect", "plain-s0-00000000"], "the workflow was planned with plain-s0-00000000"),
        (["train", "plain@8"], "stats.json: not made yet; make it with: snakemake --cores all results/tiny/latents/"),
    ],
)
def test_a_mistake_ends_in_a_sentence_and_code_2(call, arguments, words):
    code, out, error = call(*arguments)
    assert code == 2
    assert error.startswith("error: ")
    assert words in error
    assert "Traceback" not in error + out


def test_a_mistake_in_a_process_of_its_own_shows_no_traceback(configuration, tmp_path):
    configuration.rows["guided"]["weight"] = -1
    done = subprocess.run(
        [sys.executable, "-m", "selftrans", "plan", "--config", configuration.write()],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    expected = (
        f"error: {configuration.folder}/runs.yaml: guided.weight: found -1; allowed: greater than or equal to 0\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, "", expected)


# ---------------------------------------------------------------------------------------------------- plan


MEMORY = "; about 752 MB of memory for a process"  # of the torch that trains anything so small


def test_plan_lists_stage_1_before_stage_2_and_who_needs_them(call, configuration):
    configuration.tables["main"]["rows"] = [
        {"label": "guided", "run": "guided@6"},
        {"label": "plain", "run": "plain@2"},
    ]
    configuration.tables["main"]["compare_with"] = None
    configuration.paper = "fid,is\n1,2\n3,4\n"
    code, out, _ = call("plan")
    aligned, guided, plain, total, remaining = out.splitlines()
    assert code == 0
    assert aligned.split()[0].startswith("aligned-s0-")
    assert aligned.split()[1:] == ["0", "of", "40", "steps", "for", "teaching"]
    assert guided.split()[0].startswith("guided-s0-")
    assert guided.split()[1:] == ["0", "of", "60", "steps", "for", "main"]
    assert plain.split()[1:] == ["0", "of", "20", "steps", "for", "main"]
    assert total == "3 runs, 120 steps"
    assert remaining == f"not there yet: 3 runs, 120 steps, 16 samples, 8 MB{MEMORY}"


def test_plan_counts_a_run_once_however_many_need_it(call, configuration):
    """Table and teacher share aligned, which is trained as far as the further of them."""
    configuration.tables["again"] = configuration.tables["main"] | {"title": "Once more"}
    _, out, _ = call("plan", "--seeds", "2")
    assert out.splitlines()[-2] == "6 runs, 480 steps"
    (aligned,) = [line for line in out.splitlines() if line.startswith("aligned-s1")]
    assert aligned.split()[1:] == ["0", "of", "80", "steps", "for", "main,", "teaching,", "again"]


def test_plan_sees_what_is_there(call, configuration):
    plan = configuration.plan()
    for step in (20, 40):
        path = plan.weights(plan.run("plain", 0), step)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    _, out, _ = call("plan", "main")
    (plain,) = [line for line in out.splitlines() if line.startswith("plain-s0")]
    assert plain.split()[1:4] == ["40", "of", "80"]


def test_plan_of_no_tables_is_empty(call, configuration):
    configuration.tables = {}
    assert call("plan") == (0, "0 runs, 0 steps\nall of it is there\n", "")


def test_plan_of_claims_counts_their_seeds_and_what_they_compare(call, configuration):
    configuration.claims = {"it-helps": {"says": "", "source": "", "better": "aligned@4", "worse": "plain@4"}}
    configuration.settings["claim_seeds"] = 3
    _, out, _ = call("plan", "claims")
    assert out.splitlines()[-2:] == [
        "6 runs, 240 steps",
        f"not there yet: 6 runs, 240 steps, 48 samples, 10 MB{MEMORY}",
    ]
    _, out, _ = call("plan", "claims", "--claim-seeds", "2", "--brief")
    assert out == f"not there yet: 4 runs, 160 steps, 32 samples, 8 MB{MEMORY}\n"


@pytest.mark.parametrize(("cores", "words"), [("1", "22 minutes on 1 core"), ("4", "11 minutes on 4 cores")])
def test_plan_says_how_long_it_takes_if_the_scale_knows_its_pace(call, configuration, cores, words):
    """Two runs of 80 steps through six blocks of 1.25 s: 600 s each; eight images through two times six: 48 s."""
    configuration.tables["main"] |= {"rows": configuration.tables["main"]["rows"][:2], "compare_with": None}
    configuration.paper = "fid,is\n1,2\n3,4\n"
    block = 16 * (12 * 16**2 + 2 * 16 * 16)  # multiplications of 16 tokens of width 16
    configuration.scale["pace"] = {"training": 3 * 4 * block / 1.25e9, "sampling": block / 0.5e9, "job": 0.1}
    _, out, _ = call("plan", "main", "--brief", "--cores", cores)
    about = f"about {words} (22 core-minutes) at the pace of config/scales/tiny.yaml"
    about += f", 6 jobs for data, VAE, extractor, encoder not counted{MEMORY}"
    assert out == f"not there yet: 2 runs, 160 steps, 16 samples, 7 MB; {about}\n"


def test_plan_says_what_is_over_the_budget(call, configuration):
    assert call("plan", "main", "--brief", "--budget", "90m")[1].endswith("; perhaps over the budget of 90m\n")
    configuration.scale["pace"] = {"training": 1.0, "sampling": 1.0, "job": 600.0}
    _, out, _ = call("plan", "main", "--brief", "--budget", "90m")
    assert out.endswith("; over the budget of 90m\n")
    _, out, _ = call("plan", "main", "--brief", "--budget", "7d")
    assert "budget" not in out
    configuration.settings["budget"] = "90m"
    assert "; over the budget of 90m\n" in call("plan", "main", "--brief")[1]
    code, _, error = call("plan", "main", "--budget", "much")
    assert (code, "budget: found 'much'; allowed: " in error) == (2, True)


def test_plan_of_what_is_there_has_nothing_left(call, configuration):
    plan = configuration.plan()
    for path in plan.metrics_of(plan.project.tables["main"]):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert call("plan", "main", "--brief") == (0, "all of it is there\n", "")


# --------------------------------------------------------------------------------------------------- index


def test_index_says_which_row_is_which_folder(call, configuration, tmp_path):
    code, out, error = call("index", "--seeds", "2")
    assert (code, out, error) == (0, "", "")
    with (tmp_path / "results" / "INDEX.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    runs = configuration.plan(seeds=2).runs
    assert [line["folder"] for line in lines] == [f"results/tiny/runs/{run}" for run in runs]
    assert [(line["row"], line["seed"]) for line in lines[2:4]] == [("guided", "0"), ("plain", "1")]
    assert {line["scale"] for line in lines} == {"tiny"}
    assert [json.loads(line["recipe"])["seed"] for line in lines] == [0, 0, 0, 1, 1, 1]


# --------------------------------------------------------------------------------------------------- table


@pytest.fixture
def made(configuration, tmp_path, monkeypatch):
    """Metrics of all rows and the reports that they rest on, as the workflow leaves them."""
    monkeypatch.chdir(tmp_path)
    plan = configuration.plan()
    shared = {"samples": 8, "references": 100, "k": 3, "split_size": 10, "extractor": "judge", "extractor_sha256": "0"}
    names = ("frechet", "spatial_frechet", "inception_score", "precision", "recall", "accuracy")
    for path in plan.metrics_of(plan.project.tables["main"]):
        write_metrics(path, dict.fromkeys(names, 0.5) | shared)
    keys = plan.keys["small"]
    write_report(plan.path(Pattern.tokenizer_report, tokenizer=keys.tokenizer), {"test_mse": 0.5})
    write_report(plan.path(Pattern.extractor_report, extractor=keys.extractor), {"test_accuracy": 0.5})
    return plan


def test_table_writes_csv_and_markdown(made, call, tmp_path):
    code, _, error = call("table", "main")
    assert (code, error) == (0, "")
    with (tmp_path / "results" / "main.csv").open(newline="", encoding="utf-8") as file:
        assert [line["paper_fid"] for line in csv.DictReader(file)] == ["38.6", "32.2", "22.91"]
    assert (tmp_path / "results" / "main.md").read_text(encoding="utf-8").startswith("# Main results\n")


def write_table(plan):
    """A table that begins with a cited row, as if made for the plan."""
    lines = ["row,cited,epochs,frechet,seeds,extractor,scale,paper_samples,paper_fid"]
    lines += ["LDM-4,True,200,,,,tiny,50K,3.6", "ours,False,80,5.0,1,judge,tiny,50K,2.0"]
    path = RESULTS / "main.csv"
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines))
    publish(plan, "main", [path])


def test_a_table_that_begins_with_a_cited_row_is_shown(call, configuration):
    write_table(configuration.plan())
    code, out, _ = call("show", "results/main.csv")
    assert code == 0
    assert "LDM-4 (cited)" in out
    assert "1 seed at scale tiny; Fréchet and IS over judge, which are no FIDs." in out


def edit_a_row(configuration):
    configuration.rows["aligned"]["weight"] = 0.9


def edit_the_title(configuration):
    configuration.tables["main"]["title"] = "Other results"


def edit_the_papers_values(configuration):
    configuration.paper = configuration.paper.replace("38.60", "38.61")


@pytest.mark.parametrize("edit", [edit_a_row, edit_the_title, edit_the_papers_values])
def test_a_table_of_an_edited_configuration_is_not_shown_until_it_is_put_back(call, configuration, edit):
    write_table(configuration.plan())
    before = deepcopy(vars(configuration))
    edit(configuration)
    code, out, error = call("show", "results/main.csv")
    assert (code, out) == (2, "")
    assert "results/main: made with another configuration, which was edited since" in error
    assert "make it with: snakemake --cores all results/main.csv" in error
    vars(configuration).update(before)
    assert call("show", "results/main.csv")[0] == 0


def test_a_table_of_other_seeds_is_not_shown_unless_they_are_asked_for(call, configuration):
    write_table(configuration.plan(seeds=2))
    code, _, error = call("show", "results/main.csv")
    assert code == 2
    assert "results/main: made with seeds 2 (now 1), claim_seeds 2 (now 1); ask for the same again" in error
    assert call("show", "results/main.csv", "--seeds", "2")[0] == 0


def test_a_table_that_is_not_what_was_made_is_not_shown(call, configuration, tmp_path):
    write_table(configuration.plan())
    table, record = tmp_path / "results/main.csv", tmp_path / "results/main.json"
    shutil.copy(table, tmp_path / "elsewhere.csv")
    assert "elsewhere.csv: not in " in call("show", "elsewhere.csv")[2]
    table.write_text(table.read_text().replace("5.0", "4.0"))
    assert "results/main.csv: altered after it was written; delete it" in call("show", "results/main.csv")[2]
    record.unlink()
    assert "results/main.json: missing, so that nothing says what" in call("show", "results/main.csv")[2]
    table.unlink()
    code, out, error = call("show", "results/main.csv")
    assert (code, out) == (2, "")
    assert "results/main.csv: not made yet" in error
