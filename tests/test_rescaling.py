"""Rescalings that leave a function as it is: which are found, and the least trace and eigenvalue over them."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from test_sharpness import classifier, dense
from torch import nn
from torch.nn import functional as F

from alignscape.errors import InputError
from landscape import minimal_eigenvalue, minimal_trace, rescalings
from landscape.sharpness.minimal import scale_of
from landscape.sharpness.rescaling import function_change


def inputs(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)), torch.zeros(shape[0])


class Functional(nn.Module):
    """What is between the layers is no module."""

    def __init__(self, between, *, bias=True):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(n, m, bias=bias) for n, m in ((4, 6), (6, 5), (5, 3)))
        self.between = between

    def forward(self, x):
        for layer in self.layers[:-1]:
            x = self.between(layer(x))
        return self.layers[-1](x)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.inner, self.outer, self.last = (nn.Linear(4, 4) for _ in range(4))

    def forward(self, x):
        x = F.relu(self.first(x))
        x = x + self.outer(F.relu(self.inner(x)))
        return self.last(F.relu(x))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.last = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.last(F.relu(self.layer(F.relu(self.layer(x)))))


CHAIN = [("layers.0", "layers.1"), ("layers.1", "layers.2")]


@pytest.mark.parametrize(
    ("model", "shape", "pairs"),
    [
        (Functional(torch.relu), (8, 4), CHAIN),
        (Functional(torch.relu, bias=False), (8, 4), CHAIN),
        (Functional(F.leaky_relu), (8, 4), CHAIN),
        (Functional(torch.tanh), (8, 4), []),
        (Functional(F.gelu), (8, 4), []),
        (Residual(), (8, 4), [("inner", "outer")]),
        (Tied(), (8, 4), []),
        (
            nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(27, 2)),
            (8, 1, 8, 8),
            [("0", "4")],
        ),
        (
            nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3)).eval(),
            (8, 4),
            [("1", "3")],  # the normalisation's own scale and shift; running statistics fix the layer before it
        ),
        (nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.ReLU(), nn.Linear(5, 3)), (8, 4), [("1", "3")]),
    ],
)
def test_pairs_are_found_by_trying(model, shape, pairs):
    if isinstance(model, nn.Sequential) and isinstance(model[1], nn.BatchNorm1d):
        model[1].running_mean.fill_(0.3)
    before = {name: p.clone() for name, p in model.state_dict().items()}
    found = rescalings(model, inputs(*shape))
    assert found.pairs == pairs
    for place in range(len(pairs)):
        s = torch.zeros(len(pairs), dtype=torch.float64)
        s[place] = 1.3
        assert function_change(model, inputs(*shape), found, s, None) < 1e-9
    assert bool(found.refused) == (pairs != CHAIN and shape != (8, 1, 8, 8))
    for name, p in model.state_dict().items():
        assert torch.equal(p, before[name])


def test_what_is_in_the_way_is_named():
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    (told,) = rescalings(model, inputs(8, 4)).refused
    assert "0 does not scale against 2" in told
    assert "1, a Tanh, is not positively homogeneous" in told
    with pytest.raises(InputError, match="a Tanh, is not positively homogeneous"):
        minimal_trace({"0.weight": 1.0}, rescalings(model, inputs(8, 4)))


def test_a_layer_that_can_be_scaled_alone_is_named():
    model = nn.Sequential(nn.Linear(4, 3, bias=False), nn.LayerNorm(3, eps=0), nn.Tanh(), nn.Linear(3, 2))
    told = rescalings(model, inputs(8, 4)).refused
    assert told[0].startswith("0 can be scaled by any number alone")


def _traces(operator, matrix):
    parts = matrix.diagonal().split([p.numel() for p in operator.parameters.values()])
    return {name: float(part.sum()) for name, part in zip(operator.parameters, parts, strict=True)}


def _brute(function, size, starts=3):
    found = [
        minimize(
            function,
            np.full(size, start),
            method="Nelder-Mead",
            options={"xatol": 1e-7, "fatol": 1e-10, "maxiter": 4000},
        )
        for start in np.linspace(-1, 1, starts)
    ]
    return min(one.fun for one in found)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("seed", [0, 5])
def test_the_least_trace_is_that_of_a_search_over_dense_hessians(bias, seed):
    model, data = classifier(seed, bias=bias, widths=(5, 6, 5, 4, 3))
    operator, matrix = dense(model, data)
    found = rescalings(model, data)
    least = minimal_trace(_traces(operator, matrix), found)

    def trace(s):
        return float((scale_of(operator, found, torch.from_numpy(s)) ** 2 * matrix.diagonal()).sum())

    assert least.value == pytest.approx(_brute(trace, 3), rel=1e-7)
    assert least.value < 0.999 * float(matrix.trace())
    with torch.no_grad():  # the rescaled network itself has this trace, and computes the same
        moved = found.rescaled(dict(model.named_parameters()), least.s)
        outputs = model(data[0])
        model.load_state_dict(moved)
        assert torch.allclose(model(data[0]), outputs, rtol=1e-10)
    assert float(dense(model, data)[1].trace()) == pytest.approx(least.value, rel=1e-9)
    if not bias:
        blocks = list(_traces(operator, matrix).values())
        assert least.value == pytest.approx(4 * np.prod(blocks) ** (1 / 4), rel=1e-9)


@pytest.mark.parametrize("hessian", ["ggn", "full"])
@pytest.mark.parametrize("seed", [0, 5])
def test_the_least_eigenvalue_is_that_of_a_search_over_dense_hessians(hessian, seed):
    model, data = classifier(seed)
    operator, matrix = dense(model, data, hessian)
    found = rescalings(model, data)
    least = minimal_eigenvalue(operator, found, gap=1e-4, tol=1e-6, max_problems=30)

    def top(s):
        scale = scale_of(operator, found, torch.from_numpy(s))
        return float(torch.linalg.eigvalsh(scale[:, None] * matrix * scale)[-1])

    wanted = _brute(top, 2)
    assert least.value == pytest.approx(top(least.s.numpy()), rel=1e-5)
    assert least.value == pytest.approx(wanted, rel=1e-3)
    assert least.value >= wanted * (1 - 1e-6)
    if hessian == "ggn":
        assert least.bound <= wanted * (1 + 1e-6)
    assert least.bound == pytest.approx(wanted, rel=1e-3)


def test_a_bound_is_none_above_any_rescaling_whenever_the_search_ends():
    model, data = classifier(3)
    operator, matrix = dense(model, data, "ggn")
    found = rescalings(model, data)
    for problems in (1, 2, 3):
        least = minimal_eigenvalue(operator, found, gap=1e-6, tol=1e-6, max_problems=problems)
        for s in torch.randn(50, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64):
            scale = scale_of(operator, found, s)
            assert float(torch.linalg.eigvalsh(scale[:, None] * matrix * scale)[-1]) >= least.bound * (1 - 1e-6)


def test_a_negative_block_has_no_least_trace():
    model, data = classifier()
    found = rescalings(model, data)
    traces = dict.fromkeys(dict(model.named_parameters()), 1.0)
    with pytest.raises(InputError, match=r"trace of 2\.weight is -1: shrinking it"):
        minimal_trace({**traces, "2.weight": -1.0}, found)
    with pytest.raises(InputError, match="a block's trace is zero"):
        minimal_trace({name: float(name == "0.weight") for name in traces}, found)


def test_without_curvature_there_is_no_least_trace():
    model = nn.Sequential(nn.Linear(4, 3, bias=False), nn.ReLU(), nn.Linear(3, 2, bias=False))
    found = rescalings(model, inputs(5, 4))
    with pytest.raises(InputError, match="the loss has no curvature"):
        minimal_trace({"0.weight": 0.0, "2.weight": 0.0}, found)


def test_the_function_is_checked_on_more_samples_than_the_trials():
    model, many = nn.Sequential(nn.Linear(4, 5), nn.ReLU6(), nn.Linear(5, 3)).double(), inputs(100, 4)[0]
    many[:8] *= 0.1  # so that nothing is clipped that the trials see
    many[8:] *= 20
    data = many, torch.zeros(100)
    found = rescalings(model, data)
    assert found.pairs == [("0", "2")]
    assert function_change(model, data, found, torch.tensor([0.5], dtype=torch.float64), None) > 0.01
