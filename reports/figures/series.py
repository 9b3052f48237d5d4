"""Which rows of a table make one series, what it is called, and how its seeds become one value with an error bar."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

import numpy as np
import pandas as pd
from pandas import DataFrame

from alignscape.errors import InputError
from reports.style import RULES, Look, cycle_look, rule_look

_FILE_NAMES = ("ckpt.pt", "checkpoints")
_LONGEST = 28  # characters of a checkpoint name in a legend


@dataclass(frozen=True, kw_only=True)
class Series:
    """Rows of one or several checkpoints that are drawn as one line."""

    label: str
    look: Look
    frame: DataFrame
    checkpoints: int  # more than one: replicates that differ in seed only


def require(frame: DataFrame, columns: Iterable[str], *, table: str) -> None:
    """Check that ``frame`` has ``columns`` and at least one row.

    Raises:
        InputError: naming the missing columns, or saying that the table is empty.
    """
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        have = ", ".join(map(str, frame.columns)) or "none"
        raise InputError(f"{table} lacks the column(s) {', '.join(missing)}; it has: {have}")
    if frame.empty:
        raise InputError(f"{table} has no rows; run the analysis again")


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """Return a short name for each path, without what all share, shortened in the middle, no two alike."""
    parts = {path: _meaningful_parts(path) for path in dict.fromkeys(paths)}
    lead = _shared_lead(list(parts.values())) if len(parts) > 1 else 0
    names: dict[str, str] = {}
    taken: set[str] = set()
    for path, pieces in parts.items():
        rest = pieces[lead:] or pieces[-1:]
        name = "/".join(rest if len(parts) > 1 else pieces[-1:])
        if len(name) > _LONGEST:
            half = (_LONGEST - 1) // 2
            name = f"{name[:half]}…{name[-half:]}"
        names[path] = f"{name} ({path})" if name in taken else name
        taken.add(names[path])
    return names


def called(groups: Sequence[DataFrame]) -> dict[str, str]:
    """Return a short name for each checkpoint: the name of its run where the table says one (a run in a store, whose
    path is a key) and no other has it, else one of its path."""
    paths = [str(path) for rows in groups for path in rows["checkpoint"].unique()]
    names = short_names(paths)
    known = {
        str(path): str(run)
        for rows in groups
        if "run" in rows
        for path, run in rows[["checkpoint", "run"]].dropna().drop_duplicates().itertuples(index=False)
    }
    owners = Counter(known.values())
    return names | {path: run if owners[run] == 1 else f"{run} {names[path]}" for path, run in known.items()}


def _shared_lead(paths: Sequence[list[str]]) -> int:
    """Return how many leading pieces all paths share."""
    return next((i for i, pieces in enumerate(zip(*paths, strict=False)) if len(set(pieces)) > 1), min(map(len, paths)))


def _meaningful_parts(path: str) -> list[str]:
    pieces = [piece for piece in PurePath(path).parts if piece not in (*_FILE_NAMES, os.sep)]
    if pieces:
        pieces[-1] = pieces[-1].removesuffix(".pt").removesuffix(".safetensors")
    return pieces or [path or "checkpoint"]


def rule_name(rule: str, angle: float | None = None) -> str:
    """Return the name in a legend: ``BP``, ``IFA 45°``, ``Hebb (mynet)`` for the rule ``mynet:Hebb``."""
    module, colon, class_name = rule.partition(":")
    name = rule.upper() if rule in RULES else f"{class_name} ({module})" if colon else rule
    return f"{name} {angle:g}°" if rule == "ifa" and angle is not None and not np.isnan(angle) else name


def place_of(rule: str) -> tuple[int, str]:
    """Return what rules are sorted by: ours in the order of their looks, others by name, then networks without one."""
    if rule in RULES:
        return list(RULES).index(rule), ""
    return (len(RULES), rule) if rule_look(rule) else (len(RULES) + 1, "")


def series_of(frame: DataFrame, *, along: str | None = None) -> list[Series]:
    """Split a table into series, in the order BP, IFA by angle, FA, the other rules, then nets of no known rule.

    Checkpoints of one rule and angle that differ in ``seed`` only become one series. Everything else that differs
    (an epoch, unless it is the x axis ``along``; other settings, where a column ``variant`` names them; a second run
    with the same seed) keeps them apart.
    """
    table = frame.copy()
    table["checkpoint"] = table["checkpoint"].astype(str)
    for column in ("rule", "angle", "seed", "epoch"):
        if column not in table:
            table[column] = None if column == "rule" else np.nan
    table["rule"] = table["rule"].where(table["rule"].notna(), "")
    table["angle"] = pd.to_numeric(table["angle"]).where(table["rule"] == "ifa")
    table["variant"] = table["variant"].fillna("") if "variant" in table else ""
    split_epochs = along != "epoch" and _several_epochs(table)
    keys = ["rule", "angle", "variant"] + (["epoch"] if split_epochs else [])
    groups: list[tuple[str, float, float, DataFrame]] = []
    for _, rows in table.groupby(keys, dropna=False, sort=False):
        head = rows.iloc[0]
        epoch = float(head["epoch"]) if split_epochs else float("nan")
        parts = [rows] if head["rule"] and _replicates(rows) else [r for _, r in rows.groupby("checkpoint", sort=False)]
        groups += [(str(head["rule"]), float(head["angle"]), epoch, part) for part in parts]
    groups.sort(key=lambda g: (*place_of(g[0]), np.nan_to_num(g[1]), g[3]["variant"].iloc[0], g[2]))
    return _named(groups)


def _several_epochs(table: DataFrame) -> bool:
    keys = ["rule", "angle", "variant", "seed"]
    return bool(table.groupby(keys, dropna=False)["epoch"].agg(lambda epochs: len(epochs.unique()) > 1).any())


def _replicates(rows: DataFrame) -> bool:
    """True if the checkpoints are one per seed (or one per seed and epoch)."""
    if len(rows["checkpoint"].unique()) == 1:
        return True
    runs = rows[["seed", "epoch", "checkpoint"]].drop_duplicates()
    return bool(runs["seed"].notna().all() and not runs.duplicated(["seed", "epoch"]).any())


def _named(groups: list[tuple[str, float, float, DataFrame]]) -> list[Series]:
    names = called([rows for *_, rows in groups])
    rules = [rule_name(rule, angle) for rule, angle, *_ in groups]
    variants = [str(rows["variant"].iloc[0]) for *_, rows in groups]
    plain = [", ".join(filter(None, pair)) for pair in zip(rules, variants, strict=True)]
    result: list[Series] = []
    others = 0
    owners: dict[Look, str] = {}
    for (rule, angle, epoch, rows), name in zip(groups, plain, strict=True):
        look = rule_look(rule, angle)
        if look is not None and owners.setdefault(look, rule) != rule:  # rare: two rules of others look the same
            look = None
        alone = plain.count(name) == 1
        if look is None or (not alone and np.isnan(epoch)):
            look, others = cycle_look(others), others + 1
        elif rules.count(rule_name(rule, angle)) > 1 and np.isnan(epoch):  # the rule's colour, another line
            place = sum(one.look.colour == look.colour for one in result)
            look = look if not place else replace(look, linestyle=cycle_look(7 + place).linestyle)
        path = rows["checkpoint"].iloc[0]
        label = names[path] if not rule else name if alone else f"{name}, {names[path]}"
        if not np.isnan(epoch):
            label = f"{names[path]}, epoch {epoch:g}" if not rule else f"{name}, epoch {epoch:g}"
            look = Look(colour=look.colour, marker=look.marker, linestyle=cycle_look(8 + len(result)).linestyle)
        count = rows.loc[:, ["seed", "checkpoint"]].drop_duplicates()["seed"].nunique(dropna=False)
        result.append(Series(label=label, look=look, frame=rows, checkpoints=count))
    return result


def over_seeds(
    rows: DataFrame, x: str | list[str], y: str, low: str | None = None, high: str | None = None, *, scale: float = 1.0
) -> DataFrame:
    """Return one row per value of ``x`` with ``value, low, high, n``; all but ``n`` times ``scale`` (100: percent).

    Several rows of one ``x`` are replicates: their mean and one sample standard deviation. A single row keeps its own
    interval (``low``, ``high``), or none (NaN). Values that are not finite are left out of the mean, and a point
    without any is NaN.
    """
    keys = [x] if isinstance(x, str) else x
    table = rows.loc[:, [*keys, y]].copy()
    table["value"] = pd.to_numeric(rows[y]).replace([np.inf, -np.inf], np.nan)
    table["low"] = pd.to_numeric(rows[low]) if low else np.nan
    table["high"] = pd.to_numeric(rows[high]) if high else np.nan
    grouped = table.groupby(keys, sort=True)
    result = grouped["value"].agg(value="mean", spread="std", n="count").reset_index()
    single = grouped[["low", "high"]].first().reset_index()
    several = result["n"] > 1
    result["low"] = np.where(several, result["value"] - result["spread"], single["low"])
    result["high"] = np.where(several, result["value"] + result["spread"], single["high"])
    result[["value", "low", "high"]] *= scale
    return result.drop(columns="spread")
