"""One Hessian over several processes: every process holds the model and its part of the samples.

What is added up are *sums* over samples, divided once by the number of samples of all processes: averaging the
means of uneven parts was 2.1 % wrong. All vectors and decisions are replicated, so every process must use the
same seed. Give the bare module: products through ``DistributedDataParallel`` silently differ between ranks.
"""

import gc
import os
from collections.abc import Sequence

import torch
from torch import Tensor
from torch import distributed as dist


def join() -> "dist.ProcessGroup | None":
    """Join the processes that ``torchrun`` started and return their group; None for a process by itself.

    On CUDA every process takes the GPU of its local rank, by NCCL; without CUDA they talk by gloo.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return None
    if not dist.is_initialized():
        cuda = torch.cuda.is_available()
        if cuda:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("nccl" if cuda else "gloo")
    return dist.group.WORLD


def leave() -> None:
    """Leave the processes that :func:`join` joined, all together; nothing for a process by itself.

    The threads of a group outlive ``destroy_process_group`` for as long as anything refers to the group, and one that
    meets the interpreter's own end aborts the process: call this when the operators are gone.
    """
    if not dist.is_initialized():
        return
    dist.barrier()  # the store lives in process 0, which must not go first
    gc.collect()
    dist.destroy_process_group()


def all_sum(tensor: Tensor, group: "dist.ProcessGroup | None") -> Tensor:
    """Return the sum of ``tensor`` over the processes of ``group``; ``tensor`` itself if it is None."""
    if group is not None:
        dist.all_reduce(tensor, op=dist.ReduceOp.SUM, group=group)
    return tensor


def shard(tensors: Sequence[Tensor], *, rank: int, world_size: int) -> tuple[Tensor, ...]:
    """Return the samples of process ``rank``: the contiguous ``rank``-th of ``world_size`` nearly equal parts."""
    return tuple(tensor.tensor_split(world_size)[rank] for tensor in tensors)
