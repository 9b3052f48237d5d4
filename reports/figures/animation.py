"""The training trajectory as a moving picture: the path grows over the loss while the loss falls beside it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
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
from reports.figures.series import require, series_of
from reports.raster import palette_of, picture

Array = NDArray[np.float64]
_SIZE = (style.DOUBLE, 3.0)  # inches
_DPI = 110


@dataclass(frozen=True)
class _Growing:
    """Numbers of one run over its steps, and the artists that show them up to a step: all so far, and the last."""

    steps: Array
    x: Array
    y: Array
    line: Line2D
    head: Line2D | None = None

    def move(self, step: float) -> None:
        """Show the run up to ``step``, between snapshots on the straight line."""
        seen = self.steps <= step
        x, y = (float(np.interp(step, self.steps, values)) for values in (self.x, self.y))
        self.line.set_data(np.append(self.x[seen], x), np.append(self.y[seen], y))
        if self.head is not None:
            self.head.set_data([x], [y])


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

    Example:
        >>> import tempfile
        >>> from pandas import DataFrame
        >>> from reports import figures
        >>> path = DataFrame({"step": [0, 5, 9], "alpha": [2.0, 1.0, 0.0], "beta": [0.0, 1.0, 0.0], "off_plane": 0.1})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     figures.trajectory_gif(path.assign(checkpoint="net"), None, f"{folder}/path.gif", frames=2).name
        'path.gif'
    """
    require(path, ["checkpoint", "step", "alpha", "beta"], table="trajectory")
    if frames < 2 or not seconds > 0:
        raise InputError("an animation needs at least 2 frames and a positive duration")
    with style.settings():
        figure, growing, clock = _stage(path, surface)
        canvas = FigureCanvasAgg(figure)
        figure.set_dpi(_DPI)
        canvas.draw()
        moving = [artist for one in growing for artist in (one.line, one.head) if artist is not None]
        background = canvas.copy_from_bbox(figure.bbox)
        pictures = []
        steps = np.linspace(path["step"].min(), path["step"].max(), frames)
        for done, step in enumerate(steps):
            canvas.restore_region(background)
            for one in growing:
                one.move(float(step))
            clock.set_text(f"step {step:.0f}")
            for artist in (*moving, clock):
                figure.draw_artist(artist)
            pictures.append(picture(canvas))
            if progress is not None:
                progress(done + 1, frames)
    return _write(pictures, Path(file), seconds)


def _stage(path: DataFrame, surface: DataFrame | None) -> tuple[Figure, list[_Growing], Text]:
    """Return the figure without what moves, what grows, and the text of the clock."""
    series = series_of(path, along="epoch")
    has_loss = "loss" in path and bool(path["loss"].notna().any())
    figure = Figure(figsize=_SIZE if has_loss else (3.6, _SIZE[1]))
    plane, *beside = figure.subplots(1, 1 + has_loss, squeeze=False)[0]
    if surface is None:
        plane.set(xlim=_ends(path["alpha"]), ylim=_ends(path["beta"]))
    else:
        draw_ground(plane, surface)
    name_components(plane, path)
    layout.title(plane, "PCA plane", 0 if has_loss else None)
    for axes in beside:
        axes.set(xlabel="optimiser step", ylabel="loss", xlim=_ends(path["step"]), ylim=_ends(path["loss"]))
        layout.title(axes, "loss", 1)
    layout.legend_above(figure, layout.handles(series, marker=False))
    clock = plane.text(0.98, 0.02, "", transform=plane.transAxes, ha="right", va="bottom", animated=True)
    clock.set_bbox({"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 2})
    runs = [(one.look, rows) for one in series for _, rows in one.frame.groupby("checkpoint", sort=False)]
    return figure, [one for look, rows in runs for one in _growing(look, rows, plane, beside)], clock


def _ends(values: ArrayLike) -> tuple[float, float]:
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    room = 0.06 * (np.ptp(finite) or 1.0)
    return float(finite.min() - room), float(finite.max() + room)


def _growing(look: style.Look, rows: DataFrame, plane: Axes, beside: list[Axes]) -> Iterator[_Growing]:
    rows = rows.sort_values("step", kind="stable")
    steps, alpha, beta = (rows[name].to_numpy(float) for name in ("step", "alpha", "beta"))
    (path,) = plane.plot([], [], color=look.colour, linewidth=1.6, animated=True)
    (head,) = plane.plot([], [], "o", color=look.colour, markeredgecolor="white", markersize=6, animated=True)
    yield _Growing(steps, alpha, beta, path, head)
    for axes in beside:
        (curve,) = axes.plot([], [], **look.keywords(marker="", animated=True))
        yield _Growing(steps, steps, rows["loss"].to_numpy(float), curve)


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
