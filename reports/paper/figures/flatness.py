"""Figure S16 and table S3, not in the paper: sharpness by every measure, and the claims of flatness by each."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from reports.figures import layout
from reports.figures.flatness import CHANGE, draw_rows, finish_rows, relative, rows_of
from reports.figures.series import series_of
from reports.paper.figures import panels
from reports.paper.flatness import EPOCHS, LOSS, SHOWN, compared, flatness_table, printed
from reports.paper.target import Drawn, Tables
from reports.paper.verdicts import HOLDS
from reports.style import DOUBLE, GREY, laid_out, settings

_ROWS = {"loss": "mean loss", **SHOWN}


@settings()
def sharpness(tables: Tables, *, equal_loss: float) -> list[Drawn]:
    """Draw figure S16: FA and IFA relative to BP by every measure, at equal epochs and at equal loss."""
    table = flatness_table(tables)
    shown = compared(tables)
    rows = rows_of(shown[EPOCHS], _ROWS)
    figure = Figure(figsize=(DOUBLE, 0.95 + 0.24 * len(rows)))
    axes = figure.subplots(1, len(shown), sharey=True)
    for index, (panel, (name, part)) in enumerate(zip(axes, shown.items(), strict=True)):
        title = f"equal loss ({equal_loss:g})" if name == LOSS else name
        layout.title(panel, title, index)
        _panel(panel, part, rows)
        _stars(panel, table[(table["comparison"] == name) & (table["claim"] == "IFA is flatter than FA")], rows)
    everything = series_of(shown[EPOCHS])
    layout.legend_above(figure, layout.handles(everything))
    seeds = {name: part["seed"].nunique() for name, part in shown.items()}
    note = f"{layout.seeds_note(everything, noun='Bars')} Above the line: what a rescaling of layers changes; below: "
    note += "what it leaves as it is. Equal loss: the first kept checkpoint below it, "
    note += f"{seeds[LOSS]} of {seeds[EPOCHS]} seeds. Star: IFA is flatter than FA (signed-rank test, Holm)."
    layout.note(figure, note)
    caption = (
        "Sharpness over that of BP, a row a measure: right is sharper. What a rescaling leaves as it is tells flatness."
    )
    return [
        Drawn(title="Sharpness by every measure", caption=caption, table=panels.tidy(shown), figure=laid_out(figure))
    ]


def claims(tables: Tables) -> list[Drawn]:
    """Make table S3: which claims of flatness survive which measure, at equal epochs and at equal loss."""
    table = flatness_table(tables)
    caption = "Ratio of FA to IFA (flatter), or of IFA to BP (as flat), with its interval over seeds, and the verdict "
    caption += "after Holm's correction over all measures and comparisons of a claim."
    return [Drawn(title="Claims of flatness by every measure", caption=caption, table=table, summary=printed(table))]


def _panel(axes: Axes, part: DataFrame, rows: list[str]) -> None:
    series = series_of(part) if len(part) else []
    if series:
        ratios, reference = relative(series)
        draw_rows(axes, ratios, rows)
        axes.set_xlabel(f"relative to {reference}")
    else:
        finish_rows(axes, rows)
        axes.annotate("no run has this loss", (0.5, 0.5), xycoords="axes fraction", ha="center", color=GREY)
    last = max((place for place, row in enumerate(rows) if row in (*CHANGE.values(), "mean loss")), default=-1)
    axes.axhline(last + 0.5, color=GREY, linewidth=0.6)


def _stars(axes: Axes, claims: DataFrame, rows: list[str]) -> None:
    for one in claims[claims["verdict"] == HOLDS].to_dict("records"):
        name = SHOWN[str(one["measure"])]
        if name in rows and np.isfinite(one["value"]):
            axes.text(1.0, rows.index(name), "*", transform=axes.get_yaxis_transform(), ha="center", va="center",
                      fontsize=8, color=GREY)  # fmt: skip
