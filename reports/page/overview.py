"""The one table at the top of the page: each network with the figure of merit of each analysis."""

from collections.abc import Iterable, Mapping
from pathlib import PurePath

import pandas as pd
from pandas import DataFrame

from reports.analyses import all_analyses, known_tables
from reports.figures.series import place_of, rule_name, short_names


def overview(analyses: Mapping[str, DataFrame]) -> DataFrame | None:
    """Return one row per network: its name, then test accuracy, curvature, robust and corrupted accuracy.

    A run is one network whatever a table calls it (its folder, ``ckpt.pt``, a checkpoint of an epoch: the last one
    counts). Accuracies are in percent. None if no analysis has a known quantity.
    """
    table = _measured(analyses)
    if table is None:
        return None
    plain = [rule_name(str(rule), angle) for rule, angle in zip(table["rule"], table["angle"], strict=True)]
    short = short_names(table.index.tolist())
    repeated = table.duplicated(["rule", "angle", "seed"], keep=False)
    labels = [
        short[network] if not name else f"{name}, {short[network]}" if again else name
        for network, name, again in zip(table.index, plain, repeated, strict=True)
    ]
    table.insert(0, "network", labels)
    dull = ["rule", "angle"] + ([] if len(table["seed"].dropna().unique()) > 1 else ["seed"])
    return table.drop(columns=dull).reset_index(drop=True)


def quantities(analyses: Mapping[str, DataFrame]) -> DataFrame | None:
    """Return the numbers of :func:`overview` as ``rule, angle, seed, quantity, value``, for a figure of them."""
    table = _measured(analyses)
    if table is None:
        return None
    return table.melt(["rule", "angle", "seed"], var_name="quantity", value_name="value")


def _measured(analyses: Mapping[str, DataFrame]) -> DataFrame | None:
    """Return ``rule, angle, seed`` and the quantities of every network, indexed by network, ordered by rule."""
    merits = {"metrics": _metrics, **{kind: analysis.merits for kind, analysis in all_analyses().items()}}
    known = known_tables()
    frames = {
        kind: frame
        for kind in merits
        if (frame := analyses.get(kind)) is not None
        and not frame.empty
        and {"checkpoint", *known[kind].names("key"), *known[kind].names("value")} <= set(frame.columns)
    }
    names = _one_name_each(name for frame in frames.values() for name in frame["checkpoint"].astype(str).unique())
    tables = {
        kind: _latest(frame.assign(network=frame["checkpoint"].astype(str).map(names)))
        for kind, frame in frames.items()
    }
    parts = [part for kind, table in tables.items() if (part := merits[kind](table)) is not None]
    if not parts:
        return None
    table = _identity(tables.values()).join(pd.concat(parts, axis=1), how="inner")
    return table.sort_values(["order", "angle", "seed"], kind="stable").drop(columns="order")


def _one_name_each(names: Iterable[str]) -> dict[str, str]:
    """Map every name to the shortest one of the same network: ``/a/runs/fa/ckpt.pt`` and ``runs/fa`` are one."""
    stripped = {name: _run(name) for name in names}
    known = sorted(set(stripped.values()), key=len)
    return {
        name: "/".join(next(other for other in known if parts[-len(other) :] == other))
        for name, parts in stripped.items()
    }


def _run(name: str) -> tuple[str, ...]:
    """Return the parts of the path of a run, without the file of its checkpoint."""
    parts = PurePath(name).parts or (name,)
    if len(parts) > 1 and parts[-1] == "ckpt.pt":
        parts = parts[:-1]
    if len(parts) > 2 and parts[-2] == "checkpoints":
        parts = parts[:-2]
    return tuple(part for part in parts if part != "/") or (name,)


def _latest(table: DataFrame) -> DataFrame:
    """Return the rows of each network's last epoch, indexed by network."""
    if "epoch" in table and table["epoch"].notna().any():
        last = table.groupby("network")["epoch"].transform("max")
        table = table[table["epoch"].isna() | (table["epoch"] == last)]
    return table.set_index("network")


def _identity(tables: Iterable[DataFrame]) -> DataFrame:
    """Return ``rule, angle, seed`` and the place of the rule in every list, by network."""
    columns = ["rule", "angle", "seed"]
    known = pd.concat([table.reindex(columns=columns) for table in tables])
    first = known.groupby(level="network", sort=False).first()
    first["rule"] = first["rule"].astype(object).where(first["rule"].notna(), "")
    for column in ("angle", "seed"):
        first[column] = pd.to_numeric(first[column])
    first["angle"] = first["angle"].where(first["rule"] == "ifa")
    first["order"] = [place_of(str(rule)) for rule in first["rule"]]
    return first


def _metrics(table: DataFrame) -> DataFrame:
    return (100 * table["test_accuracy"]).groupby(level=0, sort=False).last().to_frame("test accuracy (%)")
