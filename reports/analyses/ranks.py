"""Rank correlation of numbers of runs, over all of them and along one setting, with intervals over seeds."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Values = NDArray[np.float64]
RESAMPLES = 1000
_DIGITS = 1e-9  # below which a correlation is zero, and a spread none


@dataclass(frozen=True, kw_only=True)
class Correlation:
    """A rank correlation with its 95 % interval over seeds.

    Attributes:
        value: between -1 and 1; NaN where nothing differs.
        ci_low: lower end of its interval; NaN for fewer than three seeds, and where every draw of seeds gives the same
            number, as of few runs in perfect order: that is no certainty.
        ci_high: upper end.
    """

    value: float
    ci_low: float
    ci_high: float


def kendall(x: Values, y: Values, counts: Values | None = None) -> float:
    """Return Kendall's tau-b of pairs x (N,), y (N,), each taken as often as ``counts`` says.

    Ties count for neither side and leave the size (Kendall 1945), so that a run drawn twice is no pair. NaN where all
    values are tied.
    """
    weights = np.ones(len(x)) if counts is None else counts
    first, second = (np.sign(values[:, None] - values[None]) for values in (x, y))
    concordant = weights @ (first * second) @ weights
    size = (weights @ np.abs(first) @ weights) * (weights @ np.abs(second) @ weights)
    return float(concordant / size**0.5) if size > 0 else float("nan")


def tau(x: Values, y: Values, seeds: Sequence[Hashable], *, rng: int = 0) -> Correlation:
    """Return Kendall's tau-b over all runs with its interval over ``seeds`` (N,)."""
    return over_seeds(lambda counts: kendall(x, y, counts), seeds, rng=rng)


def granulated(
    x: Values, y: Values, groups: Sequence[Sequence[Sequence[int]]], seeds: Sequence[Hashable], *, rng: int = 0
) -> Correlation:
    """Return the granulated rank correlation Psi (Jiang et al. 2020, equation 6): the mean over settings of the mean
    tau of runs that differ in that setting alone.

    Args:
        x, y: numbers of N runs.
        groups: for each setting, groups of runs (their places) that agree in all else, the seed included.
        seeds: of the runs (N,).
        rng: seed of the bootstrap.
    """
    taus = [[(group[0], kendall(x[group], y[group])) for group in map(list, own)] for own in groups]

    def psi(counts: Values) -> float:
        means = []
        for own in taus:
            known = [(counts[first], value) for first, value in own if np.isfinite(value) and counts[first] > 0]
            if known:
                means.append(sum(weight * value for weight, value in known) / sum(weight for weight, _ in known))
        mean = float(np.mean(means)) if means else float("nan")
        return 0.0 if abs(mean) < _DIGITS else mean

    return over_seeds(psi, seeds, rng=rng)


def over_seeds(statistic: Callable[[Values], float], seeds: Sequence[Hashable], *, rng: int = 0) -> Correlation:
    """Return a statistic of runs with its 95 % interval over seeds: Student's, with the standard error of the cluster
    bootstrap, which draws seeds with all of their runs (Davison and Hinkley 1997, section 3.8), within [-1, 1].

    Args:
        statistic: from how often each run is taken (N,) to a number.
        seeds: of the runs (N,).
        rng: seed of the bootstrap.
    """
    names = list(dict.fromkeys(seeds))
    place = np.array([names.index(seed) for seed in seeds])
    value, n = statistic(np.ones(len(place))), len(names)
    if n < 3 or not np.isfinite(value):
        return Correlation(value=value, ci_low=np.nan, ci_high=np.nan)
    drawn = np.random.default_rng(rng).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    found = np.array([statistic(one[place].astype(float)) for one in drawn])
    error = np.nanstd(found) * (n / (n - 1)) ** 0.5
    if not error > _DIGITS:
        return Correlation(value=value, ci_low=np.nan, ci_high=np.nan)
    half = float(stats.t.ppf(0.975, n - 1)) * float(error)
    return Correlation(value=value, ci_low=max(-1.0, value - half), ci_high=min(1.0, value + half))
