"""FGSM, BIM, PGD, Square and their losses against torchattacks, closed forms and finite differences."""

import copy
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from robust_nets import Quantised, Scaled, held_out, mlp, trained
from torch import nn
from torch.nn import functional as F

from alignscape.errors import InputError
from robustness.attacks import Batch, GradientAttack, bim, fgsm, input_gradient, perturb, pgd
from robustness.inputs import check_eps, check_images, check_logits, evaluating
from robustness.losses import LOSSES, cross_entropy, dlr, loss_named
from robustness.norms import NORMS, norm_named, unit_noise
from robustness.square import SquareAttack, proposals
from robustness.square_l2 import bump, exchanges

DOUBLE = torch.float64
EPS, ALPHA, STEPS = 0.06, 0.017, 7


@pytest.fixture
def double():
    return copy.deepcopy(trained()).double()


def noise_like(images, norm="linf", seed=3):
    return unit_noise(NORMS[norm], images.shape[1:], range(len(images)), seed, 0).to(images)


# --- the same numbers as torchattacks -------------------------------------------------------------------------


def test_fgsm_is_torchattacks_fgsm(double):
    torchattacks = pytest.importorskip("torchattacks")
    images, labels = held_out(dtype=DOUBLE)
    expected = torchattacks.FGSM(double, eps=EPS)(images, labels)
    torch.testing.assert_close(perturb(double, images, labels, EPS, fgsm()), expected, atol=1e-12, rtol=0)


def test_bim_is_torchattacks_bim(double):
    torchattacks = pytest.importorskip("torchattacks")
    images, labels = held_out(dtype=DOUBLE)
    expected = torchattacks.BIM(double, eps=EPS, alpha=ALPHA, steps=STEPS)(images, labels)
    found = perturb(double, images, labels, EPS, bim(steps=STEPS, step_size=ALPHA))
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=0)  # theirs masks with float32


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_from_the_same_start_is_torchattacks_pgd(double, norm, monkeypatch):
    torchattacks = pytest.importorskip("torchattacks")
    images, labels = held_out(dtype=DOUBLE)
    start = noise_like(images, norm)
    eps, alpha = (EPS, ALPHA) if norm == "linf" else (0.8, 0.2)
    if norm == "linf":
        attack = torchattacks.PGD(double, eps=eps, alpha=alpha, steps=STEPS)
    else:  # their guard against a zero gradient, 1e-10, is added to every norm
        attack = torchattacks.PGDL2(double, eps=eps, alpha=alpha, steps=STEPS, eps_for_division=0)
    # Their generator is the global one; give their draw ours.
    monkeypatch.setattr(torch.Tensor, "uniform_", lambda self, low, high: self.copy_(_uniform(self, start, high)))
    monkeypatch.setattr(torch.Tensor, "normal_", lambda self: self.copy_(start))
    expected = attack(images, labels)
    monkeypatch.undo()
    found = perturb(double, images, labels, eps, pgd(steps=STEPS, step_size=alpha, norm=norm), start=start)
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)


def _uniform(like, start, high):
    """Stand in for their two uniform draws: L-infinity noise of the images' shape, or L2 radii."""
    return start * high if like.shape == start.shape else start.flatten(1).norm(dim=1).view_as(like)


@pytest.mark.parametrize("attack", [fgsm(), bim(), pgd()], ids=lambda a: a.name)
def test_float32_predictions_match_float64(attack, double):
    images, labels = held_out()
    start = noise_like(images) if attack.random_start else None
    single = perturb(trained(), images, labels, 0.05, attack, start=start)
    exact = perturb(double, images.double(), labels, 0.05, attack, start=None if start is None else start.double())
    same = trained()(single).argmax(1) == double(exact).argmax(1)
    assert same.float().mean() >= 0.99


def test_dlr_is_torchattacks_dlr():
    torchattacks = pytest.importorskip("torchattacks")
    logits = torch.randn(50, 10, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(50) % 10
    theirs = torchattacks.APGD(mlp(0)).dlr_loss(logits, labels)
    torch.testing.assert_close(dlr(logits, labels), theirs)


def test_square_is_torchattacks_square_on_the_same_draws(double, monkeypatch):
    """Their random numbers are replaced by ours; all else (schedule, window, acceptance, stop) is compared."""
    torchattacks = pytest.importorskip("torchattacks")
    images, labels = held_out(60, dtype=DOUBLE)
    right = double(images).argmax(1) == labels
    images, labels = images[right], labels[right]
    ours = SquareAttack(queries=60)
    squares = list(proposals(ours, images.shape[1:], np.random.default_rng((5, 0))))
    batch = Batch(model=double, gradient_model=double, images=images, labels=labels, numbers=range(len(images)), seed=5)
    chosen = torch.arange(len(images))
    found = ours.on(batch, restart=0, stop_when_fooled=True)(0.1, chosen)

    theirs = torchattacks.Square(double, eps=0.1, n_queries=60)
    stripes = torch.stack(
        [
            torch.from_numpy(np.random.default_rng((5, 0, i)).integers(0, 2, (1, 1, 8)) * 2 - 1)
            for i in range(len(images))
        ]
    )
    choices = iter([stripes.double(), *(signs.double() for *_, signs in squares)])
    places = iter([place for top, left, *_ in squares for place in (top, left)])
    monkeypatch.setattr(theirs, "random_choice", lambda shape: next(choices))
    monkeypatch.setattr(theirs, "random_int", lambda low=0, high=1, shape=None: next(places))
    expected = theirs(images, labels)
    fooled = double(expected).argmax(1) != labels
    assert fooled.any()
    assert not fooled.all()
    torch.testing.assert_close(found[fooled], expected[fooled], atol=1e-6, rtol=0)
    assert (double(found).argmax(1) != labels).eq(fooled).all()


# --- losses and gradients -------------------------------------------------------------------------------------


def test_log_odds_are_the_cross_entropy():
    logits = torch.randn(40, 7, dtype=DOUBLE, generator=torch.Generator().manual_seed(1)) * 3
    labels = torch.arange(40) % 7
    expected = F.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(F.softplus(cross_entropy(logits, labels)), expected)


def test_log_odds_gradient_is_parallel_to_the_cross_entropy_and_never_vanishes():
    images, labels = held_out(100, dtype=DOUBLE)
    model = copy.deepcopy(trained()).double()
    ours, _ = input_gradient(model, images, labels, cross_entropy)
    theirs, _ = input_gradient(model, images, labels, LOSSES["ce-saturating"])
    cosine = F.cosine_similarity(ours.flatten(1), theirs.flatten(1), eps=0)
    torch.testing.assert_close(cosine, torch.ones_like(cosine), atol=1e-9, rtol=0)

    confident = Scaled(trained(), 1000.0)
    right = confident(images.float()).argmax(1) == labels
    images, labels = images.float()[right], labels[right]
    saturated, _ = input_gradient(confident, images, labels, LOSSES["ce-saturating"])
    robust, _ = input_gradient(confident, images, labels, cross_entropy)
    assert (saturated.flatten(1).abs().amax(1) == 0).float().mean() > 0.9
    assert (robust.flatten(1).abs().amax(1) > 0).all()


@pytest.mark.parametrize("name", LOSSES)
def test_input_gradient_equals_finite_differences(name):
    model = copy.deepcopy(trained()).double()
    images, labels = held_out(5, dtype=DOUBLE)
    gradient, logits = input_gradient(model, images, labels, LOSSES[name])
    torch.testing.assert_close(logits, model(images))
    step = torch.randn(images.shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(2))
    h = 1e-6
    rise = LOSSES[name](model(images + h * step), labels) - LOSSES[name](model(images - h * step), labels)
    torch.testing.assert_close((gradient * step).flatten(1).sum(1), rise / (2 * h), rtol=1e-5, atol=1e-7)


def test_dlr_ignores_scale_and_shift_and_needs_three_classes():
    logits = torch.randn(20, 5, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(20) % 5
    torch.testing.assert_close(dlr(1000 * logits + 7, labels), dlr(logits, labels))
    with pytest.raises(InputError, match="3 classes, the model has 2"):
        dlr(logits[:, :2], labels % 2)


# --- the loop -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("make", [fgsm, bim, pgd], ids=lambda f: f.__name__)
def test_every_image_has_its_own_eps_and_stays_in_ball_and_box(make, norm):
    images, labels = held_out(64)
    attack = make(norm=norm)
    eps = torch.linspace(0, 0.5 if norm == "linf" else 3.0, 64)
    start = noise_like(images, norm) if attack.random_start else None
    found = perturb(trained(), images, labels, eps, attack, start=start)
    assert (NORMS[norm].size(found - images) <= eps + 1e-6).all()
    assert found.min() >= 0
    assert found.max() <= 1
    row = 40  # one call with a scalar gives the same image as its row in the batch
    alone = perturb(
        trained(),
        images[row : row + 1],
        labels[row : row + 1],
        float(eps[row]),
        attack,
        start=None if start is None else start[row : row + 1],
    )
    torch.testing.assert_close(found[row : row + 1], alone, atol=1e-6, rtol=0)


@settings(max_examples=40, deadline=None)
@given(
    eps=st.floats(0, 1),
    steps=st.integers(1, 4),
    step_size=st.none() | st.floats(1e-3, 2),
    norm=st.sampled_from(sorted(NORMS)),
    loss=st.sampled_from(sorted(LOSSES)),
    stop=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_no_parameters_leave_ball_or_box(eps, steps, step_size, norm, loss, stop, seed):
    images, labels = held_out(8)
    attack = pgd(steps=steps, step_size=step_size, norm=norm, loss=loss)
    start = noise_like(images, norm, seed)
    found = perturb(trained(), images, labels, eps, attack, start=start, stop_when_fooled=stop)
    assert (NORMS[norm].size(found - images) <= eps + 1e-6).all()
    assert found.min() >= 0
    assert found.max() <= 1


def test_stopping_returns_the_first_iterate_that_fools(double):
    images, labels = held_out(100, dtype=DOUBLE)
    attack = bim(steps=6)
    iterates = [
        perturb(double, images, labels, 0.15, GradientAttack(name="bim", steps=k, relative_step=1 / 6))
        for k in range(1, 7)
    ]
    path = torch.stack([images, *iterates])
    fooled = torch.stack([double(x).argmax(1) != labels for x in path[:-1]])  # the loop does not check the last
    first = torch.where(fooled.any(0), fooled.int().argmax(0), 6)
    assert set(first.tolist()) > {0, 6}
    expected = path[first, torch.arange(100)]
    found = perturb(double, images, labels, 0.15, attack, stop_when_fooled=True)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_another_models_gradient_is_followed_but_this_model_is_fooled():
    images, labels = held_out(200)
    victim, surrogate = trained(0), trained(1)
    found = perturb(victim, images, labels, 0.1, bim(), gradient_model=surrogate)
    torch.testing.assert_close(found, perturb(surrogate, images, labels, 0.1, bim()))
    stopped = perturb(victim, images, labels, 0.1, bim(), gradient_model=surrogate, stop_when_fooled=True)
    moved = (stopped - images).flatten(1).abs().amax(1) > 0
    torch.testing.assert_close(moved, victim(images).argmax(1) == labels)  # judged by the victim from the start


def test_the_model_is_left_as_it_was():
    model = nn.Sequential(mlp(0), nn.BatchNorm1d(10), nn.Dropout(0.5)).train()
    model[1].eval()
    before = copy.deepcopy(model.state_dict())
    images, labels = held_out(16)
    with evaluating(model):
        assert not any(module.training for module in model.modules())
        perturb(model, images, labels, 0.1, pgd(), start=noise_like(images))
    assert model.training
    assert not model[1].training
    assert model[2].training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name])


def test_starts_belong_to_images_not_to_batches():
    whole = unit_noise(NORMS["linf"], (3, 4, 4), range(10), 0, 0)
    part = unit_noise(NORMS["linf"], (3, 4, 4), [7, 2], 0, 0)
    torch.testing.assert_close(part, whole[[7, 2]])
    assert not torch.equal(whole, unit_noise(NORMS["linf"], (3, 4, 4), range(10), 0, 1))
    assert not torch.equal(whole, unit_noise(NORMS["linf"], (3, 4, 4), range(10), 1, 0))
    assert abs(float(whole.mean())) < 0.1
    assert whole.abs().max() <= 1
    assert float(unit_noise(NORMS["l2"], (3, 4, 4), range(50), 0, 0).flatten(1).norm(dim=1).max()) <= 1 + 1e-6


def test_l2_direction_survives_tiny_gradients():
    gradient = torch.tensor([[3e-30, 4e-30], [0.0, 0.0]])
    torch.testing.assert_close(NORMS["l2"].direction(gradient), torch.tensor([[0.6, 0.8], [0.0, 0.0]]))


# --- Square ---------------------------------------------------------------------------------------------------


def test_l2_square_is_torchattacks_square_on_the_same_draws(monkeypatch):
    """Their random numbers are replaced by ours, signs that all images share among them; all else is compared."""
    torchattacks = pytest.importorskip("torchattacks")
    torch.manual_seed(1)
    images, shape = torch.rand(40, 3, 10, 10, dtype=torch.float64), (3, 10, 10)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(300, 20), torch.nn.Tanh(), torch.nn.Linear(20, 4))
    labels = model.double()(images).argmax(1)
    ours = SquareAttack(queries=80, norm="l2")
    batch = Batch(model=model, gradient_model=model, images=images, labels=labels, numbers=range(40), seed=5)
    found = ours.on(batch, restart=0, stop_when_fooled=True)(1.5, torch.arange(40))

    moves = list(exchanges(ours.sides(shape), shape, np.random.default_rng((5, 0))))
    across = np.random.default_rng((5, 0)).integers(0, 2, 25).astype(bool)
    signs = np.stack([np.random.default_rng((5, 0, number)).integers(0, 2, (3, 25)) * 2 - 1 for number in range(40)])
    first = [torch.from_numpy(signs[:, :, tile, None, None]).double() for tile in range(25)]
    bumps = iter([*(bump(2, across=way) for way in across), *(move.bump for move in moves)])
    choices = iter([*first, *(move.signs.double() for move in moves)])
    places = iter([part.start for move in moves for window in (move.filled, move.emptied) for part in window])
    theirs = torchattacks.Square(model, norm="L2", eps=1.5, n_queries=80)
    monkeypatch.setattr(theirs, "eta", lambda side: next(bumps))
    monkeypatch.setattr(theirs, "random_choice", lambda shape: next(choices))
    monkeypatch.setattr(theirs, "random_int", lambda low=0, high=1, shape=None: next(places))
    expected = theirs(images, labels)
    fooled = model(expected).argmax(1) != labels
    assert 5 < fooled.sum() < 35
    torch.testing.assert_close(found[fooled], expected[fooled], atol=1e-6, rtol=0)
    assert (model(found).argmax(1) != labels).eq(fooled).all()


@pytest.mark.parametrize("side", [1, 2, 3, 4, 7, 29])
def test_bumps_are_those_of_torchattacks(side, monkeypatch):
    torchattacks = pytest.importorskip("torchattacks")
    theirs = torchattacks.Square(mlp(0))
    theirs.device = "cpu"
    monkeypatch.setattr(torch, "rand", lambda shape: torch.zeros(shape))  # so that they do not turn it
    torch.testing.assert_close(bump(side), theirs.eta(side).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(bump(side, across=True), bump(side).T)


def test_l2_square_stays_in_bounds_and_fools_more_with_queries():
    images, labels = held_out(100)
    model = trained()
    batch = Batch(model=model, gradient_model=model, images=images, labels=labels, numbers=range(100))
    share = []
    for queries in (5, 200):
        attack = SquareAttack(queries=queries, norm="l2")
        found = attack.on(batch, restart=0, stop_when_fooled=True)(1.0, torch.arange(100))
        assert (found - images).flatten(1).norm(dim=1).max() <= 1 + 1e-5
        assert found.min() >= 0
        assert found.max() <= 1
        share.append(float((model(found).argmax(1) != labels).float().mean()))
    assert share[0] + 0.1 < share[1]


def test_square_stays_in_bounds_and_fools_more_with_queries():
    images, labels = held_out(100)
    model = trained()
    batch = Batch(model=model, gradient_model=model, images=images, labels=labels, numbers=range(100))
    chosen = torch.arange(100)
    share = []
    for queries in (5, 200):
        found = SquareAttack(queries=queries).on(batch, restart=0, stop_when_fooled=True)(0.15, chosen)
        assert (found - images).abs().max() <= 0.15 + 1e-6
        assert found.min() >= 0
        assert found.max() <= 1
        share.append(float((model(found).argmax(1) != labels).float().mean()))
    assert share[0] + 0.1 < share[1]


def test_square_asks_twice_only_about_what_it_fools():
    images, labels = held_out(50)
    asked, network = [], trained()

    class Counted(torch.nn.Module):
        def forward(self, x):
            asked.append(len(x))
            return network(x)

    batch = Batch(model=Counted(), gradient_model=Counted(), images=images, labels=labels, numbers=range(50))
    queries = 60  # too few to look for a first layer
    SquareAttack(queries=queries).on(batch, restart=0, stop_when_fooled=True)(0.1, torch.arange(50))
    left, whole = 50, 0
    for count in asked:
        whole += count == left
        left -= count if count < left else 0  # these were fooled, and are asked about once more
    assert whole == queries + 1  # the stripes, and each query
    assert 0 < left < 50


def test_square_needs_no_gradient_and_covers_the_border():
    images, labels = held_out(50)
    model = Quantised(trained())
    batch = Batch(model=model, gradient_model=model, images=images, labels=labels, numbers=range(50))
    found = SquareAttack(queries=300).on(batch, restart=0, stop_when_fooled=True)(0.2, torch.arange(50))
    assert (model(found).argmax(1) != labels).float().mean() > 0.3
    squares = list(proposals(SquareAttack(queries=500), (1, 8, 8), np.random.default_rng(0)))
    assert {top + side for top, _, side, _ in squares} >= {8}
    assert squares[0][2] == 7  # sqrt(0.8 * 64) = 7.2
    assert squares[-1][2] == 1


# --- bad input ------------------------------------------------------------------------------------------------

GOOD = (torch.rand(4, 1, 8, 8), torch.arange(4))


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (GOOD[0] * 2 - 0.5, GOOD[1], "normalise inside the model"),
        (torch.full((4, 1, 8, 8), torch.nan), GOOD[1], "attacks need [0, 1]"),
        ((GOOD[0] * 255).to(torch.uint8), GOOD[1], "divide uint8 by 255"),
        (GOOD[0], GOOD[1][:3], "need int64 of shape (4,)"),
        (GOOD[0], GOOD[1].float(), "need int64"),
        (GOOD[0][:0], GOOD[1][:0], "no images"),
    ],
)
def test_bad_images_are_named(images, labels, message):
    with pytest.raises(InputError, match=re.escape(message)):
        check_images(images, labels)


@pytest.mark.parametrize("eps", [[-0.1], [1.5], [float("nan")], [float("inf")], []])
def test_bad_eps_is_named(eps):
    with pytest.raises(InputError, match="eps"):
        check_eps(eps, NORMS["linf"], 64)


def test_l2_radii_may_exceed_one():
    check_eps([3.0], NORMS["l2"], 64)
    with pytest.raises(InputError, match=re.escape("outside [0, 8]")):
        check_eps([8.5], NORMS["l2"], 64)


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (torch.zeros(4, 3), "labels are 0 ... 3 but the model has 3 outputs"),
        (torch.zeros(4, 10, 2), "must give (N, classes)"),
        (torch.full((4, 10), torch.nan), "not finite"),
    ],
)
def test_bad_outputs_are_named(logits, message):
    with pytest.raises(InputError, match=re.escape(message)):
        check_logits(logits, GOOD[1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pgd(steps=0), "at least 1 step"),
        (lambda: pgd(restarts=0), "at least 1 restart"),
        (lambda: pgd(step_size=-1.0), "step size of pgd must be positive"),
        (lambda: GradientAttack(name="bim", restarts=2), "no random start"),
        (lambda: pgd(norm="l1"), "unknown norm 'l1'; known: linf, l2"),
        (lambda: pgd(loss="mse"), "unknown attack loss 'mse'; known: ce"),
        (lambda: SquareAttack(queries=0), "at least 1 query"),
        (lambda: SquareAttack(initial_share=0.0), "0 < share <= 1"),
        (lambda: norm_named("x"), "unknown norm"),
        (lambda: loss_named("x"), "unknown attack loss"),
    ],
)
def test_bad_parameters_are_named(make, message):
    with pytest.raises(InputError, match=re.escape(message)):
        make()


class Detached(nn.Module):
    def forward(self, x):
        return trained()(x.detach())


class WithoutAutograd(nn.Module):
    @torch.no_grad()
    def forward(self, x):
        return trained()(x)


class IgnoringItsInput(nn.Module):
    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(10))

    def forward(self, x):
        return self.bias.expand(len(x), 10)


@pytest.mark.parametrize("model", [Detached(), WithoutAutograd(), IgnoringItsInput()], ids=lambda m: type(m).__name__)
def test_a_model_without_gradients_is_named(model):
    images, labels = held_out(4)
    with pytest.raises(InputError, match="square attack, which needs none"):
        input_gradient(model, images, labels, cross_entropy)
