"""Phaseless alignment learning (arXiv 2212.10249): feedback learns from the network's own noise while it learns."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from alignscape.errors import InputError
from training.config import TrainConfig
from training.models.activations import activation_of
from training.models.trial import in_mode, try_forward
from training.rules.base import Rule, wrapped_layers
from training.rules.calls import intercepted
from training.rules.feedback import FixedFeedback, Layer, LayerSize, WrappedLayer
from training.rules.outside import past
from training.rules.wrapping import weight_layers


class PhaselessFeedback(FixedFeedback):
    """``delta B``; B learns from the noise of ``below``, the layer whose outputs, one by one, become the inputs, or
    from noise at the inputs where there is none (after pooling, say)."""

    def __init__(self, layer: Layer, feedback: Tensor) -> None:
        super().__init__(layer, feedback)
        self.below = ""
        self.is_last = False  # in order of execution
        self.input_shape = layer.use.input_shape  # without the batch


class PhaselessAlignment(Rule):
    """``delta B``; before each step two passes of its mini-batch, with noise +xi and -xi, xi ~ N(0, sigma^2), added to
    the output of every hidden layer at once, move all B at once:

        B <- (1 - rho) B + rho gamma / (N sigma^2) r^T xi,   r = (r(+xi) - r(-xi)) / 2

    with xi the noise at the outputs of the layer below (where these do not arrive one by one, but pooled, say, noise at
    the inputs of this layer instead) and r the rate of this one, phi(output) with the network's activation phi (ReLU in
    networks that are not ours), the last one's its output. That is the authors' dB/dt = eta [r xi^T - alpha B] of
    high-passed rates r in mini-batches: the difference of two passes takes the place of the filter. For small sigma the
    mean of r^T xi / (N sigma^2) is W between the derivatives of the activations, averaged over the images; gamma = 2
    makes up for the half that a ReLU has at 0.
    A convolution counts each place as an image.

    The passes are in evaluation mode, so that they leave running statistics alone. The first layer is left plain,
    since nothing is sent below it.
    """

    name: ClassVar[str] = "pal"
    summary: ClassVar[str] = "phaseless alignment learning: feedback learns from noise in the network as it learns"
    options: ClassVar[tuple[str, ...]] = ("backward_scale", "pal_noise", "pal_rate", "pal_gain")
    reads_batch: ClassVar[bool] = True

    def __init__(self, config: TrainConfig) -> None:
        super().__init__(config)
        self._shapes: dict[int, dict[str, torch.Size]] = {}  # of the noise, by the number of images
        self._image: tuple[int, ...] = ()
        self._activate = activation_of(config)

    def wrap(self, model: nn.Module, input_shape: tuple[int, ...]) -> nn.Module:
        twin = super().wrap(model, input_shape)
        self._image = tuple(input_shape)
        layers = {name: twin.get_submodule(name) for name in weight_layers(model)}
        order = _layers_below(twin, layers, input_shape)
        last = next(reversed(order), None)
        for name, below in order.items():
            layer = layers[name]
            if isinstance(layer, PhaselessFeedback):
                layer.below = below[-1] if below else ""
                layer.is_last = name == last
        return twin

    def layer(self, layer: Layer) -> WrappedLayer | None:
        if layer.use.calls > 1:
            raise InputError(
                f"pal cannot wrap module {layer.name}: the network calls it {layer.use.calls} times in a pass, and "
                "there is one noise for a layer"
            )
        if layer.use.first:
            return None
        return PhaselessFeedback(layer, self.draw(layer.plain.weight, "feedback", layer.name))

    def feedback_size(self, layer: LayerSize, classes: int) -> tuple[int, int]:
        return 0 if layer.first else math.prod(layer.weight), 0

    def drawn_each_step(self, layer: LayerSize) -> int:
        return 0 if layer.first else self.config.batch_size * layer.inputs

    def draws(self, twin: nn.Module, step: int, samples: int) -> dict[str, Callable[[], Tensor]]:
        like = next(twin.parameters())
        if samples not in self._shapes:
            self._shapes[samples] = self._noise_shapes(twin, like.new_zeros(samples, *self._image))

        def drawn(label: str, shape: torch.Size) -> Tensor:
            random = self.stream("noise", label, step, device=like.device)
            return self.config.pal_noise * torch.randn(shape, generator=random, device=random.device).to(like)

        return {label: partial(drawn, label, shape) for label, shape in self._shapes[samples].items()}

    @torch.no_grad()
    def _noise_shapes(self, twin: nn.Module, inputs: Tensor) -> dict[str, torch.Size]:
        """Return the shape of each noise that a pass of ``inputs`` takes."""
        shapes: dict[str, torch.Size] = {}

        def noted(values: Tensor, label: str) -> Tensor:
            shapes[label] = values.shape
            return values

        _rates(twin, _learning(twin), inputs, noted, self._activate)
        return shapes

    @torch.no_grad()
    def move(
        self, twin: nn.Module, drawn: Mapping[str, Tensor], inputs: Tensor | None = None, labels: Tensor | None = None
    ) -> None:
        assert inputs is not None
        learning, noise = _learning(twin), {label: drawn[label] for label in drawn}
        up = _rates(twin, learning, inputs, lambda values, label: values + noise[label], self._activate)
        down = _rates(twin, learning, inputs, lambda values, label: values - noise[label], self._activate)
        for name, layer in learning.items():
            self._learn(layer, (up[name] - down[name]) / 2, noise[layer.below or f"into {name}"])

    def _learn(self, layer: PhaselessFeedback, response: Tensor, noise: Tensor) -> None:
        """Move B of ``layer`` by the ``response`` of its rates to the ``noise`` that entered."""
        config = self.config
        entering = layer.padded(noise.reshape(-1, *layer.input_shape))
        growth = layer.operation.weight_gradient(response, entering, layer.weight)
        samples = response.numel() / len(layer.weight)
        share = config.pal_rate * config.pal_gain / (samples * config.pal_noise**2)
        most = torch.finfo(growth.dtype).max  # beyond it the feedback diverges, and so does the run
        layer.feedback.mul_(1 - config.pal_rate).add_(growth, alpha=min(share, most))


def _learning(twin: nn.Module) -> dict[str, PhaselessFeedback]:
    return {name: layer for name, layer in wrapped_layers(twin).items() if isinstance(layer, PhaselessFeedback)}


def _rates(
    twin: nn.Module,
    learning: Mapping[str, PhaselessFeedback],
    inputs: Tensor,
    shifted: Callable[[Tensor, str], Tensor],
    activate: Callable[[Tensor], Tensor],
) -> dict[str, Tensor]:
    """Return the rates of the layers in a pass of ``inputs`` in evaluation mode, with what is ``shifted`` by the noise
    of a label: outputs that reach a layer which is ``learning``, and inputs of such layers that are no outputs."""
    hidden = {layer.below for layer in learning.values() if layer.below}
    layers = {name: twin.get_submodule(name) for name in (*learning, *hidden)}
    found: dict[str, Tensor] = {}

    def around(name: str, forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        if name in learning and not learning[name].below:
            x = shifted(x, f"into {name}")
        output = forward(x)
        if name in hidden:
            output = shifted(output, name)
        is_last = name in learning and learning[name].is_last
        found[name] = output.clone() if is_last else activate(output)  # the network may change it in place
        return output

    with intercepted(layers, around), in_mode(twin, training=False):
        twin(inputs)
    return found


def _layers_below(twin: nn.Module, layers: Mapping[str, nn.Module], shape: tuple[int, ...]) -> dict[str, list[str]]:
    """Return for each layer those whose outputs become its inputs with no other layer between, as many as they are, in
    order of execution."""
    ends: dict[str, Tensor] = {}
    below: dict[str, list[str]] = {}

    def cut(name: str, forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        reached = {id(getattr(node, "variable", None)) for node in past(x)}
        below[name] = [of for of, end in ends.items() if id(end) in reached and end.numel() == x.numel()]
        ends[name] = forward(x).detach().requires_grad_()
        return ends[name].clone()  # which the network may change in place

    with intercepted(layers, cut):
        try_forward(twin, shape)
    return below
