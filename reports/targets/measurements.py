"""What is measured of a network, as jobs for the store. A change of an analysis' results wants a new version here."""

from pathlib import Path
from typing import Any

from reports.targets.profile import Profile
from reports.targets.runs import Network
from training.jobs import Analysis, DataFiles

MODULE = "reports.analyses"
CORRUPTION_SEED = 0


def hessian(profile: Profile, network: Network, checkpoint: str = "ckpt.pt") -> Analysis:
    """Trace and top eigenvalues."""
    parameters = {
        "k": profile.eigenvalues,
        "samples": profile.curvature_samples,
        "probes": profile.trace_probes,
        "trace_tol": profile.trace_tol,
    }
    return _analysis("hessian", 1, {"checkpoint": network.train.file(checkpoint)}, parameters)


def spectrum(profile: Profile, network: Network) -> Analysis:
    """Nodes and weights of the spectral density."""
    parameters = {
        "steps": profile.spectrum_steps,
        "probes": profile.spectrum_probes,
        "samples": profile.curvature_samples,
    }
    return _analysis("spectrum", 1, {"checkpoint": network.train.file()}, parameters)


def surface(profile: Profile, network: Network) -> Analysis:
    """Loss over the plane of the top two eigenvectors."""
    parameters = {
        "points": profile.surface_points,
        "extent": profile.surface_extent,
        "samples": profile.curvature_samples,
    }
    return _analysis("surface", 1, {"checkpoint": network.train.file()}, parameters)


def trajectory(profile: Profile, network: Network) -> Analysis:
    """The path of training in its principal plane, and the loss there."""
    inputs = {"checkpoint": "ckpt.pt", "trajectory": "trajectory.npy", "layout": "trajectory.json"}
    parameters = {"points": profile.plane_points, "samples": profile.curvature_samples}
    files = {name: network.train.file(file) for name, file in inputs.items()}
    return _analysis("trajectory", 1, files, parameters)


def attack(profile: Profile, network: Network, name: str) -> Analysis:
    """Accuracy against epsilon, with the true gradient and with the feedback gradient."""
    parameters: dict[str, Any] = {"attack": name, "eps": list(profile.eps), "samples": profile.attack_samples}
    if name != "fgsm":
        parameters["steps"] = profile.attack_steps
    return _analysis("attack", 1, {"checkpoint": network.train.file()}, parameters)


def corrupted_set(profile: Profile, root: Path | None, severity: int) -> Analysis:
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


def corruptions(profile: Profile, network: Network, root: Path | None, severity: int) -> Analysis:
    """Accuracy on the corrupted test images of one severity."""
    made = corrupted_set(profile, root, severity)
    inputs = {"checkpoint": network.train.file(), "set": made.file("provenance.json")}
    return _analysis("corruptions", 1, inputs, {"images": profile.corrupted_images, "seed": CORRUPTION_SEED})


def _analysis(name: str, version: int, inputs: dict[str, Any], parameters: dict[str, Any]) -> Analysis:
    function = f"{MODULE}:{name.replace('-', '_')}"
    return Analysis(name=name, version=version, function=function, inputs=inputs, parameters=parameters)
