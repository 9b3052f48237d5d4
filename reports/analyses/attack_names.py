"""Attacks by the names that a user gives them: our own, a peer's, those of other packages, and a user's function."""

from collections.abc import Callable
from typing import Any, Protocol

from alignscape import plugins
from alignscape.errors import InputError
from alignscape.imports import import_reference
from robustness.attacks import Attack, bim, fgsm, pgd
from robustness.auto_pgd import apgd, apgd_targeted
from robustness.ensembles import STRONG_STEPS, auto_attack, strong
from robustness.external import TorchattacksAttack
from robustness.fast_boundary import fab
from robustness.functions import FunctionAttack
from robustness.square import SquareAttack


class Parameters(Protocol):
    """What attacks can be told: the settings of :class:`reports.analyses.attack_settings.Attacks`."""

    @property
    def norm(self) -> str: ...
    @property
    def steps(self) -> int | None: ...
    @property
    def step_size(self) -> float | None: ...
    @property
    def restarts(self) -> int: ...
    @property
    def queries(self) -> int | None: ...
    @property
    def loss(self) -> str: ...


def _square(of: Parameters) -> Attack:
    return SquareAttack(queries=of.queries or 1000, restarts=of.restarts, norm=of.norm)


def _iterated(of: Parameters, steps: int = 100) -> dict[str, Any]:
    return {"steps": of.steps or steps, "restarts": of.restarts, "norm": of.norm}


OURS: dict[str, Callable[[Parameters], Attack]] = {
    "fgsm": lambda of: fgsm(loss=of.loss, norm=of.norm),
    "bim": lambda of: bim(steps=of.steps or 10, step_size=of.step_size, loss=of.loss, norm=of.norm),
    "pgd": lambda of: pgd(
        restarts=of.restarts, steps=of.steps or 10, step_size=of.step_size, loss=of.loss, norm=of.norm
    ),
    "apgd-ce": lambda of: apgd(loss="ce", **_iterated(of)),
    "apgd-dlr": lambda of: apgd(loss="dlr", **_iterated(of)),
    "apgd-t": lambda of: apgd_targeted(**_iterated(of)),
    "strong": lambda of: strong(**_iterated(of, STRONG_STEPS)),
    "fab": lambda of: fab(**_iterated(of)),
    "auto": lambda of: auto_attack(**_iterated(of), queries=of.queries or 5000),
    "square": _square,
}


def make_attack(name: str, of: Parameters) -> Attack:
    """Return the attack called ``name`` with the parameters ``of`` that it has: one of ours, ``torchattacks:NAME``,
    ``package.module:function`` (modules in the current folder are found), or one that an installed package adds under
    the entry points ``alignscape.attacks``. A function is called as :class:`robustness.FunctionAttack` says; an object
    that is an attack already is taken as it is.

    Raises:
        InputError: it is unknown, cannot be imported, or cannot have these parameters.
    """
    if name in OURS:
        return OURS[name](of)
    source, _, rest = name.partition(":")
    if source == "torchattacks":
        return TorchattacksAttack(attack=rest, norm=of.norm, iterations=of.steps)
    added = plugins.installed("alignscape.attacks", OURS)
    found = plugins.load(added[name], flag="--attack") if name in added else import_reference(name, flag="--attack")
    if isinstance(found, Attack) and not isinstance(found, type):
        if found.norm != of.norm:
            raise InputError(f"the attack {name} has the norm {found.norm}: give --norm {found.norm}, for all attacks")
        return found
    if hasattr(found, "on") and not isinstance(found, type):
        raise InputError(
            f"the attack {name} has `on`, but not all of robustness.Attack: inherit robustness.SingleAttack"
        )
    return FunctionAttack(function=found, name=name, norm=of.norm, steps=of.steps, loss=of.loss)
