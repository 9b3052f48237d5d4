"""Every figure and table of the first paper: which networks and analyses it needs, and what draws it."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from alignscape.settings import as_json
from reports.paper import measurements
from reports.paper import networks as runs
from reports.paper.profile import Profile
from reports.paper.target import Declare, Networks, Source, Sources, Target, Trained, metrics_of, numbers_of
from training.store.jobs import AnalysisJob

Measure = Callable[[Profile, Trained], AnalysisJob]


def _tables(jobs: Iterable[tuple[AnalysisJob, Trained]], file: str = "") -> list[Source]:
    """Return a table of each analysis, its main one if ``file`` does not say which."""
    return [Source(job.file(file or f"{job.name}.csv"), network.columns) for job, network in jobs]


def _final(measure: Measure, profile: Profile, networks: Iterable[Trained]) -> list[Source]:
    """Return an analysis of every network at the end of its training."""
    return _tables((measure(profile, network), network) for network in networks)


def _first_seed(networks: Iterable[Trained], profile: Profile) -> list[Trained]:
    return [network for network in networks if network.columns["seed"] == profile.seeds[0]]


def _followed(profile: Profile, root: Path | None) -> Sources:
    """Return the paths of the first seed, and curvature over the training of every seed."""
    networks = runs.three(profile, root)
    paths = [(measurements.trajectory(profile, network), network) for network in _first_seed(networks, profile)]
    curvature = (
        (measurements.hessian(profile, network, file), network._replace(columns={**network.columns, "epoch": epoch}))
        for network in networks
        for epoch, file in runs.checkpoints(profile, network)
    )
    lengths = _final(measurements.path_length, profile, networks)
    followed = {"path": _tables(paths), "plane": _tables(paths, "trajectory_plane.csv")}
    return {**followed, "lengths": lengths, "hessian": _tables(curvature)}


def _landscapes(shown: Networks[Profile], **analyses: Measure) -> Declare[Profile]:
    """Return the surfaces of the first seed of the networks ``shown``, and analyses of the whole sweep."""

    def sources(profile: Profile, root: Path | None) -> Sources:
        networks, seen = runs.sweep(profile, root), _first_seed(shown(profile, root), profile)
        tables = {name: _final(measure, profile, networks) for name, measure in analyses.items()}
        return {"surface": _final(measurements.surface, profile, seen), **tables}

    return sources


def _corruptions(*severities: int) -> Declare[Profile]:
    def sources(profile: Profile, root: Path | None) -> Sources:
        networks = runs.sweep(profile, root)
        jobs = [
            (measurements.corruptions(profile, network, root, severity), network)
            for severity in severities
            for network in networks
        ]
        sets = [(level, measurements.corrupted_set(profile, root, level)) for level in severities]
        images = [Source(made.file("samples.npz"), {"severity": level}) for level, made in sets]
        return {
            "corruptions": _tables(jobs),
            "summary": _tables(jobs, "corruptions_summary.csv"),
            "images": images,
        }

    return sources


def _attacks(name: str, *, pictured: bool = False) -> Declare[Profile]:
    attack = partial(measurements.attack, name=name)

    def sources(profile: Profile, root: Path | None) -> Sources:
        networks = runs.sweep(profile, root)
        tables = {"attack": _final(attack, profile, networks)}
        if pictured:  # BP and IFA, whose curves stand beside each other
            seen = [one for one in _first_seed(runs.three(profile, root), profile) if one.columns["rule"] != "fa"]
            made = [(measurements.adversarial_images(profile, network, name), network) for network in seen]
            tables["images"] = _tables(made, "samples.npz")
        return tables

    return sources


def _strong(profile: Profile, root: Path | None) -> Sources:
    """Return the curves of the strong attack, and the radii."""
    jobs = [(measurements.strong(profile, network), network) for network in runs.sweep(profile, root)]
    return {"attack": _tables(jobs), "radius": _tables(jobs, "radius.csv")}


def _every_way(profile: Profile, root: Path | None) -> Sources:
    """Return every way of attacking the networks of the first seed, and each one under each one's gradient."""
    networks = _first_seed(runs.three(profile, root), profile)
    transfers = [
        Source(measurements.transfer(profile, one, by).file("attack.csv"), {**one.columns, **_source_columns(by)})
        for one in networks
        for by in networks
    ]
    return {"attack": _final(measurements.every_way, profile, networks), "transfer": transfers}


def _source_columns(source: Trained) -> dict[str, object]:
    name = Source(source.train.file(), source.columns).network
    return {"source": name, **{f"source_{key}": source.columns[key] for key in ("rule", "angle", "seed")}}


_TRAINABILITY = metrics_of(variances=runs.variances, depths=runs.depths, sizes=runs.sizes)
_LANDSCAPES = _landscapes(runs.shown, spectrum=measurements.spectrum, hessian=measurements.hessian)


def _claims(profile: Profile, root: Path | None) -> Sources:
    """Return everything that a claim is about; figures 3, S3 and S4 as far as the profile says."""
    final, followed, mild = _LANDSCAPES(profile, root), _followed(profile, root), _corruptions(1)(profile, root)
    strong = _strong(profile, root)
    tables = {
        **metrics_of(sweep=runs.sweep)(profile, root),
        "curvature": followed["hessian"],
        "lengths": followed["lengths"],
        "hessian": final["hessian"],
        "spectrum": final["spectrum"],
        "corruptions": mild["summary"],
        "cells": mild["corruptions"],
        "severities": _corruptions(2, 3, 4, 5)(profile, root)["summary"],
        "attacked": strong["attack"],
        "radius": strong["radius"],
    }
    more = {
        "trainability": _TRAINABILITY,
        "networks": metrics_of(networks=runs.architectures),
        "datasets": metrics_of(datasets=runs.data_sets),
    }
    for name, declare in more.items():
        tables |= declare(profile, root) if name in profile.claimed else {}
    return tables


def _sharpness(profile: Profile, root: Path | None) -> Sources:
    """Return sharpness at the end of training and at one training loss, of the networks that keep checkpoints."""
    networks = runs.three(profile, root)
    return {
        "epochs": _final(measurements.sharpness, profile, networks),
        "loss": _final(partial(measurements.sharpness, at_loss=True), profile, networks),
    }


def _seeds(profile: Profile) -> dict[str, object]:
    """Return what says beforehand which claims there are and what decides them."""
    names = ("seeds", "trainability_seeds", "network_seeds", "dataset_seeds", "networks", "datasets", "claimed",
             "shown_eps")  # fmt: skip
    return {name: as_json(getattr(profile, name)) for name in names}


_MEMORY = {name: name for name in ("hidden", "dataset", "batch_size")}
_EPS, _PATIENCE = numbers_of(shown_eps="shown_eps"), numbers_of(patience="patience")
_SPLIT = numbers_of(split="surface_split")
_THREE, _SWEEP = metrics_of(metrics=runs.three), metrics_of(metrics=runs.sweep)
_NETWORKS, _DATA_SETS = metrics_of(metrics=runs.architectures), metrics_of(metrics=runs.data_sets)
DRAWINGS = "reports.paper.figures"

_IN_ORDER = (
    Target("fig1", 3, _THREE, f"{DRAWINGS}.training:learning", numbers_of(**_MEMORY)),
    Target("fig2", 3, _followed, f"{DRAWINGS}.landscapes:trajectories"),
    Target("fig3", 3, _TRAINABILITY, f"{DRAWINGS}.trainability:trainability"),
    Target("fig4", 3, _SWEEP, f"{DRAWINGS}.training:soft_alignment"),
    Target("fig5", 4, _LANDSCAPES, f"{DRAWINGS}.landscapes:curvature", _SPLIT),
    Target("fig6", 4, _corruptions(1), f"{DRAWINGS}.robustness:corruptions"),
    Target(
        "fig7",
        3,
        _attacks("fgsm", pictured=True),
        f"{DRAWINGS}.attacks:attack",
        lambda profile: {**_EPS(profile), "compared": True},
    ),
    Target("figS1", 2, _THREE, f"{DRAWINGS}.training:every_layer"),
    Target("figS2", 1, _THREE, f"{DRAWINGS}.training:accuracy_and_loss"),
    Target("figS3", 2, _NETWORKS, f"{DRAWINGS}.generality:networks"),
    Target("figS4", 2, _DATA_SETS, f"{DRAWINGS}.generality:data_sets", _PATIENCE),
    Target(
        "figS5",
        3,
        metrics_of(metrics=runs.variances),
        f"{DRAWINGS}.trainability:variances",
        numbers_of(large="large_scale"),
    ),
    Target(
        "figS6", 3, metrics_of(metrics=runs.depths), f"{DRAWINGS}.trainability:depths", numbers_of(shown="shown_depths")
    ),
    Target(
        "figS7", 3, metrics_of(metrics=runs.sizes), f"{DRAWINGS}.trainability:sizes", numbers_of(shown="shown_sizes")
    ),
    Target("figS8", 2, _SWEEP, f"{DRAWINGS}.training:every_layer"),
    Target("figS9", 1, _SWEEP, f"{DRAWINGS}.training:accuracy_and_loss"),
    Target(
        "figS10",
        3,
        _landscapes(runs.sweep, spectrum=measurements.spectrum),
        f"{DRAWINGS}.landscapes:surfaces_and_spectra",
        _SPLIT,
    ),
    Target("figS11", 4, _corruptions(2, 3, 4, 5), f"{DRAWINGS}.robustness:severities"),
    Target("figS12", 3, _attacks("bim"), f"{DRAWINGS}.attacks:attack", _EPS),
    Target("figS13", 3, _attacks("pgd"), f"{DRAWINGS}.attacks:attack", _EPS),
    Target("figS14", 3, _strong, f"{DRAWINGS}.attacks:strong", _EPS),
    Target("figS15", 1, _every_way, f"{DRAWINGS}.masking:masking"),
    Target("figS16", 1, _sharpness, f"{DRAWINGS}.flatness:sharpness", numbers_of(equal_loss="equal_loss")),
    Target("tableS1", 2, _NETWORKS, f"{DRAWINGS}.tables:networks"),
    Target("tableS2", 2, _DATA_SETS, f"{DRAWINGS}.tables:data_sets", _PATIENCE),
    Target("tableS3", 1, _sharpness, f"{DRAWINGS}.flatness:claims"),
    Target(
        "claims",
        2,
        _claims,
        f"{DRAWINGS}.tables:claims",
        lambda profile: {**numbers_of(**_MEMORY, patience="patience")(profile), "profile": _seeds(profile)},
        ("datasets",),
    ),
)
TARGETS: dict[str, Target[Profile]] = {target.name: target for target in _IN_ORDER}
