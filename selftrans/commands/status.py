"""From the files alone, so also of jobs on other machines: no scheduler is asked, nothing is started. Failed jobs come
first, with the sentence of the error and their log, then those that run. The exit code is 1 if a job failed, else 0,
however much is still to be done. `watch selftrans status` shows it again and again.
"""

import argparse
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from selftrans.commands.common import add_devices, add_target, devices_of, plan_of

if TYPE_CHECKING:
    from selftrans.reporting.status import Report, Status


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own options."""
    add_target(parser, "whatever was begun")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--all", action="store_true", help="a line for what is done or waits as well")
    shown.add_argument("--json", action="store_true", help="all of it for machines: a list of records")
    add_devices(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print how far the jobs behind a target are; returns the exit code."""
    from selftrans.reporting.status import Status, begun, in_columns, in_words
    from selftrans.reporting.targets import results_of

    devices_of(arguments, "core")  # a wrong option is refused, whether it is needed or not
    plan = plan_of(arguments)
    names = [name for found in results_of(plan, arguments.target).values() for name in found]
    status = Status(plan, names, [] if arguments.target else begun(plan))
    reports = status.reports
    if arguments.target is None:
        reports = [report for report in reports if report.state != "waiting"]
    if arguments.json:
        print(json.dumps([report.record() for report in reports], indent=2))
    else:
        summary = f"{arguments.target or 'begun'}: {in_words(reports)}"
        print(summary, *in_columns(reports, arguments.all), *_ahead(status, reports, arguments), sep="\n")
    return int(any(report.state == "failed" for report in reports))


def _ahead(status: "Status", reports: "list[Report]", arguments: argparse.Namespace) -> Iterator[str]:
    """What jobs wait for, and how long they will take."""
    from selftrans.reporting.price import Price
    from selftrans.reporting.status import reasons

    waiting = reasons(reports)
    if waiting is not None:
        yield waiting
        price = Price(status.remaining())
        if price.remaining.jobs and (estimate := price.estimate(devices_of(arguments, price.device))):
            yield f"what does not run yet: {estimate}"
