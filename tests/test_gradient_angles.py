"""The rule's update against the true gradient: known answers, and the calibration of the interval."""

import math

import pytest
import torch
from torch.nn import functional as F

from training.config import TrainConfig
from training.data import load_dataset
from training.gradient_angles import ALL, gradient_alignment, mean_interval
from training.loop import train
from training.models import build_model
from training.rules import make_rule


def network(rule, **more):
    config = TrainConfig(rule=rule, hidden=(7, 6), **more)
    made = make_rule(config)
    model = build_model(config, (1, 3, 3), 4)
    made.initialise(model)
    return made, model, made.wrap(model, (1, 3, 3))


@pytest.fixture
def data():
    random = torch.Generator().manual_seed(0)
    return torch.randn(60, 1, 3, 3, generator=random), torch.randint(4, (60,), generator=random)


def test_backpropagation_follows_the_gradient_exactly(data):
    rule, model, twin = network("bp")
    for one in gradient_alignment(model, twin, rule, data, batch_size=20).values():
        assert one.cosine == pytest.approx(1, abs=1e-9)
        assert one.angle == pytest.approx(0, abs=1e-3)
        assert (one.n_batches, one.n_samples) == (3, 60)


def test_feedback_alignment_by_explicit_matrices(data):
    rule, model, twin = network("fa")
    found = gradient_alignment(model, twin, rule, data, batch_size=60)
    x = data[0].flatten(1)
    weights = [layer.weight.detach() for layer in model.layers]
    feedback = [layer.feedback for layer in twin.layers]
    z1 = x @ weights[0].T
    z2 = z1.relu() @ weights[1].T
    error = ((z2.relu() @ weights[2].T).softmax(1) - F.one_hot(data[1], 4)) / 60

    def first_layer(path):
        delta = (error @ path[2]) * (z2 > 0)
        return (((delta @ path[1]) * (z1 > 0)).T @ x).flatten()

    expected = torch.cosine_similarity(first_layer(feedback), first_layer(weights), dim=0).item()
    assert list(found) == ["layers.0", "layers.1", "layers.2", ALL]
    assert found["layers.0"].cosine == pytest.approx(expected, abs=1e-5)
    assert found["layers.0"].sample_cosine == pytest.approx(expected, abs=1e-5)
    assert abs(expected) < 0.9
    assert found["layers.2"].cosine == pytest.approx(1, abs=1e-9)  # the output error is exact under every rule
    assert math.isnan(found["layers.0"].cosine_low)  # one mini-batch has no interval


def test_no_feedback_is_ninety_degrees():
    """DFA whose signals are all 0: an update of 0 against a gradient that is not."""
    rule, model, twin = network("dfa")
    with torch.no_grad():
        for layer in twin.layers[1:]:
            layer.feedback.zero_()
    random = torch.Generator().manual_seed(1)
    data = torch.randn(40, 1, 3, 3, generator=random), torch.randint(4, (40,), generator=random)
    found = gradient_alignment(model, twin, rule, data, batch_size=20)
    assert found["layers.0"].angle == 90  # no signal at all: an update of 0 follows nothing
    assert found["layers.0"].cosine == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_true_and_opposite_feedback(data, sign):
    rule, model, twin = network("fa")
    with torch.no_grad():
        twin.layers[1].feedback.copy_(model.layers[1].weight)
        twin.layers[2].feedback.copy_(sign * model.layers[2].weight)
    found = gradient_alignment(model, twin, rule, data, batch_size=30)
    assert found["layers.0"].cosine == pytest.approx(sign, abs=1e-6)
    assert found["layers.1"].cosine == pytest.approx(sign, abs=1e-6)
    assert -1 < found[ALL].cosine < 1 or sign == 1


@pytest.mark.parametrize("rule", ["pfa", "kp", "usf", "dfa"])
def test_nothing_of_the_networks_moves(rule, data):
    made, model, twin = network(rule)
    twin.train()
    before = {name: t.clone() for name, t in twin.state_dict().items()}
    found = gradient_alignment(model, twin, made, data, batch_size=16)
    assert twin.training
    assert all(torch.equal(before[name], t) for name, t in twin.state_dict().items())
    assert all(p.grad is None for p in twin.parameters())
    assert all(one.n_samples == 48 and -1 <= one.cosine <= 1 for one in found.values())


def test_a_vanished_gradient_is_left_out(data):
    rule, model, twin = network("fa")
    with torch.no_grad():
        model.layers[0].weight.zero_()
        model.layers[0].bias.fill_(-1)
    found = gradient_alignment(model, twin, rule, data, batch_size=20)
    assert found["layers.0"].n_batches == 0
    assert math.isnan(found["layers.0"].cosine)
    assert math.isnan(found["layers.0"].sample_cosine)


def test_interval_covers_as_it_says():
    """Cosines of noisy updates: the interval contains their expectation in 95 % of 2,000 repetitions."""
    random = torch.Generator().manual_seed(4)
    truth = torch.randn(400_000, generator=random, dtype=torch.float64).mul(0.3).tanh()
    expectation = truth.mean().item()
    hits = 0
    for part in truth[: 2000 * 15].view(2000, 15):
        _, low, high = mean_interval(part)
        hits += low <= expectation <= high
    assert 0.935 < hits / 2000 < 0.965
    assert all(math.isnan(v) for v in mean_interval(truth[:0]))


def test_metrics_hold_the_cosines_on_request(tmp_path):
    import pandas as pd

    data = load_dataset("digits", train_size=200)
    config = TrainConfig(rule="fa", hidden=(8,), epochs=2, batch_size=50, gradient_alignment=100)
    run = train(config, data, tmp_path)
    frame = pd.read_csv(run.path / "metrics.csv")
    assert frame["gradient_cosine_layers.1"].tolist() == pytest.approx([1, 1, 1], abs=1e-6)
    assert frame["gradient_cosine_layers.0"].abs().max() < 1
    assert frame["gradient_cosine_all"].notna().all()
