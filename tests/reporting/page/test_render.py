"""The page of made-up results: whole, in one file, honest about what is not there."""

import os
import re
import shutil
import time
from html.parser import HTMLParser

import pytest
import yaml
from PIL import Image
from toy import write_metrics, write_report

from selftrans.commands import main
from selftrans.leases import PATIENCE
from selftrans.plan.paths import Log, Pattern
from selftrans.reporting.results import publish
from selftrans.training.log import log_line

FRECHET = {"plain": [40.0, 44.0, 48.0], "aligned": [30.0, 36.0, 36.0], "guided": [20.0, 22.0, 27.0]}
VOID = {"meta", "img", "br", "line", "circle", "polyline"}
CLAIMS = {
    "helps": {"says": "alignment <helps> & more", "source": "§4", "better": "aligned@8", "worse": "plain@8"},
    "harms": {"says": "nothing helps", "source": "§4", "better": "plain@8", "worse": "guided@8"},
}
FIGURES = {
    "fig6": {
        "title": "Samples, not chosen",
        "caption": "The first of each class.",
        "kind": "gallery",
        "run": "guided@8",
        "preset": "headline",
        "classes": [0],
        "each": 1,
    }
}


class Page(HTMLParser):
    """Checks that tags are closed in order; gathers text and everything that is referred to."""

    def __init__(self, text):
        super().__init__()
        self.open, self.references, self.ids, self.words, self.tags = [], [], set(), [], set()
        self.sources = set()
        self.feed(text)
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.add(tag)
        self.sources |= {found["src"]} if "src" in found else set()
        self.references += [found[key] for key in ("src", "href") if key in found]
        self.ids |= {found["id"]} if "id" in found else set()
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert tag not in VOID
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)


@pytest.fixture
def plan(configuration, tmp_path, monkeypatch):
    """A plan with a table, two claims over three seeds, and a figure, in the working directory."""
    monkeypatch.chdir(tmp_path)
    configuration.claims = CLAIMS
    configuration.settings |= {"seeds": 3, "claim_seeds": 3}
    configuration.write()
    (configuration.folder / "figures.yaml").write_text(yaml.safe_dump(FIGURES))
    return configuration.plan()


def make_results(plan):
    """What the workflow leaves."""
    for name, values in FRECHET.items():
        for seed, value in enumerate(values):
            metrics = dict.fromkeys(("spatial_frechet", "precision", "recall", "accuracy"), 0.5)
            metrics |= {"frechet": value, "inception_score": 2.0, "samples": 8, "references": 1000, "k": 3}
            metrics |= {"split_size": 5000, "extractor": "judge", "extractor_sha256": "0a1b"}
            about = {"provenance": {"commit": "c0ffee", "machine": "an abacus"}}
            write_metrics(plan.metrics(f"{name}@8", seed, "headline"), metrics | {"about": about})
    keys = plan.keys["small"]
    write_report(plan.path(Pattern.tokenizer_report, tokenizer=keys.tokenizer), {"test_mse": 0.00123456})
    write_report(plan.path(Pattern.extractor_report, extractor=keys.extractor), {"test_accuracy": 0.97531})
    for seed in plan.seeds:
        log = plan.path(Pattern.work, run=plan.run("guided", seed).id) / "log.jsonl"
        log.parent.mkdir(parents=True)
        values = dict.fromkeys(("loss", "diffusion", "method", "gradient_norm", "steps_per_second"), 1.5)
        log.write_text("".join(log_line(log.parent.name, {"step": step, **values}) for step in (20, 40)))
    empty = plan.path(Pattern.work, run=plan.run("plain", 0).id) / "log.jsonl"  # of a run that has just begun
    empty.parent.mkdir(parents=True)
    empty.touch()
    (plan.root.parent / "figures").mkdir(parents=True)
    (plan.root.parent / "figures/fig6.pdf").touch()
    Image.new("RGB", (600, 300), "red").save(plan.root.parent / "figures/fig6.png", dpi=(300, 300))
    publish(plan, "figures/fig6", [plan.root.parent / f"figures/fig6.{ending}" for ending in ("pdf", "png")])


def run(*verb, plan):
    assert main([*verb, "--config", str(plan.project.folder)]) == 0


def page_of(path):
    return Page(path.read_text(encoding="utf-8"))


def test_the_page_tells_everything_in_one_file(plan, tmp_path):
    make_results(plan)
    run("table", "main", plan=plan)
    run("claims", plan=plan)
    run("page", plan=plan)
    page = page_of(tmp_path / "results/index.html")
    assert {"headline", "claims", "figures", "fig6", "tables", "curves", "provenance"} <= page.ids
    assert "44.0 ± 4.0" in page.text
    assert "plain@8" in page.text
    assert "2 claims over 3 seeds: 1 hold, 1 are contradicted, 0 are undecided." in page.text
    assert "alignment <helps> & more" in page.text
    assert "The first of each class." in page.text
    assert "guided 40 steps, 3 seeds" in page.text
    assert "commit c0ffee 9" in page.text
    assert "test mse 0.001235" in page.text
    assert "not made yet" not in page.text
    assert not re.search(r"\b(nan|None|NaN)\b", page.text)


def test_of_a_run_at_work_the_curves_up_to_now_show_and_how_far_it_is(plan, tmp_path):
    make_results(plan)
    shutil.rmtree(plan.root / "metrics")
    for seed in plan.seeds:
        log = plan.path(Log.train, run=plan.run("guided", seed).id, step=80)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
        if seed != 1:  # of a job that was killed
            os.utime(log, (time.time() - 2 * PATIENCE,) * 2)
    run("page", plan=plan)
    for name in ("index", "training"):
        page = page_of(tmp_path / f"results/{name}.html")
        assert "guided 40 steps, 3 seeds; seed 1 runs: 40 of 80 steps, 1.5 steps/s, 1 minute left" in page.text
        assert page.text.count(" minute left") == 1
        assert "diffusion loss" in page.text


def test_it_needs_no_network_and_no_other_file(plan, tmp_path):
    make_results(plan)
    run("page", plan=plan)
    page = page_of(tmp_path / "results/index.html")
    inside = {found for found in page.references if found.startswith(("#", "data:image/png;base64,"))}
    assert set(page.references) - inside == {"https://arxiv.org/abs/2601.07773"}
    assert {found[1:] for found in inside if found.startswith("#")} <= page.ids
    text = (tmp_path / "results/index.html").read_text()
    assert "url(" not in text
    assert "@import" not in text


def test_figures_have_the_size_of_their_print(plan, tmp_path):
    make_results(plan)
    run("page", plan=plan)
    assert 'width="300"' in (tmp_path / "results/index.html").read_text()  # 2 inches


def test_bars_are_shares_of_the_largest_value(plan, tmp_path):
    make_results(plan)
    run("table", "main", plan=plan)
    run("page", plan=plan)
    shares = re.findall(r"--share:([\d.]+)", (tmp_path / "results/index.html").read_text())
    ours, papers = [1.0, 34 / 44, 23 / 44], [1.0, 32.2 / 38.6, 22.91 / 38.6]
    pairs = [value for pair in zip(ours, papers, strict=True) for value in pair]
    assert [float(share) for share in shares] == pytest.approx([*pairs, *pairs], abs=1e-3)  # headline and table


def test_what_is_not_there_is_named_with_its_command(plan, tmp_path):
    run("page", plan=plan)
    page = page_of(tmp_path / "results/index.html")
    assert "3 not made yet" in page.text
    for target in ("results/main.csv", "results/claims.csv", "results/figures/fig6.pdf"):
        assert f"make {target}" in page.text
    assert not {"headline", "claims", "figures", "tables", "curves"} & page.ids


def test_parts_are_pages_of_their_own(plan, tmp_path):
    make_results(plan)
    run("page", plan=plan)
    training, provenance = (page_of(tmp_path / f"results/{name}.html") for name in ("training", "provenance"))
    assert training.ids == {"curves"}
    assert provenance.ids == {"provenance"}


def test_tags_in_what_others_wrote_are_text(plan, configuration, tmp_path):
    tag = "<script>alert(1)</script><img src=x onerror=y>"  # and a picture from elsewhere, in the note
    configuration.scale |= {
        "description": f"digits {tag}",
        "notes": {"main": f"A note.\n\n{tag}\n\n*an emphasis* ![](https://example.org/x.png)"},
        "claims": {"harms": {"set": {"worse": "aligned@8"}, "reason": tag}},
    }
    configuration.family["stretch"] = {"teacher": 2, "stop": 2, "reason": f"small\n\n{tag}"}
    configuration.family["overrides"] = [{"rows": "guided", "set": {"weight": 0.25}, "reason": tag}]
    configuration.tables["main"]["rows"][0]["label"] = f"|{tag}\n|"
    configuration.tables["main"]["title"] = tag
    configuration.claims["helps"]["says"] = configuration.claims["helps"]["source"] = tag
    plan = configuration.plan()
    make_results(plan)
    write_report(plan.path(Pattern.tokenizer_report, tokenizer=plan.keys["small"].tokenizer), {tag: tag, "test_mse": 0})
    run("table", "main", plan=plan)
    run("claims", plan=plan)
    run("page", plan=plan)
    pages = [page_of(path) for path in (tmp_path / "results").glob("*.html")]
    assert len(pages) == 5
    assert "script" not in {found for page in pages for found in page.tags}
    assert not {found for page in pages for found in page.sources if not found.startswith("data:")}
    page = page_of(tmp_path / "results/index.html")
    assert page.text.count(tag) >= 10
    assert "an emphasis" in page.text
    assert "*an emphasis*" not in page.text


def test_a_label_that_looks_like_a_formula_is_a_label(plan, configuration, tmp_path):
    configuration.tables["main"]["rows"][0]["label"] = "=1+1"
    plan = configuration.plan()
    make_results(plan)
    run("table", "main", plan=plan)
    run("page", plan=plan)
    assert (tmp_path / "results/main.csv").read_text().splitlines()[1].startswith("'=1+1,")
    assert '<th scope="row">=1+1</th>' in (tmp_path / "results/index.html").read_text()


@pytest.mark.parametrize("what", ["an edited configuration", "another number of seeds", "an altered table"])
def test_what_is_not_the_plans_is_not_there(plan, configuration, tmp_path, what):
    make_results(plan)
    asked = ["--seeds", "2"] if what == "another number of seeds" else []
    run("table", "main", *asked, plan=plan)
    if what == "an edited configuration":
        configuration.tables["main"]["title"] = "Other results"
        configuration.write()
    if what == "an altered table":
        table = tmp_path / "results/main.csv"
        text = table.read_text()
        assert ",44," in text  # whole numbers stay whole
        table.write_text(text.replace(",44,", ",4,"))
    run("page", plan=plan)
    page = page_of(tmp_path / "results/index.html")
    assert "headline" not in page.ids
    assert "make results/main.csv" in page.text
