"""Copy what the workflow made into README and docs: `make readme` after making it.

Every table that is in results/ gets its Markdown copied to docs/tables; README shows the short form of some, and two
pictures. docs/reliability.md shows the sums of what benchmarks/reliability.py counted, docs/speed.md what the other
benchmarks measured (benchmarks/page.py).
"""

import json
import re
import shutil
import sys
from pathlib import Path

import pandas as pd

from selftrans.config.reading.project import load_project
from selftrans.files import atomic_path, write_text
from selftrans.plan.plan import Plan
from selftrans.reporting.claims_markdown import summary
from selftrans.reporting.csv import read_csv
from selftrans.reporting.markdown import to_text
from selftrans.reporting.results import find, require_current

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from page import PAGE, fill, measured  # noqa: E402

RESULTS = ROOT / "results"
COUNTED = ROOT / "benchmarks" / "results" / "reliability.json"


def main() -> None:
    """Refresh docs/tables, and what stands between ``<!-- name -->`` and ``<!-- /name -->`` in the README, in
    docs/reliability.md and in docs/speed.md.

    Raises UserError for a table that is not what today's configuration says of its scale and seeds.
    """
    fill(ROOT / "docs" / "reliability.md", counted)
    fill(PAGE, measured)
    for path in sorted(RESULTS.glob("*.csv")):
        text = path.with_suffix(".md")
        if text.exists():
            require_current(Plan(load_project(ROOT / "config", **find(path.stem).settings)), path.stem)
            scale = read_csv(path)["scale"].iloc[0]
            write_text(ROOT / "docs" / "tables" / f"{scale}_{path.stem}.md", text.read_text(encoding="utf-8"))
    readme = fill(ROOT / "README.md", short)
    for scale, name in re.findall(r"docs/pictures/([a-z0-9-]+)_(\w+)\.png", readme):
        picture = RESULTS / "figures" / f"{name}.png"
        if picture.exists():
            with atomic_path(ROOT / "docs" / "pictures" / f"{scale}_{name}.png") as part:
                shutil.copyfile(picture, part)


def counted(part: str) -> str:
    """What was tried of a part of benchmarks/reliability.py, and what came out."""
    found = json.loads(COUNTED.read_text(encoding="utf-8"))["parts"][part]
    sums = pd.DataFrame(found["rows"]).drop(columns="of").groupby("what", sort=False).sum()
    about = found["provenance"]
    where = f"{about['machine']}, Python {about['python']}, torch {about['torch']}, commit {about['commit']}"
    return f"{sums.reset_index().to_markdown(index=False)}\n\nRounds: {found['rounds']}. {where}."


def short(name: str) -> str:
    """A table as the terminal shows it, or the claims' verdicts in a sentence."""
    frame = read_csv(RESULTS / f"{name}.csv")
    return summary(frame) if name == "claims" else to_text(frame)


if __name__ == "__main__":
    main()
