"""What "the paper" means in numbers: the same code with digits in seconds, CIFAR-10 in minutes, or as published.

Nothing heavy is imported here: a call that finds everything done should take a moment.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from alignscape.errors import InputError

HE = math.sqrt(2)  # the scale s of N(0, s^2 / fan_in) that He et al. (2015) start from; 1 is LeCun's

CLAIMED = ("trainability", "networks", "datasets")


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Every number of the targets. Sizes are samples, ``*_every`` epochs unless said otherwise.

    The profile's name is for people only: two profiles with the same numbers share every run.
    """

    name: str

    # The sweep over angles that most figures are drawn from: BP, IFA at each angle, FA, each with every seed.
    dataset: str
    hidden: tuple[int, ...]
    batch_size: int
    lr: float
    epochs: int
    seeds: tuple[int, ...]
    angles: tuple[float, ...]

    # Curvature over training and trajectories (BP, FA, IFA at the first angle)
    checkpoint_every: int
    snapshot_every: int  # optimiser steps
    plane_points: int

    # Landscapes of the final networks
    curvature_samples: int | None  # of the train split; None: all
    eigenvalues: int
    trace_probes: int
    trace_tol: float
    spectrum_steps: int
    spectrum_probes: int
    surface_points: int
    surface_extent: float

    # Trainability: forward x backward scale, depth, size of the training set
    trainability_epochs: int
    trainability_seeds: tuple[int, ...]
    scales: tuple[float, ...]
    large_scale: float
    depths: tuple[int, ...]  # hidden layers
    shown_depths: tuple[int, ...]
    sizes: tuple[int, ...]
    shown_sizes: tuple[int, ...]

    # Other architectures and data sets
    network_dataset: str
    networks: tuple[str, ...]
    network_lrs: tuple[float, ...]  # one each
    network_epochs: int
    network_seeds: tuple[int, ...]
    network_train_size: int | None
    weight_decay: float
    datasets: tuple[str, ...]
    dataset_angles: tuple[float, ...]
    dataset_epochs: int
    dataset_seeds: tuple[int, ...]
    patience: int  # epochs without a better test accuracy after which a curve ends

    # Robustness
    attack_samples: int | None  # of the test split; None: all
    attack_steps: int  # of BIM and PGD
    eps: tuple[float, ...]  # pixel units
    shown_eps: tuple[float, ...]  # of the panel against the angle
    corrupted_images: int | None  # of the test split; None: all

    claimed: tuple[str, ...]  # what the claims draw on beyond the sweep: any of CLAIMED

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if isinstance(value := getattr(self, field.name), list):
                object.__setattr__(self, field.name, tuple(value))
        for name in ("seeds", "trainability_seeds", "network_seeds", "dataset_seeds", "depths", "sizes", "eps"):
            _require(bool(getattr(self, name)), f"{name} must not be empty")
        for shown, of in (("shown_depths", "depths"), ("shown_sizes", "sizes"), ("shown_eps", "eps")):
            _require(set(getattr(self, shown)) <= set(getattr(self, of)), f"{shown} must be some of {of}")
        _require(0 in self.angles, "angles must contain 0: it is what the figures call IFA where they show one angle")
        _require(len(self.networks) == len(self.network_lrs), "network_lrs must have one rate for each of networks")
        _require({1.0, HE, self.large_scale} <= set(self.scales), f"scales must contain 1, {HE} (He) and large_scale")
        _require(set(self.claimed) <= set(CLAIMED), f"claimed must be some of {', '.join(CLAIMED)}")

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON types."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    def changed(self, settings: Sequence[str]) -> "Profile":
        """Return the profile with ``NAME=VALUE`` settings applied; lists are separated by commas.

        Raises:
            InputError: an unknown name, or a value of another kind than the one it replaces.
        """
        changes: dict[str, Any] = {}
        types = {field.name: str(field.type) for field in dataclasses.fields(self) if field.name != "name"}
        for setting in settings:
            name, equals, text = setting.partition("=")
            if not equals or name not in types:
                raise InputError(f"--set {setting}: it must be NAME=VALUE with NAME one of {', '.join(types)}")
            changes[name] = _parse(name, text, types[name])
        return dataclasses.replace(self, **changes)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)


def _parse(name: str, text: str, kind: str) -> Any:
    one: Callable[[str], Any] = str if "str" in kind else float if "float" in kind else int
    if "None" in kind and text in ("all", "none"):
        return None
    try:
        return tuple(one(part) for part in text.split(",") if part) if kind.startswith("tuple") else one(text)
    except ValueError as error:
        raise InputError(f"--set {name}={text}: the value must be {kind.replace(', ...', '')}") from error


def smoke() -> Profile:
    """Every target on the bundled digits, in minutes on two cores: shows that all of it works, and nothing else."""
    return Profile(
        name="smoke",
        dataset="digits",
        hidden=(32, 32),
        batch_size=64,
        lr=1e-3,
        epochs=8,
        seeds=(0, 1, 2, 3),  # 4 against 4 is the least with which a rank-sum test can reach p < 0.05
        angles=(0.0, 45.0, 90.0),
        checkpoint_every=2,
        snapshot_every=6,
        plane_points=13,
        curvature_samples=300,
        eigenvalues=2,
        trace_probes=20,
        trace_tol=0.1,
        spectrum_steps=30,
        spectrum_probes=2,
        surface_points=13,
        surface_extent=0.5,
        trainability_epochs=6,
        trainability_seeds=(0,),
        scales=(1.0, HE, 4.0),
        large_scale=4.0,
        depths=(2, 4, 6),
        shown_depths=(2, 4, 6),
        sizes=(100, 400, 1437),
        shown_sizes=(100, 400, 1437),
        network_dataset="digits32",
        networks=("lenet", "alexnet"),
        network_lrs=(1e-3, 1e-4),
        network_epochs=2,
        network_seeds=(0,),
        network_train_size=256,
        weight_decay=1e-4,
        datasets=("digits",),
        dataset_angles=(60.0, 30.0, 0.0),
        dataset_epochs=10,
        dataset_seeds=(0,),
        patience=3,
        attack_samples=200,
        attack_steps=5,
        eps=(0.0, 0.02, 0.05, 0.1, 0.2),
        shown_eps=(0.05, 0.1, 0.2),
        corrupted_images=None,
        claimed=CLAIMED,
    )


def small() -> Profile:
    """CIFAR-10 with one seed and few epochs: the shape of every curve on a laptop, without any test of significance."""
    return dataclasses.replace(
        smoke(),
        name="small",
        dataset="cifar10",
        hidden=(512, 512),
        batch_size=128,
        lr=1e-4,
        epochs=8,
        seeds=(0,),
        angles=(0.0, 30.0, 45.0, 60.0, 90.0),
        checkpoint_every=1,
        snapshot_every=79,  # about 40 snapshots of the 3,128 steps
        plane_points=15,
        curvature_samples=1000,
        eigenvalues=2,
        trace_probes=40,
        trace_tol=0.05,
        spectrum_steps=60,
        spectrum_probes=2,
        surface_points=15,
        surface_extent=0.5,
        trainability_epochs=5,
        depths=(2, 6, 10),
        shown_depths=(2, 6, 10),
        sizes=(100, 1000, 10_000),
        shown_sizes=(100, 1000, 10_000),
        network_dataset="cifar10",
        network_epochs=3,
        network_train_size=10_000,
        datasets=("svhn", "cifar10", "cifar100", "stl10"),
        dataset_epochs=6,
        patience=3,
        attack_samples=1000,
        attack_steps=10,
        eps=tuple(round(0.005 * k, 3) for k in range(11)),
        shown_eps=(0.005, 0.01, 0.02),
        corrupted_images=2000,
        claimed=(),  # figures 3, S3 and S4 take longer than all others together
    )


def paper() -> Profile:
    """As in the paper where it says, with ten seeds so that rank-sum tests can decide; meant for a GPU."""
    return dataclasses.replace(
        small(),
        name="paper",
        epochs=30,
        seeds=tuple(range(10)),
        angles=tuple(float(angle) for angle in range(0, 100, 10)),
        snapshot_every=100,
        plane_points=31,
        curvature_samples=None,
        eigenvalues=5,
        trace_probes=200,
        trace_tol=0.02,
        spectrum_steps=100,
        spectrum_probes=3,
        surface_points=31,
        trainability_epochs=100,
        trainability_seeds=(0, 1, 2, 3, 4),
        scales=(0.5, 1.0, HE, 2.0, 4.0),
        depths=tuple(range(2, 11)),
        sizes=(100, 300, 1000, 3000, 10_000, 30_000, 50_000),
        network_epochs=100,
        network_seeds=(0, 1, 2, 3, 4),
        network_train_size=None,
        dataset_epochs=300,
        dataset_seeds=(0, 1, 2, 3, 4),
        patience=10,
        attack_samples=None,
        corrupted_images=None,
        claimed=CLAIMED,
    )


PROFILES: dict[str, Callable[[], Profile]] = {"smoke": smoke, "small": small, "paper": paper}
