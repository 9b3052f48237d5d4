"""The balls that bound a perturbation: how to start in one, step towards more loss, and come back."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from alignscape.errors import InputError

ROUNDING = 2e-6  # pixels are float32 in [0, 1]; adding and subtracting a perturbation rounds by about 1e-7


def per_image(values_N: Tensor, images: Tensor) -> Tensor:
    """Reshape one value an image, (N,), to broadcast over ``images``, (N, ...)."""
    return values_N.reshape(-1, *[1] * (images.ndim - 1))


class Norm(Protocol):
    """A norm ball of radius eps about each image: the three hooks of the attack loop, and a ruler."""

    name: str

    def random_point(self, shape: Sequence[int], rng: np.random.Generator) -> np.ndarray:
        """Return one random point of the unit ball, float32, of one image's ``shape``."""

    def direction(self, gradient: Tensor) -> Tensor:
        """Return the unit step of steepest ascent for each image, a new tensor of shape (N, ...)."""

    def project(self, perturbation: Tensor, eps_N: Tensor) -> Tensor:
        """Return the nearest point of each image's ball, a new tensor of shape (N, ...)."""

    def size(self, perturbation: Tensor) -> Tensor:
        """Return the norm of each image's perturbation, shape (N,)."""

    def largest_eps(self, n_pixels: int) -> float:
        """Return the radius beyond which the ball holds every image in [0, 1]."""


class Linf:
    """The largest change of any pixel."""

    name = "linf"

    def random_point(self, shape: Sequence[int], rng: np.random.Generator) -> np.ndarray:
        return rng.random(shape, dtype=np.float32) * 2 - 1

    def direction(self, gradient: Tensor) -> Tensor:
        return gradient.sign()

    def project(self, perturbation: Tensor, eps_N: Tensor) -> Tensor:
        bound = per_image(eps_N, perturbation)
        return torch.minimum(perturbation, bound).maximum(-bound)  # on a CPU three times as fast as clamp

    def size(self, perturbation: Tensor) -> Tensor:
        return perturbation.flatten(1).abs().amax(1)

    def largest_eps(self, n_pixels: int) -> float:
        return 1.0


class L2:
    """The Euclidean length of the change, over all pixels and channels."""

    name = "l2"

    def random_point(self, shape: Sequence[int], rng: np.random.Generator) -> np.ndarray:
        """Return a point of uniformly random direction and radius (as torchattacks does, denser inside)."""
        direction = rng.standard_normal(shape, dtype=np.float32)
        return direction * (rng.random(dtype=np.float32) / np.linalg.norm(direction))

    def direction(self, gradient: Tensor) -> Tensor:
        # Scaled by the largest element first: the squares of a tiny gradient would underflow.
        largest = per_image(gradient.flatten(1).abs().amax(1), gradient)
        scaled = gradient / largest.clamp_min(torch.finfo(gradient.dtype).tiny)
        return scaled / per_image(self.size(scaled).clamp_min(1e-12), gradient)

    def project(self, perturbation: Tensor, eps_N: Tensor) -> Tensor:
        length = self.size(perturbation).clamp_min(torch.finfo(perturbation.dtype).tiny)
        return perturbation * per_image((eps_N / length).clamp(max=1), perturbation)

    def size(self, perturbation: Tensor) -> Tensor:
        return torch.linalg.vector_norm(perturbation.flatten(1), dim=1)

    def largest_eps(self, n_pixels: int) -> float:
        return float(n_pixels**0.5)


NORMS: dict[str, Norm] = {"linf": Linf(), "l2": L2()}


def norm_named(name: str) -> Norm:
    """Return the norm called ``name``.

    Raises:
        InputError: there is none; the message lists those there are.
    """
    if name not in NORMS:
        raise InputError(f"unknown norm {name!r}; known: {', '.join(NORMS)}")
    return NORMS[name]


def unit_noise(norm: Norm, shape: Sequence[int], numbers: Sequence[int], seed: int, restart: int) -> Tensor:
    """Return a random point of the unit ball for each image of ``numbers``, shape (N, *shape), on the CPU.

    Each image has a generator of its own, so that its start does not depend on the batch size, the device, or
    which other images are still in the race. It does not depend on eps either: two radii start from the same
    direction, which keeps a curve smooth.
    """
    noise = np.empty((len(numbers), *shape), dtype=np.float32)
    for row, number in enumerate(numbers):
        noise[row] = norm.random_point(shape, np.random.default_rng((seed, restart, number)))
    return torch.from_numpy(noise)
