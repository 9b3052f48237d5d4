"""Every figure and table of the paper: which networks and analyses it needs, and what draws it."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from reports.paper import measurements
from reports.paper import networks as runs
from reports.paper.networks import Trained
from reports.paper.profile import Profile
from reports.paper.target import Source, Sources, Target
from training.store.jobs import AnalysisJob

Make = Callable[[Profile, Path | None], list[Trained]]
DRAWINGS = "reports.paper.figures"


def _metrics(networks: Iterable[Trained]) -> list[Source]:
    return [Source(network.train, "metrics.csv", network.columns) for network in networks]


def _only_metrics(networks: Make) -> Callable[[Profile, Path | None], Sources]:
    return lambda profile, root: {"metrics": _metrics(networks(profile, root))}


def _final(networks: Iterable[Trained], analysis: Callable[[Trained], AnalysisJob]) -> list[Source]:
    """Return an analysis of every network at the end of its training."""
    return [_main(analysis(network), network) for network in networks]


def _main(job: AnalysisJob, network: Trained, **columns: Any) -> Source:
    """Return the main table of an analysis of a network."""
    return Source(job, f"{job.name}.csv", {**network.columns, **columns})


def _first_seed(networks: Iterable[Trained], profile: Profile) -> list[Trained]:
    return [network for network in networks if network.columns["seed"] == profile.seeds[0]]


def _fig2(profile: Profile, root: Path | None) -> Sources:
    networks = runs.three(profile, root)
    followed = _first_seed(networks, profile)
    paths = [(network, measurements.trajectory(profile, network)) for network in followed]
    curvature = [
        _main(measurements.hessian(profile, network, file), network, epoch=epoch)
        for network in networks
        for epoch, file in runs.checkpoints(profile, network)
    ]
    return {
        "path": [Source(job, "trajectory.csv", network.columns) for network, job in paths],
        "plane": [Source(job, "trajectory_plane.csv", network.columns) for network, job in paths],
        "hessian": curvature,
    }


def _fig3(profile: Profile, root: Path | None) -> Sources:
    return {
        "variances": _metrics(runs.variances(profile, root)),
        "depths": _metrics(runs.depths(profile, root)),
        "sizes": _metrics(runs.sizes(profile, root)),
    }


def _fig5(profile: Profile, root: Path | None) -> Sources:
    networks = runs.sweep(profile, root)
    shown = _first_seed(runs.three(profile, root), profile)
    return {
        "surface": _final(shown, lambda network: measurements.surface(profile, network)),
        "spectrum": _final(networks, lambda network: measurements.spectrum(profile, network)),
        "hessian": _final(networks, lambda network: measurements.hessian(profile, network)),
    }


def _figs10(profile: Profile, root: Path | None) -> Sources:
    networks = runs.sweep(profile, root)
    shown = _first_seed(networks, profile)
    return {
        "surface": _final(shown, lambda network: measurements.surface(profile, network)),
        "spectrum": _final(networks, lambda network: measurements.spectrum(profile, network)),
    }


def _corruptions(severities: tuple[int, ...]) -> Callable[[Profile, Path | None], Sources]:
    def sources(profile: Profile, root: Path | None) -> Sources:
        networks = runs.sweep(profile, root)
        made = {severity: measurements.corrupted_set(profile, root, severity) for severity in severities}
        jobs = [
            (measurements.corruptions(profile, network, root, severity), network)
            for severity in severities
            for network in networks
        ]
        tables = {
            "corruptions": [_main(job, network) for job, network in jobs],
            "summary": [Source(job, "corruptions_summary.csv", network.columns) for job, network in jobs],
        }
        if severities == (1,):
            tables["images"] = [Source(made[1], "samples.npz")]
        return tables

    return sources


def _attacks(name: str) -> Callable[[Profile, Path | None], Sources]:
    def sources(profile: Profile, root: Path | None) -> Sources:
        networks = runs.sweep(profile, root)
        return {"attack": _final(networks, lambda network: measurements.attack(profile, network, name))}

    return sources


def _claims(profile: Profile, root: Path | None) -> Sources:
    """Return everything that a claim is about; figures 3, S3 and S4 as far as the profile says."""
    followed = _fig2(profile, root)
    final = _fig5(profile, root)
    tables = {
        "sweep": _metrics(runs.sweep(profile, root)),
        "curvature": followed["hessian"],
        "hessian": final["hessian"],
        "spectrum": final["spectrum"],
        "corruptions": _corruptions((1,))(profile, root)["summary"],
    }
    tables |= {f"attack-{name}": _attacks(name)(profile, root)["attack"] for name in ("fgsm", "bim", "pgd")}
    if "trainability" in profile.claimed:
        tables |= _fig3(profile, root)
    if "networks" in profile.claimed:
        tables["networks"] = _metrics(runs.architectures(profile, root))
    if "datasets" in profile.claimed:
        tables["datasets"] = _metrics(runs.data_sets(profile, root))
    return tables


def _memory(profile: Profile) -> dict[str, Any]:
    return {"hidden": list(profile.hidden), "dataset": profile.dataset, "batch_size": profile.batch_size}


def _eps(profile: Profile) -> dict[str, Any]:
    return {"shown_eps": list(profile.shown_eps)}


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target(
            name="fig1",
            version=2,
            title="Alignment, learning and cost of BP, FA and IFA",
            sources=_only_metrics(runs.three),
            draw=f"{DRAWINGS}.training:learning",
            options=_memory,
        ),
        Target(
            name="fig2",
            version=2,
            title="Trajectories on loss surfaces, curvature over training",
            sources=_fig2,
            draw=f"{DRAWINGS}.landscapes:trajectories",
        ),
        Target(
            name="fig3",
            version=2,
            title="Trainability: initial variances, depth, size of the training set",
            sources=_fig3,
            draw=f"{DRAWINGS}.trainability:trainability",
        ),
        Target(
            name="fig4",
            version=2,
            title="Soft alignment: learning against the initial angle",
            sources=_only_metrics(runs.sweep),
            draw=f"{DRAWINGS}.training:soft_alignment",
        ),
        Target(
            name="fig5",
            version=3,
            title="Loss surfaces, Hessian spectra and curvature against the angle",
            sources=_fig5,
            draw=f"{DRAWINGS}.landscapes:curvature",
        ),
        Target(
            name="fig6",
            version=3,
            title="Corrupted images, severity 1",
            sources=_corruptions((1,)),
            draw=f"{DRAWINGS}.robustness:corruptions",
        ),
        Target(
            name="fig7",
            version=2,
            title="FGSM",
            sources=_attacks("fgsm"),
            draw=f"{DRAWINGS}.robustness:attack",
            options=lambda profile: {**_eps(profile), "compared": True},
        ),
        Target(
            name="figS1",
            title="Alignment of every layer, FA and IFA",
            sources=_only_metrics(runs.three),
            draw=f"{DRAWINGS}.training:every_layer",
        ),
        Target(
            name="figS2",
            title="Accuracy and loss of BP, FA and IFA",
            sources=_only_metrics(runs.three),
            draw=f"{DRAWINGS}.training:accuracy_and_loss",
        ),
        Target(
            name="figS3",
            title="Convolutional networks",
            sources=_only_metrics(runs.architectures),
            draw=f"{DRAWINGS}.generality:networks",
        ),
        Target(
            name="figS4",
            title="Other data sets",
            sources=_only_metrics(runs.data_sets),
            draw=f"{DRAWINGS}.generality:data_sets",
            options=lambda profile: {"patience": profile.patience},
        ),
        Target(
            name="figS5",
            version=2,
            title="Test accuracy over initial variances",
            sources=_only_metrics(runs.variances),
            draw=f"{DRAWINGS}.trainability:variances",
            options=lambda profile: {"large": profile.large_scale},
        ),
        Target(
            name="figS6",
            version=2,
            title="Test accuracy against depth",
            sources=_only_metrics(runs.depths),
            draw=f"{DRAWINGS}.trainability:depths",
            options=lambda profile: {"shown": list(profile.shown_depths)},
        ),
        Target(
            name="figS7",
            version=2,
            title="Test accuracy against the size of the training set",
            sources=_only_metrics(runs.sizes),
            draw=f"{DRAWINGS}.trainability:sizes",
            options=lambda profile: {"shown": list(profile.shown_sizes)},
        ),
        Target(
            name="figS8",
            title="Alignment of every layer, every angle",
            sources=_only_metrics(runs.sweep),
            draw=f"{DRAWINGS}.training:every_layer",
        ),
        Target(
            name="figS9",
            title="Accuracy and loss, every angle",
            sources=_only_metrics(runs.sweep),
            draw=f"{DRAWINGS}.training:accuracy_and_loss",
        ),
        Target(
            name="figS10",
            version=2,
            title="Loss surface and spectrum of every rule and angle",
            sources=_figs10,
            draw=f"{DRAWINGS}.landscapes:surfaces_and_spectra",
        ),
        Target(
            name="figS11",
            version=3,
            title="Corrupted images, severities 2 to 5",
            sources=_corruptions((2, 3, 4, 5)),
            draw=f"{DRAWINGS}.robustness:severities",
        ),
        Target(
            name="figS12",
            version=2,
            title="BIM",
            sources=_attacks("bim"),
            draw=f"{DRAWINGS}.robustness:attack",
            options=_eps,
        ),
        Target(
            name="figS13",
            version=2,
            title="PGD",
            sources=_attacks("pgd"),
            draw=f"{DRAWINGS}.robustness:attack",
            options=_eps,
        ),
        Target(
            name="tableS1",
            title="Accuracy of convolutional networks",
            sources=_only_metrics(runs.architectures),
            draw=f"{DRAWINGS}.tables:networks",
        ),
        Target(
            name="tableS2",
            title="Accuracy on other data sets",
            sources=_only_metrics(runs.data_sets),
            draw=f"{DRAWINGS}.tables:data_sets",
            options=lambda profile: {"patience": profile.patience},
        ),
        Target(
            name="claims",
            title="The paper's claims",
            sources=_claims,
            draw=f"{DRAWINGS}.tables:claims",
            optional=("datasets",),
            options=lambda profile: {**_memory(profile), "patience": profile.patience},
        ),
    )
}
