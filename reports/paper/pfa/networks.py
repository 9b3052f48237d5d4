"""Which networks the targets are of, as training configs: targets that show the same networks name the same runs."""

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from reports.paper.pfa.profile import DENSE, PfaProfile
from reports.paper.target import Networks, Trained
from training.config import TrainConfig
from training.store.jobs import TrainJob


def mnist(profile: PfaProfile, root: Path | None) -> list[Trained]:
    """Return the MLP trained by every rule with each seed."""
    return _mlps(profile, root, profile.rules, DENSE)


def paths(profile: PfaProfile, root: Path | None) -> list[Trained]:
    """Return those of :func:`mnist` whose errors go down through other matrices than W."""
    return [one for one in mnist(profile, root) if one.columns["rule"] != "bp"]


def sparse(profile: PfaProfile, root: Path | None) -> list[Trained]:
    """Return the MLP with sparse feedback by each rule at each density with each seed; at density 1 it is that of
    :func:`mnist`."""
    found = []
    for density in profile.densities:
        made = _mlps(profile, root, profile.sparse_rules, density)
        found += [one._replace(columns={**one.columns, "density": density}) for one in made]
    return sorted(found, key=lambda one: one.columns["seed"])  # one seed of everything first


def _mlps(profile: PfaProfile, root: Path | None, rules: Iterable[str], density: float) -> list[Trained]:
    of_all: dict[str, Any] = {"hidden": profile.hidden, "dataset": profile.dataset, "lr_gamma": 0.5}
    # At its default a number must stay there: then dense feedback is the same run as without a density.
    of_all |= {} if density == DENSE else {"feedback_density": density}
    return _trained(profile, root, "", rules, of_all)


def residual(setting: str) -> Networks[PfaProfile]:
    """Return what makes the residual networks of ``setting``, one of ``cifar`` and ``imagenet``."""

    def networks(profile: PfaProfile, root: Path | None) -> list[Trained]:
        of_all = {
            "model": getattr(profile, f"{setting}_network"),
            "dataset": getattr(profile, f"{setting}_dataset"),
            "train_size": getattr(profile, f"{setting}_train_size"),
            "augment": getattr(profile, f"{setting}_augment"),
        }
        return _trained(profile, root, f"{setting}_", getattr(profile, f"{setting}_rules"), of_all)

    return networks


def _trained(
    profile: PfaProfile, root: Path | None, prefix: str, rules: Iterable[str], of_all: dict[str, Any]
) -> list[Trained]:
    """Return the networks of each rule and seed by the recipe whose numbers begin with ``prefix``."""
    recipe: dict[str, Any] = {
        name: getattr(profile, prefix + name) for name in ("batch_size", "lr", "lr_steps", "epochs")
    }
    recipe |= {"first_epoch_weight_decay": getattr(profile, f"{prefix}first_decay")}
    recipe |= {"weight_decay": getattr(profile, f"{prefix}decay"), "optimiser": "sgd"}
    found = []
    for seed, rule in itertools.product(getattr(profile, f"{prefix}seeds"), rules):
        of_rule = {"expansion": profile.expansion} if rule == "pfa" else {}
        config = TrainConfig(rule=rule, seed=seed, **{**recipe, **of_all, **of_rule})
        columns = {"rule": rule, "angle": None, "seed": seed}
        found.append(Trained(TrainJob(config=config, data_root=root), columns))
    return found
