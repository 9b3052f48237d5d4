"""Robustness of a network: adversarial attacks, whether to believe them, and image corruptions.

A model here maps pixels in [0, 1] to logits and normalises inside.

attacks, square     what an attack does to a batch of images (losses, norms: its parts)
curves              accuracy against eps, fused over eps
masking             the audit: is the gradient that was followed worth following? (case, symptoms: its parts)
corruptions, ...    corrupted image sets and accuracy on them
comparison          paired tests between networks;  intervals: for one network

The public names are listed in ``__init__.pyi`` and loaded when first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
