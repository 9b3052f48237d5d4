"""A stand-in for CUDA graphs on a CPU: it keeps to their rules, and breaks where they would.

A recording keeps the operators that a call dispatches, below autograd and ``vmap``, with the very tensors and the
numbers that they got. A replay runs these operators again and puts what they give into the tensors of the recording: no
Python of the step runs, addresses stay, numbers are frozen, and random numbers come from the global stream as it stands
then. As on a GPU, a call that is recorded changes nothing, and reading a value or bringing one from the host in it is
an error.
"""

from collections import Counter

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# What makes the host wait for a GPU, or a GPU read what a recording does not keep.
FORBIDDEN = (
    *("_local_scalar_dense", "equal", "is_nonzero", "nonzero", "masked_select", "_unique", "unique_", "bincount"),
    *("lift_fresh", "repeat_interleave.Tensor", "_assert_async"),
)


def tensors_in(*values):
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def storage(tensor):
    return tensor.untyped_storage()._cdata


class Tape(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls = []
        self.made = {}  # storages that were made in the recording, which keeps them
        self.before = {}  # of others that it wrote to: what they held

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, str(func).removeprefix("aten.")
        masks = name.startswith("index") and any(t.dtype in (torch.bool, torch.uint8) for t in tensors_in(args[1]))
        if name.startswith(FORBIDDEN) or masks:
            raise RuntimeError(f"operation not permitted when stream is capturing: {name}")
        if isinstance(kwargs.get("generator"), torch.Generator):
            raise RuntimeError("the generator is not registered with the graph")
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                self.keep(value)
        for argument in func._schema.arguments:
            if argument.name in kwargs and argument.alias_info is not None and argument.alias_info.is_write:
                self.keep(kwargs[argument.name])
        if name.startswith("native_batch_norm"):  # its schema does not say that it writes running statistics
            self.keep(args[3:5])
        result = func(*args, **kwargs)
        given = {storage(t) for t in tensors_in(args, kwargs)}
        self.made |= {storage(t): t for t in tensors_in(result) if storage(t) not in given}
        if not name.startswith("profiler"):
            self.calls.append((func, args, kwargs, result))
        return result

    def keep(self, value):
        for tensor in tensors_in(value):
            if storage(tensor) not in self.made and storage(tensor) not in self.before:
                whole = tensor.detach().as_strided((tensor.untyped_storage().nbytes() // tensor.itemsize,), (1,), 0)
                self.before[storage(tensor)] = whole, whole.clone()

    def undo(self):
        for whole, value in self.before.values():
            whole.copy_(value)

    @torch.no_grad()
    def replay(self):
        for func, args, kwargs, result in self.calls:
            given = {storage(t) for t in tensors_in(args, kwargs)}
            for old, new in zip(tensors_in(result), tensors_in(func(*args, **kwargs)), strict=True):
                if storage(old) not in given:
                    old.copy_(new)


class TapeRecorder:
    """``training.captured.Recorder`` on a CPU; it counts what it is asked for."""

    def __init__(self, device=None):
        self.device = torch.device("cpu") if device is None else device
        self.counts = Counter()
        self.tapes = []

    def run(self, body):
        self.counts["run"] += 1
        body()

    def record(self, body):
        self.counts["record"] += 1
        tape, state = Tape(), torch.get_rng_state()
        try:
            with tape:
                body()
        finally:
            with torch.no_grad():
                tape.undo()
            torch.set_rng_state(state)
        self.tapes.append(tape)

        def replay():
            self.counts["replay"] += 1
            tape.replay()

        return replay
