"""What is analysed: a plain network with its data, from any file that a user may hold."""

import functools
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from alignscape.device import resolve_device
from alignscape.errors import DivergedError, InputError
from training.checkpoint import Checkpoint, find_checkpoint, load_weights
from training.config import TrainConfig
from training.data import Normalise, Split, hold_out, load_split, source
from training.foreign import fitting, load_hugging_face, load_state_dict, outputs_wanted, weights_digest, weights_in
from training.losses import TrainingLoss
from training.models import import_model
from training.models.imported import ZOOS

DATA_ROOT_VARIABLE = "ALIGNSCAPE_DATA"
CHECKPOINT = "ckpt.pt"  # of a run folder
CHANCE_SAMPLES, LEAST_SAMPLES = 256, 50  # that are looked at for chance; fewer say nothing


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One network on one device with the samples to analyse it on: what an analysis is given.

    Attributes:
        name: the ``checkpoint`` column of every table: the path as the user gave it.
        path: the file.
        digest: SHA-256 of the file.
        model: the plain network in evaluation mode; takes normalised images and returns logits (N, classes).
        normalise: maps uint8 images, or pixels in [0, 1], to normalised images.
        images: (N, C, H, W) uint8; of data in memory (N, ...) of any type.
        labels: (N,) int64.
        dataset: name of the data set.
        split: ``train`` or ``test``.
        data_digest: SHA-256 of the samples.
        data_root: folder of the data sets.
        checkpoint: ours, with config and feedback; None for a network that is no run of ours.
        columns: ``rule, angle, seed, epoch`` of a checkpoint of ours.
        doubt: what makes its numbers doubtful, to be told beside them; of networks that were trained elsewhere.
        load: loads another network in the same way.

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

    @property
    def device(self) -> torch.device:
        """Where the network and the samples are."""
        return self.labels.device

    @functools.cached_property
    def training_loss(self) -> TrainingLoss:
        """What its run minimised, which is what analyses call its loss; cross-entropy for a network that is no run of
        ours."""
        return TrainingLoss() if self.checkpoint is None else TrainingLoss.of(self.checkpoint.config)

    @functools.cached_property
    def loss(self) -> nn.Module:
        """The mean loss by logits and :attr:`targets`."""
        return self.training_loss.criterion()

    @functools.cached_property
    def targets(self) -> Tensor:
        """The labels as :attr:`loss` takes them."""
        classes = 0 if self.checkpoint is None else self.checkpoint.data.classes
        return self.training_loss.targets(self.labels, classes)

    def inputs(self) -> Tensor:
        """Return the normalised images (N, C, H, W) as floats: what the network takes."""
        return self.normalise(self.images)

    def pixels(self) -> Tensor:
        """Return the images as floats, uint8 divided by 255: what an attack changes."""
        return self.images.float() / 255 if self.images.dtype == torch.uint8 else self.images

    def pixel_model(self) -> nn.Module:
        """Return the network that takes pixels in [0, 1] and normalises inside: what an attack attacks."""
        return self._pixel_model.eval()

    @functools.cached_property
    def _pixel_model(self) -> nn.Module:
        # One object: that a backward pass is around the attacked network itself is told by identity.
        return nn.Sequential(self.normalise, self.model)

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
) -> Subject:
    """Load the network at ``path`` and ``samples`` samples (all if None, drawn by ``seed``) of ``split``.

    ``path`` is a checkpoint of ours, a run folder (its ``ckpt.pt``), a state dict file together with ``model`` (see
    :func:`training.models.import_model`) and ``dataset``, or a folder of Hugging Face's (``config.json`` and weights)
    together with ``dataset``.

    Raises:
        DivergedError: the weights are not finite, or the run is recorded to have diverged.
        InputError: whatever is wrong with the file, the model, the data or the device.
    """
    options = {name: value for name, value in locals().items() if name != "path"}
    target = resolve_device(device)
    file = _file_of(path)
    of_others = model is not None or (path.is_dir() and file.name != CHECKPOINT)
    checkpoint = None if of_others else find_checkpoint(file)
    cut: tuple[int | None, int, float] = None, 0, 0.0
    if checkpoint is not None:
        network, info = checkpoint.plain_model(), checkpoint.data
        if checkpoint.metrics.get("diverged"):
            raise DivergedError("the run has diverged")
        dataset, mean, std = dataset or info.name, mean or info.mean, std or info.std
        if split == "train" and dataset == info.name:
            config = checkpoint.config
            cut = config.train_size, config.subset_seed, config.validation
    else:
        network, dataset = _foreign_model(path, file, model, dataset)
        mean, std = mean or source(dataset).mean, std or source(dataset).std
    root = find_data_root(data_root, file)
    data, digest = _samples(dataset, split, root, download, cut, samples, seed, target)
    normalise = normalise_for(mean, std, data).to(target)
    network = network.to(target).eval()
    check_fit(network, normalise, data, dataset, classes=source(dataset).classes)
    return Subject(
        name=os.fspath(path),
        path=file,
        digest=weights_digest(file) if checkpoint is None else checkpoint.digest,
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
        doubt=doubt_of(network, normalise, data, path) if checkpoint is None else _other_loss(checkpoint, path),
        load=functools.partial(load_subject, **options),
    )


@functools.lru_cache(maxsize=2)
def _samples(
    dataset: str,
    split: str,
    root: Path | None,
    download: bool,
    cut: tuple[int | None, int, float],
    samples: int | None,
    seed: int,
    device: torch.device,
) -> tuple[Split, str]:
    """Return samples on a device and their digest, read once for all networks that are analysed on them."""
    size, subset_seed, held_out = cut
    data = load_split(dataset, split, root, download=download).subset(size, subset_seed)
    if held_out:  # the run has not learned from these
        data, _ = hold_out(data, held_out, subset_seed)
    data = data.subset(samples if samples is None else min(samples, len(data)), seed).to(device)
    return data, data.digest()


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


def _foreign_model(path: Path, file: Path, model: str | None, dataset: str | None) -> tuple[nn.Module, str]:
    """Return the network of somebody else's weights, which are in ``file``, and the data set to analyse it on."""
    if path.is_dir() and model is None and dataset is not None and (path / "config.json").is_file():
        source(dataset)
        network = load_hugging_face(path)
        load_weights(network, network.state_dict())  # which refuses those that are not finite
        return network, dataset
    if model is None or dataset is None:
        state = load_state_dict(file)  # says so if the file is broken or refused, before asking for more
        known = model is not None or (path.is_dir() and (path / "config.json").is_file())
        flags = " and ".join(f for f, v in (("--model", known), ("--dataset", dataset is not None)) if not v)
        raise InputError(f"{file} is a plain state dict ({len(state)} tensors): give {flags}")
    source(dataset)
    state = load_state_dict(file)
    network = import_model(model)
    if model.partition(":")[0] in ZOOS and (outputs := outputs_wanted(state, network)) is not None:
        network = import_model(model, classes=outputs)
    load_weights(network, fitting(state, network))
    return network, dataset


def _file_of(path: Path) -> Path:
    """Return the file that holds the weights of ``path``.

    Raises:
        InputError: there is none.
    """
    if not path.is_dir():
        if path.is_file():
            return path
        raise InputError(f"no such checkpoint: {path}")
    if (file := path / CHECKPOINT).is_file():
        return file
    if (weights := weights_in(path)) is not None:
        return weights
    hint = "; the run is not finished" if (path / "metrics.csv").is_file() or (path / ".lock").is_file() else ""
    raise InputError(f"no such checkpoint: {file}{hint}")


def normalise_for(mean: Sequence[float], std: Sequence[float], data: Split) -> Normalise:
    """Return what normalises the images of ``data``.

    Raises:
        InputError: not a value for each channel, or a deviation that is not positive.
    """
    channels = data.images.shape[1]
    if len(mean) != channels or len(std) != channels or min(std) <= 0:
        raise InputError(f"the images have {channels} channels: --mean and --std need {channels} values, std positive")
    return Normalise(tuple(mean), tuple(std))


def check_fit(
    network: nn.Module, normalise: nn.Module, data: Split, dataset: str, *, classes: int | None = None
) -> None:
    """Fail early, in one line, where network and data do not go together; None: any number of classes may be.

    Raises:
        InputError: they do not.
    """
    shape = tuple(data.images.shape[1:])
    try:
        with torch.no_grad():
            logits = network(normalise(data.images[:2]))
    except (RuntimeError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"the model does not take {dataset}'s images of shape {shape}: {reason}") from error
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise InputError("the model must return one tensor of logits (N, classes)")
    if classes is not None and logits.shape[1] != classes:
        raise InputError(f"the model has {logits.shape[1]} outputs, {dataset} has {classes} classes")
    if logits.shape[1] <= int(data.labels.max()):
        raise InputError(
            f"the model has {logits.shape[1]} classes, {dataset} has labels up to {int(data.labels.max())}"
        )


def _other_loss(checkpoint: Checkpoint, path: Path) -> str:
    """Say what is called the loss of a run that did not minimise plain cross-entropy; else nothing."""
    if not (words := TrainingLoss.of(checkpoint.config).words()):
        return ""
    return f"{path} was trained on the {words}: that is its loss here, while attacks climb what their --loss says"


@torch.no_grad()
def doubt_of(network: nn.Module, normalise: nn.Module, data: Split, path: Path) -> str:
    """Say so where a network that was trained elsewhere does no better on these samples than guessing would: then it
    is most likely given other pixels, or another order of the classes, than it was trained with. Else nothing."""
    some = data.subset(min(len(data), CHANCE_SAMPLES), 0)
    logits = network(normalise(some.images))
    right, guessed = int((logits.argmax(1) == some.labels).sum()), 1 / logits.shape[1]
    most = len(some) * guessed + 2 * math.sqrt(len(some) * guessed * (1 - guessed))
    if len(some) < LEAST_SAMPLES or right > most:
        return ""
    text = (
        f"{path} is right on {right} of {len(some)} samples, no more than by chance: is it trained on this data set, "
    )
    return f"{text}with these --mean and --std?"
