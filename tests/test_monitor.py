"""Curvature beside a loop: dense float64 Hessians along a training are the truth."""

import math

import numpy as np
import pytest
import torch
from curvature_cases import Case, dense_hessian
from torch import nn
from torch.nn import functional as F

from alignscape.errors import InputError
from landscape import Monitor


def small_case(seed: int = 0) -> Case:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
        inputs, targets = torch.randn(60, 6, dtype=torch.float64), torch.randint(3, (60,))
    return Case(model=model.double(), loss=nn.CrossEntropyLoss(), batches=[(inputs, targets)])


def loop(case: Case, optimiser: torch.optim.Optimizer, steps: int, each) -> None:
    """Train on mini-batches of 20, and call ``each`` after every step."""
    torch.manual_seed(1)
    inputs, targets = case.pair
    for step in range(steps):
        batch = torch.arange(step * 20, step * 20 + 20) % len(targets)
        optimiser.zero_grad()
        F.cross_entropy(case.model(inputs[batch]), targets[batch]).backward()
        optimiser.step()
        each((inputs[batch], targets[batch]))


def gradient(case: Case) -> torch.Tensor:
    case.model.eval()
    inputs, targets = case.pair
    parts = torch.autograd.grad(F.cross_entropy(case.model(inputs), targets), list(case.model.parameters()))
    case.model.train()
    return torch.cat([part.flatten() for part in parts])


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_every_number_is_that_of_the_dense_hessian(name):
    case = small_case()
    make = {"sgd": lambda p: torch.optim.SGD(p, lr=0.3, momentum=0.9), "adam": lambda p: torch.optim.Adam(p, lr=0.02)}
    optimiser = make[name](case.model.parameters())
    monitor = Monitor(case.loss, case.pair, optimiser=optimiser, every=4, k=3, tol=1e-6)
    seen, covered = [], []

    def check(_):
        if (record := monitor.step(case.model)) is None:
            return
        matrix, g = dense_hessian(case), gradient(case)
        values, vectors = torch.linalg.eigh(matrix)
        seen.append(record)
        assert record.eigenvalues == pytest.approx(values.flip(0)[:3].tolist(), rel=1e-9)
        assert record.gradient_norm == pytest.approx(float(g.norm()), rel=1e-12)
        share = float((vectors[:, -3:].T @ g).norm() ** 2 / g.norm() ** 2)
        assert record.alignment == pytest.approx(share, abs=1e-5)
        covered.append(record.trace.ci_low <= float(matrix.trace()) <= record.trace.ci_high)
        if name == "adam":
            states = [optimiser.state[p] for p in case.model.parameters()]
            t = float(states[0]["step"])
            v = torch.cat([state["exp_avg_sq"].flatten() for state in states]) / (1 - 0.999**t)
            d = (1 - 0.9**t) * (v.sqrt() + 1e-8)
            top = float(torch.linalg.eigvalsh(matrix / (d[:, None] * d).sqrt())[-1])
            assert record.preconditioned_eigenvalue == pytest.approx(top, rel=1e-6)
            assert record.threshold == pytest.approx(38 / 0.02)
        else:
            assert math.isnan(record.preconditioned_eigenvalue)
            assert record.threshold == pytest.approx(3.8 / 0.3)

    loop(case, optimiser, 24, check)
    assert [record.step for record in seen] == list(range(4, 25, 4))
    assert len({record.eigenvalues[0] for record in seen}) == 6  # it moved
    assert sum(covered) >= 4


def test_at_the_usual_tolerance_values_lie_within_their_residuals():
    case = small_case(2)
    optimiser = torch.optim.SGD(case.model.parameters(), lr=0.3)
    monitor = Monitor(case.loss, case.pair, optimiser=optimiser, every=6)
    errors = []

    def check(_):
        if (record := monitor.step(case.model)) is not None:
            values = torch.linalg.eigvalsh(dense_hessian(case)).flip(0)[:5].numpy()
            error = np.abs(np.array(record.eigenvalues) - values)
            assert (error <= np.array(record.residuals) + 1e-12 * values[0]).all()
            errors.append(error.max() / values[0])

    loop(case, optimiser, 60, check)
    assert len(errors) == 10
    assert max(errors) < 1e-4  # far within the tolerance


class Turning(nn.Module):
    """A quadratic whose Hessian is the buffer ``matrix``."""

    def __init__(self, matrix: torch.Tensor) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.ones(len(matrix), dtype=torch.float64))
        self.register_buffer("matrix", matrix)

    def forward(self, inputs):
        return self.x @ self.matrix @ self.x / 2 + 0 * inputs.sum()


NO_DATA = (torch.zeros(1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))


def test_the_interval_of_the_trace_covers():
    """Of 40 monitors with seeds of their own, on a matrix of which the basis holds a part."""
    rotation = torch.linalg.qr(torch.randn(120, 120, generator=torch.Generator().manual_seed(4)).double())[0]
    spectrum = torch.cat([torch.tensor([30.0, 20]), torch.linspace(-1, 3, 118)]).double()
    model = Turning((rotation * spectrum) @ rotation.T)
    hits = 0
    for seed in range(40):
        trace = Monitor(lambda outputs, _: outputs, NO_DATA, k=1, seed=seed).measure(model, step=0).trace
        hits += trace.ci_low <= float(spectrum.sum()) <= trace.ci_high
        assert trace.ci_high - trace.ci_low > 0.01 * float(spectrum.sum())
    assert 0.85 <= hits / 40 <= 1


def test_a_warm_search_is_shorter_and_still_sees_what_is_new():
    rotation = torch.linalg.qr(torch.randn(200, 200, generator=torch.Generator().manual_seed(0)).double())[0]
    spectrum = torch.cat([torch.tensor([30.0, 20, 12]), torch.linspace(0, 3, 197)]).double()
    model = Turning((rotation * spectrum) @ rotation.T)
    monitor = Monitor(lambda outputs, _: outputs, NO_DATA, k=3)
    cold = monitor.measure(model, step=1)
    warm = monitor.measure(model, step=2)
    assert warm.n_products < 0.8 * cold.n_products
    assert warm.eigenvalues == pytest.approx((30, 20, 12), rel=1e-3)
    new = spectrum.clone()
    new[100] = 50.0  # exactly orthogonal to all that the search starts from
    model.matrix.copy_((rotation * new) @ rotation.T)
    assert monitor.measure(model, step=3).eigenvalues == pytest.approx((50, 30, 20), rel=1e-3)


def test_training_is_untouched():
    """Weights, gradients, modes, buffers and the global random stream, which dropout draws from."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
            self.body[1].eval()  # a mode of its own

        def forward(self, x):
            return self.body(x)

    def run(watched: bool) -> tuple[dict, list, torch.Tensor]:
        torch.manual_seed(0)
        model = Net()
        optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
        case = small_case()
        case = Case(model=model, loss=case.loss, batches=[(case.pair[0].float(), case.pair[1])])
        monitor = Monitor(case.loss, optimiser=optimiser, every=2, k=2)
        loop(case, optimiser, 10, lambda batch: watched and monitor.step(model, batch))
        assert len(monitor.records) == (5 if watched else 0)
        modes = [module.training for module in model.modules()]
        gradients = {f"grad {name}": p.grad for name, p in model.named_parameters()}
        return {**model.state_dict(), **gradients}, modes, torch.random.get_rng_state()

    (left, modes, stream), (right, other_modes, other_stream) = run(False), run(True)
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert modes == other_modes
    assert torch.equal(stream, other_stream)


def test_the_first_batch_is_kept_and_copied():
    case = small_case()
    inputs, targets = (part.clone() for part in case.pair)
    monitor = Monitor(case.loss, every=1, k=1)
    first = monitor.step(case.model, [inputs, targets])
    inputs.fill_(0)  # a loader that uses its memory again
    second = monitor.step(case.model, (inputs, targets))
    assert second.loss == first.loss
    assert second.eigenvalues == pytest.approx(first.eigenvalues, rel=1e-3)


def test_it_goes_on_from_its_state():
    case = small_case()
    whole, first = Monitor(case.loss, case.pair, every=2, k=2), Monitor(case.loss, case.pair, every=2, k=2)
    second = Monitor(case.loss, case.pair, every=2, k=2)
    optimiser, count = torch.optim.SGD(case.model.parameters(), lr=0.3), 0

    def each(_):
        nonlocal count
        count += 1
        whole.step(case.model)
        (first if count <= 5 else second).step(case.model)
        if count == 5:
            second.load_state_dict(first.state_dict())

    loop(case, optimiser, 10, each)
    assert first.records + second.records == whole.records
    assert len(whole.records) == 5


def test_a_network_that_is_lost_has_a_row_without_numbers():
    case = small_case()
    optimiser = torch.optim.SGD(case.model.parameters(), lr=0.1)
    monitor = Monitor(case.loss, case.pair, every=1, k=2, optimiser=optimiser)
    with torch.no_grad():
        case.model[0].weight.fill_(math.nan)
    row = monitor.step(case.model).row()
    assert math.isnan(row["loss"])
    assert math.isnan(row["eigenvalue_2"])
    assert row["threshold"] == 20
    assert row.keys() == Monitor(case.loss, case.pair, k=2).step(small_case().model).row().keys()


def test_an_update_is_compared_with_the_gradient():
    case = small_case()
    g = gradient(case)
    monitor = Monitor(case.loss, case.pair, every=1, k=3)
    same = monitor.step(case.model, update=lambda: 2 * g)
    assert same.update_cosine == pytest.approx(1)
    assert same.update_alignment == pytest.approx(same.alignment)
    assert monitor.step(case.model, update=lambda: -g).update_cosine == pytest.approx(-1)
    assert math.isnan(monitor.step(case.model, update=lambda: 0 * g).update_cosine)


@pytest.mark.parametrize("settings", [{"every": -1}, {"share": 0}, {"share": 2}, {"k": 0}, {"tol": 0}, {"probes": 2}])
def test_bad_settings_are_refused(settings):
    with pytest.raises(InputError, match="must be"):
        Monitor(nn.MSELoss(), **settings)


def test_what_has_no_samples_says_so():
    with pytest.raises(InputError, match="no samples: give it data, or step"):
        Monitor(nn.MSELoss()).step(nn.Linear(1, 1))
    with pytest.raises(InputError, match="all parameters"):
        Monitor(nn.MSELoss(), params=["*"])
