"""Rank correlations against SciPy's and by hand, and whether their intervals over seeds cover."""

import math

import numpy as np
import pytest
from scipy import stats

from reports.analyses import ranks
from reports.analyses.gap import groups_along
from reports.analyses.ranks import granulated, kendall, tau


@pytest.mark.parametrize("seed", range(5))
def test_tau_is_that_of_scipy_with_ties(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 6, size=(2, 15)).astype(float)
    assert kendall(x, y) == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12)


def test_a_run_drawn_twice_is_no_pair():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 6))
    counts = np.array([2, 0, 1, 3, 1, 1])
    drawn = np.repeat(np.arange(6), counts)
    wanted = stats.kendalltau(x[drawn], y[drawn]).statistic
    assert kendall(x, y, counts.astype(float)) == pytest.approx(wanted, abs=1e-12)


def test_equal_numbers_have_no_correlation():
    assert math.isnan(kendall(np.ones(4), np.arange(4.0)))


def test_psi_is_the_mean_over_settings_of_the_mean_over_groups():
    # Two settings, a and b: x follows the gap along a, and goes against it along b where a is 1.
    settings = {f"{a}{b}": {"a": a, "b": b, "seed": 0} for a in (0, 1, 2) for b in (0, 1)}
    runs = list(settings)
    gap = np.array([10.0 * settings[run]["a"] + settings[run]["b"] for run in runs])
    x = np.array([10.0 * settings[run]["a"] + (1 if run[0] != "1" else -1) * settings[run]["b"] for run in runs])
    groups = {axis: groups_along(axis, runs, settings) for axis in ("a", "b")}
    assert sorted(map(len, groups["a"])) == [3, 3]
    assert sorted(map(len, groups["b"])) == [2, 2, 2]
    along_a, along_b = (granulated(x, gap, [groups[axis]], [0] * 6).value for axis in "ab")
    assert along_a == pytest.approx(1)
    assert along_b == pytest.approx((1 - 1 + 1) / 3)
    assert granulated(x, gap, list(groups.values()), [0] * 6).value == pytest.approx((along_a + along_b) / 2)


def test_groups_differ_in_one_setting_alone():
    settings = {
        "p": {"lr": 1, "seed": 0},
        "q": {"lr": 2, "seed": 0},
        "r": {"lr": 1, "seed": 1},
        "s": {"lr": 3, "seed": 1},
    }
    assert groups_along("lr", list(settings), settings) == [[0, 1], [2, 3]]
    assert groups_along("lr", ["p", "s"], settings) == []


def test_few_seeds_have_no_interval():
    x = np.arange(4.0)
    assert math.isnan(tau(x, x, [0, 0, 1, 1]).ci_low)
    assert math.isnan(tau(x, x, [0, 1, 2, 3]).ci_low)  # every draw says 1: that is no certainty


def _runs(rng, seeds, settings):
    of_setting = np.linspace(-1, 1, settings)
    x, y = (of_setting + rng.normal(size=(seeds, 1)) / 2 + rng.normal(size=(seeds, settings)) / 2 for _ in range(2))
    return x.ravel(), y.ravel(), np.repeat(np.arange(seeds), settings)


def test_the_interval_covers_over_seeds(monkeypatch):
    monkeypatch.setattr(ranks, "RESAMPLES", 200)
    x, y, _ = _runs(np.random.default_rng(0), 300, 5)
    truth, rng = kendall(x, y), np.random.default_rng(1)
    held = 0
    for draw in range(60):
        x, y, seeds = _runs(rng, 5, 5)
        found = tau(x, y, seeds.tolist(), rng=draw)
        held += found.ci_low <= truth <= found.ci_high
    assert 60 > held >= 60 * 0.95 - 4 * (60 * 0.95 * 0.05) ** 0.5
