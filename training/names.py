"""Names of runs that a person can read: what differs among the runs at hand names them.

``cifar10-ifa30-bs64-seed0`` says the data set, the rule (and the network, unless it is the MLP), what else differs from
the others, and the seed. Nothing heavy is imported here.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from alignscape.settings import Setting, idle_settings, settings_of
from training.config import TrainConfig
from training.data_names import is_own, short_name

ALWAYS = ("dataset", "model", "rule", "rule_source", "seed")  # what each name says, or what its rule stands for
LONGEST = 150  # characters: a folder's name has 255 bytes at most
TIE = 6  # digits of a key that tell apart what a name does not


def run_names(configs: Sequence[TrainConfig], keys: Sequence[str] | None = None) -> list[str]:
    """Return a name for each config: no two that are different have the same.

    Args:
        configs: the runs at hand.
        keys: of the runs, from which a name takes some digits where it would not be the only one of its kind; of the
            configs themselves if None, so that equal ones have one name.

    Example:
        >>> from training import TrainConfig
        >>> from training.names import run_names
        >>> run_names([TrainConfig(rule="ifa", angle=30, batch_size=size) for size in (32, 64)])
        ['digits-ifa30-bs32-seed0', 'digits-ifa30-bs64-seed0']
        >>> run_names([TrainConfig(rule="fa"), TrainConfig(rule="bp", seed=3)])
        ['digits-fa-seed0', 'digits-bp-seed3']
    """
    described = {name: one for name, one in settings_of(TrainConfig).items() if name not in ALWAYS}
    varied = {name: one for name, one in described.items() if len({getattr(config, name) for config in configs}) > 1}
    texts = {name: _texts(one, {getattr(config, name) for config in configs}) for name, one in varied.items()}
    of_rule: dict[str, list[TrainConfig]] = defaultdict(list)
    for config in configs:
        of_rule[config.rule].append(config)
    names = []
    told = {rule: _told(varied, own) for rule, own in of_rule.items()}
    for config in configs:
        idle = {one.name for one, _ in idle_settings(config, told[config.rule])}
        names.append(run_name(config, [name for name in told[config.rule] if name not in idle], texts))
    if keys is None:
        unclear = len(set(names)) < len(names) or _long(names)
        keys = [config.key(_place(config)) for config in configs] if unclear else names
    return _told_apart(names, keys)


def _place(config: TrainConfig) -> str:
    """Return what stands for the bytes of a config's data, not known here: of two files of one name where they lie."""
    return f"{config.dataset} {config.image_size}" if is_own(config.dataset) else ""


def _told(varied: Mapping[str, Setting], own: Sequence[TrainConfig]) -> list[str]:
    """Return the settings that names of the runs ``own`` of one rule tell: of the rule's options those that differ
    among them, as other rules do not have them."""
    return [
        name
        for name, one in varied.items()
        if one.group != "rule" or len({getattr(config, name) for config in own}) > 1
    ]


def run_name(
    config: TrainConfig, varied: Collection[str] = (), texts: Mapping[str, Mapping[Any, str]] | None = None
) -> str:
    """Return e.g. ``cifar10-ifa45-seed0``, ``cifar10-lenet-ifa45-seed0`` for another network than the MLP, or
    ``cifar10-ifa45-lr0.001-seed0`` if ``lr`` is ``varied``; ``texts`` are what stands for values of settings."""
    network = "" if config.model == "mlp" else f"-{_plain(config.model)}"
    angle = f"{config.angle:g}" if config.rule == "ifa" else ""
    parts = []
    for name, one in settings_of(TrainConfig).items():
        if name in varied and not (name == "angle" and angle):
            value = getattr(config, name)
            parts.append((texts or {}).get(name, _texts(one, {value}))[value])
    middle = "".join(f"-{part}" for part in parts)
    return f"{_plain(short_name(config.dataset))}{network}-{_plain(config.rule)}{angle}{middle}-seed{config.seed}"


def _plain(text: str) -> str:
    return re.sub(r"[^\w.]+", "-", text)  # package.module:Class


def _texts(one: Setting, values: Collection[Any]) -> dict[Any, str]:
    """Return what stands for each of the values of a setting in a name: ``lr0.01``, ``hidden64x32``, ``sgd``."""
    short = {value: _text(one, value, exact=False) for value in values}
    count = Counter(short.values())
    return {value: text if count[text] == 1 else _text(one, value, exact=True) for value, text in short.items()}


def _text(one: Setting, value: Any, *, exact: bool) -> str:
    if value is None or value == ():
        return f"{one.short}-none"
    if isinstance(value, bool):
        return one.short if value else f"no-{one.short}"
    if isinstance(value, tuple):
        return f"{one.short}{'-' if one.kind is str else ''}{'x'.join(_word(part, exact) for part in value)}"
    if isinstance(value, str):  # a choice speaks for itself, unless another setting has the same
        return _plain(value) if one.choices and value in _own_choices() else f"{one.short}-{_plain(value)}"
    return f"{one.short}{_word(value, exact)}"


def _word(value: Any, exact: bool) -> str:
    if isinstance(value, float):
        return repr(value) if exact else f"{value:g}"
    return _plain(str(value))


def _own_choices() -> set[str]:
    """Return the choices that one setting alone has."""
    count = Counter(choice for one in settings_of(TrainConfig).values() for choice in map(str, one.choices))
    return {choice for choice, times in count.items() if times == 1}


def _long(names: Sequence[str]) -> bool:
    return max(map(len, names), default=0) > LONGEST


def _told_apart(names: Sequence[str], keys: Sequence[str]) -> list[str]:
    """Return the names, those of several keys or too long ones with the first digits of the key."""
    owners: dict[str, set[str]] = defaultdict(set)
    for name, key in zip(names, keys, strict=True):
        owners[name].add(key)
    return [
        name if len(owners[name]) == 1 and len(name) <= LONGEST else f"{name[:LONGEST]}-{key[:TIE]}"
        for name, key in zip(names, keys, strict=True)
    ]


def without_seed(config: TrainConfig, name: str) -> str:
    """Return the name of a run without its seed: what all seeds of it are called together."""
    return name.replace(f"-seed{config.seed}", "", 1) if name.count(f"-seed{config.seed}") == 1 else name
