"""Every verb is killed at some of its file operations and bytes; benchmarks/reliability.py tries all of them."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import kills
import pytest

from selftrans.commands import VERBS

WRITE_NOTHING = {"plan", "show", "unlock"}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What came out of trials, which are forks of a fresh process without threads."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(kills.some_trials, tmp_path_factory.mktemp("kills"), seed=0).result()


def test_files_are_whole_or_not_there_and_in_the_end_the_same(outcomes):
    assert [outcome for outcome in outcomes if outcome.wrong] == []


def test_every_verb_that_writes_was_killed(outcomes):
    assert {outcome.verb.split()[0] for outcome in outcomes if outcome.killed} == VERBS.keys() - WRITE_NOTHING
