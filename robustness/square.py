"""Square: an attack that sees outputs only, and so cannot be misled by a masked gradient."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import torch
from torch import Tensor, nn

from alignscape.errors import InputError
from robustness.attacks import Batch, Perturber, SingleAttack
from robustness.first_layer import FirstLayer, cut_after_first_layer
from robustness.inputs import seeded
from robustness.norms import norm_named, per_image
from robustness.square_l2 import Exchange, exchanged, exchanges, n_tiles, tiles

# Side lengths shrink as queries go by: (share of the queries used, divisor of the area); Andriushchenko et al. 2020, 4.
SCHEDULE = (
    (0.8, 512),
    (0.6, 256),
    (0.4, 128),
    (0.2, 64),
    (0.1, 32),
    (0.05, 16),
    (0.02, 8),
    (0.005, 4),
    (0.001, 2),
)
REFRESH = 200  # queries after which what was added up is computed anew


@dataclass(frozen=True, kw_only=True)
class SquareAttack(SingleAttack):
    """Random search over squares (Andriushchenko et al. 2020), at the corners of the L-infinity ball or in the L2 ball.

    Each query moves one square of every image and keeps what lowers the margin: to x + eps or x - eps, channel by
    channel (``linf``, algorithm 2), or a bump takes over what another square holds (``l2``, algorithm 3). As in the
    authors' code all images of a batch share the squares; the stripes or bumps they start from are their own. Unlike
    there a square may touch the last row and column, and in L2 the images share the signs too.

    Attributes:
        queries: forward passes an image, beyond the first, at most.
        restarts: independent repetitions.
        initial_share: share of the image that the first square covers.
        name: what the tables call it.
        norm: ``linf`` or ``l2``.
        loss: ``margin``, the only one.
        needs_gradient: never.

    Raises:
        InputError: a value that makes no attack.

    Example:
        >>> import torch
        >>> from robustness import SquareAttack, attack_curve
        >>> model = torch.nn.Flatten()  # three pixels; the brightest is the class
        >>> images = torch.tensor([[0.6, 0.4, 0.0], [0.2, 0.8, 0.0]]).reshape(2, 1, 1, 3)
        >>> labels = torch.tensor([0, 1])
        >>> curve = attack_curve(model, images, labels, [0.09, 0.15], SquareAttack(queries=50))
        >>> curve.accuracy, curve.gradient
        (tensor([1.0000, 0.5000], dtype=torch.float64), 'none')
    """

    queries: int = 1000
    restarts: int = 1
    initial_share: float = 0.8
    name: str = "square"
    norm: str = "linf"
    loss: str = "margin"
    needs_gradient: bool = False

    def __post_init__(self) -> None:
        if self.queries < 1 or self.restarts < 1:
            raise InputError(f"square needs at least 1 query and 1 restart, got {self.queries}, {self.restarts}")
        if not 0 < self.initial_share <= 1:
            raise InputError(f"the first square covers {self.initial_share:g} of the image; give 0 < share <= 1")
        norm_named(self.norm)

    @property
    def steps(self) -> int:
        return self.queries

    def on(self, batch: Batch, *, restart: int, stop_when_fooled: bool) -> Perturber:
        """Return the perturber; an image always stops once fooled, since the margin can fall no further in sign.

        Raises:
            InputError: the inputs are not images of shape (C, H, W).
        """
        if batch.images.ndim != 4:
            raise InputError(f"square needs images (N, C, H, W), got shape {tuple(batch.images.shape)}")
        corners = self.norm == "linf"
        start = _stripes(batch, restart) if corners else _bumps(batch, restart)
        first = None
        if corners and self.queries > REFRESH:  # in L2 a query changes every pixel: the rest is scaled
            with seeded(batch.seed, batch.images.device):  # a network that draws is left where it was
                first = cut_after_first_layer(batch.model, batch.images)

        def perturber(eps: float | Tensor, chosen: Tensor) -> Tensor:
            rng, shape = np.random.default_rng((batch.seed, restart)), batch.images.shape[1:]
            eps_N = torch.as_tensor(eps).to(batch.images).expand(len(chosen))
            moves = proposals(self, shape, rng) if corners else exchanges(self.sides(shape), shape, rng)
            return _search(batch, chosen, start[chosen], eps_N, moves, first)

        return perturber

    def sides(self, shape: Sequence[int]) -> list[int]:
        """Return each query's side in pixels, at least 1, of images of ``shape``, (C, H, W)."""
        found = []
        for query in range(self.queries):
            divisor = next((d for share, d in SCHEDULE if query / self.queries > share), 1)
            side = round(sqrt(self.initial_share / divisor * shape[1] * shape[2]))
            found.append(min(max(side, 1), *shape[1:]))
        return found


def proposals(
    attack: SquareAttack, shape: Sequence[int], rng: np.random.Generator
) -> Iterator[tuple[int, int, int, Tensor]]:
    """Yield each query's square: its top row, left column, side, and sign for each channel, (C, 1, 1)."""
    channels, height, width = shape
    for side in attack.sides(shape):
        top = int(rng.integers(height - side + 1))
        left = int(rng.integers(width - side + 1))
        yield top, left, side, torch.from_numpy(rng.integers(0, 2, (channels, 1, 1)) * 2 - 1)


def _stripes(batch: Batch, restart: int) -> Tensor:
    """Return vertical stripes of +-1 for each image, shape (N, C, 1, W)."""
    _, channels, _, width = batch.images.shape
    stripes = [
        np.random.default_rng((batch.seed, restart, number)).integers(0, 2, (channels, 1, width)) * 2 - 1
        for number in batch.numbers
    ]
    return torch.from_numpy(np.stack(stripes)).to(batch.images)


def _bumps(batch: Batch, restart: int) -> Tensor:
    """Return bumps all over each image, of length 1, shape (N, C, H, W)."""
    shape = batch.images.shape[1:]
    across = np.random.default_rng((batch.seed, restart)).integers(0, 2, n_tiles(shape)).astype(bool)
    signs = [
        np.random.default_rng((batch.seed, restart, number)).integers(0, 2, (shape[0], n_tiles(shape))) * 2 - 1
        for number in batch.numbers
    ]
    return tiles(shape, across.tolist(), torch.from_numpy(np.stack(signs)).to(batch.images))


@torch.no_grad()
def _search(
    batch: Batch,
    chosen: Tensor,
    start: Tensor,
    eps_N: Tensor,
    moves: Iterable[tuple[int, int, int, Tensor] | Exchange],
    first: FirstLayer | None,
) -> Tensor:
    """Return the best point found for each chosen image, shape (len(chosen), C, H, W)."""
    x, y, eps = batch.images[chosen], batch.labels[chosen], per_image(eps_N, start)
    race = _Race(batch.model, first, (x + eps * start).clamp(0, 1), y)
    result = race.best.clone()
    active = torch.arange(len(chosen), device=x.device)
    for query, move in enumerate(moves):
        if query and query % REFRESH == 0:
            race.refresh()
        if (race.lowest <= 0).any():
            race.refresh((race.lowest <= 0).nonzero().squeeze(1))
            right = race.lowest > 0
            if not right.all():
                result[active] = race.best
                active, x, eps = active[right], x[right], eps[right]
                race.keep(right)
                if not len(active):
                    return result
        if isinstance(move, Exchange):
            race.consider(exchanged(x, race.best, eps.flatten(), move))
            continue
        top, left, side, signs = move
        window = (slice(top, top + side), slice(left, left + side))
        race.propose(window, (x[..., *window] + eps * signs.to(x)).clamp_(0, 1))
    result[active] = race.best
    return result


class _Race:
    """The best point of each image that is still right, its margin, and what the first layer makes of it."""

    def __init__(self, model: nn.Module, first: FirstLayer | None, best: Tensor, labels: Tensor) -> None:
        self.model, self.first, self.best, self.labels = model, first, best, labels
        self.outputs = best[:, :0]  # of the first layer
        self.lowest = torch.empty(0)
        self.refresh()

    def refresh(self, rows: Tensor | None = None) -> None:
        """Compute the margins (of ``rows``, or all) by full forward passes: the changes that were added up round, a
        network may draw at random, and what fools counts only if the whole network says so again."""
        best, labels = (self.best, self.labels) if rows is None else (self.best[rows], self.labels[rows])
        outputs, logits = (best[:, :0], self.model(best)) if self.first is None else self.first.outputs(best)
        if rows is None:
            self.outputs, self.lowest = outputs, margin(logits, labels)
        else:
            self.outputs[rows], self.lowest[rows] = outputs, margin(logits, labels)

    def keep(self, rows: Tensor) -> None:
        """Drop all images but these."""
        self.best, self.labels, self.lowest = self.best[rows], self.labels[rows], self.lowest[rows]
        self.outputs = self.outputs[rows]

    def propose(self, window: tuple[slice, slice], pixels: Tensor) -> None:
        """Set the pixels of ``window`` where that lowers the margin."""
        view = self.best[..., *window]
        if self.first is None:
            before = view.clone()
            view.copy_(pixels)
            found = margin(self.model(self.best), self.labels)
            view.copy_(torch.where(per_image(found < self.lowest, pixels), pixels, before))
        else:
            outputs = self.first.change(pixels - view, window).add_(self.outputs)
            found = margin(self.first.logits(outputs), self.labels)
            rows = (found < self.lowest).nonzero().squeeze(1)
            self.outputs[rows] = outputs[rows]
            view[rows] = pixels[rows]
        self.lowest = torch.minimum(found, self.lowest)

    def consider(self, points: Tensor) -> None:
        """Take the points, one an image, that lower the margin."""
        found = margin(self.model(points), self.labels)
        rows = (found < self.lowest).nonzero().squeeze(1)
        self.best[rows], self.lowest[rows] = points[rows], found[rows]


def margin(logits_NC: Tensor, labels_N: Tensor) -> Tensor:
    """Return the lead of the right answer over the best wrong one, shape (N,); 0 or less is fooled."""
    true = logits_NC.gather(1, labels_N[:, None]).squeeze(1)
    return true - logits_NC.scatter(1, labels_N[:, None], -torch.inf).amax(1)
