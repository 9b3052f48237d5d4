"""What is measured of a network: analyses with the profile's settings, as jobs for the store."""

from pathlib import Path

from reports.analyses import Attack, Corruptions, Hessian, Sharpness, Spectrum, Surface, Trajectory
from reports.paper.networks import checkpoints
from reports.paper.profile import Profile
from reports.paper.target import Trained
from training.store.jobs import AnalysisJob, DataFiles

CORRUPTION_SEED = 0


def hessian(profile: Profile, network: Trained, checkpoint: str = "ckpt.pt") -> AnalysisJob:
    """Trace and top eigenvalues."""
    samples, probes, tolerance = profile.curvature_samples, profile.trace_probes, profile.trace_tol
    analysis = Hessian(k=profile.eigenvalues, samples=samples, probes=probes, trace_tol=tolerance)
    return analysis.job(checkpoint=network.train.file(checkpoint))


def spectrum(profile: Profile, network: Trained) -> AnalysisJob:
    """Nodes and weights of the spectral density."""
    analysis = Spectrum(steps=profile.spectrum_steps, probes=profile.spectrum_probes, samples=profile.curvature_samples)
    return analysis.job(checkpoint=network.train.file())


def sharpness(profile: Profile, network: Trained, *, at_loss: bool = False) -> AnalysisJob:
    """Sharpness by every measure, at the end of training or by the first kept checkpoint of the profile's loss."""
    analysis = Sharpness(
        samples=profile.curvature_samples,
        at_loss=profile.equal_loss if at_loss else None,
        groups=profile.sharpness_groups,
        rho=(profile.sharpness_rho,),
        adaptive_rho=(profile.sharpness_adaptive_rho,),
        steps=profile.sharpness_steps,
        draws=profile.sharpness_draws,
        probes=profile.trace_probes,
        trace_tol=profile.trace_tol,
        tol=1e-2,
    )
    if not at_loss:
        return analysis.job(checkpoint=network.train.file())
    kept = {f"epoch-{epoch:05d}": network.train.file(file) for epoch, file in checkpoints(profile, network)}
    return analysis.job(checkpoint=network.train.file(), **kept)


def surface(profile: Profile, network: Trained) -> AnalysisJob:
    """Loss over the plane of the top two eigenvectors."""
    points, extent = (profile.surface_points,), (profile.surface_extent,)
    analysis = Surface(points=points, extent=extent, samples=profile.curvature_samples, split=profile.surface_split)
    return analysis.job(checkpoint=network.train.file())


def trajectory(profile: Profile, network: Trained) -> AnalysisJob:
    """The path of training in its principal plane, and the loss there."""
    analysis = Trajectory(points=profile.plane_points, samples=profile.curvature_samples, directions="sketch")
    files = network.train.file
    kept = {name: files(f"{name}.{kind}") for name, kind in (("trajectory", "npy"), ("sketch", "npz"))}
    return analysis.job(checkpoint=files(), layout=files("trajectory.json"), **kept)


def path_length(profile: Profile, network: Trained) -> AnalysisJob:
    """Length of the path from checkpoint to checkpoint, its chord, and their ratio."""
    files = {f"epoch-{epoch:05d}": network.train.file(name) for epoch, name in checkpoints(profile, network)}
    return AnalysisJob(name="path_length", version=1, function="reports.paper.path_length:path_length", inputs=files)


def attack(profile: Profile, network: Trained, name: str) -> AnalysisJob:
    """Accuracy against epsilon, with the true gradient and with the feedback gradient, whose first layer is once the
    matrix that is drawn for it and once the forward weights."""
    steps = None if name == "fgsm" else profile.attack_steps
    eps, samples = profile.eps, profile.attack_samples
    analysis = Attack(
        attacks=(name,),
        eps=eps,
        gradients=("true", "feedback"),
        first_layer=("feedback", "forward"),
        samples=samples,
        steps=steps,
    )
    return analysis.job(checkpoint=network.train.file())


def strong(profile: Profile, network: Trained) -> AnalysisJob:
    """Accuracy under the strong attack, and the smallest eps that fools each image, both with either gradient."""
    analysis = Attack(
        attacks=("strong",),
        eps=profile.eps,
        gradients=("true", "feedback"),
        first_layer=("feedback", "forward"),
        samples=profile.attack_samples,
        steps=profile.strong_steps,
        radius=True,
    )
    return analysis.job(checkpoint=network.train.file())


def adversarial_images(profile: Profile, network: Trained, name: str) -> AnalysisJob:
    """The first test image under one attack at every epsilon that the figures show."""
    parameters = {
        "name": name,
        "eps": [0.0, *profile.shown_eps],
        "steps": None if name == "fgsm" else profile.attack_steps,
    }
    function, inputs = "reports.paper.adversarial_images:adversarial_images", {"checkpoint": network.train.file()}
    return AnalysisJob(name="adversarial-images", version=1, function=function, inputs=inputs, parameters=parameters)


def every_way(profile: Profile, network: Trained) -> AnalysisJob:
    """Accuracy under the strong attack with either gradient, under Square and under AutoAttack."""
    analysis = Attack(
        attacks=("strong", "auto", "square"),
        eps=profile.masking_eps,
        gradients=("true", "feedback"),
        first_layer=("feedback", "forward"),
        samples=profile.masking_samples,
        steps=profile.auto_steps,
        queries=profile.queries,
    )
    return analysis.job(checkpoint=network.train.file())


def transfer(profile: Profile, network: Trained, source: Trained) -> AnalysisJob:
    """Accuracy under the strong attack with the gradient of another network, or its own."""
    own = source.train == network.train
    analysis = Attack(
        attacks=("strong",),
        eps=profile.masking_eps,
        gradients=("true",) if own else ("transfer",),
        surrogate=None if own else Path("surrogate"),
        samples=profile.masking_samples,
        steps=profile.auto_steps,
    )
    inputs = {} if own else {"surrogate": source.train.file()}
    return analysis.job(checkpoint=network.train.file(), **inputs)


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
    function, inputs = "reports.paper.corrupted_set:corrupted_set", {"data": DataFiles(profile.dataset, root)}
    return AnalysisJob(name="corrupted-set", version=3, function=function, inputs=inputs, parameters=parameters)


def corruptions(profile: Profile, network: Trained, root: Path | None, severity: int) -> AnalysisJob:
    """Accuracy on the corrupted test images of one severity."""
    made = corrupted_set(profile, root, severity).file("provenance.json")
    analysis = Corruptions(cifar10c=Path("set"), no_clean=True, seed=CORRUPTION_SEED)
    return analysis.job(checkpoint=network.train.file(), set=made)
