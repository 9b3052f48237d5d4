"""Marks: what is drawn where, and nothing where there is no interval or no number."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from reports.figures import marks
from reports.style import RULES

POINTS = pd.DataFrame({"value": [1.0, 2.0, 3.0], "low": [0.5, np.nan, 3.5], "high": [2.0, np.nan, 4.0]})


@pytest.fixture
def axes():
    return Figure().subplots()


@pytest.mark.parametrize("horizontal", [False, True])
def test_bars_reach_from_low_to_high_and_are_left_out_where_there_is_none(axes, horizontal):
    marks.points_with_bars(axes, [10, 20, 30], POINTS, RULES["fa"], horizontal=horizontal)
    (container,) = axes.containers
    dots, caps, (bars,) = container.lines
    along = 0 if horizontal else 1
    np.testing.assert_array_equal(dots.get_xydata()[:, along], POINTS["value"])
    np.testing.assert_array_equal(dots.get_xydata()[:, 1 - along], [10, 20, 30])
    ends = np.array([segment[:, along] for segment in bars.get_segments() if len(segment)])
    np.testing.assert_array_equal(ends, [[0.5, 2.0], [3.0, 4.0]])  # an end on the wrong side is at the value
    assert all(np.isnan(cap.get_xydata()[1, along]) for cap in caps)


def test_a_band_needs_intervals(axes):
    marks.line_with_band(axes, [0, 1, 2], POINTS.assign(low=np.nan, high=np.nan), RULES["bp"])
    assert not axes.collections
    marks.line_with_band(axes, [0, 1, 2], POINTS, RULES["bp"], marker="")
    (band,) = axes.collections
    assert isinstance(band, PolyCollection)
    assert axes.lines[-1].get_marker() == ""


def test_cells_hold_their_numbers_and_a_cross_where_there_is_none(axes):
    grid = pd.DataFrame([[10.4, np.nan], [55.5, 90.0]])
    marks.heat_map(axes, grid, (10.0, 90.0), rows=["one", "two"], columns=["a", "b"])
    written = {text.get_position(): (text.get_text(), text.get_color()) for text in axes.texts}
    cells = {(0, 0): ("10", "white"), (1, 0): ("×", "white"), (0, 1): ("56", "black"), (1, 1): ("90", "black")}  # noqa: RUF001
    assert written == cells
    assert [label.get_text() for label in axes.get_yticklabels()] == ["one", "two"]
