"""Training seen from outside: learning curves, and the alignment of forward and feedback weights."""

import re

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from alignscape.errors import InputError
from reports.figures import layout, marks
from reports.figures.series import Series, over_seeds, require, series_of
from reports.style import DOUBLE, GREY, styled

_CURVES = {
    "train_loss": ("training loss", "loss (nats)", 1.0),
    "test_loss": ("test loss", "loss (nats)", 1.0),
    "train_accuracy": ("training accuracy", "accuracy (%)", 100.0),
    "test_accuracy": ("test accuracy", "accuracy (%)", 100.0),
}
_MOST_LAYERS = 6  # panels beside each other
_QUANTITIES = {
    "angle": "angle between W and B (°)",
    "row_angle": "mean row angle (°)",
    "flat_angle": "flattened angle (°)",
    "norm_ratio": "norm ratio |B| / |W|",
    "gradient_cosine": "cosine to the true gradient",
    "gradient_angle": "angle to the true gradient (°)",
}


@styled
def metrics(frame: DataFrame) -> Figure:
    """Draw loss and accuracy over epochs, training left and test right, one line per rule or checkpoint.

    A run whose loss stops being finite ends in a cross, and the legend says so.

    Args:
        frame: columns ``checkpoint, epoch, train_loss, test_loss, train_accuracy, test_accuracy`` (a loss or an
            accuracy that was not measured may be missing), one row per checkpoint and epoch.

    Raises:
        InputError: a column is missing or the table is empty.

    Example:
        >>> from pandas import DataFrame
        >>> from reports import figures
        >>> table = DataFrame({"epoch": [0, 1], "train_loss": [2.3, 1.0], "test_loss": [2.3, 1.1]})
        >>> figure = figures.metrics(table.assign(checkpoint="net", train_accuracy=0.5, test_accuracy=0.5))
        >>> len(figure.axes)
        4
    """
    require(frame, ["checkpoint", "epoch"], table="metrics")
    columns = [name for name in _CURVES if name in frame and pd.to_numeric(frame[name]).notna().any()]
    if not columns:
        raise InputError(f"metrics has none of the columns {', '.join(_CURVES)} with a number in it")
    series = series_of(frame, along="epoch")
    rows, wide = layout.panel_grid(len(columns), most_columns=2)
    figure = Figure(figsize=(DOUBLE, 0.5 + 1.85 * rows))
    panels = layout.panels(figure, len(columns), rows, wide, sharex=True, sharey="row")
    for index, (axes, column) in enumerate(zip(panels, columns, strict=True)):
        name, label, scale = _CURVES[column]
        layout.title(axes, name, index)
        axes.set_ylabel(label if index % wide == 0 else "")
        axes.set_xlabel("epoch" if index + wide >= len(columns) else "")
        for one in series:
            _curve(axes, one, over_seeds(one.frame, "epoch", column, scale=scale))
        layout.whole_numbers(axes)
        axes.margins(x=0.03)
    handles = layout.handles(series)
    lost = [_diverged(one.frame) for one in series]
    for entry, when in zip(handles, lost, strict=True):
        entry.set_label(", ".join(filter(None, [str(entry.get_label()), when])))
    layout.legend_above(figure, handles)
    crosses = " A cross marks the last epoch with a finite loss." if any(lost) else ""
    layout.note(figure, layout.seeds_note(series, noun="Bands") + crosses)
    return figure


def draw_curve(axes: Axes, one: Series, points: DataFrame, *, most_markers: int = 40) -> None:
    """Draw points over epochs, with the look's markers unless there are too many of them."""
    marker = one.look.marker if len(points) <= most_markers else ""
    marks.line_with_band(axes, points["epoch"], points, one.look, marker=marker, markersize=2.5)


def _curve(axes: Axes, one: Series, points: DataFrame) -> None:
    draw_curve(axes, one, points)
    finite = points[points["value"].notna()]
    if len(finite) and finite.index[-1] != points.index[-1]:
        last = finite.iloc[-1]
        axes.plot(last["epoch"], last["value"], marker="x", markersize=7, markeredgewidth=1.6, color=one.look.colour)


def _diverged(rows: DataFrame) -> str:
    """Say which part of a series diverged, by its losses or by a ``diverged`` column; empty if none did."""
    bad = pd.Series(False, index=rows.index)
    if loss := next((name for name in ("train_loss", "test_loss") if name in rows), None):
        bad |= ~np.isfinite(pd.to_numeric(rows[loss]).fillna(np.nan)) & (rows["epoch"] > 0)
    if "diverged" in rows:
        bad |= rows["diverged"].fillna(False).astype(bool)
    if not bad.any():
        return ""
    lost, total = rows.loc[bad, "checkpoint"].nunique(), rows["checkpoint"].nunique()
    when = f"diverged at epoch {rows.loc[bad, 'epoch'].min():g}"
    return when if total == 1 else f"{lost} of {total} {when}"


@styled
def alignment(frame: DataFrame) -> Figure:
    """Draw the angle between forward and feedback weights over epochs, one panel per layer.

    90 degrees is what two independent matrices have and is drawn as a reference. Other quantities of a long table
    (norm ratios, gradient alignment) get rows of panels of their own.

    Args:
        frame: columns ``checkpoint, epoch`` and either columns ``angle_<layer>`` in degrees and ``norm_ratio_<layer>``
            (as ``metrics.csv`` has them), or ``layer, quantity, value`` with a quantity such as ``row_angle``, or
            ``layer`` and a column for each quantity (as ``alignment.csv`` has them).

    Raises:
        InputError: a column is missing, or there is no angle in the table.

    Example:
        >>> from pandas import DataFrame
        >>> from reports import figures
        >>> table = DataFrame({"checkpoint": "net", "epoch": [0, 1], "angle_layers.1": [90.0, 60.0]})
        >>> len(figures.alignment(table).axes)
        1
    """
    require(frame, ["checkpoint", "epoch"], table="alignment")
    table, hidden = _spread(_long(frame))
    quantities = table["quantity"].drop_duplicates().tolist()
    panels = list(table[["quantity", "layer"]].drop_duplicates().itertuples(index=False, name=None))
    panels.sort(key=lambda panel: quantities.index(panel[0]))
    series = series_of(table, along="epoch")
    rows, wide = layout.panel_grid(len(panels), most_columns=3)
    places = [divmod(index, wide) for index in range(len(panels))]
    if len(quantities) > 1:
        columns = list(dict.fromkeys(layer for _, layer in panels))
        if "layer" in frame:  # the first layer has no angle, and would come last
            columns.sort(key=frame["layer"].astype(str).drop_duplicates().tolist().index)
        rows, wide = len(quantities), len(columns)
        places = [(quantities.index(quantity), columns.index(layer)) for quantity, layer in panels]
    figure = Figure(figsize=(DOUBLE, 0.5 + 1.75 * rows))
    grid = figure.subplots(rows, wide, squeeze=False, sharex=True)
    for index, ((quantity, layer), place) in enumerate(zip(panels, places, strict=True)):
        _alignment_panel(grid[place], series, quantity, layer, index if len(panels) > 1 else None)
    for axes in grid.ravel():
        axes.set_visible(bool(axes.get_title(loc="left")))
    if len(quantities) > 1:
        for row in grid:
            _share_scale([axes for axes in row if axes.get_visible()])
    layout.legend_above(figure, layout.handles(series))
    measured = "low" in table and table["low"].notna().any()
    single = "95 % intervals over mini-batches, of the gradients" if measured else ""
    text = layout.seeds_note(series, single, "Bands")
    text += " Dotted: 90°, independent weights." if any("angle" in quantity for quantity in quantities) else ""
    text += f" {hidden} of the layers between are not shown; the table has them." if hidden else ""
    layout.note(figure, text)
    return figure


def _share_scale(row: list[Axes]) -> None:
    """Give panels of one quantity one scale, written at the first of them only: there may be six in a row."""
    low, high = min(axes.get_ylim()[0] for axes in row), max(axes.get_ylim()[1] for axes in row)
    margin = 0.04 * (high - low)
    for axes in row:
        axes.set_ylim(low - (margin if low else 0), high + margin)
        if axes is not row[0]:
            axes.set_ylabel("")
            axes.tick_params(labelleft=False)


def _panel_name(layer: str) -> str:
    """Return what a panel of ``layer`` is called, on two lines where one would reach into the next panel."""
    if layer == "all":
        return "all parameters"
    if layer.isdigit():
        return f"layer {layer}"
    parts = layer.split(".")
    cut = min(range(1, len(parts) + 1), key=lambda n: abs(len(".".join(parts[:n])) - len(layer) / 2))
    return layer if len(layer) <= 14 or cut == len(parts) else ".".join(parts[:cut]) + ".\n" + ".".join(parts[cut:])


def _spread(table: DataFrame) -> tuple[DataFrame, int]:
    """Return the rows of at most ``_MOST_LAYERS`` layers, evenly spread from the first to the last, and how many
    layers are left out."""
    layers = sorted(table["layer"].drop_duplicates().tolist(), key=_natural)
    if len(layers) <= _MOST_LAYERS:
        return table, 0
    chosen = {layers[i] for i in np.linspace(0, len(layers) - 1, _MOST_LAYERS).round().astype(int)}
    return table[table["layer"].isin(chosen)], len(layers) - len(chosen)


def _natural(name: str) -> tuple[bool, list[tuple[int, str]]]:
    """Sort ``layers.2`` before ``layers.10``, and all parameters together last."""
    return name == "all", [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def _alignment_panel(axes: Axes, series: list[Series], quantity: str, layer: str, index: int | None) -> None:
    layout.title(axes, _panel_name(layer), index)
    axes.set(xlabel="epoch", ylabel=_QUANTITIES.get(quantity, quantity.replace("_", " ")))
    axes.tick_params(labelbottom=True)
    is_angle = "angle" in quantity
    if is_angle:
        axes.axhline(90, color=GREY, linestyle=":", linewidth=0.8)
    for one in series:
        rows = one.frame[(one.frame["layer"] == layer) & (one.frame["quantity"] == quantity)]
        if len(rows):
            bounds = ("low", "high") if "low" in rows else (None, None)
            _curve(axes, one, over_seeds(rows, "epoch", "value", *bounds))
    if is_angle:
        axes.set_ylim(0, max(95.0, axes.get_ylim()[1]))
        axes.set_yticks([0, 30, 60, 90])
    if quantity == "gradient_cosine":
        axes.set_ylim(min(-0.1, axes.get_ylim()[0]), 1.05)
    layout.whole_numbers(axes)


def _long(frame: DataFrame) -> DataFrame:
    """Return ``layer, quantity, value`` rows; rules without feedback weights (all NaN) are left out."""
    if {"layer", "value"} <= set(frame.columns):
        table = frame.copy()
        if "quantity" not in table:
            table["quantity"] = "angle"
    elif "layer" in frame:
        keep = [
            "checkpoint",
            *(name for name in ("rule", "angle", "seed", "variant", "epoch", "layer") if name in frame),
        ]
        parts = []
        for quantity in [name for name in _QUANTITIES if name != "angle" and name in frame]:
            ends = {f"{quantity}_low": "low", f"{quantity}_high": "high"}
            columns = frame.reindex(columns=[*keep, quantity, *ends])
            parts.append(columns.rename(columns={quantity: "value", **ends}).assign(quantity=quantity))
        if not parts:
            raise InputError(f"the alignment table has none of the columns {', '.join(_QUANTITIES)}")
        table = pd.concat(parts, ignore_index=True)
    else:
        wide = [name for name in frame.columns if re.match(r"(angle|norm_ratio|gradient_cosine)_.+", str(name))]
        keep = [name for name in ("checkpoint", "rule", "angle", "seed", "variant", "epoch", "step") if name in frame]
        table = frame.melt(keep, wide, var_name="column", value_name="value")
        names = table["column"].astype(str).str.extract(r"(angle|norm_ratio|gradient_cosine)_(.+)")
        table["quantity"], table["layer"] = names[0], names[1]
    table["layer"] = table["layer"].astype(str)
    table = table[pd.to_numeric(table["value"]).notna()]
    if table.empty:
        raise InputError("alignment has no values: only rules with feedback weights have an angle to them")
    return table
