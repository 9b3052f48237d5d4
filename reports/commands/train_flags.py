"""The flags of ``analyze train``, and the configs that they and a config file ask for; imports nothing heavy."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from alignscape.settings import settings_of
from reports.commands.common import add_data_arguments, add_executor_arguments, add_run_arguments, positive_int
from reports.flags import add_flags, given, read_toml, toml_text
from reports.products import Product
from reports.trainer import idle_in, sweep_of
from training.config import DATA, OPTIMISATION, OUTPUT, TrainConfig
from training.rule_list import listed_rules

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Literal

    from training.sinks import SinkChoice

SWEEPS = (
    "Every setting above takes several values, and every flag may be given again: one run for each combination, as in "
    "--rule bp fa ifa --angle 30 60 --batch-size 32 64 --hidden 32 --hidden 64 64. Where a setting has no effect "
    "(--angle with bp, --momentum with adam) it is left out, and combinations that come to the same are one run; a "
    "setting without effect in all of them is refused. A run is named by what differs from the others."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``analyze train``: those of ``TrainConfig``, and what the result of a run does not depend on."""
    groups = add_flags(parser, TrainConfig, group="training", details=_details())
    add_data_arguments(groups[DATA])
    groups[OPTIMISATION].add_argument(
        "--stack",
        type=stack_size,
        default="auto",
        metavar="N",
        help="train up to N networks of one architecture at once, to the results of single runs up to rounding; auto: "
        "as many as the memory holds, 1 where single runs are faster (default: auto)",
    )
    output = groups[OUTPUT]
    output.add_argument(
        "--tensorboard",
        action="store_true",
        help="also write event files for TensorBoard into RUN/tensorboard; needs the extra `tensorboard` (default: no)",
    )
    output.add_argument(
        "--wandb",
        nargs="?",
        const="alignscape",
        metavar="PROJECT",
        help="also log to this project of Weights & Biases (alignscape if none is named), or with WANDB_MODE=offline "
        "into RUN/wandb; needs the extra `wandb` (default: no)",
    )
    output.add_argument(
        "--mlflow",
        nargs="?",
        const="alignscape",
        metavar="EXPERIMENT",
        help="also log to this experiment of MLflow (alignscape if none is named) where MLFLOW_TRACKING_URI says; "
        "needs the extra `mlflow` (default: no)",
    )
    add_run_arguments(
        output,
        out_help="the run's folder; of several runs, the folder of their folders (default: runs/NAME, with a NAME such "
        "as digits-bp-seed0). A run that was interrupted goes on, a complete one is left alone",
    )
    _add_config_file(parser.add_argument_group("config file"))
    sweep = parser.add_argument_group("sweeps", SWEEPS)
    sweep.add_argument(
        "--store",
        type=Path,
        metavar="DIR",
        help="keep the runs in this run store under their keys, see `analyze runs`; excludes --out (default: none)",
    )
    add_executor_arguments(sweep)


def _add_config_file(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="TOML file of any of the settings that --dump-config writes; a list makes a run of each value where a "
        "flag does; flags win over the file (default: none)",
    )
    group.add_argument(
        "--dump-config",
        nargs="?",
        type=Path,
        const=Path("-"),
        metavar="FILE",
        help="write what the flags given and --config mean as such a file, each setting with its explanation, and "
        "train nothing (default: train; without FILE, write to standard output)",
    )
    group.add_argument(
        "--force", action="store_true", help="with --dump-config only: replace a FILE that says otherwise (default: no)"
    )


def sink_choices(args: argparse.Namespace, names: "Mapping[str, str]") -> "list[SinkChoice]":
    """Return where else metrics go; ``names`` are those of the runs, by the names of their folders."""
    from training.sinks import SinkChoice

    chosen = [("tensorboard", "")] if args.tensorboard else []
    chosen += [(kind, getattr(args, kind)) for kind in ("wandb", "mlflow") if getattr(args, kind) is not None]
    return [SinkChoice(kind, project, names) for kind, project in chosen]


def _details() -> dict[str, str]:
    return {"rule": "; ".join(f"{name}: {summary}" for name, summary in listed_rules().items())}


def stack_size(text: str) -> "int | Literal['auto']":
    """Parse ``auto`` or a number of networks."""
    return "auto" if text == "auto" else positive_int(text)


def make_configs(args: argparse.Namespace) -> list[TrainConfig]:
    """Return the configs of :func:`make_sweep`."""
    return make_sweep(args).made


def make_sweep(args: argparse.Namespace) -> Product:
    """Return one config for each combination of what flags or the config file give several times.

    Raises:
        InputError: a file that cannot be read; and as :func:`reports.trainer.sweep_of`.
    """
    written = {} if args.config is None else read_toml(args.config, TrainConfig)
    flags = given(args, TrainConfig)
    places = {name: f"{name} in {args.config}" for name in written if name not in flags}
    return sweep_of({**written, **flags}, places)


def config_text(configs: list[TrainConfig]) -> str:
    """Return the config file that makes these configs."""
    without = set(settings_of(TrainConfig))
    for config in configs:
        if not (without := idle_in(config, without)):
            break
    return toml_text(TrainConfig, configs, without=without, details=_details(), idle=idle_in)
