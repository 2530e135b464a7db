"""Snakemake, which asks SLURM every second how its jobs do, however long nothing has changed.

    python impatient.py <options of snakemake>

The plugin asks ten seconds later each time, which suits jobs of hours. Nothing else differs.
"""

import sys

from snakemake.cli import main
from snakemake_executor_plugin_slurm import Executor

Executor.next_seconds_between_status_checks = property(lambda self: 1, lambda self, seconds: None)
main(sys.argv[1:])
