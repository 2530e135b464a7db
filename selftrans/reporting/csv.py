"""Tables as CSV that a spreadsheet reads as data: text that it would take for a formula begins with an apostrophe."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selftrans.errors import UserError
from selftrans.files import atomic_path, require_regular
from selftrans.reporting.text import one_line

if TYPE_CHECKING:
    import pandas as pd

# How a formula begins (OWASP, CSV injection), in full width too; and the same behind apostrophes, so that every text
# comes back as it was.
FORMULA = re.compile(r"'*[=+\-@＝＋－＠\t\n]")
RETURN = re.compile(r"\r\n?")  # the only break of a line that a cell is not quoted for


def write_csv(path: Path, frame: "pd.DataFrame") -> None:
    """Write ``frame`` atomically, without its index; text that begins like a formula gets an apostrophe before it.

    Numbers stay numbers. Raises as `atomic_path` does.
    """

    def guarded(text: str) -> str:
        text = RETURN.sub("\n", text)
        return f"'{text}" if FORMULA.match(text) else text

    with atomic_path(path) as part:
        _with_text(frame, guarded).to_csv(part, index=False)


def read_csv(path: Path) -> "pd.DataFrame":
    """What `write_csv` wrote, without its apostrophes; whole numbers stay whole beside cells that have none.

    Raises UserError if the file is missing or is no CSV.
    """
    import pandas as pd

    require_regular(path)
    try:
        frame = pd.read_csv(path, keep_default_na=False, na_values=[""])  # a label may be called NA
    except ValueError as error:  # not UTF-8, empty, or lines of different lengths
        raise UserError(f"{path}: not a CSV ({one_line(str(error))}); delete it and make it again") from error
    return _with_text(frame, lambda text: text.removeprefix("'") if FORMULA.match(text) else text).convert_dtypes()


def _with_text(frame: "pd.DataFrame", change: Callable[[str], str]) -> "pd.DataFrame":
    """``frame`` with its text changed, headers too."""
    from pandas.api.types import is_numeric_dtype

    def changed(value: Any) -> Any:
        return change(value) if isinstance(value, str) else value

    texts = {name: frame[name].map(changed) for name in frame if not is_numeric_dtype(frame[name])}
    return frame.assign(**texts).rename(columns=changed)
