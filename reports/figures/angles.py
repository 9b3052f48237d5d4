"""Any quantity against the angle that IFA starts from, between backpropagation and feedback alignment."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from pandas import DataFrame

from alignscape.errors import InputError
from reports.figures import layout, marks
from reports.figures.curvature import choose_scale
from reports.figures.series import over_seeds, place_of, require, rule_name
from reports.style import ANGLES, DOUBLE, RULES, Look, rule_look, styled


@styled
def against_angle(frame: DataFrame) -> Figure:
    """Draw quantities of IFA networks against their angle, one panel each; other rules are horizontal lines.

    Args:
        frame: columns ``rule, angle, seed, quantity, value``: a row per network and quantity, angle in degrees. The
            quantity is the y label, with its unit.

    Raises:
        InputError: a column is missing, or no row is of rule ``ifa``.

    Example:
        >>> from pandas import DataFrame
        >>> from reports import figures
        >>> table = DataFrame({"angle": [0.0, 45.0, 90.0], "value": [3.0, 4.0, 9.0]})
        >>> figures.against_angle(table.assign(rule="ifa", seed=0, quantity="trace")).axes[0].get_ylabel()
        'trace'
    """
    require(frame, ["rule", "angle", "quantity", "value"], table="the table of quantities")
    table = frame[np.isfinite(pd.to_numeric(frame["value"]))]
    if not (table["rule"] == "ifa").any():
        raise InputError("nothing to draw against the angle: no network of rule ifa has a value")
    quantities = list(dict.fromkeys(table.loc[table["rule"] == "ifa", "quantity"]))
    rows, wide = layout.panel_grid(len(quantities), most_columns=3)
    figure = Figure(figsize=(DOUBLE if wide > 1 else DOUBLE / 2, 0.75 + 1.85 * rows))
    panels = layout.panels(figure, len(quantities), rows, wide)
    named = sorted(set(table["rule"].dropna()) - {"ifa"}, key=place_of)
    others = {rule: look for rule in named if (look := rule_look(rule)) is not None}
    for index, (axes, quantity) in enumerate(zip(panels, quantities, strict=True)):
        rows_of = table[table["quantity"] == quantity]
        layout.title(axes, "", index if len(quantities) > 1 else None)
        axes.set(xlabel="initial angle (°)", ylabel=layout.plain(str(quantity)), xticks=[0, 30, 60, 90], xlim=(-5, 95))
        for rule, look in others.items():
            _level(axes, look, rows_of[rows_of["rule"] == rule])
        _points(axes, rows_of[rows_of["rule"] == "ifa"])
        choose_scale(axes, rows_of["value"], vertical=True)
    ifa = Line2D([], [], **RULES["ifa"].keywords(label="IFA"))
    lines = [Line2D([], [], **look.keywords(marker="", label=rule_name(rule))) for rule, look in others.items()]
    layout.legend_above(figure, [ifa, *lines])
    if (table.groupby(["rule", "angle", "quantity"], dropna=False).size() > 1).any():
        layout.note(figure, "Bars and bands: mean ± one standard deviation over seeds; small dots: single seeds.")
    return figure


def _level(axes: Axes, look: Look, rows: DataFrame) -> None:
    values = rows["value"].to_numpy(float)
    if not len(values):
        return
    mean = float(values.mean())
    axes.axhline(mean, **look.keywords(marker="", linewidth=1))
    if len(values) > 1:
        spread = float(values.std(ddof=1))
        axes.axhspan(mean - spread, mean + spread, color=look.colour, alpha=0.12, linewidth=0)


def _points(axes: Axes, rows: DataFrame) -> None:
    points = over_seeds(rows, "angle", "value")
    axes.plot(points["angle"], points["value"], color=ANGLES(0.3), linewidth=1)
    if (points["n"] > 1).any():
        axes.plot(rows["angle"], rows["value"], ".", color=ANGLES(0.8), markersize=3, zorder=2)
    for _, point in points.groupby("angle"):
        look = rule_look("ifa", point["angle"].item()) or RULES["ifa"]
        marks.points_with_bars(axes, point["angle"], point, look, linestyle="")
