"""Surfaces against closed forms, plain evaluation of displaced models, and the traps of other tools."""

import copy
import warnings

import pytest
import torch
from devices import DEVICES
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from alignscape.errors import InputError
from landscape import plane_network
from landscape.affine import find_affine_layers
from landscape.data import Batch
from landscape.directions import check_plane, filter_normalised_directions
from landscape.lanczos import top_eigenpairs
from landscape.parameters import flatten, select_parameters, unflatten
from landscape.plane import PlaneLoss
from landscape.surfaces import surface

LOSS = nn.CrossEntropyLoss()


def images(count=23, channels=2, side=6, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, channels, side, side, generator=generator, dtype=dtype)
    return x, torch.randint(0, 4, (count,), generator=generator)


class Branches(nn.Module):
    """Two layers see the input, and a constant mask comes before one of them."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.out = nn.Linear(72, 5), nn.Linear(72, 5, bias=False), nn.Linear(5, 4)
        self.register_buffer("mask", torch.arange(72) % 3 == 0)

    def forward(self, x):
        x = x.flatten(1)
        return self.out(torch.tanh(self.left(x)) * self.right(x * self.mask))


class Tied(nn.Module):
    """The first layer's weight is used again, outside its layer."""

    def __init__(self):
        super().__init__()
        self.first, self.out = nn.Linear(72, 5), nn.Linear(72, 4)

    def forward(self, x):
        return self.out(F.linear(torch.tanh(self.first(x.flatten(1))), self.first.weight.T))


class Detached(nn.Module):
    """The second layer's input depends on the first one, though autograd does not see it."""

    def __init__(self):
        super().__init__()
        self.first, self.out = nn.Linear(72, 5), nn.Linear(5, 4)

    def forward(self, x):
        return self.out(torch.tanh(self.first(x.flatten(1))).detach())


class Twice(nn.Module):
    """One layer is applied to the input and to its own output."""

    def __init__(self):
        super().__init__()
        self.layer, self.out = nn.Linear(72, 72), nn.Linear(72, 4)

    def forward(self, x):
        return self.out(self.layer(torch.tanh(self.layer(x.flatten(1)))))


class Shared(nn.Module):
    """Two layers hold the same weight, the second one deep in the network."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.out = nn.Linear(72, 72), nn.Linear(72, 72), nn.Linear(72, 4)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.out(torch.tanh(self.second(torch.tanh(self.first(x.flatten(1))))))


class Faint(nn.Module):
    """The first layer's weight has a small part in the outputs outside its layer."""

    def __init__(self):
        super().__init__()
        self.first, self.out = nn.Linear(72, 5), nn.Linear(5, 4)

    def forward(self, x):
        return self.out(torch.tanh(self.first(x.flatten(1)))) + 1e-9 * self.first.weight.mean()


class Attention(nn.Module):
    """Tokens, LayerNorm and attention; the input is permuted before the first layer."""

    def __init__(self):
        super().__init__()
        self.embed, self.norm = nn.Linear(2, 8), nn.LayerNorm(8)
        self.mix, self.out = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 4)

    def forward(self, x):
        tokens = self.norm(self.embed(x.flatten(2).transpose(1, 2)))
        return self.out(self.mix(tokens, tokens, tokens, need_weights=False)[0].mean(1))


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(72, 7), nn.Tanh(), nn.Linear(7, 4))


def conv():
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular", bias=False),
        nn.BatchNorm2d(3),
        nn.ReLU(inplace=True),
        nn.Conv2d(3, 4, 3, stride=2),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(16, 4),
    )


MODELS = {
    # name: (factory, names of its affine layers)
    "mlp": (mlp, {"1"}),
    "linear": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(72, 4)), {"1"}),
    "in-place": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(72, 7), nn.ReLU(True), nn.Linear(7, 4)), {"1"}),
    "conv": (conv, {"0"}),
    "norm first": (lambda: nn.Sequential(nn.BatchNorm2d(2), *conv()), set()),
    "frozen norm first": (lambda: nn.Sequential(nn.BatchNorm2d(2, affine=False), *conv()), {"1"}),
    "branches": (Branches, {"left", "right"}),
    "tied": (Tied, set()),
    "detached": (Detached, set()),
    "twice": (Twice, set()),
    "shared": (Shared, set()),
    "faint": (Faint, set()),
    "attention": (Attention, {"embed"}),
}


def build(name):
    torch.manual_seed(0)
    model = MODELS[name][0]().double()
    for module in model.modules():  # running statistics that differ from the batch's
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    return model


def plane_of(model, seed=1, norm=1.0):
    size = flatten(select_parameters(model)).numel()
    directions = torch.randn(2, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return directions / directions.norm(dim=1, keepdim=True) * norm


def displaced_loss(model, vector, data, loss=LOSS):
    """The oracle: a deep copy whose parameters are overwritten, evaluated on all samples at once."""
    other = copy.deepcopy(model).eval()
    like = select_parameters(other)
    with torch.no_grad():
        for name, value in unflatten(vector.to(next(iter(like.values()))), like).items():
            like[name].copy_(value)
        return float(loss(other(data[0]), data[1]))


def quadratic(eigenvalues=(4.0, 1.0, 0.25)):
    """A model whose loss is exactly 0.5 w^T H w: samples sqrt(N lambda_i) e_i."""
    lam = torch.tensor(eigenvalues, dtype=torch.float64)
    model = nn.Linear(len(lam), 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.3, -0.2, 0.5]]))
    data = torch.diag((lam * len(lam)).sqrt()), torch.zeros(len(lam), 1, dtype=torch.float64)
    return model, lambda out, y: 0.5 * (out - y).square().mean(), data, torch.diag(lam)


# -- values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_every_grid_point_equals_the_displaced_model(name):
    model, data = build(name), images()
    directions = plane_of(model, norm=3.0)
    origin = flatten(select_parameters(model)).detach()
    alphas, betas = [-1.0, 0.25, 0.5], [0.0, 0.7]
    found = surface(model, LOSS, data, directions, alphas=alphas, betas=betas)
    for i, a in enumerate(alphas):
        for j, b in enumerate(betas):
            expected = displaced_loss(model, origin + a * directions[0] + b * directions[1], data)
            assert float(found.loss[i, j]) == pytest.approx(expected, rel=1e-12), (a, b)
    assert found.centre_loss == pytest.approx(displaced_loss(model, origin, data), rel=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_affine_layers_are_used_where_and_only_where_they_are_affine(name):
    model = build(name)
    plane = PlaneLoss(model, LOSS, images(), plane_of(model))
    names = {module: name for name, module in model.named_modules()}
    assert {names[layer] for layer in plane.network.affine_layers} == MODELS[name][1]


@pytest.mark.parametrize("name", ["mlp", "conv", "branches", "attention", "tied"])
@pytest.mark.parametrize("together", [0, 2**30])
def test_one_by_one_and_many_at_once_agree(name, together, monkeypatch):
    model, data = build(name), images()
    directions = plane_of(model, norm=2.0)
    expected = surface(model, LOSS, data, directions, alphas=torch.linspace(-1, 1, 5)).loss
    monkeypatch.setitem(plane_network._TOGETHER, "cpu", together)
    found = surface(model, LOSS, data, directions, alphas=torch.linspace(-1, 1, 5)).loss
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_a_loss_that_vmap_cannot_run_is_evaluated_point_by_point(monkeypatch):
    monkeypatch.setitem(plane_network._TOGETHER, "cpu", 2**30)
    model, data = build("mlp"), images()

    def loss(outputs, targets):
        value = LOSS(outputs, targets)
        return value if value.item() > 0 else -value  # a branch on a value

    directions = plane_of(model)
    found = surface(model, loss, data, directions, alphas=[0.0, 1.0])
    torch.testing.assert_close(found.loss, surface(model, LOSS, data, directions, alphas=[0.0, 1.0]).loss)


def test_axes_of_an_asymmetric_quadratic():
    """Swapped axes, a grid sheared by one cell and transposed storage all fail here."""
    model, loss, data, hessian = quadratic()
    directions = torch.eye(3, dtype=torch.float64)[[0, 2]]
    alphas, betas = torch.linspace(-2, 1, 4), torch.linspace(0, 3, 7)
    found = surface(model, loss, data, directions, alphas=alphas, betas=betas)
    w = model.weight.detach()[0]
    for i, a in enumerate(alphas.tolist()):
        for j, b in enumerate(betas.tolist()):
            v = w + a * directions[0] + b * directions[1]
            assert float(found.loss[i, j]) == pytest.approx(float(0.5 * v @ hessian @ v))
    frame = found.frame()
    assert frame.columns.tolist() == ["alpha", "beta", "loss"]
    assert len(frame) == 28
    for row in frame.itertuples():
        v = w + row.alpha * directions[0] + row.beta * directions[1]
        assert row.loss == pytest.approx(float(0.5 * v @ hessian @ v))


def test_a_grid_of_one_point():
    model, data = build("mlp"), images()
    found = surface(model, LOSS, data, plane_of(model), alphas=[0.0])
    assert found.loss.shape == (1, 1)
    assert float(found.loss) == pytest.approx(LOSS(model(data[0]), data[1]).item())


def test_another_origin():
    model, data = build("mlp"), images()
    directions, other = plane_of(model), plane_of(model, seed=9)[0] * 4
    found = surface(model, LOSS, data, directions, alphas=[0.5], betas=[0.0], origin=other)
    assert float(found.loss) == pytest.approx(displaced_loss(model, other + 0.5 * directions[0], data))


def test_directions_keep_their_length():
    model, data = build("mlp"), images()
    short, long = plane_of(model), plane_of(model, norm=2.0)
    near = surface(model, LOSS, data, short, alphas=[2.0]).loss
    torch.testing.assert_close(near, surface(model, LOSS, data, long, alphas=[1.0]).loss)


# -- samples --------------------------------------------------------------------------------------------------------


def test_no_more_samples_at_once_than_asked_for():
    model, (x, y) = build("mlp"), images(count=25)
    sizes = []
    hook = model.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    surface(model, LOSS, (x, y), plane_of(model), alphas=[-1.0, 1.0], batch_size=4)
    hook.remove()
    assert max(sizes) == 4


def test_bytes_are_normalised_batch_by_batch():
    model, (_, y) = build("mlp"), images(count=25)
    pixels = torch.randint(0, 256, (25, 2, 6, 6), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    seen = []

    def normalise(inputs):
        seen.append(len(inputs))
        return inputs.double() / 255 - 0.5

    expected = surface(model, LOSS, (normalise(pixels), y), plane_of(model), alphas=[-1.0, 1.0])
    seen.clear()
    found = surface(model, LOSS, (pixels, y), plane_of(model), alphas=[-1.0, 1.0], batch_size=10, transform=normalise)
    torch.testing.assert_close(found.loss, expected.loss, rtol=1e-12, atol=0)
    assert max(seen) == 10


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_every_sample_counts_the_same_whatever_the_batches(reduction):
    model, (x, y) = build("conv"), images(count=25)
    loss = nn.CrossEntropyLoss(reduction=reduction)
    directions = plane_of(model)
    expected = surface(model, LOSS, (x, y), directions, alphas=[-1.0, 1.0])
    uneven = [(x[:20], y[:20]), (x[20:22], y[20:22]), (x[22:], y[22:])]
    for found in (
        surface(model, loss, uneven, directions, alphas=[-1.0, 1.0]),
        surface(model, loss, (x, y), directions, alphas=[-1.0, 1.0], batch_size=4),
    ):
        torch.testing.assert_close(found.loss, expected.loss, rtol=1e-12, atol=0)
        torch.testing.assert_close(found.hessian, expected.hessian, rtol=1e-9, atol=1e-12)


def test_progress_rises_to_its_total():
    model, (x, y) = build("mlp"), images(count=20)
    seen = []
    batches = [(x[:13], y[:13]), (x[13:], y[13:])]
    surface(model, LOSS, batches, plane_of(model), batch_size=4, progress=lambda *p: seen.append(p))
    done, total = zip(*seen, strict=True)
    assert list(done) == sorted(done)
    assert done[-1] == total[-1] == total[0]


# -- the model stays as it is ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlp", "conv", "attention", "tied"])
def test_the_model_is_left_as_it_was(name):
    model, data = build(name), images()
    model.train()
    next(iter(model.children())).eval()  # a mixture of modes
    before = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    attributes = [set(vars(module)) for module in model.modules()]
    surface(model, LOSS, data, plane_of(model), alphas=[0.0, 1.0])
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert modes == [module.training for module in model.modules()]
    assert attributes == [set(vars(module)) for module in model.modules()]
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_the_model_is_left_as_it_was_when_the_loss_fails():
    model, data = build("mlp"), images()
    model.train()
    calls = []

    def loss(outputs, targets):
        calls.append(1)
        if len(calls) > 4:
            raise KeyError("the user's own")
        return LOSS(outputs, targets)

    with pytest.raises(KeyError):
        surface(model, loss, data, plane_of(model))
    assert model.training
    assert "forward" not in vars(model[1])


def test_two_surfaces_in_one_process_are_equal():
    model, data = build("conv").eval(), images()
    first = surface(model, LOSS, data, plane_of(model), alphas=[0.0, 1.0])
    model(data[0]).sum().backward()  # a gradient lies about
    second = surface(model, LOSS, data, plane_of(model), alphas=[0.0, 1.0])
    assert torch.equal(second.loss, first.loss)
    assert torch.equal(second.hessian, first.hessian)


def test_frozen_parameters_do_not_move():
    model, data = build("mlp"), images()
    model[1].weight.requires_grad_(False)
    directions = plane_of(model, norm=2.0)
    assert directions.shape[1] == 7 + 7 * 4 + 4
    found = surface(model, LOSS, data, directions, alphas=[1.0], betas=[-1.0])
    vector = flatten(select_parameters(model)).detach() + directions[0] - directions[1]
    assert float(found.loss) == pytest.approx(displaced_loss(model, vector, data))


def test_a_plane_in_some_parameters_only():
    model, data = build("mlp"), images()
    directions = torch.randn(2, 28, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = surface(model, LOSS, data, directions, alphas=[1.0], betas=[0.5], params=["3.weight"])
    vector = flatten({**select_parameters(model)}).detach().clone()
    vector[-32:-4] += directions[0] + 0.5 * directions[1]
    assert float(found.loss) == pytest.approx(displaced_loss(model, vector, data))
    plane = PlaneLoss(model, LOSS, data, directions, params=["3.weight"])
    assert plane.network.affine_layers == [model[3]]  # what comes before stands still


# -- the centre -----------------------------------------------------------------------------------------------------


def dense_hessian(model, data, loss=LOSS):
    like = {name: p.detach() for name, p in model.named_parameters()}
    model = copy.deepcopy(model).eval()

    def value(vector):
        return loss(torch.func.functional_call(model, unflatten(vector, like), (data[0],)), data[1])

    with sdpa_kernel(SDPBackend.MATH):  # the fused kernel has no second derivative
        return torch.autograd.functional.hessian(value, flatten(like))


@pytest.mark.parametrize("name", ["mlp", "conv", "attention", "branches"])
def test_hessian_in_the_plane_equals_the_dense_one(name):
    model, data = build(name), images()
    directions = plane_of(model)
    found = surface(model, LOSS, data, directions, alphas=[0.0])
    torch.testing.assert_close(found.hessian, directions @ dense_hessian(model, data) @ directions.T)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6])
def test_second_differences_are_within_their_error(dtype, scale):
    model, (x, y) = build("mlp").to(dtype), images(dtype=dtype)
    directions = plane_of(model)

    def loss(outputs, targets):
        return scale * LOSS(outputs, targets)

    found = surface(model, loss, (x, y), directions, alphas=[0.0])
    reference = surface(build("mlp"), loss, (x.double(), y), directions, alphas=[0.0]).hessian.diagonal()
    assert ((found.curvature - reference).abs() <= found.curvature_error + 0.002 * reference.abs()).all()
    assert (found.curvature_error <= 0.1 * reference.abs()).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_centre_of_an_eigenvector_plane_has_the_eigenvalues(dtype):
    model, data = build("mlp"), images()
    values, vectors = torch.linalg.eigh(dense_hessian(model, data))
    top, values = vectors[:, [-1, -2]].T, values[[-1, -2]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = surface(model.to(dtype), LOSS, (data[0].to(dtype), data[1]), top, alphas=[0.0], eigenvalues=values)
    torch.testing.assert_close(found.curvature, values, rtol=0.01, atol=0)
    assert abs(float(found.hessian[0, 1])) < 1e-4 * float(values[0])


def test_eigenvectors_renormalised_layer_by_layer_are_called_out():
    """The trap: rescaling each layer's part (to the weights' norms) leaves a direction with another curvature."""
    model, data = build("mlp"), images()
    values, vectors = torch.linalg.eigh(dense_hessian(model, data))
    top = vectors[:, [-1, -2]].T
    like = select_parameters(model)
    renormalised = []
    for vector in top:
        parts = unflatten(vector, like)
        scaled = flatten({n: part / part.norm() * like[n].detach().norm() for n, part in parts.items()})
        renormalised.append(scaled / scaled.norm())
    with pytest.warns(UserWarning, match=r"along direction 1 is .* no eigenvector"):
        surface(model, LOSS, data, renormalised, alphas=[0.0], eigenvalues=values[[-1, -2]])


def test_eigenvalues_of_other_samples_are_called_out():
    model, data = build("mlp"), images()
    half = data[0][:11], data[1][:11]
    values, vectors = torch.linalg.eigh(dense_hessian(model, half))
    with pytest.warns(UserWarning, match="no eigenvector of this loss on these data"):
        surface(model, LOSS, data, vectors[:, [-1, -2]].T, alphas=[0.0], eigenvalues=values[[-1, -2]])


class _Feedback(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, feedback):
        ctx.save_for_backward(x, feedback)
        return x @ weight.T

    @staticmethod
    def backward(ctx, gradient):
        x, feedback = ctx.saved_tensors
        return gradient @ feedback, gradient.T @ x, None


class FeedbackNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.out = nn.Linear(72, 20), nn.Linear(20, 4, bias=False)
        self.register_buffer("feedback", torch.randn(4, 20))

    def forward(self, x):
        return _Feedback.apply(torch.tanh(self.first(x.flatten(1))), self.out.weight, self.feedback)


def test_a_backward_pass_that_is_no_gradient_is_called_out():
    torch.manual_seed(0)
    model = FeedbackNet().double()
    data = images()
    directions = plane_of(model, norm=2.0)
    with pytest.warns(UserWarning, match="backward pass is not the derivative"):
        found = surface(model, LOSS, data, directions, alphas=[1.0])
    vector = flatten(select_parameters(model)).detach() + directions.sum(0)
    assert float(found.loss) == pytest.approx(displaced_loss(model, vector, data))  # the surface itself is right


def kinked(kind):
    """Networks with kinks close by: trained for a few steps, so that eigenvectors cross many of them."""
    head = [nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3)]
    layers = [layer for layer in head if kind != "maxpool" or not isinstance(layer, nn.BatchNorm2d)]
    layers = [layer for layer in layers if kind != "batch norm" or not isinstance(layer, nn.MaxPool2d)]
    return nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 4))


def trained(kind, seed, dtype, around=lambda model: model):
    torch.manual_seed(seed)
    model, (x, y) = around(kinked(kind)).to(dtype), images(60, 1, 8, seed, dtype)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(30):
        optimiser.zero_grad()
        LOSS(model(x), y).backward()
        optimiser.step()
    return model.eval(), (x, y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["maxpool", "batch norm", "both"])
def test_kinks_are_no_reason_to_warn_and_wrong_eigenvalues_are(kind, dtype):
    """The trap: differences over many samples see kinks, which no eigenvalue has: a warning that cries wolf."""
    for seed in range(2):
        model, data = trained(kind, seed, dtype)
        pairs = top_eigenpairs(model, LOSS, data, k=2)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            surface(model, LOSS, data, pairs.vectors, alphas=[0.0], eigenvalues=pairs.values)
            surface(model, LOSS, data, filter_normalised_directions(model, seed=seed), alphas=[0.0])
        wrong = pairs.values * torch.tensor([1.0, 1.005])
        with pytest.warns(UserWarning, match="along direction 2"):
            surface(model, LOSS, data, pairs.vectors, alphas=[0.0], eigenvalues=wrong)


class _WrongTwice(torch.autograd.Function):
    """tanh with the right gradient, of which autograd takes a factor for a constant."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.tanh(x)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * (1 - torch.tanh(ctx.saved_tensors[0].detach()) ** 2)


class WrongTwice(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model, self.bent = model, nn.Linear(1, 1)

    def forward(self, x):
        return self.model(_WrongTwice.apply(2 * x * self.bent(torch.ones_like(x[..., :1]))))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_wrong_second_derivative_is_called_out_among_kinks(dtype):
    model, data = trained("both", 0, dtype, WrongTwice)
    directions = torch.zeros(2, flatten(select_parameters(model)).numel(), dtype=dtype)
    directions[0, -1] = directions[1, -2] = 1.0  # the parameters whose second derivatives are wrong
    with pytest.warns(UserWarning, match="backward pass is not the derivative"):
        surface(model, LOSS, data, directions, alphas=[0.0])


class _NoSecondDerivative(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx, gradient):
        if torch.is_grad_enabled():
            raise RuntimeError("derivative for square_backward is not implemented")
        return 2 * ctx.saved_tensors[0] * gradient


def test_a_model_without_a_second_derivative_is_checked_by_differences():
    class Square(nn.Module):
        def forward(self, x):
            return _NoSecondDerivative.apply(x)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 5), Square(), nn.Linear(5, 4)).double()
    directions = plane_of(model)
    found = surface(model, LOSS, images(), directions, alphas=[0.0])
    assert found.hessian.isnan().all()
    twin = nn.Sequential(model[0], model[1], nn.Identity(), model[3])
    twin[2].forward = torch.square
    expected = (directions @ dense_hessian(twin, images()) @ directions.T).diagonal()
    torch.testing.assert_close(found.curvature, expected, rtol=1e-3, atol=1e-6)
    with pytest.warns(UserWarning, match="no eigenvector"):
        surface(model, LOSS, images(), directions, alphas=[0.0], eigenvalues=expected * 1.1)


# -- directions -----------------------------------------------------------------------------------------------------


def test_filter_normalised_directions_have_the_filters_norms():
    model = build("conv")
    for direction in filter_normalised_directions(model, seed=3):
        for name, part in unflatten(direction, select_parameters(model)).items():
            weight = model.get_parameter(name).detach()
            if weight.dim() < 2:
                assert not part.any(), name  # biases, BatchNorm scales and shifts stay
            else:
                norms = part.flatten(1).norm(dim=1)
                torch.testing.assert_close(norms, weight.flatten(1).norm(dim=1))


def test_filter_normalised_directions_follow_their_seed():
    model = build("mlp")
    first = filter_normalised_directions(model, seed=0)
    torch.manual_seed(99)
    torch.testing.assert_close(filter_normalised_directions(model, seed=0), first)
    assert not torch.allclose(filter_normalised_directions(model, seed=1), first)
    assert abs(float(torch.cosine_similarity(first[0], first[1], dim=0))) < 0.3


def test_filter_normalised_surfaces_do_not_see_the_scale_of_a_relu_net():
    """Li et al.'s reason for filters: scaling a layer up and the next one down changes nothing."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 7, bias=False), nn.ReLU(), nn.Linear(7, 4, bias=False)).double()
    scaled = copy.deepcopy(model)
    with torch.no_grad():
        scaled[1].weight.mul_(10)
        scaled[3].weight.div_(10)
    one, other = (
        surface(m, LOSS, images(), filter_normalised_directions(m, seed=0), alphas=[-1.0, 0.0, 1.0]).loss
        for m in (model, scaled)
    )
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("directions", "message"),
    [
        (torch.zeros(2, 5), "zero"),
        (torch.ones(3, 5), "2 directions of 5"),
        (torch.stack([torch.arange(5.0), -2 * torch.arange(5.0)]), "parallel"),
        (torch.tensor([[1.0, 0, 0, 0, 0], [torch.nan, 1, 0, 0, 0]]), "NaN"),
    ],
)
def test_directions_that_span_no_plane_are_refused(directions, message):
    with pytest.raises(InputError, match=message):
        check_plane(directions, 5)


def test_directions_are_not_renormalised():
    directions = [torch.tensor([3.0, 0.0]), torch.tensor([1.0, 1.0])]
    torch.testing.assert_close(check_plane(directions, 2), torch.stack(directions))


# -- bad input ------------------------------------------------------------------------------------------------------


def test_weights_that_are_not_finite_are_refused():
    model = build("mlp")
    with torch.no_grad():
        model[3].bias[0] = torch.nan
    with pytest.raises(InputError, match="NaN or infinite"):
        surface(model, LOSS, images(), plane_of(model))


def test_losses_that_are_not_finite_are_recorded_with_a_warning():
    model, data = build("linear"), images()
    directions = plane_of(model, norm=100.0)
    with pytest.warns(UserWarning, match="not finite at 6 of 9 grid points"):
        found = surface(model, LOSS, data, directions, alphas=[-1e308, 0.0, 1e308], betas=[-1.0, 0.0, 1.0])
    assert torch.isfinite(found.loss[1]).all()
    assert not torch.isfinite(found.loss[[0, 2]]).any()


@pytest.mark.parametrize("alphas", [[], [float("nan")], [[0.0, 1.0]]])
def test_bad_grids_are_refused(alphas):
    model = build("mlp")
    with pytest.raises(InputError, match="alphas must be"):
        surface(model, LOSS, images(), plane_of(model), alphas=alphas)


def test_losses_per_sample_are_refused():
    model = build("mlp")
    for loss in (nn.CrossEntropyLoss(reduction="none"), lambda out, y: F.cross_entropy(out, y, reduction="none")):
        with pytest.raises(InputError, match="reduc"):
            surface(model, loss, images(), plane_of(model))


def test_finding_affine_layers_ignores_hooked_ones():
    model, data = build("mlp"), images()
    tensors = {name: p.detach() for name, p in model.named_parameters()}
    moving = unflatten(plane_of(model), tensors)
    assert len(find_affine_layers(model, tensors, moving, Batch(data[0][:2], ()))) == 1
    model[1].register_forward_hook(lambda module, args, output: output * 2)
    assert find_affine_layers(model, tensors, moving, Batch(data[0][:2], ())) == []


# -- other devices --------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:autograd's second derivatives")
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", MODELS)
def test_a_device_gives_the_surface_of_the_cpu(name, device):
    """In batches of its own, so that on a CPU it is no comparison of a thing with itself."""
    model, data = build(name), images()
    directions = plane_of(model)
    expected = surface(model, LOSS, data, directions)
    own = tuple(part.to(device) for part in data)
    found = surface(model.to(device), LOSS, own, directions.to(device), batch_size=9)
    torch.testing.assert_close(found.loss, expected.loss, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.hessian, expected.hessian, rtol=1e-6, atol=1e-9)
