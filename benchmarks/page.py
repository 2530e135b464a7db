"""Write the tables of docs/speed.md from benchmarks/results/*.json; `make readme` does as well.

    python benchmarks/page.py

What stands between ``<!-- area -->`` and ``<!-- /area -->`` is made of all results of that area, each with its command
and its machine; the rest of the page is written by hand.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from selftrans.files import write_text
from selftrans.reporting.markdown import as_table

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "speed.md"
RESULTS = Path(__file__).parent / "results"

Report = dict[str, Any]


def main() -> None:
    """Refresh the page."""
    fill(PAGE, measured)


def fill(page: Path, text_of: Callable[[str], str]) -> str:
    """Put ``text_of(name)`` between ``<!-- name -->`` and ``<!-- /name -->`` wherever these stand; returns the page."""
    text = filled(page.read_text(encoding="utf-8"), text_of)
    write_text(page, text)
    return text


def filled(text: str, text_of: Callable[[str], str]) -> str:
    """``text`` with that between its marks."""
    marked = re.compile(r"(<!-- (\w+) -->\n).*?(<!-- /\2 -->)", flags=re.DOTALL)
    return marked.sub(lambda at: at[1] + text_of(at[2]) + "\n" + at[3], text)


def measured(area: str) -> str:
    """The results of an area in Markdown, each with its command and its machine."""
    what, table = AREAS[area]
    found = [(path, report) for path, report in reports() if report.get("what") == what]
    sections = [f"{table(report)}\n\n{origin(path, report)}" for path, report in found]
    return "\n\n".join(sections) or "Not measured yet."


def reports() -> Iterator[tuple[Path, Report]]:
    """All that was saved, by name."""
    for path in sorted(RESULTS.glob("*.json")):
        yield path, json.loads(path.read_text(encoding="utf-8"))


def origin(path: Path, report: Report) -> str:
    """How to measure it again, and where it was measured."""
    about, threads = report["provenance"], report["settings"].get("threads", 1)
    cores = f", threads: {threads if isinstance(threads, int) else ' and '.join(map(str, threads))}"
    where = f"{about['machine']}{cores if report['device'] == 'cpu' else ''}"
    again = f"{report['command']} > benchmarks/results/{path.name}"
    return f"`{again}`  \n{where}, torch {about['torch']}, commit {about['commit']}."


# ------------------------------------------------------------------------------------------------- tables


def methods(report: Report) -> str:
    """Training by method."""
    lines = [
        {
            "method": method,
            "steps/s": number(speed),
            "images/s": number(speed * report["batch"]),
            "of vanilla": f"{report['ratios'][method]:.2f}",
            "memory, MiB": f"{report['rows'][method]['peak_memory_mib']:,}",
            "own parameters": f"{report['rows'][method]['method_parameters']:,}",
        }
        for method, speed in report["medians"].items()
    ]
    size = f"{report['rows']['vanilla']['backbone_parameters']:,} parameters, {report['tokens']} tokens"
    tflops = report["medians"]["vanilla"] * report["batch"] * report["gflop_of_an_image"] / 1e3
    text = (
        f"`{report['settings']['model']}` of {size}, batch {report['batch']}: {report['gflop_of_an_image']:,} GFLOP to"
    )
    return f"{text} train an image, of which vanilla training does {number(tflops)} TFLOP/s.\n\n{in_table(lines)}"


def sides(report: Report) -> str:
    """What was timed, then the ratios of a turn."""
    medians = [{"": name, report["unit"]: number(value)} for name, value in report["medians"].items()]
    ratios = [{"": name, "ratio": f"{value:.2f}"} for name, value in report["ratios"].items()]
    return f"{in_table(medians)}\n\n{in_table(ratios)}"


def rows_read(report: Report) -> str:
    """Reading, by the clock and by what a core really computed."""
    lines = [
        {
            "": name,
            "rows/s": f"{speed:,}",
            "of computing": f"{report['rows_per_second_of_computing'][name]:,}",
            "times the fastest step": f"{report['ratios'][f'{name}: times the fastest step']:.1f}",
        }
        for name, speed in report["medians"].items()
    ]
    return in_table(lines)


def implementations(report: Report) -> str:
    """Ours, and how many times as long others take."""
    lines = []
    for name, seconds in report["medians"].items():
        if isinstance(seconds, dict):
            times = report["ratios"][name]
            others = {f"{side} takes": f"{value:.1f} times as long" for side, value in times.items()}
            lines.append({"": name, "selftrans": f"{number(seconds['selftrans'])} s", **others})
        else:
            lines.append({"": name, "selftrans": f"{number(seconds)} s"})
    return in_table(lines)


def in_table(lines: list[dict[str, str]]) -> str:
    """Cells under their headers, empty where a line has none."""
    return as_table(pd.DataFrame(lines).fillna(""))


def number(value: float) -> str:
    """With three digits, and no fewer than stand before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


# Area of the page -> what its results are of, and how they are shown.
AREAS: dict[str, tuple[str, Callable[[Report], str]]] = {
    "training": ("training speed by method", methods),
    "field": ("training speed beside a baseline in the field's style", sides),
    "sampling": ("a forward pass inside a sampler, and by itself", sides),
    "vae": ("encoding and decoding", sides),
    "reader": ("rows read per second", rows_read),
    "evaluation": ("the evaluation beside other implementations", implementations),
}


if __name__ == "__main__":
    main()
