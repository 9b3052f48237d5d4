"""Tables S1 and S2, and the table of claims."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from pandas import DataFrame

from reports.figures.series import rule_name
from reports.paper.claims import claims_table
from reports.paper.figures import panels
from reports.paper.figures.generality import name_of, stop_early
from reports.paper.figures.training import update_accesses
from reports.paper.target import Drawn, Tables


def networks(tables: Tables) -> list[Drawn]:
    """Make table S1: final training and test accuracy of every rule in each convolutional network."""
    return [_accuracies(tables["metrics"], "network", "Accuracy of convolutional networks", more=["lr"])]


def data_sets(tables: Tables, *, patience: int) -> list[Drawn]:
    """Make table S2: accuracy of every rule on each data set, at the epoch with the best test accuracy."""
    stopped = stop_early(tables["metrics"], patience)
    best = stopped.loc[stopped.groupby(["checkpoint", "dataset"], sort=False)["test_accuracy"].idxmax()]
    return [_accuracies(best, "dataset", "Accuracy on other data sets")]


def _accuracies(metrics: DataFrame, column: str, title: str, more: Sequence[str] = ()) -> Drawn:
    final = panels.last_rows(metrics, [column])
    keys = [column, *more, "rule", "angle"]
    columns = [*keys, "seed", "epoch", "train_accuracy", "test_accuracy", "test_loss"]
    rows = []
    for key, group in final.groupby(keys, sort=False, dropna=False):
        named: dict[str, Any] = dict(zip(keys, key, strict=True))
        cells = {column: name_of(str(named[column])), **{name: named[name] for name in more}}
        cells["rule"] = rule_name(str(named["rule"]), named["angle"])
        for name in ("train_accuracy", "test_accuracy"):
            cells[f"{name.replace('_', ' ')} (%)"] = _mean_and_sd(100 * group[name])
        rows.append({**cells, "epochs": f"{group['epoch'].mean():.0f}", "seeds": group["seed"].nunique()})
    caption, runs = "Mean ± one standard deviation over seeds.", final[columns].reset_index(drop=True)
    return Drawn(title=title, caption=caption, table=runs, summary=pd.DataFrame(rows))


def _mean_and_sd(values: "pd.Series[float]") -> str:
    return f"{values.mean():.1f}" + (f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else "")


def claims(tables: Tables, *, patience: int, hidden: Sequence[int], dataset: str, batch_size: int) -> list[Drawn]:
    """Make the table of claims."""
    counts = update_accesses(hidden, dataset, batch_size).groupby("rule")[["reads", "writes"]].sum().sum(axis=1)
    known = dict(tables)
    if "datasets" in known:
        known["datasets"] = stop_early(known["datasets"], patience)
    table = claims_table(known, accesses={str(rule): float(count) for rule, count in counts.items()})
    caption = "Each claim, the statistic that decides it, and what the runs of this profile say."
    return [Drawn(title="The paper's claims", caption=caption, table=table)]
