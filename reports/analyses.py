"""The analyses of the figures as functions of files: what a worker of a sweep imports by name and calls.

Each is called as ``function(folder, inputs, device=..., data_root=..., **parameters)`` and writes its tables into the
empty ``folder``; ``inputs`` gives the path of each file it reads. A network that diverged has no landscape and fools
nobody: its tables have their columns and no rows.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alignscape.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pandas import DataFrame

    from landscape import HessianOperator, TrajectoryPCA
    from reports.subjects import Subject
    from robustness.attacks import Attack
    from robustness.corruptions import Definition

Inputs = Mapping[str, Path]
SEED = 0  # of every random choice but those that have a parameter

_HESSIAN = ["quantity", "index", "value", "ci_low", "ci_high", "residual", "n_samples", "n_hvp"]
_ATTACK = ["attack", "gradient", "eps", "accuracy", "ci_low", "ci_high", "n_samples"]
_CORRUPTIONS = ["corruption", "category", "severity", "accuracy", "ci_low", "ci_high", "n_samples", "provenance"]
_SUMMARY = ["quantity", "group", "value", "ci_low", "ci_high", "n_samples"]


def hessian(
    folder: Path,
    inputs: Inputs,
    *,
    k: int,
    samples: int | None,
    probes: int,
    trace_tol: float,
    device: str = "auto",
    data_root: Path | None = None,
) -> None:
    """Write ``result.csv``: trace and top ``k`` eigenvalues over ``samples`` training samples, as ``hessian.csv``."""
    import pandas as pd

    from landscape import extreme_eigenpairs, hutchinson_trace

    if (subject := _subject(inputs, "train", samples, device, data_root)) is None:
        return _write(_nothing(_HESSIAN), folder)
    operator = _operator(subject)
    pairs = extreme_eigenpairs(operator, min(k, operator.dim), keep_basis=True, seed=SEED)
    trace = hutchinson_trace(
        operator,
        deflate=pairs.basis if pairs.basis is not None else pairs.vectors,
        tol=trace_tol,
        max_probes=probes,
        seed=SEED + 1,  # the eigenvectors come from SEED; probes must be independent of them
    )
    rows = [trace.frame().assign(n_hvp=trace.n_products), pairs.frame().assign(n_hvp=pairs.n_products)]
    frame = pd.concat(rows, ignore_index=True).assign(n_samples=operator.n_samples)
    return _write(frame[_HESSIAN], folder)


def spectrum(
    folder: Path,
    inputs: Inputs,
    *,
    steps: int,
    probes: int,
    samples: int | None,
    device: str = "auto",
    data_root: Path | None = None,
) -> None:
    """Write ``result.csv``: the quadrature of the spectral density, as ``spectrum.csv``."""
    from landscape import slq_density

    if (subject := _subject(inputs, "train", samples, device, data_root)) is None:
        return _write(_nothing(["probe", "node", "weight", "n_parameters"]), folder)
    return _write(slq_density(_operator(subject), steps=steps, probes=probes, seed=SEED).frame(), folder)


def surface(
    folder: Path,
    inputs: Inputs,
    *,
    points: int,
    extent: float,
    samples: int | None,
    device: str = "auto",
    data_root: Path | None = None,
) -> None:
    """Write ``result.csv``: the loss over the plane of the top two eigenvectors, as ``surface.csv``."""
    import torch

    from landscape import extreme_eigenpairs
    from landscape import surface as loss_surface

    if (subject := _subject(inputs, "train", samples, device, data_root)) is None:
        return _write(_nothing(["alpha", "beta", "loss"]), folder)
    pairs = extreme_eigenpairs(_operator(subject), 2, seed=SEED)
    axis = torch.linspace(-extent, extent, points, dtype=torch.float64)
    found = loss_surface(
        subject.model,
        torch.nn.CrossEntropyLoss(),
        (subject.images, subject.labels),
        pairs.vectors,
        alphas=axis,
        betas=axis,
        eigenvalues=pairs.values,
        transform=subject.normalise,
    )
    return _write(found.frame(), folder)


def trajectory(
    folder: Path,
    inputs: Inputs,
    *,
    points: int,
    samples: int | None,
    device: str = "auto",
    data_root: Path | None = None,
) -> None:
    """Write ``path.csv`` and ``surface.csv``: the path of training in its principal plane, and the loss there."""
    import torch

    from landscape import Snapshots, path_losses, trajectory_pca
    from landscape import surface as loss_surface

    if (subject := _subject(inputs, "train", samples, device, data_root)) is None:
        _write(_nothing(["step", "alpha", "beta", "off_plane", "loss", "plane_loss"]), folder, "path.csv")
        return _write(_nothing(["alpha", "beta", "loss"]), folder, "surface.csv")
    network = subject.model, torch.nn.CrossEntropyLoss(), (subject.images, subject.labels)
    snapshots = Snapshots.of_run(inputs["trajectory"].parent)
    pca = trajectory_pca([snapshots])
    losses = path_losses(*network, [snapshots], pca, transform=subject.normalise)
    path = pca.frame().drop(columns="run").assign(loss=losses.loss.numpy(), plane_loss=losses.plane_loss.numpy())
    for component in (0, 1):
        path[f"explained_{component + 1}"] = float(pca.explained_variance_ratio[component])
        path[f"random_walk_{component + 1}"] = float(pca.baseline[component])
    alphas, betas = (_around(pca, component, points) for component in (0, 1))
    plane = loss_surface(
        *network, pca.directions[:2], alphas=alphas, betas=betas, origin=pca.origin, transform=subject.normalise
    )
    _write(path, folder, "path.csv")
    return _write(plane.frame(), folder, "surface.csv")


def _around(pca: "TrajectoryPCA", component: int, points: int, margin: float = 0.25) -> list[float]:
    """Return coordinates along one axis that cover the path and ``margin`` of its extent on both sides."""
    import numpy as np

    extents = (pca.coordinates[:, :2].amax(0) - pca.coordinates[:, :2].amin(0)).tolist()
    room = margin * (extents[component] or max(extents) or 1.0)
    low, high = (float(end(pca.coordinates[:, component])) for end in (min, max))
    return np.linspace(low - room, high + room, points).tolist()


def attack(
    folder: Path,
    inputs: Inputs,
    *,
    attack: str,
    eps: Sequence[float],
    samples: int | None,
    steps: int = 1,
    device: str = "auto",
    data_root: Path | None = None,
) -> None:
    """Write ``result.csv``: accuracy against ``eps`` with the true and the feedback gradient, as ``attack.csv``."""
    import pandas as pd

    from reports.attacked import AttackPlan, attack_subject

    if (subject := _subject(inputs, "test", samples, device, data_root)) is None:
        return _write(_nothing(_ATTACK), folder)
    plan = AttackPlan(attacks=[_attack(attack, steps)], eps=eps, modes=["true", "feedback"], seed=SEED)
    curves = attack_subject(plan, subject, lambda what, unit: None)
    return _write(pd.concat([curve.frame() for curve in curves], ignore_index=True)[_ATTACK], folder)


def _attack(name: str, steps: int) -> "Attack":
    from robustness.attacks import bim, fgsm, pgd

    makers = {"fgsm": lambda: fgsm(), "bim": lambda: bim(steps=steps), "pgd": lambda: pgd(steps=steps)}
    if name not in makers:
        raise InputError(f"unknown attack {name!r}; known: {', '.join(makers)}")
    return makers[name]()


def corrupted_set(
    folder: Path,
    inputs: Inputs,
    *,
    dataset: str,
    severity: int,
    images: int | None,
    seed: int,
    frost: str,
    device: str = "auto",
    data_root: Path | None = None,
) -> None:
    """Write the corrupted test images of one severity in CIFAR-10-C's layout, and ``samples.npz``: image 0 of each.

    ``frost`` is ``"data root"`` if the textures are those of ``data_root/frost``. 32 x 32 RGB images get CIFAR-10-C's
    fifteen corruptions, others the four of our own definition.
    """
    import numpy as np

    from robustness.generate import make_corrupted_set
    from training.data import load_split

    split = load_split(dataset, "test", data_root)
    split = split.subset(None if images is None else min(images, len(split)), seed)
    clean = np.ascontiguousarray(split.images.permute(0, 2, 3, 1).numpy())
    textures = data_root / "frost" if frost == "data root" and data_root is not None else None
    definition = _definition(clean, textures)
    made = make_corrupted_set(
        clean, split.labels.numpy(), folder, definition=definition, severities=[severity], source=f"{dataset} test"
    )
    first = {name: np.load(folder / f"{name}.npy", mmap_mode="r")[0] for name in made}
    np.savez_compressed(folder / "samples.npz", clean=clean[0], **first)


def _definition(images: "NDArray[np.uint8]", textures: Path | None) -> "Definition":
    from robustness.corruptions import cifar_c, load_frost_textures, small_images

    return cifar_c(load_frost_textures(textures)) if images.shape[1:] == (32, 32, 3) else small_images()


def corruptions(
    folder: Path,
    inputs: Inputs,
    *,
    images: int | None,
    seed: int,
    device: str = "auto",
    data_root: Path | None = None,
) -> None:
    """Write ``result.csv`` (accuracy per cell, as ``corruptions.csv``) and ``summary.csv`` (means with intervals)."""
    from robustness.cifar10c import open_corrupted_set
    from robustness.corruption_accuracy import evaluate_corruptions

    if (subject := _subject(inputs, "test", images, device, data_root, seed=seed)) is None:
        _write(_nothing(_SUMMARY), folder, "summary.csv")
        return _write(_nothing(_CORRUPTIONS), folder)
    found = evaluate_corruptions(
        subject.model,
        open_corrupted_set(inputs["set"].parent),
        normalise=subject.normalise,
        seed=seed,
    )
    _write(found.summary(), folder, "summary.csv")
    return _write(found.frame(), folder)


def _subject(
    inputs: Inputs, split: str, samples: int | None, device: str, data_root: Path | None, seed: int = SEED
) -> "Subject | None":
    """Return the network with its samples; None if it diverged."""
    from reports.subjects import load_subject
    from training.checkpoint import load_checkpoint

    if load_checkpoint(inputs["checkpoint"]).metrics.get("diverged"):
        return None
    return load_subject(
        inputs["checkpoint"], data_root=data_root, split=split, samples=samples, seed=seed, device=device
    )


def _operator(subject: "Subject") -> "HessianOperator":
    import torch

    from landscape import HessianOperator

    return HessianOperator(
        subject.model,
        torch.nn.CrossEntropyLoss(),
        (subject.images, subject.labels),
        transform=subject.normalise,  # batch by batch: the samples stay bytes
    )


def _nothing(columns: Sequence[str]) -> "DataFrame":
    import pandas as pd

    return pd.DataFrame(columns=list(columns))


def _write(frame: "DataFrame", folder: Path, name: str = "result.csv") -> None:
    frame.to_csv(folder / name, index=False)
