"""The samples that a loss is averaged over: tensors or batches that can be read again.

Every average here is over what the loss itself divides by, samples as a rule (:mod:`landscape.weights`). A mean over
batch means weights a sample by the size of its batch: with batches of 400 and 100 samples that alone made
Hessian-vector products 41 % wrong.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call

from alignscape.errors import InputError
from alignscape.trees import map_tensors, tensors_in

Data: TypeAlias = tuple[Any, ...] | list[Any] | Mapping[str, Any] | Iterable[Any]
Loss: TypeAlias = Callable[..., Tensor]
Reduction: TypeAlias = Literal["mean", "sum"]
Transform: TypeAlias = Callable[[Any], Any]


@dataclass(frozen=True)
class Batch:
    """Some samples: what the model is called with, and what the loss gets besides the outputs.

    Attributes:
        inputs: a tensor; a tuple or list, given to the model as positional arguments; a mapping, given by name.
        targets: further arguments of the loss, as a rule one tensor. Where a batch is one mapping, that mapping.
    """

    inputs: Any
    targets: tuple[Any, ...]

    @classmethod
    def of(cls, item: Any) -> "Batch":
        """Return what one item of the data, ``(inputs, targets, ...)`` or a mapping, stands for.

        Raises:
            InputError: it is neither.
        """
        if isinstance(item, Mapping):
            return cls(item, (item,))
        if isinstance(item, (tuple, list)) and len(item) >= 2:
            return cls(item[0], tuple(item[1:]))
        raise InputError(
            f"a batch is (inputs, targets), with more arguments of the loss behind them, or a mapping of tensors; "
            f"this one is {'one tensor' if isinstance(item, Tensor) else f'a {type(item).__name__}'}"
        )

    @property
    def size(self) -> int:
        """The number of samples: the length of the first target, or of the first input where no target has one."""
        lengths = [len(t) for t in tensors_in((self.targets, self.inputs)) if t.dim() > 0]
        if not lengths:
            raise InputError("a batch holds no tensor with an axis of samples")
        return lengths[0]

    @property
    def can_be_cut(self) -> bool:
        """Whether the first axis of every tensor is that of the samples."""
        return {len(t) for t in tensors_in((self.inputs, self.targets)) if t.dim() > 0} == {self.size}

    def cut(self, first: int, last: int) -> "Batch":
        """Return the samples from ``first`` to ``last``."""
        return self.map(lambda t: t[first:last] if t.dim() > 0 else t)

    def map(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        """Return the batch with ``function`` applied to every tensor; a mapping in both places stays one."""
        inputs = map_tensors(function, self.inputs)
        same = len(self.targets) == 1 and self.targets[0] is self.inputs
        return Batch(inputs, (inputs,) if same else map_tensors(function, self.targets))

    def outputs(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> Any:
        """Return what ``model`` makes of the inputs at the parameters and buffers ``tensors``."""
        if isinstance(self.inputs, Mapping):
            return functional_call(model, dict(tensors), (), dict(self.inputs))
        args = tuple(self.inputs) if isinstance(self.inputs, (tuple, list)) else (self.inputs,)
        return functional_call(model, dict(tensors), args)

    def loss(self, loss: Loss, outputs: Any) -> Tensor:
        """Return the scalar that ``loss`` makes of ``outputs`` and the targets.

        Raises:
            InputError: it is not one number.
        """
        value = loss(outputs, *self.targets)
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise InputError("the loss must return one number for a batch; use reduction='mean' or 'sum'")
        return value.reshape(())


def loss_reduction(loss: Loss, reduction: Reduction | None = None) -> Reduction:
    """Return how ``loss`` reduces over its batch: as told, else its ``reduction`` attribute, else ``"mean"``.

    Raises:
        InputError: the loss returns one value per sample, or the name is unknown.
    """
    found = reduction or getattr(loss, "reduction", "mean")
    if found not in ("mean", "sum", "batchmean"):
        raise InputError(f"the loss has reduction={found!r}; use a loss that is reduced by 'mean' or 'sum'")
    return "sum" if found == "sum" else "mean"


def whole_set(data: Data) -> Batch | None:
    """Return ``data`` as one batch if it is all samples at once, None if it is an iterable of batches.

    All at once are a mapping of tensors, and a tuple or list (inputs, targets, ...) with tensors from the second
    place on: a list of batches has no tensor there.
    """
    if isinstance(data, Mapping):
        return Batch.of(data)
    if isinstance(data, (tuple, list)) and len(data) >= 2:
        parts_fit = isinstance(data[0], (Tensor, tuple, list, Mapping))
        if parts_fit and all(isinstance(part, Tensor) for part in data[1:]):
            return Batch.of(data)
    return None


class Batches:
    """The batches of ``data`` in a fixed order, on ``device``, floating inputs and targets in ``dtype``.

    Args:
        data: (inputs (N, ...), targets (N, ...), ...), a mapping of such tensors, or an iterable of such batches
            that gives the same ones each time (a ``DataLoader`` with ``shuffle=False``, a list). See :class:`Batch`
            for what the model and the loss get of a batch.
        batch_size: samples a batch when ``data`` is all samples at once; all of them if None. Batches given by an
            iterable are used as they come.
        transform: applied to the inputs of each batch on ``device`` as it is read, such as the normalisation of
            uint8 images, which takes four times their memory.

    Iterating raises :class:`InputError` where a pass does not repeat the first one: products over different
    data do not belong to one matrix.
    """

    def __init__(
        self,
        data: Data,
        *,
        batch_size: int | None = None,
        transform: Transform | None = None,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise InputError(f"the batch size is {batch_size}; it must be at least 1")
        self.device = device
        self.dtype = dtype
        self.batch_size = batch_size
        self.transform = transform
        self._whole = whole_set(data)
        self._data = data
        self._seen: list[tuple[float, ...]] = []
        self._complete = False
        if self._whole is not None:
            _check_lengths(self._whole)
        elif isinstance(data, Iterator) or not isinstance(data, Iterable):
            raise InputError(
                "the data must be a pair of tensors or batches that can be read more than once; "
                "turn a generator into a list"
            )

    @property
    def is_whole(self) -> bool:
        """Whether the batches are cut from all samples at once, so that their size is ours to choose."""
        return self._whole is not None

    def __len__(self) -> int:
        """Return the number of batches.

        Raises:
            TypeError: an iterable that does not say.
        """
        if self._whole is None:
            return len(self._data)  # type: ignore[arg-type]
        return -(-self._whole.size // (self.batch_size or max(self._whole.size, 1)))

    def first(self, count: int) -> Batch:
        """Return the first ``count`` samples of a whole set (fewer if it has fewer), as an iteration gives them."""
        assert self._whole is not None, "only a whole set can be cut"
        batch = self._whole.cut(0, count)
        if batch.size == 0:
            raise InputError("the data holds no sample")
        return self._transformed(batch.map(self._move))

    def __iter__(self) -> Iterator[Batch]:
        count = 0
        for batch in self._raw():
            if batch.size == 0:
                continue
            moved = batch.map(self._move)
            self._check_repeats(count, moved)
            count += 1
            yield self._transformed(moved)
        if count == 0:
            raise InputError("the data holds no sample")
        if self._whole is None and self._complete and count != len(self._seen):
            raise InputError(f"the data gave {len(self._seen)} batches at first and {count} later")
        self._complete = True

    def _raw(self) -> Iterator[Batch]:
        if self._whole is None:
            yield from map(Batch.of, self._data)
            return
        size = self.batch_size or max(self._whole.size, 1)
        for first in range(0, self._whole.size, size):
            yield self._whole.cut(first, first + size)

    def _transformed(self, batch: Batch) -> Batch:
        if self.transform is None:
            return batch
        return Batch(map_tensors(self._move, self.transform(batch.inputs)), batch.targets)

    def _move(self, part: Tensor) -> Tensor:
        dtype = self.dtype if part.is_floating_point() else part.dtype
        return part.to(device=self.device, dtype=dtype, non_blocking=True)

    def _check_repeats(self, index: int, batch: Batch) -> None:
        if self._whole is not None:
            return
        sums = [float(t.sum(dtype=torch.float64)) for t in tensors_in((batch.inputs, batch.targets))]
        fingerprint = (float(batch.size), *sums)
        if not self._complete and index == len(self._seen):
            self._seen.append(fingerprint)
        elif index >= len(self._seen) or self._seen[index] != fingerprint:
            raise InputError(
                "the data changed between two passes; use shuffle=False and no random augmentation, "
                "or pass the samples as a pair of tensors"
            )


def _check_lengths(whole: Batch) -> None:
    """Raise :class:`InputError` unless all tensors of the set have one length."""
    inputs, targets = ([len(t) for t in tensors_in(part) if t.dim() > 0] for part in (whole.inputs, whole.targets))
    if len({*inputs, *targets}) > 1:
        told = [" and ".join(map(str, dict.fromkeys(lengths))) for lengths in (inputs, targets)]
        raise InputError(f"there are {told[0]} inputs but {told[1]} targets; the first axis of each is the samples'")
    if not inputs:
        raise InputError("the data holds no tensor with an axis of samples")
