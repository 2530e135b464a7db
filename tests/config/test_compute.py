"""compute.yaml: what it may say, and what a scale and ``only`` leave of it."""

import pytest

from selftrans.errors import UserError


@pytest.fixture
def compared(configuration):
    configuration.compute = {"vanilla": "plain", "methods": ["aligned", "guided"], "preset": "headline"}
    return configuration


def test_it_is_read_as_it_stands(compared):
    assert compared.project().compute.rows == ("plain", "aligned", "guided")


def test_without_the_file_there_is_none(configuration):
    project = configuration.project()
    assert project.compute is None
    assert "compute" not in project.absent  # a figure of it is a slip


@pytest.mark.parametrize(
    ("only", "rows"),
    [("plain,guided", ("plain", "guided")), ("mu", ("plain", "aligned", "guided")), ("guided", None), ("plain", None)],
)
def test_of_the_rows_to_keep_some_are_compared_or_none(compared, only, rows):
    project = compared.project(only=only)
    assert rows == (project.compute and project.compute.rows)
    assert ("compute" in project.absent) == (rows is None)


def test_rows_that_the_scale_has_not_are_left_out(compared):
    compared.scale["rows"] = ["plain", "guided", "aligned"]
    compared.rows["other"] = {"like": "aligned", "weight": 0.1}
    compared.compute["methods"].append("other")
    assert compared.project().compute.rows == ("plain", "aligned", "guided")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"vanilla": "aligned", "methods": ["plain"]}, r"vanilla: found 'aligned'; allowed: a row without a method"),
        ({"vanilla": "nobody"}, r"vanilla: found 'nobody'; allowed: plain, aligned, guided"),
        ({"methods": ["nobody"]}, r"methods: found 'nobody'; allowed: plain, aligned, guided"),
        ({"methods": ["plain"]}, r"methods: found 'plain'; allowed: other rows than the vanilla one"),
        ({"methods": ["small"]}, r"methods: found 'small'; allowed: rows of small mu, as plain is"),
        ({"methods": []}, r"methods"),
        ({"preset": "none"}, r"preset: found 'none'; allowed: headline"),
        ({"until": 4}, r"until"),
    ],
)
def test_a_slip_is_refused(compared, edit, message):
    compared.rows["small"] = {"like": "aligned", "model": "nu"}
    compared.compute |= edit
    if "small" not in edit.get("methods", ()):
        del compared.rows["small"]
    with pytest.raises(UserError, match=rf"compute\.yaml: {message}"):
        compared.plan()
