"""What figures measure beside the analyses: path lengths and attacked images; and which runs they are of."""

import numpy as np
import pandas as pd
import pytest
import torch

from alignscape.errors import InputError
from reports.paper import PROFILES
from reports.paper.adversarial_images import adversarial_images
from reports.paper.networks import depths, sizes, sweep, variances
from reports.paper.path_length import path_length
from training import TrainConfig, load_checkpoint, load_dataset, train

PROFILE = PROFILES["smoke"]()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "fa"
    config = TrainConfig(rule="fa", hidden=(8,), epochs=3, batch_size=50, lr=0.01, train_size=100, checkpoint_every=1)
    train(config, load_dataset("digits", train_size=100), folder)
    return folder


def test_a_path_is_as_long_as_its_steps(run, tmp_path):
    files = {path.stem: path for path in (run / "checkpoints").glob("epoch-*.pt")}
    path_length(tmp_path, files)
    found = pd.read_csv(tmp_path / "path_length.csv").iloc[0]
    weights = [
        np.concatenate([tensor.numpy().ravel() for tensor in load_checkpoint(files[name]).model.values()])
        for name in sorted(files)
    ]
    steps = np.linalg.norm(np.diff(np.array(weights, float), axis=0), axis=1)
    assert len(steps) == 3
    assert found["length"] == pytest.approx(steps.sum(), rel=1e-6)
    assert found["chord"] == pytest.approx(np.linalg.norm(weights[-1] - weights[0]), rel=1e-5)
    assert found["ratio"] > 1


@pytest.mark.parametrize("name", ["fgsm", "bim"])
def test_attacked_images_stay_within_epsilon(run, tmp_path, name):
    adversarial_images(tmp_path, {"checkpoint": run / "ckpt.pt"}, name=name, eps=[0.0, 0.05, 0.2], steps=5)
    images = np.load(tmp_path / "samples.npz")
    first = load_dataset("digits").test.images[:1].permute(0, 2, 3, 1)[0].numpy()
    np.testing.assert_array_equal(images["0"], first)
    for eps in (0.05, 0.2):
        change = np.abs(images[f"{eps:g}"].astype(int) - first.astype(int))
        assert 0 < change.max() <= 255 * eps + 1
    assert torch.from_numpy(images["0.2"]).dtype == torch.uint8


def test_no_network_is_trained_twice_under_two_names():
    for networks in (sweep, variances, depths, sizes):
        made = networks(PROFILE.changed(["angles=0,30,60,90"]), None)
        configs = [one.train.config for one in made]
        assert len(set(configs)) == len(configs)
    assert not any(one.train.config.angle == 90 for one in sweep(PROFILE.changed(["angles=0,30,60,90"]), None))


def test_depth_counts_weight_layers_and_each_seed_draws_its_samples():
    assert {(one.columns["depth"], len(one.train.config.hidden)) for one in depths(PROFILE, None)} == {
        (depth, depth - 1) for depth in PROFILE.depths
    }
    several = sizes(PROFILE.changed(["trainability_seeds=0,1,2"]), None)
    assert all(one.train.config.subset_seed == one.columns["seed"] for one in several)


def test_seeds_of_a_profile_may_be_a_range():
    assert PROFILE.changed(["seeds=0..3,7"]).seeds == (0, 1, 2, 3, 7)
    for text, words in (("3..1", "an empty range"), ("0..", "has one end"), ("x", "must be int")):
        with pytest.raises(InputError, match=words):
            PROFILE.changed([f"network_seeds={text}"])


def test_backward_scales_are_varied_where_they_act():
    of = [(one.columns["optimiser"], one.columns["backward"]) for one in variances(PROFILE, None)]
    assert {backward for optimiser, backward in of if optimiser == "sgd"} == set(PROFILE.scales)
    assert {backward for optimiser, backward in of if optimiser == "adam"} == {2**0.5}
