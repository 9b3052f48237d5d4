"""Training for the command line and for Python: configs from what was given, folders for them, and the runs."""

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reports.products import NOTHING, Product, idle_declared, place, product_of, reason_declared
from training.config import TrainConfig
from training.data_names import is_own, located
from training.names import run_names

if TYPE_CHECKING:
    from training.loop import Progress, Standing
    from training.network import OnEpoch
    from training.run_folder import RunFolder
    from training.stack_size import Sizes


def configs_of(values: Mapping[str, Any], places: Mapping[str, str] = NOTHING) -> list[TrainConfig]:
    """Return the configs of :func:`sweep_of`."""
    return sweep_of(values, places).made


def sweep_of(values: Mapping[str, Any], places: Mapping[str, str] = NOTHING) -> Product:
    """Return one config for each combination of ``values`` of ``TrainConfig``, of which lists are sweeps. Messages
    call a setting by its flag, or by its words in ``places``.

    Raises:
        InputError: an unknown rule; a value out of range; a setting that has no effect in any of them.
    """
    values = {name: _located(value) if name == "dataset" else value for name, value in values.items()}
    return product_of(TrainConfig, values, places=places, idle=idle_in, reason=_reason)


def _located(datasets: Any) -> Any:
    """Return a data set, or several, with paths from the root of the file system."""
    return located(datasets) if isinstance(datasets, str) else [located(one) for one in datasets]


def idle_in(config: TrainConfig, names: Collection[str]) -> set[str]:
    """Return those of the settings ``names`` that have no effect beside the others of ``config``, or with its rule.

    Raises:
        InputError: the rule is unknown.
    """
    from training.rules import idle_options

    return {*idle_declared(config, names), *idle_options(config, names)}


def _reason(name: str, configs: Sequence[TrainConfig]) -> str:
    from training.rules import option_owners

    if declared := reason_declared(name, configs):
        return declared
    rules = list(dict.fromkeys(config.rule for config in configs))
    verb = "does" if len(rules) == 1 else "do"
    return f"belongs to --rule {', '.join(option_owners(name))}; {', '.join(rules)} {verb} not use it"


def told(sweep: Product) -> str:
    """Say how many runs a sweep came to, where that is less than its combinations."""
    if len(sweep.made) == sweep.combinations:
        return ""
    flags = ", ".join(place(TrainConfig, name) for name in sweep.partly_idle)
    return f"{len(sweep.made)} runs of {sweep.combinations} combinations: {flags} left out where without effect"


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
    """Train configs in their folders under ``out``, those of one data set after each other; return the runs in order.

    Raises:
        InputError: a data set or the device is not there; and as :func:`training.train_many`.
    """
    from alignscape.device import resolve_device
    from training.data import load_dataset
    from training.loop import train_many
    from training.store.digests import data_options

    target = resolve_device(device)
    folders = run_folders(configs, out)
    groups: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for index, config in enumerate(configs):
        groups[config.dataset, *data_options(config).items()].append(index)
    if len(datasets := dict.fromkeys((config.dataset, config.image_size) for config in configs)) > 1:
        for dataset, size in datasets:  # one that is missing is told of before another is trained on
            load_dataset(dataset, root_for(dataset, data_root), download=download, image_size=size)
    runs: dict[int, RunFolder] = {}
    for members in groups.values():
        first = configs[members[0]]
        root = root_for(first.dataset, data_root)
        trained = train_many(
            [(configs[index], folders[index]) for index in members],
            load_dataset(first.dataset, root, download=download, **data_options(first), device=target),
            stack=stack,
            data_root=root,
            progress=progress and _among_all(progress, len(runs), len(configs)),
            report_plan=report_plan,
            on_epoch=on_epoch,
        )
        runs |= dict(zip(members, trained, strict=True))
    return [runs[index] for index in range(len(configs))]


def _among_all(progress: "Progress", before: int, jobs: int) -> "Progress":
    """Return what counts the networks of the other data sets too, ``before`` of which are done."""

    def show(standing: "Standing") -> None:
        progress(dataclasses.replace(standing, finished=standing.finished + before, jobs=jobs))

    return show


def root_for(dataset: str, root: Path | None) -> Path | None:
    """Return the folder of a data set's files: the digits, and users' own, need none."""
    return None if dataset == "digits" or is_own(dataset) else root


def run_folders(configs: Sequence[TrainConfig], out: Path | None) -> list[Path]:
    """Return the folder of each run: ``out`` itself for one run, ``out/NAME`` for several."""
    if len(configs) == 1 and out is not None:
        return [out]
    return [(out or Path("runs")) / name for name in run_names(configs)]
