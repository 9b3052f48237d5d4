"""Checkpoints: plain dictionaries of tensors that load without running anybody's code."""

import dataclasses
import io
import os
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from alignscape.errors import DivergedError, InputError
from alignscape.files import atomic_path
from alignscape.recorded import read_recorded
from training.config import TrainConfig
from training.data import Dataset
from training.data_names import is_own
from training.models import build_model
from training.refused import is_torchscript, refused_pickle, resave
from training.rules import Rule, make_rule
from training.rules.base import wrapped_layers
from training.rules.others import origin_text
from training.rules.wrapping import replace_layers

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class DataInfo:
    """What a checkpoint knows of its data: enough to rebuild the network and to find the same pixels again.

    Attributes:
        name: of the data set.
        input_shape: (C, H, W), or the shape of an input that is no image.
        classes: number of classes.
        mean: that pixels in [0, 1] are normalised by, one a channel.
        std: the same.
        digest: SHA-256 (64 hex digits) of both splits.
        splits: of data of a user's, the digest of each split by itself; what it was is known from nowhere else.

    Example:
        >>> from training import DataInfo, load_dataset
        >>> info = DataInfo.of(load_dataset("digits"))
        >>> info.input_shape, info.classes, len(info.digest)
        ((1, 8, 8), 10, 64)
    """

    name: str
    input_shape: tuple[int, ...]
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    digest: str
    splits: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        fields = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}
        return fields if self.splits else {k: v for k, v in fields.items() if k != "splits"}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "DataInfo":
        """Undo :meth:`to_dict`."""
        restored: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        return cls(**restored)

    @classmethod
    def of(cls, data: Dataset) -> "DataInfo":
        """Describe ``data``."""
        return cls(
            name=data.name,
            input_shape=data.input_shape,
            classes=data.classes,
            mean=data.mean,
            std=data.std,
            digest=data.digest(),
            splits={"train": data.train.digest(), "test": data.test.digest()} if is_own(data.name) else {},
        )


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One network at one moment of its training.

    Attributes:
        config: that it is trained by.
        data: that it is trained on.
        model: state dict of the plain network.
        feedback: the tensors that its training twin holds beyond it.
        epoch: finished epochs.
        step: finished steps of the optimiser.
        metrics: of the epoch, as in ``metrics.csv``, and whether the run has diverged.
        rule_origin: where a rule that is not ours came from, see :func:`training.rules.others.origin`.
        digest: SHA-256 of the file that it was read from.

    Example:
        >>> from training import Checkpoint, DataInfo, TrainConfig, build_model, load_dataset
        >>> config, data = TrainConfig(hidden=(16,)), DataInfo.of(load_dataset("digits"))
        >>> weights = build_model(config, data.input_shape, data.classes).state_dict()
        >>> start = Checkpoint(config=config, data=data, model=weights, feedback={}, epoch=0, step=0, metrics={})
        >>> sum(p.numel() for p in start.plain_model().parameters())
        1210
    """

    config: TrainConfig
    data: DataInfo
    model: dict[str, Tensor]
    feedback: dict[str, Tensor]
    epoch: int
    step: int
    metrics: dict[str, float | bool]
    rule_origin: dict[str, str] = field(default_factory=dict)
    digest: str = ""

    def rule(self) -> Rule:
        """Return the run's learning rule.

        Raises:
            InputError: a rule that is not ours and is not here to load; the message says where it was from.
        """
        try:
            return make_rule(self.config)
        except InputError as error:
            if not self.rule_origin:
                raise
            raise InputError(
                f"this needs the rule that trained the run, {origin_text(self.rule_origin)}: {error}"
            ) from error

    def plain_model(self) -> nn.Module:
        """Return the plain network with these weights, in evaluation mode, on the CPU: the twin for every analysis.

        Raises:
            InputError: weights that do not fit the config (named), or that are not finite.
        """
        model = build_model(self.config, self.data.input_shape, self.data.classes)
        load_weights(model, self.model)
        return model.eval()

    def training_twin(self) -> nn.Module:
        """Return the network with its rule's backward pass and these feedback tensors, in evaluation mode.

        Raises:
            InputError: as :meth:`plain_model`; feedback tensors that are missing or do not fit.
        """
        model = build_model(self.config, self.data.input_shape, self.data.classes)
        twin = self.rule().wrap(model, self.data.input_shape)
        load_weights(twin, {**self.model, **self.feedback})
        return twin.eval()

    def feedback_path(self, first_layer: str = "feedback") -> nn.Module:
        """Return the network whose gradient by its input is what its own backward pass sends there; for attacks in
        the mode labelled ``feedback``, and nothing else.

        Training sends nothing below the first layer, so what takes its W's place on the way to the pixels is a choice:
        ``feedback``, the matrix that FA, IFA and DFA have drawn for it and never use; or ``forward``, its own W, as
        rules have it that draw none there (PFA, KP, WM, USF).
        """
        twin = self.training_twin()
        if first_layer == "forward":
            plain, layers = self.plain_model(), wrapped_layers(twin).items()
            twin = replace_layers(twin, {n: plain.get_submodule(n) for n, layer in layers if not layer.sends_down})
        return self.rule().attack_path(twin.eval())


def split_state(model: nn.Module, twin: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the state dict of the plain ``model``, and the tensors that only its training ``twin`` has."""
    plain = model.state_dict()
    return plain, {name: tensor for name, tensor in twin.state_dict().items() if name not in plain}


def save_checkpoint(checkpoint: Checkpoint, path: str | os.PathLike[str]) -> None:
    """Write ``checkpoint`` atomically. It holds no optimiser state, so it stays the size of the network.

    Args:
        checkpoint: tensors on any device.
        path: of the file; a folder that does not exist is made.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from training import Checkpoint, DataInfo, TrainConfig, build_model, load_checkpoint, load_dataset
        >>> from training import save_checkpoint
        >>> config, data = TrainConfig(hidden=(16,)), DataInfo.of(load_dataset("digits"))
        >>> weights = build_model(config, data.input_shape, data.classes).state_dict()
        >>> start = Checkpoint(config=config, data=data, model=weights, feedback={}, epoch=0, step=0, metrics={})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_checkpoint(start, Path(folder) / "ckpt.pt")
        ...     back = load_checkpoint(Path(folder) / "ckpt.pt")
        >>> back.config == config, bool((back.model["layers.0.bias"] == weights["layers.0.bias"]).all())
        (True, True)
    """
    fields = {
        "format": FORMAT,
        "config": {
            **checkpoint.config.recorded(),
            "data": checkpoint.data.to_dict(),
        },
        "model": _on_cpu(checkpoint.model),
        "feedback": _on_cpu(checkpoint.feedback),
        "epoch": checkpoint.epoch,
        "step": checkpoint.step,
        "metrics": dict(checkpoint.metrics),
        **({"rule_origin": dict(checkpoint.rule_origin)} if checkpoint.rule_origin else {}),
    }
    with atomic_path(path) as temporary, open(temporary, "wb") as handle:
        torch.save(fields, handle)  # given a name, torch writes it into the file, and this one holds our process id


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read one of our checkpoints onto the CPU.

    Raises:
        InputError: no such file; truncated or not a torch file; a pickle that would run code (it does not run); a
            file that is not a checkpoint of ours; one from a newer version.

    Example:
        >>> import tempfile
        >>> from training import TrainConfig, load_checkpoint, load_dataset, train
        >>> config = TrainConfig(rule="fa", hidden=(32,), epochs=5, batch_size=20, lr=0.01, train_size=300)
        >>> data = load_dataset("digits", train_size=300)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     checkpoint = load_checkpoint(train(config, data, folder).checkpoint)
        >>> checkpoint.epoch, checkpoint.metrics["test_accuracy"] > 0.5, list(checkpoint.feedback)
        (5, True, ['layers.0.feedback', 'layers.1.feedback'])
        >>> sum(p.numel() for p in checkpoint.plain_model().parameters())
        2410
    """
    fields, digest = read_with_digest(path)
    if not _is_ours(fields):
        raise InputError(f"{path} is not an alignscape checkpoint; for a plain state dict give --model and --dataset")
    return _checkpoint(fields, path, digest)


def find_checkpoint(path: str | os.PathLike[str]) -> Checkpoint | None:
    """Read one of our checkpoints onto the CPU; None for any other file that can be read.

    Raises:
        InputError: as :func:`load_checkpoint`, but for a file that is not a checkpoint of ours.
    """
    if Path(path).suffix in (".safetensors", ".json"):  # of others: weights, or an index of them
        return None
    fields, digest = read_with_digest(path)
    return _checkpoint(fields, path, digest) if _is_ours(fields) else None


def _is_ours(fields: Any) -> bool:
    return isinstance(fields, dict) and {"format", "config", "model", "feedback"} <= fields.keys()


def _checkpoint(fields: dict[str, Any], path: str | os.PathLike[str], digest: str) -> Checkpoint:
    if fields["format"] != FORMAT:
        raise InputError(f"{path} has checkpoint format {fields['format']}; this alignscape reads format {FORMAT}")
    try:
        config = dict(fields["config"])
        data = DataInfo.from_dict(config.pop("data"))
        return Checkpoint(
            config=TrainConfig.from_dict(config),
            data=data,
            model=fields["model"],
            feedback=fields["feedback"],
            epoch=fields["epoch"],
            step=fields["step"],
            metrics=fields["metrics"],
            rule_origin=dict(fields.get("rule_origin", {})),
            digest=digest,
        )
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise InputError(f"{path}: {error}") from error
        raise InputError(f"{path} is damaged: {type(error).__name__}: {error}") from error


def is_checkpoint(path: str | os.PathLike[str]) -> bool:
    """Tell whether the readable torch file at ``path`` has the form of our checkpoints."""
    if Path(path).suffix in (".safetensors", ".json"):
        return False
    return _is_ours(read_torch_file(path))


def load_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy ``weights`` into ``model``.

    Args:
        model: any ``nn.Module``.
        weights: a state dict; every tensor of the model must be in it, and no other. As in torch's strict loading, the
            count of batches that normalisation layers keep beside their statistics may be missing, as it is in files
            from before torch 0.4.1; nothing in evaluation depends on it.

    Raises:
        InputError: keys or shapes that do not fit, the first few named; values that are NaN or infinite.

    Example:
        >>> import torch
        >>> from training import load_weights
        >>> model = torch.nn.Linear(3, 2)
        >>> load_weights(model, {"weight": torch.zeros(2, 3), "bias": torch.ones(2)})
        >>> model(torch.zeros(1, 3)).tolist()
        [[1.0, 1.0]]
        >>> load_weights(model, {"weight": torch.zeros(2, 4), "bias": torch.ones(2)})
        Traceback (most recent call last):
        alignscape.errors.InputError: the weights do not fit the model Linear: weight is (2, 4), the model wants (2, 3)
    """
    own, spare = model.state_dict(), spare_names(model)
    problems = [f"missing {name}" for name in own if name not in weights and name not in spare]
    problems += [f"unexpected {name}" for name in weights if name not in own]
    problems += [
        f"{name} is {tuple(weights[name].shape)}, the model wants {tuple(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    if problems:
        shown = "; ".join(problems[:4]) + (f"; and {len(problems) - 4} more" if len(problems) > 4 else "")
        raise InputError(f"the weights do not fit the model {type(model).__name__}: {shown}")
    if broken := not_finite(weights):
        raise DivergedError(f"the weights hold NaN or infinity in {', '.join(broken[:4])}: the run has diverged")
    model.load_state_dict(dict(weights))


def spare_names(model: nn.Module) -> set[str]:
    """Return the names of what a state dict may lack: the counts of batches that normalisation layers keep beside
    their statistics, which files from before torch 0.4.1 have not; nothing in evaluation depends on them."""
    return {f"{name}.num_batches_tracked".lstrip(".") for name, m in model.named_modules() if isinstance(m, _NormBase)}


def not_finite(weights: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the tensors that hold NaN or infinity."""
    return [n for n, t in weights.items() if t.is_floating_point() and not torch.isfinite(t).all()]


def read_torch_file(path: str | os.PathLike[str]) -> Any:
    """Load what ``torch.save`` wrote, with ``weights_only=True`` and in no other way, onto the CPU.

    Raises:
        DamagedError: other bytes than were recorded when it was written.
        InputError: no such file; truncated or foreign bytes; a pickle that would run code (it does not run).
    """
    return read_with_digest(path)[0]


def read_with_digest(path: str | os.PathLike[str]) -> tuple[Any, str]:
    """Return what :func:`read_torch_file` does, and the SHA-256 of the file, which is read once.

    Raises:
        InputError: as :func:`read_torch_file`.
    """
    if not Path(path).is_file():
        raise InputError(f"no such file: {path}")
    content, digest = read_recorded(path)
    if content[:2] not in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):  # zip, or a pickle
        raise InputError(f"{path} is truncated or not a torch file")
    if is_torchscript(content):
        raise InputError(
            f"{path} is a TorchScript archive, which is code: {resave(path, 'torch.jit.load', '.state_dict()')}"
        )
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True), digest
    except pickle.UnpicklingError as error:
        # The bytes are those of a pickle, and the restricted reader will not have them.
        raise InputError(refused_pickle(path, content, error)) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is truncated or not a torch file") from error


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # clone(): a view would drag the whole storage behind it into the file.
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
