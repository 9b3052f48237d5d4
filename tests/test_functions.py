"""Functions of users as attacks: what they are given, what the tables say of them, and what is refused."""

import pytest
import torch

from alignscape.errors import InputError
from robustness import FunctionAttack, attack_curve

MODEL = torch.nn.Flatten()  # two pixels; the brighter is the class
IMAGES, LABELS = torch.tensor([[0.6, 0.4], [0.2, 0.8]]).reshape(2, 1, 1, 2), torch.tensor([0, 1])


def grey(model, images, labels, eps):
    return images + (0.5 - images).clamp(-eps, eps)


def counted(model, images, labels, eps, steps=7, loss="margin"):
    return images


class Grey:
    def __call__(self, model, images, labels, eps):
        return grey(model, images, labels, eps)


def test_the_table_says_what_the_function_was_given():
    given = {"name": "mine", "steps": 3, "loss": "dlr"}
    for attack, expected in (
        (FunctionAttack(function=counted, **given), (3, "dlr")),
        (FunctionAttack(function=counted, name="mine", loss="ce"), (7, "ce")),
        (FunctionAttack(function=grey, **given), (1, "its own")),
        (FunctionAttack(function=Grey(), **given), (1, "its own")),
    ):
        frame = attack_curve(MODEL, IMAGES, LABELS, [0, 0.2], attack).frame()
        assert set(zip(frame["steps"], frame["loss"], strict=True)) == {expected}


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (7, "the attack mine is no function, but int"),
        (Grey, "the attack mine is no function, but a class"),
        (lambda model, images, labels: images, r"must take \(model, images, labels, eps\)"),
    ],
)
def test_what_is_no_attack_is_named(function, message):
    with pytest.raises(InputError, match=message):
        FunctionAttack(function=function, name="mine")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda model, images, labels, eps: None, r"mine must return images of shape \(2, 1, 1, 2\)"),
        (lambda model, images, labels, eps: images[:1], "mine must return images"),
        (lambda model, images, labels, eps: 1 / 0, "the attack mine: ZeroDivisionError: division by zero"),
    ],
)
def test_what_fails_is_named(function, message):
    with pytest.raises(InputError, match=message):
        attack_curve(MODEL, IMAGES, LABELS, [0, 0.2], FunctionAttack(function=function, name="mine"))


@pytest.mark.parametrize("move", [1.0, float("nan")])
def test_what_leaves_the_ball_fools_nobody(move):
    def far(model, images, labels, eps):
        return 1 - images + move

    curve = attack_curve(MODEL, IMAGES, LABELS, [0, 0.1], FunctionAttack(function=far, name="far"))
    assert curve.accuracy.tolist() == [1, 1]
    assert curve.rejected > 0
