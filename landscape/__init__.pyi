from .blocks import Block, Blocks, parameter_groups
from .bootstrap import DataError, data_error
from .callbacks import lightning_callback, trainer_callback
from .density import Band, SpectralDensity, slq_budget, slq_density, spectral_density
from .directions import filter_normalised_directions
from .lanczos import Eigenpairs, Subspace, extreme_eigenpairs, krylov_subspace, top_eigenpairs
from .monitor import Curvature, Monitor
from .operator import HessianOperator
from .parameters import flatten, select_parameters, unflatten
from .path import PathLosses, path_losses
from .sharpness.fisher_rao import fisher_rao
from .sharpness.losses import LossAround
from .sharpness.minimal import MinimalEigenvalue, MinimalTrace, minimal_eigenvalue, minimal_trace
from .sharpness.pac_bayes import pac_bayes_sigma
from .sharpness.relative_flatness import relative_flatness
from .sharpness.rescaling import Rescalings, rescalings
from .sharpness.worst_case import Ball, first_order_rise, keskar_sharpness, worst_case_rise
from .snapshots import Snapshots
from .solvers import Solution, solve
from .stability import Stability, adam_preconditioner, adam_threshold, edge_of_stability, gradient_descent_threshold
from .surfaces import Surface, surface
from .symmetric import SymmetricOperator
from .traces import Estimate, Trace, hutchinson_trace, trace
from .trajectory import TrajectoryPCA, trajectory_pca

__all__ = [
    "Ball",
    "Band",
    "Block",
    "Blocks",
    "Curvature",
    "DataError",
    "Eigenpairs",
    "Estimate",
    "HessianOperator",
    "LossAround",
    "MinimalEigenvalue",
    "MinimalTrace",
    "Monitor",
    "PathLosses",
    "Rescalings",
    "Snapshots",
    "Solution",
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
    "first_order_rise",
    "fisher_rao",
    "flatten",
    "gradient_descent_threshold",
    "hutchinson_trace",
    "keskar_sharpness",
    "krylov_subspace",
    "lightning_callback",
    "minimal_eigenvalue",
    "minimal_trace",
    "pac_bayes_sigma",
    "parameter_groups",
    "path_losses",
    "relative_flatness",
    "rescalings",
    "select_parameters",
    "slq_budget",
    "slq_density",
    "solve",
    "spectral_density",
    "surface",
    "top_eigenpairs",
    "trace",
    "trainer_callback",
    "trajectory_pca",
    "unflatten",
    "worst_case_rise",
]
