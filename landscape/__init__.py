"""Loss landscapes: curvature, spectra, trajectories and surfaces of any ``nn.Module``.

Every function takes ``(model, loss, data)``: any module, ``loss(outputs, targets)`` -> scalar, and a pair of tensors
or a re-iterable of batches. Directions are flat vectors, one a row, in the order of ``model.named_parameters()``.
"""

from landscape.density import SpectralDensity, slq_budget, slq_density, spectral_density
from landscape.lanczos import Eigenpairs, extreme_eigenpairs, top_eigenpairs
from landscape.operator import HessianOperator
from landscape.parameters import flatten, select_parameters, unflatten
from landscape.trace import Trace, hutchinson_trace, trace

__all__ = [
    "Eigenpairs",
    "HessianOperator",
    "SpectralDensity",
    "Trace",
    "extreme_eigenpairs",
    "flatten",
    "hutchinson_trace",
    "select_parameters",
    "slq_budget",
    "slq_density",
    "spectral_density",
    "top_eigenpairs",
    "trace",
    "unflatten",
]
