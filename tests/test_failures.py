"""The last words of jobs."""

import pytest

from selftrans.failures import END, Failure, failure_of

TRACEBACK = """Traceback (most recent call last):
  File "trainer.py", line 1, in train
    1 / 0
ZeroDivisionError: division by zero
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("plain seed 0: starting\n", None),
        ("starting\nerror: config/runs.yaml: plain: found 1\n", Failure("config/runs.yaml: plain: found 1", True)),
        ("error: a.pt is not there\nb.pt is not there\n", Failure("a.pt is not there\nb.pt is not there", True)),
        ("stopped: plain seed 0 by SIGUSR1 at step 7\n", Failure("plain seed 0 by SIGUSR1 at step 7", False)),
        (f"starting\n{TRACEBACK}", Failure("ZeroDivisionError: division by zero", True)),
        ("an error: not at the beginning of a line\n", None),
        # Of two ranks the first erred, and the other one says that it is gone.
        ("error: loss is NaN\nstopped: rank 1 of 2: another rank has ended\n", Failure("loss is NaN", True)),
        ("stopped: rank 1 of 2: another rank has ended\nerror: loss is NaN\n", Failure("loss is NaN", True)),
    ],
)
def test_last_words(tmp_path, text, expected):
    log = tmp_path / "job.log"
    log.write_text(text)
    assert failure_of(log) == expected


def test_of_a_long_log_the_end_counts(tmp_path):
    log = tmp_path / "job.log"
    log.write_text("error: long ago\n" + "step\n" * END + "stopped: by SIGTERM\n")
    assert failure_of(log) == Failure("by SIGTERM", False)


def test_a_job_without_a_log_said_nothing(tmp_path):
    assert failure_of(tmp_path / "no.log") is None
