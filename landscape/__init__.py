"""Loss landscapes: curvature, spectra, trajectories and surfaces of any ``nn.Module``.

Every function takes ``(model, loss, data)``: any module, ``loss(outputs, targets)`` -> scalar, and a pair of tensors
or a re-iterable of batches. Directions are flat vectors, one a row, in the order of ``model.named_parameters()``.

The public names are listed in ``__init__.pyi`` and loaded when first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
