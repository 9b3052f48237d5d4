"""Panels, legends and notes that no figure should have to arrange again."""

import math
import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from reports.figures.series import Series
from reports.style import GREY

_CHARACTER = 0.058  # mean width of a legend character, inches
_HANDLE = 0.55  # width of a legend handle and its padding, inches


def letter(index: int) -> str:
    """Return ``a, b, ..., z, aa, ab, ...``."""
    return (letter(index // 26 - 1) if index >= 26 else "") + chr(ord("a") + index % 26)


def title(axes: Axes, text: str, index: int | str | None = None) -> None:
    """Title a panel at its left, with a bold letter (or that of its place) if it is one of several."""
    axes.set_title(titled(text, index), loc="left")


def titled(text: str, index: int | str | None) -> str:
    """Return ``text`` behind the bold letter of panel ``index``, if it has one."""
    text, bold = plain(text), letter(index) if isinstance(index, int) else index
    return text if bold is None else rf"$\bf{{{bold}}}$  {text}"


def plain(text: str) -> str:
    """Return ``text`` with nothing that matplotlib would read as mathematics."""
    return text.replace("$", r"\$")


def panel_grid(count: int, *, most_columns: int) -> tuple[int, int]:
    """Return (rows, columns) for ``count`` panels with few empty places."""
    columns = min(count, most_columns)
    rows = math.ceil(count / columns)
    return rows, math.ceil(count / rows)


def panels(figure: Figure | SubFigure, count: int, rows: int, columns: int, **options: Any) -> list[Axes]:
    """Return the axes of ``count`` panels, row by row; places of the grid that are left over stay empty.

    Args:
        options: of ``Figure.subplots``, e.g. ``sharey=True``.
    """
    grid = figure.subplots(rows, columns, squeeze=False, **options).ravel().tolist()
    for axes in grid[count:]:
        axes.set_visible(False)
    return list(grid[:count])


def words(name: str) -> str:
    """Return a name of the tables as text: ``gaussian_noise`` as *gaussian noise*."""
    return plain(name.replace("_", " "))


def names(series: Sequence[Series]) -> list[str]:
    """Return the names of series, with the number of seeds where it is not the same for all."""
    counts = {one.checkpoints for one in series}
    return [
        plain(one.label if len(counts) == 1 or one.checkpoints == 1 else f"{one.label} ({one.checkpoints} seeds)")
        for one in series
    ]


def handles(series: Sequence[Series], *, marker: bool = True) -> list[Line2D]:
    """Return a legend entry for every series."""
    without = {} if marker else {"marker": ""}
    return [
        Line2D([], [], **one.look.keywords(label=name, **without))
        for one, name in zip(series, names(series), strict=True)
    ]


def legend_above(figure: Figure, entries: Sequence[Line2D]) -> None:
    """Put one legend above all panels, in as many columns as the figure is wide."""
    longest = max((len(str(entry.get_label())) for entry in entries), default=0)
    width = figure.get_size_inches()[0]
    columns = max(1, min(len(entries), int(width / (_HANDLE + _CHARACTER * longest))))
    rows = math.ceil(len(entries) / columns)
    columns = math.ceil(len(entries) / rows)
    if entries:
        figure.legend(handles=list(entries), loc="outside upper center", ncols=columns)


def note(figure: Figure, text: str) -> None:
    """Write below all panels what bars, bands and marks mean, if anything has to be said."""
    lines = textwrap.wrap(text.strip(), int(figure.get_size_inches()[0] / 0.0475))
    if lines:
        figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=6, color=GREY)


def seeds_note(series: Sequence[Series], single: str = "", noun: str = "Bands and bars") -> str:
    """Say what the error bars (or bands) of these series are."""
    several = any(one.checkpoints > 1 for one in series)
    alone = any(one.checkpoints == 1 for one in series)
    parts = []
    if several:
        counts = {one.checkpoints for one in series}
        seeds = "seeds" if len(counts) > 1 else f"{counts.pop()} seeds"
        parts.append(f"{noun}: mean ± one standard deviation over {seeds}{' where there are several' if alone else ''}")
    if alone and single:
        parts.append(f"{'otherwise' if several else noun + ':'} {single}")
    return ("; ".join(parts) + ".") if parts else ""


def whole_numbers(axes: Axes) -> None:
    """Tick the x axis at whole numbers only (epochs, steps, severities)."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
