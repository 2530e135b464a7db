"""Captions of Snakemake's report, as it renders them: Jinja, then reStructuredText."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from docutils.core import publish_parts
from jinja2 import Template

REPORT = Path(__file__).parents[2] / "workflow" / "report"


@pytest.mark.parametrize("name", ["table", "figure"])
@pytest.mark.parametrize("title", ["x\n\n.. raw:: html\n\n   <b>y</b>\n", ".. raw:: html\n\n   <b>y</b>\n"])
def test_a_title_brings_no_html(name, title):
    about = {"title": title, "caption": title}
    snakemake = SimpleNamespace(params={"table": about, "entry": about}, wildcards={name: "fig1"})
    caption = Template((REPORT / f"{name}.rst").read_text(encoding="utf-8")).render(snakemake=snakemake)
    rendered = publish_parts(caption, writer="html", settings_overrides={"report_level": 5})["body"]
    assert "<b>" not in rendered
