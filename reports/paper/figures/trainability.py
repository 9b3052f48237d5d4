"""Figures 3 and S5 to S7: what can be trained at all, over initial variances, depth and size of the training set."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from pandas import DataFrame

from reports.figures import layout, marks
from reports.figures.series import over_seeds, rule_name, series_of
from reports.paper.figures import panels
from reports.paper.target import Drawn, Tables
from reports.style import DOUBLE, settings

_NAMES = {1.0: "1", math.sqrt(2): "√2"}


@settings()
def trainability(tables: Tables) -> list[Drawn]:
    """Draw figure 3: largest training accuracy over the grid of variances, depth and size of the training set."""
    best = {
        name: panels.best_rows(tables[name], "train_accuracy", keys)
        for name, keys in (("variances", ["forward", "backward"]), ("depths", ["depth"]), ("sizes", ["size"]))
    }
    drawn: dict[str, DataFrame] = {}

    figure, axes = panels.mosaic("ab;cd", 5.0, height_ratios=[1.1, 1])
    heat, image = _two_grids([axes["a"], axes["b"]], best["variances"])
    drawn.update(zip("ab", heat, strict=True))
    figure.colorbar(image, ax=[axes["a"], axes["b"]], label="accuracy (%)", aspect=25, pad=0.02)
    drawn["c"] = _against(axes["c"], best["depths"], "depth", "hidden layers")
    drawn["d"] = _against(axes["d"], best["sizes"], "size", "training samples")
    layout.title(axes["c"], "depth", "c")
    layout.title(axes["d"], "size of the training set", "d")
    series = panels.legend_of(figure, tables["depths"])
    text = f"Largest training accuracy of any epoch ({tables['depths']['epoch'].max()} epochs). a, b: scale s of the "
    text += "initial N(0, s²/n): 1 is LeCun's, √2 is He's. "
    layout.note(figure, text + panels.seeds_note(series, noun="Bars"))
    return panels.finished(figure, drawn, "Trainability", "Training accuracy that BP, FA and IFA reach.")


def _two_grids(axes: Sequence[Axes], best: DataFrame) -> tuple[list[DataFrame], ScalarMappable]:
    """Draw the accuracy of FA and of IFA over forward and backward scale, on one scale of colours."""
    means = 100 * best.groupby(["rule", "forward", "backward"])["value"].mean()
    drawn = []
    for index, (panel, rule) in enumerate(zip(axes, ("fa", "ifa"), strict=True)):
        rows = best[best["rule"] == rule]
        grid = 100 * rows.pivot_table(index="backward", columns="forward", values="value", aggfunc="mean", dropna=False)
        image = marks.heat_map(
            panel, grid, (means.min(), means.max()), rows=[_scale_name(value) for value in grid.index],
            columns=[_scale_name(value) for value in grid.columns], fontsize=6, origin="lower",
        )  # fmt: skip
        panel.set(xlabel="forward scale s", ylabel="backward scale s" if index == 0 else "")
        layout.title(panel, rule_name(rule), index)
        drawn.append(rows)
    return drawn, image


def _scale_name(value: Any) -> str:
    return next((name for known, name in _NAMES.items() if math.isclose(known, value)), f"{value:g}")


def _against(axes: Axes, best: DataFrame, column: str, label: str) -> DataFrame:
    """Draw ``value`` against a number that is not the angle, a line per rule."""
    for one in series_of(best):
        points = over_seeds(one.frame, column, "value", scale=100)
        marks.points_with_bars(axes, points[column], points, one.look)
    values = sorted(best[column].unique())
    if values[-1] > 20 * values[0]:
        axes.set_xscale("log")
    axes.set_xticks(values, [f"{value:,.0f}" for value in values], rotation=30 if len(values) > 5 else 0)
    axes.set_xticks([], minor=True)
    axes.set(xlabel=label, ylabel="accuracy (%)")
    return best


@settings()
def variances(tables: Tables, *, large: float) -> list[Drawn]:
    """Draw figure S5: test accuracy over the grid of variances, and learning curves at five settings."""
    metrics = tables["metrics"]
    best = panels.best_rows(metrics, "test_accuracy", ["forward", "backward"])
    he = math.sqrt(2)
    five = {
        "LeCun": (1.0, 1.0),
        "He": (he, he),
        "large forward": (large, he),
        "large backward": (he, large),
        "both large": (large, large),
    }
    drawn: dict[str, DataFrame] = {}

    figure = Figure(figsize=(DOUBLE, 4.9))
    grid = figure.add_gridspec(2, 10, height_ratios=[1.25, 1])
    upper = [figure.add_subplot(grid[0, 0:5]), figure.add_subplot(grid[0, 5:10])]
    heat, image = _two_grids(upper, best)
    drawn.update(zip("ab", heat, strict=True))
    figure.colorbar(image, ax=upper, label="test accuracy (%)", aspect=25, pad=0.02)
    lower = _row_of(figure, [grid[1, 2 * i : 2 * i + 2] for i in range(5)])
    for place, (axes, (name, (forward, backward))) in enumerate(zip(lower, five.items(), strict=True)):
        rows = metrics[np.isclose(metrics["forward"], forward) & np.isclose(metrics["backward"], backward)]
        points = panels.curves(axes, rows, "test_accuracy", "test accuracy (%)", scale=100)
        drawn["cdefg"[place]] = points.assign(forward=forward, backward=backward)
        axes.set_ylabel("test accuracy (%)" if place == 0 else "")
        layout.title(axes, f"{name}\n({_scale_name(forward)}, {_scale_name(backward)})", place + 2)
    series = panels.legend_of(figure, metrics)
    text = "a, b: largest test accuracy of any epoch. c-g: (forward, backward) scales in brackets. "
    layout.note(figure, text + panels.seeds_note(series, noun="Bands"))
    return panels.finished(figure, drawn, "Test accuracy over initial variances", "The supplement to figure 3.")


def _row_of(figure: Figure, places: Sequence[object]) -> list[Axes]:
    """Return panels side by side that share their y axis; only the first one labels it."""
    axes: list[Axes] = []
    for place in places:
        axes.append(figure.add_subplot(place, sharey=axes[0] if axes else None))  # type: ignore[call-overload]
        axes[-1].tick_params(labelleft=len(axes) == 1)
    return axes


def depths(tables: Tables, *, shown: Sequence[int]) -> list[Drawn]:
    """Draw figure S6: test accuracy against depth, and learning curves at some depths."""
    return _with_curves(tables["metrics"], "depth", "hidden layers", shown)


def sizes(tables: Tables, *, shown: Sequence[int]) -> list[Drawn]:
    """Draw figure S7: test accuracy against the size of the training set, and learning curves at some sizes."""
    return _with_curves(tables["metrics"], "size", "training samples", shown)


@settings()
def _with_curves(metrics: DataFrame, column: str, label: str, shown: Sequence[int]) -> list[Drawn]:
    best = panels.best_rows(metrics, "test_accuracy", [column])
    drawn: dict[str, DataFrame] = {}

    figure = Figure(figsize=(DOUBLE, 4.3))
    count = len(shown)
    grid = figure.add_gridspec(2, count, height_ratios=[1.1, 1])
    upper = figure.add_subplot(grid[0, :])
    drawn["a"] = _against(upper, best, column, label)
    upper.set_ylabel("test accuracy (%)")
    layout.title(upper, "largest of any epoch", 0)
    lower = _row_of(figure, [grid[1, place] for place in range(count)])
    for place, (axes, value) in enumerate(zip(lower, shown, strict=True)):
        points = panels.curves(axes, metrics[metrics[column] == value], "test_accuracy", "test accuracy (%)",
                               scale=100)  # fmt: skip
        drawn[layout.letter(place + 1)] = points.assign(**{column: value})
        axes.set_ylabel("test accuracy (%)" if place == 0 else "")
        layout.title(axes, f"{value:,} {label}", place + 1)
    series = panels.legend_of(figure, metrics)
    layout.note(figure, panels.seeds_note(series))
    return panels.finished(figure, drawn, f"Test accuracy against {label}", "The supplement to figure 3.")
