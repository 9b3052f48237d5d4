"""``analyze corruptions``: accuracy on corrupted test sets."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from alignscape.errors import InputError
from reports.commands.common import add_subject_arguments, load_subjects, output_folder, progress_bar

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from reports.subjects import Subject
    from robustness.cifar10c import CorruptedSet
    from robustness.corruption_accuracy import CorruptionAccuracy

HELP = "accuracy per corruption and severity on CIFAR-10-C, or any set in its layout"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    group = parser.add_argument_group("corrupted set")
    group.add_argument(
        "--cifar10c",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder with NAME.npy and labels.npy: the official CIFAR-10-C or CIFAR-100-C, or what `analyze "
        "make-cifar10c` made; every file's MD5 is checked",
    )
    group.add_argument(
        "--corruptions",
        nargs="+",
        metavar="NAME",
        help="evaluate these only (default: all 15, or all of a set of your own)",
    )
    group.add_argument(
        "--allow-unverified",
        action="store_true",
        help="use files whose MD5 is not as it should be, labelled unverified (default: refuse them)",
    )
    group.add_argument(
        "--baseline",
        type=Path,
        metavar="CKPT",
        help="compare with this network: difference of mean accuracy (paired), and mCE, the mean corruption error "
        "relative to its (default: neither, since CIFAR-10-C has no standard baseline)",
    )
    add_subject_arguments(parser, split="test")


def run(args: argparse.Namespace) -> None:
    """Evaluate every checkpoint, write ``corruptions.csv``, the summary and the figures, and print the means."""
    import pandas as pd

    from reports import figures
    from reports.style import save
    from reports.tables import provenance, write_table
    from robustness.cifar10c import open_corrupted_set

    if args.split != "test":
        raise InputError("corrupted sets are made from the test images: leave --split at test")
    subjects = _load(args, args.checkpoints)
    baseline = _load(args, [args.baseline])[0] if args.baseline else None
    data = open_corrupted_set(
        args.cifar10c,
        corruptions=args.corruptions,
        allow_unverified=args.allow_unverified,
        progress=progress_bar(args, f"checking {args.cifar10c}", "file"),
    )
    reference = _evaluate(args, baseline, data) if baseline else None
    known = {} if baseline is None else {baseline.digest: reference}
    results = [known.get(subject.digest) or _evaluate(args, subject, data) for subject in subjects]
    pairs = list(zip(subjects, results, strict=True))
    cells = pd.concat([_cells(subject, result) for subject, result in pairs], ignore_index=True)
    means = pd.concat([_means(args, subject, result, reference) for subject, result in pairs], ignore_index=True)
    folder = output_folder(args, subjects)
    record = provenance(
        subjects if baseline is None else [*subjects, baseline],
        seed=args.seed,
        corrupted_set={"title": data.title, "md5": {file.name: file.md5 for file in data.files}},
        baseline=None if baseline is None else baseline.name,
    )
    write_table(cells, folder / "corruptions.csv", record)
    write_table(means, folder / "corruptions_summary.csv", record)
    save(figures.corruptions(cells), folder / "corruptions")
    save(figures.corruption_heatmap(cells), folder / "corruptions_heatmap")
    print(_table(means))
    print(f"wrote {folder / 'corruptions.csv'}")


def _load(args: argparse.Namespace, checkpoints: list[Path]) -> "list[Subject]":
    """Load networks with *all* clean test images: ``--samples`` chooses among those of the set, in every cell."""
    return load_subjects(argparse.Namespace(**{**vars(args), "checkpoints": checkpoints, "samples": None}))


def _evaluate(args: argparse.Namespace, subject: "Subject", data: "CorruptedSet") -> "CorruptionAccuracy":
    import warnings

    import numpy as np

    from robustness.corruption_accuracy import evaluate_corruptions

    clean = (subject.images, subject.labels)
    if not np.array_equal(subject.labels.cpu().numpy(), data.labels):
        warnings.warn(
            f"{data.folder} was not made from the test images of {subject.dataset}: no clean accuracy", stacklevel=2
        )
        clean = None  # type: ignore[assignment]
    return evaluate_corruptions(
        subject.model,
        data,
        normalise=subject.normalise,
        clean=clean,
        samples=_chosen(args, len(data.labels)),
        batch_size=args.batch_size,
        seed=args.seed,
        progress=progress_bar(args, f"{subject.name}: {data.title}", "image"),
    )


def _chosen(args: argparse.Namespace, count: int) -> "NDArray[np.int64] | None":
    """Return the numbers of the images that ``--samples`` and ``--seed`` choose, None for all."""
    import numpy as np

    if args.samples is None or args.samples >= count:
        return None
    return np.sort(np.random.default_rng(args.seed).choice(count, args.samples, replace=False))


def _cells(subject: "Subject", result: "CorruptionAccuracy") -> "pd.DataFrame":
    from reports.tables import with_subject

    return with_subject(result.frame(), subject)


def _means(
    args: argparse.Namespace,
    subject: "Subject",
    result: "CorruptionAccuracy",
    reference: "CorruptionAccuracy | None",
) -> "pd.DataFrame":
    from reports.tables import with_subject

    return with_subject(result.summary(baseline=reference, baseline_name=str(args.baseline)), subject)


def _table(means: "pd.DataFrame") -> str:
    """Return one line a checkpoint: accuracies in percent with their intervals, ratios as they are."""
    from reports.tables import render

    percent = ~means.quantity.isin(["relative_accuracy", "mce"])
    scaled = means[["value", "ci_low", "ci_high"]].mul(percent.map({True: 100.0, False: 1.0}), axis=0)
    digits = percent.map({True: 1, False: 3})
    cells = [
        f"{value:.{d}f} [{low:.{d}f}, {high:.{d}f}]"
        for (value, low, high), d in zip(scaled.itertuples(index=False, name=None), digits, strict=True)
    ]
    names = means.quantity.replace({"mean_accuracy": "mean", "mce": "mCE"}).str.replace("_", " ")
    against = means.group.str.startswith("against ")
    columns = names.where(means.group == "all", means.group.where(~against, names + " " + means.group))
    table = means.assign(cell=cells, column=columns)
    wide = table.pivot_table(index="column", columns="checkpoint", values="cell", aggfunc="first")
    wide = wide.loc[list(dict.fromkeys(columns)), list(dict.fromkeys(means.checkpoint))]
    return render(wide.rename_axis("% correct [95 % interval]").reset_index())
