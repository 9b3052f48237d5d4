"""Measures of sharpness against dense float64 Hessians, closed forms and the jackknife, and under rescalings."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import brentq
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from alignscape.errors import InputError
from landscape import (
    Ball,
    HessianOperator,
    LossAround,
    first_order_rise,
    fisher_rao,
    keskar_sharpness,
    minimal_eigenvalue,
    minimal_trace,
    pac_bayes_sigma,
    relative_flatness,
    rescalings,
    worst_case_rise,
)
from landscape.sharpness.congruent import along, traced
from landscape.sharpness.losses import interval

LOSS = nn.CrossEntropyLoss()


def generator(seed):
    return torch.Generator().manual_seed(seed)


def linear_problem(seed=0, samples=40, features=5):
    """Return a linear least-squares model, its data, and its dense Hessian: the loss is the quadratic of both."""
    inputs = torch.randn(samples, features, generator=generator(seed), dtype=torch.float64)
    inputs *= torch.linspace(0.3, 2, features, dtype=torch.float64)
    targets = torch.randn(samples, 1, generator=generator(seed + 1), dtype=torch.float64)
    model = nn.Linear(features, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.randn(1, features, generator=generator(seed + 2), dtype=torch.float64))
    return model, (inputs, targets), 2 * inputs.T @ inputs / samples


def classifier(seed=0, samples=200, *, bias=True, steps=60, widths=(6, 7, 5, 4)):
    """Return a small ReLU network that has learnt a little, with its data."""
    data_of, draw = generator(seed), generator(seed + 1)
    inputs = torch.randn(samples, widths[0], generator=data_of, dtype=torch.float64)
    targets = torch.randint(0, widths[-1], (samples,), generator=data_of)
    layers: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise(widths):
        layers += [nn.Linear(n_in, n_out, bias=bias, dtype=torch.float64), nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=draw, dtype=torch.float64) * (2 / p.shape[-1]) ** 0.5)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        LOSS(model(inputs), targets).backward()
        optimiser.step()
    return model, (inputs, targets)


def worst_of_quadratic(gradient, hessian, radius):
    """Return max g.d + d.H d / 2 over |d| <= radius of a convex quadratic: on the boundary (nu - H) d = g."""
    values, vectors = np.linalg.eigh(hessian)
    part = vectors.T @ gradient
    length = lambda nu: np.linalg.norm(part / (nu - values)) - radius  # noqa: E731
    nu = brentq(length, values[-1] * (1 + 1e-12) + 1e-12, values[-1] + np.linalg.norm(part) / radius + 1, xtol=1e-14)
    d = part / (nu - values)
    return float(part @ d + (values * d * d).sum() / 2)


@pytest.mark.parametrize("scale", ["one", "magnitude"])
@pytest.mark.parametrize("radius", [0.05, 0.5])
def test_the_worst_case_of_a_quadratic_is_the_trust_region_s(scale, radius):
    model, data, hessian = linear_problem()
    around = LossAround(model, nn.MSELoss(), data)
    ball = Ball.around(around.centre, radius, scale)
    size = ball.scale.numpy()
    _, gradient = around.gradient(around.centre)
    wanted = worst_of_quadratic(gradient.numpy() * size, hessian.numpy() * np.outer(size, size), radius)
    found = worst_case_rise(around, ball, steps=200)
    assert found.value == pytest.approx(wanted, rel=1e-6)
    assert worst_case_rise(around, ball, steps=20).value == pytest.approx(wanted, rel=0.01)
    assert first_order_rise(around, ball).value <= found.value * (1 + 1e-12)


def test_the_first_order_rise_is_the_quadratic_s_along_the_gradient():
    model, data, hessian = linear_problem()
    around = LossAround(model, nn.MSELoss(), data)
    _, gradient = around.gradient(around.centre)
    step = 0.3 * gradient / gradient.norm()
    wanted = float(gradient @ step + step @ hessian @ step / 2)
    assert first_order_rise(around, Ball.around(around.centre, 0.3, "one")).value == pytest.approx(wanted, rel=1e-9)


def test_asam_with_one_step_is_that_of_its_paper():
    model, data = classifier()
    around = LossAround(model, LOSS, data)
    loss = LOSS(model(data[0]), data[1])
    before = float(loss.detach())
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    length = sum(((p.abs() * g) ** 2).sum() for p, g in zip(model.parameters(), gradients, strict=True)).sqrt()
    moved = {  # Kwon et al. 2021, equation 6
        name: p.detach() + 0.2 * p.detach() ** 2 * g / length
        for (name, p), g in zip(model.named_parameters(), gradients, strict=True)
    }
    wanted = float(LOSS(functional_call(model, moved, data[0]), data[1]).detach()) - before
    found = first_order_rise(around, Ball.around(around.centre, 0.2, "magnitude"))
    assert found.value == pytest.approx(wanted, rel=1e-9)


def test_keskar_s_box_is_a_corner_where_the_loss_is_separable():
    inputs = torch.diag(torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64))
    model = nn.Linear(3, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, -0.5, 0.2]]))
    around = LossAround(model, nn.MSELoss(), (inputs, torch.zeros(3, 1)))
    radius, w = 0.01, model.weight.detach()[0]
    far = w.abs() + radius * (w.abs() + 1)
    loss, wanted = (float(((inputs.diagonal() * at) ** 2).mean()) for at in (w, far))
    found = keskar_sharpness(around, radius=radius)
    assert found.value == pytest.approx(100 * (wanted - loss) / (1 + loss), rel=1e-9)


@pytest.mark.parametrize("bias", [True, False])
def test_the_fisher_rao_norm_is_that_of_every_sample_s_gradient(bias):
    model, data = classifier(bias=bias)
    squares, by_output = [], []
    for x, y in zip(*data, strict=True):
        outputs = model(x[None])
        loss = LOSS(outputs, y[None])
        slope = torch.autograd.grad(loss, outputs, retain_graph=True)[0]
        by_output.append(float((slope * outputs).sum().detach()) ** 2)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        squares.append(
            sum(float((g * p).sum().detach()) for g, p in zip(gradients, model.parameters(), strict=True)) ** 2
        )
    found = fisher_rao(LossAround(model, LOSS, data)).value
    assert found == pytest.approx(np.mean(squares) ** 0.5, rel=1e-9)
    if not bias:  # Liang et al. 2019, theorem 3.1: three layers
        assert found == pytest.approx(3 * np.mean(by_output) ** 0.5, rel=1e-9)


def dense(model, data, hessian="full"):
    operator = HessianOperator(model, LOSS, data, hessian=hessian)
    return operator, operator.product(torch.eye(operator.dim, dtype=torch.float64))


def test_relative_flatness_is_its_definition():
    model, data = classifier()
    operator, matrix = dense(model, data)
    found = relative_flatness(operator, tol=0.02, max_probes=4000)
    first, wanted = 0, {}
    for name, p in operator.parameters.items():
        if p.dim() == 2:
            block = matrix[first : first + p.numel(), first : first + p.numel()].reshape(*p.shape, *p.shape)
            traces = torch.einsum("sjtj->st", block)  # Tr(H_ss'), Petzka et al. 2021
            wanted[name] = float(((p @ p.T) * traces).sum())
        first += p.numel()
    assert set(found) == {"", *wanted}
    for name, value in wanted.items():
        assert found[name].value == pytest.approx(value, rel=0.1)
    assert found[""].value == pytest.approx(sum(wanted.values()), rel=0.05)


@pytest.mark.parametrize("magnitude", [False, True])
def test_sigma_of_a_quadratic_is_that_of_its_trace(magnitude):
    model, data, hessian = linear_problem()
    around = LossAround(model, nn.MSELoss(), data)
    scale = around.centre.abs() if magnitude else torch.ones_like(around.centre)
    draw = generator(0)
    noise = torch.stack([scale * torch.randn(5, generator=draw, dtype=torch.float64) for _ in range(5)])
    wanted = (2 * 0.1 / float(torch.einsum("di,ij,dj->d", noise, hessian, noise).mean())) ** 0.5  # of these draws
    assert pac_bayes_sigma(around, rise=0.1, magnitude=magnitude, draws=5).value == pytest.approx(wanted, rel=2e-3)
    wanted = (2 * 0.1 / float((hessian.diagonal() * scale**2).sum())) ** 0.5  # E rise = sigma^2 tr(T H T) / 2
    found = [pac_bayes_sigma(around, rise=0.1, magnitude=magnitude, draws=8, seed=seed) for seed in range(8)]
    assert sum(one.ci_low < wanted < one.ci_high for one in found) >= 6


def test_the_interval_of_sigma_from_two_draws_is_that_of_two_draws():
    """Student's factor of one degree of freedom: with that of the groups it covered .70."""
    model = nn.Linear(3, 1, bias=False).double()
    inputs = torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)).repeat(20, 1)
    around = LossAround(model, nn.MSELoss(), (inputs, inputs @ model.weight.detach().T), groups=20)
    found = [pac_bayes_sigma(around, rise=0.1, draws=2, seed=seed) for seed in range(120)]
    assert np.mean([one.ci_low <= (0.2 / (28 / 3)) ** 0.5 <= one.ci_high for one in found]) > 0.83


def test_sigma_is_the_root_that_was_asked_for():
    model, data = classifier()
    around = LossAround(model, LOSS, data)
    small, large = (pac_bayes_sigma(around, rise=rise, magnitude=True).value for rise in (0.05, 0.5))
    assert small < large
    draw, noise = generator(0), []
    for _ in range(10):
        noise.append(around.centre.abs() * torch.randn(around.centre.shape, generator=draw, dtype=torch.float64))
    losses = [around.value(around.centre + sign * large * one) for one in noise for sign in (1, -1)]
    assert np.mean(losses) - around.value(around.centre) == pytest.approx(0.5, rel=0.005)


def test_a_loss_that_nothing_raises_has_no_sigma():
    model, data = classifier()
    constant = LossAround(model, lambda outputs, targets: 0 * outputs.sum() + 1, data)
    assert pac_bayes_sigma(constant).value == math.inf


# Intervals: what a group adds is what a little more weight on its samples changes


def half_width(changes):
    """Return half of Student's interval, of what each of G groups adds to first order."""
    groups = len(changes)
    error = np.std(changes, ddof=1) / groups**0.5
    return stats.t.ppf(0.975, groups - 1) * error


MEASURES = {
    "sam": lambda a: first_order_rise(a, Ball.around(a.centre, 0.2, "one")),
    "asam": lambda a: first_order_rise(a, Ball.around(a.centre, 0.2, "magnitude")),
    "asam, worst": lambda a: worst_case_rise(a, Ball.around(a.centre, 0.2, "magnitude"), steps=60),
    "keskar": lambda a: keskar_sharpness(a, radius=0.02, steps=60),
    "fisher_rao": fisher_rao,
    "sigma": lambda a: pac_bayes_sigma(a, rise=0.2, magnitude=True, draws=4),
}


@pytest.mark.parametrize("name", list(MEASURES))
def test_intervals_hold_what_each_group_adds(name):
    groups, size, copies = 8, 10, 40
    # The worst cases of a quadratic, which has one: of others a search goes now to one maximum and now to another.
    quadratic = "worst" in name or name == "keskar"
    model, (inputs, targets) = (linear_problem if quadratic else classifier)(samples=groups * size)[:2]
    loss = nn.MSELoss() if quadratic else LOSS
    found = MEASURES[name](LossAround(model, loss, (inputs, targets), groups=groups))
    changes = []
    for group in range(groups):
        own = slice(group * size, (group + 1) * size)
        more = torch.cat([*[inputs] * copies, inputs[own]]), torch.cat([*[targets] * copies, targets[own]])
        moved = MEASURES[name](LossAround(model, loss, more, batch_size=5000)).value
        changes.append((moved - found.value) * (copies * groups + 1))
    wanted = half_width(changes)
    if name == "sigma":  # whose search ends within its tolerance, and whose interval holds the error of the draws too
        assert wanted * 0.9 < found.ci_high - found.value
    else:
        assert found.ci_high - found.value == pytest.approx(wanted, rel=0.05)


@pytest.mark.parametrize("name", ["worst", "keskar", "one step"])
def test_intervals_hold_the_worst_case_of_the_population(name):
    """At a minimum of the population's loss, of which 40 samples in 30 dimensions know little: y = x w* + noise, at w*,
    where the gradient is 0 and the Hessian 2 I. What the samples themselves say is far too large."""
    held, too_large = [], []
    model = nn.Linear(30, 1, bias=False).double()
    nn.init.normal_(model.weight, generator=generator(0))
    for seed in range(16):
        inputs = torch.randn(40, 30, generator=generator(seed), dtype=torch.float64)
        noise = torch.randn(40, 1, generator=generator(seed + 1000), dtype=torch.float64)
        targets = (model(inputs) + noise).detach()
        around = LossAround(model, nn.MSELoss(), (inputs, targets), groups=20)
        ball = Ball.around(around.centre, 0.2, "one")
        if name == "keskar":  # |d_i| <= r (|w_i| + 1): the rise is |d|^2 where every d_i is at its end, the loss 1
            found = keskar_sharpness(around, radius=0.02, steps=20)
            truth = 50 * 0.02**2 * float(((around.centre.abs() + 1) ** 2).sum())
        else:
            found = worst_case_rise(around, ball) if name == "worst" else first_order_rise(around, ball)
            truth = 0.2**2
        held.append(found.ci_low <= truth <= found.ci_high)
        too_large.append(found.value > 3 * truth)
    assert sum(held) >= 13
    assert sum(too_large) >= 13


def test_an_interval_has_the_freedom_of_what_it_is_made_of():
    """Student's of the groups, of the draws, or the normal one of a variance that is known; at any scale."""
    shares, parts = torch.full((5,), 0.2, dtype=torch.float64), torch.arange(5.0, dtype=torch.float64)
    deviation = float(parts.std()) / 5**0.5
    for scale in (1e-120, 1.0, 1e120):
        found = interval(0.0, scale * parts, shares)
        assert found.ci_high == pytest.approx(scale * stats.t.ppf(0.975, 4) * deviation)
    assert interval(0.0, 0 * parts, shares, 4.0, freedom=2).ci_high == pytest.approx(2 * stats.t.ppf(0.975, 2))
    assert interval(0.0, 0 * parts, shares, 4.0).ci_high == pytest.approx(2 * stats.norm.ppf(0.975))
    both = (4.0 + deviation**2) ** 2 / (deviation**4 / 4 + 4.0**2 / 2)  # Welch and Satterthwaite's
    wanted = stats.t.ppf(0.975, both) * (4.0 + deviation**2) ** 0.5
    assert interval(0.0, parts, shares, 4.0, freedom=2).ci_high == pytest.approx(wanted)
    assert math.isnan(interval(0.0, parts, torch.eye(5, dtype=torch.float64)[0]).ci_high)  # one group that counts


def test_halves_of_the_groups_that_count_are_judged_where_targets_are_ignored():
    model, (inputs, targets) = classifier(samples=60)
    targets = targets.clone()
    targets[:30] = -100
    ignored = LossAround(model, LOSS, (inputs, targets), groups=6)
    kept = LossAround(model, LOSS, (inputs[30:], targets[30:]), groups=3)
    for measure in (worst_case_rise, first_order_rise):
        one, two = (measure(around, Ball.around(around.centre, 0.1, "one")) for around in (ignored, kept))
        assert (one.ci_low, one.ci_high) == pytest.approx((two.ci_low, two.ci_high), rel=1e-3)
    targets[:50] = -100
    one_group = LossAround(model, LOSS, (inputs, targets), groups=6)
    assert math.isnan(keskar_sharpness(one_group).ci_low)


def test_the_gradient_of_some_groups_is_that_of_their_samples():
    model, (inputs, targets) = classifier(samples=60)
    around = LossAround(model, LOSS, (inputs, targets), groups=6, batch_size=25)
    chosen = torch.tensor([False, True, False, False, True, False])
    rows = torch.cat([torch.arange(10, 20), torch.arange(40, 50)])
    wanted = LossAround(model, LOSS, (inputs[rows], targets[rows])).gradient(around.centre)
    found = around.gradient_of(chosen, around.centre)
    assert found[0] == pytest.approx(wanted[0], rel=1e-12)
    assert torch.allclose(found[1], wanted[1], rtol=1e-10, atol=1e-14)


def test_curvature_has_an_interval_of_what_each_group_adds():
    groups, size = 8, 10
    model, data = classifier(samples=groups * size)
    parts = [dense(model, tuple(one[i * size : (i + 1) * size] for one in data))[1] for i in range(groups)]
    matrix = torch.stack(parts).mean(dim=0)
    values, vectors = torch.linalg.eigh(matrix)
    cut = HessianOperator(model, LOSS, data, batch_size=size)
    top = along(float(values[-1]), vectors[:, -1], cut)
    changes = [(float(torch.linalg.eigvalsh(matrix + 1e-5 * part)[-1]) - float(values[-1])) * 1e5 for part in parts]
    assert top.ci_high - top.value == pytest.approx(half_width(changes), rel=1e-3)
    trace = traced(cut, cut, tol=1e-3, max_probes=300)[""]
    assert trace.value == pytest.approx(float(matrix.trace()), rel=0.02)
    wanted = half_width([float(part.trace()) for part in parts])  # the traces of groups have an error of their own
    assert 0.95 * wanted < trace.ci_high - trace.value < 1.4 * wanted


def test_the_interval_of_sigma_holds_the_spread_over_samples_and_draws():
    model, data = classifier(samples=400)
    whole = pac_bayes_sigma(LossAround(model, LOSS, data), rise=0.2, draws=40, seed=99).value
    held = []
    for seed in range(12):
        chosen = torch.randint(0, 400, (200,), generator=generator(seed))
        part = LossAround(model, LOSS, (data[0][chosen], data[1][chosen]), groups=20)
        found = pac_bayes_sigma(part, rise=0.2, draws=4, seed=seed)
        held.append(found.ci_low <= whole <= found.ci_high)
    assert sum(held) >= 9


def test_one_group_has_no_interval():
    found = interval(1.0, torch.tensor([1.0]), torch.tensor([1.0]))
    assert math.isnan(found.ci_low)


# Losses, weights and batches


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=torch.float64)),
        nn.CrossEntropyLoss(ignore_index=2),
        nn.CrossEntropyLoss(reduction="sum"),
        nn.CrossEntropyLoss(label_smoothing=0.1),
        lambda outputs, targets: F.cross_entropy(outputs, targets),
    ],
)
def test_groups_add_up_to_the_loss_of_torch(loss):
    model, (inputs, targets) = classifier(samples=103)
    around = LossAround(model, loss, (inputs, targets), groups=7, batch_size=20)
    wanted = float(loss(model(inputs), targets).detach()) / (103 if getattr(loss, "reduction", "") == "sum" else 1)
    assert around.value(around.centre) == pytest.approx(wanted, rel=1e-12)
    assert float(around.shares @ around.by_group(around.centre)) == pytest.approx(wanted, rel=1e-12)
    assert around.gradient(around.centre)[0] == pytest.approx(wanted, rel=1e-12)


class _Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(3, 4).double()

    def forward(self, x):
        return self.out(x).mT


def test_targets_that_are_ignored_by_default_count_for_nothing():
    inputs = torch.randn(12, 5, 3, generator=generator(1), dtype=torch.float64)
    targets = torch.arange(60).reshape(12, 5) % 4
    for sample in range(12):
        targets[sample, 1 + sample % 4 :] = -100
    targets[3] = -100  # padding only
    around = LossAround(_Tokens(), LOSS, (inputs, targets), groups=4, batch_size=5)
    value, gradient = around.gradient(around.centre)
    slopes = around.slopes(around.centre, around.centre)
    assert float(around.shares @ around.by_group(around.centre)) == pytest.approx(value, rel=1e-12)
    assert float(around.shares @ slopes) == pytest.approx(float(gradient @ around.centre), rel=1e-12)


def test_a_loss_that_is_no_mean_over_samples_is_refused():
    model, data = classifier(samples=60)
    weight = torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=torch.float64)

    def loss(outputs, targets):
        return F.cross_entropy(outputs, targets, weight=weight)

    with pytest.raises(InputError, match="batches cannot be averaged"):
        LossAround(model, loss, data, batch_size=25)
    whole = LossAround(model, loss, data)
    assert whole.value(whole.centre) == pytest.approx(float(loss(model(data[0]), data[1]).detach()), rel=1e-12)
    with pytest.raises(InputError, match="intervals over samples need a loss that is a mean over them"):
        whole.by_group(whole.centre)


class _Segments(nn.Module):
    def __init__(self, *, checkpointed):
        super().__init__()
        self.first, self.middle, self.out = (nn.Linear(*one).double() for one in ((4, 5), (5, 5), (5, 3)))
        self.checkpointed = checkpointed

    def forward(self, x):
        x = torch.tanh(self.first(x))
        x = checkpoint(self._segment, x, use_reentrant=False) if self.checkpointed else self._segment(x)
        return self.out(x)

    def _segment(self, x):
        return torch.tanh(self.middle(x))


def test_checkpointed_segments_run_again_at_the_weights_asked_for():
    plain, again = _Segments(checkpointed=False), _Segments(checkpointed=True)
    again.load_state_dict(plain.state_dict())
    data = torch.randn(20, 4, generator=generator(1), dtype=torch.float64), torch.arange(20) % 3
    wanted, found = (LossAround(model, LOSS, data, groups=4) for model in (plain, again))
    moved, direction = wanted.centre + torch.randn(2, *wanted.centre.shape, generator=generator(2)).double() / 2
    torch.testing.assert_close(found.gradient(moved), wanted.gradient(moved), rtol=1e-12, atol=0)
    torch.testing.assert_close(found.slopes(moved, direction), wanted.slopes(moved, direction), rtol=1e-12, atol=1e-14)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), plain.parameters(), strict=True))


def test_the_worst_case_around_a_stationary_point_is_that_of_the_largest_curvature():
    model = nn.Linear(3, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    inputs = torch.diag(torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64))
    around = LossAround(model, nn.MSELoss(), (inputs, torch.zeros(3, 1)))
    found = worst_case_rise(around, Ball.around(around.centre, 0.1, "one"), steps=100)
    assert found.value == pytest.approx(12 * 0.1**2, rel=1e-6)  # 36 / 3 along the third axis


def test_slopes_are_the_gradients_of_the_groups():
    model, data = classifier(samples=60)
    around = LossAround(model, LOSS, data, groups=6, batch_size=25)
    direction = torch.randn(around.centre.shape, generator=generator(3), dtype=torch.float64)
    for group, slope in enumerate(around.slopes(around.centre, direction)):
        part = tuple(one[10 * group : 10 * group + 10] for one in data)
        assert float(slope) == pytest.approx(
            float(LossAround(model, LOSS, part).gradient(around.centre)[1] @ direction)
        )


def test_bad_settings_are_one_line():
    model, data = classifier()
    around = LossAround(model, LOSS, data)
    for call in (
        lambda: worst_case_rise(around, Ball.around(around.centre, 0.1, "one"), steps=0),
        lambda: pac_bayes_sigma(around, rise=0),
        lambda: pac_bayes_sigma(around, draws=1),
        lambda: LossAround(model, nn.CrossEntropyLoss(ignore_index=1), (data[0], torch.ones(200, dtype=torch.int64))),
    ):
        with pytest.raises(InputError) as caught:
            call()
        assert "\n" not in str(caught.value)


# What rescaling does


def rescaled(model, factors):
    """Return the model with each layer but the last multiplied by a factor, and the last by what makes up for it."""
    layers = [layer for layer in model if isinstance(layer, nn.Linear)]
    made = nn.Sequential(*[nn.Linear(m.in_features, m.out_features, dtype=torch.float64) if isinstance(m, nn.Linear)
                           else m for m in model])  # fmt: skip
    total = 1.0
    with torch.no_grad():
        for old, new, factor in zip(
            layers, [m for m in made if isinstance(m, nn.Linear)], (*factors, None), strict=True
        ):
            factor = 1 / total if factor is None else factor
            total *= factor
            new.weight.copy_(old.weight * factor)
            new.bias.copy_(old.bias * total)
    return made


def invariants(model, data):
    around = LossAround(model, LOSS, data)
    operator, matrix = dense(model, data)
    found = rescalings(model, data)
    blocks = matrix.diagonal().split([p.numel() for p in operator.parameters.values()])
    traces = {name: float(part.sum()) for name, part in zip(operator.parameters, blocks, strict=True)}
    least = minimal_trace(traces, found)
    flat = {}
    first = 0
    for name, p in operator.parameters.items():
        if p.dim() == 2:
            block = matrix[first : first + p.numel(), first : first + p.numel()].reshape(*p.shape, *p.shape)
            flat[name] = float(((p @ p.T) * torch.einsum("sjtj->st", block)).sum())
        first += p.numel()
    return {
        "asam": first_order_rise(around, Ball.around(around.centre, 0.1, "magnitude")).value,
        "asam, worst": worst_case_rise(around, Ball.around(around.centre, 0.1, "magnitude"), steps=8).value,
        "fisher_rao": fisher_rao(around).value,
        "sigma": pac_bayes_sigma(around, magnitude=True, draws=3).value,
        "minimal trace": least.value,
        "minimal eigenvalue": minimal_eigenvalue(operator, found, start=least.s, gap=1e-3, tol=1e-5).value,
        **flat,
    }


def variants(model, data):
    around = LossAround(model, LOSS, data)
    _, matrix = dense(model, data)
    return {
        "trace": float(matrix.trace()),
        "eigenvalue": float(torch.linalg.eigvalsh(matrix)[-1]),
        "sam": worst_case_rise(around, Ball.around(around.centre, 0.1, "one"), steps=8).value,
        "keskar": keskar_sharpness(around, steps=8).value,
        "sigma": pac_bayes_sigma(around, draws=3).value,
    }


MODEL, DATA = classifier(samples=60)
BEFORE = invariants(MODEL, DATA)


@settings(max_examples=6, deadline=None)
@given(st.lists(st.floats(0.1, 10).filter(lambda c: abs(math.log(c)) > 0.5), min_size=2, max_size=2))
def test_invariant_measures_stay_and_the_others_do_not(factors):
    other = rescaled(MODEL, factors)
    assert torch.allclose(other(DATA[0]), MODEL(DATA[0]), rtol=1e-9)
    after = invariants(other, DATA)
    for name, value in BEFORE.items():
        assert after[name] == pytest.approx(value, rel=5e-3 if "eigenvalue" in name else 1e-6), name


def test_the_others_change_by_a_rescaling():
    before, after = variants(MODEL, DATA), variants(rescaled(MODEL, (10.0, 1.0)), DATA)
    for name, value in before.items():
        assert abs(math.log(after[name] / value)) > 0.3, name
