"""Convolutional networks in the outline that the IFA paper gives: a LeNet of 2 + 3 and an AlexNet of 5 + 3 layers.

The paper says how many layers they have and no more. Widths and kernels here are those of the networks they are named
after as far as images of 32 x 32 allow, with ReLU (or another activation) and max pooling, and without dropout or
normalisation: a network whose loss is a function of its weights alone.
"""

from torch import Tensor, nn

from alignscape.errors import InputError
from training.models.activations import MODULES


class LeNet(nn.Module):
    """LeNet-5 (LeCun et al. 1998) with ReLU and max pooling: convolutions 6 and 16 of 5 x 5, then 120-84-classes.

    Images below 32 x 32 are padded by 2 pixels, as the original pads MNIST's.

    Raises:
        InputError: images too small for two convolutions and poolings.
    """

    def __init__(self, input_shape: tuple[int, int, int], classes: int, activation: str = "relu") -> None:
        super().__init__()
        activated = MODULES[activation]
        channels, *sides = input_shape
        padding = 2 if min(sides) < 32 else 0
        height, width = ((((side + 2 * padding - 4) // 2) - 4) // 2 for side in sides)
        if min(height, width) < 1:
            raise InputError(f"lenet needs images of at least 12 x 12 pixels, not {sides[0]} x {sides[1]}")
        self.features = nn.Sequential(
            *(nn.Conv2d(channels, 6, 5, padding=padding), activated(), nn.MaxPool2d(2)),
            *(nn.Conv2d(6, 16, 5), activated(), nn.MaxPool2d(2)),
        )
        self.classifier = nn.Sequential(
            *(nn.Flatten(), nn.Linear(16 * height * width, 120), activated()),
            *(nn.Linear(120, 84), activated(), nn.Linear(84, classes)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


class AlexNet(nn.Module):
    """AlexNet (Krizhevsky et al. 2012, in the widths of Krizhevsky 2014) for small images: convolutions 64, 192, 384,
    256, 256 of 3 x 3, pooling after the first, second and fifth, then 1024-1024-classes. 7.5 M parameters at 32 x 32.

    Raises:
        InputError: images below 8 x 8 pixels, of which three poolings leave nothing.
    """

    def __init__(self, input_shape: tuple[int, int, int], classes: int, activation: str = "relu") -> None:
        super().__init__()
        activated = MODULES[activation]
        channels, height, width = input_shape
        if min(height, width) < 8:
            raise InputError(f"alexnet needs images of at least 8 x 8 pixels, not {height} x {width}")
        self.features = nn.Sequential(
            *(nn.Conv2d(channels, 64, 3, padding=1), activated(), nn.MaxPool2d(2)),
            *(nn.Conv2d(64, 192, 3, padding=1), activated(), nn.MaxPool2d(2)),
            *(nn.Conv2d(192, 384, 3, padding=1), activated()),
            *(nn.Conv2d(384, 256, 3, padding=1), activated()),
            *(nn.Conv2d(256, 256, 3, padding=1), activated(), nn.MaxPool2d(2)),
        )
        self.classifier = nn.Sequential(
            *(nn.Flatten(), nn.Linear(256 * (height // 8) * (width // 8), 1024), activated()),
            *(nn.Linear(1024, 1024), activated(), nn.Linear(1024, classes)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))
