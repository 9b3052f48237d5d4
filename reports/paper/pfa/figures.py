"""The figures and tables of the second paper, with what it published beside what our runs say."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from reports.figures import layout, marks
from reports.figures.series import over_seeds, rule_name, series_of
from reports.paper.figures import panels
from reports.paper.judgement import judged, judged_beforehand, printed
from reports.paper.pfa.claims import declared
from reports.paper.pfa.expansion import QUANTILES, expected_angle, expected_square, spectrum_ends
from reports.paper.quantities import final, largest, layers_of
from reports.paper.target import Drawn, Tables
from reports.paper.verdicts import seeds_needed
from reports.style import GREY, RULES, settings

Spans = Mapping[str, Mapping[str, Sequence[float]]]  # published ranges by rule and quantity
QUANTITIES = {"flat_angle": ("angle", "path angle (°)"), "norm_ratio": ("norm_ratio", "norm ratio |B R| / |W|")}
_PUBLISHED = "Open diamonds: published."


@settings()
def accuracy(tables: Tables, *, setting: str, departures: Sequence[str], published: Mapping[str, float]) -> list[Drawn]:
    """Draw learning curves and final accuracy of every rule, and make their table."""
    metrics = tables["metrics"]
    figure, axes = panels.mosaic("ab", 3.1, width_ratios=[1, 1.25])
    drawn = {"a": panels.accuracy_curves(axes["a"], metrics), "b": _final_panel(axes["b"], metrics, published)}
    panels.titles(axes, a="learning curves", b="final accuracy")
    note = f"{layout.seeds_note(panels.legend_of(figure, metrics))} {panels.FINAL} {_PUBLISHED} {_said(departures)}"
    return _with_table(figure, drawn, f"Accuracy of every rule: {setting}", metrics, published, departures, note)


@settings()
def residual(
    tables: Tables, *, setting: str, departures: Sequence[str], published: Mapping[str, float], expansion: int,
    paths: Spans,
) -> list[Drawn]:  # fmt: skip
    """Draw accuracy of every rule in a residual network, and where the feedback paths of its many layers lie."""
    metrics = tables["metrics"]
    figure, axes = panels.mosaic("ab;cd", 5.2)
    drawn = {"a": panels.accuracy_curves(axes["a"], metrics), "b": _final_panel(axes["b"], metrics, published)}
    panels.titles(axes, a="learning curves", b="final accuracy")
    sent = metrics[~metrics["rule"].isin(["bp", "dfa"])]
    for letter, (quantity, (name, label)) in zip("cd", QUANTITIES.items(), strict=True):
        drawn[letter] = _over_layers(axes[letter], sent, quantity, label)
        _limit(axes[letter], name, expansion)
        _spans(axes[letter], paths, name, sent)
        layout.title(axes[letter], f"{label.partition(' (')[0].partition(' |')[0]}, median layer", letter)
    note = f"{layout.seeds_note(panels.legend_of(figure, metrics))} {panels.FINAL} {_PUBLISHED} c, d: bands from the "
    note += f"least to the largest layer; {_SPANS} {_said(departures)}"
    return _with_table(figure, drawn, f"Accuracy and paths: {setting}", metrics, published, departures, note)


def _with_table(
    figure: Figure, drawn: Mapping[str, DataFrame], title: str, metrics: DataFrame, published: Mapping[str, float],
    departures: Sequence[str], note: str,
) -> list[Drawn]:  # fmt: skip
    """Return the figure, and the table of accuracies."""
    table = accuracies(metrics, published)
    caption = "Test accuracy in percent: mean and standard deviation over seeds of the last epoch and of the best one, "
    caption += f"and the published final one. {_said(departures)}"
    about = "Test accuracy over training, and at its end."
    shown = panels.finished(figure, drawn, title, about, note=note)
    return [*shown, Drawn(suffix="-table", title=title, caption=caption.strip(), table=table)]


def accuracies(metrics: DataFrame, published: Mapping[str, float]) -> DataFrame:
    """Return a row for each rule: mean, sd and number of seeds of final and best test accuracy (percent; a run that
    diverged counts in neither), and the published final one, missing where there is none."""
    last, best = final(metrics), largest(metrics, "test_accuracy")
    rows = []
    for one in series_of(last):
        rule = str(one.frame["rule"].iloc[0])
        ends = one.frame["value"].dropna()
        tops = best.loc[best["rule"] == rule, "value"].dropna()
        known = published.get(rule, math.nan)
        rows.append(
            {"rule": rule_name(rule), "final_mean": ends.mean(), "final_sd": ends.std(ddof=1), "best_mean": tops.mean(),
             "best_sd": tops.std(ddof=1), "n": len(ends), "diverged": len(one.frame) - len(ends),
             "epochs": int(one.frame["epoch"].max()), "published_final": known,
             "difference": ends.mean() - known}
        )  # fmt: skip
    return DataFrame(rows)


def _said(departures: Sequence[str]) -> str:
    return f"Not as published: {'; '.join(departures)}." if departures else "Recipe as published."


def _final_panel(axes: Axes, metrics: DataFrame, published: Mapping[str, float]) -> DataFrame:
    """Draw the final accuracy of every rule, and an open diamond where the published one lies."""
    last = final(metrics)
    drawn = panels.rules_panel(axes, last[panels.RUN], "final test accuracy (%)", [])
    names = [one.label for one in series_of(last)]
    known = DataFrame(
        [{"rule": rule, "place": names.index(rule_name(rule)), "value": value, "quantity": "published"}
         for rule, value in published.items() if rule_name(rule) in names]
    )  # fmt: skip
    if len(known):
        axes.plot(known["place"] + 0.28, known["value"], "D", markerfacecolor="none", color=GREY, markersize=4)
        low, high = axes.get_ylim()
        room = 0.04 * (max(high, known["value"].max()) - min(low, known["value"].min()))
        axes.set_ylim(min(low, known["value"].min() - room), max(high, known["value"].max() + room))
    axes.set_xticks(range(len(names)), names, rotation=40 if len(names) > 5 else 0)
    return pd.concat([drawn, known.drop(columns="place")], ignore_index=True) if len(known) else drawn


@settings()
def sparsity(tables: Tables, *, setting: str, departures: Sequence[str], shown: Sequence[float]) -> list[Drawn]:
    """Draw the best test accuracy of any epoch against the share of the feedback weights that exist."""
    best = largest(tables["metrics"], "test_accuracy", "density")
    figure, axes = panels.mosaic("a", 3.2, width=4.2)
    for one in series_of(best.assign(epoch=0), along="epoch"):
        points = over_seeds(one.frame, "density", "value")
        marks.points_with_bars(axes["a"], points["density"], points, one.look)
    values = sorted(best["density"].unique())
    axes["a"].set_xscale("log")
    axes["a"].set_xticks(values, [f"{value:g}" for value in values])
    axes["a"].set_xticks([], minor=True)
    axes["a"].set(xlabel="feedback density", ylabel="best test accuracy (%)")
    cut = ""
    if shown:
        axes["a"].set_ylim(*shown)
        below = best.loc[best["value"] < shown[0], "rule"].nunique()
        cut = f" Of {below} rules some runs lie below the axis." if below else ""
    series = panels.legend_of(figure, tables["metrics"])
    note = f"{layout.seeds_note(series)}{cut} The paper has a figure without numbers. {_said(departures)}"
    table = _by_density(best)
    caption = "Best test accuracy of any epoch against the share of feedback weights that exist."
    drawn = panels.finished(figure, {"a": best}, f"Sparse feedback: {setting}", caption, note=note)
    return [*drawn, Drawn(suffix="-table", title=f"Sparse feedback: {setting}",
                          caption=f"Best test accuracy in percent. {_said(departures)}", table=table)]  # fmt: skip


def _by_density(best: DataFrame) -> DataFrame:
    """Return a row for each rule and density: mean, sd and number of seeds, and what the rule loses against density
    1."""
    groups = best.groupby(["rule", "density"], sort=False)["value"]
    table = groups.agg(best_mean="mean", best_sd="std", n="count").reset_index()
    dense = table[table["density"] == 1].set_index("rule")["best_mean"]
    order = [str(one.frame["rule"].iloc[0]) for one in series_of(best.assign(epoch=0), along="epoch")]
    table = table.assign(lost=table["rule"].map(dense) - table["best_mean"], place=table["rule"].map(order.index))
    table = table.sort_values(["place", "density"], ascending=[True, False]).drop(columns="place")
    return table.assign(rule=table["rule"].map(rule_name)).reset_index(drop=True)


_SPANS = "bars at the right: where the published ones end, over layers; dotted: the limit of PFA by theory."


@settings()
def paths(tables: Tables, *, setting: str, departures: Sequence[str], expansion: int, published: Spans) -> list[Drawn]:
    """Draw angle and norm ratio between each layer's forward weights and its feedback path over training."""
    metrics = tables["metrics"]
    layers = layers_of(metrics)
    figure = Figure(figsize=(6.9, 4.9))
    grid = layout.panels(figure, 2 * len(layers), 2, len(layers))
    drawn = {}
    for row, (quantity, (name, label)) in enumerate(QUANTITIES.items()):
        for place, layer in enumerate(layers):
            index = row * len(layers) + place
            axes = grid[index]
            curve = panels.curves(axes, metrics, f"{quantity}_{layer}", label)
            drawn[layout.letter(index)] = curve.assign(layer=layer)
            _limit(axes, name, expansion)
            _spans(axes, published, name, metrics)
            axes.set_ylabel("" if place else label)
            layout.title(axes, f"layer {place + 2}", index)
    series = panels.legend_of(figure, metrics)
    note = f"{layout.seeds_note(series)} One angle between flattened matrices; B stands for the path of rules without "
    note += f"R. Errors do not pass layer 1. {_SPANS[0].upper()}{_SPANS[1:]} {_said(departures)}"
    title = f"Feedback paths over training: {setting}"
    about = "Angle and norm ratio between the forward weights and the path that errors take."
    result = panels.finished(figure, drawn, title, about, note=note)
    table = ends(metrics, published)
    caption = "Path angle and norm ratio after the last epoch, mean over seeds, by layer from the second on, and the "
    caption += f"published ranges over layers. {_said(departures)}"
    return [*result, Drawn(suffix="-table", title=title, caption=caption, table=table)]


def ends(metrics: DataFrame, published: Spans) -> DataFrame:
    """Return a row for each rule and layer: mean and sd over seeds of the last epoch's path angle and norm ratio, and
    the published ranges."""
    last, rows = final(metrics), []
    for one in series_of(last):
        rule = str(one.frame["rule"].iloc[0])
        for place, layer in enumerate(layers_of(last)):
            row: dict[str, Any] = {"rule": rule_name(rule), "layer": place + 2}
            for quantity, (name, _) in QUANTITIES.items():
                found = one.frame[f"{quantity}_{layer}"].astype(float)
                low, high = published.get(rule, {}).get(name, (math.nan, math.nan))
                row |= {f"{name}_mean": found.mean(), f"{name}_sd": found.std(ddof=1)}
                row |= {f"published_{name}_low": low, f"published_{name}_high": high}
            rows.append({**row, "n": one.frame["seed"].nunique()})
    return DataFrame(rows)


def _over_layers(axes: Axes, metrics: DataFrame, quantity: str, label: str) -> DataFrame:
    """Draw the median of a quantity over the layers with a band from the least to the largest, means over seeds."""
    columns = [f"{quantity}_{layer}" for layer in layers_of(metrics)]
    numbers = metrics[columns].astype(float)
    spread = metrics[["checkpoint", "rule", "angle", "seed", "epoch"]].assign(
        value=numbers.median(axis=1), low=numbers.min(axis=1), high=numbers.max(axis=1)
    )
    drawn = []
    for one in series_of(spread, along="epoch"):
        points = one.frame.groupby("epoch")[["value", "low", "high"]].mean().reset_index()
        marks.line_with_band(axes, points["epoch"], points, one.look, marker="")
        drawn.append(points.assign(rule=one.frame["rule"].iloc[0], quantity=label))
    axes.set(xlabel="epoch", ylabel=label)
    axes.margins(x=0.03)
    layout.whole_numbers(axes)
    return pd.concat(drawn, ignore_index=True) if drawn else DataFrame()


def _limit(axes: Axes, name: str, expansion: int) -> None:
    """Draw where PFA's path ends for many rows, as a dotted line."""
    ratio = math.sqrt(1 + 1 / expansion)
    at = math.degrees(math.acos(1 / ratio)) if name == "angle" else ratio
    axes.axhline(at, color=RULES["pfa"].colour, linestyle=":", linewidth=1)
    if name == "angle":
        axes.set_ylim(-3, 99)
        axes.set_yticks([0, 30, 60, 90])


def _spans(axes: Axes, published: Spans, name: str, metrics: DataFrame) -> None:
    """Draw the published ranges of rules that are in ``metrics`` as bars to the right of the last epoch."""
    last, rules = float(metrics["epoch"].max()), set(metrics["rule"])
    for place, (rule, spans) in enumerate((rule, of) for rule, of in published.items() if rule in rules and name in of):
        low, high = spans[name]
        at = last * (1.04 + 0.025 * place)
        look: dict[str, Any] = {"color": RULES[rule].colour, "alpha": 0.6, "zorder": 1}
        axes.plot([at, at], [low, high], linewidth=3, solid_capstyle="butt", **look)
        axes.plot(at, (low + high) / 2, "_", markersize=5, **look)  # what has no length is seen too


@settings()
def expansion(tables: Tables, *, outputs: int) -> list[Drawn]:
    """Draw how near B B^T comes to the identity as B becomes wider: angle, norm ratio and eigenvalues, and theory."""
    table = tables["expansion"]
    theory = expected(table, outputs)
    figure, axes = panels.mosaic("abc", 2.7)
    look = RULES["pfa"]
    kinds = {"a": ("angle", "angle W, B B$^T$ W (°)"), "b": ("norm_ratio", "|B B$^T$ W| / |W|")}
    for letter, (name, label) in kinds.items():
        points = over_seeds(table, "expansion", name)
        marks.points_with_bars(axes[letter], points["expansion"], points, look, linestyle="")
        axes[letter].plot(theory["expansion"], theory[name], color=GREY, linestyle="--", linewidth=0.9)
        axes[letter].set_ylabel(label)
    panels.titles(axes, a="angle", b="norm ratio", c="eigenvalues of B Bᵀ")
    _eigenvalues(axes["c"], table, theory)
    for one in axes.values():
        one.set(xscale="log", xlabel="expansion k")
    draws = table["draw"].nunique()
    note = (
        f"Dots and bars: mean ± one standard deviation over {draws} draws of W and B. Dashed in a, b: closed forms for "
    )
    note += (
        f"{outputs} rows, 1 / cos² = ratio² = 1 + ({outputs} - 1/5) / width. c: means over the draws of the least and "
    )
    note += "largest eigenvalue (lines), of the 5th to 95th and 25th to 75th percentile (bands); dashed: ends of the "
    note += "spectrum for many rows (Marchenko and Pastur). Nothing is trained; the paper has a figure without numbers."
    title, caption = "B Bᵀ against the expansion", "How near the path B Bᵀ W comes to W as B becomes wider."
    drawn = panels.finished(figure, {"a": table}, title, caption, note=note)
    return [*drawn, Drawn(suffix="-table", title=title, caption=f"{caption} With the closed forms.",
                          table=_by_expansion(table, theory))]  # fmt: skip


def _eigenvalues(axes: Axes, table: DataFrame, theory: DataFrame) -> None:
    look, names = RULES["pfa"], [f"q{100 * q:g}" for q in QUANTILES]
    means = table.groupby("expansion")[["least", *names, "largest"]].mean()
    for low, high in ((names[0], names[-1]), (names[1], names[-2])):
        axes.fill_between(means.index, means[low], means[high], color=look.colour, alpha=0.25, linewidth=0)
    for name in ("least", "largest"):
        axes.plot(means.index, means[name], color=look.colour, linewidth=1.1)
        axes.plot(theory["expansion"], theory[name], color=GREY, linestyle="--", linewidth=0.9)
    axes.set_ylabel("eigenvalue")


def expected(table: DataFrame, outputs: int) -> DataFrame:
    """Return what theory says at each expansion of ``table``: angle, norm ratio and the ends of the spectrum."""
    rows = []
    for k, width in table[["expansion", "width"]].drop_duplicates().itertuples(index=False):
        least, largest_one = spectrum_ends(outputs, width)
        angle, ratio = expected_angle(outputs, width), math.sqrt(expected_square(outputs, width))
        rows.append({"expansion": k, "angle": angle, "norm_ratio": ratio, "least": least, "largest": largest_one})
    return DataFrame(rows)


def _by_expansion(table: DataFrame, theory: DataFrame) -> DataFrame:
    names = ["angle", "norm_ratio", "least", "largest"]
    groups = table.groupby("expansion")[names]
    found = groups.mean().join(groups.std(ddof=1).add_suffix("_sd")).reset_index()
    ordered = found[["expansion", *(part for name in names for part in (name, f"{name}_sd"))]]
    return ordered.merge(theory, on="expansion", suffixes=("", "_theory")).assign(n=int(table["draw"].nunique()))


def claims(tables: Tables, *, profile: Mapping[str, Any], departures: Sequence[str]) -> list[Drawn]:
    """Make the table of claims, and beforehand that of which of them the seeds can decide."""
    known = declared(profile)
    table, told = judged(known, tables), judged_beforehand(known, profile)
    caption = (
        "Each claim, the statistic that decides it, and what the runs of this profile say. p: one-sided signed-rank "
    )
    caption += "test over seeds, by Holm's correction; in brackets the 95 % interval, of N < 6 seeds their range. "
    caption += _said(departures)
    before = "Known before anything is trained: the least p of N seeds is 2^-N, times the number of claims tested "
    before += f"({np.count_nonzero(told['can_be_decided'])} of {len(told)}). To decide all of them takes "
    before += f"{seeds_needed(len(told))} seeds of everything."
    title = "The claims of the paper on product feedback alignment"
    return [
        Drawn(title=title, caption=caption, table=table, summary=printed(table)),
        Drawn(suffix="-beforehand", title="Claims that the seeds can decide", caption=before, table=told),
    ]
