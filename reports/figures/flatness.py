"""Sharpness by every measure, relative to one network: what a rescaling of layers changes, and what it leaves."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from pandas import DataFrame

from alignscape.errors import InputError
from reports.figures import layout, marks
from reports.figures.series import Series, over_seeds, require, series_of
from reports.style import DOUBLE, GREY, styled

# Of each measure what it is called; sigma is flat where it is large, so its inverse is drawn.
CHANGE: Mapping[str, str] = {
    "trace": "trace",
    "eigenvalue": "top eigenvalue",
    "sam": "SAM, one step",
    "sam_worst": "SAM, worst case",
    "keskar": "Keskar's box",
    "sigma": "1 / sigma",
}
STAY: Mapping[str, str] = {
    "trace_min": "trace, minimised",
    "eigenvalue_min": "top eigenvalue, minimised",
    "asam": "ASAM, one step",
    "asam_worst": "ASAM, worst case",
    "fisher_rao": "Fisher-Rao norm",
    "relative_flatness": "relative flatness",
    "sigma_magnitude": "1 / sigma, relative to |w|",
}
_LONGEST = 24  # characters of a name below a panel
INVERSE = ("sigma", "sigma_magnitude")
PANELS = {"rescaling changes it": CHANGE, "rescaling leaves it": STAY}


@styled
def sharpness(frame: DataFrame) -> Figure:
    """Draw each network's sharpness relative to the first one's, by every measure.

    On the left measures that a rescaling of layers changes, on the right those that it does not. Right is sharper.

    Args:
        frame: columns ``checkpoint, measure, radius, layer, value, ci_low, ci_high``; seeds of a rule are one series.

    Raises:
        InputError: a column is missing, or there is no measure in the table.

    Example:
        >>> from pandas import DataFrame
        >>> from reports import figures
        >>> table = DataFrame({"checkpoint": ["a", "b"] * 2, "measure": ["trace", "trace", "asam", "asam"]})
        >>> table = table.assign(radius=[None, None, 0.1, 0.1], layer="", value=[1.0, 9.0, 2.0, 3.0])
        >>> len(figures.sharpness(table.assign(ci_low=None, ci_high=None)).axes)
        2
    """
    require(frame, ["checkpoint", "measure", "radius", "layer", "value", "ci_low", "ci_high"], table="sharpness")
    table = measured(frame)
    if table.empty:
        raise InputError("sharpness has no measure with a positive number in it")
    series = series_of(table)
    ratios, reference = relative(series)
    there = {title: rows_of(table, names) for title, names in PANELS.items()}
    most = max(map(len, there.values()))
    figure = Figure(figsize=(DOUBLE, 0.9 + most * (0.14 + 0.055 * len(series))))
    panels = figure.subplots(1, 2)
    for index, (axes, (title, rows)) in enumerate(zip(panels, there.items(), strict=True)):
        layout.title(axes, title, index)
        draw_rows(axes, ratios, rows)
        axes.set_xlabel(f"relative to {reference}" if len(series) > 1 else "sharpness")
    layout.legend_above(figure, layout.handles(series))
    single = "95 % interval over samples, of the network's own value"
    layout.note(figure, layout.seeds_note(series, single, "Bars"))
    return figure


def measured(frame: DataFrame) -> DataFrame:
    """Return the rows that are drawn, of sigma its inverse, with the name of the measure as ``row``."""
    names = {**CHANGE, **STAY}
    table = frame[frame["measure"].isin(names) & (frame["layer"].fillna("") == "")].copy()
    inverse = table["measure"].isin(INVERSE).to_numpy()
    for name, other in (("value", "value"), ("ci_low", "ci_high"), ("ci_high", "ci_low")):
        own, turned = (pd.to_numeric(frame.loc[table.index, one]).to_numpy(float) for one in (name, other))
        with np.errstate(divide="ignore"):
            table[name] = np.where(inverse, 1 / turned, own)
    table = table[table["value"] > 0]
    several = table.groupby("measure")["radius"].transform("nunique") > 1
    radius = [f", {value:g}" if more else "" for value, more in zip(table["radius"], several, strict=True)]
    return table.assign(row=[names[name] + text for name, text in zip(table["measure"], radius, strict=True)])


def rows_of(table: DataFrame, names: Mapping[str, str]) -> list[str]:
    """Return the rows of a panel, from the top."""
    own = table[table["measure"].isin(names)]
    order = own.assign(place=own["measure"].map(list(names).index)).sort_values(["place", "radius"], kind="stable")
    return list(dict.fromkeys(order["row"]))


def relative(series: Sequence[Series]) -> tuple[list[tuple[Series, DataFrame]], str]:
    """Return each series with ``row, value, low, high``, divided by the first one's values, and the first one's name;
    of one series alone its values."""
    points = [(one, over_seeds(one.frame, "row", "value", "ci_low", "ci_high").set_index("row")) for one in series]
    if len(points) == 1:
        return points, ""
    by = points[0][1]["value"]
    name = series[0].label if len(series[0].label) <= _LONGEST else "the first network"
    return [(one, found[["value", "low", "high"]].div(by, axis=0)) for one, found in points], layout.plain(name)


def draw_rows(axes: Axes, ratios: Sequence[tuple[Series, DataFrame]], rows: Sequence[str]) -> None:
    """Draw a line for each row, with a mark and a bar for each series, on a logarithmic axis."""
    for place, (one, found) in enumerate(ratios):
        at = np.arange(len(rows)) + 0.6 * ((place + 0.5) / len(ratios) - 0.5)
        marks.points_with_bars(axes, at, found.reindex(list(rows)), one.look, horizontal=True, linestyle="")
    finish_rows(axes, rows)


def finish_rows(axes: Axes, rows: Sequence[str]) -> None:
    """Name the rows, and make the axis one of ratios about 1."""
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    subs = (1.0, 2.0, 5.0) if high < 30 * low else (1.0,)  # one power of ten alone names no scale
    axes.xaxis.set_major_locator(LogLocator(subs=subs, numticks=8))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.axvline(1, color=GREY, linewidth=0.6, zorder=0)
    axes.set_yticks(range(len(rows)), [layout.plain(row) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
