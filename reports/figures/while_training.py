"""Curvature while a network trains: leading eigenvalue with its edge of stability, trace, gradient and alignment."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from pandas import DataFrame

from alignscape.errors import InputError
from reports.figures import layout, marks
from reports.figures.series import Series, over_seeds, require, series_of
from reports.style import DOUBLE, GREY, styled

_EDGE = (0, (4, 2))
_MOST_MARKERS = 25


@dataclass(frozen=True, kw_only=True)
class _Panel:
    """One quantity."""

    column: str
    title: str
    label: str
    low: str | None = None
    high: str | None = None
    logarithmic: bool = False


_PANELS = (
    _Panel(column="eigenvalue", title="top eigenvalue", label="eigenvalue of H"),
    _Panel(
        column="preconditioned_eigenvalue",
        title="preconditioned top eigenvalue",
        label=r"eigenvalue of $D^{-1} H$",
        logarithmic=True,
    ),
    _Panel(column="trace", title="trace", label="trace of H", low="ci_low", high="ci_high"),
    _Panel(column="loss", title="loss of the monitored samples", label="loss (nats)", logarithmic=True),
    _Panel(column="gradient_norm", title="gradient", label="norm of the gradient", logarithmic=True),
    _Panel(column="alignment", title="gradient in the top space", label=r"$|P_k g|^2 / |g|^2$"),
    _Panel(column="update_cosine", title="update and true gradient", label="cosine"),
    _Panel(column="update_alignment", title="update in the top space", label=r"$|P_k u|^2 / |u|^2$"),
)


@styled
def monitored(frame: DataFrame) -> Figure:
    """Draw what was measured while networks trained over their steps, one panel a quantity; dashed is the edge of
    stability (2 / lr for gradient descent), beside the eigenvalue that it is about.

    Args:
        frame: columns ``checkpoint, step, eigenvalue, trace, ci_low, ci_high, gradient_norm, alignment, threshold`` of
            ``curvature.csv`` (others of it may be missing), one row per checkpoint and step.

    Raises:
        InputError: a column is missing or the table is empty.

    Example:
        >>> from pandas import DataFrame
        >>> from reports import figures
        >>> table = DataFrame({"step": [0, 10], "eigenvalue": [5.0, 19.0], "threshold": 20.0, "alignment": [0.3, 0.6]})
        >>> table = table.assign(checkpoint="net", trace=40.0, ci_low=35.0, ci_high=45.0, gradient_norm=1.0)
        >>> len(figures.monitored(table).axes)
        4
    """
    require(frame, ["checkpoint", "step", "eigenvalue", "threshold"], table="curvature")
    panels = [panel for panel in _PANELS if panel.column in frame and _numbers(frame, panel.column).notna().any()]
    if not panels:
        raise InputError("curvature has no number in any of its rows: did the training diverge at once?")
    series = series_of(frame.assign(epoch=0), along="epoch")
    rows, wide = layout.panel_grid(len(panels), most_columns=3)
    figure = Figure(figsize=(DOUBLE, 0.6 + 1.75 * rows))
    edge = next((p.column for p in panels if p.column == "preconditioned_eigenvalue"), "eigenvalue")
    drawn = False
    for index, (axes, panel) in enumerate(zip(layout.panels(figure, len(panels), rows, wide), panels, strict=True)):
        layout.title(axes, panel.title, index)
        axes.set(xlabel="step" if index + wide >= len(panels) else "", ylabel=panel.label)
        for one in series:
            points = over_seeds(one.frame, "step", panel.column, panel.low, panel.high)
            marker = one.look.marker if len(points) <= _MOST_MARKERS else ""
            marks.line_with_band(axes, points["step"], points, one.look, marker=marker, markersize=2.5)
        _limits(axes, panel, series)
        if panel.column == edge:
            drawn = _edges(axes, series)
    handles = layout.handles(series)
    if drawn:
        handles.append(Line2D([], [], color=GREY, linestyle=_EDGE, label="edge of stability"))
    layout.legend_above(figure, handles)
    trace = "Band of the trace: 95 % interval over probes." if any(p.column == "trace" for p in panels) else ""
    layout.note(figure, layout.seeds_note(series, trace, noun="Bands") if _several(series) else trace)
    return figure


def _several(series: list[Series]) -> bool:
    return any(one.checkpoints > 1 for one in series)


def _numbers(frame: DataFrame, column: str) -> "pd.Series[float]":
    return pd.to_numeric(frame[column]).replace([np.inf, -np.inf], np.nan)


def _limits(axes: Axes, panel: _Panel, series: list[Series]) -> None:
    """Scale the axis: a logarithm where all values are positive and span more than a decade, 0 to 1 for shares."""
    values = pd.concat([_numbers(one.frame, panel.column) for one in series]).dropna()
    if panel.logarithmic and len(values) and values.min() > 0 and values.max() > 10 * values.min():
        axes.set_yscale("log")
    if "alignment" in panel.column:
        axes.set_ylim(-0.02, 1.02)
    axes.margins(x=0.03)


def _edges(axes: Axes, series: list[Series]) -> bool:
    """Draw each series' edge, as far as it lies near what is drawn; say whether any was drawn."""
    drawn = False
    top = axes.get_ylim()[1]
    for one in series:
        points = over_seeds(one.frame, "step", "threshold")
        value = points["value"]
        near = value.where(value <= 20 * top) if axes.get_yscale() == "log" else value.where(value <= 3 * top)
        if near.notna().any():
            axes.step(points["step"], near, where="post", color=one.look.colour, linestyle=_EDGE, linewidth=0.9)
            drawn = True
    return drawn
