"""Direct feedback alignment (Nokland 2016): the output error goes straight to each hidden layer."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from alignscape.errors import InputError
from training.config import TrainConfig
from training.losses import TrainingLoss
from training.models.trial import try_forward
from training.rules.base import Rule, Step, wrapped_layers
from training.rules.feedback import (
    DirectFeedback,
    DirectHiddenPath,
    DirectInputPath,
    Layer,
    LayerSize,
    WrappedLayer,
)
from training.rules.initial import bernoulli, starting
from training.rules.taps import learn_from_first, recording


class DirectFeedbackAlignment(Rule):
    """``e F_l`` with e (N, classes) the gradient of the loss by the logits and F_l (classes, n_l) fixed.

    n_l are the values that go into layer l, and F_l ~ N(0, 2 / n_l): what the last layer's W starts from, and so the
    scale of the signal that BP would send there. The signal teaches what lies between the layer before and this one
    (normalisation too), and stops there: a parameter that several signals reach, along a skip connection, learns from
    the first. The first layer's F leads to the pixels and serves the ``feedback`` mode of an attack only.
    """

    name: ClassVar[str] = "dfa"
    summary: ClassVar[str] = "direct feedback alignment: the output error goes straight to each layer"
    options: ClassVar[tuple[str, ...]] = ("backward_scale", "feedback_density")

    def __init__(self, config: TrainConfig) -> None:
        super().__init__(config)
        self._owned: dict[tuple[str, ...], list[list[str]]] = {}  # of these parameters, those that each tap teaches

    def wrap(self, model: nn.Module, input_shape: tuple[int, ...]) -> nn.Module:
        twin = super().wrap(model, input_shape)
        layers = _direct_layers(twin)
        with recording() as taps:
            logits = try_forward(twin, input_shape)
        names = {id(layer.feedback): name for name, layer in layers.items()}
        ends = [*(tap.activation for tap in taps), logits]
        for tap in taps:
            if len(tap.activation) != len(logits):
                raise InputError(
                    f"dfa cannot wrap module {names[id(tap.feedback)]}: its inputs are not one for each image"
                )
        weights = {name: layer.weight for name, layer in layers.items()}
        _, owned = learn_from_first(weights, ends, [torch.zeros_like(end) for end in ends])
        for tap, taught in zip(taps, owned[:-1], strict=True):
            for name in taught:
                layers[name].teacher = names[id(tap.feedback)]
        return twin

    def feedback_size(self, layer: LayerSize, classes: int) -> tuple[int, int]:
        return classes * layer.inputs, 0

    def layer(self, layer: Layer) -> WrappedLayer | None:
        if layer.use.calls > 1:
            raise InputError(
                f"dfa cannot wrap module {layer.name}: the network calls it {layer.use.calls} times in a pass, "
                "and there is one direct signal for a layer"
            )
        shape = (layer.use.classes, layer.use.input_shape.numel())
        random = self.stream("feedback", layer.name)
        feedback = starting(self.config, shape, self.config.backward_scale, random)
        if (density := self.config.feedback_density) < 1:
            feedback *= bernoulli(shape, density, self.stream("mask", layer.name))
        return DirectFeedback(layer, feedback.to(layer.plain.weight))

    def objective(self, twin: nn.Module, inputs: Tensor, labels: Tensor) -> Step:
        with recording() as taps:
            logits = twin(inputs)
        loss = self.mean_loss(logits, labels)
        error = TrainingLoss.of(self.config).error(logits.detach(), labels)
        signals = [(error @ tap.feedback).view_as(tap.activation) for tap in taps]
        return Step(loss, loss, logits, tuple(tap.activation for tap in taps), tuple(signals))

    def gradients(self, parameters: Mapping[str, Tensor], step: Step) -> dict[str, Tensor | None]:
        ends, signals = (*step.taps, step.objective), (*step.signals, torch.ones_like(step.objective))
        names = tuple(parameters)
        found, self._owned[names] = learn_from_first(parameters, ends, signals, self._owned.get(names))
        return found

    def attack_path(self, twin: nn.Module) -> nn.Module:
        wrapped = wrapped_layers(twin).values()
        direct = (layer for layer in wrapped if isinstance(layer, DirectFeedback) and not layer.sends_down)
        first = next(direct, None)
        return DirectHiddenPath(twin) if first is None else DirectInputPath(twin, first.feedback)

    def backward_weights(self, twin: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
        """W_l against F_l^T F_{l-1} (Refinetti et al. 2021): what W_l would have to be for BP's signal to be DFA's.
        The last layer's counterpart is F_{l-1} itself. Without layers whose outputs are pooled before they are taught:
        theirs is not a matrix of the shape of W."""
        layers = _direct_layers(twin)
        pairs = {}
        for name, layer in layers.items():
            if not layer.sends_down:
                continue
            identity = torch.eye(layer.use.classes).to(layer.weight)
            counterpart = layer.counterpart(identity if layer.teacher is None else layers[layer.teacher].feedback)
            if counterpart is not None:
                pairs[name] = (layer.weight.detach(), counterpart)
        return pairs


def _direct_layers(twin: nn.Module) -> dict[str, DirectFeedback]:
    layers = {name: layer for name, layer in wrapped_layers(twin).items() if isinstance(layer, DirectFeedback)}
    if not layers:
        raise InputError("dfa needs a network with Linear or Conv2d layers")
    return layers
