from .blocks import Block, Blocks, parameter_groups
from .bootstrap import DataError, data_error
from .density import Band, SpectralDensity, slq_budget, slq_density, spectral_density
from .directions import filter_normalised_directions
from .lanczos import Eigenpairs, Subspace, extreme_eigenpairs, krylov_subspace, top_eigenpairs
from .operator import HessianOperator
from .parameters import flatten, select_parameters, unflatten
from .path import PathLosses, path_losses
from .snapshots import Snapshots
from .solvers import Solution, solve
from .surfaces import Surface, surface
from .symmetric import SymmetricOperator
from .traces import Estimate, Trace, hutchinson_trace, trace
from .trajectory import TrajectoryPCA, trajectory_pca

__all__ = [
    "Band",
    "Block",
    "Blocks",
    "DataError",
    "Eigenpairs",
    "Estimate",
    "HessianOperator",
    "PathLosses",
    "Snapshots",
    "Solution",
    "SpectralDensity",
    "Subspace",
    "Surface",
    "SymmetricOperator",
    "Trace",
    "TrajectoryPCA",
    "data_error",
    "extreme_eigenpairs",
    "filter_normalised_directions",
    "flatten",
    "hutchinson_trace",
    "krylov_subspace",
    "parameter_groups",
    "path_losses",
    "select_parameters",
    "slq_budget",
    "slq_density",
    "solve",
    "spectral_density",
    "surface",
    "top_eigenpairs",
    "trace",
    "trajectory_pca",
    "unflatten",
]
