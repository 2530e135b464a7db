"""Copy what the workflow made into README and docs: `make readme` after making it.

Every table that is in results/ gets its Markdown copied to docs/tables; README shows the short form of some, and two
pictures.
"""

import re
import shutil
from pathlib import Path

from selftrans.files import atomic_path, write_text
from selftrans.loading import load_project
from selftrans.plan import Plan
from selftrans.reporting.claims_markdown import summary
from selftrans.reporting.csv import read_csv
from selftrans.reporting.markdown import to_text
from selftrans.reporting.results import find, require_current

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results"


def main() -> None:
    """Refresh docs/tables, and what stands between ``<!-- name -->`` and ``<!-- /name -->`` in the README.

    Raises UserError for a table that is not what today's configuration says of its scale and seeds.
    """
    for path in sorted(RESULTS.glob("*.csv")):
        text = path.with_suffix(".md")
        if text.exists():
            require_current(Plan(load_project(ROOT / "config", **find(path.stem).settings)), path.stem)
            scale = read_csv(path)["scale"].iloc[0]
            write_text(ROOT / "docs" / "tables" / f"{scale}_{path.stem}.md", text.read_text(encoding="utf-8"))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    readme = re.sub(
        r"(<!-- (\w+) -->\n).*?(<!-- /\2 -->)", lambda at: at[1] + short(at[2]) + "\n" + at[3], readme, flags=re.S
    )
    write_text(ROOT / "README.md", readme)
    for scale, name in re.findall(r"docs/pictures/([a-z0-9-]+)_(\w+)\.png", readme):
        picture = RESULTS / "figures" / f"{name}.png"
        if picture.exists():
            with atomic_path(ROOT / "docs" / "pictures" / f"{scale}_{name}.png") as part:
                shutil.copyfile(picture, part)


def short(name: str) -> str:
    """A table as the terminal shows it, or the claims' verdicts in a sentence."""
    frame = read_csv(RESULTS / f"{name}.csv")
    return summary(frame) if name == "claims" else to_text(frame)


if __name__ == "__main__":
    main()
