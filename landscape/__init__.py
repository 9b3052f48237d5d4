"""Loss landscapes: curvature, spectra, trajectories and surfaces of any ``nn.Module``.

Every function takes ``(model, loss, data)``: any module, ``loss(outputs, targets)`` -> scalar, and a pair of tensors
or a re-iterable of batches. Directions are flat vectors, one a row, in the order of ``model.named_parameters()``.
"""

from landscape.bootstrap import DataError, data_error
from landscape.density import SpectralDensity, slq_budget, slq_density, spectral_density
from landscape.directions import filter_normalised_directions
from landscape.lanczos import Eigenpairs, Subspace, extreme_eigenpairs, krylov_subspace, top_eigenpairs
from landscape.operator import HessianOperator
from landscape.parameters import flatten, select_parameters, unflatten
from landscape.path import PathLosses, path_losses
from landscape.snapshots import Snapshots
from landscape.surface import Surface, surface
from landscape.trace import Trace, hutchinson_trace, trace
from landscape.trajectory import TrajectoryPCA, trajectory_pca

__all__ = [
    "DataError",
    "Eigenpairs",
    "HessianOperator",
    "PathLosses",
    "Snapshots",
    "SpectralDensity",
    "Subspace",
    "Surface",
    "Trace",
    "TrajectoryPCA",
    "data_error",
    "extreme_eigenpairs",
    "filter_normalised_directions",
    "flatten",
    "hutchinson_trace",
    "krylov_subspace",
    "path_losses",
    "select_parameters",
    "slq_budget",
    "slq_density",
    "spectral_density",
    "surface",
    "top_eigenpairs",
    "trace",
    "trajectory_pca",
    "unflatten",
]
