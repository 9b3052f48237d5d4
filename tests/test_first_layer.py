"""Networks cut after their first layer: the whole network is the oracle."""

import copy

import numpy as np
import pytest
import torch
from robust_nets import held_out, trained
from torch import nn

from robustness import auto_pgd, fast_boundary, square
from robustness.attacks import Batch, input_gradient
from robustness.auto_pgd import apgd, apgd_targeted
from robustness.fast_boundary import fab
from robustness.first_layer import FirstLayer, Whole, cut_after_first_layer, followed
from robustness.losses import cross_entropy
from robustness.square import SquareAttack

DOUBLE = torch.float64
WINDOW = (slice(2, 5), slice(3, 6))


class Affine(nn.Module):
    def forward(self, images):
        return (images - 0.45) / torch.tensor([0.2, 0.3, 0.25], dtype=images.dtype)[:, None, None]


class Skip(nn.Module):
    """Pixels reach the logits beside the first layer, too."""

    def __init__(self):
        super().__init__()
        self.layer, self.past = nn.Linear(192, 10), nn.Linear(192, 10)

    def forward(self, images):
        return self.layer(images.flatten(1)).relu() + self.past(images.flatten(1))


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(192, 192)

    def forward(self, images):
        return self.layer(self.layer(images.flatten(1)).relu())


class Noisy(nn.Module):
    def forward(self, hidden):
        return hidden + 0.01 * torch.randn_like(hidden)


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def network(*before, after=()):
    torch.manual_seed(0)
    layers = (*before, nn.Flatten(), nn.Linear(192, 20), *after, nn.ReLU(), nn.Linear(20, 10))
    return nn.Sequential(*layers).double().eval()


def some_images(n=6):
    return torch.rand(n, 3, 8, 8, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "model",
    [
        network(),
        network(Affine(), nn.Dropout(0.5)),
        network(after=(nn.BatchNorm1d(20),)),
        nn.Sequential(network(Function(lambda x: x.reshape(-1, 3, 8, 8))), nn.Linear(10, 4).double()),
    ],
)
@torch.no_grad()
def test_the_cut_network_is_the_network(model):
    images = some_images()
    cut = cut_after_first_layer(model, images)
    outputs, logits = cut.outputs(images)
    torch.testing.assert_close(logits, model(images))
    torch.testing.assert_close(cut.logits(outputs), model(images))
    moved = images.clone()
    moved[..., *WINDOW] = 1 - moved[..., *WINDOW]
    outputs += cut.change((moved - images)[..., *WINDOW], WINDOW)
    torch.testing.assert_close(cut.logits(outputs), model(moved))
    assert not any("forward" in vars(module) or module._forward_hooks for module in model.modules() if module != model)


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 10)).double(),
        Skip().double(),
        Twice().double(),
        network(after=(Noisy(),)),
        network(Noisy()),
        network(Function(lambda x: (x * 16).round() / 16)),
        network(Function(lambda x: x.clamp(0.1, 0.9))),
        network(Function(lambda x: x.flip(3))),
        network(Function(lambda x: x - x.mean((1, 2, 3), keepdim=True))),
        Function(lambda x: x.flatten(1)),
    ],
)
def test_other_networks_are_left_whole(model):
    assert cut_after_first_layer(model.eval(), some_images()) is None


def test_square_finds_what_it_finds_with_full_passes(monkeypatch):
    images, labels = held_out(60, dtype=DOUBLE)
    model = copy.deepcopy(trained()).double()
    batch = Batch(model=model, gradient_model=model, images=images, labels=labels, numbers=range(60))
    found, passes = {}, {}
    for kind in ("cut", "whole"):
        if kind == "whole":
            monkeypatch.setattr(square, "cut_after_first_layer", lambda *_: None)
        pixels = []
        handle = model.register_forward_pre_hook(lambda _, given, pixels=pixels: pixels.append(given[0].stride(0)))
        found[kind] = SquareAttack(queries=450).on(batch, restart=0, stop_when_fooled=True)(0.1, torch.arange(60))
        handle.remove()
        passes[kind] = np.count_nonzero(pixels)
    fooled = model(found["whole"]).argmax(1) != labels
    assert 0.2 < fooled.double().mean() < 1
    torch.testing.assert_close(found["cut"], found["whole"])
    assert passes["cut"] < passes["whole"] / 4  # full ones, of images


class Halved(torch.autograd.Function):
    """The identity, whose gradient is half of the true one."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient / 2


def as_batch(model, images, labels, follow=None):
    numbers = range(len(images))
    return Batch(model=model, gradient_model=follow or model, images=images, labels=labels, numbers=numbers)


def test_the_slope_of_a_cut_network_is_autograds_and_its_outputs_lie_between():
    model, images, labels = network(Affine()), some_images(), torch.arange(6)
    net = followed(as_batch(model, images, labels))
    assert isinstance(net, FirstLayer)
    passed = net.passed(images)
    torch.testing.assert_close(passed, net.outputs(images)[0])
    for found, expected in zip(
        net.slope(passed, labels, cross_entropy), input_gradient(model, images, labels, cross_entropy), strict=True
    ):
        torch.testing.assert_close(found, expected)
    between = torch.lerp(images, images.flip(0), 0.3)
    torch.testing.assert_close(torch.lerp(passed, passed.flip(0), 0.3), net.passed(between))


def test_a_gradient_that_is_not_that_of_the_weights_is_followed_as_it_is():
    """A mask, a backward path of feedback, and a network without a gradient must not be repaired by the way."""
    images, labels, plain = some_images(), torch.arange(6), network()
    masked = network(Function(Halved.apply))
    assert cut_after_first_layer(masked, images) is not None  # its answers are those of the cut network
    for model, follow in ((masked, masked), (plain, masked), (network(Function(lambda x: x.detach())),) * 2):
        net = followed(as_batch(model, images, labels, follow))
        assert isinstance(net, Whole)
        assert net.model is follow


@pytest.mark.parametrize("attack", [fab(steps=15), fab(steps=15, norm="l2"), apgd_targeted(steps=15), apgd(steps=15)])
def test_attacks_find_what_they_find_in_full_passes(attack, monkeypatch):
    images, labels = held_out(40, dtype=DOUBLE)
    model = copy.deepcopy(trained()).double()
    batch, eps = as_batch(model, images, labels), 0.08 if attack.norm == "linf" else 0.6
    found = {}
    for kind in ("cut", "whole"):
        if kind == "whole":
            for module in (auto_pgd, fast_boundary):
                monkeypatch.setattr(module, "followed", lambda batch: Whole(batch.gradient_model))
        found[kind] = attack.on(batch, restart=0, stop_when_fooled=True)(eps, torch.arange(40))
    fooled = model(found["whole"]).argmax(1) != labels
    assert 0.1 < fooled.double().mean() < 1
    torch.testing.assert_close(found["cut"][fooled], found["whole"][fooled])
    assert ((model(found["cut"]).argmax(1) != labels) == fooled).all()


@pytest.mark.parametrize("attack", [fab(steps=15), apgd_targeted(steps=15)])
def test_how_many_targets_go_together_changes_nothing(attack, monkeypatch):
    images, labels = held_out(40, dtype=DOUBLE)
    model = copy.deepcopy(trained()).double()
    found = []
    for most in (1, 128):
        for module in (auto_pgd, fast_boundary):
            monkeypatch.setattr(module, "AT_ONCE", most)
        perturber = attack.on(as_batch(model, images, labels), restart=0, stop_when_fooled=True)
        found.append(model(perturber(0.06, torch.arange(40))).argmax(1) != labels)
    assert found[0].any()
    assert found[0].equal(found[1])
