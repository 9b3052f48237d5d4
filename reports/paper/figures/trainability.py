"""Figures 3 and S5 to S7: what can be trained at all, over initial variances, depth and size of the training set."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from reports.figures import layout, marks
from reports.figures.series import over_seeds, rule_name, series_of
from reports.paper.figures import panels
from reports.paper.target import Drawn, Tables
from reports.style import settings

_NAMES = {1.0: "1", math.sqrt(2): "√2"}


@settings()
def trainability(tables: Tables) -> list[Drawn]:
    """Draw figure 3: largest training accuracy over the grid of variances, depth and size of the training set."""
    keys = {"variances": ["forward", "backward"], "depths": ["depth"], "sizes": ["size"]}
    best = {name: panels.best_rows(tables[name], "train_accuracy", by) for name, by in keys.items()}
    figure, axes = panels.mosaic("ab;cd", 5.0, height_ratios=[1.1, 1])
    drawn = _two_grids(figure, [axes["a"], axes["b"]], best["variances"], "accuracy (%)")
    drawn["c"] = _against(axes["c"], best["depths"], "depth", "hidden layers")
    drawn["d"] = _against(axes["d"], best["sizes"], "size", "training samples")
    panels.titles(axes, c="depth", d="size of the training set")
    series = panels.legend_of(figure, tables["depths"])
    note = f"Largest training accuracy of any epoch ({tables['depths']['epoch'].max()} epochs). a, b: scale s of the "
    note += f"initial N(0, s²/n): 1 is LeCun's, √2 is He's. {layout.seeds_note(series, noun='Bars')}"
    return panels.finished(figure, drawn, "Trainability", "Training accuracy that BP, FA and IFA reach.", note=note)


def _two_grids(figure: Figure, axes: Sequence[Axes], best: DataFrame, label: str) -> dict[str, DataFrame]:
    """Draw the accuracy of FA and of IFA over forward and backward scale in panels a and b, on one scale of colours."""
    means = 100 * best.groupby(["rule", "forward", "backward"])["value"].mean()
    drawn = {}
    for letter, panel, rule in zip("ab", axes, ("fa", "ifa"), strict=True):
        drawn[letter] = rows = best[best["rule"] == rule]
        grid = 100 * rows.pivot_table(index="backward", columns="forward", values="value", aggfunc="mean", dropna=False)
        image = marks.heat_map(
            panel, grid, (means.min(), means.max()), rows=[_scale_name(value) for value in grid.index],
            columns=[_scale_name(value) for value in grid.columns], fontsize=6, origin="lower",
        )  # fmt: skip
        panel.set(xlabel="forward scale s", ylabel="backward scale s" if letter == "a" else "")
        layout.title(panel, rule_name(rule), letter)
    figure.colorbar(image, ax=axes, label=label, aspect=25, pad=0.02)
    return drawn


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
    metrics, he = tables["metrics"], math.sqrt(2)
    five = {"LeCun": (1.0, 1.0), "He": (he, he), "large forward": (large, he), "large backward": (he, large),
            "both large": (large, large)}  # fmt: skip
    shown = {
        f"{name}\n({_scale_name(forward)}, {_scale_name(backward)})": {"forward": forward, "backward": backward}
        for name, (forward, backward) in five.items()
    }
    figure, axes = panels.mosaic("aaaaabbbbb;ccddeeffgg", 4.9, height_ratios=[1.25, 1])
    best = panels.best_rows(metrics, "test_accuracy", ["forward", "backward"])
    drawn = _two_grids(figure, [axes["a"], axes["b"]], best, "test accuracy (%)")
    drawn |= _curves_at([axes[letter] for letter in "cdefg"], metrics, shown, 2)
    series = panels.legend_of(figure, metrics)
    note = "a, b: largest test accuracy of any epoch. c-g: (forward, backward) scales in brackets. "
    note += layout.seeds_note(series, noun="Bands")
    title = "Test accuracy over initial variances"
    return panels.finished(figure, drawn, title, "The supplement to figure 3.", note=note)


def _curves_at(
    axes: Sequence[Axes], metrics: DataFrame, shown: Mapping[str, Mapping[str, float]], first: int
) -> dict[str, DataFrame]:
    """Draw learning curves side by side, by title of those runs that have some value in each of some columns.

    The panels share their y axis, which only the first one labels; ``first`` is its place in the figure.
    """
    drawn = {}
    for place, (panel, (title, at)) in enumerate(zip(axes, shown.items(), strict=True)):
        if place:
            panel.sharey(axes[0])
        rows = metrics[np.all([np.isclose(metrics[name], value) for name, value in at.items()], axis=0)]
        drawn[layout.letter(first + place)] = panels.accuracy_curves(panel, rows).assign(**at)
        panel.set_ylabel("" if place else "test accuracy (%)")
        panel.tick_params(labelleft=not place)
        layout.title(panel, title, first + place)
    return drawn


def depths(tables: Tables, *, shown: Sequence[int]) -> list[Drawn]:
    """Draw figure S6: test accuracy against depth, and learning curves at some depths."""
    return _with_curves(tables["metrics"], "depth", "hidden layers", shown)


def sizes(tables: Tables, *, shown: Sequence[int]) -> list[Drawn]:
    """Draw figure S7: test accuracy against the size of the training set, and learning curves at some sizes."""
    return _with_curves(tables["metrics"], "size", "training samples", shown)


@settings()
def _with_curves(metrics: DataFrame, column: str, label: str, shown: Sequence[int]) -> list[Drawn]:
    letters = [layout.letter(1 + place) for place in range(len(shown))]
    figure, axes = panels.mosaic(f"{'a' * len(shown)};{''.join(letters)}", 4.3, height_ratios=[1.1, 1])
    drawn = {"a": _against(axes["a"], panels.best_rows(metrics, "test_accuracy", [column]), column, label)}
    axes["a"].set_ylabel("test accuracy (%)")
    panels.titles(axes, a="largest of any epoch")
    at = {f"{value:,} {label}": {column: value} for value in shown}
    drawn |= _curves_at([axes[letter] for letter in letters], metrics, at, 1)
    note = layout.seeds_note(panels.legend_of(figure, metrics))
    return panels.finished(figure, drawn, f"Test accuracy against {label}", "The supplement to figure 3.", note=note)
