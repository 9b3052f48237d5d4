"""The Hessian spectrum from Lanczos quadrature: density with its band, negative part, point mass at zero."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pandas import DataFrame
from scipy import stats

from reports.figures import layout
from reports.figures.series import Series, require, series_of
from reports.style import DOUBLE, GREY, styled
from training.errors import InputError

Array = NDArray[np.float64]
_Evaluate = Callable[[DataFrame], Array]

WIDTH = 0.01  # standard deviation of the Gaussian, as a share of the spectrum's range
ZERO = 1e-6  # nodes nearer to zero than this share of the largest magnitude count as mass at zero


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A value per grid point with its 95 % band (or one standard deviation over seeds)."""

    mean: Array
    low: Array
    high: Array


@styled
def spectrum(frame: DataFrame) -> Figure:
    """Draw the spectral density of the Hessian, one panel per rule or checkpoint, and all cumulative weights.

    The eigenvalue axis is logarithmic on both sides of zero, linear within one Gaussian width of it, so that small
    negative eigenvalues are seen beside large positive ones. Weight at zero is a stem, not part of the density.

    Args:
        frame: columns ``checkpoint, probe, node, weight``: the quadrature of every probe, weights summing to 1.

    Raises:
        InputError: a column is missing, or no node is finite.
    """
    require(frame, ["checkpoint", "probe", "node", "weight"], table="spectrum")
    table = frame[np.isfinite(frame["node"]) & np.isfinite(frame["weight"])]
    if table.empty:
        raise InputError("spectrum has no finite node: the network diverged")
    series = series_of(table)
    threshold = min(_width(rows) for _, rows in table.groupby("checkpoint"))
    nodes = table["node"].to_numpy(float)
    grid = _grid(nodes, threshold)
    figure, panels, cumulative, columns = _panels(len(series))
    floor, top = _density_limits(series)
    for index, (axes, one) in enumerate(zip(panels, series, strict=True)):
        _density_panel(axes, one, grid, index)
        axes.set(yscale="log", ylim=(floor, top))
        if index % columns == 0:
            axes.set_ylabel("spectral density")
        else:
            axes.tick_params(labelleft=False)
        if index + columns >= len(series):
            axes.set_xlabel("eigenvalue of the Hessian")
    layout.title(cumulative, "cumulative weight", len(series))
    cumulative.set(ylabel="share below (%)", ylim=(-2, 102), xlabel="eigenvalue of the Hessian")
    for one in series:
        curve = _over(one, lambda rows: _cumulative(rows, grid))
        cumulative.plot(grid, 100 * curve.mean, color=one.look.colour, linestyle=one.look.linestyle, linewidth=1)
    for axes in [*panels, cumulative]:
        axes.set_xscale("symlog", linthresh=threshold, linscale=0.6)
        _eigenvalue_ticks(
            axes, grid, threshold, share=0.09 if axes is cumulative and len(series) > 2 else 0.055 * columns
        )
    if len(series) > 1:
        layout.legend_above(figure, [layout.handle(one, marker=False) for one in series])
    layout.note(figure, _explanation(series, threshold))
    return figure


def _panels(count: int) -> tuple[Figure, list[Axes], Axes, int]:
    """Return the figure, one panel per series, the cumulative panel (below them if they are many), and the columns."""
    if count <= 2:
        figure = Figure(figsize=(DOUBLE, 2.75))
        *panels, cumulative = figure.subplots(1, count + 1)
        return figure, panels, cumulative, count + 1
    rows, columns = layout.panel_grid(count, most_columns=3 if count <= 9 else 4)
    figure = Figure(figsize=(DOUBLE, 0.6 + 1.6 * rows + 1.9))
    grid = figure.add_gridspec(rows + 1, columns, height_ratios=[1.6] * rows + [1.7])
    panels = [figure.add_subplot(grid[index // columns, index % columns]) for index in range(count)]
    return figure, panels, figure.add_subplot(grid[rows, :]), columns


def _explanation(series: list[Series], threshold: float) -> str:
    bands = layout.seeds_note(series, single="95 % interval over probes", noun="Bands")
    return (
        f"{bands} Gaussian width: {100 * WIDTH:g} % of the range; axis linear within ±{threshold:.1g}. "
        "Ticks below: quadrature nodes. Red: negative eigenvalues. Stem: weight at zero."
    )


def _density_panel(axes: Axes, one: Series, grid: Array, index: int) -> None:
    curve = _over(one, lambda rows: _density(rows, grid))
    axes.fill_between(grid, curve.low, curve.high, color=one.look.colour, alpha=0.22, linewidth=0)
    axes.plot(grid, curve.mean, color=one.look.colour, linewidth=1)
    negative = grid <= 0
    axes.fill_between(grid[negative], 1e-300, curve.mean[negative], color="#c62828", alpha=0.25, linewidth=0)
    nodes = one.frame["node"].to_numpy(float)
    axes.plot(nodes, np.full(len(nodes), 0.015), "|", transform=axes.get_xaxis_transform(), color=GREY,
              markersize=3, markeredgewidth=0.3, alpha=0.5)  # fmt: skip
    below, at_zero = _shares(one.frame)
    text = f"{one.label}\n{_percent(below)} below 0"
    if at_zero > 0:
        axes.plot([0, 0], [0, 0.9], transform=axes.get_xaxis_transform(), color=GREY, linewidth=1.4)
        axes.plot([0], [0.9], "^", transform=axes.get_xaxis_transform(), color=GREY, markersize=4)
        text += f", {_percent(at_zero)} at 0"
    layout.title(axes, text, index)


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.4g} %"


def _shares(rows: DataFrame) -> tuple[float, float]:
    """Return the mean weight below zero and at zero, over probes."""
    probes = rows.groupby(["checkpoint", "probe"]).ngroups
    tiny = ZERO * rows["node"].abs().max()
    below = rows.loc[rows["node"] < -tiny, "weight"].sum() / probes
    return float(below), float(rows.loc[rows["node"].abs() <= tiny, "weight"].sum() / probes)


def _width(rows: DataFrame) -> float:
    span = float(rows["node"].max() - rows["node"].min())
    size = float(rows["node"].abs().max())
    return WIDTH * (span or size) or 1e-12  # a spectrum of one point still needs a width


def _density(rows: DataFrame, grid: Array) -> Array:
    width = _width(rows)
    tiny = ZERO * rows["node"].abs().max()
    spread = rows[rows["node"].abs() > tiny]
    distance = (grid[:, None] - spread["node"].to_numpy(float)) / width
    return np.exp(-0.5 * distance**2) @ spread["weight"].to_numpy(float) / (width * np.sqrt(2 * np.pi))


def _cumulative(rows: DataFrame, grid: Array) -> Array:
    ordered = rows.sort_values("node")
    total = np.concatenate([[0.0], np.cumsum(ordered["weight"].to_numpy(float))])
    return total[np.searchsorted(ordered["node"].to_numpy(float), grid, side="right")]


def _over(one: Series, evaluate: _Evaluate) -> Curve:
    """Average over probes, then over seeds; the band is the one that the note names."""
    means, halves = [], []
    for _, rows in one.frame.groupby("checkpoint", sort=False):
        values = np.stack([evaluate(probe) for _, probe in rows.groupby("probe")])
        n = len(values)
        means.append(values.mean(0))
        error = values.std(0, ddof=1) / np.sqrt(n) if n > 1 else np.zeros_like(values[0])
        halves.append(error * (stats.t.ppf(0.975, n - 1) if n > 1 else 0))
    mean = np.mean(means, axis=0)
    half = np.std(means, axis=0, ddof=1) if len(means) > 1 else halves[0]
    return Curve(mean=mean, low=np.clip(mean - half, 1e-300, None), high=mean + half)


def _grid(nodes: Array, threshold: float) -> Array:
    """Return eigenvalues spaced evenly on the symmetric-log axis, and the nodes themselves."""
    pad = 3 * threshold
    ends = np.array([min(nodes.min() - pad, -pad), max(nodes.max() * (1 + 4 * WIDTH), pad)])
    first, last = np.arcsinh(ends / threshold)
    warped = np.linspace(first, last, 1500)
    return np.unique(np.concatenate([np.sinh(warped) * threshold, nodes, [0.0]]))


def _density_limits(series: list[Series]) -> tuple[float, float]:
    """Return y limits that show single eigenvalues: from a fifth of the smallest usual peak to twice the largest."""
    peaks = []
    for one in series:
        for _, rows in one.frame.groupby("checkpoint"):
            heights = rows["weight"].to_numpy(float) / (_width(rows) * np.sqrt(2 * np.pi))
            peaks.append(heights[heights > heights.max() * 1e-9])
    smallest = min(float(np.quantile(p, 0.02)) for p in peaks)
    largest = max(float(_density(rows, rows["node"].to_numpy(float)).max() / rows["probe"].nunique())
                  for one in series for _, rows in one.frame.groupby("checkpoint"))  # fmt: skip
    largest = max(largest, max(float(p.max()) for p in peaks))
    return smallest / 5, largest * 3


def _eigenvalue_ticks(axes: Axes, grid: Array, threshold: float, *, share: float) -> None:
    """Label zero and powers of ten, the largest first, leaving out any nearer to another than ``share`` of the axis."""
    axes.set_xlim(grid.min(), grid.max())
    ends = {1: float(grid.max()), -1: float(-grid.min())}
    powers = {sign: int(np.floor(np.log10(end))) if end > 0 else -400 for sign, end in ends.items()}
    first = int(np.ceil(np.log10(threshold)))
    ladder = [(sign, p) for down in range(400) for sign in (1, -1) if (p := powers[sign] - down) >= first]
    to_share = axes.transData + axes.transAxes.inverted()
    chosen: dict[float, str] = {0.0: "0"}
    for sign, power in ladder:
        value = sign * 10.0**power
        place = to_share.transform((value, 1.0))[0]
        if all(abs(place - to_share.transform((other, 1.0))[0]) >= share for other in chosen):
            chosen[value] = rf"${'-' if sign < 0 else ''}10^{{{power}}}$"
    axes.set_xticks(sorted(chosen), [chosen[value] for value in sorted(chosen)])
    axes.set_xticks([], minor=True)
