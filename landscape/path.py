"""The loss along a trajectory, at the weights themselves and at their projections onto its plane."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from alignscape.errors import InputError
from landscape.data import Data, Loss, Reduction, Transform
from landscape.plane import PlaneLoss, Progress
from landscape.snapshots import Snapshots
from landscape.trajectory import TrajectoryPCA


@dataclass(frozen=True, kw_only=True)
class PathLosses:
    """Mean losses of the snapshots; where the two differ, the plane does not show where the path went."""

    loss: Tensor
    """At the weights of each snapshot, (R,), float64."""
    plane_loss: Tensor
    """At its projection onto the plane, (R,), float64: the height of the surface under the drawn path."""


def path_losses(
    model: nn.Module,
    loss: Loss,
    data: Data,
    snapshots: Snapshots | Sequence[Snapshots],
    pca: TrajectoryPCA,
    *,
    reduction: Reduction | None = None,
    batch_size: int | None = None,
    transform: Transform | None = None,
    progress: Progress | None = None,
) -> PathLosses:
    """Evaluate the loss at every snapshot and at its projection onto the plane of the first two components.

    Args:
        model, loss, data, reduction, batch_size, transform, progress: as for :func:`landscape.surface.surface`.
        snapshots: the run or runs that ``pca`` was made of.

    Raises:
        InputError: the snapshots are not of this model, or not those of ``pca``.
    """
    series = [snapshots] if isinstance(snapshots, Snapshots) else list(snapshots)
    if len(pca.directions) < 2:
        raise InputError("a plane needs 2 components; this trajectory has 1")
    if sum(map(len, series)) != len(pca.steps):
        raise InputError("the trajectories are not those that the plane was found from")
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for run in series:
        run.check_fits(trainable)
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        warnings.warn(
            "snapshots hold weights but no running statistics of BatchNorm: losses before the end of training use "
            "the model's present ones",
            stacklevel=2,
        )
    rows = [(run, index) for run in series for index in range(len(run))]
    plane = PlaneLoss(
        model,
        loss,
        data,
        pca.directions[:2],
        origin=pca.origin,
        reduction=reduction,
        batch_size=batch_size,
        transform=transform,
    )
    on_plane = plane.evaluate(pca.coordinates[:, :2]).losses
    true = plane.evaluate_elsewhere(lambda k: rows[k][0].vector(rows[k][1]), len(rows), progress=progress)
    return PathLosses(loss=true, plane_loss=on_plane)
