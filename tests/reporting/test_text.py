"""Any text on one line, and read back from the format that it went into."""

import html
import re
import string

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from selftrans.reporting.latex import comment, escape, from_markdown
from selftrans.reporting.markdown import as_table
from selftrans.reporting.markdown import escape as escape_markdown
from selftrans.reporting.text import duration, one_line

BREAKS = ["\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x85", "\u2028", "\u2029", "\x00", "\x7f"]
MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
TEXTS = st.text(st.sampled_from([*string.printable, "é", "λ", "→", "†"]))


@pytest.mark.parametrize("found", BREAKS)
def test_every_break_of_a_line_is_a_space(found):
    assert one_line(f"only x{found}{found}y") == "only x y"
    assert comment(f"only x{found}\\input{{y}}") == r"% only x \input{y}"


def words_of(rendered):
    return html.unescape(re.sub("<[^>]*>", "", rendered)).split()


@given(TEXTS)
def test_markdown_shows_the_text_and_nothing_else(text):
    """Behind a word, where no list, heading or quotation begins."""
    rendered = MARKDOWN.render(f"x{escape_markdown(' ' + text)}")
    assert words_of(rendered) == ["x", *text.split()]
    assert set(re.findall("<[^>]*>", rendered)) == {"<p>", "</p>"}


@pytest.mark.parametrize(
    "text",
    [
        "a|b",
        "a\\|b",
        "two\nlines",
        "<b>x</b>",
        "<!-- x",
        "&lt;",
        "*a*",
        "_a_",
        "__0__",
        "M_ori",
        "`a`",
        "[a](b)",
        "~~a~~",
        "a\\",
    ],
)
def test_a_cell_of_markdown_is_one_cell_with_the_text(text):
    cells = pd.DataFrame({text: [text, "1"], "other": ["2", "3"]})
    rendered = MARKDOWN.render(as_table(cells))
    found = [words_of(cell) for cell in re.findall("<t[hd][^>]*>(.*?)</t[hd]>", rendered)]
    assert found == [text.split(), ["other"], text.split(), ["2"], ["1"], ["3"]]
    assert not re.search("<(?!/?(table|thead|tbody|tr|th|td)\\b)", rendered)


@given(TEXTS)
def test_what_markdown_escapes_is_text_in_latex(text):
    assert from_markdown(escape_markdown(text)) == escape(text)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (1, "1 minute"),
        (170, "3 minutes"),
        (7199, "120 minutes"),
        (7200, "2 hours"),
        (70 * 3600, "70 hours"),
        (72 * 3600, "3 days"),
    ],
)
def test_duration(seconds, words):
    assert duration(seconds) == words
