"""FAB and AutoAttack's ensemble against closed forms, a linear program and torchattacks."""

import copy
import re

import numpy as np
import pytest
import torch
from robust_nets import distances, held_out, linear, trained
from scipy.optimize import linprog

from alignscape.errors import InputError
from robustness.approximations import Approximated
from robustness.attacks import Batch
from robustness.auto_pgd import apgd
from robustness.curves import attack_curve
from robustness.ensembles import auto_attack
from robustness.fast_boundary import FabAttack, fab, project_onto_plane
from robustness.norms import NORMS

DOUBLE = torch.float64


@pytest.mark.parametrize("classes", [2, 3, 6])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_distance_of_a_linear_classifier_is_margin_over_dual_norm(norm, classes):
    model, images, labels = linear(classes)
    exact = distances(model, images, labels, norm)
    batch = Batch(model=model, gradient_model=model, images=images, labels=labels, numbers=range(len(labels)))
    found = fab(norm=norm).on(batch, restart=0, stop_when_fooled=True)(0.0, torch.arange(len(labels)))
    assert torch.equal(found, images)  # nothing lies within 0
    nearest = fab(norm=norm).on(batch, restart=0, stop_when_fooled=True)
    nearest(0.0, torch.arange(len(labels)))
    size = NORMS[norm].size(nearest(10.0, torch.arange(len(labels))) - images)
    assert (size >= exact * (1 - 1e-9)).all()
    assert (size <= exact * 1.01).all()  # it steps 5 % beyond where it stands, after it was drawn back by 10 %


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_projection_is_the_shortest_move_within_the_box(norm):
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(12, 6, dtype=DOUBLE, generator=generator)
    slope = torch.randn(12, 6, dtype=DOUBLE, generator=generator)
    gap = torch.randn(12, dtype=DOUBLE, generator=generator)
    moves = project_onto_plane(NORMS[norm], points, slope, gap)
    assert ((points + moves >= -1e-12) & (points + moves <= 1 + 1e-12)).all()
    for row in range(12):
        x, w, c, d = (part[row].numpy() for part in (points, slope, gap, moves))
        if norm == "linf":  # min t: <w, d> = c, -t <= d <= t, within the box
            rows = np.vstack([np.c_[np.eye(6), -np.ones(6)], np.c_[-np.eye(6), -np.ones(6)]])
            bounds = [*zip(-x, 1 - x, strict=True), (0, None)]
            best = linprog([*np.zeros(6), 1], A_ub=rows, b_ub=np.zeros(12), A_eq=[[*w, 0]], b_eq=[c], bounds=bounds)
            if best.success:
                assert w @ d == pytest.approx(c, rel=1e-5)
                assert np.abs(d).max() == pytest.approx(best.fun, rel=1e-5)
        elif w @ d == pytest.approx(c, rel=1e-5):  # Karush, Kuhn and Tucker: free pixels are in proportion to w
            free = (x + d > 1e-9) & (x + d < 1 - 1e-9)
            time = d[free] / w[free]
            assert time.std() <= 1e-5 * np.abs(time).max()
            assert (np.abs(d[~free]) <= np.abs(time.mean() * w[~free]) + 1e-9).all()


def test_one_run_answers_for_every_eps_and_agrees_with_torchattacks():
    torchattacks = pytest.importorskip("torchattacks")
    images, labels = held_out(50)
    radii = [0.0, 0.05, 0.1, 0.15]
    curve = attack_curve(trained(), images, labels, radii, fab(steps=20), keep_examples=True)
    assert curve.rejected == 0
    for eps, fooled in zip(radii[1:], curve.fooled[1:], strict=True):
        theirs = torchattacks.FAB(trained(), eps=eps, steps=20, multi_targeted=True)(images, labels)
        inside = (theirs - images).flatten(1).abs().amax(1) <= eps + 1e-6
        expected = (trained()(theirs).argmax(1) != labels) & inside
        assert abs(int(fooled.sum()) - int(expected.sum())) <= 2
    calls = []
    whole = fab(steps=5)
    batch = Batch(model=trained(), gradient_model=trained(), images=images, labels=labels, numbers=range(50))
    perturber = whole.on(batch, restart=0, stop_when_fooled=True)
    chosen = torch.arange(50)
    perturber(0.01, chosen)
    hook = trained().register_forward_hook(lambda *_: calls.append(1))
    perturber(0.1, chosen)
    hook.remove()
    assert not calls


def test_auto_attack_is_torchattacks_auto_attack_at_each_eps():
    torchattacks = pytest.importorskip("torchattacks")
    images, labels = held_out(60)
    radii = [0.0, 0.06, 0.12]
    ours = attack_curve(trained(), images, labels, radii, auto_attack(steps=10, queries=300))
    for eps, fooled in zip(radii[1:], ours.fooled[1:], strict=True):
        theirs = torchattacks.AutoAttack(trained(), eps=eps, seed=0)
        theirs._autoattack.attacks[3].n_queries = 300
        expected = trained()(theirs(images, labels)).argmax(1) != labels
        assert abs(int(fooled.sum()) - int(expected.sum())) <= 2
    ce = attack_curve(trained(), images, labels, radii, apgd(steps=10))
    assert (ours.accuracy <= ce.accuracy + 1 / 60).all()
    assert ours.frame()[["attack", "loss"]].drop_duplicates().values.tolist() == [["auto", "ce+dlr-targeted+margin"]]


def test_l2_has_the_same_members_and_few_classes_few_targets():
    names = [(member.name, member.norm) for member in auto_attack(norm="l2").members]
    assert names == [(name, "l2") for name in ("apgd-ce", "apgd-t", "fab", "square")]
    model, images, labels = linear(2)
    curve = attack_curve(model, images, labels, [0.0, 1.0], auto_attack(norm="l2", steps=20))
    assert curve.accuracy.tolist() == [1.0, float((distances(model, images, labels, "l2") > 1).double().mean())]


def test_a_restart_starts_elsewhere():
    images, labels = held_out(30, DOUBLE)
    model = copy.deepcopy(trained()).double()
    batch = Batch(model=model, gradient_model=model, images=images, labels=labels, numbers=range(30))
    chosen = torch.arange(30)
    found = [fab(steps=3).on(batch, restart=r, stop_when_fooled=True)(0.3, chosen) for r in (0, 1, 1)]
    assert not torch.equal(found[0], found[1])
    assert torch.equal(found[1], found[2])


def test_bad_parameters_are_named():
    with pytest.raises(InputError, match=re.escape("fab needs at least 1 step, 1 target and 1 restart, got 1, 0, 1")):
        FabAttack(steps=1, targets=0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("scale", [1e-15, 1e-22, 1e-25, 1e-30])
def test_the_projection_minds_no_scale_of_the_gradient(norm, scale):
    generator = torch.Generator().manual_seed(0)
    points, slope = torch.rand(12, 6, generator=generator), torch.randn(12, 6, generator=generator)
    gap = 0.1 * torch.randn(12, generator=generator)
    expected = project_onto_plane(NORMS[norm], points, slope, gap)
    found = project_onto_plane(NORMS[norm], points, slope * scale, gap * scale)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(project_onto_plane(NORMS[norm], points, slope * 0, 20 * gap), torch.zeros(12, 6))


def test_auto_attack_goes_with_an_approximated_gradient_of_the_network_itself():
    images, labels = held_out(20)
    whole = auto_attack(steps=2, queries=5)
    plain = attack_curve(trained(), images, labels, [0.05], whole)
    averaged = attack_curve(trained(), images, labels, [0.05], whole, gradient_model=Approximated(trained(), eot=2))
    assert torch.equal(averaged.fooled, plain.fooled)
    with pytest.raises(InputError, match="square, which follows no gradient"):
        attack_curve(
            trained(),
            images,
            labels,
            [0.05],
            whole,
            gradient="transfer",
            gradient_model=Approximated(trained(1), eot=2),
        )
