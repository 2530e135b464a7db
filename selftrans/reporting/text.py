"""Text of others (labels, titles, reasons, options) on one line, whatever the format that it goes into."""

import re

BREAKS = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")  # white space of any kind, and control characters


def one_line(text: str) -> str:
    """``text`` with a space for each run of white space and control characters."""
    return BREAKS.sub(" ", text)


def duration(seconds: float) -> str:
    """About how long, in words: minutes, hours from two on, days from three on."""
    hours = seconds / 3600
    if hours < 2:
        count, unit = seconds / 60, "minute"
    elif hours < 72:
        count, unit = hours, "hour"
    else:
        count, unit = hours / 24, "day"
    count = max(1, round(count))
    return f"{count} {unit}{'s' * (count > 1)}"
