"""Attacks by the names that a user gives them: our own, a peer's, those of other packages, and a user's function."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from alignscape.errors import InputError
from robustness.attacks import Attack, bim, fgsm, pgd
from robustness.external import TorchattacksAttack
from robustness.square import SquareAttack

if TYPE_CHECKING:
    from reports.analyses.attack import Attacks


def _square(of: "Attacks") -> Attack:
    if of.norm != "linf":
        raise InputError("square searches the linf ball only; leave it out or use --norm linf")
    return SquareAttack(queries=of.queries, restarts=of.restarts)


OURS: dict[str, Callable[["Attacks"], Attack]] = {
    "fgsm": lambda of: fgsm(loss=of.loss, norm=of.norm),
    "bim": lambda of: bim(steps=of.steps or 10, step_size=of.step_size, loss=of.loss, norm=of.norm),
    "pgd": lambda of: pgd(
        restarts=of.restarts, steps=of.steps or 10, step_size=of.step_size, loss=of.loss, norm=of.norm
    ),
    "square": _square,
}


def make_attack(name: str, of: "Attacks") -> Attack:
    """Return the attack called ``name`` with the parameters ``of`` that it has.

    Raises:
        InputError: it is unknown, cannot be imported, or cannot have these parameters.
    """
    if name in OURS:
        return OURS[name](of)
    source, _, rest = name.partition(":")
    if source == "torchattacks":
        return TorchattacksAttack(attack=rest, norm=of.norm, iterations=of.steps)
    raise InputError(f"unknown attack {name!r}; known: {', '.join(OURS)}, torchattacks:NAME")
