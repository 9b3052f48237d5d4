"""The audit catches what masks a gradient, names the right symptom, and lets a plain network pass."""

import copy
import re
from functools import cache

import pytest
import torch
from robust_nets import Quantised, Scaled, feedback_aligned, held_out, trained
from torch import nn

from alignscape.errors import InputError
from robustness.approximations import Approximated
from robustness.attacks import pgd
from robustness.case import LEVEL, MARGIN, Case, NoiseAttack
from robustness.curves import attack_curve
from robustness.ensembles import strong
from robustness.masking import Audit, audit
from robustness.square import SquareAttack
from robustness.symptoms import CHECKS, direction

EPS = 0.1
N = 400


@cache
def audited(name: str) -> Audit:
    """Return the audit of one of the cases; they are slow enough to share."""
    images, labels = held_out(N)
    plain, feedback = feedback_aligned("fa")
    quantised, noisy = Quantised(trained()), Noisy(trained())
    cases = {
        "bp": (trained(), {}),
        "fa": (plain, {}),
        "scaled": (Scaled(trained(), 1000.0), {}),
        "saturating": (Scaled(trained(), 1000.0), {"attacks": [pgd(loss="ce-saturating")]}),
        "halved": (HalvedGradient(), {}),
        "bpda": (quantised, {"gradient_model": Approximated(quantised, bpda=True)}),
        "noisy": (Noisy(trained()), {}),
        "averaged": (noisy, {"gradient_model": Approximated(noisy, eot=3)}),
        "quantised": (quantised, {}),
        "feedback": (plain, {"gradient_model": feedback, "gradient": "feedback"}),
        "straight-through": (StraightThrough(), {}),
    }
    model, options = cases[name]
    if name in ("noisy", "averaged", "halved", "saturating"):
        images, labels = images[:150], labels[:150]
    return audit(model, images, labels, eps=EPS, surrogate=trained(1), **options)


class StraightThrough(nn.Module):
    """Quantised forward, but a backward pass that pretends otherwise: not the gradient of what is computed."""

    def __init__(self):
        super().__init__()
        self.inner = copy.deepcopy(trained())

    def forward(self, x):
        return self.inner(x + (rounded(x) - x).detach())


def rounded(x):
    return (x * 3 + 0.1).round() / 3  # shifted, so that no digit's grey level lies on a jump


class Misled(nn.Module):
    """A function before the network, and a backward pass that gives each pixel another one's gradient."""

    def __init__(self, before):
        super().__init__()
        self.inner, self.before = copy.deepcopy(trained()), before

    def forward(self, x):
        elsewhere = x.roll(3, dims=-1)
        return self.inner(elsewhere + (self.before(x) - elsewhere).detach())


class HalvedGradient(nn.Module):
    """A backward pass that gives half of the gradient, which no attack by its direction minds."""

    def forward(self, x):
        return trained()((x + x.detach()) / 2)


class Noisy(nn.Module):
    """Adds noise to its input, in evaluation too."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x + 0.1 * torch.randn_like(x))


class Around(nn.Module):
    """A network with something before it and something behind it."""

    def __init__(self, before=lambda x: x, behind=lambda z: z):
        super().__init__()
        self.inner, self.before, self.behind = trained(), before, behind

    def forward(self, x):
        return self.behind(self.inner(self.before(x)))


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
    assert re.fullmatch(
        r"no sign of a masked gradient in 13 checks \(gradient true, .*\); a stronger attack takes .* points more .*",
        result.summary,
    )
    assert result.robust_accuracy < result.accuracy - 0.2


def test_logits_times_1000_are_caught_where_they_mislead():
    result = audited("saturating")
    assert {"gradients do not vanish", "logits do not saturate"} <= warnings(result)
    assert line(result, "gradients do not vanish").value > 0.9
    assert line(result, "logits do not saturate").value > 0.3
    # Our own attack climbs log-odds and is not deceived; what others climb is spoken of.
    ours = audited("scaled")
    assert warnings(ours) <= {"attack has converged"}  # PGD-10 is some 3 points short of APGD-T, with no mask at work
    assert line(ours, "attack has converged").value < 0.05
    assert ours.robust_accuracy == pytest.approx(audited("bp").robust_accuracy, abs=0.05)
    assert (
        "of those of the usual cross-entropy, by which other tools are deceived here"
        in line(ours, "gradients do not vanish").message
    )


@pytest.mark.parametrize(
    "network",
    [
        Around(behind=lambda logits: torch.sigmoid(logits)),
        Around(before=lambda x: x + 0.02 * torch.sin(60 * x)),  # Athalye et al.: shattered gradients
    ],
    ids=["sigmoid head", "shattered"],
)
def test_masks_that_pgd_does_not_see_through_are_caught(network):
    images, labels = held_out(200)
    result = audit(network, images, labels, eps=0.07, surrogate=trained(1), queries=300)
    assert result.robust_accuracy > audit_free_accuracy(images, labels, 0.07) + 0.05
    assert not result.passed


def audit_free_accuracy(images, labels, eps):
    """Return what PGD leaves of the network behind the masks."""
    return attack_curve(trained(), images, labels, [eps], pgd()).accuracy[0].item()


def test_a_strong_attack_is_held_against_a_stronger_one():
    images, labels = held_out(100)
    result = audit(trained(), images, labels, eps=EPS, attacks=[strong()], surrogate=trained(1), queries=50)
    for found, starts in ((result, 5), (audited("bp"), 2)):
        message = line(found, "attack has converged").message
        assert f"apgd-dlr (100 steps, starts: {starts}) and apgd-t (100 steps, starts: 1)" in message
    assert line(result, "attack has converged").value < 0.03
    assert result.passed


def test_a_gradient_that_is_only_shorter_is_one():
    result = audited("halved")
    assert line(result, "followed direction is the gradient").value == pytest.approx(1, abs=1e-6)
    assert result.robust_accuracy == pytest.approx(audited("bp").robust_accuracy, abs=0.1)


def test_a_way_through_rounding_unmasks_it():
    result = audited("bpda")
    assert line(result, "gradients do not vanish").value == 0
    assert result.robust_accuracy < 0.65
    assert audited("quantised").robust_accuracy > 0.9
    assert line(result, "followed direction is the gradient").verdict == "skipped"


def test_a_network_that_draws_at_random_is_not_believed_without_eot():
    alone, averaged = audited("noisy"), audited("averaged")
    assert line(alone, "answers do not change").verdict == "warn"
    assert "without --eot the curve is not to be believed" in line(alone, "answers do not change").means
    assert line(averaged, "answers do not change").verdict == "pass"
    assert "averages over passes" in line(averaged, "answers do not change").message
    assert averaged.robust_accuracy <= alone.robust_accuracy
    assert line(audited("bp"), "answers do not change").value == 0


def test_a_network_that_draws_at_random_draws_by_the_seed():
    images, labels = held_out(100)
    noisy, state = Noisy(trained()), torch.get_rng_state()
    first, again, other = (attack_curve(noisy, images, labels, [0.1], pgd(), seed=s).fooled for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_eps_too_small_to_tell_is_inconclusive():
    images, labels = held_out(200)
    result = audit(trained(), images, labels, eps=0.002, surrogate=trained(1), queries=50)
    assert line(result, "attack beats noise").verdict == "inconclusive"
    assert result.passed
    assert "; 1 inconclusive; " in result.summary


def test_the_audited_attack_is_that_of_the_table():
    images, labels = held_out(N)
    attacks, radii = [pgd(step_size=1e-4), SquareAttack(queries=200)], [0.05, EPS]
    result = audit(trained(), images, labels, eps=EPS, attacks=attacks, radii=radii, surrogate=trained(1))
    weak, square = (attack_curve(trained(), images, labels, radii, attack) for attack in attacks)
    assert result.robust_accuracy == weak.accuracy[-1]
    found = line(result, "gradient beats black box")
    assert found.verdict == "warn"
    assert found.message.startswith(f"square leaves accuracy {square.accuracy[-1]:.3f}, the audited attack ")
    assert found.value == pytest.approx((weak.accuracy - square.accuracy)[-1].item())
    assert found.ci_low < found.value < found.ci_high
    gap = line(result, "attack has converged")
    assert gap.verdict == "warn"
    assert gap.ci_low > 0.2
    assert line(audited("bp"), "attack has converged").value < 0.03


def test_a_substitute_stands_in_for_a_surrogate():
    images, labels = held_out(N)
    found = line(audit(Quantised(trained()), images, labels, eps=EPS, queries=50), "own gradient beats transfer")
    assert found.verdict == "warn"
    assert "a substitute trained on the network's answers (it agrees on 9" in found.message


def test_every_check_says_what_a_failure_would_mean():
    assert all(entry.means for entry in audited("bp").lines)
    assert len(CHECKS) == len(audited("bp").lines) == 13


def test_batch_statistics_at_test_time_are_refused_in_one_line():
    images, labels = held_out(20)
    model = nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), trained())
    with pytest.raises(InputError, match="module 0 normalises by the batch at test time too"):
        audit(model, images, labels, eps=0.1)
    with pytest.raises(InputError, match="module 0 normalises by the batch at test time too"):
        attack_curve(model, images, labels, [0.1], pgd())


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


@pytest.mark.parametrize(("own", "verdict"), [(False, "warn"), (True, "pass")])
def test_the_direction_of_another_backward_pass_is_held_against_the_same_one_of_the_network(own, verdict):
    images, labels = held_out(50)
    plain, feedback = feedback_aligned("fa")
    followed = Approximated(Quantised(plain if own else feedback), eot=2, bpda=True)
    case = Case(
        model=Quantised(plain), images=images, labels=labels, eps=EPS, attacks=(pgd(),), radii=(), raw=False,
        gradient_model=followed, gradient="feedback",
        surrogate=None, surrogate_name="", queries=5, batch_size=50, seed=0,
    )  # fmt: skip
    found = direction(case)
    assert found.verdict == verdict
    assert own == (found.value == pytest.approx(1, abs=1e-5))


def test_a_backward_pass_that_is_no_gradient_is_caught():
    images, labels = held_out(100)
    result = audit(Misled(lambda x: x), images, labels, eps=EPS, surrogate=trained(1), queries=300)
    value = line(result, "followed direction is the gradient")
    assert value.verdict == "warn"
    assert value.value < 0.5


def test_of_a_flat_network_the_direction_tells_nothing_and_the_other_checks_decide():
    """Rounding has no slope that a gradient could be: a substitute for one may serve (straight through) or mislead."""
    check = "followed direction is the gradient"
    assert line(audited("straight-through"), check).verdict == "inconclusive"
    images, labels = held_out(100)
    result = audit(Misled(rounded), images, labels, eps=EPS, surrogate=trained(1), queries=300)
    assert line(result, check).verdict == "inconclusive"
    assert line(result, "gradient beats black box").verdict == "warn"
    assert line(result, "own gradient beats transfer").verdict == "warn"


def test_the_check_of_the_direction_is_exact_on_a_true_gradient():
    assert line(audited("bp"), "followed direction is the gradient").value == pytest.approx(1, abs=1e-6)


def test_what_cannot_be_checked_is_skipped_with_a_reason():
    images, labels = held_out(60)
    two = nn.Sequential(trained(), nn.Linear(10, 2))
    result = audit(two, images.flatten(1), labels % 2, eps=0.5, attacks=[pgd(norm="l2", steps=3)])
    skipped = {entry.check: entry.message for entry in result.lines if entry.verdict == "skipped"}
    assert skipped.keys() == {"gradient beats black box", "loss does not matter"}
    assert "(N, C, H, W)" in skipped["gradient beats black box"]
    assert re.search(r"(in|of) 11 checks", result.summary)
    in_l2 = audit(two, images, labels % 2, eps=0.5, attacks=[pgd(norm="l2", steps=3)], queries=50)
    assert [entry.check for entry in in_l2.lines if entry.verdict == "skipped"] == ["loss does not matter"]


def test_a_network_that_is_never_right_has_nothing_to_audit():
    images, _ = held_out(40)
    wrong = (trained()(images).argmax(1) + 1) % 10
    result = audit(trained(), images, wrong, eps=0.1, attacks=[pgd(steps=2)], queries=5)
    assert line(result, "gradients do not vanish").verdict == "skipped"
    assert result.accuracy == result.robust_accuracy == 0


def test_frame_has_a_row_a_check():
    frame = audited("bp").frame()
    assert list(frame.columns) == [
        *("gradient", "eps", "check", "verdict", "value", "ci_low", "ci_high", "threshold", "message", "means"),
        "n_samples",
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
        attacks=(),
        radii=(),
        raw=False,
        gradient_model=None,
        gradient="true",
        surrogate=None,
        surrogate_name="",
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
    again = audit(trained(), images, labels, eps=EPS, queries=10)  # the substitute too is trained by the seed
    assert first.frame().equals(again.frame())
    assert seen == [(k, len(CHECKS)) for k in range(1, len(CHECKS) + 1)]


@pytest.mark.parametrize(("eps", "message"), [(0.0, "above 0"), (1.5, "outside"), (-1.0, "outside")])
def test_bad_eps_is_named(eps, message):
    images, labels = held_out(5)
    with pytest.raises(InputError, match=message):
        audit(trained(), images, labels, eps=eps)
