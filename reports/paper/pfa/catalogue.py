"""Every figure and table of the second paper: which networks and analyses it needs, and what draws it."""

from pathlib import Path
from typing import Any

from alignscape.settings import as_json
from reports.paper.pfa import networks as runs
from reports.paper.pfa.profile import PfaProfile, departures
from reports.paper.pfa.published import FINAL, PATHS
from reports.paper.target import Declare, Options, Source, Sources, Target, metrics_of
from training.store.jobs import AnalysisJob

DRAWINGS = "reports.paper.pfa.figures"
_MLP = ("dataset", "hidden", "batch_size", "lr", "lr_steps", "epochs", "first_decay", "decay", "expansion", "seeds")
_RESIDUAL = ("dataset", "train_size", "network", *_MLP[2:8], "augment", "seeds")


def _expansion(profile: PfaProfile, root: Path | None) -> Sources:
    """Return the table of B B^T over expansions and draws."""
    parameters = {
        "expansions": as_json(profile.expansions),
        "outputs": profile.expansion_outputs,
        "columns": profile.expansion_inputs,
        "draws": profile.expansion_draws,
    }
    function = "reports.paper.pfa.expansion:expansion"
    job = AnalysisJob(name="expansion", version=1, function=function, inputs={}, parameters=parameters)
    return {"expansion": [Source(job.file("expansion.csv"))]}


def _mlp(profile: PfaProfile, *more: str) -> list[str]:
    return departures(profile, *_MLP, *more)


def _accuracy(profile: PfaProfile) -> dict[str, Any]:
    said = {"setting": profile.dataset, "departures": _mlp(profile)}
    return {**said, "published": FINAL["mnist"]}


def _paths(profile: PfaProfile) -> dict[str, Any]:
    said = {"setting": profile.dataset, "departures": _mlp(profile)}
    return {**said, "expansion": profile.expansion, "published": _spans("mnist")}


def _spans(setting: str) -> dict[str, dict[str, list[float]]]:
    """Return where the published paths end as JSON, by rule and quantity."""
    found = {rule: {"angle": path.angle, "norm_ratio": path.norm_ratio} for rule, path in PATHS[setting].items()}
    return {rule: {of: list(span) for of, span in spans.items() if span} for rule, spans in found.items()}


def _residual(setting: str) -> Options[PfaProfile]:
    """Return the options of a figure of residual networks."""

    def options(profile: PfaProfile) -> dict[str, Any]:
        dataset, network = (getattr(profile, f"{setting}_{name}") for name in ("dataset", "network"))
        said = departures(profile, *(f"{setting}_{name}" for name in _RESIDUAL), "expansion")
        return {
            "setting": f"{dataset}, {network}",
            "departures": [words.removeprefix(f"{setting} ") for words in said],
            "expansion": profile.expansion,
            "published": FINAL[setting],
            "paths": _spans(setting),
        }

    return options


def _claimed(profile: PfaProfile) -> dict[str, Any]:
    said = departures(profile, *_MLP, *(f"cifar_{name}" for name in _RESIDUAL))
    return {"profile": {name: as_json(getattr(profile, name)) for name in ("seeds", "cifar_seeds")}, "departures": said}


_CIFAR: Declare[PfaProfile] = metrics_of(metrics=runs.residual("cifar"))

_IN_ORDER = (
    Target(
        "pfa-expansion",
        1,
        _expansion,
        f"{DRAWINGS}:expansion",
        lambda profile: {"outputs": profile.expansion_outputs},
    ),
    Target("pfa-mnist", 1, metrics_of(metrics=runs.mnist), f"{DRAWINGS}:accuracy", _accuracy),
    Target(
        "pfa-sparsity",
        1,
        metrics_of(metrics=runs.sparse),
        f"{DRAWINGS}:sparsity",
        lambda profile: {
            "setting": profile.dataset,
            "departures": _mlp(profile, "densities", "sparse_rules"),
            "shown": as_json(profile.shown_accuracy),
        },
    ),
    Target("pfa-paths", 1, metrics_of(metrics=runs.paths), f"{DRAWINGS}:paths", _paths),
    Target("pfa-cifar10", 1, _CIFAR, f"{DRAWINGS}:residual", _residual("cifar")),
    Target(
        "pfa-imagenet",
        1,
        metrics_of(metrics=runs.residual("imagenet")),
        f"{DRAWINGS}:residual",
        _residual("imagenet"),
        needs="pfa-imagenet is of a folder of images, --set imagenet_dataset=imagefolder:DIR",
    ),
    Target(
        "pfa-claims",
        1,
        metrics_of(mnist=runs.mnist, sparse=runs.sparse, cifar=runs.residual("cifar")),
        f"{DRAWINGS}:claims",
        _claimed,
        optional=("cifar",),
    ),
)
TARGETS: dict[str, Target[PfaProfile]] = {target.name: target for target in _IN_ORDER}
