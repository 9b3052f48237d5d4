"""Random views of the images that a network learns from, made on the device for a whole mini-batch at once.

A view is a box of the image, and whether it is mirrored: five numbers for each sample of an epoch, a function of
(seed, epoch), so that a resumed run sees the views that it would have seen. Every view is two matrix products,
``R x C^T``, with a row of R for each row of the view: where it lies in the image, linearly between two rows, or nowhere
(0, black).
"""

import math

import torch
from torch import Tensor

AREA, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)  # of random resized crops (Szegedy et al. 2015), as torchvision has them
ATTEMPTS = 10
PADDING = 8  # crops move by up to an eighth of the side, 4 of 32 pixels


class Augmentation:
    """Views of images (..., C, H, W).

    ``crop``: moved by up to an eighth of each side, what enters is black, as ``RandomCrop(32, padding=4)`` of
    torchvision; ``crop-flip``: also mirrored, half of them; ``random-resized-crop``: a part of 8 to 100 % of the area
    with a ratio of 3/4 to 4/3, stretched to the whole, bilinear, and half of them mirrored, as ``RandomResizedCrop``
    and ``RandomHorizontalFlip``.

    Args:
        kind: one of these.
        size: H, W.
    """

    def __init__(self, kind: str, size: tuple[int, int]) -> None:
        self.kind = kind
        self.size = size

    def draw(self, samples: int, random: torch.Generator) -> Tensor:
        """Return the view of each of so many samples, (samples, 5): top, left, height and width of the box in pixels,
        and 1 where it is mirrored."""
        if self.kind == "random-resized-crop":
            boxes = self._parts(samples, random)
        else:
            boxes = torch.zeros(samples, 4)
            for axis, side in enumerate(self.size):
                most = max(1, round(side / PADDING))
                boxes[:, axis] = torch.randint(-most, most + 1, (samples,), generator=random)
                boxes[:, 2 + axis] = side
        mirrored = torch.zeros(samples) if self.kind == "crop" else torch.randint(2, (samples,), generator=random)
        return torch.cat([boxes, mirrored.to(boxes)[:, None]], 1)

    def _parts(self, samples: int, random: torch.Generator) -> Tensor:
        """Return boxes (samples, 4) as torchvision draws them: of ten attempts the first that lies in the image, or
        else the largest box in the middle that has an allowed ratio."""
        height, width = self.size
        drawn = torch.rand(samples, ATTEMPTS, 2, generator=random, dtype=torch.float64)
        areas = height * width * (AREA[0] + (AREA[1] - AREA[0]) * drawn[..., 0])
        ratios = torch.exp(math.log(RATIO[0]) + (math.log(RATIO[1]) - math.log(RATIO[0])) * drawn[..., 1])
        sizes = torch.stack([(areas / ratios).sqrt().round(), (areas * ratios).sqrt().round()], -1)
        room = torch.tensor([height, width], dtype=torch.float64) - sizes
        fits = ((sizes > 0) & (room >= 0)).all(-1)
        first = fits.long().argmax(1)[:, None, None].expand(-1, 1, 2)
        sizes, room = sizes.gather(1, first)[:, 0], room.gather(1, first)[:, 0]
        corners = (torch.rand(samples, 2, generator=random, dtype=torch.float64) * (room + 1)).floor()
        boxes = torch.cat([corners, sizes], 1)
        middle = _middle(height, width)
        return torch.where(fits.any(1, keepdim=True), boxes, torch.tensor(middle, dtype=torch.float64)).float()

    def __call__(self, images: Tensor, views: Tensor) -> Tensor:
        """Return the ``views`` (..., 5) of ``images`` (..., C, H, W), of their type; bytes are rounded."""
        top, left, height, width, mirrored = (part[..., None] for part in views.unbind(-1))
        rows = _places(top, height, self.size[0])
        columns = _places(left, width, self.size[1])
        columns = torch.where(mirrored > 0, columns.flip(-1), columns)
        down, across = (_weights(p, n)[..., None, :, :] for p, n in zip((rows, columns), self.size, strict=True))
        found = down @ images.to(down.dtype) @ across.transpose(-1, -2)
        return found.round().to(images.dtype) if images.dtype == torch.uint8 else found.to(images.dtype)


def _middle(height: int, width: int) -> list[float]:
    """Return the largest box in the middle of an image whose ratio of width to height is allowed."""
    part_height, part_width = height, width
    if width / height < RATIO[0]:
        part_height = round(width / RATIO[0])
    elif width / height > RATIO[1]:
        part_width = round(height * RATIO[1])
    return [(height - part_height) // 2, (width - part_width) // 2, part_height, part_width]


def _places(start: Tensor, length: Tensor, size: int) -> Tensor:
    """Return where the middles of ``size`` pixels that cover a box lie in the image, (..., size), in pixels; at the
    ends no further out than the middles of the box's own pixels."""
    own = torch.arange(size, device=start.device, dtype=start.dtype)
    return torch.minimum(((own + 0.5) * (length / size) - 0.5).clamp(min=0), length - 1) + start


def _weights(places: Tensor, size: int) -> Tensor:
    """Return the weight of each of ``size`` pixels at ``places`` (..., n), (..., n, size): linear interpolation."""
    pixels = torch.arange(size, device=places.device, dtype=places.dtype)
    return (1 - (places[..., None] - pixels).abs()).clamp(min=0)
