"""Learning rules: one short file each behind one interface."""

from collections.abc import Collection

from alignscape.errors import InputError
from alignscape.settings import changed_settings
from training.config import TrainConfig
from training.rules.base import Rule, Step
from training.rules.brsf import BatchRandomSignFeedback
from training.rules.dfa import DirectFeedbackAlignment
from training.rules.fa import FeedbackAlignment
from training.rules.frsf import FixedRandomSignFeedback
from training.rules.ifa import InitialFeedbackAlignment
from training.rules.kp import KolenPollack
from training.rules.pfa import ProductFeedbackAlignment
from training.rules.pfa_o import OrthogonalProductFeedbackAlignment
from training.rules.usf import UniformSignFeedback
from training.rules.wm import WeightMirror

RULES: dict[str, type[Rule]] = {
    rule.name: rule
    for rule in (
        Rule,
        FeedbackAlignment,
        InitialFeedbackAlignment,
        DirectFeedbackAlignment,
        ProductFeedbackAlignment,
        OrthogonalProductFeedbackAlignment,
        UniformSignFeedback,
        FixedRandomSignFeedback,
        BatchRandomSignFeedback,
        KolenPollack,
        WeightMirror,
    )
}


def find_rule(name: str) -> type[Rule]:
    """Return the rule called ``name``.

    Raises:
        InputError: the rule is unknown; the message lists the known ones.
    """
    if name not in RULES:
        raise InputError(f"unknown rule {name!r}; known: {', '.join(RULES)}")
    return RULES[name]


def make_rule(config: TrainConfig) -> Rule:
    """Return the rule that ``config`` names.

    Raises:
        InputError: the rule is unknown; the message lists the known ones.

    Example:
        >>> from training import TrainConfig, make_rule
        >>> rule = make_rule(TrainConfig(rule="fa"))
        >>> rule.name, type(rule).__name__
        ('fa', 'FeedbackAlignment')
    """
    return find_rule(config.rule)(config)


def idle_options(config: TrainConfig, given: Collection[str] | None = None) -> list[str]:
    """Return those of the settings ``given`` (None: all that are not at their default) that are options of rules, but
    not of the one that ``config`` names: it does not read them.

    Raises:
        InputError: the rule is unknown.
    """
    given = changed_settings(config) if given is None else given
    read = find_rule(config.rule).options
    return sorted(option for option in set(given) - set(read) if option_owners(option))


def option_owners(option: str) -> list[str]:
    """Return the names of the rules that read a setting; none if it is no option of rules."""
    return [name for name, rule in RULES.items() if option in rule.options]


__all__ = ["RULES", "Rule", "Step", "find_rule", "idle_options", "make_rule", "option_owners"]
