"""Inline pictures by their coordinates."""

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftrans.reporting.page.charts import HEIGHT, MARGIN, WIDTH, interval, lines


def points_of(svg):
    return [
        [tuple(map(float, point.split(","))) for point in line.get("points").split()]
        for line in ElementTree.fromstring(svg).iter("polyline")
    ]


def test_zero_is_in_the_middle_and_the_reach_at_the_edges():
    picture = ElementTree.fromstring(interval(2.0, -2.0, 1.0, reach=2.0))
    zero, bar = picture.iter("line")
    assert (zero.get("x1"), bar.get("x1")) == ("75.0", "3.0")
    assert float(bar.get("x2")) == pytest.approx(75 + 72 / 2)
    assert picture.find("circle").get("cx") == "147.0"


def test_without_an_interval_there_is_a_dot_only():
    picture = ElementTree.fromstring(interval(0.0, None, None, reach=1.0))
    assert len(list(picture.iter("line"))) == 1
    assert picture.find("circle").get("cx") == "75.0"


def test_a_curve_fills_its_panel_from_smallest_to_largest():
    ((first, middle, last),) = points_of(lines([[(0, 1.0), (50, 3.0), (100, 2.0)]], until=100))
    assert first == (MARGIN, HEIGHT - MARGIN)
    assert middle == (WIDTH / 2, MARGIN)
    assert last == (WIDTH - MARGIN, HEIGHT / 2)


def test_a_logarithmic_axis_halves_between_1_and_100_at_10():
    ((_, middle, _),) = points_of(lines([[(0, 1.0), (1, 10.0), (2, 100.0), (2, 0.0)]], until=2, logarithmic=True))
    assert middle[1] == HEIGHT / 2


def test_a_constant_curve_lies_in_the_middle():
    ((one, other),) = points_of(lines([[(0, 5.0), (1, 5.0)]], until=1))
    assert one[1] == other[1] == HEIGHT / 2


def test_what_is_not_finite_is_left_out_and_nothing_draws_nothing():
    ((only,),) = points_of(lines([[(1, math.nan), (2, math.inf), (3, 1.0)], [(1, math.nan)]], until=3))
    assert only[0] == WIDTH - MARGIN
    assert lines([[(1, math.nan)]], until=1) == lines([], until=1) == ""


numbers = st.floats(allow_nan=True, allow_infinity=True)


@given(st.lists(st.lists(st.tuples(st.integers(0, 10), numbers), max_size=5), max_size=3), st.booleans())
def test_every_point_is_inside(curves, logarithmic):
    picture = lines(curves, until=10, logarithmic=logarithmic)
    for x, y in (point for line in (points_of(picture) if picture else []) for point in line):
        assert MARGIN <= x <= WIDTH - MARGIN
        assert MARGIN <= y <= HEIGHT - MARGIN


@given(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9), st.floats(-1e9, 1e9), st.floats(1e-3, 1e6))
def test_an_interval_is_cut_off_at_the_edges(value, low, high, reach):
    found = [float(x) for x in re.findall(r'(?:x1|x2|cx)="([^"]+)"', interval(value, low, high, reach))]
    assert len(found) == 5
    assert all(MARGIN <= x <= WIDTH - MARGIN for x in found)
