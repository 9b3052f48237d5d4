"""The one table at the top of the page: each network with the figure of merit of each analysis."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from pandas import DataFrame

from reports.figures.series import rule_name, short_names
from reports.style import RULES


def overview(analyses: Mapping[str, DataFrame]) -> DataFrame | None:
    """Return one row per network: name, then the last test accuracy, curvature, robust and corrupted accuracy.

    Networks of the same rule, angle and seed, whose name differs between tables (a run's folder in one, its
    checkpoint in another), are one row. Accuracies are in percent. None if no analysis has a known quantity.
    """
    parts = []
    for kind, summarise in _SUMMARIES.items():
        frame = analyses.get(kind)
        if frame is not None and not frame.empty and "checkpoint" in frame:
            part = summarise(_identified(frame))
            if part is not None:
                parts.append(part)
    if not parts:
        return None
    table = pd.concat(parts, axis=1)
    order = list(RULES)
    rank = [(order.index(rule) if rule in order else len(order), angle, seed) for rule, angle, seed, _ in table.index]
    table = table.iloc[sorted(range(len(rank)), key=rank.__getitem__)]
    names = short_names([key[-1] for key in table.index if not key[0]])
    labels = [rule_name(rule, angle) if rule else names[name] for rule, angle, _, name in table.index]
    table.insert(0, "network", labels)
    seeds = [seed for _, _, seed, _ in table.index]
    if len({seed for seed in seeds if seed >= 0}) > 1:
        table.insert(1, "seed", [seed if seed >= 0 else np.nan for seed in seeds])
    return table.reset_index(drop=True)


def _identified(frame: DataFrame) -> DataFrame:
    """Return the rows of the last epoch of each network, indexed by what identifies it."""
    table = frame.copy()
    rule = table["rule"].fillna("").astype(str) if "rule" in table else pd.Series("", index=table.index)
    angle = pd.to_numeric(table["angle"]) if "angle" in table else pd.Series(np.nan, index=table.index)
    seed = pd.to_numeric(table["seed"]) if "seed" in table else pd.Series(np.nan, index=table.index)
    table["_rule"] = rule
    table["_angle"] = angle.where(rule == "ifa", -1.0).fillna(-1.0)
    table["_seed"] = seed.fillna(-1).astype(int)
    table["_name"] = table["checkpoint"].astype(str).where(rule == "", "")
    if "epoch" in table and table["epoch"].notna().any():
        last = table.groupby(_KEYS)["epoch"].transform("max")
        table = table[table["epoch"].isna() | (table["epoch"] == last)]
    return table.set_index(_KEYS)


_KEYS = ["_rule", "_angle", "_seed", "_name"]


def _metrics(table: DataFrame) -> DataFrame | None:
    if "test_accuracy" not in table:
        return None
    return _percent(table["test_accuracy"]).groupby(level=_KEYS, sort=False).last().to_frame("test accuracy (%)")


def _hessian(table: DataFrame) -> DataFrame:
    trace = table.loc[table["quantity"] == "trace", "value"]
    eigenvalues = table[table["quantity"] == "eigenvalue"]
    columns = {"Hessian trace": trace, "top eigenvalue": eigenvalues["value"]}
    return pd.DataFrame({name: values.groupby(level=_KEYS, sort=False).max() for name, values in columns.items()})


def _attack(table: DataFrame) -> DataFrame | None:
    true = table[table["gradient"] == "true"]
    if true.empty:
        return None
    eps = true["eps"].max()
    worst = _percent(true.loc[true["eps"] == eps, "accuracy"]).groupby(level=_KEYS, sort=False).min()
    return worst.to_frame(f"lowest accuracy at ε = {eps:g} (%)")


def _corruptions(table: DataFrame) -> DataFrame:
    cells = table.loc[pd.to_numeric(table["severity"]) >= 1, "accuracy"]
    return _percent(cells).groupby(level=_KEYS, sort=False).mean().to_frame("mean corrupted accuracy (%)")


def _percent(values: "pd.Series[float]") -> "pd.Series[float]":
    return 100 * pd.to_numeric(values)


_SUMMARIES: dict[str, Callable[[DataFrame], DataFrame | None]] = {
    "metrics": _metrics,
    "hessian": _hessian,
    "attack": _attack,
    "corruptions": _corruptions,
}
