"""Figures 2, 5 and S10: trajectories, loss surfaces, spectra and curvature."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from pandas import DataFrame

from reports.figures import layout, marks, planes
from reports.figures.curvature import choose_scale, draw_over_epochs
from reports.figures.density import KERNEL, Axis, Spectrum, draw_densities, eigenvalue_axis
from reports.figures.paths import draw_path, name_components
from reports.figures.series import over_seeds, series_of
from reports.paper.figures import panels
from reports.paper.target import Drawn, Tables
from reports.style import DOUBLE, GREY, settings

_ORDER = ("bp", "fa", "ifa")  # of the paths
_WIDE = 1.75  # of a panel among three, inches
_SHORT = {"length": "length", "chord": "chord", "ratio": "length /\nchord"}
_KERNEL = f"one Gaussian for all curves, {KERNEL / np.log(10):.2g} decades wide on the axis; cut at the outermost Ritz "
_KERNEL += "values (ticks); bands: range over seeds, where all have one"


def _curvature(hessian: DataFrame) -> dict[str, DataFrame]:
    """Return the traces and the top eigenvalues by what their axis is called."""
    top = (hessian["quantity"] == "eigenvalue") & (hessian["index"] == 1)
    return {"Hessian trace": hessian[hessian["quantity"] == "trace"], "top Hessian eigenvalue": hessian[top]}


@settings()
def trajectories(tables: Tables) -> list[Drawn]:
    """Draw figure 2: the path of BP, FA and IFA in a plane of its own each, curvature over epochs, and path lengths."""
    hessian = tables["hessian"]
    figure, axes = panels.mosaic("abc;def", 4.9)
    drawn = _paths(figure, [axes[letter] for letter in "abc"], tables["path"], tables["plane"])
    _fit_height(figure, axes["a"])
    for letter, (label, rows) in zip("de", _curvature(hessian).items(), strict=True):
        measured = series_of(rows, along="epoch")
        draw_over_epochs(axes[letter], measured, label)
        drawn[letter] = pd.concat([one.frame for one in measured], ignore_index=True).assign(quantity=label)
        layout.title(axes[letter], label.replace("Hessian ", ""), letter)
    drawn["f"] = _lengths(axes["f"], tables["lengths"])
    layout.title(axes["f"], "how long and how direct", "f")
    note = "a-c, one seed, on axes of one length: circle, start; star, end; share of variance explained [and what a "
    note += f"random walk would], from a sketch of every step. {_starts(drawn)} f: from checkpoint to checkpoint. d-f: "
    note += layout.seeds_note(panels.legend_of(figure, hessian), "95 % interval", "bars")
    caption = "Each path in its own principal plane, over the training loss there, in colours of its own."
    return panels.finished(figure, drawn, "Trajectories and curvature over training", caption, note=note)


def _paths(figure: Figure, axes: Sequence[Axes], path: DataFrame, plane: DataFrame) -> dict[str, DataFrame]:
    """Draw the path of each rule in a panel, all on axes of one length, each over its own loss."""
    followed = sorted(series_of(path, along="epoch"), key=lambda one: _ORDER.index(str(one.frame["rule"].iloc[0])))
    drawn = {}
    for letter, panel, one in zip("abc", axes, followed, strict=False):
        grid = planes.grid_of(plane[plane["checkpoint"] == one.frame["checkpoint"].iloc[0]])
        contours = planes.draw_contours(panel, grid, planes.common_scale([grid]), colours=planes.GROUND)
        planes.colour_bar(figure, contours, [panel], where="bottom")
        draw_path(panel, one)
        name_components(panel, one.frame)
        layout.title(panel, one.label, letter)
        drawn[letter] = one.frame
    _one_length(axes[: len(drawn)])
    return drawn


def _one_length(axes: Sequence[Axes]) -> None:
    """Give the axes of all panels one length and one unit, each about its own middle, so that distances can be
    compared."""
    ends = [(np.array(panel.get_xlim()), np.array(panel.get_ylim())) for panel in axes]
    wide, high = (max(float(np.ptp(one[axis])) for one in ends) / 2 for axis in (0, 1))
    for panel, (across, up) in zip(axes, ends, strict=True):
        panel.set(xlim=across.mean() + np.array([-wide, wide]), ylim=up.mean() + np.array([-high, high]))
        panel.set(aspect="equal", adjustable="box")


def _fit_height(figure: Figure, first: Axes) -> None:
    """Make the planes of the upper row as high as their axes of one unit need, and the figure with them."""
    across, up = (float(np.ptp(limits)) for limits in (first.get_xlim(), first.get_ylim()))
    upper, lower = float(np.clip(_WIDE * up / across, 0.6, 1.4 * _WIDE)), 1.2
    grid = first.get_gridspec()
    assert grid is not None
    grid.set_height_ratios([upper, lower])
    figure.set_figheight(upper + lower + 2.3)  # with labels, colour bars, legend and note


def _starts(drawn: dict[str, DataFrame]) -> str:
    """Say what the loss of the plane is where training starts, against that of the weights themselves."""
    first = {letter: rows.sort_values("step").iloc[0] for letter, rows in drawn.items() if letter in "abc"}
    texts = [f"{letter} {row['plane_loss']:.2g} ({row['loss']:.2g})" for letter, row in first.items()]
    return f"Loss of the plane at the start (and of the weights, which lie off it): {', '.join(texts)}."


def _lengths(axes: Axes, lengths: DataFrame) -> DataFrame:
    """Draw length, chord and their ratio of each rule, side by side."""
    series = series_of(lengths)
    for (place, name), (order, one) in itertools.product(enumerate(_SHORT), enumerate(series)):
        at = place + 0.22 * (order - (len(series) - 1) / 2)
        points = over_seeds(one.frame.assign(place=0), "place", name)
        marks.points_with_bars(axes, at, points, one.look, linestyle="")
    axes.set_xticks(range(len(_SHORT)), list(_SHORT.values()))
    axes.set(yscale="log", ylabel="distance; ratio", xlim=(-0.6, len(_SHORT) - 0.4))
    for formatted in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        formatted("{x:g}")
    axes.grid(axis="x", visible=False)
    return lengths.melt([name for name in lengths if name not in _SHORT], list(_SHORT), "quantity", "value")


@settings()
def curvature(tables: Tables, *, split: str) -> list[Drawn]:
    """Draw figure 5: surfaces of BP, IFA at some angles and FA, their spectra, trace and top eigenvalue against the
    angle."""
    spectrum, hessian = tables["spectrum"], tables["hessian"]
    columns = ["checkpoint", "rule", "angle", "seed", "value", "ci_low", "ci_high"]

    shown = planes.planes_of(tables["surface"])
    upper = [layout.letter(place) for place in range(len(shown))]
    d, e, f = (layout.letter(len(shown) + place) for place in range(3))
    figure = Figure(figsize=(DOUBLE, 4.4))
    parts: Any = figure.subfigures(2, 1, height_ratios=[1, 1.35])
    above = layout.panels(parts[0], len(shown), 1, len(shown))
    planes.colour_bar(parts[0], _surfaces(above, shown, wide=len(shown)), above)
    axes = parts[1].subplot_mosaic(d + e + f)
    drawn = {letter: one.frame for letter, (one, _) in zip(upper, shown, strict=True)}
    of_shown = spectrum.merge(tables["surface"][["rule", "angle"]].drop_duplicates(), on=["rule", "angle"])
    spectra = [Spectrum.of(one) for one in series_of(of_shown)]
    _density_panel(axes[d], spectra, Axis.of(spectra))
    drawn[d] = of_shown
    panels.titles(axes, **{d: "spectral density", e: "trace", f: "top eigenvalue"})
    for letter, (label, rows) in zip((e, f), _curvature(hessian).items(), strict=True):
        drawn[letter] = panels.angle_panel(axes[letter], rows[columns], label)
        choose_scale(axes[letter], rows["value"], vertical=True)
    note = f"{upper[0]}-{upper[-1]}: {_loss_of(split)}; cross: the network. {d}: {_KERNEL}. {d}-{f}: "
    note += layout.seeds_note(panels.legend_of(figure, spectrum), "95 % interval", "bars")
    note += f" {panels.tests_note(hessian)}"
    caption = "Where the loss is flatter, the trace and the top eigenvalue of its Hessian are smaller."
    return panels.finished(figure, drawn, "Landscape of the trained networks", caption, note=note)


def _loss_of(split: str) -> str:
    name = {"test": "test", "train": "training"}[split]
    return f"{name} loss over the plane of the top two eigenvectors of its Hessian, one seed, one colour scale"


def _surfaces(axes: list[Axes], shown: list[planes.Plane], *, wide: int) -> ScalarMappable:
    """Draw the surfaces, ``wide`` panels a row; return what a colour bar is of."""
    for place, (panel, (one, _)) in enumerate(zip(axes, shown, strict=True)):
        layout.title(panel, one.label, place)
        panel.set(xlabel="along v₁", ylabel="along v₂" if place % wide == 0 else "")
        panel.tick_params(labelleft=place % wide == 0)
        panel.xaxis.set_major_locator(MaxNLocator(2))
        panel.yaxis.set_major_locator(MaxNLocator(2))
        panel.set_aspect("equal")
    return planes.draw_planes(axes, shown)


def _density_panel(axes: Axes, spectra: Sequence[Spectrum], scale: Axis, *, label: bool = True) -> None:
    """Draw the spectra of all seeds of each series: mean, band, and every Ritz value."""
    draw_densities(axes, spectra, scale)
    axes.set(xlabel="eigenvalue", ylabel="share (% a decade)" if label else "")
    axes.axvline(0, color=GREY, linewidth=0.5)
    eigenvalue_axis(axes, scale, share=0.17)


@settings()
def surfaces_and_spectra(tables: Tables, *, split: str) -> list[Drawn]:
    """Draw figure S10: the surface and, below it, the spectrum of BP, IFA at every angle and FA."""
    shown = planes.planes_of(tables["surface"])
    spectra = [Spectrum.of(one) for one in series_of(tables["spectrum"])]

    rows, wide = layout.panel_grid(len(shown), most_columns=4)
    figure = Figure(figsize=(DOUBLE, 0.5 + 2.75 * rows))
    grid = figure.subplots(2 * rows, wide, squeeze=False, height_ratios=[1.25, 1] * rows)
    upper, lower = grid[::2].ravel().tolist(), grid[1::2].ravel().tolist()
    for axes in upper[len(shown) :] + lower[len(shown) :]:
        axes.set_visible(False)
    planes.colour_bar(figure, _surfaces(upper[: len(shown)], shown, wide=wide), upper[: len(shown)])
    scale = Axis.of(spectra)
    for place, (axes, one) in enumerate(zip(lower, spectra, strict=False)):
        _density_panel(axes, [one], scale, label=place % wide == 0)
    ends = [axes.get_ylim() for axes, _ in zip(lower, spectra, strict=False)]
    for axes in lower[: len(spectra)]:
        axes.set_ylim(min(low for low, _ in ends), max(high for _, high in ends))
    note = f"Above: {_loss_of(split)}; cross: the network. Below: its spectrum, all seeds; {_KERNEL}."
    caption = "All surfaces share one colour scale, all spectra the same axes."
    both = {name: tables[name] for name in ("surface", "spectrum")}
    return panels.finished(figure, both, "Surface and spectrum of every network", caption, note=note)
