"""FAB: the nearest image that fools, rather than one within eps (Croce & Hein, ICML 2020).

Each step takes the network for linear where it stands, projects onto the plane where the right class and another one
tie, and steps a little beyond; what fools is drawn back towards the image. So one run answers for every eps at once.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from alignscape.errors import InputError
from robustness.attacks import Batch, Perturber, SingleAttack, is_fooled
from robustness.first_layer import AT_ONCE, FirstLayer, Whole, at_once, followed
from robustness.losses import targeted_margin
from robustness.norms import Norm, norm_named, per_image, unit_noise

OVERSHOOT = 1.05  # eta of the paper
BIAS = 0.1  # alpha_max: the most that the original image draws a step towards itself
BACKWARD = 0.9  # beta: how much of the way remains when what fools is drawn back
NEWTON_STEPS = 50  # of the projection; it ends by itself, after about four


@dataclass(frozen=True, kw_only=True)
class FabAttack(SingleAttack):
    """Parameters of the targeted FAB; :func:`fab` fills them in.

    Attributes:
        steps: towards each target, at least 1.
        targets: classes that it aims at, the likeliest first; all others where there are fewer.
        restarts: the first starts at the image, others at random points near it.
        norm: ``linf`` or ``l2``.
        name: what the tables call it.
        loss: ``margin``, the only one.
        needs_gradient: always.

    Raises:
        InputError: a value that makes no attack.

    Example:
        >>> from robustness import FabAttack
        >>> FabAttack(steps=20, targets=3, norm="l2").name
        'fab'
    """

    steps: int = 100
    targets: int = 9
    restarts: int = 1
    norm: str = "linf"
    name: str = "fab"
    loss: str = "margin"
    needs_gradient: bool = True

    def __post_init__(self) -> None:
        if min(self.steps, self.targets, self.restarts) < 1:
            given = f"{self.steps}, {self.targets}, {self.restarts}"
            raise InputError(f"{self.name} needs at least 1 step, 1 target and 1 restart, got {given}")
        norm_named(self.norm)

    def on(self, batch: Batch, *, restart: int, stop_when_fooled: bool) -> Perturber:
        """Return the perturber. An image is sought until something fools within the eps that is asked for, or all
        targets have been tried; then what was found answers for every other eps."""
        nearest, distance = batch.images.clone(), batch.images.new_full((len(batch.images),), torch.inf)
        exhausted = torch.zeros(len(batch.images), dtype=torch.bool, device=batch.images.device)
        net = followed(batch)

        def perturber(eps: float | Tensor, chosen: Tensor) -> Tensor:
            eps_N = torch.as_tensor(eps).to(batch.images).expand(len(chosen))
            open_ = ~exhausted[chosen] & (distance[chosen] > eps_N)
            for part in at_once(open_.nonzero().squeeze(1)):
                rows = chosen[part]
                nearest[rows], distance[rows] = self._seek(batch.take(rows), net, eps_N[part], restart)
                exhausted[rows] = distance[rows] > eps_N[part]
            within = per_image(distance[chosen] <= eps_N, nearest)
            return torch.where(within, nearest[chosen], batch.images[chosen])

        return perturber

    def _seek(self, batch: Batch, net: FirstLayer | Whole, floor: Tensor, restart: int) -> tuple[Tensor, Tensor]:
        """Return the nearest fooling image of each that was found, and its distance, inf where there is none."""
        with torch.no_grad():
            logits = batch.model(batch.images)
        nearest, distance = batch.images.clone(), torch.full_like(floor, torch.inf)
        distance[is_fooled(logits, batch.labels)] = 0
        others = logits.scatter(1, batch.labels[:, None], -torch.inf).argsort(dim=1, descending=True)
        start = batch.images
        if restart:
            noise = unit_noise(norm_named(self.norm), start.shape[1:], batch.numbers, batch.seed, restart).to(start)
            start = (start + noise * per_image(floor / 2, start)).clamp(0, 1)
        targets = others.T[: min(self.targets, logits.shape[1] - 1)]
        for group in targets.split(max(1, AT_ONCE // len(floor))):
            rows = (distance > floor).nonzero().squeeze(1)
            if not len(rows):
                break
            each = rows.repeat(len(group))
            ways = _walk(
                batch.take(each), net, start[each], group[:, rows].flatten(), norm_named(self.norm), self.steps
            )
            for found, size in zip(*(way.chunk(len(group)) for way in ways), strict=True):
                better = size < distance[rows]
                nearest[rows[better]], distance[rows[better]] = found[better], size[better]
        return nearest, distance


def _walk(
    batch: Batch, net: FirstLayer | Whole, start: Tensor, target: Tensor, norm: Norm, steps: int
) -> tuple[Tensor, Tensor]:
    """Walk along the boundary with one class; return the nearest fooling image on the way, and its distance."""
    images, labels, point = batch.images, batch.labels, start
    nearest, distance = images.clone(), torch.full_like(images.flatten(1)[:, 0], torch.inf)

    def lead(logits: Tensor, labels: Tensor) -> Tensor:
        return targeted_margin(logits, labels, target)

    with torch.no_grad():
        home, passed = net.passed(images), net.passed(point)
    for _ in range(steps):
        slope, logits = net.slope(passed, labels, lead)
        with torch.no_grad():
            point = _step(point, images, slope, lead(logits, labels), norm)
            passed = net.passed(point)
            decides = net.logits(passed) if batch.gradient_model is batch.model else batch.model(point)
            fools = is_fooled(decides, labels)
            size = norm.size(point - images)
            better = (fools & (size < distance)).nonzero().squeeze(1)
            nearest[better], distance[better] = point[better], size[better]
            # What fools is drawn back, and so are the outputs of a first layer: no pass is needed to know them.
            kept = 1 - (1 - BACKWARD) * fools.to(size)
            point = torch.lerp(images, point, per_image(kept, images))
            passed = point if isinstance(net, Whole) else torch.lerp(home, passed, per_image(kept, home))
    return nearest, distance


def _step(point: Tensor, images: Tensor, slope: Tensor, gap: Tensor, norm: Norm) -> Tensor:
    """Return a step beyond the plane on which the linearised lead is 0, drawn towards the original image; ``gap`` is
    the lead at ``point``."""
    plane = _Plane(norm, slope)
    there = plane.move(images, -gap - torch.linalg.vecdot(slope.flatten(1), (images - point).flatten(1)))
    here = plane.move(point, -gap)
    near, far = norm.size(here).clamp_min(1e-8), norm.size(there).clamp_min(1e-8)
    bias = per_image((near / (near + far)).clamp_max(BIAS), point)
    ahead, back = here.mul_(OVERSHOOT).add_(point), there.mul_(OVERSHOOT).add_(images)
    return torch.lerp(ahead, back, bias).clamp_(0, 1)


def project_onto_plane(norm: Norm, points: Tensor, slope: Tensor, gap: Tensor) -> Tensor:
    r"""Return the shortest move :math:`d` with :math:`\langle w, d\rangle = c` that stays in [0, 1], shape (N, ...).

    Pixels move at the speed 1 (``linf``) or :math:`|w_i|` (``l2``) until they meet the border of the box, so
    :math:`\langle w, d\rangle` is concave and piecewise linear in the time they move, and Newton's method from 0 never
    overshoots and ends after finitely many steps, mostly about four. (The authors' code sorts all pixels instead.)
    Where the plane misses the box, every pixel moves to the border.

    Args:
        norm: of the move.
        points: pixels in [0, 1], shape (N, ...).
        slope: :math:`w`, shape (N, ...).
        gap: :math:`c`, of either sign, shape (N,).
    """
    return _Plane(norm, slope).move(points, gap)


class _Plane:
    """What moves onto planes of one slope share. Written for few and vectorised passes over the pixels: on a CPU
    ``torch.where`` of as many takes as long as thirty multiplications."""

    def __init__(self, norm: Norm, slope: Tensor) -> None:
        flat, self.even = slope.flatten(1), norm.name == "linf"
        self.pull = flat.abs()
        # Scaled so that the squares of small gradients cannot underflow.
        self.scale = self.pull.amax(1, keepdim=True).clamp_min(torch.finfo(slope.dtype).tiny)
        self.pull.div_(self.scale)
        self.rate = self.pull if self.even else self.pull.square()
        self.sign = flat.sign()
        self.border = torch.gt(flat, 0, out=torch.empty_like(flat))  # where each pixel goes if the gap is positive

    def move(self, points: Tensor, gap: Tensor) -> Tensor:
        """Return the moves of :func:`project_onto_plane`, a new tensor of shape (N, ...)."""
        tiny, most = torch.finfo(gap.dtype).tiny, torch.finfo(gap.dtype).max
        turned = (gap < 0).to(gap)[:, None]
        room = (self.border - turned).abs_().sub_(points.flatten(1)).abs_()
        goal = gap.abs() / self.scale.squeeze(1)
        free = torch.empty_like(room)
        time = goal / torch.linalg.vecdot(self.rate, torch.gt(room, 0, out=free)).clamp_min(tiny)
        for _ in range(NEWTON_STEPS):
            time = time.clamp_max(most)
            moved = torch.minimum(time[:, None] if self.even else self.pull * time[:, None], room)
            missing = goal - torch.linalg.vecdot(self.pull, moved)
            moving = torch.linalg.vecdot(self.rate, torch.gt(room, moved, out=free))
            further = torch.where((missing > 1e-6 * goal) & (moving > 0), missing / moving, 0)
            if not further.any():
                break
            time = time + further
        return moved.mul_(self.sign).mul_(1 - 2 * turned).view_as(points)


def fab(*, steps: int = 100, targets: int = 9, restarts: int = 1, norm: str = "linf") -> FabAttack:
    """The fast adaptive boundary attack, targeted (Croce & Hein 2020, FAB-T): the nearest image that fools.

    Args:
        steps: towards each target.
        targets: classes that it aims at, the likeliest first; all others where there are fewer.
        restarts: the first starts at the image, others at random points near it.
        norm: ``linf`` or ``l2``.

    Raises:
        InputError: a value that makes no attack.

    Example:
        >>> import torch
        >>> from robustness import attack_curve, fab
        >>> model = torch.nn.Flatten()  # three pixels; the brightest is the class
        >>> images = torch.tensor([[0.6, 0.4, 0.0], [0.2, 0.8, 0.0]]).reshape(2, 1, 1, 3)
        >>> labels = torch.tensor([0, 1])
        >>> attack_curve(model, images, labels, [0.09, 0.105, 0.315], fab()).accuracy
        tensor([1.0000, 0.5000, 0.0000], dtype=torch.float64)
    """
    return FabAttack(steps=steps, targets=targets, restarts=restarts, norm=norm)
