"""The flags of ``analyze train``, and the configs that they ask for. Nothing heavy is imported here."""

import argparse
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignscape.errors import InputError
from reports.commands.common import (
    add_data_arguments,
    add_executor_arguments,
    add_run_arguments,
    non_negative_int,
    positive_float,
    positive_int,
)
from training.rule_list import listed_rules

if TYPE_CHECKING:
    from typing import Literal

    from training.config import TrainConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``analyze train``; defaults are those of ``TrainConfig``."""
    rule = parser.add_argument_group("rule")
    rules = "; ".join(f"{name}: {summary}" for name, summary in listed_rules().items())
    help = "learning rule, or one of yours as package.module:Class, of the current folder say (default: bp). "
    rule.add_argument("--rule", default="bp", metavar="NAME", help=(help + rules).replace("%", "%%"))
    rule.add_argument(
        "--angle",
        "--angles",
        dest="angles",
        nargs="+",
        type=float,
        default=[0.0],
        metavar="DEG",
        help="ifa: angle between forward and feedback weights at the start, 0 to 180 degrees, one run each; 90 is fa "
        "(default: 0)",
    )
    rule.add_argument(
        "--expansion",
        type=positive_int,
        default=10,
        metavar="K",
        help="pfa: width between its two feedback matrices, in multiples of the layer's outputs (default: 10)",
    )
    rule.add_argument(
        "--alignment",
        choices=("gaussian", "exact"),
        default="gaussian",
        help="ifa: gaussian: --angle holds for each unit's weights in expectation; exact: exactly (default: gaussian)",
    )
    rule.add_argument(
        "--feedback-density",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="fa, dfa, pfa, pfa-o: share of the feedback weights that exist, 0 to 1; the others stay 0 (default: 1)",
    )
    _add_scale(rule, "forward", "scale S of the weights at the start, N(0, S^2 / fan_in): 1.414 is He, 1 LeCun")
    _add_scale(rule, "backward", "the same for random feedback weights")
    rule.add_argument(
        "--mirror-rate",
        type=float,
        default=0.02,
        metavar="ETA",
        help="wm: learning rate of the feedback, which takes a step of the mirror before each step of training "
        "(default: 0.02)",
    )
    rule.add_argument(
        "--mirror-decay",
        type=float,
        default=0.01,
        metavar="SHARE",
        help="wm: share by which each step of the mirror shrinks the feedback, 0 to 1 (default: 0.01)",
    )
    _add_data(parser)
    _add_optimisation(parser)
    _add_output(parser)


def _add_scale(group: "argparse._ArgumentGroup", name: str, meaning: str) -> None:
    group.add_argument(
        f"--{name}-scale",
        f"--{name}-scales",
        dest=f"{name}_scales",
        nargs="+",
        type=positive_float,
        default=[2**0.5],
        metavar="S",
        help=f"{meaning}, one run each (default: 1.414)",
    )


def _add_data(parser: argparse.ArgumentParser) -> None:
    data = parser.add_argument_group("data and network")
    data.add_argument(
        "--dataset",
        default="digits",
        metavar="NAME",
        help="digits, which comes with the package, mnist, cifar10, cifar100, svhn or stl10 (default: digits)",
    )
    add_data_arguments(data, of_run=False)
    data.add_argument(
        "--train-size", type=positive_int, metavar="N", help="train on N samples of the train split (default: all)"
    )
    data.add_argument(
        "--subset-seed",
        type=non_negative_int,
        default=0,
        metavar="S",
        help="seed that draws the samples of --train-size (default: 0)",
    )
    data.add_argument(
        "--network",
        default="mlp",
        metavar="NAME",
        help="architecture: mlp, lenet, alexnet, resnet20, torchvision:NAME, timm:NAME or package.module:factory, a "
        "function of no arguments (default: mlp)",
    )
    data.add_argument(
        "--hidden",
        nargs="*",
        type=positive_int,
        default=[512, 512],
        metavar="UNITS",
        help="mlp: units of each hidden layer; none for a linear network (default: 512 512)",
    )


def _add_optimisation(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("optimisation")
    group.add_argument(
        "--epochs", type=non_negative_int, default=30, metavar="N", help="passes over the train split (default: 30)"
    )
    group.add_argument(
        "--batch-size", type=positive_int, default=128, metavar="N", help="samples per step (default: 128)"
    )
    group.add_argument(
        "--optimiser", choices=("adam", "sgd"), default="adam", help="adam has betas 0.9 and 0.999 (default: adam)"
    )
    group.add_argument(
        "--lr",
        "--lrs",
        dest="lrs",
        nargs="+",
        type=positive_float,
        default=[1e-4],
        metavar="LR",
        help="learning rate at the start, one run each (default: 1e-4)",
    )
    group.add_argument("--momentum", type=float, default=0.9, metavar="M", help="sgd: momentum (default: 0.9)")
    group.add_argument(
        "--weight-decay",
        "--weight-decays",
        dest="weight_decays",
        nargs="+",
        type=float,
        default=[0.0],
        metavar="WD",
        help="WD times the weights is added to their gradient, and so for plastic feedback; not for biases; one run "
        "each (default: 0)",
    )
    group.add_argument(
        "--first-epoch-weight-decay",
        type=float,
        metavar="WD",
        help="weight decay of the first epoch, which pfa's authors set apart (default: that of --weight-decay)",
    )
    group.add_argument(
        "--lr-steps",
        nargs="+",
        type=positive_int,
        default=[],
        metavar="EPOCH",
        help="epochs after which the learning rate is multiplied by --lr-gamma (default: none)",
    )
    group.add_argument(
        "--lr-gamma", type=positive_float, default=0.1, metavar="G", help="factor at each of --lr-steps (default: 0.1)"
    )
    group.add_argument(
        "--precision",
        choices=("fp32", "tf32", "bf16"),
        default="fp32",
        help="compute matrix products in float32, TensorFloat-32 or bfloat16; weights and optimiser stay float32 "
        "(default: fp32)",
    )
    group.add_argument(
        "--seed",
        "--seeds",
        dest="seeds",
        nargs="+",
        type=seed_range,
        default=[[0]],
        metavar="S",
        help="seed of weights, feedback and data order, one run each; 0..9 is a range (default: 0)",
    )
    group.add_argument(
        "--stack",
        type=stack_size,
        default="auto",
        metavar="N",
        help="train up to N networks of one architecture at once, to the results of single runs up to rounding; auto: "
        "as many as the memory holds, 1 where single runs are faster (default: auto)",
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument(
        "--checkpoint-every",
        type=non_negative_int,
        default=0,
        metavar="EPOCHS",
        help="keep a checkpoint every so many epochs, the start included; 0: only the final one (default: 0)",
    )
    group.add_argument(
        "--snapshot-every",
        type=non_negative_int,
        default=0,
        metavar="STEPS",
        help="keep the weights every so many steps for `analyze trajectory`; 0: never (default: 0)",
    )
    group.add_argument(
        "--snapshot-dtype",
        choices=("float32", "float16"),
        default="float32",
        help="number format of these weights: 4 or 2 bytes each on disk (default: float32)",
    )
    group.add_argument(
        "--snapshot-sketch",
        type=non_negative_int,
        default=0,
        metavar="ROWS",
        help="with --snapshot-every: also sketch the weights after every step, in 2 ROWS vectors of weights; 8 keeps "
        "the two leading directions to a small part of a degree, more rows cost more time in each step (see "
        "docs/trajectories.md); 0: no sketch (default: 0)",
    )
    group.add_argument(
        "--gradient-alignment",
        type=non_negative_int,
        default=0,
        metavar="N",
        help="measure after each epoch, on N samples of the train split, the cosine between the rule's update and the "
        "true gradient (columns of metrics.csv); 0: do not measure (default: 0)",
    )
    group.add_argument(
        "--tensorboard",
        action="store_true",
        help="also write event files for TensorBoard into RUN/tensorboard; needs the extra `tensorboard` (default: no)",
    )
    add_run_arguments(
        group,
        out_help="the run's folder; of several runs, the folder of their folders (default: runs/NAME, with a NAME such "
        "as digits-bp-seed0). A run that was interrupted goes on, a complete one is left alone",
    )
    sweep = parser.add_argument_group("sweeps")
    sweep.add_argument(
        "--store",
        type=Path,
        metavar="DIR",
        help="keep the runs in this run store under their keys, see `analyze runs`; excludes --out (default: none)",
    )
    add_executor_arguments(sweep)


def seed_range(text: str) -> list[int]:
    """Parse ``7`` or ``0..9`` (both ends included)."""
    first, _, last = text.partition("..")
    low, high = non_negative_int(first), non_negative_int(last or first)
    if high < low:
        raise argparse.ArgumentTypeError(f"{text} is an empty range")
    return list(range(low, high + 1))


def stack_size(text: str) -> "int | Literal['auto']":
    """Parse ``auto`` or a number of networks."""
    return "auto" if text == "auto" else positive_int(text)


def make_configs(args: argparse.Namespace) -> "list[TrainConfig]":
    """Return one config for each combination of what was given several times.

    Raises:
        InputError: a value out of range; a flag of another rule; an unknown rule.
    """
    from training.config import TrainConfig
    from training.rules import find_rule

    find_rule(args.rule)
    fixed: dict[str, Any] = {
        name: getattr(args, name)
        for name in (
            *("rule", "alignment", "expansion", "feedback_density", "mirror_rate", "mirror_decay"),
            *("dataset", "train_size", "subset_seed", "hidden", "epochs", "batch_size"),
            *("optimiser", "momentum", "first_epoch_weight_decay", "lr_steps", "lr_gamma", "precision"),
            *("checkpoint_every", "snapshot_every", "snapshot_dtype"),
            *("snapshot_sketch", "gradient_alignment"),
        )
    }
    swept: dict[str, list[Any]] = {
        "angle": args.angles,
        "forward_scale": args.forward_scales,
        "backward_scale": args.backward_scales,
        "lr": args.lrs,
        "weight_decay": args.weight_decays,
        "seed": list(itertools.chain.from_iterable(args.seeds)),
    }
    once = [list(dict.fromkeys(values)) for values in swept.values()]
    configs = [
        TrainConfig(**fixed, model=args.network, **dict(zip(swept, values, strict=True)))
        for values in itertools.product(*once)
    ]
    for config in configs:
        _check_options(config)
    return configs


def _check_options(config: "TrainConfig") -> None:
    """Refuse a flag that the rule would not heed."""
    from training.rules import RULES, idle_options

    for option in idle_options(config):
        owners = ", ".join(name for name, rule in RULES.items() if option in rule.options)
        raise InputError(f"--{option.replace('_', '-')} belongs to --rule {owners}; {config.rule} does not use it")
