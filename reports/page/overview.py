"""The tables at the top of the page: each rule, and each network, with the figure of merit of each analysis."""

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from pandas import DataFrame

from alignscape.errors import InputError
from reports.analyses import all_analyses, known_tables
from reports.figures.series import place_of, rule_name, short_names
from reports.page.collect import Table
from reports.page.latex import short_number
from reports.page.metric_table import metric_table_of
from reports.page.variants import Variants, one_name_each


def overview(analyses: Mapping[str, DataFrame], variants: Variants | None = None) -> DataFrame | None:
    """Return one row per network: its name, then test accuracy, curvature, robust and corrupted accuracy.

    A run is one network whatever a table calls it (its folder, ``ckpt.pt``, a checkpoint of an epoch: the last one
    counts). Accuracies are in percent. None if no analysis has a known quantity.
    """
    table = _measured(analyses)
    if table is None:
        return None
    texts = ["" if variants is None else variants.text(str(network)) for network in table.index]
    names = [rule_name(str(rule), angle) for rule, angle in zip(table["rule"], table["angle"], strict=True)]
    plain = [", ".join(filter(None, pair)) for pair in zip(names, texts, strict=True)]
    runs = table.pop("run")
    short = short_names(table.index.tolist()) | {network: str(run) for network, run in runs.dropna().items()}
    repeated = table.assign(variant=texts).duplicated(["rule", "angle", "seed", "variant"], keep=False)
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
    return table.drop(columns="run").melt(["rule", "angle", "seed"], var_name="quantity", value_name="value")


def told_apart(tables: Sequence[Table]) -> tuple[set[tuple[str, str]], list[str]]:
    """Return which (rule, metric) is among the best as far as a test over seeds says, and what is said of the tests;
    nothing where the tables are not such that they can be compared."""
    try:
        found = metric_table_of(tables)
    except InputError:
        return set(), []
    best = found.rows[found.rows["bold"]]
    return set(zip(best["label"], best["metric"], strict=True)), [*found.notes[1:]]


def by_rule(
    analyses: Mapping[str, DataFrame], variants: Variants, best: Container[tuple[str, str]] = ()
) -> dict[str, Any] | None:
    """Return the table of rules and metrics: a row for each group of networks that differ in their seed only.

    Args:
        best: (rule, metric) of :func:`told_apart`, which become bold.

    Returns:
        ``columns`` and ``rows`` as the page's template takes them: a cell is mean and standard deviation over seeds,
        its ``note`` the 95 % interval of the mean (Student's t) and the number of seeds where it is not ``n``. None if
        no analysis has a known quantity.
    """
    table = _measured(analyses)
    if table is None:
        return None
    records = {str(name): row for name, row in table.to_dict("index").items()}
    labels = {name: variants.label(name, {str(k): v for k, v in row.items()}) for name, row in records.items()}
    metrics = [str(name) for name in table if name not in ("rule", "angle", "seed", "run")]
    rows = []
    for order, label in sorted(set(labels.values())):
        own = table.loc[[name for name in table.index if labels[str(name)] == (order, label)]]
        for name, group in [(label, own)] if own["seed"].notna().all() else own.groupby(level=0, sort=False):
            cells = [
                {**_over_seeds(pd.to_numeric(group[metric]), len(group)), "best": (str(name), metric) in best}
                for metric in metrics
            ]
            rows.append([_cell(str(name)), _cell(str(len(group))), *cells])
    columns = [{"name": "rule", "numeric": False}, {"name": "n", "numeric": True}]
    return {"columns": columns + [{"name": name, "numeric": True} for name in metrics], "rows": rows}


def _cell(text: str, value: str | None = None, note: str = "") -> dict[str, Any]:
    return {"text": text, "value": text if value is None else value, "note": note, "best": False}


def _over_seeds(values: "pd.Series[float]", count: int) -> dict[str, Any]:
    """Return mean, standard deviation and interval of one metric, as far as there are numbers."""
    from scipy import stats

    finite = values[np.isfinite(values)].to_numpy(float)
    if not len(finite):
        return _cell("")
    mean = float(finite.mean())
    if len(finite) == 1:
        return _cell(short_number(mean), repr(mean), "one seed" if count > 1 else "")
    spread = float(finite.std(ddof=1))
    half = float(stats.t.ppf(0.975, len(finite) - 1)) * spread / math.sqrt(len(finite))
    digits = _digits(spread)
    interval = f"[{_round(mean - half, digits)}, {_round(mean + half, digits)}]"
    fewer = f", n = {len(finite)}" if len(finite) != count else ""
    return _cell(f"{_round(mean, digits)} ± {_round(spread, digits)}", repr(mean), interval + fewer)


def _digits(spread: float) -> int:
    """Return after how many decimals a mean is cut: two significant digits of its spread."""
    return 4 if spread == 0 else 1 - math.floor(math.log10(abs(spread)))


def _round(value: float, digits: int) -> str:
    if abs(value) >= 1e6 or digits > 6:
        return f"{value:.4g}"
    return f"{round(value, digits):.{max(0, digits)}f}"


def _measured(analyses: Mapping[str, DataFrame]) -> DataFrame | None:
    """Return ``rule, angle, seed``, the name of a ``run`` in a store, and the quantities of every network, indexed by
    network, ordered by rule."""
    merits = {"metrics": _metrics, **{kind: analysis.merits for kind, analysis in all_analyses().items()}}
    known = known_tables()
    frames = {
        kind: frame
        for kind in merits
        if (frame := analyses.get(kind)) is not None
        and not frame.empty
        and {"checkpoint", *known[kind].names("key"), *known[kind].names("value")} <= set(frame.columns)
    }
    names = one_name_each(name for frame in frames.values() for name in frame["checkpoint"].astype(str).unique())
    tables = {
        kind: _latest(frame.assign(network=frame["checkpoint"].astype(str).map(names)))
        for kind, frame in frames.items()
    }
    parts = [part for kind, table in tables.items() if (part := merits[kind](table)) is not None]
    if not parts:
        return None
    table = _identity(tables.values()).join(pd.concat(parts, axis=1), how="inner")
    return table.sort_values(["order", "angle", "seed"], kind="stable").drop(columns="order")


def _latest(table: DataFrame) -> DataFrame:
    """Return the rows of each network's last epoch, indexed by network."""
    if "epoch" in table and table["epoch"].notna().any():
        last = table.groupby("network")["epoch"].transform("max")
        table = table[table["epoch"].isna() | (table["epoch"] == last)]
    return table.set_index("network")


def _identity(tables: Iterable[DataFrame]) -> DataFrame:
    """Return ``rule, angle, seed, run`` and the place of the rule in every list, by network."""
    columns = ["rule", "angle", "seed", "run"]
    known = pd.concat([table.reindex(columns=columns) for table in tables])
    first = known.groupby(level="network", sort=False).first()
    first["rule"] = first["rule"].astype(object).where(first["rule"].notna(), "")
    for column in ("angle", "seed"):
        first[column] = pd.to_numeric(first[column])
    first["angle"] = first["angle"].where(first["rule"] == "ifa")
    first["order"] = [place_of(str(rule)) for rule in first["rule"]]
    return first


def _metrics(table: DataFrame) -> DataFrame:
    """Return what each run ended with; nothing of one that diverged."""
    last = table.groupby(level=0, sort=False).tail(1)
    values = 100 * last["test_accuracy"]
    values = values.where(last["diverged"].ne(True)) if "diverged" in last else values
    return values.to_frame("test accuracy (%)")
