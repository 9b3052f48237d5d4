"""Curvature as numbers with error bars: Hessian trace and top eigenvalues."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from pandas import DataFrame

from alignscape.errors import InputError
from reports.figures import layout, marks
from reports.figures.series import Series, over_seeds, require, series_of
from reports.style import DOUBLE, GREY, styled

_WIDE = 30.0  # largest over smallest magnitude from which a linear axis hides the small values


@styled
def hessian(frame: DataFrame) -> Figure:
    """Draw the Hessian trace and the top eigenvalues, each with its interval.

    Where a run has several epochs, the two are drawn over epochs (eigenvalue of index 0 only); otherwise there is one
    line of dots per checkpoint or rule.

    Args:
        frame: columns ``checkpoint, quantity (trace|eigenvalue), index, value, ci_low, ci_high``.

    Raises:
        InputError: a column is missing, or there is neither a trace nor an eigenvalue.

    Example:
        >>> from pandas import DataFrame
        >>> from reports import figures
        >>> table = DataFrame({"quantity": ["trace", "eigenvalue"], "index": [0, 1], "value": [9.0, 4.0]})
        >>> figure = figures.hessian(table.assign(checkpoint="net", ci_low=table["value"], ci_high=table["value"]))
        >>> len(figure.axes)
        2
    """
    require(frame, ["checkpoint", "quantity", "index", "value", "ci_low", "ci_high"], table="hessian")
    present = [name for name in ("trace", "eigenvalue") if (frame["quantity"] == name).any()]
    if not present:
        raise InputError("hessian has no row with quantity trace or eigenvalue")
    table = frame[frame["quantity"].isin(present)]
    whole = series_of(table, along="epoch")
    if "epoch" in table and any(len(one.frame["epoch"].unique()) > 1 for one in whole):
        return _over_epochs(whole, present)
    return _dots(series_of(table), present)


def _over_epochs(series: list[Series], present: list[str]) -> Figure:
    figure = Figure(figsize=(DOUBLE, 2.4))
    panels = figure.subplots(1, len(present), squeeze=False)[0]
    for index, (axes, quantity) in enumerate(zip(panels, present, strict=True)):
        top = quantity == "eigenvalue"
        layout.title(axes, "top eigenvalue" if top else "trace", index if len(present) > 1 else None)
        rows = [one.frame[one.frame["quantity"] == quantity] for one in series]
        first = [found[found["index"] == found["index"].min()] for found in rows]  # a trace has one index only
        chosen = [replace(one, frame=found) for one, found in zip(series, first, strict=True)]
        draw_over_epochs(axes, chosen, "top Hessian eigenvalue" if top else "Hessian trace")
    layout.legend_above(figure, layout.handles(series))
    layout.note(figure, layout.seeds_note(series, "95 % interval", "Bars"))
    return figure


def draw_over_epochs(axes: Axes, series: Sequence[Series], label: str) -> None:
    """Draw ``value`` with its interval over epochs, a line for each series, on the scale that shows all of them."""
    values: list[float] = []
    for one in series:
        points = over_seeds(one.frame, "epoch", "value", "ci_low", "ci_high")
        marks.points_with_bars(axes, points["epoch"], points, one.look)
        values += points["value"].tolist()
    axes.set(xlabel="epoch", ylabel=label)
    choose_scale(axes, values, vertical=True)
    layout.whole_numbers(axes)


def _dots(series: list[Series], present: list[str]) -> Figure:
    figure = Figure(figsize=(DOUBLE, 1.25 + 0.24 * len(series)))
    panels = figure.subplots(1, len(present), squeeze=False, sharey=True)[0]
    for index, (axes, quantity) in enumerate(zip(panels, present, strict=True)):
        top = quantity == "eigenvalue"
        layout.title(axes, "top eigenvalues" if top else "trace", index if len(present) > 1 else None)
        axes.set_xlabel("eigenvalue of the Hessian (largest marked large)" if top else "trace of the Hessian")
        values: list[float] = []
        for row, one in enumerate(series):
            values += _row(axes, row, one, one.frame[one.frame["quantity"] == quantity], large_first=top)
        choose_scale(axes, values, vertical=False)
        axes.grid(axis="y", visible=False)
    panels[0].set_yticks(range(len(series)), layout.names(series))
    panels[0].set_ylim(len(series) - 0.4, -0.6)
    single = "95 % interval of the trace, residual bound of the eigenvalues (unseen where smaller than the dot)"
    layout.note(figure, layout.seeds_note(series, single, "Bars"))
    return figure


def _row(axes: Axes, row: int, one: Series, rows: DataFrame, *, large_first: bool) -> list[float]:
    points = over_seeds(rows, "index", "value", "ci_low", "ci_high").sort_values("value", ascending=False)
    if not np.isfinite(points["value"]).any():
        text = "not finite: the run diverged" if len(rows) else "not measured"
        axes.annotate(text, (0.02, row), xycoords=("axes fraction", "data"), va="center", color=GREY)
        return []
    for order in range(len(points)):
        single = points.iloc[[order]]
        size = 5.0 if large_first and order == 0 else 3.2
        # eigenvalues lie close together: half a line of height apart, so that their bars can be told apart
        offset = 0.0 if len(points) == 1 else 0.44 * (order / (len(points) - 1) - 0.5)
        marks.points_with_bars(axes, row + offset, single, one.look, horizontal=True, markersize=size, linestyle="")
    return [float(value) for value in points["value"]]


def choose_scale(axes: Axes, values: ArrayLike, *, vertical: bool) -> None:
    """Use a logarithmic axis where values differ widely, symmetric about zero if some are negative."""
    known = np.asarray(values, dtype=float)
    known = known[np.isfinite(known)]
    sizes = np.abs(known[known != 0])
    set_scale = axes.set_yscale if vertical else axes.set_xscale
    wide = len(sizes) and sizes.max() / sizes.min() > _WIDE
    if wide and known.min() > 0:
        set_scale("log")
    elif wide:
        set_scale("symlog", linthresh=float(10 ** np.floor(np.log10(np.quantile(sizes, 0.2)))))
        (axes.yaxis if vertical else axes.xaxis).grid(True)
    if (known < 0).any():
        (axes.axhline if vertical else axes.axvline)(0, color=GREY, linewidth=0.6)
