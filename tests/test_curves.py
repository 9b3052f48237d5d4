"""Fused curves against a plain loop over eps, and what they promise by construction."""

import copy
import re

import pytest
import torch
from devices import DEVICES
from robust_nets import Quantised, held_out, trained
from torch import nn

from alignscape.errors import InputError
from robustness.attacks import Batch, SingleAttack, bim, fgsm, perturb, pgd
from robustness.curves import AttackCurve, attack_curve, worst_case
from robustness.intervals import wilson
from robustness.norms import NORMS, unit_noise
from robustness.square import SquareAttack

RADII = [0.0, 0.02, 0.05, 0.1, 0.15, 0.25]
ATTACKS = {
    "fgsm": fgsm(),
    "bim": bim(steps=5),
    "pgd": pgd(steps=5),
    "pgd-restarts": pgd(steps=3, restarts=3),
    "pgd-dlr": pgd(steps=5, loss="dlr"),
    "pgd-l2": pgd(steps=5, norm="l2"),
    "square": SquareAttack(queries=40),
}
ARCHITECTURE_COLUMNS = ["attack", "gradient", "eps", "accuracy", "ci_low", "ci_high", "n_samples", "steps", "seconds"]


def one_by_one(model, images, labels, eps, attack, *, seed=0, stop=False):
    """Return fooled (E, N) as a plain loop over eps, attacking every image each time, measures it."""
    rows = []
    for radius in eps:
        fooled = torch.zeros(len(images), dtype=torch.bool)
        for restart in range(attack.restarts):
            start = None
            if attack.random_start:
                start = unit_noise(NORMS[attack.norm], images.shape[1:], range(len(images)), seed, restart).to(images)
            found = perturb(model, images, labels, radius, attack, start=start, stop_when_fooled=stop)
            fooled |= model(found).argmax(1) != labels
        rows.append(fooled)
    return torch.stack(rows)


@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "square"])
def test_raw_curve_is_the_plain_loop(name):
    images, labels = held_out(150, torch.float64)
    model = copy.deepcopy(trained()).double()
    found = attack_curve(model, images, labels, RADII, ATTACKS[name], raw=True, batch_size=64)
    expected = one_by_one(model, images, labels, RADII, ATTACKS[name])
    assert torch.equal(found.fooled[1:], expected[1:])
    assert torch.equal(found.fooled[0], model(images).argmax(1) != labels)


@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "square"])
def test_nested_curve_is_the_running_worst_of_the_plain_loop(name):
    images, labels = held_out(150, torch.float64)
    model = copy.deepcopy(trained()).double()
    found = attack_curve(model, images, labels, RADII, ATTACKS[name], batch_size=64)
    expected = one_by_one(model, images, labels, RADII, ATTACKS[name], stop=True)
    expected[0] = model(images).argmax(1) != labels
    assert torch.equal(found.fooled, expected.cummax(0).values)


@pytest.mark.parametrize("name", ATTACKS)
def test_nested_curve_never_rises_and_is_below_the_raw_one(name):
    images, labels = held_out(150)
    radii = [6 * eps for eps in RADII] if ATTACKS[name].norm == "l2" else RADII
    nested = attack_curve(trained(), images, labels, radii, ATTACKS[name])
    raw = attack_curve(trained(), images, labels, radii, ATTACKS[name], raw=True)
    assert (nested.accuracy.diff() <= 0).all()
    assert (nested.accuracy <= raw.accuracy + 1e-12).all()
    assert nested.accuracy[0] == raw.accuracy[0] == (trained()(images).argmax(1) == labels).double().mean()
    assert nested.accuracy[-1] < 0.6 * nested.accuracy[0]


@pytest.mark.parametrize("name", ATTACKS)
def test_curve_does_not_depend_on_the_batch_size(name):
    images, labels = held_out(120, torch.float64)
    model = copy.deepcopy(trained()).double()
    curves = [attack_curve(model, images, labels, RADII, ATTACKS[name], batch_size=size) for size in (7, 120)]
    assert torch.equal(curves[0].fooled, curves[1].fooled)


def test_curve_is_seeded():
    images, labels = held_out(150)
    attack = pgd(steps=1)
    first, again, other = (
        attack_curve(trained(), images, labels, [0.1], attack, seed=seed, keep_examples=True) for seed in (1, 1, 2)
    )
    assert torch.equal(first.examples, again.examples)
    assert not torch.equal(first.examples, other.examples)


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("raw", [False, True])
def test_examples_fool_within_their_minimal_eps(name, raw):
    images, labels = held_out(100)
    attack = ATTACKS[name]
    curve = attack_curve(trained(), images, labels, RADII, attack, raw=raw, keep_examples=True)
    minimal = curve.minimal_eps
    right = trained()(images).argmax(1) == labels
    fooled = right & minimal.isfinite()
    assert fooled.any()
    size = NORMS[attack.norm].size(curve.examples - images)
    assert (size[fooled] <= minimal[fooled] * (1 + 1e-5) + 1e-5).all()
    assert curve.examples.min() >= 0
    assert curve.examples.max() <= 1
    assert (trained()(curve.examples[fooled]).argmax(1) != labels[fooled]).all()
    assert torch.equal(curve.examples[~fooled], images[~fooled])
    if not raw:
        assert (minimal[~right] == 0).all()


class Straying(SingleAttack):
    """An attack that promises eps and goes twice as far."""

    name, norm, loss, steps, restarts, needs_gradient = "straying", "linf", "ce", 1, 1, True

    def on(self, batch: Batch, *, restart, stop_when_fooled):
        inner = fgsm().on(batch, restart=restart, stop_when_fooled=stop_when_fooled)
        return lambda eps, chosen: inner(2 * eps, chosen)


def test_what_leaves_the_ball_does_not_count():
    images, labels = held_out(100)
    curve = attack_curve(trained(), images, labels, [0.0, 0.1], Straying())
    assert curve.rejected > 0
    honest = attack_curve(trained(), images, labels, [0.0, 0.2], fgsm())
    assert curve.rejected <= int(honest.fooled[1].sum() - honest.fooled[0].sum())
    assert curve.accuracy[1] > honest.accuracy[1]


def test_worst_case_is_per_image():
    images, labels = held_out(150)
    curves = [attack_curve(trained(), images, labels, RADII, ATTACKS[name]) for name in ("fgsm", "pgd-dlr", "square")]
    worst = worst_case(curves)
    assert torch.equal(worst.fooled, curves[0].fooled | curves[1].fooled | curves[2].fooled)
    assert torch.equal(worst.minimal_eps, torch.stack([c.minimal_eps for c in curves]).amin(0))
    assert (worst.attack, worst.gradient, worst.norm) == ("worst case", "true", "linf")
    assert (worst.accuracy <= torch.stack([c.accuracy for c in curves]).amin(0)).all()


def test_worst_case_needs_comparable_curves():
    images, labels = held_out(20)
    one = attack_curve(trained(), images, labels, [0.0, 0.1], fgsm())
    for other in (
        attack_curve(trained(), images, labels, [0.0, 0.2], fgsm()),
        attack_curve(trained(), images[:10], labels[:10], [0.0, 0.1], fgsm()),
        attack_curve(trained(), images, labels, [0.0, 0.1], fgsm(norm="l2")),
        attack_curve(trained(), images, labels, [0.0, 0.1], fgsm(), gradient="transfer", gradient_model=trained(1)),
    ):
        with pytest.raises(ValueError, match="worst case"):
            worst_case([one, other])


def test_frame_has_the_columns_and_the_numbers():
    images, labels = held_out(150)
    curve = attack_curve(trained(), images, labels, [0.1, 0.0, 0.05, 0.1], pgd(steps=4))
    frame = curve.frame()
    assert list(frame.columns[:9]) == ARCHITECTURE_COLUMNS
    assert frame.eps.tolist() == [0.0, 0.05, 0.1]
    assert (frame.attack == "pgd").all()
    assert (frame.gradient == "true").all()
    assert (frame.n_samples == 150).all()
    assert (frame.steps == 4).all()
    assert (frame.seconds > 0).all()
    for row in frame.itertuples():
        right = round(row.accuracy * 150)
        assert row.accuracy == right / 150
        assert (row.ci_low, row.ci_high) == wilson(right, 150)


def test_gradient_modes_are_labelled():
    images, labels = held_out(60)
    transfer = attack_curve(trained(), images, labels, [0.1], bim(), gradient="transfer", gradient_model=trained(1))
    white = attack_curve(trained(), images, labels, [0.1], bim())
    square = attack_curve(trained(), images, labels, [0.1], SquareAttack(queries=5))
    assert [c.frame().gradient[0] for c in (transfer, white, square)] == ["transfer", "true", "none"]
    assert transfer.accuracy > white.accuracy


@pytest.mark.parametrize(
    ("gradient", "other", "message"),
    [
        ("feedback", None, "needs the model whose gradient it follows"),
        ("true", trained(1), "takes no other model"),
        ("none", None, "use the square attack"),
        ("blind", None, "known: true, feedback, transfer, none"),
    ],
)
def test_a_wrong_label_is_refused(gradient, other, message):
    images, labels = held_out(10)
    with pytest.raises(InputError, match=re.escape(message)):
        attack_curve(trained(), images, labels, [0.1], bim(), gradient=gradient, gradient_model=other)


def test_mode_is_restored_when_an_attack_fails():
    model = nn.Sequential(copy.deepcopy(trained()), nn.Dropout(0.5)).train()
    images, labels = held_out(10)
    with pytest.raises(InputError, match="outputs"):
        attack_curve(model, images, labels + 5, [0.1], fgsm())
    assert model.training


def test_zero_gradients_leave_the_image_and_are_not_an_error():
    images, labels = held_out(50)
    curve = attack_curve(Quantised(trained()), images, labels, [0.0, 0.1], bim())
    assert curve.accuracy[0] == curve.accuracy[1]


def test_progress_counts_images():
    images, labels = held_out(50)
    seen = []
    attack_curve(trained(), images, labels, [0.1], fgsm(), batch_size=20, progress=lambda *a: seen.append(a))
    assert seen == [(20, 50), (40, 50), (50, 50)]


def test_eps_is_checked_before_any_work():
    images, labels = held_out(10)
    with pytest.raises(InputError, match=re.escape("eps 8 is outside [0, 1]")):
        attack_curve(trained(), images, labels, [8.0], fgsm())


@pytest.mark.parametrize("batch_size", [0, -3])
def test_a_batch_of_no_images_is_refused(batch_size):
    images, labels = held_out(10)
    with pytest.raises(InputError, match=f"batch_size is {batch_size}; it must be at least 1"):
        attack_curve(trained(), images, labels, [0.1], fgsm(), batch_size=batch_size)


def test_the_step_size_is_in_the_table():
    images, labels = held_out(10)
    one, many, fixed = (
        attack_curve(trained(), images, labels, [0.0, 0.1, 0.2], attack).frame().step_size.tolist()
        for attack in (fgsm(), pgd(steps=5), bim(step_size=0.01))
    )
    assert one == pytest.approx([0, 0.1, 0.2])
    assert many == pytest.approx([0, 0.05, 0.1])
    assert fixed == pytest.approx([0.01] * 3)


@pytest.mark.parametrize("device", DEVICES)
def test_a_device_gives_the_curve_of_the_cpu(device):
    """The same images, in other batches and, of the model, in its own place in memory."""
    images, labels = held_out(150, torch.float64)
    model = copy.deepcopy(trained()).double()
    cpu = attack_curve(model, images, labels, RADII, pgd(steps=5))
    found = attack_curve(copy.deepcopy(model).to(device), images, labels, RADII, pgd(steps=5), batch_size=70)
    assert (cpu.fooled != found.fooled).double().mean() < 0.01
    assert isinstance(found, AttackCurve)
    assert found.fooled.device.type == "cpu"
