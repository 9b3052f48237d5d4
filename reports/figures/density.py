"""The Hessian spectrum from Lanczos quadrature: bars with their band, negative part, point mass at zero.

The curves and their bands are :class:`landscape.density.SpectralDensity`'s; this file puts them on axes.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pandas import DataFrame

from alignscape.errors import InputError
from landscape.density import ZERO, Band, SpectralDensity
from reports.figures import layout, marks
from reports.figures.series import Series, require, series_of
from reports.style import DOUBLE, GREY, styled

Array = NDArray[np.float64]
BINS = 70  # over the whole axis, alike in the axis' own coordinate for every curve of a figure
KERNEL = 0.35  # of smoothed curves: standard deviation in the axis' coordinate, 0.15 decades far from zero
INVISIBLE = 1e-300  # in place of zero on a logarithmic axis
_NEGATIVE = "#c62828"


@dataclass(frozen=True, kw_only=True)
class Axis:
    """An axis of eigenvalues that is logarithmic on both sides of zero and linear within ``threshold`` of it.

    Its coordinate is asinh(x / threshold), in which the bars of all spectra are equally wide; zero is an edge.
    """

    low: float
    high: float
    threshold: float

    @classmethod
    def of(cls, spectra: "Sequence[Spectrum]") -> "Axis":
        """Return an axis that shows every node of all spectra: half of the weight that is not at zero lies within the
        threshold even in the widest spectrum."""
        singles = [single for one in spectra for single in one.spectra]
        low, high = min(float(one.nodes.min()) for one in singles), max(float(one.nodes.max()) for one in singles)
        size = max(abs(low), abs(high)) or 1.0
        threshold = min(max(*map(_half_weight, singles), 1e-7 * size), 0.05 * size)
        coordinates = np.arcsinh(np.array([min(low, 0.0), max(high, 0.0)]) / threshold)
        first, last = np.sinh(coordinates + np.array([-0.3, 0.3])) * threshold
        return cls(low=float(first), high=float(last), threshold=threshold)

    @property
    def edges(self) -> Array:
        """The edges of the bars."""
        first, last = np.arcsinh(np.array([self.low, self.high]) / self.threshold)
        step = (last - first) / BINS
        return np.sinh(np.arange(np.floor(first / step), np.ceil(last / step) + 1) * step) * self.threshold


def _half_weight(spectrum: SpectralDensity) -> float:
    """Return the median |eigenvalue| of those that are not zero."""
    size = np.abs(spectrum.nodes)
    order = np.argsort(size)
    seen = np.where(size > _zero(spectrum), spectrum.weights, 0.0)[order].cumsum()
    return float(size[order][np.searchsorted(seen, seen[-1] / 2)]) if seen[-1] > 0 else 0.0


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """The spectra of one series, one per seed, and how it is drawn."""

    series: Series
    spectra: list[SpectralDensity]

    @classmethod
    def of(cls, one: Series) -> "Spectrum":
        """Return the spectra of a series of quadratures."""
        by_seed = one.frame.groupby("checkpoint", sort=False)
        return cls(series=one, spectra=[SpectralDensity.from_frame(rows) for _, rows in by_seed])

    def band(self, curve: Callable[[SpectralDensity], Band]) -> Band:
        """Return the curve of the one spectrum, or the mean and one standard deviation over seeds."""
        bands = [curve(spectrum) for spectrum in self.spectra]
        if len(bands) == 1:
            return bands[0]
        values = np.stack([band.value for band in bands])
        mean, spread = values.mean(0), values.std(0, ddof=1)
        return Band(grid=bands[0].grid, value=mean, low=mean - spread, high=mean + spread)

    def shares(self, edges: Array, *, stem: bool = False) -> Band:
        """Return the share of eigenvalues between each two edges, without the weight at zero if that is a ``stem``."""
        seen = _without_zero if stem else lambda single: single
        return self.band(lambda single: seen(single).shares(edges))

    def density(self, scale: Axis, along: Array) -> Band:
        """Return the share of eigenvalues for each decade of the axis at coordinates ``along``, through one Gaussian
        of :data:`KERNEL` in that coordinate, and the range over seeds; nothing beyond the outermost nodes of each."""

        def smooth(single: SpectralDensity) -> Array:
            places = np.arcsinh(single.nodes / scale.threshold)
            apart = (along[:, None] - places) / KERNEL
            weights = single.weights / (single.n_probes * KERNEL * np.sqrt(2 * np.pi))
            value: Array = np.log(10) * (np.exp(-(apart**2) / 2) @ weights)
            return np.where((along < places.min()) | (along > places.max()), 0.0, value)

        values = np.stack([smooth(single) for single in self.spectra])
        return Band(grid=along, value=values.mean(0), low=values.min(0), high=values.max(0))

    @property
    def nodes(self) -> Array:
        """The Ritz values of all seeds."""
        return np.concatenate([single.nodes for single in self.spectra])

    def facts(self) -> list[str]:
        """Return the shares below and at zero in words, means over seeds; limits where these are all we know: nodes
        beside zero may stand for zeros."""
        zero = [single.mass_at_zero() for single in self.spectra]
        if self.has_mass_at_zero:
            below = _mean_percent(single.share_below(-_zero(single)).value for single in self.spectra)
            return [f"{below} below 0", f"{_mean_percent(one.value for one in zero)} at 0"]
        limits = [_limits_below_zero(single) for single in self.spectra]
        low, high = (100 * float(np.mean([one[end] for one in limits])) for end in (0, 1))
        share = " to ".join(dict.fromkeys(f"{end:.0f}" if end >= 1 else f"{end:.1g}" for end in (low, high)))
        return [f"{share} % below 0", f"at 0: at most {_mean_percent(one.ci_high for one in zero)}"]

    @property
    def has_mass_at_zero(self) -> bool:
        """Whether zero is an eigenvalue, as far as the quadrature shows."""
        return all(single.mass_at_zero().value > 0 for single in self.spectra)


@styled
def spectrum(frame: DataFrame) -> Figure:
    """Draw the spectral density of the Hessian, one panel per rule or checkpoint, and all cumulative weights.

    Bars hold the weight of the quadrature's nodes, equally wide in the coordinate of the axis and the same for every
    panel; nothing is drawn where no node lies. The eigenvalue axis is logarithmic on both sides of zero, so that small
    negative eigenvalues are seen beside large positive ones. Weight at zero is a stem, not part of the bars.

    Args:
        frame: columns ``checkpoint, probe, node, weight, n_parameters``: the quadrature of every probe, whose
            weights sum to 1.

    Raises:
        InputError: a column is missing, or no node is finite.

    Example:
        >>> from pandas import DataFrame
        >>> from reports import figures
        >>> table = DataFrame({"checkpoint": "net", "probe": 0, "node": [-0.1, 0.0, 5.0], "weight": [0.1, 0.8, 0.1]})
        >>> len(figures.spectrum(table.assign(n_parameters=10)).axes) > 0
        True
    """
    require(frame, ["checkpoint", "probe", "node", "weight", "n_parameters"], table="spectrum")
    table = frame[np.isfinite(frame["node"]) & np.isfinite(frame["weight"])]
    if table.empty:
        raise InputError("spectrum has no finite node: the network diverged")
    spectra = [Spectrum.of(one) for one in series_of(table)]
    series = [one.series for one in spectra]
    scale = Axis.of(spectra)
    figure, panels, cumulative, columns = _panels(len(series))
    limits = share_limits(spectra, scale.edges)
    for index, (axes, one) in enumerate(zip(panels, spectra, strict=True)):
        _density_panel(axes, one, scale.edges, index, narrow=columns > 3)
        axes.set(yscale="log", ylim=limits, ylabel="" if index % columns else "share of eigenvalues (%)")
        axes.tick_params(labelleft=index % columns == 0)
        axes.set_xlabel("eigenvalue of the Hessian" if index + columns >= len(series) else "")
    layout.title(cumulative, "cumulative weight", len(series))
    _cumulative_panel(cumulative, spectra, scale)
    for axes in [*panels, cumulative]:
        wide = axes is cumulative and len(series) > 2
        eigenvalue_axis(axes, scale, share=0.09 if wide else 0.055 * columns)
    if len(series) > 1:
        layout.legend_above(figure, layout.handles(series, marker=False))
    layout.note(figure, _explanation(spectra, scale.threshold))
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


def _explanation(spectra: list[Spectrum], threshold: float) -> str:
    bands = layout.seeds_note([one.series for one in spectra], "95 % interval over probes", "Bands")
    arrow = " A vertical line with an arrow is the weight at zero." if any(s.has_mass_at_zero for s in spectra) else ""
    unsure = any(not s.has_mass_at_zero for s in spectra)
    unknown = " A range is what the nodes leave open: those beside zero may stand for zeros." if unsure else ""
    return (
        f"{bands} Bars: weight of the quadrature's nodes (ticks at the bottom), equally wide on the axis, which is "
        f"linear within ±{threshold:.1g}. Red: nodes below zero.{unknown}{arrow}"
    )


def _density_panel(axes: Axes, one: Spectrum, edges: Array, index: int, *, narrow: bool) -> None:
    draw_shares(axes, one, edges)
    base = axes.get_xaxis_transform()
    if one.has_mass_at_zero:
        axes.plot([0, 0], [0, 0.9], transform=base, color=GREY, linewidth=1.4)
        axes.plot([0], [0.9], "^", transform=base, color=GREY, markersize=4)
    layout.title(axes, f"{one.series.label}\n" + ("\n" if narrow else "; ").join(one.facts()), index)


def draw_densities(axes: Axes, spectra: Sequence[Spectrum], scale: Axis) -> None:
    """Draw smoothed spectra over each other, all through one kernel, and below them the Ritz values of each."""
    first, last = np.arcsinh(np.array([scale.low, scale.high]) / scale.threshold)
    along = np.linspace(first, last, 600)
    at, largest, least = np.sinh(along) * scale.threshold, 0.0, np.inf
    for place, one in enumerate(spectra):
        shown = 100 * _points(one.density(scale, along))
        shown = shown.where(shown > 0)  # a band ends where the first of the seeds does
        marks.line_with_band(axes, at, shown.clip(lower=INVISIBLE), one.series.look, marker="", linewidth=0.9)
        lowest = max(_smallest_peak(one), float(shown["value"].min()))
        largest, least = max(largest, float(shown["value"].max())), min(least, lowest)
        _rug(axes, one, one.series.look.colour, 0.015 + 0.025 * place)
    room = (largest / least) ** (0.04 * len(spectra))  # for the rugs
    axes.set(yscale="log", ylim=(least / (2 * room), 2 * largest))


def _smallest_peak(one: Spectrum) -> float:
    """Return the height of the smallest usual node in the smoothed curve, in percent a decade."""
    weights = np.concatenate([single.weights / single.n_probes for single in one.spectra]) / len(one.spectra)
    return 100 * np.log(10) * float(np.quantile(weights[weights > 1e-9], 0.05)) / (KERNEL * np.sqrt(2 * np.pi))


def _rug(axes: Axes, one: Spectrum, colour: str, height: float) -> None:
    ticks: dict[str, Any] = {"color": colour, "markersize": 3, "markeredgewidth": 0.3, "alpha": 0.5}
    axes.plot(one.nodes, np.full(len(one.nodes), height), "|", transform=axes.get_xaxis_transform(), **ticks)


def draw_shares(axes: Axes, one: Spectrum, edges: Array) -> None:
    """Draw the shares of one series as steps with their band, those below zero in red, and its Ritz values as a rug."""
    shown = 100 * _points(one.shares(edges, stem=one.has_mass_at_zero)).clip(lower=INVISIBLE / 100)
    colour = one.series.look.colour
    axes.stairs(shown["value"], edges, baseline=None, color=colour, linewidth=0.9)
    band: dict[str, Any] = {"fill": True, "color": colour, "alpha": 0.18, "linewidth": 0}
    axes.stairs(shown["high"], edges, baseline=shown["low"], **band)
    below = edges[:-1] < 0
    red: dict[str, Any] = {"fill": True, "color": _NEGATIVE, "alpha": 0.25, "linewidth": 0}
    axes.stairs(shown["value"][below], edges[: below.sum() + 1], baseline=INVISIBLE, **red)
    _rug(axes, one, GREY, 0.015)


def _cumulative_panel(axes: Axes, spectra: list[Spectrum], scale: Axis) -> None:
    axes.set(ylabel="share below (%)", ylim=(-2, 102), xlabel="eigenvalue of the Hessian")
    grid = np.unique(np.concatenate([scale.edges, *(_around(one.nodes) for one in spectra)]))
    for one in spectra:
        steps = one.band(functools.partial(_steps, grid))
        marks.line_with_band(axes, steps.grid, 100 * _points(steps), one.series.look, marker="", linewidth=1)


def _around(nodes: Array) -> Array:
    """Return places close to each node, between which shares below do not change."""
    room = 1e-6 * float(np.abs(nodes).max())
    return np.concatenate([nodes - room, nodes + room])


def _steps(grid: Array, spectrum: SpectralDensity) -> Band:
    """Return the share of eigenvalues below each grid point, not smoothed."""
    return spectrum.cumulative(grid, width=1e-9 * float(np.abs(spectrum.nodes).max()) or 1e-300)


def _points(band: Band) -> DataFrame:
    return DataFrame({"value": band.value, "low": band.low, "high": band.high})


def _mean_percent(shares: Iterable[float]) -> str:
    share = float(np.mean(list(shares)))
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.4g} %"


def _zero(spectrum: SpectralDensity) -> float:
    return ZERO * float(np.abs(spectrum.nodes).max())


def _limits_below_zero(spectrum: SpectralDensity) -> tuple[float, float]:
    """Return the least and the largest share below zero that the nodes allow, means over probes: all of a node may lie
    as far as the next one (Chebyshev, Markov and Stieltjes; Golub and Meurant 2010, section 6.4)."""
    low, high = 0.0, 0.0
    for probe in range(spectrum.n_probes):
        mine = np.argsort(spectrum.nodes[spectrum.probe == probe])
        nodes, weights = (array[spectrum.probe == probe][mine] for array in (spectrum.nodes, spectrum.weights))
        negative = int((nodes < 0).sum())
        low += float(weights[: max(negative - 1, 0)].sum())
        high += float(weights[: negative + 1].sum()) if negative else 0.0
    return low / spectrum.n_probes, high / spectrum.n_probes


def _without_zero(spectrum: SpectralDensity) -> SpectralDensity:
    """Return the spectrum without the weight that is drawn as a stem."""
    weights = np.where(np.abs(spectrum.nodes) > _zero(spectrum), spectrum.weights, 0.0)
    return replace(spectrum, weights=weights)


def share_limits(spectra: Sequence[Spectrum], edges: Array) -> tuple[float, float]:
    """Return y limits in percent that show the smallest usual bar and the largest."""
    shares = np.concatenate([one.shares(edges, stem=one.has_mass_at_zero).value for one in spectra])
    seen = shares[shares > 1e-9]
    if not len(seen):
        return 1e-3, 200.0
    return 50 * float(np.quantile(seen, 0.02)), 300 * float(seen.max())


def eigenvalue_axis(axes: Axes, scale: Axis, *, share: float) -> None:
    """Make the x axis logarithmic on both sides of zero, linear about it.

    It labels zero and powers of ten, the largest first, leaving out any nearer to another than ``share`` of the axis.
    """
    limits, threshold = (scale.low, scale.high), scale.threshold
    axes.set_xscale("asinh", linear_width=threshold)
    axes.set_xlim(*limits)
    ends = {1: limits[1], -1: -limits[0]}
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
