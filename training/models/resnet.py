"""The residual networks for CIFAR (He et al. 2016, "Deep Residual Learning", section 4.2)."""

from torch import Tensor, nn
from torch.nn import functional as F

from training.models.activations import FUNCTIONS


class Block(nn.Module):
    """Two convolutions of 3 x 3, each with batch normalisation, and a shortcut around them.

    Where the size changes, the shortcut takes every second pixel and fills the new channels with zeros: the paper's
    option A, which has no parameters.
    """

    def __init__(self, channels_in: int, channels: int, stride: int, activation: str = "relu") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride = stride
        self.activate = FUNCTIONS[activation]
        self.new_channels = channels - channels_in

    def forward(self, x: Tensor) -> Tensor:
        out = self.activate(self.bn1(self.conv1(x)))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        if self.new_channels:
            shortcut = F.pad(shortcut, (0, 0, 0, 0, 0, self.new_channels))
        return self.activate(self.bn2(self.conv2(out)) + shortcut)


class ResNet(nn.Module):
    """Three stages of ``blocks`` blocks with 16, 32 and 64 channels on images (N, C, H, W) of any size, averaged over
    the pixels at the end: 6 ``blocks`` + 2 weight layers. ResNet-20 has 3 blocks a stage and .27 M parameters."""

    def __init__(self, channels: int, blocks: int, classes: int, activation: str = "relu") -> None:
        super().__init__()
        self.activate = FUNCTIONS[activation]
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        widths = [16] * blocks + [32] * blocks + [64] * blocks
        self.blocks = nn.Sequential(
            *(
                Block(below, width, 1 if width == below else 2, activation)
                for below, width in zip([16, *widths[:-1]], widths, strict=True)
            )
        )
        self.fc = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.activate(self.bn1(self.conv1(x))))
        return self.fc(x.mean((2, 3)))
