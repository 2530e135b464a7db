"""Snakemake's lock outlives a Snakemake that was killed; plain Snakemake removes it with `--unlock`."""

import argparse

from selftrans.scheduler import release_stale_locks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No options of its own."""


def run(arguments: argparse.Namespace) -> None:
    """Remove a stale lock. Raises UserError while a Snakemake works in this folder."""
    if release_stale_locks():
        print("removed the lock of a snakemake that was killed")
