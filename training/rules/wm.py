"""Weight mirror (Akrout et al. 2019): feedback learns the weights from the answer of each layer to noise."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from alignscape.errors import InputError
from training.config import TrainConfig
from training.models.activations import activation_of
from training.rules.base import Drawn, Rule, wrapped_layers
from training.rules.feedback import FixedFeedback, Layer, LayerSize, WrappedLayer
from training.rules.initial import fan_in


class WeightMirror(Rule):
    """``delta B``; before each step, noise xi ~ N(0, 1) at the input of each layer alone moves its B:

        B <- (1 - decay) B + eta mean(y - mean(y))^T (xi - mean(xi)),   y = phi(W xi + b)

    over as many noise vectors as a mini-batch has images, two at least, with the network's activation phi (ReLU in
    networks that are not ours). By Stein's lemma the mean is E[phi'(.)] W for Gaussian noise, of ReLU about W / 2, so
    that B settles near eta / (2 decay) W there: W itself with the default eta = 2 decay. Noise in the estimate is
    averaged over 1 / decay steps. A convolution's filter is a row that sees patches of noise: its answers at several
    places of an image would be answers to more such patches.

    ``mirror_steps`` such steps may go before the training, the paper's mirror mode; ``mirror_noise="uniform"`` draws
    xi from U(-sqrt 3, sqrt 3), of which the mean is W / 2 where biases are 0, as for any symmetric noise.

    The first layer is left plain, since nothing is sent below it.
    """

    name: ClassVar[str] = "wm"
    summary: ClassVar[str] = "weight mirror: feedback learns from the answers of each layer to noise"
    options: ClassVar[tuple[str, ...]] = (
        "backward_scale",
        "mirror_rate",
        "mirror_decay",
        "mirror_noise",
        "mirror_steps",
    )
    moves_feedback: ClassVar[bool] = True

    def feedback_size(self, layer: LayerSize, classes: int) -> tuple[int, int]:
        return 0 if layer.first else math.prod(layer.weight), 0

    def drawn_each_step(self, layer: LayerSize) -> int:
        return 0 if layer.first else self.config.batch_size * (math.prod(layer.weight[1:]) + layer.weight[0])

    def layer(self, layer: Layer) -> WrappedLayer | None:
        if layer.use.first:
            return None
        return FixedFeedback(layer, self.draw(layer.plain.weight, "feedback", layer.name))

    def __init__(self, config: TrainConfig) -> None:
        super().__init__(config)
        self._activate = activation_of(config)
        if config.batch_size < 2:
            raise InputError("wm needs --batch-size 2 or more: one noise vector has no covariance")

    def before_training(self, twin: nn.Module) -> None:
        for step in range(-self.config.mirror_steps, 0):
            # A label of its own: steps on noise (``noise_epochs``) are below 0 too.
            self.move(twin, Drawn(self._noises(twin, "mirror mode", step)))

    def draws(self, twin: nn.Module, step: int, samples: int) -> dict[str, Callable[[], Tensor]]:
        return self._noises(twin, "mirror", step)

    def _noises(self, twin: nn.Module, label: str, step: int) -> dict[str, Callable[[], Tensor]]:
        def drawn(name: str, weight: Tensor) -> Tensor:
            return self.noise(self.config.batch_size, weight, self.stream(label, name, step, device=weight.device))

        layers = {name: layer for name, layer in wrapped_layers(twin).items() if isinstance(layer, FixedFeedback)}
        return {name: partial(drawn, name, layer.weight) for name, layer in layers.items()}

    @torch.no_grad()
    def move(
        self, twin: nn.Module, drawn: Mapping[str, Tensor], inputs: Tensor | None = None, labels: Tensor | None = None
    ) -> None:
        for name, layer in wrapped_layers(twin).items():
            if isinstance(layer, FixedFeedback):
                growth = mirror(layer.weight, layer.bias, drawn[name], self._activate)
                layer.feedback.mul_(1 - self.config.mirror_decay).add_(growth, alpha=self.config.mirror_rate)

    def noise(self, samples: int, weight: Tensor, random: torch.Generator) -> Tensor:
        """Draw xi (samples, in) for a layer with ``weight``: independent numbers of mean 0 and variance 1."""
        shape = samples, fan_in(weight.shape)
        if self.config.mirror_noise == "uniform":
            uniform = torch.rand(shape, generator=random, device=random.device)
            return ((2 * uniform - 1) * 3**0.5).to(weight)
        return torch.randn(shape, generator=random, device=random.device).to(weight)


def mirror(
    weight: Tensor, bias: Tensor | None, noise: Tensor, activate: Callable[[Tensor], Tensor] = torch.relu
) -> Tensor:
    """Return the covariance of phi(W xi + b) with xi, of the shape of ``weight``, from ``noise`` (samples >= 2, in),
    unbiased; phi is ``activate``."""
    rows = weight.flatten(1)
    answer = activate(nn.functional.linear(noise, rows, bias))
    centred = answer - answer.mean(0)
    return (centred.T @ (noise - noise.mean(0)) / (len(noise) - 1)).view_as(weight)
