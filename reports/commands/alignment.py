"""``analyze alignment``: how feedback, and the updates that it gives, agree with backpropagation's, over training."""

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignscape.errors import InputError
from reports.commands.common import (
    add_data_arguments,
    add_run_arguments,
    add_seed_argument,
    positive_int,
    progress_bar,
)

if TYPE_CHECKING:
    import pandas as pd

    from reports.subjects import Subject
    from training.checkpoint import Checkpoint

HELP = "angles between forward and feedback weights, norm ratios and gradient alignment, over training"
SHOWN = ("checkpoint", "epoch", "layer", "row_angle", "norm_ratio", "gradient_cosine", "gradient_cosine_low",
         "gradient_cosine_high")  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="a run folder: each of its kept checkpoints (train with --checkpoint-every) and the final one; or one "
        "checkpoint that `analyze train` wrote",
    )
    add_data_arguments(parser, of_run=True)
    parser.add_argument(
        "--split",
        choices=("train", "test"),
        default="train",
        help="which samples gradients are taken on (default: train)",
    )
    parser.add_argument(
        "--samples",
        type=positive_int,
        default=2000,
        metavar="N",
        help="number of samples that gradients are taken on, drawn by --seed; at most what the split has "
        "(default: 2000)",
    )
    parser.add_argument(
        "--batch-size",
        type=positive_int,
        metavar="N",
        help="samples of one update; cosines depend on it, because small batches have noisier gradients "
        "(default: as in training)",
    )
    add_run_arguments(parser, out_help="folder for table and figure (default: the first run's)")
    add_seed_argument(parser)


def run(args: argparse.Namespace) -> None:
    """Measure every checkpoint, write ``alignment.csv`` and the figure, and print the last epochs."""
    import pandas as pd

    from reports.figures import alignment as draw
    from reports.style import save
    from reports.tables import provenance, render, write_table

    found = [measure_run(args, path) for path in args.runs]
    measured = [one for one in found if one is not None]
    if not measured:
        raise InputError(
            "every run given has diverged, with no checkpoint from before: train with --checkpoint-every 1"
        )
    frame = pd.concat([table for table, _, _ in measured], ignore_index=True)
    subjects = [subject for _, subject, _ in measured]
    folder = args.out or (args.runs[0] if args.runs[0].is_dir() else args.runs[0].parent)
    digests = {subject.name: files for _, subject, files in measured}
    about = provenance(subjects, seed=args.seed, batch_size=args.batch_size, checkpoint_files=digests)
    write_table(frame, folder / "alignment.csv", about)
    save(draw(frame), folder / "alignment")
    last = frame[frame["epoch"] == frame.groupby("checkpoint")["epoch"].transform("max")]
    print(render(last[list(SHOWN)]))
    print(f"wrote {folder / 'alignment.csv'}")


def measure_run(args: argparse.Namespace, path: Path) -> "tuple[pd.DataFrame, Subject, dict[str, str]] | None":
    """Return the rows of one run, its network and samples, and the digest of each checkpoint file. Checkpoints of
    weights that have diverged are left out with a warning; None if there are no others."""
    import warnings

    import pandas as pd

    from alignscape.files import sha256_file
    from training.checkpoint import load_checkpoint

    files = checkpoint_files(path)
    found = [(file, load_checkpoint(file)) for file in files]
    sound = {one.epoch: (file, one) for file, one in reversed(found) if not one.metrics["diverged"]}
    if len(sound) < len({one.epoch for _, one in found}):
        what = "is left out" if not sound else f"is shown up to epoch {max(sound)}"
        warnings.warn(f"{path} {what}: its training diverged", stacklevel=2)
    if not sound:
        return None
    subject = load_samples(args, path, sound[max(sound)][0])
    show = progress_bar(args, f"{path}: alignment", "checkpoint")
    frames = []
    for done, epoch in enumerate(sorted(sound), start=1):
        frames.append(measure(args, sound[epoch][1], subject))
        if show is not None:
            show(done, len(sound))
    return pd.concat(frames, ignore_index=True), subject, {f.name: sha256_file(f) for f, _ in sound.values()}


def checkpoint_files(path: Path) -> list[Path]:
    """Return the kept checkpoints of a run and its final one, in order of time, or the file itself.

    Raises:
        InputError: there is none.
    """
    import warnings

    if path.is_file():
        return [path]
    kept = sorted((path / "checkpoints").glob("epoch-*.pt"))
    final = [path / "ckpt.pt"] if (path / "ckpt.pt").is_file() else []
    if not kept and not final:
        raise InputError(f"{path} has no checkpoint: give a run folder or a checkpoint of ours")
    if not kept:
        warnings.warn(f"{path} kept its final checkpoint only: train with --checkpoint-every 1", stacklevel=2)
    return kept + final


def load_samples(args: argparse.Namespace, path: Path, file: Path) -> "Subject":
    """Return the network of ``file`` under the name of its run, with the samples that gradients are taken on."""
    import dataclasses
    import os

    from reports.subjects import load_subject

    subject = load_subject(
        file,
        data_root=args.data_root,
        download=args.download,
        split=args.split,
        samples=args.samples,
        seed=args.seed,
        device=args.device,
    )
    if subject.checkpoint is None:
        raise InputError(f"{file} is no checkpoint of ours: only those hold feedback weights")
    return dataclasses.replace(subject, name=os.fspath(path))


def measure(args: argparse.Namespace, checkpoint: "Checkpoint", subject: "Subject") -> "pd.DataFrame":
    """Return one row for each layer of one checkpoint, and one for all parameters."""
    import pandas as pd

    from reports.subjects import run_columns
    from training.angles import alignment
    from training.gradient_angles import gradient_alignment
    from training.rules import make_rule

    rule = make_rule(checkpoint.config)
    model, twin = checkpoint.plain_model().to(subject.device), checkpoint.training_twin().to(subject.device)
    weights = {layer: alignment(*pair) for layer, pair in rule.backward_weights(twin).items()}
    size = args.batch_size or checkpoint.config.batch_size
    data = subject.inputs(), subject.labels
    rows: list[dict[str, Any]] = []
    for layer, found in gradient_alignment(model, twin, rule, data, batch_size=size, seed=args.seed).items():
        pair = weights.get(layer)
        rows.append(
            {
                "checkpoint": subject.name,
                **run_columns(checkpoint.config, checkpoint.epoch),
                "layer": layer,
                "row_angle": math.nan if pair is None else pair.row_angle,
                "flat_angle": math.nan if pair is None else pair.flat_angle,
                "norm_ratio": math.nan if pair is None else pair.norm_ratio,
                "gradient_cosine": found.cosine,
                "gradient_cosine_low": found.cosine_low,
                "gradient_cosine_high": found.cosine_high,
                "gradient_angle": found.angle,
                "gradient_angle_low": found.angle_low,
                "gradient_angle_high": found.angle_high,
                "sample_cosine": found.sample_cosine,
                "n_samples": found.n_samples,
                "n_batches": found.n_batches,
                "batch_size": found.batch_size,
                "step": checkpoint.step,
            }
        )
    return pd.DataFrame(rows)
