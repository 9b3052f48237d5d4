"""A training step recorded once as a CUDA graph and replayed: one launch instead of a few hundred."""

import gc
from collections.abc import Callable

import torch
from torch import Tensor


class CapturedStep:
    """Calls ``body(batch)``; on a GPU the first calls run as they are and later ones replay a recording of it.

    A small network's step on a GPU takes less time to do than to launch kernel by kernel. ``body`` must find and leave
    all its state in tensors that stay where they are, and must not read any on the host; Python numbers that it uses
    (a learning rate, say) are frozen into the recording, so call :meth:`forget` when one changes. Elsewhere than on a
    GPU, and for a body that draws random numbers, ``body`` is just called.
    """

    WARM_UP = 3  # calls before recording, on a side stream: libraries set themselves up in their first calls

    def __init__(self, body: Callable[[Tensor], None], *, enabled: bool = True) -> None:
        self.body = body
        self.enabled = enabled
        self._calls: dict[torch.Size, int] = {}
        self._recorded: dict[torch.Size, tuple[torch.cuda.CUDAGraph, Tensor]] = {}

    def __call__(self, batch: Tensor) -> None:
        """Do one step on ``batch``: indices into the data, of a shape that the recording is kept for."""
        if not self.enabled or batch.device.type != "cuda":
            self.body(batch)
            return
        if batch.shape not in self._recorded:
            self._calls[batch.shape] = self._calls.get(batch.shape, 0) + 1
            if self._calls[batch.shape] <= self.WARM_UP:
                self._on_side_stream(batch)
                return
            self._record(batch)
        graph, static = self._recorded[batch.shape]
        static.copy_(batch)
        graph.replay()

    def forget(self) -> None:
        """Record anew at the next call."""
        self._recorded.clear()

    def _on_side_stream(self, batch: Tensor) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self.body(batch)
        torch.cuda.current_stream().wait_stream(stream)

    def _record(self, batch: Tensor) -> None:
        gc.collect()  # what earlier recordings held in cycles; nothing may be freed while one is made
        graph, static = torch.cuda.CUDAGraph(), batch.clone()
        torch.cuda.synchronize()
        with torch.cuda.graph(graph):  # records the kernels; none of them runs
            self.body(static)
        self._recorded[batch.shape] = graph, static
