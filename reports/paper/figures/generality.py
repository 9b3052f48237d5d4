"""Figures S3 and S4: convolutional networks and other data sets."""

import pandas as pd
from matplotlib.figure import Figure
from pandas import DataFrame

from reports.figures import layout
from reports.paper.figures import panels
from reports.paper.target import Drawn, Tables
from reports.style import DOUBLE, settings

_NAMES = {"lenet": "LeNet variant", "alexnet": "AlexNet variant", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100",
          "svhn": "SVHN", "stl10": "STL-10", "mnist": "MNIST"}  # fmt: skip


def name_of(name: str) -> str:
    """Return how a network or data set is written."""
    return _NAMES.get(name, name)


def networks(tables: Tables) -> list[Drawn]:
    """Draw figure S3: learning curves of every rule in each convolutional network, and the final accuracies."""
    return _by(tables["metrics"], "network", "Convolutional networks")


def data_sets(tables: Tables, *, patience: int) -> list[Drawn]:
    """Draw figure S4: learning curves of every rule on each data set, and the final accuracies."""
    return _by(stop_early(tables["metrics"], patience), "dataset", "Other data sets")


def stop_early(metrics: DataFrame, patience: int) -> DataFrame:
    """Return each run up to the epoch at which it would have been stopped: ``patience`` epochs after its best test
    accuracy. What training did later has no influence on that, so the curve is that of a run that was stopped."""
    parts = []
    for _, run in metrics.groupby(["checkpoint", "dataset"], sort=False):
        rows = run.sort_values("epoch")
        best = rows["test_accuracy"].cummax()
        last_gain = rows["epoch"].where(best > best.shift(fill_value=-1.0)).ffill()
        waited = (rows["epoch"] - last_gain).shift(fill_value=0)  # at the end of the epoch before
        parts.append(rows[waited.cummax() < patience])
    return pd.concat(parts, ignore_index=True)


@settings()
def _by(metrics: DataFrame, column: str, title: str) -> list[Drawn]:
    """Draw for each value of ``column`` the learning curves and, below, the final accuracies."""
    values = list(dict.fromkeys(metrics[column]))
    final = panels.last_rows(metrics, [column])
    drawn: dict[str, DataFrame] = {}

    count = len(values)
    figure = Figure(figsize=(DOUBLE if count > 1 else 0.65 * DOUBLE, 4.4))
    grid = figure.subplots(2, count, squeeze=False)
    for place, value in enumerate(values):
        upper, lower = grid[0, place], grid[1, place]
        rows = metrics[metrics[column] == value]
        drawn[layout.letter(place)] = panels.accuracy_curves(upper, rows).assign(**{column: value})
        layout.title(upper, name_of(str(value)), place)
        shown, pairs = final.loc[final[column] == value, [*panels.RUN, column]], [("BP", "IFA 0°"), ("IFA 0°", "FA")]
        label = "final test accuracy (%)"
        drawn[layout.letter(count + place)] = panels.rules_panel(lower, shown, label, pairs, counts=count < 3)
        layout.title(lower, "", count + place)
        if count > 2:
            lower.tick_params(axis="x", rotation=40)
        for axes in (upper, lower):
            axes.set_ylabel(axes.get_ylabel() if place == 0 else "")
    series = panels.legend_of(figure, metrics)
    tested = any("p = " in text.get_text() for axes in figure.axes for text in axes.texts)
    note = layout.seeds_note(series) + " p: two-sided rank-sum tests over seeds." * tested
    return panels.finished(figure, drawn, title, "BP, IFA and FA in other settings.", note=note)
