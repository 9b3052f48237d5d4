"""The training trajectory as a moving picture: the path grows over the loss while the loss falls beside it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from numpy.typing import ArrayLike, NDArray
from pandas import DataFrame
from PIL import Image

from alignscape.errors import InputError
from alignscape.files import atomic_path
from reports import style
from reports.figures import layout
from reports.figures.paths import name_components
from reports.figures.planes import draw_ground
from reports.figures.series import Series, require, series_of
from reports.raster import palette_of, picture

Array = NDArray[np.float64]
_SIZE = (style.DOUBLE, 3.0)  # inches
_DPI = 110


@dataclass(frozen=True, kw_only=True)
class _Runner:
    """One run on its way: its numbers and the lines that follow it."""

    steps: Array
    alpha: Array
    beta: Array
    loss: Array | None
    path: Line2D
    head: Line2D
    curve: Line2D | None

    def move(self, step: float) -> None:
        """Show the run up to ``step``, between snapshots on the straight line."""
        seen = self.steps <= step
        here = [float(np.interp(step, self.steps, values)) for values in (self.alpha, self.beta)]
        self.path.set_data(np.append(self.alpha[seen], here[0]), np.append(self.beta[seen], here[1]))
        self.head.set_data([here[0]], [here[1]])
        if self.curve is not None and self.loss is not None:
            now = min(step, float(self.steps[-1]))
            level = float(np.interp(now, self.steps, self.loss))
            self.curve.set_data(np.append(self.steps[seen], now), np.append(self.loss[seen], level))


def trajectory_gif(
    path: DataFrame,
    surface: DataFrame | None,
    file: str | Path,
    *,
    frames: int = 60,
    seconds: float = 6.0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a GIF that replays training in its PCA plane; it runs for ever, with a rest at the end.

    Args:
        path: as for :func:`reports.figures.trajectory`; all runs in one plane.
        surface: ``alpha, beta, loss`` of that plane; None leaves the ground white.
        file: where to write it; it appears whole or not at all.
        frames: number of pictures, at even steps of training.
        seconds: duration without the rest.
        progress: called with (pictures done, pictures in all).

    Raises:
        InputError: a column is missing, ``frames`` is below 2, or ``seconds`` is not positive.
    """
    require(path, ["checkpoint", "step", "alpha", "beta"], table="trajectory")
    if frames < 2 or not seconds > 0:
        raise InputError("an animation needs at least 2 frames and a positive duration")
    with style.settings():
        figure, runners, clock = _stage(path, surface)
        canvas = FigureCanvasAgg(figure)
        figure.set_dpi(_DPI)
        canvas.draw()
        moving: list[Artist] = [artist for runner in runners for artist in _artists(runner)]
        moving.append(clock)
        background = canvas.copy_from_bbox(figure.bbox)
        pictures = []
        steps = np.linspace(path["step"].min(), path["step"].max(), frames)
        for done, step in enumerate(steps):
            canvas.restore_region(background)
            for runner in runners:
                runner.move(float(step))
            clock.set_text(f"step {step:.0f}")
            for artist in moving:
                figure.draw_artist(artist)
            pictures.append(picture(canvas))
            if progress is not None:
                progress(done + 1, frames)
    return _write(pictures, Path(file), seconds)


def _stage(path: DataFrame, surface: DataFrame | None) -> tuple[Figure, list[_Runner], Text]:
    """Return the figure without what moves, the runs, and the text of the clock."""
    series = series_of(path, along="epoch")
    has_loss = "loss" in path and bool(path["loss"].notna().any())
    figure = Figure(figsize=_SIZE if has_loss else (3.6, _SIZE[1]))
    axes = figure.subplots(1, 1 + has_loss, squeeze=False)[0]
    plane = axes[0]
    if surface is None:
        plane.set(xlim=_ends(path["alpha"]), ylim=_ends(path["beta"]))
    else:
        draw_ground(plane, surface)
    name_components(plane, path)
    layout.title(plane, "PCA plane", 0 if has_loss else None)
    if has_loss:
        axes[1].set(xlabel="optimiser step", ylabel="loss", xlim=_ends(path["step"]), ylim=_ends(path["loss"]))
        layout.title(axes[1], "loss", 1)
    layout.legend_above(figure, layout.handles(series, marker=False))
    clock = plane.text(0.98, 0.02, "", transform=plane.transAxes, ha="right", va="bottom", animated=True)
    clock.set_bbox({"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 2})
    runners = [
        _runner(one, rows, plane, axes[1] if has_loss else None)
        for one in series
        for _, rows in one.frame.groupby("checkpoint", sort=False)
    ]
    return figure, runners, clock


def _ends(values: ArrayLike) -> tuple[float, float]:
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    room = 0.06 * (np.ptp(finite) or 1.0)
    return float(finite.min() - room), float(finite.max() + room)


def _runner(one: Series, rows: DataFrame, plane: Axes, beside: Axes | None) -> _Runner:
    rows = rows.sort_values("step", kind="stable")
    look = one.look
    (path,) = plane.plot([], [], color=look.colour, linewidth=1.6, animated=True)
    (head,) = plane.plot([], [], "o", color=look.colour, markeredgecolor="white", markersize=6, animated=True)
    curve = None
    if beside is not None:
        (curve,) = beside.plot([], [], **look.keywords(marker="", animated=True))
    steps, alpha, beta = (rows[name].to_numpy(float) for name in ("step", "alpha", "beta"))
    loss = rows["loss"].to_numpy(float) if beside is not None else None
    return _Runner(steps=steps, alpha=alpha, beta=beta, loss=loss, path=path, head=head, curve=curve)


def _artists(runner: _Runner) -> list[Artist]:
    return [artist for artist in (runner.path, runner.head, runner.curve) if artist is not None]


def _write(pictures: list[Image.Image], file: Path, seconds: float) -> Path:
    """Write all pictures with the palette of the last one, which has every colour."""
    palette = palette_of(pictures[-1], colours=128)
    indexed = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in pictures]
    each = max(20, round(1000 * seconds / len(pictures)))
    durations = [each] * (len(pictures) - 1) + [2000]
    with atomic_path(file) as temporary:
        indexed[0].save(
            temporary, format="GIF", save_all=True, append_images=indexed[1:], duration=durations, loop=0, disposal=1
        )
    return file
