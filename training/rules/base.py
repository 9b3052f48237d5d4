"""The interface of a learning rule, and what the rules share.

A rule does three things: it sets the starting weights of a plain network, it *wraps* the network (a twin with the
same parameters and another backward pass), and it gives the objective whose gradient is the rule's update. One
file a rule; adding one touches its file and one line of ``training/rules/__init__.py``.
"""

import copy
from collections.abc import Callable, Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.config import TrainConfig
from training.errors import InputError
from training.seeding import generator


class Step(NamedTuple):
    """What one mini-batch gives: ``objective`` is what to differentiate, ``loss`` the mean cross-entropy in nats
    (both scalars; equal but for rules with local objectives), ``logits`` (N, classes)."""

    objective: Tensor
    loss: Tensor
    logits: Tensor


class Rule:
    """Backpropagation, and the base of the other rules."""

    name: ClassVar[str] = "bp"
    moves_feedback: ClassVar[bool] = False  # whether before_step does anything
    summary: ClassVar[str] = "backpropagation: errors return through the transposed forward weights"

    def __init__(self, config: TrainConfig) -> None:
        self.config = config

    def initialise(self, model: nn.Module) -> None:
        """Draw the starting weights of ``model`` in place: weights N(0, 2 / fan_in) (He et al. 2015), biases 0."""
        for name, layer in linear_layers(model).items():
            layer.weight.data.copy_(he_normal(layer.weight.shape, self.stream("weights", name)))
            if layer.bias is not None:
                layer.bias.data.zero_()

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the training twin of ``model``: the same parameters, this rule's backward pass.

        Feedback tensors are drawn from the run's seed, in streams of their own.

        Raises:
            InputError: the model has a module with parameters that the rule cannot wrap; it is named.
        """
        return model

    def objective(self, twin: nn.Module, inputs: Tensor, labels: Tensor) -> Step:
        """Evaluate ``twin`` on normalised ``inputs`` (N, ...) and ``labels`` (N,)."""
        logits = twin(inputs)
        loss = F.cross_entropy(logits, labels)
        return Step(loss, loss, logits)

    def gradients(self, parameters: Mapping[str, Tensor], step: Step) -> dict[str, Tensor | None]:
        """Return the rule's update of each of ``parameters`` (before the optimiser), None where it has none.

        Tensors of ``step`` may have a leading axis of networks: a sum over it gives each network its own gradient.
        """
        found = torch.autograd.grad(step.objective.sum(), list(parameters.values()), allow_unused=True)
        return dict(zip(parameters, found, strict=True))

    def before_step(self, twin: nn.Module, step: int) -> None:
        """Move feedback buffers in place before the training step number ``step``, where ``moves_feedback`` says so."""

    def attack_path(self, twin: nn.Module) -> nn.Module:
        """Return a network whose gradient by the pixels is what the rule's own backward pass sends there.

        Only an attack in the mode labelled ``feedback`` may differentiate through it: it is not the gradient of the
        loss, and an attack that follows it says nothing of robustness.
        """
        return twin

    def backward_weights(self, twin: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
        """Return ``{layer: (W, matrix in W's place on the way down)}``, both (out, in), without the first layer:
        nothing is sent below it. Empty for a rule that sends errors through W itself."""
        layers = [(n, m) for n, m in twin.named_modules() if hasattr(m, "backward_weight")]
        return {n: (m.weight.detach(), m.backward_weight()) for n, m in layers if n != first_linear(twin)}

    def stream(self, *labels: object) -> torch.Generator:
        """The run's random stream for ``labels``, e.g. ``("feedback", "layers.1")``."""
        return generator(self.config.seed, *labels)


def he_normal(shape: torch.Size | tuple[int, ...], random: torch.Generator) -> Tensor:
    """Draw N(0, 2 / fan_in) of ``shape`` (out, in, ...) on the CPU, the same whatever the device of the run."""
    fan_in = torch.Size(shape[1:]).numel()
    return torch.randn(shape, generator=random) * (2 / fan_in) ** 0.5


def linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """Return the Linear layers of ``model`` by name, in order of registration.

    Raises:
        InputError: another module has parameters of its own; it is named.
    """
    layers = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            layers[name] = module
        elif next(module.parameters(recurse=False), None) is not None:
            raise InputError(
                f"no rule can wrap module {name or '(root)'} ({type(module).__name__}): only Linear so far"
            )
    return layers


def first_linear(model: nn.Module) -> str:
    """Return the name of the first layer with a weight matrix (layers are registered in the order of use)."""
    return next(name for name, m in model.named_modules() if getattr(m, "weight", None) is not None)


def replace_linear(model: nn.Module, build: Callable[[str, nn.Linear], nn.Module | None]) -> nn.Module:
    """Return a copy of ``model``'s module tree that shares its parameters and buffers, with each Linear replaced by
    ``build(name, layer)``, or kept where that is None."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    twin = copy.deepcopy(model, memo=dict(shared))
    for name, layer in linear_layers(twin).items():
        if (replacement := build(name, layer)) is not None:
            twin.set_submodule(name, replacement)
    return twin
