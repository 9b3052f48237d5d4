"""The audit catches what masks a gradient, names the right symptom, and lets a plain network pass."""

import copy
import re
from functools import cache

import pytest
import torch
from robust_nets import Quantised, Scaled, feedback_aligned, held_out, trained
from torch import nn

from alignscape.errors import InputError
from robustness.case import LEVEL, MARGIN, Case, NoiseAttack
from robustness.curves import attack_curve
from robustness.masking import Audit, audit
from robustness.symptoms import CHECKS

EPS = 0.1
N = 400


@cache
def audited(name: str) -> Audit:
    """Return the audit of one of the cases; they are slow enough to share."""
    images, labels = held_out(N)
    plain, feedback = feedback_aligned("fa")
    cases = {
        "bp": (trained(), {}),
        "fa": (plain, {}),
        "scaled": (Scaled(trained(), 1000.0), {}),
        "quantised": (Quantised(trained()), {}),
        "feedback": (plain, {"gradient_model": feedback, "gradient": "feedback"}),
        "straight-through": (StraightThrough(), {}),
    }
    model, options = cases[name]
    return audit(model, images, labels, eps=EPS, surrogate=trained(1), **options)


class StraightThrough(nn.Module):
    """Quantised forward, but a backward pass that pretends otherwise: not the gradient of what is computed."""

    def __init__(self):
        super().__init__()
        self.inner = copy.deepcopy(trained())

    def forward(self, x):
        rounded = (x * 3 + 0.1).round() / 3  # shifted, so that no digit's grey level lies on a jump
        return self.inner(x + (rounded - x).detach())


def warnings(result: Audit) -> set[str]:
    return {line.check for line in result.lines if line.verdict == "warn"}


def line(result: Audit, check: str):
    return next(line for line in result.lines if line.check == check)


@pytest.mark.parametrize("name", ["bp", "fa"])
def test_a_plain_network_passes(name):
    result = audited(name)
    assert warnings(result) == set()
    assert result.passed
    assert all(line.verdict == "pass" for line in result.lines)
    assert re.fullmatch(r"no sign of a masked gradient in 12 checks \(gradient true, .*\)", result.summary)
    assert result.robust_accuracy < result.accuracy - 0.2


def test_logits_times_1000_are_caught():
    result = audited("scaled")
    assert warnings(result) == {"gradients do not vanish", "logits do not saturate"}
    assert line(result, "gradients do not vanish").value > 0.9
    assert line(result, "logits do not saturate").value > 0.3
    # Our own attack climbs log-odds and is not deceived.
    assert result.robust_accuracy == pytest.approx(audited("bp").robust_accuracy, abs=0.05)


def test_a_quantised_input_is_caught():
    result = audited("quantised")
    assert {
        "gradients do not vanish",
        "gradient beats black box",
        "own gradient beats transfer",
        "attack beats noise",
        "unbounded attack reaches chance",
    } <= warnings(result)
    assert line(result, "gradients do not vanish").value == 1.0
    assert result.robust_accuracy > 0.9  # what a naive table would have called robust


def test_an_fa_network_attacked_through_its_feedback_is_caught():
    result = audited("feedback")
    assert {"followed direction is the gradient", "gradient beats black box"} <= warnings(result)
    assert line(result, "followed direction is the gradient").value < 0.7
    assert result.robust_accuracy > audited("fa").robust_accuracy + 0.2
    assert "do not trust this curve" in result.summary
    assert "gradient feedback" in result.summary


def test_a_backward_pass_that_is_no_gradient_is_caught():
    value = line(audited("straight-through"), "followed direction is the gradient")
    assert value.verdict == "warn"
    assert value.value == pytest.approx(0, abs=1e-3)


def test_the_check_of_the_direction_is_exact_on_a_true_gradient():
    assert line(audited("bp"), "followed direction is the gradient").value == pytest.approx(1, abs=1e-6)


def test_what_cannot_be_checked_is_skipped_with_a_reason():
    images, labels = held_out(60)
    two = nn.Sequential(trained(), nn.Linear(10, 2))
    result = audit(two, images, labels % 2, eps=0.5, norm="l2", steps=3)
    skipped = {entry.check: entry.message for entry in result.lines if entry.verdict == "skipped"}
    assert skipped.keys() == {"gradient beats black box", "own gradient beats transfer", "loss does not matter"}
    assert "linf" in skipped["gradient beats black box"]
    assert "surrogate" in skipped["own gradient beats transfer"]
    assert re.search(r"(in|of) 9 checks", result.summary)


def test_a_network_that_is_never_right_has_nothing_to_audit():
    images, _ = held_out(40)
    wrong = (trained()(images).argmax(1) + 1) % 10
    result = audit(trained(), images, wrong, eps=0.1, steps=2, queries=5)
    assert line(result, "gradients do not vanish").verdict == "skipped"
    assert result.accuracy == result.robust_accuracy == 0


def test_frame_has_a_row_a_check():
    frame = audited("bp").frame()
    assert list(frame.columns) == [
        *("gradient", "eps", "check", "verdict", "value", "threshold", "message", "n_samples"),
    ]
    assert len(frame) == len(CHECKS)
    assert frame.check.is_unique


def test_one_attack_beats_another_by_more_than_margin_and_chance():
    images, labels = held_out(200)
    case = Case(
        model=trained(),
        images=images,
        labels=labels,
        eps=EPS,
        attack=None,
        gradient_model=None,
        gradient="true",
        surrogate=None,
        queries=1,
        batch_size=100,
        seed=0,
    )
    none, three, seven = (torch.arange(200) < k for k in (0, 3, 7))
    assert not case.beats(three, none)  # 1.5 points, but three images may be chance (p = 1/8)
    assert case.beats(seven, none)  # p = 1/128 < LEVEL
    assert 1 / 128 < LEVEL < 1 / 8
    assert not case.beats(seven, none, margin=0.05)
    assert case.gain(seven, none) == pytest.approx(0.035)
    many = torch.arange(200) < 101
    assert not case.beats(many, torch.arange(200) >= 100)  # equal shares but for MARGIN
    assert MARGIN > 1 / 200


def test_noise_is_at_the_corners_and_within_the_box():
    images, labels = held_out(50)
    curve = attack_curve(trained(), images, labels, [0.3], NoiseAttack(), keep_examples=True)
    moved = (curve.examples - images).abs()
    fooled = (curve.minimal_eps.isfinite()) & (moved.flatten(1).amax(1) > 0)
    assert fooled.any()
    inside = (images > 0.3) & (images < 0.7)
    torch.testing.assert_close(moved[fooled][inside[fooled]], torch.full_like(moved[fooled][inside[fooled]], 0.3))
    assert curve.gradient == "none"


def test_audit_is_seeded_and_shows_progress():
    images, labels = held_out(60)
    seen = []
    first = audit(trained(), images, labels, eps=EPS, queries=10, progress=lambda *a: seen.append(a))
    again = audit(trained(), images, labels, eps=EPS, queries=10)
    assert first.frame().equals(again.frame())
    assert seen == [(k, len(CHECKS)) for k in range(1, len(CHECKS) + 1)]


@pytest.mark.parametrize(("eps", "message"), [(0.0, "above 0"), (1.5, "outside"), (-1.0, "outside")])
def test_bad_eps_is_named(eps, message):
    images, labels = held_out(5)
    with pytest.raises(InputError, match=message):
        audit(trained(), images, labels, eps=eps)
