"""``corruptions``: accuracy on corrupted test sets."""

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from alignscape.errors import InputError
from alignscape.settings import setting
from reports.analyses.analysis import Analysis, Found, Loads, Show, batch_setting, labelled, silent, split_setting
from reports.analyses.section import Drawing, Section
from reports.schema import N_SAMPLES, Column, Table, interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pandas import DataFrame

    from reports.subjects import Subject
    from robustness.cifar10c import CorruptedSet
    from robustness.corruption_accuracy import CorruptionAccuracy


@dataclass(frozen=True, kw_only=True)
class Corruptions(Analysis):
    """Accuracy per corruption and severity on CIFAR-10-C, or any set in the layout of it, of MNIST-C or of ImageNet-C
    (Hendrycks and Dietterich 2019, Mu and Gilmer 2019).

    >>> Corruptions(cifar10c="CIFAR-10-C", corruptions=("fog", "frost")).split
    'test'
    """

    name: ClassVar[str] = "corruptions"
    version: ClassVar[int] = 3  # which set, how many corruptions a mean holds, relative mCE
    summary: ClassVar[str] = (
        "accuracy per corruption and severity on CIFAR-10-C, CIFAR-100-C, MNIST-C, ImageNet-C or a set of your own"
    )
    tables: ClassVar[tuple[Table, ...]] = (
        Table(
            "corruptions",
            (
                Column("corruption", "text", "its name; clean: none", role="key"),
                Column("category", "text", "noise, blur, weather, digital, ..."),
                Column("severity", "int", "1 to 5; 0: clean", role="key"),
                Column("accuracy", "float", "share of images that are right", role="value"),
                *interval("the accuracy (Wilson)"),
                N_SAMPLES,
                Column("provenance", "text", "whose images these are: official, made, own definition, unverified"),
                Column("corrupted_set", "text", "its title", role="setting"),
            ),
        ),
        Table(
            "corruptions_summary",
            (
                Column(
                    "quantity",
                    "text",
                    "mean_accuracy, clean_accuracy, relative_accuracy, mce, relative_mce, ...",
                    role="key",
                ),
                Column("group", "text", "all, a severity, a category, or against which network", role="key"),
                Column("value", "float", "share of images, or ratio", role="value"),
                *interval("the value, over images (bootstrap)"),
                N_SAMPLES,
                Column("n_corruptions", "int", "corruptions that the value is over; 0: clean images"),
                Column("corrupted_set", "text", "its title", role="setting"),
            ),
        ),
    )
    section: ClassVar[Section] = Section(
        heading="Common corruptions",
        text="Accuracy on corrupted test images at severities 1 to 5.",
        drawings=(
            Drawing(
                title="Accuracy per corruption and severity",
                caption="Left: each corruption, mean over severities. Right: mean over corruptions, from clean (0) to "
                "most severe.",
                draw="reports.figures:corruptions",
                stem="corruptions",
            ),
            Drawing(
                title="Every cell",
                caption="Accuracy in percent in each cell; dark cells are where the network fails.",
                draw="reports.figures:corruption_heatmap",
                stem="corruptions_heatmap",
            ),
        ),
    )

    split: Literal["train", "test"] = split_setting("test")
    batch_size: int | None = batch_setting(2500)
    cifar10c: Path | None = setting(
        None,
        "folder of the set: NAME.npy and labels.npy, the official CIFAR-10-C or CIFAR-100-C or what `analyze "
        "make-cifar10c` made, whose every MD5 is checked; or, with --allow-unverified, MNIST-C "
        "(NAME/test_images.npy, NAME/test_labels.npy), ImageNet-C or Tiny-ImageNet-C (NAME/SEVERITY/CLASS/*.JPEG); has "
        "to be given",
        metavar="DIR",
        flags=("--cifar10c", "--corrupted-set"),
        in_key=False,
        group="corrupted set",
    )
    corruptions: tuple[str, ...] | None = setting(
        None,
        "evaluate these only",
        metavar="NAME",
        default_text="all 15, or all of a set of your own",
        group="corrupted set",
    )
    allow_unverified: bool = setting(
        False,
        "use files whose MD5 is not as it should be, or is not known, labelled unverified, instead of refusing them",
        group="corrupted set",
    )
    baseline: Path | None = setting(
        None,
        "compare with this network: difference of mean accuracy (paired), mCE, the mean corruption error relative to "
        "its, and relative mCE, the same of what the corruptions add to the error",
        metavar="CKPT",
        default_text="neither, since CIFAR-10-C has no standard baseline",
        group="corrupted set",
    )
    no_clean: bool = setting(False, "leave out the accuracy on the clean test images", group="corrupted set")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cifar10c is None:
            raise InputError("--cifar10c DIR is missing: the folder of the corrupted set")
        if self.split != "test":
            raise InputError("corrupted sets are made from the test images: leave --split at test")

    @classmethod
    def settings_of_inputs(cls, inputs: Mapping[str, Path]) -> dict[str, Any]:
        """Return the folder of the corrupted set."""
        return {"cifar10c": inputs["set"].parent}

    def load(self, loading: Loads, path: Path, given: Path) -> "Subject":
        """Return the network with *all* clean test images: ``samples`` chooses among the set's, in every cell."""
        return loading.subject(path, split=self.split)

    def compute(self, subject: "Subject", show: Show = silent) -> Found:
        """Evaluate one network on the set."""
        data = self._set(show)
        return self._measure(subject, data, self._reference(subject, data, show), show)

    def compute_all(self, subjects: "Iterable[Subject]", show: Show = silent) -> Found:
        """Evaluate several networks on the set, whose files are checked once, and the baseline once."""
        subjects = list(subjects)
        data = self._set(show)
        reference = self._reference(subjects[0], data, show)
        return labelled([(subject, self._measure(subject, data, reference, show)) for subject in subjects])

    def _set(self, show: Show) -> "CorruptedSet":
        from robustness.cifar10c import open_corrupted_set

        assert self.cifar10c is not None
        return open_corrupted_set(
            self.cifar10c,
            corruptions=self.corruptions,
            allow_unverified=self.allow_unverified,
            progress=show(f"checking {self.cifar10c}", "file"),
        )

    def _reference(
        self, subject: "Subject", data: "CorruptedSet", show: Show
    ) -> "tuple[Subject, CorruptionAccuracy] | None":
        """Return the baseline, loaded as ``subject`` was, with its accuracies."""
        if self.baseline is None:
            return None
        baseline = subject.beside(self.baseline)
        return baseline, self._evaluate(baseline, data, show)

    def _measure(
        self,
        subject: "Subject",
        data: "CorruptedSet",
        reference: "tuple[Subject, CorruptionAccuracy] | None",
        show: Show,
    ) -> Found:
        baseline, known = (None, None) if reference is None else reference
        same = baseline is not None and baseline.digest == subject.digest
        found = known if same and known is not None else self._evaluate(subject, data, show)
        means = found.summary(baseline=known, baseline_name=str(self.baseline))
        return Found(
            tables={
                "corruptions": found.frame().assign(corrupted_set=data.title),
                "corruptions_summary": means.assign(corrupted_set=data.title),
            },
            record={
                "corrupted_set": {"title": data.title, "md5": {file.name: file.md5 for file in data.files}},
                "baseline": None if baseline is None else baseline.name,
            },
            sources=() if baseline is None else (baseline,),
        )

    def _evaluate(self, subject: "Subject", data: "CorruptedSet", show: Show) -> "CorruptionAccuracy":
        import numpy as np
        import torch

        from robustness.corruption_accuracy import evaluate_corruptions

        images = subject.images
        if not (isinstance(images, torch.Tensor) and images.dtype == torch.uint8 and images.ndim == 4):
            raise InputError(f"corrupted sets are of uint8 images; those that {subject.name} takes are none")
        clean = None if self.no_clean else (images, subject.labels)
        if clean is not None and not np.array_equal(subject.labels.cpu().numpy(), data.labels):
            self._check_order(subject.labels.cpu().numpy(), data)
            warnings.warn(
                f"{data.folder} was not made from the test images of {subject.dataset}: no clean accuracy", stacklevel=2
            )
            clean = None
        return evaluate_corruptions(
            subject.model,
            data,
            normalise=subject.normalise,
            clean=clean,
            samples=self._chosen(len(data.labels)),
            batch_size=self.batch_size or len(data.labels),
            seed=self.seed,
            progress=show(f"{subject.name}: {data.title}", "image"),
        )

    def _check_order(self, clean: "NDArray[np.int64]", data: "CorruptedSet") -> None:
        """Refuse labels that nobody vouches for and that are those of the test images in another order."""
        import numpy as np

        unknown = any(file.provenance == "unverified" for file in data.files)
        if unknown and len(clean) == len(data.labels) and np.array_equal(np.sort(clean), np.sort(data.labels)):
            raise InputError(
                f"{data.folder} has the labels of the clean test images in another order, and nobody vouches for its "
                "files: its labels may be shuffled. If its images are in that order too, --no-clean takes it as it is"
            )

    def _chosen(self, count: int) -> "NDArray[np.int64] | None":
        """Return the numbers of the images that ``samples`` and ``seed`` choose, None for all."""
        import numpy as np

        if self.samples is None or self.samples >= count:
            return None
        return np.sort(np.random.default_rng(self.seed).choice(count, self.samples, replace=False))

    def text(self, found: Found) -> str:
        """Return one line a network: accuracies in percent with their intervals, ratios as they are."""
        from reports.tables import render

        means = found.tables["corruptions_summary"]
        percent = ~means.quantity.isin(["relative_accuracy", "mce", "relative_mce"])
        scaled = means[["value", "ci_low", "ci_high"]].mul(percent.map({True: 100.0, False: 1.0}), axis=0)
        digits = percent.map({True: 1, False: 3})
        cells = [
            f"{value:.{d}f} [{low:.{d}f}, {high:.{d}f}]"
            for (value, low, high), d in zip(scaled.itertuples(index=False, name=None), digits, strict=True)
        ]
        names = means.quantity.replace(
            {"mean_accuracy": "mean", "mce": "mCE", "relative_mce": "relative mCE"}
        ).str.replace("_", " ")
        against = means.group.str.startswith("against ")
        titles = names.where(means.group == "all", means.group.where(~against, names + " " + means.group))
        table = means.assign(cell=cells, column=titles)
        wide = table.pivot_table(index="column", columns="checkpoint", values="cell", aggfunc="first")
        wide = wide.loc[list(dict.fromkeys(titles)), list(dict.fromkeys(means.checkpoint))]
        title = "% correct [95 % interval]; ratios as they are (shares of 1 in the CSV files)"
        return f"{title}\n{render(wide.rename_axis('').reset_index())}"

    @classmethod
    def merits(cls, table: "DataFrame") -> "DataFrame | None":
        """Return the mean accuracy over corruptions and severities."""
        cells = 100 * table.loc[table["severity"] >= 1, "accuracy"]
        return cells.groupby(level=0, sort=False).mean().to_frame("mean corrupted accuracy (%)")
