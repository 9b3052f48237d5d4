"""What the analyses of curvature share: which matrix, over which parameters, with how much memory."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from alignscape.settings import POSITIVE, Only, setting
from reports.analyses.analysis import Analysis
from reports.analyses.groups import BY_HELP
from reports.analyses.objective import objective_setting

if TYPE_CHECKING:
    from landscape import HessianOperator
    from reports.subjects import Subject

MATRIX = "matrix"
PARAMS_HELP = "weights and biases to take the curvature over, by name, such as 'layers.2.*'"


@dataclass(frozen=True, kw_only=True)
class Curvature(Analysis):
    """The Hessian of the mean loss of the run, cross-entropy as a rule, over samples, or its Gauss-Newton part."""

    parallel: ClassVar[bool] = True

    params: tuple[str, ...] | None = setting(None, PARAMS_HELP, metavar="GLOB", default_text="all", group=MATRIX)
    loss: str | None = objective_setting(MATRIX)
    hessian: Literal["full", "ggn", "difference"] = setting(
        "full",
        "full: second derivatives of the mean loss; ggn: its Gauss-Newton part, of cross-entropy the Fisher "
        "information; "
        "difference: the first less the second",
        group=MATRIX,
    )
    memory: float | None = setting(
        None,
        "memory, in 1e9 bytes, for gradient graphs kept between products; less is slower, never different",
        metavar="GB",
        check=POSITIVE,
        default_text="1 on a CPU, half of what is free on a GPU",
        group=MATRIX,
        in_key=False,
    )

    def operator(
        self, subject: "Subject", *, groups: int | None = None, hessian: str | None = None
    ) -> "HessianOperator":
        """Return the matrix, that of the settings or the ``hessian`` named, as an operator on flat vectors.

        With ``groups`` the samples are cut into at least so many batches, in an order drawn by the seed. Of several
        processes (``torchrun``) each takes its part of the samples.
        """
        import torch
        from torch import distributed as dist

        from alignscape.trees import map_tensors
        from landscape import HessianOperator
        from landscape.distributed import join, shard

        processes = join()
        loss, targets = subject.objective(self.loss)
        inputs, batch_size = subject.images, self.batch_size
        if groups is not None:
            generator = torch.Generator().manual_seed(self.seed)
            order = torch.randperm(len(targets), generator=generator).to(targets.device)
            inputs, targets = subject.in_order(order), targets[order]
            batch_size = max(1, min(batch_size or len(targets), len(targets) // groups))
        if processes is not None:
            mine = {"rank": dist.get_rank(), "world_size": dist.get_world_size()}
            inputs = map_tensors(lambda t: shard((t,), **mine)[0], inputs)
            (targets,) = shard((targets,), **mine)
        return HessianOperator(
            subject.model,
            loss,
            (inputs, targets),
            params=self.params,
            hessian=hessian or self.hessian,  # type: ignore[arg-type]  # one of its names
            batch_size=batch_size,
            memory_budget=None if self.memory is None else self.memory * 1e9,
            transform=subject.normalise,  # batch by batch: the samples stay bytes
            group=processes,
        )


@dataclass(frozen=True, kw_only=True)
class CurvatureByGroup(Curvature):
    """Settings of the analyses that also measure groups of parameters."""

    by: tuple[str, ...] | None = setting(None, BY_HELP, metavar="GROUP", default_text="the whole only", group=MATRIX)
    cross: bool = setting(
        False,
        "also between groups: what lies outside of their blocks, as one matrix, and the size of every block",
        group=MATRIX,
        only=Only("--by", lambda one: one.by is not None),
    )
