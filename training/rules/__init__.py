"""Learning rules: one short file each behind one interface."""

from training.config import TrainConfig
from training.errors import InputError
from training.rules.base import Rule, Step
from training.rules.dfa import DirectFeedbackAlignment
from training.rules.fa import FeedbackAlignment
from training.rules.ifa import InitialFeedbackAlignment
from training.rules.pfa import ProductFeedbackAlignment

RULES: dict[str, type[Rule]] = {
    rule.name: rule
    for rule in (
        Rule,
        FeedbackAlignment,
        InitialFeedbackAlignment,
        DirectFeedbackAlignment,
        ProductFeedbackAlignment,
    )
}


def make_rule(config: TrainConfig) -> Rule:
    """Return the rule that ``config`` names.

    Raises:
        InputError: the rule is unknown; the message lists the known ones.
    """
    if config.rule not in RULES:
        raise InputError(f"unknown rule {config.rule!r}; known: {', '.join(RULES)}")
    return RULES[config.rule](config)


__all__ = ["RULES", "Rule", "Step", "make_rule"]
