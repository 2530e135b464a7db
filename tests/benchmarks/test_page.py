"""docs/speed.md is what its command writes, from what was measured."""

import json
import re

import page
import pytest
from page import AREAS, PAGE, filled, measured, reports
from report import KEYS


def test_the_page_is_what_the_command_writes():
    text = PAGE.read_text(encoding="utf-8")
    assert filled(text, measured) == text
    assert set(re.findall(r"<!-- (\w+) -->", text)) == set(AREAS)


def test_every_result_of_an_area_has_the_same_skeleton():
    found = [report for _, report in reports() if report.get("what") in {what for what, _ in AREAS.values()}]
    assert len(found) >= 8
    for report in found:
        assert set(report) >= set(KEYS)
        assert report["command"].startswith("python benchmarks/")


REPORT = {
    "what": "encoding and decoding",
    "unit": "images/s",
    "command": "python benchmarks/vae_speed.py --rounds 3",
    "device": "cuda",
    "settings": {"threads": 1},
    "medians": {"encode": 1234.56},
    "ratios": {"encode: of bare": 0.987},
    "provenance": {"machine": "Abacus", "torch": "2.9.0", "commit": "c0ffee"},
}


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    return tmp_path


def test_what_was_saved_is_shown_with_its_command_and_machine(results):
    assert measured("vae") == "Not measured yet."
    (results / "vae.json").write_text(json.dumps(REPORT))
    text = measured("vae")
    assert re.search(r"\| encode +\| 1,235 ", text)
    assert re.search(r"\| encode: of bare +\| 0\.99 ", text)
    command = "`python benchmarks/vae_speed.py --rounds 3 > benchmarks/results/vae.json`"
    assert text.endswith(f"{command}  \nAbacus, torch 2.9.0, commit c0ffee.")
    assert measured("field") == "Not measured yet."


def test_only_what_stands_between_marks_is_replaced():
    assert filled("a\n<!-- x -->\nold\n<!-- /x -->\nb\n", str.upper) == "a\n<!-- x -->\nX\n<!-- /x -->\nb\n"
