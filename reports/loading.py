"""How networks and their samples are found: the settings that every analysis has. Nothing heavy is imported."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from alignscape.settings import check_settings, setting

if TYPE_CHECKING:
    from reports.subjects import Subject

_FOREIGN = "networks that are no run of ours"
_DATA = "data"
DATA_SETS = "digits, mnist, cifar10, cifar100, svhn or stl10"


@dataclass(frozen=True, kw_only=True)
class Loading:
    """How a checkpoint becomes a network with data.

    Raises:
        InputError: a value is out of its range.
    """

    model: str | None = setting(
        None,
        "for a state dict: the network it belongs to: package.module:factory (called without arguments), "
        "torchvision:NAME, timm:NAME or hf:FOLDER",
        metavar="REF",
        group=_FOREIGN,
    )
    dataset: str | None = setting(
        None,
        f"for a state dict: data set to analyse it on: {DATA_SETS}",
        metavar="NAME",
        default_text="that of the run",
        group=_FOREIGN,
    )
    mean: tuple[float, ...] | None = setting(
        None,
        "for a state dict: mean of each channel that it was trained with, of pixels in [0, 1]",
        metavar="M",
        default_text="the data set's",
        group=_FOREIGN,
    )
    std: tuple[float, ...] | None = setting(
        None,
        "for a state dict: standard deviation of each channel, likewise",
        metavar="S",
        default_text="the data set's",
        group=_FOREIGN,
    )
    data_root: Path | None = setting(
        None,
        "folder that holds the data sets in torchvision's layout; digits need none",
        metavar="DIR",
        default_text="$ALIGNSCAPE_DATA, else where the run was trained from, else ./data",
        group=_DATA,
    )
    download: bool = setting(False, "fetch a missing data set into --data-root first", group=_DATA)
    device: Literal["auto", "cpu", "cuda"] = setting(
        "auto", "where to compute; auto takes CUDA where there is one", group="output"
    )

    def __post_init__(self) -> None:
        check_settings(self)

    def subject(self, path: Path, *, split: str = "test", samples: int | None = None, seed: int = 0) -> "Subject":
        """Return the network at ``path`` with the samples that ``split, samples, seed`` describe.

        Raises:
            InputError: as :func:`reports.subjects.load_subject`.
        """
        from reports.subjects import load_subject

        how: dict[str, Any] = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return load_subject(path, split=split, samples=samples, seed=seed, **how)

    def digest(self, path: Path) -> str:
        """Return the SHA-256 of the weights at ``path``.

        Raises:
            InputError: there are none.
        """
        from reports.subjects import file_of
        from training.foreign import weights_digest

        return weights_digest(file_of(path))


OF_RUNS = ("data_root", "download", "device")  # what an analysis of our runs alone needs of these
