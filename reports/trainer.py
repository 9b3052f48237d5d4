"""Training for the command line and for Python: configs from what was given, folders for them, and the runs."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignscape.errors import InputError
from reports.flags import NOTHING, each_of, place
from training.config import TrainConfig
from training.data_names import located, short_name

if TYPE_CHECKING:
    from training.loop import Progress
    from training.network import OnEpoch
    from training.run_folder import RunFolder
    from training.stack_size import Sizes


def configs_of(values: Mapping[str, Any], places: Mapping[str, str] = NOTHING) -> list[TrainConfig]:
    """Return one config for each combination of ``values`` of ``TrainConfig``, of which lists are sweeps. Messages
    call a setting by its flag, or by its words in ``places``.

    Raises:
        InputError: an unknown rule; a value out of range; a setting that has no effect beside the others.
    """
    from training.rules import idle_options, option_owners

    if isinstance(dataset := values.get("dataset"), str):
        values = {**values, "dataset": located(dataset)}
    configs = each_of(TrainConfig, values, places=places)
    for option in idle_options(configs[0], values):
        name, rule = place(TrainConfig, option, places), configs[0].rule
        raise InputError(f"{name} belongs to --rule {', '.join(option_owners(option))}; {rule} does not use it")
    return configs


def train_configs(
    configs: Sequence[TrainConfig],
    out: Path | None = None,
    *,
    data_root: Path | None = None,
    download: bool = False,
    device: str = "auto",
    stack: "Sizes" = "auto",
    progress: "Progress | None" = None,
    report_plan: Callable[[str], None] | None = None,
    on_epoch: "OnEpoch | None" = None,
) -> "list[RunFolder]":
    """Train configs of one data set in their folders under ``out``; return the runs in order.

    Raises:
        InputError: the data set or the device is not there; and as :func:`training.train_many`.
    """
    from alignscape.device import resolve_device
    from training.data import load_dataset
    from training.loop import train_many
    from training.store.digests import data_options

    first = configs[0]
    target = resolve_device(device)
    folders = run_folders(configs, out)
    options = {**data_options(first), "device": target}
    return train_many(
        list(zip(configs, folders, strict=True)),
        load_dataset(first.dataset, data_root, download=download, **options),
        stack=stack,
        data_root=data_root,
        progress=progress,
        report_plan=report_plan,
        on_epoch=on_epoch,
    )


def run_folders(configs: Sequence[TrainConfig], out: Path | None) -> list[Path]:
    """Return the folder of each run: ``out`` itself for one run, ``out/NAME`` for several."""
    if len(configs) == 1 and out is not None:
        return [out]
    varied = [name for name, _ in NAMED if len({getattr(config, name) for config in configs}) > 1]
    return [(out or Path("runs")) / run_name(config, varied) for config in configs]


# Fields that a run's name tells where the runs of one command differ in them; ifa's angle and the seed it tells always.
NAMED = (
    ("angle", "angle"),
    ("forward_scale", "forward"),
    ("backward_scale", "backward"),
    ("lr", "lr"),
    ("weight_decay", "wd"),
)


def run_name(config: TrainConfig, varied: Collection[str] = ()) -> str:
    """Return e.g. ``cifar10-ifa45-seed0``, ``cifar10-lenet-ifa45-seed0`` for another network than the MLP, or
    ``cifar10-ifa45-lr0.001-seed0`` if ``lr`` is ``varied``."""
    network = "" if config.model == "mlp" else "-" + re.sub(r"[^\w.]+", "-", config.model)
    angle = f"{config.angle:g}" if config.rule == "ifa" else ""
    varied = [name for name in varied if not (name == "angle" and angle)]
    values = "".join(f"-{short}{getattr(config, name):g}" for name, short in NAMED if name in varied)
    rule = re.sub(r"[^\w.]+", "-", config.rule)  # package.module:Class
    dataset = re.sub(r"[^\w.]+", "-", short_name(config.dataset))
    return f"{dataset}{network}-{rule}{angle}{values}-seed{config.seed}"
