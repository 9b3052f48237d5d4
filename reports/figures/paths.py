"""The path that training took, in a plane of weights, over the loss there."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from pandas import DataFrame

from reports.figures import layout
from reports.figures.planes import GROUND, colour_bar, common_scale, draw_contours, grid_of
from reports.figures.series import Series, require, series_of
from reports.style import DOUBLE, styled

_OFF_PLANE = "‖θ − projection‖"  # noqa: RUF001


@styled
def trajectory(path: DataFrame, surface: DataFrame | None = None) -> Figure:
    """Draw the path of training in its PCA plane over the loss, how far it lies off the plane, and the losses.

    Args:
        path: columns ``checkpoint, step, alpha, beta, off_plane, loss, plane_loss``, one row per snapshot, in order;
            ``off_plane`` in units of weight distance. If present, ``explained_1, explained_2`` (shares of variance)
            and ``random_walk_1, random_walk_2`` (shares that a random walk of the same length has) go to the axes.
        surface: columns ``checkpoint, alpha, beta, loss``; a checkpoint of its own is a plane of its own, and one
            that is named otherwise (or no name) is the common plane of all paths.

    Raises:
        InputError: a column is missing or the table is empty.

    Example:
        >>> from pandas import DataFrame
        >>> from reports import figures
        >>> path = DataFrame({"step": [0, 5, 9], "alpha": [2.0, 1.0, 0.0], "beta": [0.0, 1.0, 0.0], "off_plane": 0.1})
        >>> figure = figures.trajectory(path.assign(checkpoint="net", loss=[2.0, 1.0, 0.5], plane_loss=[2.0, 1.0, 0.5]))
        >>> len(figure.axes) > 1
        True
    """
    require(path, ["checkpoint", "step", "alpha", "beta"], table="trajectory")
    series = series_of(path, along="epoch")
    grounds = _grounds(path, surface)
    planes = [[one for one in series if _ground_of(one, grounds) == name] for name in grounds] if grounds else [series]
    planes = [group for group in planes if group]
    names = [_ground_of(group[0], grounds) for group in planes]
    extra = [name for name in ("off_plane", "loss") if name in path and path[name].notna().any()]
    lettered = len(planes) + len(extra) > 1
    figure, upper, lower, bar_at = _places(len(planes), len(extra))
    tables = [grid_of(grounds[name]) for name in names if name is not None]
    scale = common_scale(tables) if tables else None
    drawn = None
    for index, (group, name, axes) in enumerate(zip(planes, names, upper, strict=True)):
        if name is not None and scale is not None:
            drawn = draw_contours(axes, grid_of(grounds[name]), scale, colours=GROUND)
        for one in group:
            draw_path(axes, one)
        name_components(axes, group[0].frame)
        layout.title(axes, group[0].label if len(planes) > 1 else "PCA plane", index if lettered else None)
    if drawn is not None:
        colour_bar(figure if bar_at == "bottom" else upper[0].figure, drawn, upper, where=bar_at)
    for index, (column, axes) in enumerate(zip(extra, lower, strict=True)):
        _over_steps(axes, series, column)
        text = "distance from the plane" if column == "off_plane" else "loss on and off the plane"
        layout.title(axes, text, len(planes) + index)
    layout.legend_above(figure, layout.handles(series, marker=False))
    layout.note(figure, "Circle: start; star: end." + _plane_note(path, extra))
    return figure


def _plane_note(path: DataFrame, extra: list[str]) -> str:
    text = " Axes: share of variance explained." if "explained_1" in path else ""
    if "random_walk_1" in path:
        text += " In brackets: what a random walk of as many steps would explain."
    if "loss" in extra and "plane_loss" in path:
        text += " Full lines: loss of the weights themselves; thin lines: loss at their projection onto the plane."
    return text


def _places(planes: int, extra: int) -> tuple[Figure, list[Axes], list[Axes], str]:
    """Return the figure, an axes per plane, an axes per extra panel, and where the colour bar goes."""
    rows, wide = layout.panel_grid(planes, most_columns=3 if planes <= 9 else 4)
    if planes == 1 and extra:
        figure = Figure(figsize=(DOUBLE, 2.85))
        panels = figure.subplots(1, 1 + extra, width_ratios=[1.3] + [1.0] * extra)
        return figure, [panels[0]], list(panels[1:]), "bottom"
    height = (2.2 if wide < 4 else 1.7) * rows
    figure = Figure(figsize=(DOUBLE if wide > 1 else 3.6, height + 0.5 + 1.7 * bool(extra)))
    parts = figure.subfigures(1 + bool(extra), 1, height_ratios=[height, 1.7][: 1 + bool(extra)], squeeze=False)
    upper = layout.panels(parts[0, 0], planes, rows, wide)
    lower = layout.panels(parts[1, 0], extra, 1, extra) if extra else []
    return figure, upper, lower, "right"


def draw_path(axes: Axes, one: Series) -> None:
    """Draw the path of every checkpoint of a series: circle at its start, star at its end."""
    for _, rows in one.frame.groupby("checkpoint", sort=False):
        rows = rows.sort_values("step", kind="stable")
        alpha, beta = rows["alpha"].to_numpy(float), rows["beta"].to_numpy(float)
        axes.plot(alpha, beta, linewidth=3, alpha=0.9, color="white", solid_capstyle="round")
        axes.plot(alpha, beta, **one.look.keywords(marker="", linewidth=1.3))
        dots = slice(None, None, max(1, len(alpha) // 25))
        axes.plot(alpha[dots], beta[dots], ".", color=one.look.colour, markersize=3, markeredgecolor="white",
                  markeredgewidth=0.3)  # fmt: skip
        axes.plot(alpha[0], beta[0], "o", color=one.look.colour, markeredgecolor="white", markersize=5.5)
        axes.plot(alpha[-1], beta[-1], "*", color=one.look.colour, markeredgecolor="white", markersize=9)


def name_components(axes: Axes, rows: DataFrame) -> None:
    """Name the axes of a PCA plane, with the variance that each explains [and a random walk's]."""
    labels = []
    for component in (1, 2):
        text = f"PC {component}"
        share, walk = (rows.get(f"{name}_{component}") for name in ("explained", "random_walk"))
        if share is not None and pd.notna(share.iloc[0]):
            text += f": {100 * float(share.iloc[0]):.1f} %"
            if walk is not None and pd.notna(walk.iloc[0]):
                text += f" [{100 * float(walk.iloc[0]):.1f} %]"
        labels.append(text)
    axes.set(xlabel=labels[0], ylabel=labels[1])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5))


def _over_steps(axes: Axes, series: list[Series], column: str) -> None:
    x = "epoch" if all("epoch" in one.frame and one.frame["epoch"].notna().all() for one in series) else "step"
    axes.set(xlabel=x if x == "epoch" else "optimiser step", ylabel=_OFF_PLANE if column == "off_plane" else "loss")
    for one in series:
        for _, rows in one.frame.groupby("checkpoint", sort=False):
            rows = rows.sort_values("step", kind="stable")
            axes.plot(rows[x], rows[column], **one.look.keywords(marker=""))
            if column == "loss" and "plane_loss" in rows:
                axes.plot(rows[x], rows["plane_loss"], **one.look.keywords(marker="", linewidth=0.5))
    layout.whole_numbers(axes)


def _grounds(path: DataFrame, surface: DataFrame | None) -> dict[str, DataFrame]:
    if surface is None or surface.empty:
        return {}
    require(surface, ["alpha", "beta", "loss"], table="surface")
    if "checkpoint" not in surface or surface["checkpoint"].isna().all():
        return {"": surface}
    own = set(path["checkpoint"].astype(str))
    tables = {str(name): rows for name, rows in surface.groupby("checkpoint", sort=False)}
    return tables if set(tables) & own and len(tables) == len(own) else {"": next(iter(tables.values()))}


def _ground_of(one: Series, grounds: dict[str, DataFrame]) -> str | None:
    if "" in grounds:
        return ""
    name = str(one.frame["checkpoint"].iloc[0])
    return name if name in grounds else None
