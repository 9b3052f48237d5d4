"""Intervals against scipy, closed forms and their own coverage."""

import numpy as np
import pytest
from scipy import stats

from robustness.intervals import bootstrap_mean, paired_bootstrap, wilson


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (3, 10), (10, 10), (517, 1000), (1, 1), (0, 1)])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_wilson_equals_scipy(successes, n, confidence):
    expected = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert wilson(successes, n, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("p", [0.02, 0.3, 0.9])
def test_wilson_covers_as_often_as_it_says(p):
    n = 200
    counts = np.arange(n + 1)
    low, high = np.array([wilson(int(c), n) for c in counts]).T
    coverage = stats.binom.pmf(counts, n, p)[(low <= p) & (p <= high)].sum()  # exact: no sampling
    assert 0.93 < coverage < 0.98


@pytest.mark.parametrize(("successes", "n", "confidence"), [(-1, 5, 0.95), (6, 5, 0.95), (0, 0, 0.95), (1, 5, 1.0)])
def test_wilson_refuses_what_is_no_proportion(successes, n, confidence):
    with pytest.raises(ValueError, match=r"proportion|between 0 and 1"):
        wilson(successes, n, confidence)


def test_bootstrap_of_a_proportion_has_the_binomial_spread():
    values = np.repeat([1.0, 0.0], [300, 700])
    low, high = bootstrap_mean(values, seed=0, resamples=50_000)
    z = stats.norm.ppf(0.975) * np.sqrt(0.3 * 0.7 / 1000)
    assert (low, high) == pytest.approx((0.3 - z, 0.3 + z), abs=1.5e-3)


def test_multinomial_draws_are_the_usual_bootstrap():
    rng = np.random.default_rng(1)
    values = rng.normal(size=60)
    means = values[rng.integers(0, 60, size=(40_000, 60))].mean(axis=1)
    expected = np.quantile(means, [0.025, 0.975])
    assert bootstrap_mean(values, seed=2, resamples=40_000) == pytest.approx(tuple(expected), abs=0.02)


def test_pairing_removes_what_both_share():
    rng = np.random.default_rng(0)
    hard = rng.normal(size=500)
    first, second = hard + 0.1, hard
    low, high = paired_bootstrap(first, second, seed=0)
    assert (low, high) == pytest.approx((0.1, 0.1), abs=1e-9)
    assert paired_bootstrap(second, first, seed=0)[1] < 0


def test_bootstrap_is_seeded_and_covers():
    rng = np.random.default_rng(3)
    assert bootstrap_mean([0, 1, 1, 0, 1], seed=7) == bootstrap_mean([0, 1, 1, 0, 1], seed=7)
    inside = 0
    for trial in range(300):
        low, high = bootstrap_mean(rng.random(200) < 0.6, seed=trial, resamples=1000)
        inside += low <= 0.6 <= high
    assert inside / 300 > 0.90  # 0.95 expected; 0.90 is four standard errors below


@pytest.mark.parametrize("values", [[], [[1.0]], [np.nan]])
def test_bootstrap_refuses_what_has_no_mean(values):
    with pytest.raises(ValueError, match="non-empty vector"):
        bootstrap_mean(values, seed=0)


def test_pairs_must_match():
    with pytest.raises(ValueError, match="equal shapes"):
        paired_bootstrap([1, 2], [1], seed=0)
