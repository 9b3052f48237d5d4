"""How networks and their samples are found: the settings that every analysis has. Nothing heavy is imported."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignscape.device import DEVICES, device_name
from alignscape.settings import Only, at_least, check_settings, setting
from training.data_names import DATA_SETS

if TYPE_CHECKING:
    from reports.subjects import Subject

_FOREIGN = "networks that are no run of ours"
_DATA = "data"


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
    image_size: int | None = setting(
        None,
        "pixels a side that the pictures of imagefolder:DIR are resized and cropped to",
        metavar="PIXELS",
        check=at_least(1, most=4096),
        default_text="that of the run, else 224",
        only=Only("--dataset imagefolder:DIR", lambda one: (one.dataset or "").startswith("imagefolder:")),
        group=_FOREIGN,
    )
    output: str | None = setting(
        None,
        "which part of what the network returns are the logits: a name, or a number of a tuple",
        metavar="NAME",
        default_text="all of it, or `logits` where there are several",
        group=_FOREIGN,
    )
    pretrained: bool = setting(
        False,
        "take the weights that the zoo of --model has published from its cache on this machine, in place of a "
        "checkpoint; nothing is fetched without --download",
        only=Only("--model torchvision:NAME, timm:NAME or hf:NAME", lambda one: _of_zoo(one.model)),
        group=_FOREIGN,
    )
    mean: tuple[float, ...] | None = setting(
        None,
        "for a state dict: mean of each channel that it was trained with, of pixels in [0, 1] (of floats as they are)",
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
    download: bool = setting(
        False, "fetch a missing data set into --data-root first, and missing weights of --pretrained", group=_DATA
    )
    device: str = setting(
        "auto",
        f"where to compute: {DEVICES}; auto takes CUDA where there is one",
        metavar="DEVICE",
        parse=device_name,
        group="output",
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
        from reports.found import file_of, find_network
        from training.foreign import weights_digest

        if self.pretrained and path == Path(self.model or ""):
            published = {"model": self.model, "dataset": self.dataset, "pretrained": True, "download": self.download}
            return find_network(path, **published).digest  # type: ignore[arg-type]
        return weights_digest(file_of(path))


def _of_zoo(model: str | None) -> bool:
    return (model or "").partition(":")[0] in ("torchvision", "timm", "hf")


OF_RUNS = ("data_root", "download", "device")  # what an analysis of our runs alone needs of these
