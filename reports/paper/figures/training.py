"""Figures 1 and 4 and their supplements: alignment, learning curves and final accuracy."""

import math
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from reports import figures
from reports.figures import layout
from reports.figures.series import rule_name
from reports.paper.figures import panels
from reports.paper.memory_access import PHASES, linear_layers, memory_accesses
from reports.paper.quantities import layers_of
from reports.paper.target import Drawn, Tables
from reports.style import DOUBLE, settings
from training.data import described
from training.data.own import own_dataset
from training.data_names import is_own

_PHASE_COLOURS = {"forward": "#b9c4d6", "error": "#7a93bd", "update": "#3f5f95", "transport": "#d55e00"}
_UNITS = ((1e6, "millions"), (1e3, "thousands"), (1, "numbers"))
# Values per image: a description of the data is all that a count from shapes needs.
PIXELS = {"digits": 64, "digits32": 1024, "mnist": 784, "fashionmnist": 784, "cifar10": 3072, "cifar100": 3072,
          "svhn": 3072, "stl10": 27648}  # fmt: skip


@settings()
def learning(tables: Tables, *, hidden: Sequence[int], dataset: str, batch_size: int) -> list[Drawn]:
    """Draw figure 1: alignment of the last two layers, learning curves, final accuracy, memory accesses."""
    metrics = tables["metrics"]
    figure, axes = panels.mosaic("aabbcc;dddeee", 4.3)
    layers = layers_of(metrics)[-2:]
    drawn = {
        letter: panels.angle_curves(axes[letter], metrics, layer) for letter, layer in zip("ab", layers, strict=False)
    }
    for letter, layer in zip(drawn, layers, strict=True):
        layout.title(axes[letter], "last layer" if layer == layers[-1] else "penultimate layer", letter)
    drawn["c"] = panels.accuracy_curves(axes["c"], metrics)
    pairs = [("BP", "IFA 0°"), ("IFA 0°", "FA"), ("BP", "FA")]
    final = panels.last_rows(metrics)[panels.RUN]
    drawn["d"] = panels.rules_panel(axes["d"], final, "final test accuracy (%)", pairs)
    drawn["e"] = _memory_panel(axes["e"], update_accesses(hidden, dataset, batch_size))
    panels.titles(axes, c="learning curves", d="final accuracy", e="memory accesses of one update (counted)")
    several = metrics["seed"].max() > metrics["seed"].min()
    note = layout.seeds_note(panels.legend_of(figure, metrics)) + " Dotted: 90°, independent weights."
    note += f" {panels.FINAL}"
    note += " d: dots are seeds, p of two-sided rank-sum tests." if several else ""
    note += " e: values read and written by the model of docs/reproduction.md, with memories of their own for the two "
    note += "directions; with one shared memory nothing is transported."
    caption = "Angles between forward and feedback weights, accuracy, and what an update reads and writes."
    return panels.finished(figure, drawn, "Alignment, learning and cost", caption, note=note)


def update_accesses(hidden: Sequence[int], dataset: str, batch_size: int, *, shared_memory: bool = False) -> DataFrame:
    """Return the memory accesses of one update of the MLP by BP, IFA and FA."""
    values = math.prod(own_dataset(dataset).input_shape) if is_own(dataset) else PIXELS[dataset]
    layers = linear_layers([values, *hidden, described(dataset).classes])
    rules = ("bp", "ifa", "fa")
    counts = [memory_accesses(layers, rule, batch_size, shared_memory=shared_memory) for rule in rules]
    return pd.concat(counts, ignore_index=True)


def _memory_panel(axes: Axes, counts: DataFrame) -> DataFrame:
    unit, word = next((size, word) for size, word in _UNITS if counts["reads"].sum() > 3 * size)
    totals = counts.assign(value=(counts["reads"] + counts["writes"]) / unit)
    table = totals.groupby(["rule", "phase"], sort=False)[["reads", "writes", "value"]].sum().reset_index()
    rules = list(dict.fromkeys(table["rule"]))
    for place, rule in enumerate(rules):
        left = 0.0
        for phase in PHASES:
            size = float(table.loc[(table["rule"] == rule) & (table["phase"] == phase), "value"].sum())
            axes.barh(place, size, left=left, height=0.6, color=_PHASE_COLOURS[phase],
                      label=phase if place == 0 else None)  # fmt: skip
            left += size
        axes.text(left, place, f" {left:.3g}", va="center", fontsize=6)
    most = float(table.groupby("rule")["value"].sum().max())
    axes.set_yticks(range(len(rules)), [rule_name(rule) for rule in rules])
    axes.set(xlabel=f"reads + writes ({word} of values)", ylim=(len(rules) - 0.4, -1.15), xlim=(0, 1.16 * most))
    axes.grid(axis="y", visible=False)
    axes.legend(loc="upper left", ncols=4, columnspacing=1, handlelength=1, borderaxespad=0.1)
    return table


@settings()
def soft_alignment(tables: Tables) -> list[Drawn]:
    """Draw figure 4: alignment over training, learning curves and final accuracy for every angle."""
    metrics = tables["metrics"]
    final, layers = panels.last_rows(metrics), layers_of(metrics)[-2:]
    names = ("penultimate layer", "last layer") if len(layers) > 1 else ("last layer",)
    drawn: dict[str, DataFrame] = {}

    figure, axes = panels.mosaic("abc;def" if len(layers) > 1 else "ac;df", 4.6)
    for upper, lower, layer, name in zip("ab", "de", layers, names, strict=False):
        drawn[upper] = panels.angle_curves(axes[upper], metrics, layer)
        drawn[lower] = _where_it_ends(axes[lower], final, layer)
        panels.titles(axes, **{upper: name, lower: f"where the {name} ends"})
    drawn |= {
        "c": panels.accuracy_curves(axes["c"], metrics),
        "f": panels.angle_panel(axes["f"], final[panels.RUN], "final test accuracy (%)"),
    }
    panels.titles(axes, c="learning curves", f="final accuracy")
    series = panels.legend_of(figure, metrics)
    note = (
        f"{layout.seeds_note(series)} {panels.tests_note(final)} Dotted: 90° (a, b), no change (d, e). {panels.FINAL}"
    )
    caption = "Between feedback identical to the initial weights (0°) and independent of them (90°, FA)."
    return panels.finished(figure, drawn, "Soft alignment", caption, note=note)


def _where_it_ends(axes: Axes, final: DataFrame, layer: str) -> DataFrame:
    aligned = final[final[f"angle_{layer}"].notna()].assign(value=lambda rows: rows[f"angle_{layer}"])
    drawn = panels.angle_panel(axes, aligned[panels.RUN], "final angle W, B (°)")
    axes.set(ylim=(-3, 99), yticks=[0, 30, 60, 90])
    axes.plot([0, 90], [0, 90], color="#b0b0b0", linestyle=":", linewidth=0.8, zorder=0)
    return drawn


@settings()
def every_layer(tables: Tables) -> list[Drawn]:
    """Draw figures S1 and S8: the alignment of every layer but the first over training."""
    metrics = tables["metrics"]
    layers = layers_of(metrics)
    drawn: dict[str, DataFrame] = {}

    rows, wide = layout.panel_grid(len(layers), most_columns=3)
    figure = Figure(figsize=(DOUBLE, 0.7 + 2.1 * rows))
    grid = layout.panels(figure, len(layers), rows, wide)
    for index, (axes, layer) in enumerate(zip(grid, layers, strict=True)):
        drawn[layout.letter(index)] = panels.angle_curves(axes, metrics, layer).assign(layer=layer)
        layout.title(axes, f"layer {index + 2}", index)
    note = layout.seeds_note(panels.legend_of(figure, metrics))
    note += (
        " Dotted: 90°, independent weights. Nothing is sent below layer 1. BP sends its errors by its own weights: 0°."
    )
    caption = "Mean angle between a neuron's forward and feedback weights."
    return panels.finished(figure, drawn, "Alignment of every layer", caption, note=note)


def accuracy_and_loss(tables: Tables) -> list[Drawn]:
    """Draw figures S2 and S9: accuracy and loss on both splits over training."""
    identity = ["checkpoint", "rule", "angle", "seed", "epoch"]
    shown = tables["metrics"][[*identity, "train_loss", "test_loss", "train_accuracy", "test_accuracy"]]
    caption = "Training values are means over the epoch as it went."
    return [Drawn(title="Accuracy and loss", caption=caption, table=shown, figure=figures.metrics(shown))]
