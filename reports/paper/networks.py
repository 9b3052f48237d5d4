"""Which networks the figures are of, as training configs: targets that show the same networks name the same runs."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from reports.paper.profile import HE, Profile
from reports.paper.target import Trained
from training.config import TrainConfig
from training.store.jobs import TrainJob

FA = 90.0  # degrees: IFA there starts from the very weights and feedback of FA with the same seed
IFA = 0.0  # degrees: what is called IFA where one angle stands for all
NO_COLUMNS: Mapping[str, Any] = {}


def sweep(profile: Profile, root: Path | None) -> list[Trained]:
    """Return BP, IFA at every angle and FA, each with every seed: what most figures are drawn from. FA is IFA at 90
    degrees, which is not trained a second time."""
    kinds = [("bp", IFA), *(("ifa", angle) for angle in profile.angles if angle != FA), ("fa", IFA)]
    found = []
    for (rule, angle), seed in itertools.product(kinds, profile.seeds):
        more: dict[str, Any] = {}
        if rule != "ifa" or angle == IFA:  # the three rules whose training is followed
            more["checkpoint_every"] = profile.checkpoint_every
            if seed == profile.seeds[0]:
                more |= {"snapshot_every": profile.snapshot_every, "snapshot_sketch": profile.sketch_rows}
        found += _networks(profile, root, rule, [seed], angle=angle, **more)
    return found


def three(profile: Profile, root: Path | None) -> list[Trained]:
    """Return those of the sweep that are BP, FA and IFA at 0 degrees."""
    return [one for one in sweep(profile, root) if one.columns["angle"] in (None, IFA)]


def shown(profile: Profile, root: Path | None) -> list[Trained]:
    """Return those of the sweep whose surfaces stand side by side: BP, IFA aligned and softly aligned, and FA."""
    return [one for one in sweep(profile, root) if one.columns["angle"] in (None, IFA, 30.0, 60.0)]


def _networks(
    profile: Profile,
    root: Path | None,
    rule: str,
    seeds: Iterable[int],
    columns: Mapping[str, Any] = NO_COLUMNS,
    *,
    angle: float = IFA,
    **fields: Any,
) -> list[Trained]:
    """Return the profile's MLP with each seed, ``fields`` of its config changed and ``columns`` added to its own."""
    common = ("dataset", "hidden", "batch_size", "lr", "epochs")
    config: dict[str, Any] = {**{name: getattr(profile, name) for name in common}, "rule": rule, **fields}
    config |= {"angle": angle} if rule == "ifa" else {}
    of = {"rule": rule, "angle": config.get("angle")}
    return [
        Trained(TrainJob(config=TrainConfig(seed=seed, **config), data_root=root), {**of, "seed": seed, **columns})
        for seed in seeds
    ]


def checkpoints(profile: Profile, network: Trained) -> Iterator[tuple[int, str]]:
    """Yield epoch and file name of every checkpoint that a followed network of the sweep keeps.

    The last is the final checkpoint, whose analyses other targets share.
    """
    epochs = network.train.config.epochs
    for epoch in range(0, epochs, profile.checkpoint_every):
        yield epoch, f"checkpoints/epoch-{epoch:04d}.pt"
    yield epochs, "ckpt.pt"


def variances(profile: Profile, root: Path | None) -> list[Trained]:
    """Return FA and IFA over the grid of forward and backward scales s of N(0, s^2 / fan_in) by SGD, and by Adam over
    the forward scales: it divides each gradient by its own size, so that the backward scale does nothing there."""
    he = (HE,)
    found = []
    for optimiser, backwards, lr in (("sgd", profile.scales, profile.sgd_lr), ("adam", he, profile.lr)):
        for rule, forward, backward in itertools.product(("fa", "ifa"), profile.scales, backwards):
            scales = {"forward": forward, "backward": backward}
            # A field at its default must stay so: then He's scales are the same run as without them.
            fields = {f"{way}_scale": scale for way, scale in scales.items() if scale != HE}
            columns = {"optimiser": optimiser, **scales}
            found += _trainability(profile, root, rule, columns, optimiser=optimiser, lr=lr, **fields)
    return found


def depths(profile: Profile, root: Path | None) -> list[Trained]:
    """Return BP, FA and IFA with 2 to 10 weight layers, all hidden ones of the profile's width."""
    found = []
    for rule, depth in itertools.product(("bp", "ifa", "fa"), profile.depths):
        found += _trainability(profile, root, rule, {"depth": depth}, hidden=profile.hidden[:1] * (depth - 1))
    return found


def sizes(profile: Profile, root: Path | None) -> list[Trained]:
    """Return BP, FA and IFA trained on the first samples of a permutation that each seed draws anew, from few to
    all."""
    found = []
    of_each = itertools.product(("bp", "ifa", "fa"), profile.sizes, profile.trainability_seeds)
    for rule, size, seed in of_each:
        columns, fields = (
            {"size": size},
            {"train_size": size, "subset_seed": seed, "epochs": profile.trainability_epochs},
        )
        found += _networks(profile, root, rule, [seed], columns, **fields)
    return found


def _trainability(
    profile: Profile, root: Path | None, rule: str, columns: Mapping[str, Any], **fields: Any
) -> list[Trained]:
    epochs, seeds = profile.trainability_epochs, profile.trainability_seeds
    return _networks(profile, root, rule, seeds, columns, epochs=epochs, **fields)


def architectures(profile: Profile, root: Path | None) -> list[Trained]:
    """Return BP, IFA and FA in each of the convolutional networks, with Adam and weight decay."""
    of_all: dict[str, Any] = {
        "dataset": profile.network_dataset,
        "epochs": profile.network_epochs,
        "train_size": profile.network_train_size,
        "weight_decay": profile.weight_decay,
    }
    rates = zip(profile.networks, profile.network_lrs, strict=True)
    found = []
    for (name, lr), rule in itertools.product(rates, ("bp", "ifa", "fa")):
        columns = {"network": name, "lr": lr}
        found += _networks(profile, root, rule, profile.network_seeds, columns, model=name, lr=lr, **of_all)
    return found


def data_sets(profile: Profile, root: Path | None) -> list[Trained]:
    """Return BP, IFA and FA on each data set, trained for the most epochs that a curve may have."""
    kinds = [("bp", IFA), *(("ifa", angle) for angle in profile.dataset_angles), ("fa", IFA)]
    of_all = {"epochs": profile.dataset_epochs}
    found = []
    for name, (rule, angle) in itertools.product(profile.datasets, kinds):
        columns = {"dataset": name}
        found += _networks(profile, root, rule, profile.dataset_seeds, columns, angle=angle, dataset=name, **of_all)
    return found
