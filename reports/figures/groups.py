"""Curvature by group of parameters (``--by``): where the trace and the top eigenvalue of a Hessian come from."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from alignscape.errors import InputError
from reports.figures import layout, marks
from reports.figures.series import Series, over_seeds, require, series_of
from reports.style import DOUBLE, GREY, styled

PANELS: Mapping[str, tuple[str, str]] = {
    "trace": ("trace of the group's block", "share of the trace"),
    "eigenvalue": ("top eigenvalue of the group's block", "relative to that of the whole"),
}


@styled
def hessian_groups(frame: DataFrame) -> Figure:
    """Draw the trace and the top eigenvalue of each group's diagonal block, relative to those of the whole matrix.

    Shares of the trace add up to one. The eigenvalue of a positive semi-definite matrix is at least that of each block
    (Cauchy's interlacing): a value near 1 says that the top eigenvector lives in that group. Of several checkpoints of
    a run the last is drawn.

    Args:
        frame: columns ``checkpoint, quantity, index, value, ci_low, ci_high``, with rows ``trace`` and ``trace:GROUP``,
            ``eigenvalue`` and ``eigenvalue:GROUP``.

    Raises:
        InputError: a column is missing, there is no group in the table, or every whole is zero.

    Example:
        >>> from pandas import DataFrame
        >>> from reports import figures
        >>> table = DataFrame({"quantity": ["trace", "trace:first", "trace:last"], "value": [4.0, 3.0, 1.0]})
        >>> table = table.assign(checkpoint="net", index=0, ci_low=table["value"], ci_high=table["value"])
        >>> [text.get_text() for text in figures.hessian_groups(table).axes[0].get_yticklabels()]
        ['first', 'last']
    """
    require(frame, ["checkpoint", "quantity", "index", "value", "ci_low", "ci_high"], table="hessian")
    if not frame["quantity"].str.startswith("trace:").any():
        raise InputError("hessian has no row of a group: ask for them (--by layer)")
    shares = {name: found for name in PANELS if len(found := relative(_last(frame), name))}
    if not shares:
        raise InputError("hessian has no trace to share out: that of each whole matrix is zero")
    groups = list(dict.fromkeys(row for found in shares.values() for row in found["group"]))
    series = series_of(next(iter(shares.values())))
    figure = Figure(figsize=(DOUBLE, 1.1 + len(groups) * (0.16 + 0.075 * len(series))))
    panels = figure.subplots(1, len(shares), squeeze=False, sharey=True)[0]
    for index, (axes, (name, found)) in enumerate(zip(panels, shares.items(), strict=True)):
        title, label = PANELS[name]
        layout.title(axes, title, index if len(shares) > 1 else None)
        axes.set_xlabel(label)
        _rows(axes, series_of(found), groups)
    layout.legend_above(figure, layout.handles(series))
    single = "95 % interval of the trace, residual bound of the eigenvalues (unseen where smaller than the dot)"
    layout.note(figure, layout.seeds_note(series, single, "Bars"))
    return figure


def relative(frame: DataFrame, name: str) -> DataFrame:
    """Return a row for each network and group: its first value of ``name``, over that of the network's whole matrix."""
    first = frame.sort_values("index", kind="stable").drop_duplicates(["checkpoint", "quantity"])
    whole = first[first["quantity"] == name].set_index("checkpoint")["value"]
    rows = first[first["quantity"].str.startswith(f"{name}:") & first["checkpoint"].isin(whole.index)].sort_index()
    by = rows["checkpoint"].map(whole).to_numpy(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        ends = {end: rows[end].to_numpy(float) / by for end in ("value", "ci_low", "ci_high")}
    low, high = ends["ci_low"], ends["ci_high"]  # which over a negative whole change places
    ends |= {"ci_low": np.where(by < 0, high, low), "ci_high": np.where(by < 0, low, high)}
    rows = rows.assign(group=rows["quantity"].str.removeprefix(f"{name}:"), **ends)
    return rows[np.isfinite(rows["value"].to_numpy(float))]


def _last(frame: DataFrame) -> DataFrame:
    """Return the last epoch of each run; networks of which no epoch is known stay."""
    run = [name for name in ("rule", "angle", "seed") if name in frame]
    if "epoch" not in frame or not run:
        return frame
    last = frame.groupby(run, dropna=False)["epoch"].transform("max")
    return frame[frame["epoch"].isna() | (frame["epoch"] == last)]


def _rows(axes: Axes, series: Sequence[Series], groups: Sequence[str]) -> None:
    for place, one in enumerate(series):
        points = over_seeds(one.frame, "group", "value", "ci_low", "ci_high").set_index("group").reindex(list(groups))
        at = np.arange(len(groups)) + 0.6 * ((place + 0.5) / len(series) - 0.5)
        marks.points_with_bars(axes, at, points, one.look, horizontal=True, linestyle="")
    axes.axvline(0, color=GREY, linewidth=0.6, zorder=0)
    axes.set_yticks(range(len(groups)), [layout.plain(group) for group in groups])
    axes.set_ylim(len(groups) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
