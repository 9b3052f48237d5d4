"""Convolutions as curvature computes them against torch's own second derivatives in float64."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from landscape import HessianOperator


class ResidualWithUses(nn.Module):
    """The images of one convolution are used twice, once normalised; another is changed in place before its norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 2, 3, padding=1, bias=False), nn.Conv2d(2, 2, 3, padding=1)
        self.norm, self.after = nn.BatchNorm2d(2), nn.BatchNorm2d(2, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        images = self.first(x)
        x = torch.tanh(images + self.norm(images))
        images = self.second(self.first(x))  # the same weights again
        images.mul_(0.5)
        return torch.tanh(self.after(images))


class Checkpointed(nn.Module):
    """A segment that runs again in the backward pass."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body, self.twice = nn.Sequential(*body), True

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.body, x, use_reentrant=False) if self.twice else self.body(x)


def run_once(model: nn.Module) -> nn.Module:
    """Leave checkpoints out: torch runs their segments again with what the model holds then, not what it was called
    with."""
    for module in model.modules():
        if isinstance(module, Checkpointed):
            module.twice = False
    return model


def network(body: list[nn.Module], shape: tuple[int, ...]) -> nn.Module:
    """A network in float64 with running statistics of its own, and a head for three classes."""
    model = nn.Sequential(*body, nn.Flatten()).double()
    model.eval()
    width = model(torch.zeros(1, *shape, dtype=torch.float64)).shape[1]
    model.append(nn.Linear(width, 3).double())
    model.train()
    model(torch.randn(8, *shape, dtype=torch.float64) * 2 + 0.3)
    return model


def conv_norm(kind: int, *args: int, **options: object) -> list[nn.Module]:
    conv, norm = (
        (nn.Conv1d, nn.BatchNorm1d),
        (nn.Conv2d, nn.BatchNorm2d),
        (nn.Conv3d, nn.BatchNorm3d),
    )[kind - 1]
    made = conv(*args, **options)
    return [made, norm(made.out_channels), nn.Tanh()]


NETWORKS = {
    "plain": lambda: ([nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Conv2d(2, 2, 2, bias=False), nn.Tanh()], (1, 5, 5)),
    "strided": lambda: (
        [*conv_norm(2, 1, 2, 3, stride=2, padding=1), *conv_norm(2, 2, 3, 2, bias=False)],
        (1, 6, 6),
    ),
    "dilated": lambda: (conv_norm(2, 2, 2, 2, dilation=2, padding=(1, 0), bias=False), (2, 5, 5)),
    "depthwise": lambda: ([*conv_norm(2, 2, 2, 3, groups=2, padding=1), nn.Conv2d(2, 2, 1), nn.Tanh()], (2, 4, 4)),
    "same": lambda: ([nn.Conv2d(1, 2, 3, padding="same"), nn.Tanh()], (1, 4, 4)),
    "one axis": lambda: (conv_norm(1, 2, 3, 3, padding=1, bias=False), (2, 6)),
    "three axes": lambda: (conv_norm(3, 1, 2, 2), (1, 3, 3, 3)),
    "used twice": lambda: ([ResidualWithUses()], (2, 4, 4)),
    "checkpointed": lambda: ([Checkpointed(*conv_norm(2, 2, 2, 3)), *conv_norm(2, 2, 2, 2)], (2, 5, 5)),
    "norm first": lambda: ([nn.BatchNorm2d(2), nn.Conv2d(2, 2, 3), nn.ReLU(inplace=True)], (2, 4, 4)),
}


def dense(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    start = {name: p.detach() for name, p in model.named_parameters()}

    def value(flat: Tensor) -> Tensor:
        parts = flat.split([p.numel() for p in start.values()])
        weights = {name: part.view_as(p) for (name, p), part in zip(start.items(), parts, strict=True)}
        return nn.functional.cross_entropy(functional_call(model, weights, (inputs,)), targets)

    return torch.autograd.functional.hessian(value, torch.cat([p.flatten() for p in start.values()]))


@pytest.mark.parametrize("name", NETWORKS)
def test_products_are_those_of_torch(name, monkeypatch):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body, shape = NETWORKS[name]()
        model = network(body, shape)
        inputs, targets = torch.randn(5, *shape, dtype=torch.float64), torch.randint(3, (5,))
    operator = HessianOperator(model, nn.CrossEntropyLoss(), (inputs, targets))
    truth = dense(run_once(copy.deepcopy(model)).eval(), inputs, targets)
    identity = torch.eye(operator.dim, dtype=torch.float64)
    torch.testing.assert_close(operator.product(identity), truth, rtol=1e-9, atol=1e-12)
    monkeypatch.setattr("landscape.operator._OVERHEAD_BOUND", {})  # one vector at a time, not all under vmap
    single = HessianOperator(model, nn.CrossEntropyLoss(), (inputs, targets))
    torch.testing.assert_close(single.product(identity), truth, rtol=1e-9, atol=1e-12)


def test_inside_of_vmap_and_autocast_torch_is_left_alone():
    class Ensemble(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = nn.Parameter(torch.randn(2, 3, 1, 2, 2, dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            images = torch.func.vmap(lambda w: nn.functional.conv2d(x, w))(self.weights)
            return torch.tanh(images).mean((0, 3, 4))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, inputs = Ensemble(), torch.randn(4, 1, 4, 4, dtype=torch.float64)
    targets = torch.tensor([0, 1, 2, 0])
    operator = HessianOperator(model, nn.CrossEntropyLoss(), (inputs, targets))
    found = operator.product(torch.eye(operator.dim, dtype=torch.float64))
    torch.testing.assert_close(found, dense(model, inputs, targets), rtol=1e-9, atol=1e-12)


def test_a_product_takes_six_convolutions_a_layer_and_two_for_the_first():
    """The least that an exact product can do; torch's own counts as many, but in kernels as large as the image."""
    model = nn.Sequential(*[layer for _ in range(3) for layer in (nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())])
    model = nn.Sequential(model, nn.Flatten(), nn.Linear(8 * 8 * 8, 3))
    inputs, targets = torch.randn(16, 8, 8, 8), torch.randint(3, (16,))
    operator = HessianOperator(model, nn.CrossEntropyLoss(), (inputs, targets))
    with FlopCounterMode(display=False) as counter:
        operator.product(torch.randn(operator.dim))
    layer = 2 * 16 * 8 * 8 * 8 * 8 * 9
    head = 6 * 2 * 16 * 8 * 8 * 8 * 3
    assert counter.get_total_flops() <= (2 + 6 + 6) * layer + head


def test_batch_normalisation_behind_a_convolution_keeps_no_images():
    """Kept graphs hold what the layers are given, not what stands between a convolution and its norm."""
    norms = [layer for _ in range(4) for layer in (nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())]
    plain = [layer for layer in norms if not isinstance(layer, nn.BatchNorm2d)]
    inputs, targets = torch.randn(32, 8, 8, 8), torch.randint(3, (32,))
    sizes = []
    for body in (norms, plain):
        model = nn.Sequential(*body, nn.Flatten(), nn.Linear(8 * 8 * 8, 3))
        operator = HessianOperator(model, nn.CrossEntropyLoss(), (inputs, targets))
        sizes.append(next(iter(operator._kept.values()))[0].nbytes())
    assert sizes[0] < 1.05 * sizes[1]
