"""What is measured of a network, as jobs for the store. A change of an analysis' results wants a new version here."""

from pathlib import Path
from typing import Any

from reports.paper.networks import Trained
from reports.paper.profile import Profile
from training.store.jobs import AnalysisJob, DataFiles

MODULE = "reports.analyses"
CORRUPTION_SEED = 0


def hessian(profile: Profile, network: Trained, checkpoint: str = "ckpt.pt") -> AnalysisJob:
    """Trace and top eigenvalues."""
    parameters = {
        "k": profile.eigenvalues,
        "samples": profile.curvature_samples,
        "probes": profile.trace_probes,
        "trace_tol": profile.trace_tol,
    }
    return _analysis("hessian", 1, {"checkpoint": network.train.file(checkpoint)}, parameters)


def spectrum(profile: Profile, network: Trained) -> AnalysisJob:
    """Nodes and weights of the spectral density."""
    parameters = {
        "steps": profile.spectrum_steps,
        "probes": profile.spectrum_probes,
        "samples": profile.curvature_samples,
    }
    return _analysis("spectrum", 1, {"checkpoint": network.train.file()}, parameters)


def surface(profile: Profile, network: Trained) -> AnalysisJob:
    """Loss over the plane of the top two eigenvectors."""
    parameters = {
        "points": profile.surface_points,
        "extent": profile.surface_extent,
        "samples": profile.curvature_samples,
    }
    return _analysis("surface", 1, {"checkpoint": network.train.file()}, parameters)


def trajectory(profile: Profile, network: Trained) -> AnalysisJob:
    """The path of training in its principal plane, and the loss there."""
    inputs = {"checkpoint": "ckpt.pt", "trajectory": "trajectory.npy", "layout": "trajectory.json"}
    parameters = {"points": profile.plane_points, "samples": profile.curvature_samples}
    files = {name: network.train.file(file) for name, file in inputs.items()}
    return _analysis("trajectory", 1, files, parameters)


def attack(profile: Profile, network: Trained, name: str) -> AnalysisJob:
    """Accuracy against epsilon, with the true gradient and with the feedback gradient."""
    parameters: dict[str, Any] = {"attack": name, "eps": list(profile.eps), "samples": profile.attack_samples}
    if name != "fgsm":
        parameters["steps"] = profile.attack_steps
    return _analysis("attack", 1, {"checkpoint": network.train.file()}, parameters)


def corrupted_set(profile: Profile, root: Path | None, severity: int) -> AnalysisJob:
    """The corrupted test images of one severity: CIFAR-10-C's fifteen for 32 x 32 RGB, our own four for digits."""
    frost = root is not None and (root / "frost").is_dir()
    parameters = {
        "dataset": profile.dataset,
        "severity": severity,
        "images": profile.corrupted_images,
        "seed": CORRUPTION_SEED,
        "frost": "data root" if frost else "default",
    }
    return _analysis("corrupted-set", 1, {"data": DataFiles(profile.dataset, root)}, parameters)


def corruptions(profile: Profile, network: Trained, root: Path | None, severity: int) -> AnalysisJob:
    """Accuracy on the corrupted test images of one severity."""
    made = corrupted_set(profile, root, severity)
    inputs = {"checkpoint": network.train.file(), "set": made.file("provenance.json")}
    return _analysis("corruptions", 1, inputs, {"images": profile.corrupted_images, "seed": CORRUPTION_SEED})


def _analysis(name: str, version: int, inputs: dict[str, Any], parameters: dict[str, Any]) -> AnalysisJob:
    function = f"{MODULE}:{name.replace('-', '_')}"
    return AnalysisJob(name=name, version=version, function=function, inputs=inputs, parameters=parameters)
