"""Learning rules: one short file each behind one interface."""

import dataclasses

from alignscape.errors import InputError
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
    if config.rule not in RULES:
        raise InputError(f"unknown rule {config.rule!r}; known: {', '.join(RULES)}")
    return RULES[config.rule](config)


def idle_options(config: TrainConfig) -> list[str]:
    """Return the options of other rules that ``config`` sets although its own rule does not read them."""
    read = set(RULES[config.rule].options)
    theirs = {option for rule in RULES.values() for option in rule.options} - read
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    return sorted(option for option in theirs if getattr(config, option) != defaults[option])


__all__ = ["RULES", "Rule", "Step", "idle_options", "make_rule"]
