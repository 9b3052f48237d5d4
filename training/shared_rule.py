"""One rule object for the networks of a stack, and what keeps that from being silently wrong.

The networks of a stack differ in settings such as the seed or the learning rate, and share a pass: ``objective`` and
``gradients`` of the first one's rule, over the modules of the first one's twin, with the tensors of each. So whatever
a network's own settings decide must be in its tensors. Three things see to it:

- A rule's own options keep networks apart (:func:`training.stack_size.stack_key`), but for those it declares as
  ``initial_options``: read only while one network is made or moved.
- The shared rule has a config that gives no setting in which its networks differ. Such a rule trains one by one if
  that shows before the start, and else ends with a line that says so.
- Networks whose rules or layers keep something besides tensors in which they differ do not train together.
"""

import copy
import functools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from alignscape.errors import InputError
from training.config import TrainConfig
from training.rules import Rule

_TENSORS = ("_parameters", "_buffers", "_modules")


class SharedSettingError(InputError):
    """A rule asked for a setting in which the networks that it is to train at once differ."""


class SharedConfig(TrainConfig):
    """A config that several networks have in common, but for some settings, which it does not give."""

    @classmethod
    def of(cls, config: TrainConfig, hidden: Collection[str]) -> "SharedConfig":
        """Return ``config`` without the settings ``hidden``."""
        shared = object.__new__(cls)
        shared.__dict__.update(vars(config), _hidden=frozenset(hidden))
        return shared

    def __getattribute__(self, name: str) -> Any:
        own = object.__getattribute__(self, "__dict__")
        if name in own.get("_hidden", ()):
            raise SharedSettingError(
                f"rule {own['rule']} reads {name} while it trains, and the networks of this stack differ in {name}: "
                "name it in the rule's options, or give --stack 1 (docs/adding-a-rule.md)"
            )
        return object.__getattribute__(self, name)


def differing(configs: Sequence[TrainConfig]) -> set[str]:
    """Return the settings in which ``configs`` differ."""
    first = configs[0].to_dict()
    rest = [config.to_dict() for config in configs[1:]]
    return {name for name, value in first.items() if any(other[name] != value for other in rest)}


def shared_rule(rule: Rule, hidden: Collection[str]) -> Rule:
    """Return ``rule`` for networks that differ in the settings ``hidden``; it can neither read these nor change."""
    shared = copy.copy(rule)
    shared.config = SharedConfig.of(rule.config, hidden)
    return shared


def alike(networks: Sequence[Any]) -> Iterator[list[Any]]:
    """Yield the networks in groups whose rules and twins are equal in all but tensors; in order of their first."""
    groups: list[list[Any]] = []
    for network in networks:
        for group in groups:
            if unlike(group[0], network) is None:
                group.append(network)
                break
        else:
            groups.append([network])
    yield from groups


def unlike(one: Any, other: Any) -> str | None:
    """Return what the rules, or the modules that they put into the twins, of two networks differ in besides tensors
    that train or move; None if nothing."""
    mine, theirs = ({k: v for k, v in vars(n.rule).items() if k != "config"} for n in (one, other))
    if name := _difference(mine, theirs):
        return f"{name} of the rule"
    left, right = (dict(network.twin.named_modules()) for network in (one, other))
    if left.keys() != right.keys():
        return "the modules of the twin"
    plain = dict(one.model.named_modules())
    for name, module in left.items():
        if type(module) is not type(right[name]):
            return f"the class of module {name}"
        if type(plain.get(name)) is type(module):
            continue  # the network's own: what builds networks does not read what they differ in
        states = ({k: v for k, v in vars(m).items() if k not in _TENSORS} for m in (module, right[name]))
        if attribute := _difference(*states):
            return f"{attribute} of module {name or '(root)'}"
    return None


def _difference(mine: Mapping[Any, Any], theirs: Mapping[Any, Any]) -> str | None:
    if mine.keys() != theirs.keys():
        return str(next(iter(mine.keys() ^ theirs.keys())))
    return next((str(name) for name in mine if not _equal(mine[name], theirs[name])), None)


def _equal(a: Any, b: Any) -> bool:
    """Whether two values are certainly the same; what cannot be compared is not."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, Mapping):
        return _difference(a, b) is None
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, functools.partial):
        return _equal((a.func, a.args, a.keywords), (b.func, b.args, b.keywords))
    if isinstance(a, nn.Module):
        return False
    try:
        return bool(a == b)
    except Exception:  # of somebody else's __eq__, or an array that has no truth
        return False
