"""What an audit holds an attack against: the strongest white-box attack that is at hand.

Nothing else says what that is: a stronger one takes its place here.
"""

from collections.abc import Sequence

from robustness.attacks import Attack
from robustness.auto_pgd import ApgdAttack, apgd, apgd_targeted
from robustness.ensembles import Ensemble
from robustness.fast_boundary import FabAttack

STEPS, RESTARTS = 100, 2
MORE_RESTARTS = 5  # where the audited attack is one of AutoAttack's itself


def yardstick(attacks: Sequence[Attack], *, norm: str, classes: int) -> Ensemble:
    """Return what an audit of ``attacks`` holds them against: APGD-CE and APGD-DLR with restarts, and APGD-T.

    Of AutoAttack it is APGD-T that finds what PGD leaves of a network trained on adversarial images. Attacks that are
    of this kind themselves meet more restarts.

    Args:
        attacks: under audit.
        norm: of the ball.
        classes: outputs of the network; the margin loss needs three.

    Example:
        >>> from robustness import pgd, strong
        >>> from robustness.yardstick import yardstick
        >>> found = [yardstick([attack], norm="linf", classes=10) for attack in (pgd(), strong())]
        >>> [[(one.name, one.steps, one.restarts) for one in each.members] for each in found]
        [[('apgd-ce', 100, 2), ('apgd-dlr', 100, 2), ('apgd-t', 100, 1)],
         [('apgd-ce', 100, 5), ('apgd-dlr', 100, 5), ('apgd-t', 100, 1)]]
    """
    alike = any(_is_alike(attack) for attack in attacks)
    losses = ("ce", "dlr") if classes > 2 else ("ce",)
    restarts = MORE_RESTARTS if alike else RESTARTS
    members: list[Attack] = [apgd(loss=loss, steps=STEPS, restarts=restarts, norm=norm) for loss in losses]
    if classes > 2:
        members.append(apgd_targeted(steps=STEPS, norm=norm))
    return Ensemble(name="the yardstick", members=tuple(members))


def _is_alike(attack: Attack) -> bool:
    return isinstance(attack, (ApgdAttack, FabAttack)) or (
        isinstance(attack, Ensemble) and any(map(_is_alike, attack.members))
    )
