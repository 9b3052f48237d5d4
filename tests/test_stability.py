"""Edges of stability: torch's own optimisers on quadratics grow just above them and shrink just below."""

import math

import pytest
import torch
from torch import nn

from landscape import Monitor, adam_preconditioner, edge_of_stability, gradient_descent_threshold

LR = 0.01


class Quadratic(nn.Module):
    """x, whose loss is sum h x^2 / 2."""

    def __init__(self, *curvatures: float) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.full((len(curvatures),), 1e-6, dtype=torch.float64))
        self.register_buffer("h", torch.tensor(curvatures, dtype=torch.float64))

    def forward(self, inputs):
        return (self.h * self.x**2).sum() / 2 + 0 * inputs.sum()


def value(outputs, targets):
    return outputs


DATA = (torch.zeros(1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))


def growth(make, *curvatures: float, steps: int = 300) -> list[float]:
    """How much each x grows over the second half of the steps."""
    model = Quadratic(*curvatures)
    optimiser = make(model.parameters())
    sizes = []
    for _ in range(steps):
        model.x.grad = model.h * model.x.detach()
        optimiser.step()
        sizes.append(model.x.detach().abs().clone())
    late, early = (torch.stack(sizes[end - steps // 6 : end]).amax(0) for end in (steps, steps // 2))
    return (late / early).tolist()


SGD = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "small momentum": {"momentum": 0.3},
    "nesterov": {"momentum": 0.8, "nesterov": True},
    "dampened": {"momentum": 0.9, "dampening": 0.5},
}


@pytest.mark.parametrize("name", SGD)
def test_gradient_descent_grows_above_its_edge_and_shrinks_below(name):
    def make(parameters):
        return torch.optim.SGD(parameters, lr=LR, **SGD[name])

    edge = edge_of_stability(make((model := Quadratic(1.0)).parameters()), model)
    assert edge.threshold == gradient_descent_threshold(LR, **SGD[name])
    assert not edge.preconditioned
    below, above = growth(make, 0.99 * edge.threshold, 1.01 * edge.threshold)
    assert below < 0.9
    assert above > 1.1


def test_adam_grows_above_its_edge_and_shrinks_below():
    """With second moments that hold still: they are large, and the gradients tiny."""
    for betas in ((0.9, 1 - 1e-9), (0.5, 1 - 1e-9)):

        def make(parameters, betas=betas):
            optimiser = torch.optim.Adam(parameters, lr=LR, betas=betas)
            (x,) = optimiser.param_groups[0]["params"]
            moments = {"exp_avg": torch.zeros_like(x), "exp_avg_sq": torch.full_like(x, 4.0)}
            optimiser.state[x] = {"step": torch.tensor(1e6), **moments}
            return optimiser

        model = Quadratic(1.0)
        edge = edge_of_stability(make(model.parameters()), model)
        assert edge.threshold == pytest.approx((2 + 2 * betas[0]) / ((1 - betas[0]) * LR))
        curvature = edge.threshold * float(edge.preconditioner)  # h / D is the preconditioned eigenvalue
        below, above = growth(make, 0.99 * curvature, 1.01 * curvature, steps=60)
        assert below < 0.9
        assert above > 1.1
    assert round(edge_of_stability(torch.optim.Adam(model.parameters(), lr=LR), model).threshold * LR, 6) == 38


def test_the_preconditioner_is_what_adam_divides_by():
    """After steps of a constant gradient g, Adam's own v is g^2 (1 - b2^t)."""
    model = Quadratic(0.0, 0.0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=LR, eps=0.5, weight_decay=0)
    gradient = torch.tensor([3.0, -0.1], dtype=torch.float64)
    for _ in range(5):
        model.x.grad = gradient
        optimiser.step()
    expected = (1 - 0.9**5) * (gradient.abs() + 0.5)
    torch.testing.assert_close(edge_of_stability(optimiser, model).preconditioner, expected, rtol=1e-6, atol=0)
    moment = gradient**2 * (1 - 0.999**5)
    torch.testing.assert_close(adam_preconditioner(moment, 5, eps=0.5), expected, rtol=1e-9, atol=0)


def test_rates_of_groups_scale_the_preconditioner():
    model = nn.Sequential(nn.Linear(2, 1, bias=False), nn.Linear(1, 1, bias=False)).double()
    groups = [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[1].parameters(), "lr": 0.4}]
    edge = edge_of_stability(torch.optim.SGD(groups, lr=1.0), model)
    assert edge.threshold == 5.0  # 2 / .4
    torch.testing.assert_close(edge.preconditioner, torch.tensor([4.0, 4.0, 1.0], dtype=torch.float64))


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_a_rate_of_zero_leaves_the_preconditioner(kind):
    model = nn.Linear(2, 1)
    optimiser = kind(model.parameters(), lr=0.1)
    model(torch.ones(1, 2)).sum().backward()
    optimiser.step()
    before = edge_of_stability(optimiser, model)
    optimiser.param_groups[0]["lr"] = 0.0  # the end of a schedule
    after = edge_of_stability(optimiser, model)
    assert after.threshold == math.inf
    if kind is torch.optim.SGD:
        assert after.preconditioner is None
    else:
        torch.testing.assert_close(after.preconditioner, before.preconditioner)


def test_nothing_is_said_of_what_is_not_known():
    model = nn.Linear(2, 1)
    assert edge_of_stability(torch.optim.Adagrad(model.parameters()), model) is None
    assert edge_of_stability(torch.optim.SGD([model.weight], lr=1.0), model) is None  # the bias is another's
    groups = [{"params": [model.weight]}, {"params": [model.bias], "momentum": 0.5}]
    assert edge_of_stability(torch.optim.SGD(groups, lr=1.0), model) is None
    assert edge_of_stability(torch.optim.SGD(model.parameters(), lr=0.0), model).threshold == math.inf


def test_a_quadratic_in_training_shows_its_edge():
    """H = diag(199, 3): at lr = .01 the top eigenvalue lies 1 below 2 / lr, all along."""
    model = Quadratic(199.0, 3.0)
    optimiser = torch.optim.SGD(model.parameters(), lr=LR)
    monitor = Monitor(value, DATA, optimiser=optimiser, every=5, k=1)
    for _ in range(20):
        optimiser.zero_grad()
        model(DATA[0]).backward()
        optimiser.step()
        monitor.step(model)
    frame = monitor.frame()
    assert frame["step"].tolist() == [5, 10, 15, 20]
    assert frame["threshold"].tolist() == pytest.approx([200.0] * 4)
    assert frame["eigenvalue"].tolist() == pytest.approx([199.0] * 4, rel=1e-9)
    assert frame["trace"].tolist() == pytest.approx([202.0] * 4, rel=1e-9)
    # x_t = (1 - lr h)^t x_0, so |P_1 g|^2 / |g|^2 is known too
    for record in monitor.records:
        top, rest = (h * (1 - LR * h) ** record.step for h in (199.0, 3.0))
        assert record.alignment == pytest.approx(top**2 / (top**2 + rest**2), rel=1e-9)
        assert record.gradient_norm == pytest.approx(1e-6 * math.hypot(top, rest), rel=1e-9)
