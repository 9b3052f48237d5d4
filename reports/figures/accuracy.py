"""Accuracy that drops: under attack against epsilon, and under corruption against its kind and severity."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from alignscape.errors import InputError
from reports.figures import layout, marks
from reports.figures.series import Series, over_seeds, require, series_of
from reports.style import DOUBLE, styled

GRADIENTS = {"true": "true gradient", "feedback": "feedback gradient", "transfer": "transferred",
             "none": "gradient-free"}  # fmt: skip
FIRST_LAYERS = {"feedback": "first layer B", "forward": "first layer W"}
EPSILON = ("ε (pixel units, images in [0, 1])", "ε (L2 distance, images in [0, 1])")
_ACCURACY = ["accuracy", "ci_low", "ci_high"]
CATEGORIES = ("noise", "blur", "weather", "digital")


@styled
def attack(frame: DataFrame) -> Figure:
    """Draw accuracy against epsilon with 95 % bands: one panel per attack, gradient mode, norm and kind of curve.

    The mode is always in the title: only the true gradient (and attacks that need none) measure robustness. So is a
    norm other than L-infinity, and that a curve is one of last iterates, which may rise.

    Args:
        frame: columns ``checkpoint, attack, gradient (true|feedback|transfer|none), eps, accuracy, ci_low, ci_high``;
            ``eps`` in pixel units ([0,1] images), accuracies as fractions. If present, ``norm`` (linf|l2), ``curve``
            (nested|raw) and ``first_layer`` (feedback|forward), what the feedback gradient takes there.

    Raises:
        InputError: a column is missing or the table is empty.

    Example:
        >>> from pandas import DataFrame
        >>> from reports import figures
        >>> table = DataFrame({"eps": [0, 0.1], "accuracy": [0.9, 0.2], "ci_low": [0.8, 0.1], "ci_high": [0.95, 0.3]})
        >>> figure = figures.attack(table.assign(checkpoint="net", attack="pgd", gradient="true"))
        >>> figure.axes[0].get_title(loc="left")
        'PGD, true gradient'
    """
    require(frame, ["checkpoint", "attack", "gradient", "eps", *_ACCURACY], table="attack")
    table = frame.assign(gradient=frame["gradient"].fillna("none").astype(str).str.lower())
    table["panel"] = [_panel_title(row) for row in table.to_dict("records")]
    series = series_of(table)
    kinds = _sorted(table.drop_duplicates("panel"), "gradient", GRADIENTS)
    rows, wide = layout.panel_grid(len(kinds), most_columns=3)
    figure = Figure(figsize=(DOUBLE if len(kinds) > 1 else DOUBLE * 0.6, 0.65 + 2.0 * rows))
    panels = layout.panels(figure, len(kinds), rows, wide, sharey=True)
    ceiling = float(np.nanmax(table[["accuracy", "ci_high"]].to_numpy(float)))
    for index, (kind, axes) in enumerate(zip(kinds.to_dict("records"), panels, strict=True)):
        layout.title(axes, kind["panel"], index if len(kinds) > 1 else None)
        axes.set_xlabel(EPSILON[kind.get("norm") == "l2"])
        for one in series:
            _line(axes, one, one.frame[one.frame["panel"] == kind["panel"]], "eps")
        axes.set_ylim(0, min(102.0, 100 * ceiling * 1.08 + 1))
        if index % wide == 0:
            axes.set_ylabel("accuracy (%)")
    layout.legend_above(figure, layout.handles(series))
    note = layout.seeds_note(series, "95 % interval of the test sample", "Bands")
    if "curve" in table and (table["curve"] == "nested").any():
        grid = ", ".join(f"{eps:g}" for eps in sorted(table["eps"].unique()))
        note += f" Nested in ε: what fools within a smaller ε of the grid ({grid}) counts too."
    layout.note(figure, note)
    return figure


def _panel_title(row: dict[Any, Any]) -> str:
    name, gradient = str(row["attack"]), str(row["gradient"])
    acronym, given = name in ("fgsm", "bim", "pgd"), ":" in name  # a user's own, as it was given
    title = name.upper() if acronym else name if given else name[:1].upper() + name[1:]
    title += f", {GRADIENTS.get(gradient, gradient)}"
    if (layer := row.get("first_layer")) in FIRST_LAYERS and gradient == "feedback":
        title += f" ({FIRST_LAYERS[layer]})"
    return title + (", L2" if row.get("norm") == "l2" else "") + (", last iterate" if row.get("curve") == "raw" else "")


def _line(axes: Axes, one: Series, rows: DataFrame, along: str) -> None:
    points = over_seeds(rows, along, *_ACCURACY, scale=100)
    marks.line_with_band(axes, points[along], points, one.look)


@styled
def radius(frame: DataFrame) -> Figure:
    """Draw the share of the right images that withstand an attack against its size, one panel per attack and gradient.

    Args:
        frame: columns ``checkpoint, attack, gradient, images, quantile, radius, ci_low, ci_high``, and ``norm`` if
            present; rows of ``images`` other than ``right``, and those without a quantile, are left out.

    Raises:
        InputError: a column is missing, or there is no quantile.

    Example:
        >>> from pandas import DataFrame
        >>> from reports import figures
        >>> table = DataFrame({"quantile": [0.1, 0.9], "radius": [0.01, 0.04], "ci_low": 0.01, "ci_high": 0.05})
        >>> figure = figures.radius(table.assign(checkpoint="net", attack="strong", gradient="true", images="right"))
        >>> figure.axes[0].get_title(loc="left")
        'Strong, true gradient'
    """
    names = ["checkpoint", "attack", "gradient", "images", "quantile", "radius", "ci_low", "ci_high"]
    require(frame, names, table="radius")
    table = frame[(frame["images"] == "right") & frame["quantile"].notna()]
    if table.empty:
        raise InputError("radius has no quantile of the images that are right")
    table = table.assign(panel=[_panel_title(row) for row in table.to_dict("records")])
    series, kinds = series_of(table), _sorted(table.drop_duplicates("panel"), "gradient", GRADIENTS)
    rows, wide = layout.panel_grid(len(kinds), most_columns=3)
    figure = Figure(figsize=(DOUBLE if len(kinds) > 1 else DOUBLE * 0.6, 0.65 + 2.0 * rows))
    panels = layout.panels(figure, len(kinds), rows, wide, sharey=True)
    for index, (kind, axes) in enumerate(zip(kinds.to_dict("records"), panels, strict=True)):
        layout.title(axes, kind["panel"], index if len(kinds) > 1 else None)
        for one in series:
            _withstanding(axes, one, one.frame[one.frame["panel"] == kind["panel"]])
        axes.set(xlabel=EPSILON[kind.get("norm") == "l2"], xlim=(0, None), ylim=(0, 100))
        if index % wide == 0:
            axes.set_ylabel("right images that withstand it (%)")
    layout.legend_above(figure, layout.handles(series))
    layout.note(figure, layout.seeds_note(series, "95 % interval over images", "Bands"))
    return figure


def _withstanding(axes: Axes, one: Series, rows: DataFrame) -> None:
    """Draw what is left beyond each quantile, with a band along the radius."""
    points = over_seeds(rows, "quantile", "radius", "ci_low", "ci_high")
    marks.line_with_sideways_band(axes, 100 * (1 - points["quantile"]), points, one.look)


@styled
def corruptions(frame: DataFrame) -> Figure:
    """Draw accuracy per corruption (mean over severities) and against severity (mean over corruptions).

    Args:
        frame: columns ``checkpoint, corruption, category, severity, accuracy, ci_low, ci_high``; clean accuracy as
            severity 0 where the table has it.

    Raises:
        InputError: a column is missing, or there is no row of severity 1 or more.

    Example:
        >>> from pandas import DataFrame
        >>> from reports import figures
        >>> table = DataFrame({"corruption": ["fog", "frost"], "accuracy": [0.7, 0.6], "ci_low": 0.5, "ci_high": 0.8})
        >>> table = table.assign(checkpoint="net", category="weather", severity=1)
        >>> len(figures.corruptions(table).axes)
        2
    """
    cells = _cells(frame)
    series = series_of(frame)
    names = in_order(cells)
    figure = Figure(figsize=(DOUBLE, max(2.6, 1.1 + max(0.16, 0.036 * len(series)) * len(names))))
    left, right = figure.subplots(1, 2, width_ratios=[1.25, 1])
    layout.title(left, "mean over severities", 0)
    layout.title(right, "mean over corruptions", 1)
    for order, one in enumerate(series):
        _corruption_dots(left, one, names, order, len(series))
        _line(right, one, _means(one.frame, "severity"), "severity")
    left.set_yticks(range(len(names)), [layout.words(name) for name in names])
    left.set(ylim=(len(names) - 0.5, -0.5), xlabel="accuracy (%)")
    left.grid(axis="y", visible=False)
    for edge in range(len(names) - 1):
        left.axhline(edge + 0.5, color="#ececec", linewidth=0.5)
    has_clean = bool((pd.to_numeric(frame["severity"]) == 0).any())
    right.set(xlabel="severity (0: clean)" if has_clean else "severity", ylabel="accuracy (%)")
    layout.whole_numbers(right)
    layout.legend_above(figure, layout.handles(series))
    single = "average of the 95 % intervals of single accuracies, since all are of the same test images"
    layout.note(figure, layout.seeds_note(series, single, "Bars"))
    return figure


def _corruption_dots(axes: Axes, one: Series, names: list[str], order: int, count: int) -> None:
    means = _means(one.frame[one.frame["severity"] >= 1], "corruption")
    points = over_seeds(means, "corruption", *_ACCURACY, scale=100)
    offset = 0.0 if count == 1 else 0.72 * (order / (count - 1) - 0.5)
    size = {"markersize": 3 if count <= 8 else 2.2, "elinewidth": 0.7, "capsize": 0}
    for place, name in enumerate(names):
        point = points[points["corruption"] == name]
        marks.points_with_bars(axes, place + offset, point, one.look, horizontal=True, linestyle="", **size)


def _means(rows: DataFrame, along: str) -> DataFrame:
    """Return each checkpoint's accuracy and interval at every value of ``along``, means over all other columns."""
    return rows.groupby(["checkpoint", along], sort=False)[_ACCURACY].mean().reset_index()


def _cells(frame: DataFrame) -> DataFrame:
    require(frame, ["checkpoint", "corruption", "category", "severity", *_ACCURACY], table="corruptions")
    cells = frame[pd.to_numeric(frame["severity"]) >= 1]
    if cells.empty:
        raise InputError("corruptions has no row of severity 1 or more")
    return cells


def in_order(cells: DataFrame) -> list[str]:
    """Return the corruptions by category as the literature lists them, in the table's order within one."""
    return _sorted(cells.drop_duplicates("corruption"), "category", CATEGORIES)["corruption"].astype(str).tolist()


def _sorted(rows: DataFrame, column: str, order: Iterable[str]) -> DataFrame:
    """Return rows in the order of what ``column`` has, those that ``order`` does not know last."""
    rank = {name: place for place, name in enumerate(order)}
    return rows.sort_values(column, key=lambda cells: cells.map(rank).fillna(len(rank)), kind="stable")


@styled
def corruption_heatmap(frame: DataFrame) -> Figure:
    """Draw accuracy in every cell of corruption by severity, one panel per rule or checkpoint, one colour scale.

    Args:
        frame: as for :func:`corruptions`.

    Example:
        >>> from pandas import DataFrame
        >>> from reports import figures
        >>> table = DataFrame({"corruption": ["fog", "frost"], "accuracy": [0.7, 0.6], "ci_low": 0.5, "ci_high": 0.8})
        >>> table = table.assign(checkpoint="net", category="weather", severity=1)
        >>> [text.get_text() for text in figures.corruption_heatmap(table).axes[0].texts]
        ['70', '60']
    """
    cells = _cells(frame)
    series, names = series_of(cells), in_order(cells)
    severities = sorted(cells["severity"].unique())
    rows, wide = layout.panel_grid(len(series), most_columns=4)
    figure = Figure(figsize=(1.35 + 1.4 * wide, 0.75 + rows * (0.3 + 0.15 * len(names))))
    panels = layout.panels(figure, len(series), rows, wide, sharex=True, sharey=True)
    finite = 100 * cells["accuracy"][np.isfinite(cells["accuracy"])]
    for index, (axes, one) in enumerate(zip(panels, series, strict=True)):
        grid = 100 * one.frame.pivot_table(index="corruption", columns="severity", values="accuracy", dropna=False)
        image = marks.heat_map(
            axes, grid.reindex(index=names, columns=severities), (finite.min(), finite.max()),
            rows=[layout.words(name) for name in names], columns=[f"{severity:g}" for severity in severities],
        )  # fmt: skip
        layout.title(axes, one.label, index if len(series) > 1 else None)
        if index + wide >= len(series):
            axes.set_xlabel("severity")
            axes.tick_params(labelbottom=True)
    figure.colorbar(image, ax=panels, label="accuracy (%)", shrink=0.7, aspect=25, pad=0.02)
    if any(one.checkpoints > 1 for one in series):
        layout.note(figure, "Means over seeds.")
    return figure
