"""Why activations grow under feedback alignment (docs/fa-convolutions.md): what ties the length of one layer's weights
to the alignment of the next, as an identity of the updates."""

import itertools

import pytest
import torch
from torch import Tensor

from training.config import TrainConfig
from training.models.convolutional import LeNet
from training.rules import make_rule

LAYERS = ("features.0", "features.3", "classifier.1", "classifier.3", "classifier.5")


def sides(rule: str, activation: str) -> tuple[Tensor, Tensor]:
    """Return, for each layer l but the last, <W_l, U_l> + <b_l, u_l> and <D, U_(l+1)>, where U is the update of
    ``rule`` and D what carries its error down from layer l + 1: B for FA, W for BP."""
    random = torch.Generator().manual_seed(1)
    learning_rule = make_rule(TrainConfig(rule=rule, model="lenet", activation=activation))
    network = LeNet((3, 32, 32), 10, activation)
    learning_rule.initialise(network)
    with torch.no_grad():
        for layer in LAYERS:
            network.get_submodule(layer).bias.normal_(generator=random)
    twin = learning_rule.wrap(network, (3, 32, 32)).double()
    inputs = torch.randn(8, 3, 32, 32, generator=random, dtype=torch.float64)
    step = learning_rule.objective(twin, inputs, torch.randint(10, (8,), generator=random))
    weights = dict(twin.named_parameters())
    update = learning_rule.gradients(weights, step)
    own, above = [], []
    for layer, next_layer in itertools.pairwise(LAYERS):
        own.append(sum((weights[name] * update[name]).sum() for name in (f"{layer}.weight", f"{layer}.bias")))
        down = weights[f"{next_layer}.weight"] if rule == "bp" else twin.get_submodule(next_layer).feedback
        above.append((down * update[f"{next_layer}.weight"]).sum())
    return torch.stack(own).detach(), torch.stack(above).detach()


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
@pytest.mark.parametrize("rule", ["fa", "bp"])
def test_weights_grow_as_the_layer_above_turns_to_what_carries_its_error(rule, activation):
    """For phi(y) = phi'(y) y, with pooling and biases: d|W_l|^2 + d|b_l|^2 = 2 d<B, W_(l+1)> under FA, whatever the
    loss does; under BP it is d|W_(l+1)|^2, and so the same for all layers."""
    own, above = sides(rule, activation)
    torch.testing.assert_close(own, above, rtol=1e-10, atol=1e-12)
    assert (own.abs() > 1e-3).all()


def test_nothing_ties_them_under_tanh():
    own, above = sides("fa", "tanh")
    assert ((own - above).abs() > 0.1 * above.abs()).all()
