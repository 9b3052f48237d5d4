"""A step recorded once as a CUDA graph and replayed: one launch instead of a few hundred."""

import gc
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from alignscape.memory import free_memory
from alignscape.seeding import kept_streams
from training.recordable import Watch


class Recorder(Protocol):
    """What can record the work of a call on a device, and replay it there."""

    device: torch.device

    def run(self, body: Callable[[], None]) -> None:
        """Call ``body`` where :meth:`record` will call it too."""
        ...

    def record(self, body: Callable[[], None]) -> Callable[[], None]:
        """Call ``body`` without doing its work, and return what does it, on the tensors that it found."""
        ...


class CudaRecorder:
    """CUDA graphs with one pool of memory and one stream between them.

    One pool will do: all that a step allocates is dead at its end, so that a step on a smaller last mini-batch works in
    the memory of the others. So will one stream, and it must be the same for what runs before: libraries' workspaces
    and autograd's nodes belong to the stream they were made on, and a recording cannot wait for another.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)
        self.pool = torch.cuda.graph_pool_handle()

    def run(self, body: Callable[[], None]) -> None:
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            body()
        current.wait_stream(self.stream)

    def record(self, body: Callable[[], None]) -> Callable[[], None]:
        gc.collect()  # what earlier recordings held in cycles; nothing may be freed while one is made
        graph = torch.cuda.CUDAGraph()
        # Older versions of torch stay on the recording's stream when it fails: the outer context goes back.
        outer = torch.cuda.stream(torch.cuda.current_stream(self.device))
        with outer, torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
            body()
        return graph.replay


def are_recorded(device: torch.device) -> bool:
    """Whether steps are recorded on ``device``: not where launching them costs little."""
    return device.type == "cuda"


def recorder_for(device: torch.device) -> Recorder | None:
    """Return what records steps on ``device``, if they are."""
    return CudaRecorder(device) if are_recorded(device) else None


class CapturedStep:
    """Calls ``body(*tensors)``; with a recorder the first calls run as they are and later ones replay a recording.

    A small network's step on a GPU takes less time to do than to launch kernel by kernel. ``body`` must find and leave
    all its state in tensors that stay where they are, and must not read any on the host; Python numbers that it uses
    are frozen into the recording, so call :meth:`forget` when one changes. Whether it keeps to that is not left to
    trust: the last call before the recording is watched (:class:`training.recordable.Watch`), and the first replay is
    compared with the call itself. A body that does not is called as it is from there on, and a warning says why.

    Args:
        body: the step.
        recorder: None to call it as it is.
        moving: returns all tensors that a call changes.
        keepers: modules and other objects whose attributes a call must leave alone.
        what: the step's name in the warning.
    """

    WARM_UP = 3  # calls before recording: libraries set themselves up in their first calls
    TOLERANCE = 1e-2  # of what a call changes; kernels may add in another order from call to call

    def __init__(
        self,
        body: Callable[..., None],
        recorder: Recorder | None,
        *,
        moving: Callable[[], Iterable[Tensor]] = tuple,
        keepers: Sequence[object] = (),
        what: str = "a step",
    ) -> None:
        self.body = body
        self.recorder = recorder
        self.moving = moving
        self.keepers = keepers
        self.what = what
        self.compared = False
        self._calls: dict[tuple[torch.Size, ...], int] = {}
        self._recorded: dict[tuple[torch.Size, ...], tuple[Callable[[], None], list[Tensor]]] = {}

    def __call__(self, *tensors: Tensor) -> None:
        """Do one step on ``tensors``, for whose shapes a recording is kept."""
        if self.recorder is None:
            self.body(*tensors)
            return
        shapes = tuple(tensor.shape for tensor in tensors)
        if shapes in self._recorded:
            replay, inputs = self._recorded[shapes]
            torch._foreach_copy_(inputs, list(tensors))
            replay()
            return
        self._calls[shapes] = self._calls.get(shapes, 0) + 1
        if self._calls[shapes] < self.WARM_UP:
            self.recorder.run(lambda: self.body(*tensors))
        elif self._calls[shapes] == self.WARM_UP:
            self._watch(self.recorder, tensors)
        else:
            self._record(self.recorder, shapes, tensors)

    def forget(self) -> None:
        """Record anew at the next call."""
        self._recorded.clear()

    def _watch(self, recorder: Recorder, tensors: Sequence[Tensor]) -> None:
        """Do one step, and note what a recording of it would miss."""
        with Watch(recorder.device, self.keepers) as watch:
            recorder.run(lambda: self.body(*tensors))
        if watch.reason is not None:
            self._give_up(watch.reason)

    def _record(self, recorder: Recorder, shapes: tuple[torch.Size, ...], tensors: Sequence[Tensor]) -> None:
        """Record a step and do it."""
        inputs = [tensor.clone() for tensor in tensors]
        try:
            replay = recorder.record(lambda: self.body(*inputs))
        except Exception as error:  # if it is not the recording's, the call itself raises it again
            self._give_up((str(error).splitlines() or [type(error).__name__])[0])
            self.body(*tensors)
            return
        self._recorded[shapes] = replay, inputs
        if self.compared:
            replay()
            return
        self.compared = True
        if not self._agrees(recorder, replay, inputs):
            self._give_up("replayed, it gives other numbers")

    def _agrees(self, recorder: Recorder, replay: Callable[[], None], inputs: Sequence[Tensor]) -> bool:
        """Do one step, and return whether ``replay`` would have done the same."""
        moving = list(self.moving())
        before = _copies(moving, recorder.device)
        with kept_streams(recorder.device):
            replay()  # and the step itself draws the same
        replayed = _copies(moving, recorder.device)
        with torch.no_grad():
            for tensor, start in zip(moving, before, strict=True):
                tensor.copy_(start)
        recorder.run(lambda: self.body(*inputs))
        return all(
            _close(tensor.detach().to(start.device), start, found, self.TOLERANCE)
            for tensor, start, found in zip(moving, before, replayed, strict=True)
        )

    def _give_up(self, reason: str) -> None:
        self.recorder = None
        self.forget()
        warnings.warn(f"{self.what} is not recorded for the GPU, and takes longer to launch: {reason}", stacklevel=4)


def _copies(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Return copies, on the device if two of each leave half of it free."""
    free = free_memory(device)
    fits = free is None or 4 * sum(tensor.nbytes for tensor in tensors) < free
    return [tensor.detach().to(device if fits else "cpu", copy=True) for tensor in tensors]


def _close(after: Tensor, before: Tensor, found: Tensor, tolerance: float) -> bool:
    """Whether ``found`` is ``after``, measured by how far that is from ``before``; what is not finite is left open."""
    if after.dtype == torch.bool or torch.equal(after, found):
        return torch.equal(after, found)
    size, moved, off = (
        torch.linalg.vector_norm(x.double() if not x.is_floating_point() else x, dtype=torch.float64).item()
        for x in (after, after - before, found - after)
    )
    return not off > tolerance * moved + 1e-6 * size
