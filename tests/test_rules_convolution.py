"""Each rule's update of convolutional networks against an explicit formula: unfolded patches, no autograd."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.config import TrainConfig
from training.rules import RULES, make_rule

SHAPE, CLASSES = (2, 9, 8), 5


def network() -> nn.Sequential:
    """Stride, padding, dilation and groups, then two linear layers."""
    return nn.Sequential(
        *(nn.Conv2d(2, 4, 3, stride=1, padding=1), nn.ReLU()),
        *(nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(2, 1), dilation=(1, 2), groups=2), nn.ReLU()),
        *(nn.Conv2d(6, 4, 2, stride=2, bias=False), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(48, 7), nn.ReLU(), nn.Linear(7, CLASSES)),
    )


def columns(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """Patches (N, groups, in / groups k k, places)."""
    unfolded = F.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    return unfolded.unflatten(1, (layer.groups, -1))


def grouped(delta: Tensor, layer: nn.Conv2d) -> Tensor:
    return delta.flatten(2).unflatten(1, (layer.groups, -1))  # (N, groups, out / groups, places)


def weight_gradient(delta: Tensor, x: Tensor, layer: nn.Module) -> Tensor:
    if isinstance(layer, nn.Linear):
        return torch.einsum("no,ni->oi", delta, x)
    found = torch.einsum("ngop,ngip->goi", grouped(delta, layer), columns(x, layer))
    return found.reshape(-1, *layer.weight.shape[1:])


def signal(delta: Tensor, x: Tensor, layer: nn.Module, down: Tensor) -> Tensor:
    if isinstance(layer, nn.Linear):
        return torch.einsum("no,oi->ni", delta, down)
    rows = down.flatten(1).unflatten(0, (layer.groups, -1))
    patches = torch.einsum("ngop,goi->ngip", grouped(delta, layer), rows).flatten(1, 2)
    return F.fold(patches, x.shape[2:], layer.kernel_size, layer.dilation, layer.padding, layer.stride)


def middle(delta: Tensor, layer: nn.Module, fixed: Tensor) -> Tensor:
    if isinstance(layer, nn.Linear):
        return torch.einsum("no,om->nm", delta, fixed)
    rows = fixed.flatten(1).unflatten(0, (layer.groups, -1))
    return torch.einsum("ngop,gom->ngmp", grouped(delta, layer), rows).reshape(len(delta), -1, *delta.shape[2:])


def explicit_update(rule: str, model: nn.Sequential, twin: nn.Module, inputs: Tensor, labels: Tensor):
    activations, x = [], inputs
    with torch.no_grad():
        for module in model:
            activations.append(x)
            x = module(x)
    error = delta = (x.softmax(1) - F.one_hot(labels, CLASSES)) / len(labels)
    update = {}
    for index in reversed(range(len(model))):
        plain, wrapped, x = model[index], twin[index], activations[index]
        if isinstance(plain, nn.ReLU):
            delta = delta * (x > 0)
        elif isinstance(plain, nn.Flatten):
            delta = delta.view_as(x)
        else:
            weight = plain.weight.detach()
            update[f"{index}.weight"] = weight_gradient(delta, x, plain)
            if plain.bias is not None:
                update[f"{index}.bias"] = delta.transpose(0, 1).flatten(1).sum(1)
            if index == 0:
                break
            fan_in = weight[0].numel()
            if rule in ("pfa", "pfa-o"):
                delta_mid = middle(delta, plain, wrapped.feedback)
                update[f"{index}.feedback_plastic"] = weight_gradient(delta_mid, x, plain)
                delta = signal(delta_mid, x, plain, wrapped.feedback_plastic.detach())
            elif rule == "dfa":
                delta = (error @ wrapped.feedback).view_as(x)
            else:
                down = {
                    "bp": lambda w=weight: w,
                    "usf": lambda w=weight, n=fan_in: (2 / n) ** 0.5 * w.sign(),
                    "frsf": lambda w=weight, m=wrapped: m.feedback * w.sign(),
                    "brsf": lambda w=weight, m=wrapped: m.feedback * w.sign(),
                    "kp": lambda m=wrapped: m.feedback_plastic.detach(),
                }.get(rule, lambda m=wrapped: m.feedback)()
                if rule == "kp":
                    update[f"{index}.feedback_plastic"] = update[f"{index}.weight"]
                delta = signal(delta, x, plain, down)
    return update


def build(rule: str, **fields):
    learning_rule = make_rule(
        TrainConfig(rule=rule, seed=2, expansion=3, angle=35.0 if rule == "ifa" else 0.0, **fields)
    )
    model = network()
    learning_rule.initialise(model)
    model.double()
    return learning_rule, model, learning_rule.wrap(model, SHAPE)


def batch(n: int = 6):
    random = torch.Generator().manual_seed(2)
    inputs = torch.randn(n, *SHAPE, generator=random, dtype=torch.float64)
    return inputs, torch.randint(CLASSES, (n,), generator=random)


def update_of(learning_rule, twin, inputs, labels):
    parameters = dict(twin.named_parameters())
    return learning_rule.gradients(parameters, learning_rule.objective(twin, inputs, labels))


@pytest.mark.parametrize("rule", RULES)
def test_update_of_convolutions_equals_the_explicit_formula(rule):
    learning_rule, model, twin = build(rule)
    inputs, labels = batch()
    learning_rule.before_step(twin, 0)
    expected = explicit_update(rule, model, twin, inputs, labels)
    actual = update_of(learning_rule, twin, inputs, labels)
    assert actual.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(actual[name], expected[name], rtol=1e-10, atol=1e-14)
        assert actual[name].abs().max() > 0, f"{name} gets no update at all: the comparison would show nothing"


class Residual(nn.Module):
    """Two blocks, one with a convolution in its shortcut, as torchvision's."""

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models.resnet import BasicBlock

        down = nn.Sequential(nn.Conv2d(4, 6, 1, 2, bias=False), nn.BatchNorm2d(6))
        self.stem = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.one, self.two = BasicBlock(4, 4), BasicBlock(4, 6, 2, down)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.two(self.one(self.stem(x))).mean((2, 3)))


@pytest.mark.parametrize("build_network", [network, Residual])
def test_fa_with_feedback_equal_to_the_weights_is_bp(build_network):
    learning_rule, model = make_rule(TrainConfig(rule="fa")), build_network()
    learning_rule.initialise(model)
    model.double()
    twin = learning_rule.wrap(model, SHAPE)
    inputs, labels = batch()
    with torch.no_grad():
        for layer in twin.modules():
            if hasattr(layer, "feedback"):
                layer.feedback.copy_(layer.weight)
    gradients = torch.autograd.grad(F.cross_entropy(model(inputs), labels), list(model.parameters()))
    update = update_of(learning_rule, twin, inputs, labels)
    for (name, _), gradient in zip(model.named_parameters(), gradients, strict=True):
        torch.testing.assert_close(update[name], gradient, rtol=1e-9, atol=1e-13)


def test_dfa_sends_nothing_twice_along_a_skip():
    """The second convolution of a block learns from the signal at its block's output alone: the local gradient there,
    by hand through relu(bn(.) + shortcut), whatever arrives at the blocks above."""
    learning_rule, model = make_rule(TrainConfig(rule="dfa")), Residual()
    learning_rule.initialise(model)
    model.double()
    twin = learning_rule.wrap(model, SHAPE)
    inputs, labels = batch()
    update = update_of(learning_rule, twin, inputs, labels)

    with torch.no_grad():
        x = model.stem(inputs)
        inner = F.relu(model.one.bn1(model.one.conv1(x)))
    local = model.one.conv2.weight.detach().requires_grad_()
    out = F.relu(model.one.bn2(F.conv2d(inner, local, padding=1)) + x)
    error = (model(inputs).softmax(1) - F.one_hot(labels, CLASSES)).detach() / len(labels)
    arriving = (error @ twin.two.conv1.feedback).view_as(out)
    (expected,) = torch.autograd.grad(out, local, arriving)
    torch.testing.assert_close(update["one.conv2.weight"], expected, rtol=1e-9, atol=1e-13)
    assert all(value is not None and value.abs().max() > 0 for value in update.values())

    before = update["stem.0.weight"]
    twin.two.conv1.feedback.zero_()
    twin.head.feedback.zero_()
    torch.testing.assert_close(update_of(learning_rule, twin, inputs, labels)["stem.0.weight"], before)


class PreActivation(nn.Module):
    """A block of He et al. 2016, "Identity Mappings": normalisation and ReLU before each convolution, all in place."""

    def __init__(self) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(F.relu(self.bn1(x), inplace=True))
        return self.conv2(F.relu(self.bn2(out), inplace=True)) + x


def test_dfa_through_pre_activation_blocks():
    """What the last convolution of a block learns is the signal at the next one's input, through relu(bn(.)) alone."""
    model = nn.Sequential(nn.Conv2d(2, 4, 3), PreActivation(), PreActivation(), nn.Flatten(), nn.Linear(168, CLASSES))
    learning_rule = make_rule(TrainConfig(rule="dfa"))
    learning_rule.initialise(model)
    model.double()
    twin = learning_rule.wrap(model, SHAPE)
    inputs, labels = batch()
    update = update_of(learning_rule, twin, inputs, labels)

    one, two = model[1], model[2]
    with torch.no_grad():
        x = model[0](inputs)
        inner = F.relu(one.bn2(one.conv1(F.relu(one.bn1(x)))))
        error = (model(inputs).softmax(1) - F.one_hot(labels, CLASSES)) / len(labels)
    local = one.conv2.weight.detach().requires_grad_()
    into_next = F.relu(two.bn1(F.conv2d(inner, local, padding=1) + x))
    arriving = (error @ twin[2].conv1.feedback).view_as(into_next)
    expected = torch.autograd.grad(into_next, [local, two.bn1.weight, two.bn1.bias], arriving)
    names = ("1.conv2.weight", "2.bn1.weight", "2.bn1.bias")
    for name, gradient in zip(names, expected, strict=True):
        torch.testing.assert_close(update[name], gradient, rtol=1e-9, atol=1e-13)

    below = update["0.weight"]  # the stem learns from the first block's input, not from what comes along the skips
    for layer in (twin[1].conv2, twin[2].conv1, twin[2].conv2, twin[4]):
        layer.feedback.zero_()
    torch.testing.assert_close(update_of(learning_rule, twin, inputs, labels)["0.weight"], below)


@pytest.mark.parametrize("padding", ["same", "valid", (2, 1)])
@pytest.mark.parametrize("mode", ["zeros", "reflect"])
def test_every_padding_of_a_convolution(padding, mode):
    """With B = W the update is the gradient, whatever pads the input."""
    layer = nn.Conv2d(2, 3, (4, 3), padding=padding, padding_mode=mode)
    model = nn.Sequential(
        nn.Conv2d(2, 2, 1), layer, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, CLASSES)
    )
    learning_rule = make_rule(TrainConfig(rule="fa"))
    learning_rule.initialise(model)
    model.double()
    twin = learning_rule.wrap(model, SHAPE)
    for index in (1, 5):
        twin[index].feedback.copy_(model[index].weight.detach())
    inputs, labels = batch()
    torch.testing.assert_close(twin(inputs), model(inputs))
    gradients = torch.autograd.grad(F.cross_entropy(model(inputs), labels), list(model.parameters()))
    update = update_of(learning_rule, twin, inputs, labels)
    for (name, _), gradient in zip(model.named_parameters(), gradients, strict=True):
        torch.testing.assert_close(update[name], gradient, rtol=1e-9, atol=1e-13)
