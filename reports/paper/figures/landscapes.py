"""Figures 2, 5 and S10: trajectories, loss surfaces, spectra and curvature."""

from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from pandas import DataFrame

from reports.figures import layout, planes
from reports.figures.curvature import choose_scale, draw_over_epochs
from reports.figures.density import INVISIBLE, Spectrum, eigenvalue_axis, eigenvalue_range
from reports.figures.paths import draw_path, name_components
from reports.figures.series import Series, series_of
from reports.paper.figures import panels
from reports.paper.target import Drawn, Tables
from reports.style import DOUBLE, GREY, settings

WIDTH = 0.005  # of the Gaussian, as a share of the spectrum's range
_DENSITY_FLOOR = 1e-9  # of the largest density: below, a panel shows nothing


def _curvature(hessian: DataFrame) -> dict[str, DataFrame]:
    """Return the traces and the top eigenvalues by what their axis is called."""
    top = (hessian["quantity"] == "eigenvalue") & (hessian["index"] == 1)
    return {"Hessian trace": hessian[hessian["quantity"] == "trace"], "top Hessian eigenvalue": hessian[top]}


@settings()
def trajectories(tables: Tables) -> list[Drawn]:
    """Draw figure 2: the path of BP, FA and IFA in a plane of its own each, and curvature over epochs."""
    plane, hessian = tables["plane"], tables["hessian"]
    drawn: dict[str, DataFrame] = {}

    figure, axes = panels.mosaic("aabbcc;dddeee", 4.5, height_ratios=[1.15, 1])
    followed = series_of(tables["path"], along="epoch")
    grids = [planes.grid_of(plane[plane["checkpoint"] == one.frame["checkpoint"].iloc[0]]) for one in followed]
    scale = planes.common_scale(grids)
    for letter, one, grid in zip("abc", followed, grids, strict=False):
        contours = planes.draw_contours(axes[letter], grid, scale, colours=planes.GROUND)
        draw_path(axes[letter], one)
        name_components(axes[letter], one.frame)
        layout.title(axes[letter], one.label, letter)
        drawn[letter] = one.frame
    planes.colour_bar(figure, contours, [axes[letter] for letter in "abc"])
    for letter, (label, rows) in zip("de", _curvature(hessian).items(), strict=True):
        measured = series_of(rows, along="epoch")
        draw_over_epochs(axes[letter], measured, label)
        drawn[letter] = pd.concat([one.frame for one in measured], ignore_index=True).assign(quantity=label)
        layout.title(axes[letter], label.replace("Hessian ", ""), letter)
    note = "a-c: circle, start; star, end; axes: share of variance explained [and what a random walk would]. d, e: "
    note += layout.seeds_note(panels.legend_of(figure, hessian), "95 % interval", "bars")
    caption = "Each path in its own principal plane, over the training loss there."
    return panels.finished(figure, drawn, "Trajectories and curvature over training", caption, note=note)


@settings()
def curvature(tables: Tables) -> list[Drawn]:
    """Draw figure 5: surfaces of BP, IFA and FA, their spectra, trace and top eigenvalue against the angle."""
    spectrum, hessian = tables["spectrum"], tables["hessian"]
    columns = ["checkpoint", "rule", "angle", "seed", "value", "ci_low", "ci_high"]

    figure, axes = panels.mosaic("aabbcc;ddeeff", 4.5, height_ratios=[1.1, 1])
    upper = [axes[letter] for letter in "abc"]
    shown = planes.planes_of(tables["surface"])
    planes.colour_bar(figure, _surfaces(upper, shown, wide=3), upper)
    drawn = {letter: one.frame for letter, (one, _) in zip("abc", shown, strict=True)}
    three = spectrum[(spectrum["rule"] != "ifa") | (spectrum["angle"] == 0)]
    drawn["d"] = _density_panel(axes["d"], series_of(three))
    panels.titles(axes, d="spectral density", e="trace", f="top eigenvalue")
    for letter, (label, rows) in zip("ef", _curvature(hessian).items(), strict=True):
        drawn[letter] = panels.angle_panel(axes[letter], rows[columns], label)
        choose_scale(axes[letter], rows["value"], vertical=True)
    note = "a-c: training loss over the plane of the top two eigenvectors of one seed; cross: the network. "
    note += f"d: the first seed of each, Gaussian width {100 * WIDTH:g} % of the range. e, f: "
    note += layout.seeds_note(panels.legend_of(figure, spectrum), "95 % interval", "bars")
    note += f" {panels.tests_note(hessian)}"
    caption = "Flat minima have a small trace and a small top eigenvalue."
    return panels.finished(figure, drawn, "Landscape of the trained networks", caption, note=note)


def _surfaces(axes: list[Axes], shown: list[planes.Plane], *, wide: int) -> ScalarMappable:
    """Draw the surfaces, ``wide`` panels a row; return what a colour bar is of."""
    for place, (panel, (one, _)) in enumerate(zip(axes, shown, strict=True)):
        layout.title(panel, one.label, place)
        panel.set(xlabel="along v₁", ylabel="along v₂" if place % wide == 0 else "")
    return planes.draw_planes(axes, shown)


def _density_panel(axes: Axes, shown: list[Series], *, label: bool = True) -> DataFrame:
    """Draw the spectral density of each series (its first seed)."""
    rows = [one.frame[one.frame["checkpoint"] == one.frame["checkpoint"].iloc[0]] for one in shown]
    spectra = [Spectrum.of(replace(one, frame=own), sharpness=WIDTH) for one, own in zip(shown, rows, strict=True)]
    (low, high), threshold = eigenvalue_range(spectra)
    limits, top = (low, 1.15 * high), 0.0  # room for the last peak
    for one in spectra:
        curve = one.density(one.grid(limits, threshold))
        look = one.series.look.keywords(marker="", linewidth=0.9)
        axes.plot(curve.grid, np.maximum(curve.value, INVISIBLE), **look)
        top = max(top, float(curve.value.max()))
    axes.set(yscale="log", ylim=(top * _DENSITY_FLOOR, 5 * top), xlabel="eigenvalue", ylabel="density" if label else "")
    axes.axvline(0, color=GREY, linewidth=0.5)
    eigenvalue_axis(axes, limits, threshold, share=0.17)
    return pd.concat(rows, ignore_index=True)


@settings()
def surfaces_and_spectra(tables: Tables) -> list[Drawn]:
    """Draw figure S10: the surface and, below it, the spectrum of BP, IFA at every angle and FA."""
    shown, spectra = planes.planes_of(tables["surface"]), series_of(tables["spectrum"])

    rows, wide = layout.panel_grid(len(shown), most_columns=4)
    figure = Figure(figsize=(DOUBLE, 0.5 + 2.75 * rows))
    grid = figure.subplots(2 * rows, wide, squeeze=False, height_ratios=[1.25, 1] * rows)
    upper, lower = grid[::2].ravel().tolist(), grid[1::2].ravel().tolist()
    for axes in upper[len(shown) :] + lower[len(shown) :]:
        axes.set_visible(False)
    planes.colour_bar(figure, _surfaces(upper[: len(shown)], shown, wide=wide), upper[: len(shown)])
    for place, (axes, one) in enumerate(zip(lower, spectra, strict=False)):
        _density_panel(axes, [one], label=place % wide == 0)
    note = "Above: training loss over the plane of the top two eigenvectors, one colour scale; cross: the network. "
    note += f"Below: its spectral density, Gaussian width {100 * WIDTH:g} % of the range. One seed each."
    caption = "All surfaces share one colour scale."
    both = {name: tables[name] for name in ("surface", "spectrum")}
    return panels.finished(figure, both, "Surface and spectrum of every network", caption, note=note)
