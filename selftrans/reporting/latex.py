"""A table for a paper: LaTeX to \\input, with the cells of the Markdown and a caption that says how to read them."""

import re
import shlex
from collections.abc import Iterable
from textwrap import wrap

import pandas as pd

from selftrans.plan.plan import Plan
from selftrans.reporting.markdown import HEADERS, cells, introduction
from selftrans.reporting.text import one_line

# What pdflatex does not print as itself, or takes for a command: [ and * after the end of a row.
SYMBOLS = {
    **{character: f"\\{character}" for character in "%&_#${}"},
    **{character: f"{{{character}}}" for character in "[]*"},
    **{character: f"${character}$" for character in "<>|"},
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "é": r"\'{e}",
    "§": r"$\S$",
    "–": r"\textendash{}",
    "—": r"\textemdash{}",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "²": r"$^2$",
    "√": r"$\surd$",
    "✓": r"$\bullet$",  # a check mark would take one more package
    "†": r"$^\dagger$",
    "→": r"$\to$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "α": r"$\alpha$",
    "λ": r"$\lambda$",
    "ω": r"$\omega$",
}

END = r"\\"  # of a row

STYLES = {"`": "texttt", "*": "emph", "**": "textbf"}  # of Markdown's marks

ESCAPED = re.compile(r"\\([!-/:-@\[-`{-~])")  # by a backslash, in Markdown

# Text of Markdown; or what stands between marks; or a mark that nothing closes.
PIECES = re.compile(rf"((?:{ESCAPED.pattern}|[^*`])+)|(\*\*|\*|`)(.+?)(?<!\\)\3|(.)")

PAPER = "paper: "  # begins the headers of its columns

NUMBER = re.compile(r"([+-]?[\d.]+( ± [\d.]+)?)?")


def to_latex(plan: Plan, name: str, frame: pd.DataFrame) -> str:
    """A ``table`` environment, as wide as its text and at most as the line; the paper's columns stand under one head.

    Its label is ``tab:<name>``. Needs the packages booktabs and graphicx.
    """
    table = plan.project.tables[name]
    shown = cells(frame, [column for column in HEADERS if column not in table.columns], cited=" †")
    columns = "".join(["l", *(_alignment(shown[header]) for header in shown.columns[1:])])
    return environment(
        origin(plan, f"table {name} --seeds {len(plan.seeds)}", "booktabs, graphicx"),
        caption(table.title, name, introduction(plan, table, frame, cited="with †")),
        shown,
        columns,
    )


def environment(about: Iterable[str], captioned: Iterable[str], shown: pd.DataFrame, columns: str) -> str:
    """A ``table`` environment of cells in words; ``columns`` are their alignments, a letter each."""
    return "\n".join(
        [
            *about,
            r"\begin{table}",
            r"\centering",
            r"\setlength{\belowcaptionskip}{6pt}",
            *captioned,
            r"\small",
            r"\setlength{\tabcolsep}{3pt}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{@{{}}{columns}@{{}}}}",
            r"\toprule",
            *heads(list(shown.columns), columns),
            r"\midrule",
            *(line(row) for row in shown.itertuples(index=False)),
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
            "",
        ]
    )


def _alignment(column: pd.Series) -> str:
    """Numbers have the same digits after the point, so that they stand in line at their right ends."""
    return "r" if all(NUMBER.fullmatch(cell) for cell in column) else "c"


def heads(headers: list[str], columns: str) -> list[str]:
    """Headers in lines of a few words; the paper's, which are the last, under one head."""
    ours = sum(not header.startswith(PAPER) for header in headers)
    names = [_stack(header.removeprefix(PAPER), at) for header, at in zip(headers, columns, strict=True)]
    above = []
    if ours < len(headers):
        above.append(rf"{'& ' * ours}\multicolumn{{{len(headers) - ours}}}{{c}}{{paper}} {END}")
        above.append(rf"\cmidrule(l){{{ours + 1}-{len(headers)}}}")
    return [*above, f"{' & '.join(names)} {END}"]


def _stack(header: str, at: str) -> str:
    """A header in several lines if it is long."""
    lines = [escape(line) for line in wrap(header, width=11, break_long_words=False, break_on_hyphens=False)]
    return rf"\shortstack[{at}]{{{END.join(lines)}}}" if len(lines) > 1 else "".join(lines)


def line(row: Iterable[str]) -> str:
    """A row of a table."""
    return f"{' & '.join(map(_cell, row))} {END}"


def _cell(text: str) -> str:
    """A cell, what stands behind ± in smaller print."""
    value, _, spread = text.partition(" ± ")
    return escape(value) + (rf"{{\scriptsize\,$\pm$\,{escape(spread)}}}" if spread else "")


def origin(plan: Plan, command: str, packages: str) -> list[str]:
    """Comments: what made the file, and what a document must load."""
    only = f" --only {shlex.quote(plan.project.only)}" if plan.project.only else ""
    return [
        comment(f"Made by: selftrans {command} --scale {plan.scale.name}{only}"),
        comment("What its numbers rest on: the Markdown beside it."),
        comment(rf"In the preamble: \usepackage{{{packages}}}."),
    ]


def comment(text: str) -> str:
    """Text that LaTeX leaves out; it ends with the line."""
    return f"% {one_line(text)}"


def caption(title: str, name: str, text: Iterable[str]) -> list[str]:
    """The title in bold, before paragraphs of Markdown; and the label ``tab:<name>``."""
    title = escape(title)
    return [
        rf"\caption[{title}]{{\textbf{{{title}.}} {from_markdown(' '.join(filter(None, text)))}}}",
        rf"\label{{tab:{name}}}",
    ]


def from_markdown(text: str) -> str:
    """Markdown's code, emphasis, strong emphasis and escapes in LaTeX; all else is text."""
    found = (piece.group(1, 3, 4, 5) for piece in PIECES.finditer(text))
    return "".join(
        rf"\{STYLES[mark]}{{{escape(inner)}}}" if mark else escape(ESCAPED.sub(r"\1", plain or alone))
        for plain, mark, inner, alone in found
    )


def escape(text: str) -> str:
    """Text as pdflatex prints it, a hyphen before a number as a minus; characters without a symbol stay."""
    text = re.sub(r"(?<!\w)-(?=\d)", "−", one_line(text))
    return text.translate(str.maketrans(SYMBOLS))
