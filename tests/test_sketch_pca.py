"""Principal directions from a sketch, against PCA of every step."""

import numpy as np
import pandas as pd
import pytest
import torch

from alignscape.errors import InputError
from landscape import Snapshots, trajectory_pca
from landscape.sketch import sketched_pca
from reports.cli import main
from tests.test_sketch import sketched, walk


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("runs", [1, 2])
def test_exact_where_nothing_was_shrunk(runs, mean):
    """Sketches with room for all rows: eigenvalues, trace and directions are those of the dense scatter."""
    paths = [walk(30, 25, seed=seed) for seed in range(runs)]
    sketches = [sketched(path, 20) for path in paths]
    found = sketched_pca(sketches, components=3, mean=mean)
    rows = torch.cat(paths).double().numpy()
    centre = rows.mean(0) if mean else paths[0][-1].double().numpy()
    values, vectors = np.linalg.eigh((rows - centre).T @ (rows - centre))
    assert found.error == 0
    np.testing.assert_allclose(found.origin, centre, atol=1e-5)
    assert found.total == pytest.approx(values.sum(), rel=1e-5)
    np.testing.assert_allclose(found.eigenvalues, values[::-1][:3], rtol=1e-4)
    cosines = np.abs(np.sum(found.directions.numpy() * vectors[:, ::-1][:, :3].T, axis=1))
    np.testing.assert_allclose(cosines, 1, atol=1e-4)


@pytest.mark.parametrize("mean", [False, True])
def test_certificate_holds_after_many_shrinkings(mean):
    path = walk(400, 60)
    found = sketched_pca([sketched(path, 8)], components=4, mean=mean)
    rows = path.double().numpy()
    rows = rows - (rows.mean(0) if mean else rows[-1])
    values, vectors = np.linalg.eigh(rows.T @ rows)
    values, vectors = values[::-1][:4], vectors[:, ::-1][:, :2]
    assert 0 < found.error < 0.05 * found.total
    rounding = 1e-5 * values[0]
    assert (found.eigenvalues <= values + rounding).all()
    assert (values <= found.eigenvalues + found.error + rounding).all()
    gaps = values[:2] - values[1:3]
    sines = np.sqrt(1 - np.sum(found.directions[:2].numpy() * vectors.T, axis=1).clip(-1, 1) ** 2)
    assert (sines <= 2 * found.error / gaps + 1e-3).all()  # Davis-Kahan, Yu et al. 2015


def test_pca_takes_directions_of_the_sketch_and_coordinates_of_the_snapshots():
    path = walk(300, 50)
    stored = Snapshots(path[::10].numpy(), np.arange(0, 301, 10))
    every = trajectory_pca(Snapshots(path.numpy()))
    pca = trajectory_pca(stored, sketches=[sketched(path, 12)])
    assert len(pca.steps) == 31
    away = (path[::10] - path[-1]).double()
    np.testing.assert_allclose(pca.coordinates, away @ pca.directions.double().T, atol=1e-4)
    np.testing.assert_allclose(pca.distance, away.norm(dim=1), atol=1e-4)
    total = (pca.coordinates**2).sum(1) + pca.off_plane**2
    np.testing.assert_allclose(total, pca.distance**2, rtol=1e-4, atol=1e-4)
    low = pca.explained_variance_ratio.numpy()
    truth = every.explained_variance_ratio.numpy()[: len(low)]
    assert (low <= truth + 1e-5).all()
    assert (truth <= low + pca.explained_variance_error + 1e-5).all()


def test_sketch_of_another_network_is_refused():
    with pytest.raises(InputError, match="different networks"):
        trajectory_pca(Snapshots(walk(10, 8).numpy()), sketches=[sketched(walk(10, 9), 3)])


def test_command_uses_the_sketch_where_there_is_one(tmp_path, capsys):
    flags = ["--hidden", "8", "--epochs", "2", "--snapshot-every", "6", "--snapshot-sketch", "4", "--quiet"]
    assert main(["train", *flags, "--out", str(tmp_path / "run")]) == 0
    tables = {}
    for kind in ("sketch", "snapshots"):
        flags = ["--points", "3", "--directions", kind, "--quiet", "--out", str(tmp_path / kind)]
        assert main(["trajectory", str(tmp_path / "run"), *flags]) == 0
        tables[kind] = pd.read_csv(tmp_path / kind / "trajectory.csv")
    assert len(tables["sketch"]) == len(tables["snapshots"]) == 5
    assert tables["sketch"]["alpha"].iloc[0] != tables["snapshots"]["alpha"].iloc[0]
    assert abs(tables["sketch"]["alpha"].iloc[0]) == pytest.approx(abs(tables["snapshots"]["alpha"].iloc[0]), rel=0.05)
    (tmp_path / "run" / "sketch.npz").unlink()
    assert main(["trajectory", str(tmp_path / "run"), "--directions", "sketch", "--quiet"]) == 2
    assert "has no sketch.npz; train with --snapshot-sketch" in capsys.readouterr().err
