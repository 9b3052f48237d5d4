"""Which numbers of networks go with their generalisation gaps."""

import re

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from pandas import DataFrame

from reports.figures import layout, marks
from reports.figures.series import place_of, require, rule_name
from reports.style import DOUBLE, GREY, Look, rule_look, styled

_ALL = Look(colour=GREY, marker="D", linestyle="-")
_SETTING, _MARKERS = "#a9a9a9", "PX*hpd<>"  # of settings, whose colours no rule has
_LONGEST = 46  # characters of a quantity


@styled
def gap(frame: DataFrame) -> Figure:
    """Draw the rank correlation of each quantity with the generalisation gap, a panel a gap: over all runs, those of
    each rule, and along each setting.

    Args:
        frame: columns ``quantity, gap, over, tau, ci_low, ci_high``.

    Raises:
        InputError: a column is missing or the table is empty.

    Example:
        >>> from pandas import DataFrame
        >>> from reports import figures
        >>> table = DataFrame({"quantity": ["trace", "trace"], "gap": ["loss", "accuracy"], "tau": [0.6, 0.4]})
        >>> len(figures.gap(table.assign(over="all", ci_low=0.1, ci_high=0.9)).axes)
        2
    """
    require(frame, ["quantity", "gap", "over", "tau", "ci_low", "ci_high"], table="gap")
    rows, looks = list(dict.fromkeys(frame["quantity"])), looks_of(list(dict.fromkeys(frame["over"])))
    kinds = list(dict.fromkeys(frame["gap"]))
    figure = Figure(figsize=(DOUBLE, max(1.8, 0.9 + len(rows) * (0.1 + 0.06 * len(looks)))))
    panels = figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0]
    for index, (axes, kind) in enumerate(zip(panels, kinds, strict=True)):
        layout.title(axes, f"{kind} gap", index if len(kinds) > 1 else None)
        _panel(axes, frame[frame["gap"] == kind], rows, looks)
    panels[0].set_yticks(range(len(rows)), [layout.plain(_short(row)) for row in rows])
    panels[0].set_ylim(len(rows) - 0.4, -0.6)
    entries = [Line2D([], [], **{**look.keywords(label=name), "linestyle": ""}) for name, look in looks.values()]
    layout.legend_above(figure, entries)
    bars = frame["ci_low"].notna().any()
    layout.note(figure, "Bars: 95 % interval over seeds." if bars else "Fewer than three seeds: no intervals.")
    return figure


def looks_of(over: list[str]) -> dict[str, tuple[str, Look]]:
    """Return the name and the look of what a correlation is over: all runs first, then rules, then settings."""
    found, others = {}, 0
    for one in sorted(over, key=_place):
        rule, _, angle = one.partition(" ")
        own = rule_look(rule, float(angle) if re.fullmatch(r"[\d.]+", angle) else float("nan"))
        if one == "all":
            found[one] = "all runs", _ALL
        elif own is not None and not one.startswith("psi"):
            found[one] = rule_name(rule, float(angle) if angle else None), own
        else:
            look = Look(colour=_SETTING, marker=_MARKERS[others % len(_MARKERS)], linestyle="-")
            found[one], others = (one.replace("psi", "Ψ"), look), others + 1
    return found


def _place(one: str) -> tuple[int, tuple[int, str], str]:
    psi = one.startswith("psi")
    return (0 if one == "all" else 1 + psi, place_of(one.split(" ")[0]) if not psi else (0, ""), one)


def _panel(axes: Axes, part: DataFrame, rows: list[str], looks: dict[str, tuple[str, Look]]) -> None:
    for place, (over, (_, look)) in enumerate(looks.items()):
        points = part[part["over"] == over].drop_duplicates("quantity").set_index("quantity").reindex(rows)
        points = points.rename(columns={"tau": "value", "ci_low": "low", "ci_high": "high"})
        at = np.arange(len(rows)) + 0.7 * ((place + 0.5) / len(looks) - 0.5)
        marks.points_with_bars(axes, at, points, look, horizontal=True, linestyle="", markersize=3)
    axes.axvline(0, color=GREY, linewidth=0.6, zorder=0)
    axes.set(xlim=(-1.05, 1.05), xlabel="Kendall's τ")
    axes.grid(axis="y", visible=False)


def _short(quantity: str) -> str:
    quantity = " ".join(quantity.split())  # a key without a value leaves two spaces
    return quantity if len(quantity) <= _LONGEST else f"{quantity[: _LONGEST - 1]}…"
