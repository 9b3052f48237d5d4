"""What is analysed: a plain network with its data, from any file that a user may hold."""

import dataclasses
import functools
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from alignscape.device import resolve_device
from alignscape.errors import DivergedError, InputError
from alignscape.memory import require_memory
from alignscape.trees import call, map_tensors, shapes, tensors_in
from reports.fitting import Stretch, check_fit, doubt_of, normalise_for, range_of, with_logits
from reports.found import find_network
from reports.losses import loss_called, users_loss
from training.checkpoint import Checkpoint
from training.config import TrainConfig
from training.data import Split, described, hold_out, load_split
from training.data.own import split_digest, stamps_of
from training.data.samples import Lazy
from training.data_names import form_of, is_own
from training.losses import TrainingLoss

DATA_ROOT_VARIABLE = "ALIGNSCAPE_DATA"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One network on one device with the samples to analyse it on: what an analysis is given.

    Attributes:
        name: the ``checkpoint`` column of every table: the path as the user gave it.
        path: the file.
        digest: SHA-256 of the file.
        model: the plain network in evaluation mode; takes normalised images and returns logits (N, classes).
        normalise: maps uint8 images, or pixels in [0, 1], to normalised images.
        images: (N, C, H, W) uint8; of a user's data (N, ...) of any type, or several tensors.
        labels: (N,) int64; floats where what is learnt is no class.
        dataset: name of the data set.
        split: ``train`` or ``test``.
        data_digest: SHA-256 of the samples.
        data_root: folder of the data sets.
        checkpoint: ours, with config and feedback; None for a network that is no run of ours.
        columns: ``rule, angle, seed, epoch`` of a checkpoint of ours.
        doubt: what makes its numbers doubtful, to be told beside them; of networks that were trained elsewhere.
        load: loads another network in the same way.
        mapped: whether the inputs lie in a file that is mapped into memory.
        range: smallest and largest value of floats, which stand for pixels 0 and 1 to an attack: its eps is a share of
            what lies between. (0, 1) of pixels, and of floats that lie there.

    Example:
        >>> import torch
        >>> from alignscape import load
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
        >>> subject = load(net, dataset="digits", device="cpu").subject(samples=5)
        >>> subject.model(subject.inputs()).shape, subject.labels.shape
        (torch.Size([5, 10]), torch.Size([5]))
    """

    name: str
    path: Path
    digest: str
    model: nn.Module = field(repr=False)
    normalise: nn.Module = field(repr=False)
    images: Tensor = field(repr=False)
    labels: Tensor = field(repr=False)
    dataset: str
    split: str
    data_digest: str
    data_root: Path | None
    checkpoint: Checkpoint | None = field(repr=False)
    columns: dict[str, Any] = field(default_factory=dict)
    doubt: str = ""
    load: "Callable[[Path], Subject] | None" = field(default=None, repr=False)
    mapped: bool = False
    range: tuple[float, float] = (0.0, 1.0)

    def objective(self, loss: str | None = None) -> "tuple[Callable[..., Tensor], Tensor]":
        """Return the loss whose landscape is meant, a mean by outputs and targets, and the targets (N, ...) that it
        takes: ``loss``, else that of the run, else the cross-entropy.

        Raises:
            InputError: there is no such loss, or it does not fit the labels.
        """
        if loss is not None and ":" in loss:
            return users_loss(loss), self.labels
        chosen = self.training_loss if loss is None else loss_called(loss)
        if self.labels.is_floating_point():
            if chosen.kind != "mse":
                raise InputError(f"the labels of {self.dataset} are floats, and no classes: give --loss mse")
            return chosen.criterion(), self.labels if self.labels.dim() > 1 else self.labels[:, None]
        return chosen.criterion(), chosen.targets(self.labels, self._outputs if chosen.kind == "mse" else 0)

    @functools.cached_property
    def _outputs(self) -> int:
        """Numbers that the network returns for a sample."""
        few = map_tensors(lambda t: t[:2].to(self.device), self.images)
        with torch.no_grad():
            return int(call(self.model, self.normalise(few)).shape[-1])

    def in_order(self, order: Tensor) -> Any:
        """Return the inputs of the samples ``order``, where the inputs are.

        Raises:
            InputError: they are in a file, and memory does not hold a copy.
        """
        size = sum(t.nbytes for t in tensors_in(self.images)) * len(order) // max(len(self.labels), 1)
        if self.mapped:
            advice = "give --samples N"
            require_memory({"inputs": size}, f"{len(order):,} samples of {self.dataset} in another order", advice)
        return map_tensors(lambda t: t[order.to(t.device)], self.images)

    @property
    def device(self) -> torch.device:
        """Where the network and the samples are."""
        return self.labels.device

    @functools.cached_property
    def training_loss(self) -> TrainingLoss:
        """What its run minimised, which is what analyses call its loss; cross-entropy for a network that is no run of
        ours."""
        return TrainingLoss() if self.checkpoint is None else TrainingLoss.of(self.checkpoint.config)

    def inputs(self) -> Any:
        """Return the normalised images (N, C, H, W) as floats, or what else the network takes."""
        return self.normalise(map_tensors(lambda t: t.to(self.device), self.images))

    def pixels(self) -> Tensor:
        """Return the images as floats in [0, 1], uint8 divided by 255: what an attack changes. Floats that are not in
        [0, 1] are brought there by the range that they have in their split: see :attr:`range`.

        Raises:
            InputError: inputs that are several tensors, or no numbers that can be changed a little.
        """
        images = self.images
        if not isinstance(images, Tensor) or not (images.dtype == torch.uint8 or images.is_floating_point()):
            what = shapes(images) if not isinstance(images, Tensor) else str(images.dtype)
            raise InputError(f"an attack changes pixels or floats a little; the inputs of {self.dataset} are {what}")
        if self.labels.is_floating_point():
            raise InputError(f"an attack wants another class to win; the labels of {self.dataset} are floats")
        images = images.to(self.device)
        if images.dtype == torch.uint8:
            return images.float() / 255
        low, high = self.range
        return images if (low, high) == (0.0, 1.0) else ((images - low) / (high - low)).clamp(0, 1)

    def pixel_model(self) -> nn.Module:
        """Return the network that takes pixels in [0, 1] and normalises inside: what an attack attacks."""
        return self._pixel_model.eval()

    @functools.cached_property
    def _pixel_model(self) -> nn.Module:
        # One object: that a backward pass is around the attacked network itself is told by identity.
        return nn.Sequential(self.from_pixels, self.model)

    @functools.cached_property
    def from_pixels(self) -> nn.Module:
        """What makes normalised inputs of pixels in [0, 1]."""
        return self.normalise if self.range == (0.0, 1.0) else nn.Sequential(Stretch(*self.range), self.normalise)

    def beside(self, path: Path) -> "Subject":
        """Return another network, loaded as this one was.

        Raises:
            InputError: it cannot be loaded.
        """
        assert self.load is not None
        try:
            return self.load(path)
        except DivergedError as error:
            raise InputError(f"{path}: {error}") from error


@functools.lru_cache(maxsize=4)
def whole_range(dataset: str, split: str, image_size: int | None, *stamps: object) -> tuple[float, float]:
    """Return :func:`range_of` the whole split of a user's data, whatever samples are taken of it; remembered by the
    ``stamps`` of its files."""
    return range_of(load_split(dataset, split, image_size=image_size).images)


def load_subject(
    path: Path,
    *,
    model: str | None = None,
    dataset: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    data_root: Path | None = None,
    download: bool = False,
    split: str = "test",
    samples: int | None = None,
    seed: int = 0,
    device: str = "auto",
    image_size: int | None = None,
    output: str | None = None,
    pretrained: bool = False,
) -> Subject:
    """Load the network at ``path`` and ``samples`` samples (all if None, drawn by ``seed``) of ``split``.

    ``path`` is a checkpoint of ours, a run folder (its ``ckpt.pt``), a state dict file together with ``model`` (see
    :func:`training.models.import_model`) and ``dataset``, or a folder of Hugging Face's (``config.json`` and weights)
    together with ``dataset``. With ``pretrained`` it may be what ``model`` says.

    Raises:
        DivergedError: the weights are not finite, or the run is recorded to have diverged.
        InputError: whatever is wrong with the file, the model, the data or the device.
    """
    options = {name: value for name, value in locals().items() if name != "path"}
    target = resolve_device(device)
    found = find_network(path, model=model, dataset=dataset, pretrained=pretrained, download=download)
    file, network, checkpoint = found.file, found.model, found.checkpoint
    cut: tuple[int | None, int, float] = None, 0, 0.0
    if checkpoint is not None:
        info = checkpoint.data
        dataset, mean, std = dataset or info.name, mean or info.mean, std or info.std
        if dataset.startswith("imagefolder:"):
            image_size = image_size or checkpoint.config.image_size
        if split == "train" and is_same_data(dataset, info.name):
            config = checkpoint.config
            cut = config.train_size, config.subset_seed, config.validation
    assert dataset is not None
    about = described(dataset, image_size)
    mean, std = mean or found.mean or about.mean, std or found.std or about.std
    root = find_data_root(data_root, file)
    data, digest = _samples(dataset, split, root, download, image_size, cut, samples, seed, target, *stamps_of(dataset))
    normalise = normalise_for(mean, std, data).to(target)
    network = with_logits(network.to(target).eval(), normalise, data, dataset, output)
    check_fit(network, normalise, data, dataset, classes=about.classes)
    doubt = ""
    if checkpoint is None:
        doubt = doubt_of(network, normalise, data, path)
    else:
        doubt = _other_loss(checkpoint, path)
        if checkpoint.data.splits and is_same_data(dataset, checkpoint.data.name):
            doubt = "; ".join(filter(None, (doubt, changed_data(path, checkpoint, dataset, split, image_size))))
    return Subject(
        name=os.fspath(path),
        path=file,
        digest=found.digest,
        model=network,
        normalise=normalise,
        images=data.images,
        labels=data.labels,
        dataset=dataset,
        split=split,
        data_digest=digest,
        data_root=root,
        checkpoint=checkpoint,
        columns={} if checkpoint is None else run_columns(checkpoint.config, checkpoint.epoch),
        doubt=doubt,
        mapped=data.mapped,
        range=whole_range(dataset, split, image_size, *stamps_of(dataset)) if is_own(dataset) else (0.0, 1.0),
        load=functools.partial(load_subject, **options),
    )


def is_same_data(dataset: str, trained_on: str) -> bool:
    """Whether a checkpoint was trained on ``dataset``, as far as the name says; a file may have been moved."""
    return dataset == trained_on or (is_own(dataset) and form_of(dataset) == form_of(trained_on))


def changed_data(path: Path, checkpoint: Checkpoint, dataset: str, split: str, image_size: int | None) -> str:
    """Say so where data of a user's are not those that the run was trained on; else nothing."""
    config = checkpoint.config
    cut = (config.train_size, config.subset_seed) if split == "train" else (None, 0)
    if split_digest(dataset, split, image_size, *cut) == checkpoint.data.splits[split]:
        return ""
    return f"{dataset} has changed since {path} was trained: its {split} split is not the one that the run recorded"


@functools.lru_cache(maxsize=2)
def _samples(
    dataset: str,
    split: str,
    root: Path | None,
    download: bool,
    image_size: int | None,
    cut: tuple[int | None, int, float],
    samples: int | None,
    seed: int,
    device: torch.device,
    *stamps: object,
) -> tuple[Split, str]:
    """Return samples on a device and their digest, read once for all networks that are analysed on them, as long as
    the files of a user's data are as they were (``stamps``)."""
    size, subset_seed, held_out = cut
    data = load_split(dataset, split, root, download=download, image_size=image_size)
    data = data.subset(size if size is None else min(size, len(data)), subset_seed)
    if held_out:  # the run has not learned from these
        data, _ = hold_out(data, held_out, subset_seed)
    data = data.subset(samples if samples is None else min(samples, len(data)), seed).to(device)
    return at_hand(data, dataset), data.digest()


def at_hand(data: Split, dataset: str) -> Split:
    """Return samples that are a tensor, be it one in a file: what analyses read.

    Raises:
        InputError: pictures that are made when they are asked for, or a part of a file, that memory does not hold.
    """
    if not isinstance(data.images, Lazy):
        return data
    advice = "give --samples N"
    require_memory({"images": data.nbytes}, f"{len(data):,} samples of {dataset} that are not kept in a file", advice)
    return dataclasses.replace(data, images=data.images[:])


def run_columns(config: TrainConfig, epoch: int) -> dict[str, Any]:
    """Return the columns that identify a run of ours in a table; ``angle`` (degrees) is NaN but for IFA."""
    angle = config.angle if config.rule == "ifa" else float("nan")
    return {"rule": config.rule, "angle": angle, "seed": config.seed, "epoch": epoch}


def find_data_root(given: Path | None, checkpoint: Path) -> Path | None:
    """Return the folder of data sets: as given, else $ALIGNSCAPE_DATA, else where the run that the checkpoint lies
    in was trained from, else ``./data``."""
    if given is not None:
        return given
    if variable := os.environ.get(DATA_ROOT_VARIABLE):
        return Path(variable)
    for folder in (checkpoint.parent, checkpoint.parent.parent):  # RUN/ckpt.pt, RUN/checkpoints/epoch-0001.pt
        try:
            recorded = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("data_root")
        except (OSError, ValueError, AttributeError):
            continue
        if recorded is not None:
            return Path(recorded)
    return Path("data")


def _other_loss(checkpoint: Checkpoint, path: Path) -> str:
    """Say what is called the loss of a run that did not minimise plain cross-entropy; else nothing."""
    if not (words := TrainingLoss.of(checkpoint.config).words()):
        return ""
    return f"{path} was trained on the {words}: that is its loss here, while attacks climb what their --loss says"
