from .bootstrap import DataError, data_error
from .callbacks import lightning_callback, trainer_callback
from .density import Band, SpectralDensity, slq_budget, slq_density, spectral_density
from .directions import filter_normalised_directions
from .lanczos import Eigenpairs, Subspace, extreme_eigenpairs, krylov_subspace, top_eigenpairs
from .monitor import Curvature, Monitor
from .operator import HessianOperator, SymmetricOperator
from .parameters import flatten, select_parameters, unflatten
from .path import PathLosses, path_losses
from .snapshots import Snapshots
from .stability import Stability, adam_preconditioner, adam_threshold, edge_of_stability, gradient_descent_threshold
from .surfaces import Surface, surface
from .traces import Estimate, Trace, hutchinson_trace, trace
from .trajectory import TrajectoryPCA, trajectory_pca

__all__ = [
    "Band",
    "Curvature",
    "DataError",
    "Eigenpairs",
    "Estimate",
    "HessianOperator",
    "Monitor",
    "PathLosses",
    "Snapshots",
    "SpectralDensity",
    "Stability",
    "Subspace",
    "Surface",
    "SymmetricOperator",
    "Trace",
    "TrajectoryPCA",
    "adam_preconditioner",
    "adam_threshold",
    "data_error",
    "edge_of_stability",
    "extreme_eigenpairs",
    "filter_normalised_directions",
    "flatten",
    "gradient_descent_threshold",
    "hutchinson_trace",
    "krylov_subspace",
    "lightning_callback",
    "path_losses",
    "select_parameters",
    "slq_budget",
    "slq_density",
    "spectral_density",
    "surface",
    "top_eigenpairs",
    "trace",
    "trainer_callback",
    "trajectory_pca",
    "unflatten",
]
