"""Common image corruptions: the fifteen of CIFAR-10-C, vectorised over images, seeded per image.

A definition holds them: ``cifar_c(load_frost_textures(folder)).corrupt(images, "fog", severity=3, seed=0)``.
"""

from robustness.corruptions.definitions import SEVERITIES, Corruption, Definition, cifar_c, small_images
from robustness.corruptions.frost import FrostTextures, load_frost_textures

__all__ = [
    "SEVERITIES",
    "Corruption",
    "Definition",
    "FrostTextures",
    "cifar_c",
    "load_frost_textures",
    "small_images",
]
