"""One image under every corruption and severity, side by side."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from alignscape.errors import InputError
from reports.figures import layout, marks
from reports.style import DOUBLE, styled


@styled
def contact_sheet(
    images: Mapping[str, NDArray[np.uint8]],
    severities: Sequence[int],
    *,
    categories: Mapping[str, str] | None = None,
    clean: NDArray[np.uint8] | None = None,
) -> Figure:
    """Draw a column of thumbnails for each corruption and a row for each severity.

    Args:
        images: for each corruption the image at each severity, (S, H, W, C) uint8 with C of 1 or 3.
        severities: the S severities.
        categories: of the corruptions, written above neighbours that share one.
        clean: the image itself, (H, W, C), as a first row.

    Raises:
        InputError: nothing to draw, or a corruption without one image a severity.
    """
    for name, stack in images.items():
        if stack.ndim != 4 or len(stack) != len(severities):
            raise InputError(f"{name} has images {stack.shape}; the sheet needs {len(severities)} of (H, W, C)")
    if not images:
        raise InputError("there are no corruptions to draw")
    labels = ([] if clean is None else ["clean"]) + [str(severity) for severity in severities]
    figure, grid = _grid(len(labels), len(images))
    for column, (name, stack) in enumerate(images.items()):
        shown = stack if clean is None else np.concatenate([clean[None], stack])
        for axes, picture in zip(grid[:, column], shown, strict=True):
            marks.picture(axes, picture)
            axes.set(xticks=[], yticks=[])
            axes.grid(False)
            axes.spines[:].set_visible(False)
        grid[0, column].set_title(layout.words(name), rotation=90, fontsize=6)
    for axes, label in zip(grid[:, 0], labels, strict=True):
        axes.set_ylabel(label, rotation=0, ha="right", va="center", labelpad=3)
    figure.supylabel("severity", x=0.01, y=(grid[-1, 0].get_position().y0 + grid[0, 0].get_position().y1) / 2)
    if categories is not None:
        _group(grid[-1], [categories.get(name, "") for name in images])
    return figure


def _grid(rows: int, columns: int) -> tuple[Figure, NDArray[np.object_]]:
    """Return a figure of equal squares that nearly touch, with room for the names around them."""
    left, top, bottom, right = 0.5, 0.95, 0.22, 0.05  # inches
    size = (DOUBLE - left - right) / max(columns, 8)
    width, height = left + right + size * columns, top + bottom + size * rows
    figure = Figure(figsize=(width, height))
    figure.set_layout_engine("none")
    edges = {"left": left / width, "right": 1 - right / width, "bottom": bottom / height, "top": 1 - top / height}
    grid = figure.subplots(rows, columns, squeeze=False, gridspec_kw={**edges, "wspace": 0.04, "hspace": 0.04})
    return figure, grid


def _group(bottom: NDArray[np.object_], categories: Sequence[str]) -> None:
    """Write each category once, under the middle of the columns that have it."""
    for category, columns in itertools.groupby(range(len(categories)), key=categories.__getitem__):
        alike = list(columns)
        bottom[alike[(len(alike) - 1) // 2]].set_xlabel(layout.plain(category))
