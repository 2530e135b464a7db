"""Text of others (labels, titles, reasons, options) on one line, whatever the format that it goes into."""

import re

BREAKS = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")  # white space of any kind, and control characters


def one_line(text: str) -> str:
    """``text`` with a space for each run of white space and control characters."""
    return BREAKS.sub(" ", text)
