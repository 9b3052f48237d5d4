"""What the commands on curvature share: their flags, their operator, the memory they report."""

import argparse
from typing import TYPE_CHECKING

from reports.commands.common import positive_float

if TYPE_CHECKING:
    from landscape import HessianOperator
    from reports.subjects import Subject


def add_curvature_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--params --hessian --memory``."""
    group = parser.add_argument_group("matrix")
    group.add_argument(
        "--params",
        nargs="+",
        metavar="GLOB",
        help="weights and biases to take the curvature over, by name, such as 'layers.2.*' (default: all)",
    )
    group.add_argument(
        "--hessian",
        choices=("full", "ggn"),
        default="full",
        help="full: second derivatives of the mean cross-entropy; ggn: its Gauss-Newton part, the Fisher information "
        "(default: full)",
    )
    group.add_argument(
        "--memory",
        type=positive_float,
        metavar="GB",
        help="memory, in 1e9 bytes, for gradient graphs kept between products; less is slower, never different "
        "(default: 1 on a CPU, half of what is free on a GPU)",
    )


def make_operator(args: argparse.Namespace, subject: "Subject", *, groups: int | None = None) -> "HessianOperator":
    """Return the Hessian of the mean cross-entropy of ``subject`` over its samples.

    With ``groups`` the samples are cut into at least so many batches, in an order drawn by ``--seed``. Of several
    processes (``torchrun``) each takes its part of the samples.
    """
    import torch
    from torch import distributed as dist

    from landscape import HessianOperator
    from landscape.distributed import join, shard

    processes = join()
    inputs, targets, batch_size = subject.images, subject.labels, args.batch_size
    if groups is not None:
        generator = torch.Generator().manual_seed(args.seed)
        order = torch.randperm(len(targets), generator=generator).to(targets.device)
        inputs, targets = inputs[order], targets[order]
        batch_size = max(1, min(batch_size or len(targets), len(targets) // groups))
    if processes is not None:
        inputs, targets = shard((inputs, targets), rank=dist.get_rank(), world_size=dist.get_world_size())
    return HessianOperator(
        subject.model,
        torch.nn.CrossEntropyLoss(),
        (inputs, targets),
        params=args.params,
        hessian=args.hessian,
        batch_size=batch_size,
        memory_budget=None if args.memory is None else args.memory * 1e9,
        transform=subject.normalise,  # batch by batch: the samples stay bytes
        group=processes,
    )


def writes_results(args: argparse.Namespace) -> bool:
    """Join the other processes of ``torchrun``, if any; return whether this one writes and prints.

    The others are silenced.
    """
    from torch import distributed as dist

    from landscape.distributed import join

    if join() is None or dist.get_rank() == 0:
        return True
    args.quiet = True
    return False


def peak_memory(subject: "Subject") -> str:
    """Return the largest memory that this process has held, and on the GPU where it used one."""
    import resource

    import torch

    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # Linux counts in kilobytes
    text = f"peak memory {host:.2f} GB"
    if subject.device.type == "cuda":
        text += f", {torch.cuda.max_memory_allocated(subject.device) / 1e9:.2f} GB on the GPU"
    return text
