"""Every verb is killed at some of its file operations and bytes; benchmarks/reliability.py tries all of them."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import kills
import pytest

from selftrans.commands import VERBS

WRITE_NOTHING = {"plan", "show", "unlock", "verify", "status", "doctor"}  # which stays
NEVER_THE_SAME = {"speed"}  # so that what a killed one leaves cannot be told from what it should be


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What came out of trials, which are forks of a fresh process without threads."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(kills.some_trials, tmp_path_factory.mktemp("kills"), seed=0).result()


@pytest.mark.long
def test_files_are_whole_or_not_there_and_in_the_end_the_same(outcomes):
    assert [outcome for outcome in outcomes if outcome.wrong] == []


@pytest.mark.long
def test_every_verb_that_writes_was_killed(outcomes):
    killed = {outcome.verb.split()[0] for outcome in outcomes if outcome.killed}
    assert killed == VERBS.keys() - WRITE_NOTHING - NEVER_THE_SAME


@pytest.fixture
def stage(tmp_path):
    """A verb that makes ``made`` of ``old``, and a folder with only ``old``, to be left by whoever is killed."""
    for folder, texts in {"before": {"old": "1"}, "after": {"old": "1", "made": "12"}, "left": {"old": "1"}}.items():
        (tmp_path / folder).mkdir()
        for name, text in texts.items():
            (tmp_path / folder / name).write_text(text)
    return kills.Stage(kills.Verb(()), tmp_path / "before", tmp_path / "after", operations=1)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("made", "12", None),
        (".made.x.part", "1", None),
        ("made", "1", "made: neither as before nor as after"),
        ("old", "2", "old: neither as before nor as after"),
        ("old", None, "old: gone"),
        (".tmpx", "12", ".tmpx: neither as before nor as after"),
        ("results/tiny/work/plain/state.safetensors", "1", "results/tiny/work/plain/state.safetensors: "),
    ],
)
def test_what_a_killed_verb_may_not_leave_is_told(stage, tmp_path, name, text, told):
    path = tmp_path / "left" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True) if text is None else path.write_text(text)
    found = kills.wrong_after_kill(stage, tmp_path / "left", again=False)
    assert found == told if told is None else found.startswith(told)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("made", "12", None),
        ("made", "13", "made: another than if nothing was killed"),
        ("old", "1", "made: missing at the end"),
        (".made.x.part", "1", ".made.x.part: left over at the end"),
    ],
)
def test_what_is_not_as_if_nothing_was_killed_is_told(stage, tmp_path, name, text, told):
    (tmp_path / "left" / name).write_text(text)
    assert kills.wrong_at_the_end(stage, tmp_path / "left") == told
