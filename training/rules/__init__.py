"""Learning rules: one short file each behind one interface. Those of others need no place here: see ``others``."""

import dataclasses

from alignscape.errors import InputError
from alignscape.imports import reason
from training.config import TrainConfig
from training.rules import others
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
    """Return the rule that ``config`` names; warn if the source of a rule of somebody else is not that of the run's.

    Raises:
        InputError: as :func:`find_rule`; the rule refuses the config.
    """
    rule = find_rule(config.rule)
    others.warn_of_change(config, rule)
    try:
        return rule(config)
    except Exception as error:
        if isinstance(error, InputError) or others.is_ours(rule):
            raise
        raise InputError(f"--rule {config.rule} cannot be made: {reason(error)}") from error


def find_rule(name: str) -> type[Rule]:
    """Return the rule called ``name``: one of ours, ``package.module:Class`` (modules in the current folder are found),
    or one that an installed package adds under the entry points ``alignscape.rules``.

    Raises:
        InputError: there is none (the message lists those there are), or what there is is no rule.
    """
    return others.find(name, RULES)


def pinned(config: TrainConfig) -> TrainConfig:
    """Return ``config`` with the digest of its rule's source, which is part of the run's key, if the rule is not ours.

    Raises:
        InputError: as :func:`find_rule`; the config was pinned, and the source is another one now.
    """
    return config if config.rule in RULES else others.pinned(config, find_rule(config.rule))


def idle_options(config: TrainConfig) -> list[str]:
    """Return the options of other rules that ``config`` sets although its own rule does not read them."""
    read = set(find_rule(config.rule).options)
    theirs = {option for rule in RULES.values() for option in rule.options} - read
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    return sorted(option for option in theirs if getattr(config, option) != defaults[option])


__all__ = ["RULES", "Rule", "Step", "find_rule", "idle_options", "make_rule", "pinned"]
