"""The paper's claims, each with the statistic that decides it, its test and a verdict by a rule stated beforehand.

The wording is ours, after the abstract and sections 4.1 to 4.4 of arXiv 2505.20892. Nothing here is typed in: every
number comes from the tables of the runs. The rules of the verdict are in ``docs/reproduction.md``.
"""

import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas import DataFrame
from scipy import stats

from robustness.comparison import holm, rank_sum

LEVEL = 0.05
HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
COMPARABLE = 2.0  # percentage points within which accuracies count as comparable
POINT = 1.0  # percentage points, or degrees: the smallest difference that matters
FACTOR = math.log10(1.1)  # ten per cent, of quantities compared on a logarithmic scale
MODERATE = (30.0, 60.0)  # degrees that count as a moderate deviation from symmetry

Values = NDArray[np.float64]
Tables = Mapping[str, DataFrame]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One claim and what became of it."""

    claim: str
    section: str
    statistic: str
    groups: str
    value: float = math.nan  # difference of means (first minus second), or rank correlation
    effect_size: float = math.nan  # chance that a run of the first exceeds one of the second, or the correlation
    ci_low: float = math.nan
    ci_high: float = math.nan
    p: float = math.nan
    smallest_p: float = math.nan  # the least p that so many runs can give
    n: str
    decided_by: str  # rank-sum test, permutation test, interval or count
    verdict: str = UNDECIDED


def claims_table(tables: Tables, *, accesses: Mapping[str, float]) -> DataFrame:
    """Return one row a claim.

    Args:
        tables: ``sweep`` (metrics of all networks), ``curvature`` (Hessians over epochs), ``hessian``, ``spectrum``,
            ``corruptions`` (means), ``attack-NAME``; where there are ``variances, depths, sizes, networks, datasets``.
        accesses: memory accesses of one update by rule.
    """
    frame = DataFrame([asdict(finding) for finding in _findings(tables, accesses)])
    frame.insert(int(frame.columns.get_loc("p")) + 1, "p_holm", np.nan)  # type: ignore[arg-type]
    tested = frame.index[frame["p"].notna() & frame["decided_by"].str.endswith("test")]
    frame.loc[tested, "p_holm"] = holm(frame.loc[tested, "p"].tolist())
    return frame


def _findings(tables: Tables, accesses: Mapping[str, float]) -> Iterator[Finding]:
    sweep = _last(tables["sweep"])
    yield from _learning(sweep)
    yield from _alignment(tables["sweep"], sweep)
    yield _fewer_accesses(accesses)
    yield _smoother(tables["curvature"])
    if "variances" in tables:
        yield from _trainability(tables)
    yield from _angles(sweep)
    yield from _flatness(tables)
    yield from _corruptions(tables["corruptions"])
    for name in ("fgsm", "bim", "pgd"):
        for gradient in ("true", "feedback"):
            yield _adversarial(tables[f"attack-{name}"], name, gradient)
    for table, column in (("networks", "network"), ("datasets", "dataset")):
        if table in tables:
            yield from _elsewhere(tables[table], column)


# What the claims are


def _learning(sweep: DataFrame) -> Iterator[Finding]:
    accuracy = sweep.assign(value=100 * sweep["test_accuracy"])
    about: dict[str, Any] = {"section": "abstract, 4.1", "statistic": "final test accuracy, percentage points"}
    bp, ifa, fa = (of(accuracy, rule) for rule in ("bp", "ifa", "fa"))
    yield greater("IFA learns better than FA", "IFA 0°, FA", ifa, fa, relevant=POINT, **about)
    yield equal("IFA is comparable to BP", "IFA 0°, BP", ifa, bp, margin=COMPARABLE, **about)
    soft = moderate(accuracy)
    yield greater("Soft alignment suffices to learn better than FA", "IFA 30° to 60°, FA", soft, fa, relevant=POINT,
                  **{**about, "section": "abstract, 4.2"})  # fmt: skip
    yield equal("Soft alignment is comparable to BP", "IFA 30° to 60°, BP", soft, bp, margin=COMPARABLE,
                **{**about, "section": "abstract, 4.2"})  # fmt: skip


def _alignment(metrics: DataFrame, last: DataFrame) -> Iterator[Finding]:
    layer = [name for name in metrics if str(name).startswith("angle_")][-1]
    first = metrics[metrics["epoch"] == 0]
    about: dict[str, Any] = {"section": "4.1", "statistic": "angle between W and B in the last layer, degrees"}
    end, start = (frame.assign(value=frame[layer]) for frame in (last, first))
    yield greater("The initial alignment persists: FA ends less aligned than IFA", "FA, IFA 0°", of(end, "fa"),
                  of(end, "ifa"), relevant=POINT, **about)  # fmt: skip
    yield greater("FA comes to align by itself", "FA at the start, FA at the end", of(start, "fa"), of(end, "fa"),
                  relevant=POINT, **about)  # fmt: skip


def _fewer_accesses(accesses: Mapping[str, float]) -> Finding:
    saved = accesses["bp"] - accesses["ifa"]
    return Finding(
        claim="Learning without weight transport needs fewer memory accesses",
        section="4.1",
        statistic="values read and written by one update, counted from layer shapes (separate memories)",
        groups="BP, IFA",
        value=saved,
        effect_size=saved / accesses["bp"],
        ci_low=saved,
        ci_high=saved,
        n="",
        decided_by="count",
        verdict=HOLDS if saved > 0 else FAILS,
    )


def _smoother(curvature: DataFrame) -> Finding:
    top = curvature[(curvature["quantity"] == "eigenvalue") & (curvature["index"] == 1) & (curvature["epoch"] > 0)]
    worst = top.groupby(["rule", "angle", "seed"], dropna=False)["value"].max().reset_index()
    values = _log(worst)
    return greater("Initial alignment guides a smoother descent: FA meets sharper curvature", "FA, IFA 0°",
                   of(values, "fa"), of(values, "ifa"), section="abstract, 4.1", relevant=FACTOR,
                   statistic="log10 of the largest top Hessian eigenvalue after any epoch")  # fmt: skip


def _trainability(tables: Tables) -> Iterator[Finding]:
    cells = _best(tables["variances"], "train_accuracy", ["forward", "backward"])
    about: dict[str, Any] = {"section": "4.1", "statistic": "largest training accuracy, percentage points"}
    yield greater("IFA can be trained over more initial variances than FA", "IFA 0°, FA; cells and seeds",
                  of(cells, "ifa"), of(cells, "fa"), relevant=POINT, **about)  # fmt: skip
    deep = _best(tables["depths"], "train_accuracy", ["depth"])
    deep = deep[deep["depth"] == deep["depth"].max()]
    layers = f"{int(deep['depth'].max())} hidden layers"
    yield greater("IFA trains deep networks better than FA", f"IFA 0°, FA; {layers}", of(deep, "ifa"), of(deep, "fa"),
                  relevant=POINT, **about)  # fmt: skip
    yield equal("IFA trains deep networks as BP does", f"IFA 0°, BP; {layers}", of(deep, "ifa"), of(deep, "bp"),
                margin=COMPARABLE, **about)  # fmt: skip
    sizes = _best(tables["sizes"], "test_accuracy", ["size"])
    yield greater("IFA learns better than FA from training sets of every size", "IFA 0°, FA; sizes and seeds",
                  of(sizes, "ifa"), of(sizes, "fa"), relevant=POINT, section="4.1",
                  statistic="largest test accuracy, percentage points")  # fmt: skip


def _angles(sweep: DataFrame) -> Iterator[Finding]:
    accuracy = sweep.assign(value=100 * sweep["test_accuracy"])
    yield trend("Accuracy falls with the initial angle", -1, accuracy, section="4.2",
                statistic="rank correlation of angle and final test accuracy")  # fmt: skip


def _flatness(tables: Tables) -> Iterator[Finding]:
    hessian = tables["hessian"]
    spread = tables["spectrum"].assign(square=lambda rows: rows["weight"] * rows["node"] ** 2)
    keys = ["rule", "angle", "seed"]
    probes = spread.groupby([*keys, "probe"], dropna=False)["square"].sum().reset_index()
    widths = probes.groupby(keys, dropna=False)["square"].mean().pow(0.5).rename("value").reset_index()
    kinds = {
        "trace of the Hessian": hessian[hessian["quantity"] == "trace"],
        "top Hessian eigenvalue": hessian[(hessian["quantity"] == "eigenvalue") & (hessian["index"] == 1)],
        "root mean square eigenvalue (SLQ)": widths,
    }
    names = {"root mean square eigenvalue (SLQ)": "The spectrum of IFA is narrower than FA's"}
    for kind, rows in kinds.items():
        values = _log(rows)
        claim = names.get(kind, "Initial alignment leads to flatter minima than FA")
        yield greater(claim, "FA, IFA 0°", of(values, "fa"), of(values, "ifa"), section="abstract, 4.3",
                      statistic=f"log10 of the {kind}", relevant=FACTOR)  # fmt: skip
        yield trend("Minima are the sharper the larger the initial angle", +1, values, section="4.3",
                    statistic=f"rank correlation of angle and {kind}")  # fmt: skip


def _corruptions(summary: DataFrame) -> Iterator[Finding]:
    rows = summary[(summary["quantity"] == "mean_accuracy") & (summary["group"] == "all")]
    accuracy = rows.assign(value=100 * rows["value"])
    about: dict[str, Any] = {
        "section": "abstract, 4.3",
        "statistic": "mean accuracy on corrupted images (severity 1), pct. points",
    }
    ifa = of(accuracy, "ifa")
    yield greater("IFA generalises to corrupted images better than FA", "IFA 0°, FA", ifa, of(accuracy, "fa"),
                  relevant=POINT, **about)  # fmt: skip
    yield equal("IFA is comparable to BP on corrupted images", "IFA 0°, BP", ifa, of(accuracy, "bp"),
                margin=COMPARABLE, **about)  # fmt: skip
    yield trend("Accuracy on corrupted images falls with the initial angle", -1, accuracy, section="4.3",
                statistic="rank correlation of angle and mean accuracy on corrupted images")  # fmt: skip


def _adversarial(attacks: DataFrame, name: str, gradient: str) -> Finding:
    rows = attacks[(attacks["gradient"] == gradient) & (attacks["eps"] > 0)]
    means = rows.groupby(["rule", "angle", "seed"], dropna=False)["accuracy"].mean().mul(100)
    accuracy = means.rename("value").reset_index()
    return greater(
        f"Moderate deviations from symmetry resist {name.upper()} better than BP ({gradient} gradient)",
        "IFA 30° to 60°, BP",
        moderate(accuracy),
        of(accuracy, "bp"),
        section="abstract, 4.4" if gradient == "true" else "4.4, as a naive attack would measure it",
        statistic=f"accuracy under {name.upper()}, {gradient} gradient, mean over all eps > 0, percentage points",
        relevant=POINT,
    )


def _elsewhere(metrics: DataFrame, column: str) -> Iterator[Finding]:
    for place, rows in metrics.groupby(column, sort=False):
        accuracy = _best(rows, "test_accuracy", [])
        about: dict[str, Any] = {
            "section": "supplement",
            "statistic": f"largest test accuracy on {place}, percentage points",
        }
        if column == "network":
            about["statistic"] = f"largest test accuracy of {place}, percentage points"
        ifa, fa, bp = (of(accuracy, rule) for rule in ("ifa", "fa", "bp"))
        yield greater(f"IFA learns better than FA: {place}", "IFA 0°, FA", ifa, fa, relevant=POINT, **about)
        yield equal(f"IFA is comparable to BP: {place}", "IFA 0°, BP", ifa, bp, margin=COMPARABLE, **about)


# How they are decided


def greater(
    claim: str, groups: str, first: Values, second: Values, *, section: str, statistic: str, relevant: float
) -> Finding:
    """Judge the claim that ``first`` exceeds ``second``, by the two-sided rank-sum test and Welch's interval.

    It holds if p < 0.05 and the first is the larger; it does not if p < 0.05 and it is the smaller, or if the whole
    interval lies below ``relevant``. Groups so small that no p below 0.05 is possible leave it undecided.
    """
    found = _compared(first, second, claim=claim, section=section, statistic=statistic, groups=groups,
                      decided_by="rank-sum test")  # fmt: skip
    if not found.smallest_p < LEVEL:
        verdict = UNDECIDED
    elif found.p < LEVEL:
        verdict = HOLDS if found.value > 0 else FAILS
    else:
        verdict = FAILS if found.ci_high < relevant else UNDECIDED
    return replace(found, verdict=verdict)


def equal(
    claim: str, groups: str, first: Values, second: Values, *, section: str, statistic: str, margin: float
) -> Finding:
    """Judge the claim that two groups are comparable: Welch's 95 % interval of their difference lies within
    ``margin`` (it holds), outside of it (it does not), or on both sides (undecided). The p is that of a difference."""
    found = _compared(first, second, claim=claim, section=section, statistic=f"{statistic} (within ±{margin:g})",
                      groups=groups, decided_by="interval")  # fmt: skip
    low, high = found.ci_low, found.ci_high
    verdict = HOLDS if -margin < low and high < margin else FAILS if high < -margin or low > margin else UNDECIDED
    return replace(found, verdict=verdict)


def _compared(first: Values, second: Values, **about: Any) -> Finding:
    """Return the numbers of two groups beside each other, still undecided; no numbers if one is empty."""
    counts = f"{len(first)}, {len(second)}"
    if not min(len(first), len(second)):
        return Finding(**about, n=counts)
    difference, low, high = welch(first, second)
    test = rank_sum(first, second)
    return Finding(
        **about,
        value=difference,
        effect_size=test.superiority,
        ci_low=low,
        ci_high=high,
        p=test.p_value,
        smallest_p=test.smallest_p,
        n=counts,
    )


def trend(claim: str, sign: int, values: DataFrame, *, section: str, statistic: str) -> Finding:
    """Judge the claim that ``value`` rises (``sign`` +1) or falls (-1) with the angle, by Spearman's correlation over
    all IFA runs and its permutation test."""
    rows = values[(values["rule"] == "ifa") & np.isfinite(values["value"])]
    angle, value = rows["angle"].to_numpy(float), rows["value"].to_numpy(float)
    about: dict[str, Any] = {"claim": claim, "section": section, "statistic": statistic, "groups": "IFA, all angles"}
    about["decided_by"] = "permutation test"
    if len(np.unique(angle)) < 3 or len(np.unique(value)) < 2:
        return Finding(**about, n=f"{len(value)}, {len(value)}")
    rho = float(stats.spearmanr(angle, value).statistic)
    least = _least_trend_p(angle)
    p = max(_permutation_p(angle, value), least)
    half = 1.96 * 1.03 / math.sqrt(len(value) - 3) if len(value) > 3 else math.inf  # Fieller et al. 1957
    centre = math.atanh(max(min(rho, 1 - 1e-12), -1 + 1e-12))
    verdict = UNDECIDED if max(least, p) >= LEVEL else HOLDS if sign * rho > 0 else FAILS
    return Finding(
        **about,
        value=rho,
        effect_size=rho,
        ci_low=math.tanh(centre - half),
        ci_high=math.tanh(centre + half),
        p=p,
        smallest_p=least,
        n=str(len(value)),
        verdict=verdict,
    )


def _permutation_p(x: Values, y: Values) -> float:
    """Return the two-sided permutation p of a rank correlation: exact for few values, 10,000 draws for more."""
    ranks = stats.rankdata(y)
    found = stats.permutation_test(
        (stats.rankdata(x),),
        lambda shuffled: float(np.corrcoef(shuffled, ranks)[0, 1]),
        permutation_type="pairings",
        n_resamples=9999,
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)


def _least_trend_p(angle: Values) -> float:
    """Return the p of runs that are in perfect order: the share of orders that are, times two for both directions."""
    counts = np.unique(angle, return_counts=True)[1]
    log = sum(math.lgamma(count + 1) for count in counts) - math.lgamma(len(angle) + 1)
    return min(1.0, 2 * math.exp(log))


def welch(first: Values, second: Values) -> tuple[float, float, float]:
    """Return the difference of means and its 95 % interval (Welch 1947); NaN bounds where a group has one value."""
    difference = float(first.mean() - second.mean())
    if min(len(first), len(second)) < 2:
        return difference, math.nan, math.nan
    with warnings.catch_warnings():  # SciPy warns where all values of a group are equal
        warnings.simplefilter("ignore", RuntimeWarning)
        interval = stats.ttest_ind(first, second, equal_var=False).confidence_interval()
    return difference, float(interval.low), float(interval.high)


# Where the numbers are


def of(values: DataFrame, rule: str, angle: float = 0.0) -> Values:
    """Return the finite values of one rule, of IFA at one angle."""
    rows = values[values["rule"] == rule]
    if rule == "ifa":
        rows = rows[rows["angle"] == angle]
    found = rows["value"].to_numpy(np.float64)
    return found[np.isfinite(found)]


def moderate(values: DataFrame) -> Values:
    """Return each seed's mean over IFA at moderate angles: networks of one seed start from the same feedback, and are
    no independent runs."""
    rows = values[(values["rule"] == "ifa") & values["angle"].between(*MODERATE)]
    found = rows.groupby("seed")["value"].mean().to_numpy(np.float64)
    return found[np.isfinite(found)]


def _last(metrics: DataFrame) -> DataFrame:
    """Return each run's last epoch."""
    return metrics.loc[metrics.groupby(["rule", "angle", "seed"], dropna=False)["epoch"].idxmax()]


def _best(metrics: DataFrame, column: str, keys: list[str]) -> DataFrame:
    best = metrics.groupby(["rule", "angle", "seed", *keys], dropna=False)[column].max()
    return best.mul(100).rename("value").reset_index()


def _log(rows: DataFrame) -> DataFrame:
    values = pd.to_numeric(rows["value"])
    return rows.assign(value=np.log10(values.where(values > 0)))
