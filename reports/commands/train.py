"""``analyze train``: one run, or one for each combination of seeds, angles, learning rates and the like."""

import argparse
import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reports.commands.common import (
    add_data_arguments,
    add_executor_arguments,
    add_run_arguments,
    non_negative_int,
    positive_float,
    positive_int,
)
from training.errors import InputError
from training.rule_list import rule_summaries

if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Literal

    from tqdm import tqdm

    from training.config import TrainConfig
    from training.loop import Report
    from training.runs import RunFolder
    from training.sweep import Summary

HELP = "train networks with a learning rule; write checkpoints, metrics and weight trajectories"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``analyze train``; defaults are those of ``TrainConfig``."""
    rule = parser.add_argument_group("rule")
    rules = "; ".join(f"{name}: {summary}" for name, summary in rule_summaries().items())
    rule.add_argument("--rule", default="bp", help=f"learning rule (default: bp). {rules}")
    rule.add_argument(
        "--angle",
        "--angles",
        dest="angles",
        nargs="+",
        type=float,
        default=[0.0],
        metavar="DEG",
        help="ifa: degrees between forward and feedback weights at the start, one run each; 90 is fa (default: 0)",
    )
    rule.add_argument(
        "--expansion",
        type=positive_int,
        default=10,
        metavar="K",
        help="pfa: width of its middle, in outputs (default: 10)",
    )
    rule.add_argument(
        "--alignment",
        choices=("gaussian", "exact"),
        default="gaussian",
        help="ifa: each row at --angle in expectation, or exactly (default: gaussian)",
    )
    rule.add_argument(
        "--feedback-density",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="fa, dfa, pfa, pfa-o: share of the feedback weights that exist, 0 to 1 (default: 1)",
    )
    _add_scale(rule, "forward", "weights start from N(0, S^2 / fan_in): 1.414 is He, 1 LeCun")
    _add_scale(rule, "backward", "the same for random feedback")
    rule.add_argument(
        "--mirror-rate",
        type=float,
        default=0.02,
        metavar="ETA",
        help="wm: what a step of the mirror adds to the feedback (default: 0.02)",
    )
    rule.add_argument(
        "--mirror-decay",
        type=float,
        default=0.01,
        metavar="SHARE",
        help="wm: share of the feedback that a step of the mirror takes away (default: 0.01)",
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
        "--dataset", default="digits", help="digits, mnist, cifar10, cifar100, svhn or stl10 (default: digits)"
    )
    add_data_arguments(parser)
    data.add_argument(
        "--train-size", type=positive_int, metavar="N", help="train on N samples of the train split (default: all)"
    )
    data.add_argument(
        "--subset-seed", type=non_negative_int, default=0, help="seed of the choice of these samples (default: 0)"
    )
    data.add_argument(
        "--network",
        default="mlp",
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
    group.add_argument("--epochs", type=non_negative_int, default=30, help="passes over the train split (default: 30)")
    group.add_argument(
        "--batch-size", type=positive_int, default=128, metavar="N", help="samples a step (default: 128)"
    )
    group.add_argument("--optimiser", choices=("adam", "sgd"), default="adam", help="(default: adam, betas .9 .999)")
    group.add_argument(
        "--lr",
        "--lrs",
        dest="lrs",
        nargs="+",
        type=positive_float,
        default=[1e-4],
        metavar="LR",
        help="learning rate, one run each (default: 1e-4)",
    )
    group.add_argument("--momentum", type=float, default=0.9, help="sgd: momentum (default: 0.9)")
    group.add_argument(
        "--weight-decay",
        "--weight-decays",
        dest="weight_decays",
        nargs="+",
        type=float,
        default=[0.0],
        metavar="WD",
        help="L2 penalty on weight matrices and plastic feedback, one run each (default: 0)",
    )
    group.add_argument(
        "--first-epoch-weight-decay",
        type=float,
        metavar="WD",
        help="penalty of the first epoch only, pfa's schedule (default: --weight-decay)",
    )
    group.add_argument(
        "--lr-steps",
        nargs="+",
        type=positive_int,
        default=[],
        metavar="EPOCH",
        help="epochs after which the learning rate is multiplied by --lr-gamma (default: none)",
    )
    group.add_argument("--lr-gamma", type=positive_float, default=0.1, help="factor of each --lr-steps (default: 0.1)")
    group.add_argument(
        "--precision",
        choices=("fp32", "tf32", "bf16"),
        default="fp32",
        help="matrix products in float32, TensorFloat-32 or bfloat16; weights and optimiser stay float32 "
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
        help="4 or 2 bytes a weight on disk (default: float32)",
    )
    group.add_argument(
        "--snapshot-sketch",
        type=non_negative_int,
        default=0,
        metavar="ROWS",
        help="with --snapshot-every: also sketch the weights after every step, in 2 ROWS vectors of weights; 16 keeps "
        "the leading directions (see docs/trajectories.md); 0: no sketch (default: 0)",
    )
    group.add_argument(
        "--gradient-alignment",
        type=non_negative_int,
        default=0,
        metavar="N",
        help="measure after each epoch, on N samples of the train split, the cosine between the rule's update and the "
        "true gradient (columns of metrics.csv); 0: do not (default: 0)",
    )
    group.add_argument(
        "--tensorboard",
        action="store_true",
        help="also write event files into RUN/tensorboard (extra `tensorboard`)",
    )
    add_run_arguments(
        group,
        out_help="run folder; with several seeds or angles, the folder of their run folders "
        "(default: runs/NAME). A run that was interrupted goes on, a complete one is left alone",
    )
    sweep = parser.add_argument_group("sweeps")
    sweep.add_argument(
        "--store",
        type=Path,
        metavar="DIR",
        help="keep the runs in this run store under their keys, see `analyze runs`; excludes --out (default: none)",
    )
    add_executor_arguments(sweep)


def run(args: argparse.Namespace) -> None:
    """Train what is asked for, in stacks where that is faster, and print a table of the results.

    Raises:
        InputError: flags that exclude each other, and as ``train_many``.
        SystemExit: status 1 when a run of a sweep failed.
    """
    if args.store is not None and args.out is not None:
        raise InputError("--store and --out exclude each other: the store names its folders itself")
    if args.store is None and args.executor != "serial":
        raise InputError(f"--executor {args.executor} needs --store DIR, where its processes leave the runs")
    from reports.subjects import find_data_root
    from reports.sweeps import train_in_store
    from training.data import load_dataset
    from training.device import resolve_device
    from training.loop import train_many

    if args.tensorboard and args.store is not None:
        raise InputError("--tensorboard and --store exclude each other: a store keeps what a run's key covers")
    from training.tensorboard import EventFiles

    events = EventFiles() if args.tensorboard else None
    configs = make_configs(args)
    device = resolve_device(args.device)
    root = find_data_root(args.data_root, Path())
    show = None if args.quiet else TrainingDisplay(args.epochs)
    if args.store is not None:
        runs, counts = train_in_store(args, configs, None if args.dataset == "digits" else root, show)
        show_sweep(runs, counts)
        return
    folders = run_folders(configs, args.out)
    data = load_dataset(
        args.dataset,
        root,
        download=args.download,
        train_size=args.train_size,
        subset_seed=args.subset_seed,
        device=device,
    )
    finished = train_many(
        list(zip(configs, folders, strict=True)),
        data,
        stack=args.stack,
        data_root=None if args.dataset == "digits" else root,
        progress=show,
        report_plan=None if args.quiet else lambda line: print(line, file=sys.stderr, flush=True),
        on_epoch=events,
    )
    if events is not None:
        for done in finished:
            events.finish(done)
    print(summary(finished))


def show_sweep(runs: "list[RunFolder]", counts: "Summary") -> None:
    """Print the table of a sweep's runs; what failed and the counts go to stderr.

    Raises:
        SystemExit: status 1 when a run failed.
    """
    if runs:
        print(summary(runs))
    for failure in counts.failed:
        print(f"{failure.job.label}: {failure.reason}", file=sys.stderr)
    print(f"{counts.computed['runs']} trained, {counts.reused['runs']} there already", file=sys.stderr)
    if counts.failed:
        raise SystemExit(1)


def make_configs(args: argparse.Namespace) -> "list[TrainConfig]":
    """Return one config for each combination of what was given several times.

    Raises:
        InputError: a value out of range; a flag of another rule; an unknown rule.
    """
    from training.config import TrainConfig
    from training.rules import RULES

    if args.rule not in RULES:
        raise InputError(f"unknown rule {args.rule!r}; known: {', '.join(RULES)}")
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


def run_folders(configs: "list[TrainConfig]", out: Path | None) -> list[Path]:
    """Return the folder of each run: ``out`` itself for one run, ``out/NAME`` for several."""
    if len(configs) == 1 and out is not None:
        return [out]
    varied = [name for name, _ in NAMED if len({getattr(config, name) for config in configs}) > 1]
    return [(out or Path("runs")) / run_name(config, varied) for config in configs]


# Fields that a run's name tells where the runs of one command differ in them; angle and seed it tells always.
NAMED = (("forward_scale", "forward"), ("backward_scale", "backward"), ("lr", "lr"), ("weight_decay", "wd"))


def run_name(config: "TrainConfig", varied: "Collection[str]" = ()) -> str:
    """Return e.g. ``cifar10-ifa45-seed0``, or ``cifar10-ifa45-lr0.001-seed0`` if ``lr`` is ``varied``."""
    angle = f"{config.angle:g}" if config.rule == "ifa" else ""
    values = "".join(f"-{short}{getattr(config, name):g}" for name, short in NAMED if name in varied)
    return f"{config.dataset}-{config.rule}{angle}{values}-seed{config.seed}"


def summary(runs: "list[RunFolder]") -> str:
    """Return a text table with one line a run."""
    import pandas as pd

    from reports.subjects import run_columns
    from reports.tables import render
    from training.checkpoint import load_checkpoint

    rows = []
    for run_folder in runs:
        checkpoint = load_checkpoint(run_folder.checkpoint)
        names = ("train_loss", "train_accuracy", "test_loss", "test_accuracy", "seconds")
        metrics = {name: checkpoint.metrics[name] for name in names}
        diverged = {"diverged": "yes"} if checkpoint.metrics["diverged"] else {}
        columns = run_columns(checkpoint.config, checkpoint.epoch)
        rows.append({"run": str(run_folder.path), **columns, **metrics, **diverged})
    return render(pd.DataFrame(rows))


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


class TrainingDisplay:
    """Shows on stderr where training stands: a bar on a terminal, a line an epoch in a log."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self._bar: tqdm | None = None

    def __call__(self, report: "Report") -> None:
        if sys.stderr.isatty():
            self._draw(report)
        elif report.ends_epoch:
            print(
                f"{self._place(report)}  {self._metrics(report)}  {report.seconds_left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )

    def _place(self, report: "Report") -> str:
        others = f" and {report.networks - 1} more" if report.networks > 1 else ""
        place = f"[{report.finished + report.networks}/{report.jobs}] " if report.jobs > report.networks else ""
        return f"{place}{report.name}{others}: epoch {report.epoch}/{self.epochs}"

    def _metrics(self, report: "Report") -> str:
        row = report.metrics
        return f"loss {row['train_loss']:.4f}  train {row['train_accuracy']:.4f}  test {row['test_accuracy']:.4f}"

    def _draw(self, report: "Report") -> None:
        from tqdm import tqdm

        if self._bar is None:
            form = "{desc} {bar} {percentage:3.0f} %  {postfix}"
            self._bar = tqdm(total=report.total_steps, leave=False, bar_format=form, dynamic_ncols=True)
        self._bar.n = report.step
        self._bar.set_description_str(self._place(report), refresh=False)
        self._bar.set_postfix_str(
            f"{self._metrics(report)}  {tqdm.format_interval(report.seconds_left)} left", refresh=True
        )
        if report.step >= report.total_steps:
            self._bar.close()
            self._bar = None
