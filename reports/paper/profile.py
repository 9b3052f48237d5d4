"""What "the paper" means in numbers: the same code with digits in seconds, CIFAR-10 in minutes, or as published.

Nothing heavy is imported here: a call that finds everything done should take a moment.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from alignscape.settings import check_settings, setting
from reports.paper.numbers import Numbers, require
from training.config import seed_range

HE = math.sqrt(2)  # the scale s of N(0, s^2 / fan_in) that He et al. (2015) start from; 1 is LeCun's


@dataclass(frozen=True, kw_only=True)
class Profile(Numbers):
    """Every number of the targets; the defaults are those of :func:`smoke`."""

    # The sweep over angles that most figures are drawn from: BP, IFA at each angle, FA, each with every seed.
    hidden: tuple[int, ...] = setting((32, 32), "widths of the hidden layers", empty=True)
    batch_size: int = setting(64, "samples")
    lr: float = setting(1e-3, "learning rate")
    epochs: int = setting(8, "length of training")
    seeds: tuple[int, ...] = setting(
        (0, 1, 2, 3), "of each network; how many a claim needs, --dry-run says; 0..9 is a range", parse=seed_range
    )
    angles: tuple[float, ...] = setting(
        (0.0, 30.0, 60.0), "degrees, with 0, 30 and 60; 90 is FA, and not trained twice"
    )

    # Curvature over training and trajectories (BP, FA, IFA at the first angle)
    checkpoint_every: int = setting(2, "epochs")
    snapshot_every: int = setting(6, "optimiser steps between drawn points of the path")
    sketch_rows: int = setting(8, "of the sketch of every step, which gives the plane of the path")
    plane_points: int = setting(13, "along each axis")

    # Landscapes of the final networks
    curvature_samples: int | None = setting(300, "of the train split; None: all")
    eigenvalues: int = setting(2, "largest ones")
    trace_probes: int = setting(20, "most")
    trace_tol: float = setting(0.1, "relative error at which probing ends")
    spectrum_steps: int = setting(30, "of Lanczos")
    spectrum_probes: int = setting(2, "of Lanczos")
    surface_points: int = setting(13, "along each axis")
    surface_split: Literal["test", "train"] = setting("test", "whose loss the surfaces show")
    surface_extent: float = setting(0.5, "to either side")

    # Sharpness, after training and at one training loss (BP, FA, IFA at the first angle)
    equal_loss: float = setting(1.5, "training loss at which they are compared too, by the first checkpoint below it")
    sharpness_rho: float = setting(0.05, "radius of SAM's ball")
    sharpness_adaptive_rho: float = setting(0.1, "radius of ASAM's ball")
    sharpness_steps: int = setting(6, "of ascent to a worst case")
    sharpness_draws: int = setting(2, "pairs of noise for sigma")
    sharpness_groups: int = setting(0, "of samples for intervals within a network; 0: none, seeds show the spread")

    # Trainability: forward x backward scale, depth, size of the training set
    trainability_epochs: int = setting(6, "length of training")
    trainability_seeds: tuple[int, ...] = setting((0,), "of each network", parse=seed_range)
    scales: tuple[float, ...] = setting((1.0, HE, 4.0), "of both directions, with 1 and He's")
    sgd_lr: float = setting(0.05, "learning rate of the grid by SGD with momentum 0.9")
    large_scale: float = setting(4.0, "one of scales")
    depths: tuple[int, ...] = setting((2, 4, 6), "weight layers: one more than hidden layers")
    shown_depths: tuple[int, ...] = setting((2, 4, 6), "some of depths", empty=True)
    sizes: tuple[int, ...] = setting((100, 400, 1437), "samples")
    shown_sizes: tuple[int, ...] = setting((100, 400, 1437), "some of sizes", empty=True)

    # Other architectures and data sets
    network_dataset: str = setting("digits32", "data set")
    networks: tuple[str, ...] = setting(("lenet", "alexnet"), "architectures", empty=True)
    network_lrs: tuple[float, ...] = setting((1e-3, 1e-4), "learning rate of each", empty=True)
    network_epochs: int = setting(2, "length of training")
    network_seeds: tuple[int, ...] = setting((0,), "of each network", parse=seed_range)
    network_train_size: int | None = setting(256, "samples; None: all")
    weight_decay: float = setting(1e-4, "of the architectures")
    datasets: tuple[str, ...] = setting(("digits",), "data sets", empty=True)
    dataset_angles: tuple[float, ...] = setting((60.0, 30.0, 0.0), "degrees", empty=True)
    dataset_epochs: int = setting(10, "most that a curve may have")
    dataset_seeds: tuple[int, ...] = setting((0,), "of each network", parse=seed_range)
    patience: int = setting(3, "epochs without a better test accuracy after which a curve ends")

    # Robustness
    attack_samples: int | None = setting(200, "of the test split; None: all")
    attack_steps: int = setting(5, "of BIM and PGD")
    strong_steps: int = setting(10, "of each APGD of the strong attack")
    masking_samples: int | None = setting(50, "of the test split, where every way of attack is tried; None: all")
    masking_eps: tuple[float, ...] = setting((0.0, 0.05, 0.1, 0.2), "pixel units, there")
    auto_steps: int = setting(4, "of each part of AutoAttack there")
    queries: int = setting(100, "of Square there")
    eps: tuple[float, ...] = setting((0.0, 0.02, 0.05, 0.1, 0.2), "pixel units")
    shown_eps: tuple[float, ...] = setting((0.05, 0.1, 0.2), "of the panel against the angle", empty=True)
    corrupted_images: int | None = setting(None, "of the test split; None: all")

    claimed: tuple[Literal["trainability", "networks", "datasets"], ...] = setting(
        ("trainability", "networks", "datasets"), "what the claims draw on beyond the sweep", empty=True
    )

    def __post_init__(self) -> None:
        check_settings(self)
        for shown, of in (("shown_depths", "depths"), ("shown_sizes", "sizes"), ("shown_eps", "eps")):
            require(set(getattr(self, shown)) <= set(getattr(self, of)), f"{shown} must be some of {of}")
        text = (
            "angles must contain 0, which the figures call IFA where they show one angle, and 30 and 60, the ends of "
        )
        require({0, 30, 60} <= set(self.angles), text + "what counts as moderate")
        require(len(self.networks) == len(self.network_lrs), "network_lrs must have one rate for each of networks")
        require({1.0, HE, self.large_scale} <= set(self.scales), f"scales must contain 1, {HE} (He) and large_scale")


def smoke() -> Profile:
    """Every target on the bundled digits, in minutes on two cores: shows that all of it works, and nothing else."""
    return Profile()


def small() -> Profile:
    """CIFAR-10 with one seed and few epochs: the shape of every curve on a laptop, without any test of significance."""
    return Profile(
        name="small",
        dataset="cifar10", hidden=(512, 512), batch_size=128, lr=1e-4, seeds=(0,), angles=(0, 30, 45, 60),
        checkpoint_every=1, snapshot_every=79, plane_points=15,  # about 40 snapshots of the 3,128 steps
        curvature_samples=1000, trace_probes=40, trace_tol=0.05, spectrum_steps=60, surface_points=21,
        trainability_epochs=5, sgd_lr=0.01, depths=(2, 6, 10), shown_depths=(2, 6, 10), sizes=(100, 1000, 10_000),
        shown_sizes=(100, 1000, 10_000), network_dataset="cifar10", network_epochs=3, network_train_size=10_000,
        datasets=("svhn", "cifar10", "cifar100", "stl10"), dataset_epochs=6, attack_samples=1000, attack_steps=10,
        strong_steps=20, corrupted_images=2000, equal_loss=1.5, sharpness_steps=20, sharpness_draws=10,
        eps=tuple(round(0.005 * k, 3) for k in range(11)), shown_eps=(0.005, 0.01, 0.02),
        claimed=(),  # figures 3, S3 and S4 take longer than all others together
    )  # fmt: skip


def paper() -> Profile:
    """As in the paper where our copy of it says, with ten seeds so that claims can be decided; meant for a GPU."""
    few_seeds = (0, 1, 2, 3, 4)
    return replace(
        small(),
        name="paper", epochs=30, seeds=tuple(range(10)), angles=tuple(range(0, 90, 10)),
        snapshot_every=100, plane_points=31, curvature_samples=None, eigenvalues=5, trace_probes=200, trace_tol=0.02,
        spectrum_steps=100, spectrum_probes=3, surface_points=41, trainability_epochs=100, trainability_seeds=few_seeds,
        scales=(0.125, 0.25, 0.5, 1.0, HE, 2.0, 4.0, 8.0), large_scale=8.0, depths=tuple(range(2, 11)),
        sizes=(100, 300, 1000, 3000, 10_000, 30_000, 50_000),
        network_epochs=100, network_seeds=few_seeds, network_train_size=None,
        dataset_epochs=300, dataset_seeds=few_seeds, patience=10,
        attack_samples=None, masking_samples=1000, corrupted_images=None,
        claimed=("trainability", "networks", "datasets"),
    )  # fmt: skip


PROFILES: dict[str, Callable[[], Profile]] = {"smoke": smoke, "small": small, "paper": paper}
