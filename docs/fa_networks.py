"""Networks of docs/fa-convolutions.md: our LeNet with one thing changed, as a user's own networks would be.

analyze train --dataset cifar10 --network docs.fa_networks:batch_norm --rule fa
"""

from collections.abc import Iterator

from torch import nn

from training.models.convolutional import LeNet

IMAGES, CLASSES = (3, 32, 32), 10  # CIFAR-10's


def capped() -> nn.Module:
    """LeNet with min(max(x, 0), 1) in the place of ReLU, which has tanh's bound and nothing else of it."""
    network = LeNet(IMAGES, CLASSES)
    for part in (network.features, network.classifier):
        for index, layer in enumerate(part):
            if isinstance(layer, nn.ReLU):
                part[index] = nn.Hardtanh(0, 1)
    return network


def batch_norm() -> nn.Module:
    """LeNet with batch normalisation between each hidden layer and its ReLU."""
    return normalised("relu")


def tanh_batch_norm() -> nn.Module:
    """The same with tanh."""
    return normalised("tanh")


def normalised(activation: str) -> nn.Module:
    network = LeNet(IMAGES, CLASSES, activation)
    network.features = nn.Sequential(*with_norms(network.features))
    network.classifier = nn.Sequential(*with_norms(network.classifier))
    return network


def with_norms(layers: nn.Sequential) -> Iterator[nn.Module]:
    """Yield the layers of a part of LeNet, and before each activation a normalisation of what arrives there."""
    before: nn.Module = nn.Identity()
    for layer in layers:
        if isinstance(layer, (nn.ReLU, nn.Tanh)):
            wide = isinstance(before, nn.Conv2d)
            yield nn.BatchNorm2d(before.out_channels) if wide else nn.BatchNorm1d(before.out_features)
        yield layer
        before = layer
