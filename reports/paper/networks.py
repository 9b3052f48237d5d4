"""Which networks the figures are of, as training configs: targets that show the same networks name the same runs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from reports.paper.profile import HE, Profile
from training.config import TrainConfig
from training.store.jobs import TrainJob

IFA = 0.0  # degrees: what is called IFA where one angle stands for all


class Trained(NamedTuple):
    """A training and the columns that say in a table which one it is."""

    train: TrainJob
    columns: dict[str, Any]


def sweep(profile: Profile, root: Path | None) -> list[Trained]:
    """Return BP, IFA at every angle and FA, each with every seed: what most figures are drawn from."""
    kinds = [("bp", IFA), *(("ifa", angle) for angle in profile.angles), ("fa", IFA)]
    return [_of_sweep(profile, root, rule, angle, seed) for rule, angle in kinds for seed in profile.seeds]


def three(profile: Profile, root: Path | None) -> list[Trained]:
    """Return those of the sweep that are BP, FA and IFA at 0 degrees."""
    return [one for one in sweep(profile, root) if one.columns["angle"] in (None, IFA)]


def _of_sweep(profile: Profile, root: Path | None, rule: str, angle: float, seed: int) -> Trained:
    more: dict[str, Any] = {}
    if rule != "ifa" or angle == IFA:  # the three rules whose training is followed
        more["checkpoint_every"] = profile.checkpoint_every
        if seed == profile.seeds[0]:
            more["snapshot_every"] = profile.snapshot_every
    return _network(profile, root, rule, angle, seed, **more)


def _network(profile: Profile, root: Path | None, rule: str, angle: float, seed: int, **fields: Any) -> Trained:
    """Return one network of the profile's MLP, with ``fields`` of its config changed."""
    common: dict[str, Any] = {
        "dataset": profile.dataset,
        "hidden": profile.hidden,
        "batch_size": profile.batch_size,
        "lr": profile.lr,
        "epochs": profile.epochs,
    }
    config = TrainConfig(rule=rule, angle=angle if rule == "ifa" else 0.0, seed=seed, **{**common, **fields})
    columns = {"rule": rule, "angle": angle if rule == "ifa" else None, "seed": seed}
    return Trained(TrainJob(config=config, data_root=root), columns)


def checkpoints(profile: Profile, network: Trained) -> Iterator[tuple[int, str]]:
    """Yield epoch and file name of every checkpoint that a followed network of the sweep keeps.

    The last is the final checkpoint, whose analyses other targets share.
    """
    epochs = network.train.config.epochs
    for epoch in range(0, epochs, profile.checkpoint_every):
        yield epoch, f"checkpoints/epoch-{epoch:04d}.pt"
    yield epochs, "ckpt.pt"


def variances(profile: Profile, root: Path | None) -> list[Trained]:
    """Return FA and IFA over the grid of forward and backward scales s of N(0, s^2 / fan_in)."""
    found = []
    for rule in ("fa", "ifa"):
        for forward in profile.scales:
            for backward in profile.scales:
                # A field at its default must stay so: then He's scales are the same run as without them.
                fields = {"forward_scale": forward, "backward_scale": backward}
                fields = {name: value for name, value in fields.items() if value != HE}
                found += _trainability(profile, root, rule, {"forward": forward, "backward": backward}, **fields)
    return found


def depths(profile: Profile, root: Path | None) -> list[Trained]:
    """Return BP, FA and IFA with 2 to 10 hidden layers of the profile's width."""
    return [
        network
        for rule in ("bp", "ifa", "fa")
        for depth in profile.depths
        for network in _trainability(profile, root, rule, {"depth": depth}, hidden=profile.hidden[:1] * depth)
    ]


def sizes(profile: Profile, root: Path | None) -> list[Trained]:
    """Return BP, FA and IFA trained on the first samples of one permutation, from few to all."""
    return [
        network
        for rule in ("bp", "ifa", "fa")
        for size in profile.sizes
        for network in _trainability(profile, root, rule, {"size": size}, train_size=size)
    ]


def _trainability(
    profile: Profile, root: Path | None, rule: str, columns: dict[str, Any], **fields: Any
) -> list[Trained]:
    trained = [
        _network(profile, root, rule, IFA, seed, epochs=profile.trainability_epochs, **fields)
        for seed in profile.trainability_seeds
    ]
    return [Trained(one.train, {**one.columns, **columns}) for one in trained]


def architectures(profile: Profile, root: Path | None) -> list[Trained]:
    """Return BP, IFA and FA in each of the convolutional networks, with Adam and weight decay."""
    found = []
    for name, lr in zip(profile.networks, profile.network_lrs, strict=True):
        for rule in ("bp", "ifa", "fa"):
            for seed in profile.network_seeds:
                fields: dict[str, Any] = {"model": name, "lr": lr, "weight_decay": profile.weight_decay}
                fields |= {
                    "dataset": profile.network_dataset,
                    "epochs": profile.network_epochs,
                    "train_size": profile.network_train_size,
                }
                one = _network(profile, root, rule, IFA, seed, **fields)
                found.append(Trained(one.train, {**one.columns, "network": name, "lr": lr}))
    return found


def data_sets(profile: Profile, root: Path | None) -> list[Trained]:
    """Return BP, IFA and FA on each data set, trained for the most epochs that a curve may have."""
    kinds = [("bp", IFA), *(("ifa", angle) for angle in profile.dataset_angles), ("fa", IFA)]
    found = []
    for dataset in profile.datasets:
        for rule, angle in kinds:
            for seed in profile.dataset_seeds:
                one = _network(profile, root, rule, angle, seed, dataset=dataset, epochs=profile.dataset_epochs)
                found.append(Trained(one.train, {**one.columns, "dataset": dataset}))
    return found
