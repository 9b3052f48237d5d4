"""Which attacks are made, at which eps, with which parameters: settings that ``attack`` and ``compare`` share."""

import argparse
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from alignscape import plugins
from alignscape.errors import InputError
from alignscape.settings import Only, at_least, setting

if TYPE_CHECKING:
    from robustness.attacks import Attack as AnyAttack

PAPER_EPS = tuple(round(0.005 * k, 3) for k in range(11))
OF_AUTOATTACK = ("apgd-ce", "apgd-dlr", "apgd-t", "fab", "strong", "auto")
OURS = ("fgsm", "bim", "pgd", *OF_AUTOATTACK, "square")
ITERATED = ("bim", "pgd")


def pixels(text: str) -> float:
    """Parse a number of pixel units, or a fraction such as ``8/255``.

    Raises:
        ValueError: it is neither.
    """
    top, slash, bottom = text.partition("/")
    value = float(top) / (float(bottom) or math.nan) if slash else float(top)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number")
    return value


def _when(words: str, *names: str) -> Only:
    """Return the condition that one of the attacks ``names`` is made."""
    return Only(words, lambda one: any(name in names or name.partition(":")[0] in names for name in one.attacks))


def steps_setting(otherwise: str = "") -> Any:
    """Return the setting ``steps``; ``otherwise`` says when else it has an effect."""
    return setting(
        None,
        "steps an image",
        metavar="N",
        check=at_least(1),
        default_text="10; 20 of strong; 100 of apgd-..., fab and auto; torchattacks: its own",
        only=Only(
            f"--attack bim, pgd, apgd-..., fab, strong, auto, torchattacks:NAME or one of your own{otherwise}",
            lambda one: _uses_steps(one),
        ),
        group="attack",
    )


def loss_setting(otherwise: str = "") -> Any:
    """Return the setting ``loss``; ``otherwise`` says when else it has an effect."""
    return setting(
        "ce",
        "what is climbed: ce, the cross-entropy as log-odds, which do not saturate; dlr, the scale-free "
        "margin of AutoAttack; ce-saturating, the cross-entropy as other tools compute it",
        only=Only(f"--attack fgsm, bim, pgd or one of your own{otherwise}", lambda one: _uses_loss(one)),
        group="attack",
    )


@dataclass(frozen=True, kw_only=True)
class Attacks:
    """Which attacks are made at which eps, with their parameters; ``Attack`` and ``compare`` have these settings."""

    attacks: tuple[str, ...] = setting(
        ("fgsm", "pgd"),
        "fgsm, bim, pgd; apgd-ce, apgd-dlr, apgd-t (targeted), which choose their step size; fab, which seeks the "
        "nearest image that fools; strong, apgd-ce and then apgd-dlr, the one to report; auto, AutoAttack's standard "
        "ensemble (apgd-ce, apgd-t, fab and square, each on what is left); square (gradient-free); torchattacks:NAME "
        "for any attack of that package; or package.module:function of your own",
        metavar="NAME",
        flags=("--attack",),
        group="attack",
    )
    eps: tuple[float, ...] = setting(
        PAPER_EPS,
        "radii in pixel units of [0, 1] images; fractions such as 8/255 are read",
        metavar="E",
        parse=pixels,
        default_text="0 .005 ... .05",
        group="attack",
    )
    norm: Literal["linf", "l2"] = setting("linf", "norm of the ball", group="attack")
    steps: int | None = steps_setting()
    step_size: float | None = setting(
        None,
        "step in pixel units at every eps",
        metavar="A",
        parse=pixels,
        default_text="eps / steps for bim, 2.5 eps / steps for pgd",
        only=_when("--attack bim or pgd", *ITERATED),
        group="attack",
    )
    restarts: int = setting(
        1,
        "random starts of all but fgsm and bim, which start at the image",
        metavar="N",
        check=at_least(1),
        only=_when("--attack pgd, apgd-..., fab, strong, auto or square", "pgd", *OF_AUTOATTACK, "square"),
        group="attack",
    )
    queries: int | None = setting(
        None,
        "forward passes an image",
        metavar="N",
        check=at_least(1),
        default_text="1000; 5000 of auto",
        only=_when("--attack square or auto", "square", "auto"),
        group="attack",
    )
    loss: Literal["ce", "dlr", "ce-saturating"] = loss_setting()

    @classmethod
    def details(cls) -> Mapping[str, str]:
        """Return the attacks that installed packages add, and which those are."""
        added = plugins.installed("alignscape.attacks", OURS)
        texts = [f"{name}: from {plugins.source(entry)}" for name, entry in added.items()]
        return {"attacks": "Installed: " + "; ".join(texts)} if texts else {}

    def check_attacks(self) -> None:
        """Sort ``eps`` and check it, and check the names of the attacks.

        Raises:
            InputError: an eps outside [0, 1], or an unknown attack.
        """
        if self.norm == "linf":
            check_epsilons(self.eps)
        object.__setattr__(self, "eps", tuple(sorted(set(self.eps))))
        object.__setattr__(self, "attacks", tuple(dict.fromkeys(self.attacks)))
        known = (*OURS, *plugins.installed("alignscape.attacks", OURS))
        if unknown := [name for name in self.attacks if ":" not in name and name not in known]:
            forms = ", ".join((*known, "torchattacks:NAME", "package.module:function"))
            raise InputError(f"unknown attack {unknown[0]!r}; known: {forms}")

    def made(self) -> "list[AnyAttack]":
        """Return the attacks.

        Raises:
            InputError: an unknown attack, parameters that it cannot have, or two attacks of one name.
        """
        from reports.analyses.attack_names import make_attack

        made = [make_attack(name, self) for name in self.attacks]
        names = [attack.name for attack in made]
        if twice := [name for name in names if names.count(name) > 1]:
            raise InputError(f"two attacks are called {twice[0]}, and a table could not tell them apart")
        return made


def _uses_steps(one: Any) -> bool:
    return any(name not in ("fgsm", "square") for name in one.attacks) or getattr(one, "audit", False)


def _uses_loss(one: Any) -> bool:
    climbing = (
        name for name in one.attacks if name not in (*OF_AUTOATTACK, "square") and not name.startswith("torchattacks:")
    )
    return any(climbing) or getattr(one, "audit", False)


def check_epsilons(values: tuple[float, ...]) -> None:
    """Check radii of linf balls.

    Raises:
        InputError: one lies outside [0, 1].
    """
    for value in values:
        if not 0 <= value <= 1:
            raise InputError(f"eps {value:g} is outside [0, 1]: it is in units of pixels in [0, 1] (8/255 = 0.0314)")
