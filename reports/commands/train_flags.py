"""The flags of ``analyze train``, and the configs that they and a config file ask for; imports nothing heavy."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from alignscape.settings import settings_of
from reports.commands.common import add_data_arguments, add_executor_arguments, add_run_arguments, positive_int
from reports.flags import add_flags, given, idle, read_toml, toml_text
from reports.trainer import configs_of
from training.config import DATA, OPTIMISATION, OUTPUT, TrainConfig
from training.rule_list import listed_rules

if TYPE_CHECKING:
    from typing import Literal


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
    add_run_arguments(
        output,
        out_help="the run's folder; of several runs, the folder of their folders (default: runs/NAME, with a NAME such "
        "as digits-bp-seed0). A run that was interrupted goes on, a complete one is left alone",
    )
    _add_config_file(parser.add_argument_group("config file"))
    sweep = parser.add_argument_group("sweeps")
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


def _details() -> dict[str, str]:
    return {"rule": "; ".join(f"{name}: {summary}" for name, summary in listed_rules().items())}


def stack_size(text: str) -> "int | Literal['auto']":
    """Parse ``auto`` or a number of networks."""
    return "auto" if text == "auto" else positive_int(text)


def make_configs(args: argparse.Namespace) -> list[TrainConfig]:
    """Return one config for each combination of what flags or the config file give several times.

    Raises:
        InputError: a file that cannot be read; and as :func:`configs_of`.
    """
    written = {} if args.config is None else read_toml(args.config, TrainConfig)
    flags = given(args, TrainConfig)
    places = {name: f"{name} in {args.config}" for name in written if name not in flags}
    return configs_of({**written, **flags}, places)


def config_text(configs: list[TrainConfig]) -> str:
    """Return the config file that makes these configs."""
    from training.rules import idle_options

    fields = settings_of(TrainConfig)
    without = {*idle(TrainConfig, configs), *idle_options(configs[0], fields)}
    return toml_text(TrainConfig, configs, without=without, details=_details())
