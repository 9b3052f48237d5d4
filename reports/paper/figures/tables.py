"""Tables S1 and S2, and the table of claims."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from pandas import DataFrame

from reports.figures.series import rule_name
from reports.paper.claims import beforehand, claims_table
from reports.paper.figures import panels
from reports.paper.figures.generality import name_of
from reports.paper.figures.training import update_accesses
from reports.paper.judgement import printed
from reports.paper.quantities import stop_early
from reports.paper.stated import smallest
from reports.paper.target import Drawn, Tables
from reports.paper.verdicts import seeds_needed
from training.data import described


def networks(tables: Tables) -> list[Drawn]:
    """Make table S1: final training and test accuracy of every rule in each convolutional network."""
    return [_accuracies(tables["metrics"], "network", "Accuracy of convolutional networks", more=["lr"])]


def data_sets(tables: Tables, *, patience: int) -> list[Drawn]:
    """Make table S2: final training and test accuracy of every rule on each data set."""
    stopped = stop_early(tables["metrics"], patience)
    return [_accuracies(stopped, "dataset", "Accuracy on other data sets")]


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
    caption = f"Mean ± one standard deviation over seeds. {panels.FINAL}"
    runs = final[columns].reset_index(drop=True)
    return Drawn(title=title, caption=caption, table=runs, summary=pd.DataFrame(rows))


def _mean_and_sd(values: "pd.Series[float]") -> str:
    return f"{values.mean():.1f}" + (f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else "")


def claims(
    tables: Tables,
    *,
    patience: int,
    hidden: Sequence[int],
    dataset: str,
    batch_size: int,
    profile: Mapping[str, Any],
) -> list[Drawn]:
    """Make the table of claims, and beforehand that of which of them the seeds can decide."""
    accesses = _accesses(hidden, dataset, batch_size)
    known = dict(tables)
    if "datasets" in known:
        known["datasets"] = stop_early(known["datasets"], patience)
    table = claims_table(known, accesses=accesses, chance=1 / described(dataset).classes,
                         eps=smallest(profile["shown_eps"]))  # fmt: skip
    told = beforehand(profile)
    count, need = int(told["can_be_decided"].sum()), seeds_needed(len(told))
    caption = (
        "Each claim, the statistic that decides it, and what the runs of this profile say. p: one-sided signed-rank "
    )
    caption += "test over seeds, by Holm's correction; in brackets the 95 % interval, of N < 6 seeds their range "
    caption += "(which covers by 1 - 2^(1-N))."
    before = "Known before anything is trained: the least p of N seeds is 2^-N, times the number of claims tested "
    before += f"({count} of {len(told)}). To decide all of them takes {need} seeds of everything."
    return [
        Drawn(title="The paper's claims", caption=caption, table=table, summary=printed(table)),
        Drawn(suffix="-beforehand", title="Claims that the seeds can decide", caption=before, table=told),
    ]


def _accesses(hidden: Sequence[int], dataset: str, batch_size: int) -> dict[str, float]:
    """Return what one update reads and writes by rule, and ``shared``, with one memory for both directions."""

    def total(counts: DataFrame) -> "pd.Series[float]":
        return counts.groupby("rule")[["reads", "writes"]].sum().sum(axis=1)

    apart, shared = (total(update_accesses(hidden, dataset, batch_size, shared_memory=one)) for one in (False, True))
    return {**{str(rule): float(count) for rule, count in apart.items()}, "shared": float(shared["bp"])}
