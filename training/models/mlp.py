"""The fully connected network of the papers."""

import itertools
from collections.abc import Sequence

from torch import Tensor, nn

from training.models.activations import FUNCTIONS


class MLP(nn.Module):
    """Linear layers with an activation between them; images (N, ...) are flattened to (N, features) first.

    ``layers.0`` is the first hidden layer, the last of ``layers`` gives the logits (N, classes).
    """

    def __init__(self, features: int, hidden: Sequence[int], classes: int, activation: str = "relu") -> None:
        super().__init__()
        widths = (features, *hidden, classes)
        self.activate = FUNCTIONS[activation]
        self.layers = nn.ModuleList(nn.Linear(n_in, n_out) for n_in, n_out in itertools.pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for layer in self.layers[:-1]:
            x = self.activate(layer(x))
        return self.layers[-1](x)
