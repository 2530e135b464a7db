"""Training logs read as they were written, also old ones and those of a trainer that was killed."""

import pytest

from selftrans.errors import UserError
from selftrans.reporting.training_log import MEASURED, log_file, log_until, read_log
from selftrans.training.log import last_line, log_line
from selftrans.training.trainer import TrainingLog

VALUES = {"loss": 1.5, "diffusion": 1.0, "method": -0.5, "feature_norm": 9.0, "gradient_norm": 0.25}


RUN = "plain-s0-0a1b2c3d"


def line(step, run=RUN, **changed):
    values = {"step": step, **VALUES, "steps_per_second": 8.0} | changed
    return log_line(run, {name: value for name, value in values.items() if value is not ...})


@pytest.fixture
def path(tmp_path):
    (tmp_path / RUN).mkdir()
    return tmp_path / RUN / "log.jsonl"


def test_what_the_trainer_writes_is_read(path):
    log = TrainingLog(path, RUN, 0)
    log.add(20, [VALUES, VALUES | {"loss": 2.5}])
    log.add(40, [{name: value for name, value in VALUES.items() if name != "feature_norm"}])
    frame = read_log(path)
    assert list(frame) == ["step", *MEASURED]
    assert frame["step"].tolist() == [20, 40]
    assert frame["loss"].tolist() == [2.0, 1.5]
    assert frame["gradient_norm"].tolist() == [0.25, 0.25]
    assert frame["feature_norm"].isna().tolist() == [False, True]
    assert (frame["steps_per_second"] > 0).all()


def test_a_log_older_than_the_feature_norm_has_none(path):
    path.write_text(line(20, feature_norm=...) + line(40, feature_norm=...))
    frame = read_log(path)
    assert frame["feature_norm"].isna().all()
    assert frame.drop(columns="feature_norm").notna().all(axis=None)


def test_half_a_last_line_is_not_looked_at(path):
    path.write_text(line(20) + line(40)[:30])
    assert read_log(path)["step"].tolist() == [20]


def test_a_log_that_is_empty_or_not_there_has_no_lines(path):
    assert read_log(path).empty
    path.touch()
    assert read_log(path).empty


def test_of_the_last_line_alone_the_rest_is_not_read(path):
    path.write_text("not a line of a log\n" * 10_000 + line(20) + line(40) + line(60)[:30])
    assert last_line(path, RUN) == {"step": 40, **VALUES, "steps_per_second": 8.0}


@pytest.mark.parametrize("text", ["", line(20)[:30]])
def test_a_log_of_no_whole_line_has_no_last_one(path, text):
    assert last_line(path, RUN) is None
    path.write_text(text)
    assert last_line(path, RUN) is None


@pytest.mark.parametrize("last", [line(40).replace("40", "41"), line(40, run="plain-s1-0a1b2c3d"), "null\n"])
def test_a_last_line_that_is_damaged_or_of_another_run_is_refused(path, last):
    path.write_text(line(20) + last)
    with pytest.raises(UserError, match=r"last line: .*; delete that line"):
        last_line(path, RUN)


DAMAGED = {
    "nothing": "",
    "null": "null",
    "a list": "[1, 2]",
    "half a line": '{"step": 40',
    "an altered number": line(40).strip().replace("1.5", "1.6"),
    "a line of another run": line(40, run="plain-s1-0a1b2c3d").strip(),
    "no seal": '{"step": 40, "loss": 1.0}',
    "deeply nested": "[" * 100_000,
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_line_is_refused_by_its_number(case, path):
    path.write_text(f"{line(20)}{DAMAGED[case]}\n{line(60)}")
    with pytest.raises(UserError, match=r"log\.jsonl: line 2: .*; delete that line"):
        read_log(path)


def test_bytes_that_are_no_text_are_a_damaged_line(path):
    path.write_bytes(line(20).encode() + b"\x80\xff\n")
    with pytest.raises(UserError, match="line 2: found"):
        read_log(path)


def test_a_log_is_followed_to_a_milestone(configuration, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = configuration.plan()
    run, step = plan.milestone("guided@4", 0)
    with pytest.raises(UserError, match=rf"work/{run.id}/log\.jsonl: no such file; .*delete .*runs/{run.id} and run"):
        log_until(plan, run, step)
    path = log_file(plan, run)
    path.parent.mkdir(parents=True)
    path.write_text("".join(line(step, run=run.id) for step in (20, 30, 40, 60)))
    assert log_until(plan, run, step)["step"].tolist() == [20, 30, 40]
    path.write_text(line(60, run=run.id))
    with pytest.raises(UserError, match="no line up to step 40"):
        log_until(plan, run, step)
