"""The Hessian spectrum from Lanczos quadrature: density with its band, negative part, point mass at zero.

The curves and their bands are :class:`landscape.density.SpectralDensity`'s; this file puts them on axes.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

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
SHARPNESS = 0.003
"""Standard deviation of the Gaussian as a share of the range: a third of the default for numbers, because on a
logarithmic axis the default is as wide as the bulk."""
INVISIBLE = 1e-300  # in place of zero on a logarithmic axis
_NEGATIVE = "#c62828"


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """The spectra of one series, one per seed, and how it is drawn.

    Attributes:
        sharpness: standard deviation of the Gaussian as a share of the range.
    """

    series: Series
    spectra: list[SpectralDensity]
    sharpness: float = SHARPNESS

    @classmethod
    def of(cls, one: Series, *, sharpness: float = SHARPNESS) -> "Spectrum":
        """Return the spectra of a series of quadratures."""
        by_seed = one.frame.groupby("checkpoint", sort=False)
        return cls(series=one, spectra=[SpectralDensity.from_frame(rows) for _, rows in by_seed], sharpness=sharpness)

    def band(self, curve: Callable[[SpectralDensity], Band]) -> Band:
        """Return the curve of the one spectrum, or the mean and one standard deviation over seeds."""
        bands = [curve(spectrum) for spectrum in self.spectra]
        if len(bands) == 1:
            return bands[0]
        values = np.stack([band.value for band in bands])
        mean, spread = values.mean(0), values.std(0, ddof=1)
        return Band(grid=bands[0].grid, value=mean, low=mean - spread, high=mean + spread)

    def density(self, grid: Array, *, stem: bool = False) -> Band:
        """Return the density over eigenvalues ``grid``, without the weight at zero if that is drawn as a ``stem``."""
        seen = _without_zero if stem else lambda single: single
        return self.band(lambda single: seen(single).density(grid, width=self.width_of(single)))

    def width_of(self, spectrum: SpectralDensity) -> float:
        """Return the Gaussian's width for one seed."""
        span = float(spectrum.nodes.max() - spectrum.nodes.min())
        return self.sharpness * (span or float(np.abs(spectrum.nodes).max()) or 1.0)

    @property
    def width(self) -> float:
        """The Gaussian's width, the narrowest of the seeds."""
        return min(map(self.width_of, self.spectra))

    def limits(self) -> tuple[float, float]:
        """Return the eigenvalues between which all of the density is."""
        nodes = np.concatenate([single.nodes for single in self.spectra])
        return float(nodes.min()) - 4 * self.width, float(nodes.max()) + 4 * self.width

    def grid(self, limits: tuple[float, float], threshold: float) -> Array:
        """Return eigenvalues dense enough for the axis near zero, for the Gaussian far from it, and for a jump at
        zero."""
        first, last = np.arcsinh(np.array(limits) / threshold)
        near = np.sinh(np.linspace(first, last, 400)) * threshold
        far = np.clip(np.arange(*self.limits(), self.width / 3), *limits)
        jump = max(map(_zero, self.spectra)) * np.array([-1.5, 0.0, 1.5])
        return np.unique(np.concatenate([near, far, jump]))

    def facts(self) -> list[str]:
        """Return the shares below and at zero in words, means over seeds; an upper limit where that is all we know."""
        below = _mean_percent(single.share_below(-self.width).value for single in self.spectra)
        zero = [single.mass_at_zero() for single in self.spectra]
        known, most = _mean_percent(one.value for one in zero), _mean_percent(one.ci_high for one in zero)
        share = f"{known} at 0" if self.has_mass_at_zero else f"at 0: at most {most}"
        return [f"{below} below {-self.width:.2g}", share]

    @property
    def has_mass_at_zero(self) -> bool:
        """Whether zero is an eigenvalue, as far as the quadrature shows."""
        return all(single.mass_at_zero().value > 0 for single in self.spectra)


@styled
def spectrum(frame: DataFrame) -> Figure:
    """Draw the spectral density of the Hessian, one panel per rule or checkpoint, and all cumulative weights.

    The eigenvalue axis is logarithmic on both sides of zero, linear within one Gaussian width of it, so that small
    negative eigenvalues are seen beside large positive ones. Weight at zero is a stem, not part of the density.

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
    limits, threshold = eigenvalue_range(spectra)
    figure, panels, cumulative, columns = _panels(len(series))
    floor, top = _density_limits(spectra)
    for index, (axes, one) in enumerate(zip(panels, spectra, strict=True)):
        _density_panel(axes, one, one.grid(limits, threshold), index, narrow=columns > 3)
        axes.set(yscale="log", ylim=(floor, top), ylabel="" if index % columns else "spectral density")
        axes.tick_params(labelleft=index % columns == 0)
        axes.set_xlabel("eigenvalue of the Hessian" if index + columns >= len(series) else "")
    layout.title(cumulative, "cumulative weight", len(series))
    _cumulative_panel(cumulative, spectra, limits, threshold)
    for axes in [*panels, cumulative]:
        wide = axes is cumulative and len(series) > 2
        eigenvalue_axis(axes, limits, threshold, share=0.09 if wide else 0.055 * columns)
    if len(series) > 1:
        layout.legend_above(figure, layout.handles(series, marker=False))
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
    bands = layout.seeds_note(series, "95 % interval over probes", "Bands")
    return (
        f"{bands} Gaussian width: {100 * SHARPNESS:g} % of the range; axis linear within ±{threshold:.1g}. "
        "Ticks at the bottom: quadrature nodes. Red: below zero. Stem, if any: zero, to a millionth of the largest."
    )


def _density_panel(axes: Axes, one: Spectrum, grid: Array, index: int, *, narrow: bool) -> None:
    shown = _points(one.density(grid, stem=one.has_mass_at_zero)).clip(lower=INVISIBLE)
    marks.line_with_band(axes, grid, shown, one.series.look, marker="", linestyle="-", linewidth=1)
    below = grid <= 0
    axes.fill_between(grid[below], INVISIBLE, shown["value"][below], color=_NEGATIVE, alpha=0.25, linewidth=0)
    base = axes.get_xaxis_transform()
    nodes = np.concatenate([single.nodes for single in one.spectra])
    height = np.full(len(nodes), 0.015)
    axes.plot(nodes, height, "|", transform=base, color=GREY, markersize=3, markeredgewidth=0.3, alpha=0.5)
    if one.has_mass_at_zero:
        axes.plot([0, 0], [0, 0.9], transform=base, color=GREY, linewidth=1.4)
        axes.plot([0], [0.9], "^", transform=base, color=GREY, markersize=4)
    layout.title(axes, f"{one.series.label}\n" + ("\n" if narrow else "; ").join(one.facts()), index)


def _cumulative_panel(axes: Axes, spectra: list[Spectrum], limits: tuple[float, float], threshold: float) -> None:
    axes.set(ylabel="share below (%)", ylim=(-2, 102), xlabel="eigenvalue of the Hessian")
    for one in spectra:
        steps = one.band(functools.partial(_steps, one, one.grid(limits, threshold)))
        marks.line_with_band(axes, steps.grid, 100 * _points(steps), one.series.look, marker="", linewidth=1)


def _steps(one: Spectrum, grid: Array, spectrum: SpectralDensity) -> Band:
    """Return the share of eigenvalues below each grid point, not smoothed."""
    return spectrum.cumulative(grid, width=1e-6 * one.width_of(spectrum))


def _points(band: Band) -> DataFrame:
    return DataFrame({"value": band.value, "low": band.low, "high": band.high})


def _mean_percent(shares: Iterable[float]) -> str:
    share = float(np.mean(list(shares)))
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.4g} %"


def _zero(spectrum: SpectralDensity) -> float:
    return ZERO * float(np.abs(spectrum.nodes).max())


def _without_zero(spectrum: SpectralDensity) -> SpectralDensity:
    """Return the spectrum without the weight that is drawn as a stem."""
    weights = np.where(np.abs(spectrum.nodes) > _zero(spectrum), spectrum.weights, 0.0)
    return replace(spectrum, weights=weights)


def _density_limits(spectra: list[Spectrum]) -> tuple[float, float]:
    """Return y limits that show single eigenvalues: from a fifth of the smallest usual peak to thrice the largest."""
    smallest, largest = [], []
    for owner, single in [(one, single) for one in spectra for single in one.spectra]:
        width = owner.width_of(single)
        peaks = single.weights / (single.n_probes * width * np.sqrt(2 * np.pi))
        smallest.append(float(np.quantile(peaks[peaks > peaks.max() * 1e-9], 0.02)))
        largest.append(float(_without_zero(single).density(single.nodes, width=width).value.max()))
    return min(smallest) / 5, max(*largest, 10 * min(smallest)) * 3


def eigenvalue_range(spectra: Sequence[Spectrum]) -> tuple[tuple[float, float], float]:
    """Return the ends of an axis that shows all spectra, and the width about zero within which it is linear."""
    threshold = min(one.width for one in spectra)
    low, high = (np.array([one.limits() for one in spectra]) * [-1, 1]).max(0)
    return (-max(low, 4 * threshold), max(high, 4 * threshold)), threshold


def eigenvalue_axis(axes: Axes, limits: tuple[float, float], threshold: float, *, share: float) -> None:
    """Make the x axis logarithmic on both sides of zero, linear within ``threshold`` of it.

    It labels zero and powers of ten, the largest first, leaving out any nearer to another than ``share`` of the axis.
    """
    axes.set_xscale("symlog", linthresh=threshold, linscale=0.6)
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
