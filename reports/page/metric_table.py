"""The one table of a paper: a row a rule, a column a metric, mean and standard deviation over seeds.

The best is bold only where a test tells it from another: Welch's t-test over seeds of the best mean against every other
rule, Holm's correction over the rules of a column. What is not told from the best is bold with it.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas import DataFrame
from scipy import stats

from alignscape.errors import InputError
from reports.figures.series import place_of, rule_name, short_names
from reports.page.collect import Table
from reports.page.measured import Measured, gathered, measured
from reports.page.variants import differences, shown, value_of
from robustness.comparison import holm

LEVEL = 0.05
HIGHER = ("accuracy", "radius")  # words of metrics of which more is better
LOWER = ("loss", "trace", "eigenvalue", "asam", "sharpness", "mce")
COMPARED_WITHIN = (
    "dataset",
    "model",
    "hidden",
    "optimiser",
    "epochs",
    "train_size",
)  # else a test says little of rules
COLUMNS = ("rule", "angle", "label", "metric", "better", "mean", "sd", "n", "compared", "p_holm", "bold")


@dataclass(frozen=True, kw_only=True)
class MetricTable:
    """Rules by metrics.

    Attributes:
        rows: one row a rule and metric: ``rule, angle, label, metric, better`` (higher, lower or nothing), ``mean, sd``
            (sample standard deviation), ``n`` (seeds), ``compared`` (whether it took part in the tests), ``p_holm``
            (against the best) and ``bold``.
        notes: what a reader has to know, sentence by sentence.
        apart: rows that were trained otherwise than most, and are not compared with them.

    Example:
        >>> import tempfile
        >>> from alignscape import train
        >>> from reports import metric_table
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = train(folder, rule="fa", seed=[0, 1], hidden=(8,), epochs=1)
        ...     metric_table([folder]).rows[["label", "metric", "n"]].to_dict("records")
        [{'label': 'FA', 'metric': 'test accuracy (%)', 'n': 2}, {'label': 'FA', 'metric': 'train loss', 'n': 2}]
    """

    rows: DataFrame
    notes: tuple[str, ...]
    apart: tuple[str, ...] = ()

    @property
    def metrics(self) -> list[str]:
        """The metrics in order."""
        return list(dict.fromkeys(self.rows["metric"]))

    @property
    def labels(self) -> list[str]:
        """The rows' names in order."""
        return list(dict.fromkeys(self.rows["label"]))


def metric_table(sources: Sequence[str | Path], metrics: Sequence[str] | None = None) -> MetricTable:
    """Return rules by metrics from run folders, folders of results, run stores or CSV tables.

    Example:
        >>> import tempfile
        >>> from alignscape import train
        >>> from reports import metric_table
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = train(folder, rule="bp", seed=[0, 1], hidden=(8,), epochs=1)
        ...     metric_table([folder], ["test accuracy"]).metrics
        ['test accuracy (%)']

    Args:
        sources: where the tables are.
        metrics: names of metrics, or words in them (default: the figures of merit of each analysis).

    Raises:
        InputError: no tables, an unknown metric, or two networks of one rule and seed.
    """
    return metric_table_of(gathered(Path(source) for source in sources), metrics)


def metric_table_of(tables: Sequence[Table], metrics: Sequence[str] | None = None) -> MetricTable:
    """Return rules by metrics from tables that were read already, as the page has them."""
    found = measured(tables)
    chosen = list(found.usual) if metrics is None else found.chosen(metrics)
    rows = _rows_of(found)
    seeds: dict[str, list[Any]] = {
        str(label): list(networks.index) for label, networks in rows.groupby("label", sort=False)
    }
    alike = _trained_alike(found, seeds)
    parts = [_column(found.numbers[metric], metric, seeds, alike) for metric in chosen]
    table = pd.concat(parts, ignore_index=True)
    about = rows.drop_duplicates("label").set_index("label")[["rule", "angle"]]
    table = table.join(about, on="label")[list(COLUMNS)]
    apart = tuple(label for label, same in alike.items() if not same)
    return MetricTable(rows=table, notes=tuple(_notes(table, found, seeds, alike)), apart=apart)


def _rows_of(found: Measured) -> DataFrame:
    """Return the networks with their ``label``, in the order of the rules.

    Raises:
        InputError: two networks of one rule, settings and seed.
    """
    networks = found.networks.copy()
    short = short_names([str(name) for name in networks.index])
    networks["label"] = [
        rule_name(str(rule), angle) if rule else short[str(name)]
        for name, rule, angle in zip(networks.index, networks["rule"], networks["angle"], strict=True)
    ]
    for _, own in networks[networks["rule"] != ""].groupby("label"):
        told = differences([found.configs.get(str(name), {}) for name in own.index])
        networks.loc[own.index, "label"] += [f", {text}" if text else "" for text in told]
    twice = networks[(networks["rule"] != "") & networks.duplicated(["label", "seed"], keep=False)]
    if len(twice):
        label, seed = twice.iloc[0][["label", "seed"]]
        same = [str(name) for name in twice.index[(twice["label"] == label) & (twice["seed"] == seed)]]
        more = "" if set(same) <= set(found.configs) else ", or their run folders too, which say in what they differ"
        text = f"{', '.join(same[:3])} are all {label}, seed {seed:g}, and no seeds of their own: give one"
        raise InputError(f"{text}{more}")
    networks["order"] = [place_of(str(rule)) for rule in networks["rule"]]
    return networks.sort_values(["order", "angle", "label", "seed"], kind="stable")


def _trained_alike(found: Measured, seeds: Mapping[str, Sequence[Any]]) -> dict[str, bool]:
    """Return which rows are compared: those that most rows share data, network, optimiser and epochs with."""
    ways = {
        label: tuple(str(value_of(found.configs.get(str(own[0]), {}), name)) for name in COMPARED_WITHIN)
        for label, own in seeds.items()
    }
    ((most, _),) = Counter(ways.values()).most_common(1)
    return {label: way == most for label, way in ways.items()}


def _column(
    values: "pd.Series[float]", metric: str, seeds: Mapping[str, Sequence[Any]], alike: Mapping[str, bool]
) -> DataFrame:
    """Return one metric: a row a label, with the tests against the best."""
    found = {label: _finite(values.reindex(list(own))) for label, own in seeds.items()}
    better = direction(metric)
    rows = [
        {
            "label": label,
            "metric": metric,
            "better": better,
            "mean": float(own.mean()) if len(own) else math.nan,
            "sd": float(own.std(ddof=1)) if len(own) > 1 else math.nan,
            "n": len(own),
            "compared": bool(better) and alike[label] and len(own) > 1,
        }
        for label, own in found.items()
    ]
    p_values, bold = _tests(DataFrame(rows), found, alike)
    return DataFrame(rows).assign(
        p_holm=[p_values.get(label, math.nan) for label in found], bold=[label in bold for label in found]
    )


def _finite(values: "pd.Series[float]") -> "np.ndarray[Any, np.dtype[np.float64]]":
    numbers = pd.to_numeric(values).to_numpy(float)
    return numbers[np.isfinite(numbers)]


def _tests(rows: DataFrame, values: Mapping[str, Any], alike: Mapping[str, bool]) -> tuple[dict[str, float], set[str]]:
    """Return the p-value of each row against the best, adjusted for their number, and which rows are bold."""
    better = rows["better"].iloc[0]
    means = {label: float(own.mean()) for label, own in values.items() if alike[label] and len(own)}
    if not better or not means:
        return {}, set()
    best = (max if better == "higher" else min)(means, key=lambda label: means[label])
    others = [str(label) for label in rows.loc[rows["compared"], "label"] if label != best]
    if len(values[best]) < 2 or not others:
        return {}, set()
    p_values = dict(zip(others, holm([welch(values[best], values[label]) for label in others]), strict=True))
    if min(p_values.values()) >= LEVEL:
        return p_values, set()
    return p_values, {best, *(label for label, p in p_values.items() if p >= LEVEL)}


def welch(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the two-sided p-value of Welch's t-test, at least two numbers each; of two groups without any spread 0
    where they differ and 1 where they do not."""
    one, two = np.asarray(first, float), np.asarray(second, float)
    if np.ptp(one) == 0 and np.ptp(two) == 0:
        return float(one[0] == two[0])
    return float(stats.ttest_ind(one, two, equal_var=False).pvalue)


def direction(metric: str) -> str:
    """Return whether ``higher`` or ``lower`` is better of a metric, nothing where it is neither."""
    name = metric.casefold()
    if any(word in name for word in HIGHER):
        return "higher"
    return "lower" if any(word in name for word in LOWER) else ""


def _told(config: Mapping[str, Any], name: str) -> Any:
    return shown(value_of(config, name)) if config else "?"


def _notes(
    table: DataFrame, found: Measured, seeds: Mapping[str, Sequence[Any]], alike: Mapping[str, bool]
) -> list[str]:
    """Return what the table does not say by itself."""
    counts = sorted(set(table["n"]))
    notes = ["Mean ± standard deviation over seeds; n: seeds."] if max(counts) > 1 else ["One seed each: no spread."]
    if table["compared"].any():
        notes.append(
            "Bold: the highest (↑) or lowest (↓) mean, and what Welch's t-test over seeds does not tell from it "
            f"(p ≥ {LEVEL:g}, Holm's correction over the rows of a column); nothing where no row is told from the best."
        )
    if any(len(own) < 2 for own in seeds.values()) and max(counts) > 1:
        notes.append("Rows of one seed take no part in the tests.")
    if others := [label for label, same in alike.items() if not same]:
        one, most = found.configs.get(str(seeds[others[0]][0]), {}), next(k for k, same in alike.items() if same)
        usual = found.configs.get(str(seeds[most][0]), {})
        how = [name for name in COMPARED_WITHIN if str(value_of(one, name)) != str(value_of(usual, name))]
        told = ", ".join(f"{name.replace('_', ' ')} {_told(one, name)}, not {_told(usual, name)}" for name in how)
        notes.append(f"† trained otherwise ({told}): not compared with the others.")
    if (table.groupby("label")["n"].max().reindex(list(seeds)) < [len(own) for own in seeds.values()]).any():
        notes.append("Runs that diverged count in no mean.")
    return notes
