"""The sketch of all steps against the matrix of all steps."""

import dataclasses

import numpy as np
import pytest
import torch

from alignscape.errors import InputError
from alignscape.sketch import load_sketch
from training.config import TrainConfig
from training.data import load_dataset
from training.loop import train
from training.sketch import FrequentDirections


def walk(steps, size, seed=0):
    """Weights (T, P) of a path with drift, decaying variances and noise, and an arbitrary start."""
    random = torch.Generator().manual_seed(seed)
    scale = torch.arange(1, size + 1) ** -0.5
    moves = scale * (0.3 + torch.randn(steps, size, generator=random))
    return torch.randn(size, generator=random) + torch.cat([torch.zeros(1, size), moves.cumsum(0)])


def sketched(weights, rows):
    sketch = FrequentDirections(rows, weights[0])
    for row in weights:
        sketch.insert(row)
    return sketch.finish()


@pytest.mark.parametrize("path", ["walk", "noise"])
@pytest.mark.parametrize("rows", [2, 5, 12])
def test_error_is_within_certificate_and_bound(rows, path):
    if path == "walk":
        weights = walk(200, 40)
    else:  # no low-rank structure: the bound is at its tightest
        weights = torch.randn(200, 40, generator=torch.Generator().manual_seed(1))
        weights[0] = 0
    sketch = sketched(weights, rows)
    exact = (weights - weights[0]).double().numpy()
    kept = sketch.rows.astype(np.float64)
    assert len(kept) <= 2 * rows
    error = np.linalg.eigvalsh(exact.T @ exact - kept.T @ kept)
    rounding = 1e-5 * np.linalg.norm(exact, 2) ** 2
    assert error.min() > -rounding  # a sketch never overestimates
    assert error.max() <= sketch.shrinkage + rounding
    assert sketch.shrinkage > 10 * rounding  # the bounds below say something
    squares = np.linalg.svd(exact, compute_uv=False) ** 2
    for k in range(rows):
        assert sketch.shrinkage <= squares[k:].sum() / (rows + 1 - k) + rounding


def test_sums_are_exact():
    weights = walk(101, 30)
    sketch = sketched(weights, 4)
    exact = (weights - weights[0]).double().numpy()
    assert sketch.count == 102
    np.testing.assert_allclose(sketch.sum, exact.sum(0), rtol=1e-5, atol=1e-4)
    assert sketch.square_sum == pytest.approx((exact**2).sum(), rel=1e-6)
    np.testing.assert_allclose(sketch.last, exact[-1], rtol=1e-6)
    np.testing.assert_array_equal(sketch.start, weights[0])


def test_as_many_rows_as_the_path_has_directions_lose_nothing():
    basis = torch.randn(3, 50, generator=torch.Generator().manual_seed(2))
    weights = torch.cat([torch.zeros(1, 3), torch.randn(99, 3, generator=torch.Generator().manual_seed(3))]) @ basis
    sketch = sketched(weights, 3)
    kept, exact = sketch.rows.astype(np.float64), weights.double().numpy()
    np.testing.assert_allclose(kept.T @ kept, exact.T @ exact, atol=1e-3)
    assert sketch.shrinkage < 1e-5 * sketch.square_sum


def test_resumed_anywhere_it_is_bit_identical():
    weights = walk(60, 30)
    whole = sketched(weights, 4)
    for stop in (1, 7, 8, 9, 33):
        first = FrequentDirections(4, weights[0])
        for row in weights[:stop]:
            first.insert(row)
        second = FrequentDirections(4, torch.zeros_like(weights[0]))
        second.restore(first.state())
        for row in weights[stop:]:
            second.insert(row)
        for name, value in dataclasses.asdict(second.finish()).items():
            np.testing.assert_array_equal(value, getattr(whole, name))


@pytest.mark.parametrize("steps", [3, 7, 8, 9, 20])
def test_room_for_the_rows_that_come_is_enough(steps):
    weights = walk(steps, 30)
    sketch = FrequentDirections(4, weights[0], most=len(weights))
    for row in weights:
        sketch.insert(row)
    assert len(sketch.buffer) == min(8, steps + 1)
    for name, value in dataclasses.asdict(sketch.finish()).items():
        np.testing.assert_array_equal(value, getattr(sketched(weights, 4), name))


def test_a_run_writes_the_sketch_of_its_every_step_and_resumes_it(tmp_path, monkeypatch):
    data = load_dataset("digits", train_size=320)
    config = TrainConfig(
        hidden=(8,), epochs=3, batch_size=32, lr=1e-2, snapshot_every=1, snapshot_sketch=3, seed=5
    )  # fmt: skip
    train(config, data, tmp_path / "whole")
    weights = np.load(tmp_path / "whole" / "trajectory.npy").astype(np.float64)
    sketch = load_sketch(tmp_path / "whole")
    assert sketch.count == len(weights) == 31
    np.testing.assert_allclose(sketch.sum, (weights - weights[0]).sum(0), atol=1e-4)
    exact, kept = weights - weights[0], sketch.rows.astype(np.float64)
    error = np.linalg.svd(exact.T @ exact - kept.T @ kept, compute_uv=False)[0]
    assert error <= sketch.shrinkage * (1 + 1e-6) + 1e-6 * sketch.square_sum

    from training.loop import Clock

    monkeypatch.setattr(Clock, "save_is_due", lambda self: True)

    def stop(report):
        if report.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, data, tmp_path / "cut", progress=stop)
    train(config, data, tmp_path / "cut")
    resumed = load_sketch(tmp_path / "cut")
    for name, value in dataclasses.asdict(resumed).items():
        np.testing.assert_array_equal(value, getattr(sketch, name))


def test_a_diverged_run_keeps_no_sketch(tmp_path):
    data = load_dataset("digits", train_size=320)
    config = TrainConfig(
        hidden=(8,), epochs=3, batch_size=32, lr=1e20, optimiser="sgd", snapshot_every=5, snapshot_sketch=2
    )
    run = train(config, data, tmp_path / "run")
    assert run.is_done
    with pytest.raises(InputError, match=r"has no sketch.npz; train with --snapshot-sketch"):
        load_sketch(run.path)


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "sketch.npz").write_bytes(b"PK no archive")
    with pytest.raises(InputError, match="is damaged"):
        load_sketch(tmp_path)
