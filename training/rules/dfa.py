"""Direct feedback alignment (Nokland 2016): the output error goes straight to each hidden layer."""

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from training.errors import InputError
from training.rules.base import Rule, Step, first_linear, he_normal, linear_layers, replace_linear
from training.rules.feedback import DirectFeedbackLinear, DirectInputPath


class DirectFeedbackAlignment(Rule):
    """``e F_l`` with e (N, classes) the gradient of the loss by the logits and F_l (classes, n_l) fixed.

    F_l ~ N(0, 2 / n_l): what the last layer's W starts from, and so the scale of the signal that BP would send to a
    layer of n_l units. The first layer's F leads to the pixels and serves the ``feedback`` mode of an attack only.
    """

    name: ClassVar[str] = "dfa"
    summary: ClassVar[str] = "direct feedback alignment: the output error goes straight to each layer"

    def wrap(self, model: nn.Module) -> nn.Module:
        classes = list(linear_layers(model).values())[-1].out_features

        def direct(name: str, layer: nn.Linear) -> nn.Module:
            feedback = he_normal((classes, layer.in_features), self.stream("feedback", name))
            return DirectFeedbackLinear(layer, feedback.to(layer.weight))

        return replace_linear(model, direct)

    def objective(self, twin: nn.Module, inputs: Tensor, labels: Tensor) -> Step:
        """The local objective sum of block_output * (e F): inside a block its gradient is DFA's update."""
        logits = twin(inputs)
        loss = F.cross_entropy(logits, labels)
        error = logits.detach().softmax(1) - F.one_hot(labels, logits.shape[1])  # (N, classes)
        objective = loss
        for layer in _direct_layers(twin).values():
            objective = objective + layer.local_objective(error / len(labels))
        return Step(objective, loss, logits)

    def attack_path(self, twin: nn.Module) -> nn.Module:
        return DirectInputPath(twin, _direct_layers(twin)[first_linear(twin)].feedback)

    def backward_weights(self, twin: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
        """W_l against F_l^T F_{l-1} (Refinetti et al. 2021): what W_l would have to be for BP's signal to be DFA's.
        The last layer's counterpart is F_{l-1} itself."""
        layers = _direct_layers(twin)
        names = list(layers)
        pairs = {}
        for name, above in zip(names, [*names[1:], None], strict=True):
            if name == first_linear(twin):
                continue
            below_f = layers[name].feedback  # (classes, in)
            counterpart = below_f if above is None else layers[above].feedback.T @ below_f
            pairs[name] = (layers[name].weight.detach(), counterpart)
        return pairs


def _direct_layers(twin: nn.Module) -> dict[str, DirectFeedbackLinear]:
    layers = {n: m for n, m in twin.named_modules() if isinstance(m, DirectFeedbackLinear)}
    if not layers:
        raise InputError("dfa needs a network with Linear layers")
    return layers
