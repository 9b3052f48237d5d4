"""Trajectory PCA against dense SVD, closed forms of random walks, and its memory bound."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from alignscape.errors import InputError
from landscape.path import path_losses
from landscape.random_walk import expected_gram, recentre
from landscape.snapshots import Snapshots
from landscape.trajectory import trajectory_pca


def walk(count, size, seed=0, scale=1.0):
    return np.cumsum(np.random.default_rng(seed).standard_normal((count, size)) * scale, axis=0)


def write_run(folder, array, steps=None, layout=None):
    folder.mkdir(exist_ok=True)
    np.save(folder / "trajectory.npy", array)
    steps = list(range(len(array))) if steps is None else steps
    about = {"steps": steps, "parameters": [["w", [array.shape[1]]]] if layout is None else layout}
    (folder / "trajectory.json").write_text(json.dumps(about))
    (folder / "config.json").write_text(json.dumps({"config": {}, "data": {}}))
    (folder / "done.json").write_text("{}")
    return folder


# -- against a dense SVD --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", ["final", "mean"])
@pytest.mark.parametrize("memory", [1, 10_000, 10**9])  # one column a block, a few blocks, one block
def test_equals_a_dense_svd_whatever_the_blocks(origin, memory):
    x = walk(12, 70)
    pca = trajectory_pca(Snapshots(x), components=3, origin=origin, memory=memory)
    centred = x - (x[-1] if origin == "final" else x.mean(0))
    u, s, vt = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(pca.explained_variance_ratio, (s**2 / (s**2).sum())[:10], rtol=1e-9)
    np.testing.assert_allclose(np.abs(np.sum(pca.directions.numpy() * vt[:3], axis=1)), 1, rtol=1e-9)
    np.testing.assert_allclose(pca.coordinates.abs(), np.abs(u[:, :3] * s[:3]), rtol=1e-8, atol=1e-8)
    residual = centred - centred @ vt[:3].T @ vt[:3]
    np.testing.assert_allclose(pca.off_plane, np.linalg.norm(residual, axis=1), atol=1e-8)
    np.testing.assert_allclose(pca.distance, np.linalg.norm(centred, axis=1), atol=1e-8)


def test_origin_directions_and_coordinates_rebuild_a_planar_path():
    rng = np.random.default_rng(1)
    basis = np.linalg.qr(rng.standard_normal((50, 2)))[0].T
    path = rng.standard_normal((9, 2)) @ basis + rng.standard_normal(50)
    pca = trajectory_pca(Snapshots(path))
    rebuilt = pca.origin + (pca.coordinates @ pca.directions)
    np.testing.assert_allclose(rebuilt, path, atol=1e-10)
    assert pca.off_plane.max() < 1e-10
    assert pca.explained_variance_ratio[:2].sum() == pytest.approx(1)
    np.testing.assert_allclose(pca.directions @ pca.directions.T, np.eye(2), atol=1e-12)


def test_the_path_ends_on_the_plane_only_if_the_plane_goes_through_the_final_weights():
    x = walk(20, 500)
    assert trajectory_pca(Snapshots(x), origin="final").off_plane[-1] == 0
    assert trajectory_pca(Snapshots(x), origin="mean").off_plane[-1] > 1


def test_no_plane_through_the_final_weights_is_nearer_to_the_path():
    x = walk(15, 40)
    best = trajectory_pca(Snapshots(x)).off_plane.square().sum()
    ordinary = trajectory_pca(Snapshots(x), origin="mean").directions.numpy()
    centred = x - x[-1]
    assert best < ((centred - centred @ ordinary.T @ ordinary) ** 2).sum()


def test_a_straight_line_is_explained_by_one_direction_and_says_that_the_other_is_random():
    line = np.linspace(1, 0, 7)[:, None] * np.random.default_rng(0).standard_normal(30)
    with pytest.warns(UserWarning, match="spans 1 direction only"):
        pca = trajectory_pca(Snapshots(line))
    assert pca.explained_variance_ratio[0] == pytest.approx(1)
    np.testing.assert_allclose(pca.coordinates[:, 1], 0)
    np.testing.assert_allclose(pca.directions @ pca.directions.T, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(pca.coordinates[:, 0], np.linspace(1, 0, 7) * np.linalg.norm(line[0]), atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_half_precision_snapshots_lose_their_rounding_only(tmp_path, dtype):
    x = walk(10, 3000, scale=0.01)
    exact = trajectory_pca(Snapshots(x))
    stored = trajectory_pca(Snapshots.of_run(write_run(tmp_path / "run", x.astype(dtype))))
    rounding = np.finfo(dtype).eps * np.abs(x).max() * np.sqrt(x.shape[1])
    np.testing.assert_allclose(stored.coordinates, exact.coordinates, atol=2 * rounding)
    np.testing.assert_allclose(stored.off_plane, exact.off_plane, atol=2 * rounding)
    assert stored.directions.dtype == torch.float32
    assert stored.directions.norm(dim=1).numpy() == pytest.approx(1, abs=1e-6)


def test_small_moves_of_large_weights_are_not_lost():
    """Squares of float32 weights, instead of their differences, would round these moves away."""
    moves = walk(8, 2000, scale=1e-4)
    x = (100 + moves).astype(np.float32)
    expected = trajectory_pca(Snapshots(x.astype(np.float64) - 100))
    pca = trajectory_pca(Snapshots(x))
    np.testing.assert_allclose(pca.explained_variance_ratio, expected.explained_variance_ratio, rtol=1e-6)


def test_iterative_eigenpairs_equal_dense_ones(monkeypatch):
    x = walk(60, 300)
    dense = trajectory_pca(Snapshots(x))
    monkeypatch.setattr("landscape.trajectory._DENSE", 20)
    iterative = trajectory_pca(Snapshots(x))
    np.testing.assert_allclose(iterative.explained_variance_ratio, dense.explained_variance_ratio, rtol=1e-9)
    np.testing.assert_allclose(iterative.coordinates, dense.coordinates, atol=1e-8)


# -- the random-walk baseline ---------------------------------------------------------------------------------------


def closed_form(count, k, origin):
    """Shares of component k = 1, 2, ... of a random walk of ``count`` snapshots, in the limit of many dimensions.

    About the mean the Gram matrix is the pseudo-inverse of the Laplacian of a path of ``count`` nodes (Antognini and
    Sohl-Dickstein 2018); about one end it is the inverse of the second difference with one fixed and one free end.
    """
    if origin == "mean":
        return 3 / (2 * (count**2 - 1) * np.sin(np.pi * k / (2 * count)) ** 2)
    moves = count - 1
    return 1 / (2 * moves * (moves + 1) * np.sin((2 * k - 1) * np.pi / (2 * (2 * moves + 1))) ** 2)


@pytest.mark.parametrize("origin", ["final", "mean"])
@pytest.mark.parametrize("count", [3, 12, 200])
def test_baseline_is_the_closed_form(origin, count):
    baseline = trajectory_pca(Snapshots(walk(count, 20)), origin=origin).baseline.numpy()
    k = np.arange(1, len(baseline) + 1)
    np.testing.assert_allclose(baseline, closed_form(count, k, origin), rtol=1e-9)


def test_baseline_of_long_walks_is_that_of_the_paper():
    baseline = trajectory_pca(Snapshots(walk(1000, 5)), origin="mean").baseline
    assert baseline[0] == pytest.approx(6 / np.pi**2, abs=1e-3)  # 61 %
    assert baseline[1] == pytest.approx(6 / (4 * np.pi**2), abs=1e-3)


@pytest.mark.parametrize("origin", ["final", "mean"])
def test_a_simulated_walk_explains_no_more_than_its_baseline(origin):
    pca = trajectory_pca(Snapshots(walk(40, 200_000, seed=3).astype(np.float32)), origin=origin)
    np.testing.assert_allclose(pca.explained_variance_ratio[:4], pca.baseline[:4], rtol=0.02)


def test_baseline_follows_uneven_steps():
    steps = np.array([0, 1, 2, 4, 8, 16, 32, 64, 128, 200])
    x = walk(201, 100_000, seed=5).astype(np.float32)[steps]
    told = trajectory_pca(Snapshots(x, steps))
    np.testing.assert_allclose(told.explained_variance_ratio[:4], told.baseline[:4], rtol=0.02)
    assert abs(trajectory_pca(Snapshots(x)).baseline[0] - told.baseline[0]) > 0.02


def test_baseline_of_several_runs_is_that_of_simulated_walks():
    rng = np.random.default_rng(0)
    start = rng.standard_normal(100_000) * 3
    runs = [start + walk(15, 100_000, seed=1), start + walk(25, 100_000, seed=2, scale=2.0)]
    runs = [np.concatenate([start[None], run]).astype(np.float32) for run in runs]
    pca = trajectory_pca([Snapshots(run) for run in runs])
    np.testing.assert_allclose(pca.explained_variance_ratio[:4], pca.baseline[:4], rtol=0.03)


def test_recentring_a_gram_matrix():
    x = walk(6, 9)
    gram = x @ x.T
    for row, point in ((2, x[2]), (None, x.mean(0))):
        np.testing.assert_allclose(recentre(gram, row), (x - point) @ (x - point).T, atol=1e-9)
    about_start = recentre(expected_gram(gram, np.zeros(6, int), np.arange(6)), 0)
    np.testing.assert_allclose(about_start[0], 0, atol=1e-9)


# -- several runs ---------------------------------------------------------------------------------------------------


def test_several_runs_share_one_plane():
    a, b = walk(8, 60, seed=1), walk(5, 60, seed=2)
    pca = trajectory_pca([Snapshots(a, name="a"), Snapshots(b, name="b")])
    both = np.concatenate([a, b]) - a[-1]
    _, s, vt = np.linalg.svd(both, full_matrices=False)
    np.testing.assert_allclose(pca.explained_variance_ratio[:4], (s**2 / (s**2).sum())[:4], rtol=1e-9)
    np.testing.assert_allclose(pca.coordinates.abs(), np.abs(both @ vt[:2].T), atol=1e-8)
    assert pca.runs.tolist() == [0] * 8 + [1] * 5
    frame = pca.frame()
    assert frame.columns.tolist() == ["run", "step", "alpha", "beta", "distance", "off_plane"]
    assert frame["step"].tolist() == [*range(8), *range(5)]


def test_runs_of_different_networks_are_refused():
    with pytest.raises(InputError, match="different networks"):
        trajectory_pca([Snapshots(walk(4, 10)), Snapshots(walk(4, 11))])


# -- files ----------------------------------------------------------------------------------------------------------


def test_every_kth_snapshot_keeps_the_last(tmp_path):
    x = walk(11, 6)
    thin = Snapshots.of_run(write_run(tmp_path / "run", x, steps=list(range(0, 110, 10))), every=4)
    assert thin.steps.tolist() == [20, 60, 100]
    np.testing.assert_array_equal(thin.vector(-1), x[-1])
    np.testing.assert_array_equal(thin.columns(1, 3), x[[2, 6, 10], 1:3])


def test_errors_name_what_is_wrong(tmp_path):
    run = write_run(tmp_path / "run", walk(5, 6))
    with pytest.raises(InputError, match="not a run folder"):
        Snapshots.of_run(tmp_path / "nowhere")
    (run / "trajectory.npy").unlink()
    with pytest.raises(InputError, match=r"no trajectory\.npy.*--snapshot-every"):
        Snapshots.of_run(run)
    (run / "trajectory.npy").write_bytes(b"\x93NUMPY\x01\x00 cut short")
    with pytest.raises(InputError, match="not a readable array"):
        Snapshots.of_run(run)
    write_run(run, walk(5, 6), steps=[0, 1, 2])
    with pytest.raises(InputError, match="5 snapshots need 5"):
        Snapshots.of_run(run)
    write_run(run, walk(5, 6), layout=[["w", [2, 2]]])
    with pytest.raises(InputError, match="does not add up"):
        Snapshots.of_run(run)
    (run / "trajectory.json").write_text('{"steps": [0')
    with pytest.raises(InputError, match="damaged"):
        Snapshots.of_run(run)
    (run / "done.json").unlink()
    with pytest.raises(InputError, match="not finished"):
        Snapshots.of_run(run)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((1, 4)), "at least 2 snapshots"),
        (np.zeros((3, 4), int), "floating-point"),
        (np.zeros((3, 4)), "never move"),
        (np.array([[0.0, 1], [np.nan, 1], [2, 1]]), "step 1 are not finite"),
    ],
)
def test_arrays_that_are_no_trajectory_are_refused(array, message):
    with pytest.raises(InputError, match=message):
        trajectory_pca(Snapshots(array), components=1)


def test_too_many_components_are_refused():
    with pytest.raises(InputError, match="3 components"):
        trajectory_pca(Snapshots(walk(5, 2)), components=3)


MEMORY_SCRIPT = """
import resource, sys
from landscape.snapshots import Snapshots
from landscape.trajectory import trajectory_pca
snapshots = Snapshots(sys.argv[1])
trajectory_pca(Snapshots(snapshots._open()[:, :1000].copy()))  # load what is loaded lazily
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
trajectory_pca(snapshots, memory=int(sys.argv[2]))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux only")
def test_peak_memory_is_as_documented(tmp_path):
    """The file is 128 MB; the peak must come from ``memory``, three vectors of P weights and the Gram matrix."""
    count, size, memory = 64, 500_000, 16 * 2**20
    generator = np.random.default_rng(0)
    file = np.lib.format.open_memmap(tmp_path / "t.npy", mode="w+", dtype=np.float32, shape=(count, size))
    for row in range(count):
        file[row] = generator.standard_normal(size, dtype=np.float32)
    file.flush()
    command = [sys.executable, "-c", MEMORY_SCRIPT, str(tmp_path / "t.npy"), str(memory)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=os.getcwd(), env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    documented = memory + 8 * (2 + 2) * size + 48 * count**2
    assert int(done.stdout) < documented + 8 * 2**20 < count * size * 4


# -- losses along the path ------------------------------------------------------------------------------------------


def quadratic_net(size=6):
    """A model whose mean loss is ``mean_i 0.5 (x_i . w)^2``: H = X^T X / N, exactly quadratic in the weights."""
    torch.manual_seed(0)
    model = nn.Linear(size, 1, bias=False).double()
    data = torch.randn(40, size, dtype=torch.float64), torch.zeros(40, 1, dtype=torch.float64)

    def loss(outputs, targets):
        return 0.5 * (outputs - targets).square().mean()

    return model, loss, data


def test_losses_on_and_off_the_plane_are_the_quadratics():
    model, loss, data = quadratic_net()
    hessian = data[0].T @ data[0] / 40
    snapshots = Snapshots(walk(7, 6, scale=0.3), layout=[("weight", (1, 6))])
    pca = trajectory_pca(snapshots)
    found = path_losses(model, loss, data, snapshots, pca)
    for t in range(7):
        theta = snapshots.vector(t)
        projected = pca.origin + pca.coordinates[t] @ pca.directions
        assert found.loss[t] == pytest.approx(float(0.5 * theta @ hessian @ theta))
        assert found.plane_loss[t] == pytest.approx(float(0.5 * projected @ hessian @ projected))
    assert found.loss[-1] == pytest.approx(float(found.plane_loss[-1]))
    assert not torch.allclose(found.loss, found.plane_loss)


def test_path_losses_do_not_depend_on_batches_and_report_progress():
    model, loss, data = quadratic_net()
    snapshots = Snapshots(walk(5, 6))
    pca = trajectory_pca(snapshots)
    uneven = [(data[0][:31], data[1][:31]), (data[0][31:], data[1][31:])]
    seen = []
    whole = path_losses(model, loss, data, snapshots, pca)
    parts = path_losses(model, loss, uneven, snapshots, pca, progress=lambda *p: seen.append(p))
    torch.testing.assert_close(parts.loss, whole.loss)
    torch.testing.assert_close(parts.plane_loss, whole.plane_loss)
    assert seen[-1] == (10, 10)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_snapshots_of_another_model_are_refused():
    model, loss, data = quadratic_net()
    snapshots = Snapshots(walk(5, 6), layout=[("bias", (6,))])
    with pytest.raises(InputError, match=r"snapshots hold bias\[6\], the model has weight"):
        path_losses(model, loss, data, snapshots, trajectory_pca(snapshots))


def test_batch_norm_statistics_are_warned_of():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    size = sum(p.numel() for p in model.parameters())
    snapshots = Snapshots(walk(4, size))
    data = torch.randn(8, 6), torch.zeros(8, dtype=torch.long)
    with pytest.warns(UserWarning, match="no running statistics"):
        path_losses(model, nn.CrossEntropyLoss(), data, snapshots, trajectory_pca(snapshots))
