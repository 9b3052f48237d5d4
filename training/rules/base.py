"""The interface of a learning rule, and what the rules share.

A rule sets the starting weights of a plain network, *wraps* the network (a twin with the same parameters and another
backward pass), and gives the update that a mini-batch calls for. One file a rule; adding one touches its file and one
line of ``training/rules/__init__.py`` (see ``docs/adding-a-rule.md``).
"""

from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from alignscape.errors import InputError
from alignscape.seeding import generator
from training.config import TrainConfig
from training.losses import TrainingLoss
from training.rules.feedback import Layer, LayerSize, WrappedLayer
from training.rules.initial import reset_normalisation, starting
from training.rules.outside import refuse_outside_uses
from training.rules.wrapping import replace_layers, uses, weight_layers


class Step(NamedTuple):
    """What one mini-batch gives; ``Rule.gradients`` knows what to do with it.

    Attributes:
        objective: what to differentiate, a scalar.
        loss: the mean loss of the run (``Rule.mean_loss``), cross-entropy in nats as a rule, a scalar.
        logits: (N, classes).
        taps: of DFA, the activations (N, ...) where signals arrive, in order of execution.
        signals: of DFA, what arrives there, of the same shapes.

    Example:
        >>> import torch
        >>> from training import Step, TrainConfig, make_rule
        >>> model = torch.nn.Linear(3, 2)
        >>> step = make_rule(TrainConfig()).objective(model, torch.zeros(5, 3), torch.zeros(5).long())
        >>> isinstance(step, Step), step.logits.shape, bool(step.objective == step.loss)
        (True, torch.Size([5, 2]), True)
    """

    objective: Tensor
    loss: Tensor
    logits: Tensor
    taps: tuple[Tensor, ...] = ()
    signals: tuple[Tensor, ...] = ()


class Rule:
    """Backpropagation, and the base of the other rules.

    Args:
        config: the run's; rules read their own options and the seed.

    Attributes:
        name: what configs call the rule.
        summary: a line on it.
        options: fields of :class:`TrainConfig` that it reads and bp does not.
        initial_options: those that are read only while one network is made or moved (:meth:`initialise`, :meth:`layer`,
            :meth:`before_step`, :meth:`before_batch`, :meth:`draws`), as :meth:`draw` does, so that networks of one
            stack may differ in them.
        moves_feedback: whether :meth:`before_step` does anything.
        reads_batch: whether :meth:`before_batch` does anything.

    Example:
        >>> import torch
        >>> from training import Rule, TrainConfig
        >>> rule, model = Rule(TrainConfig(seed=0)), torch.nn.Sequential(torch.nn.Linear(64, 8), torch.nn.Linear(8, 2))
        >>> rule.initialise(model)
        >>> twin = rule.wrap(model, (64,))
        >>> step = rule.objective(twin, torch.ones(5, 64), torch.zeros(5).long())
        >>> {name: tuple(update.shape) for name, update in rule.gradients(dict(twin.named_parameters()), step).items()}
        {'0.weight': (8, 64), '0.bias': (8,), '1.weight': (2, 8), '1.bias': (2,)}
    """

    name: ClassVar[str] = "bp"
    summary: ClassVar[str] = "backpropagation: errors return through the transposed forward weights"
    options: ClassVar[tuple[str, ...]] = ()
    initial_options: ClassVar[tuple[str, ...]] = ("backward_scale",)
    moves_feedback: ClassVar[bool] = False
    reads_batch: ClassVar[bool] = False

    def __init__(self, config: TrainConfig) -> None:
        self.config = config

    def initialise(self, model: nn.Module) -> None:
        """Draw the starting weights of ``model`` in place: weights N(0, s^2 / fan_in) with s = ``forward_scale``
        (sqrt 2 is He et al. 2015, 1 LeCun), or what ``init`` and ``init_distribution`` of the config say in its place;
        biases 0, normalisation layers as they usually start.

        Raises:
            InputError: a module that no rule can wrap; it is named.
        """
        reset_normalisation(model)
        for name, layer in weight_layers(model).items():
            layer.weight.data.copy_(self.draw(layer.weight, "weights", name, scale=self.config.forward_scale))
            if layer.bias is not None:
                layer.bias.data.zero_()

    def wrap(self, model: nn.Module, input_shape: tuple[int, ...]) -> nn.Module:
        """Return the training twin of ``model`` for images of ``input_shape`` (C, H, W): the same parameters, this
        rule's backward pass. Feedback tensors are drawn from the run's seed, in streams of their own.

        Raises:
            InputError: the model has a module with parameters that the rule cannot wrap, or uses a layer's parameters
                outside of it (it is named); it does not take such images.
        """
        layers, flows = weight_layers(model), uses(model, input_shape)
        wrapped = {name: self.layer(Layer(name, layers[name], use)) for name, use in flows.items()}
        replacements = {name: layer for name, layer in wrapped.items() if layer is not None}
        if type(self).layer is not Rule.layer:  # a weight may be used elsewhere too, to send errors down
            if idle := [name for name in layers if name not in flows]:
                raise InputError(f"no rule can wrap module {idle[0]}: the network never calls it")
            refuse_outside_uses(model, layers, input_shape)
        return replace_layers(model, replacements) if replacements else model

    def layer(self, layer: Layer) -> WrappedLayer | None:
        """Return what takes the place of a weight layer in the twin; None leaves it as it is."""
        return None

    def feedback_size(self, layer: LayerSize, classes: int) -> tuple[int, int]:
        """Return how many numbers of feedback, fixed and plastic, :meth:`layer` makes for a layer of this size, so that
        what no memory holds is refused before it is tried. 0 means that nothing is known."""
        return 0, 0

    def drawn_each_step(self, layer: LayerSize) -> int:
        """Return how many numbers :meth:`before_step` draws for a layer of this size at once."""
        return 0

    def objective(self, twin: nn.Module, inputs: Tensor, labels: Tensor) -> Step:
        """Evaluate ``twin`` on normalised ``inputs`` (N, ...) and ``labels`` (N,); pure but for running statistics."""
        logits = twin(inputs)
        loss = self.mean_loss(logits, labels)
        return Step(loss, loss, logits)

    def mean_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of the run, by its config, of ``logits`` (N, classes) and ``labels`` (N,), a scalar."""
        return TrainingLoss.of(self.config).mean(logits, labels)

    def gradients(self, parameters: Mapping[str, Tensor], step: Step) -> dict[str, Tensor | None]:
        """Return the rule's update of each of ``parameters`` (before the optimiser), None where it has none.

        Tensors of ``step`` may have a leading axis of networks: a sum over it gives each network its own gradient.
        """
        found = torch.autograd.grad(step.objective.sum(), list(parameters.values()), allow_unused=True)
        return dict(zip(parameters, found, strict=True))

    def before_training(self, twin: nn.Module) -> None:
        """Prepare feedback buffers in place, once, before a run starts; a twin that is made later, of a checkpoint say,
        has what they came to. What is drawn is a function of the seed."""

    def before_step(self, twin: nn.Module, step: int) -> None:
        """Move feedback buffers in place before the training step number ``step``, where ``moves_feedback`` says so.
        What is drawn is a function of (seed, step), so that a resumed run draws it again."""
        if not self.reads_batch:
            self.move(twin, Drawn(self.draws(twin, step, self.config.batch_size)))

    def before_batch(self, twin: nn.Module, step: int, inputs: Tensor, labels: Tensor) -> None:
        """Do what :meth:`before_step` does, after it and where ``reads_batch`` says so, for feedback that learns from
        the step's mini-batch: normalised ``inputs`` (N, ...) and ``labels`` (N,)."""
        self.move(twin, Drawn(self.draws(twin, step, len(labels))), inputs, labels)

    def draws(self, twin: nn.Module, step: int, samples: int) -> dict[str, Callable[[], Tensor]]:
        """Return what :meth:`move` needs of chance before the step number ``step`` on so many samples, each by a
        function that draws it: of one shape for all networks of a stack, and a function of (seed, step)."""
        return {}

    def move(
        self, twin: nn.Module, drawn: Mapping[str, Tensor], inputs: Tensor | None = None, labels: Tensor | None = None
    ) -> None:
        """Move feedback buffers in place by what was ``drawn`` and, where ``reads_batch`` says so, the mini-batch.

        What :meth:`before_step` and :meth:`before_batch` do unless a rule has its own; written so, it is part of the
        step that a GPU records, for all networks of a stack at once under ``torch.func.vmap``. So it may depend on
        tensors alone: neither on the number of the step nor on what networks of a stack differ in.
        """

    @classmethod
    def moves_by_tensors(cls) -> bool:
        """Whether feedback moves by :meth:`move` alone."""
        own = cls.before_step is not Rule.before_step or cls.before_batch is not Rule.before_batch
        return (cls.moves_feedback or cls.reads_batch) and not own

    def attack_path(self, twin: nn.Module) -> nn.Module:
        """Return a network whose gradient by the pixels is what the rule's own backward pass sends there.

        Only an attack in the mode labelled ``feedback`` may differentiate through it: it is not the gradient of the
        loss, and an attack that follows it says nothing of robustness.
        """
        return twin

    def backward_weights(self, twin: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
        """Return ``{layer: (W, matrix in W's place on the way down)}``, of one shape, without the first layer: nothing
        is sent below it. Empty for a rule that sends errors through W itself."""
        layers = {name: layer for name, layer in wrapped_layers(twin).items() if layer.sends_down}
        return {name: (layer.weight.detach(), layer.backward_weight().detach()) for name, layer in layers.items()}

    def draw(
        self, like: Tensor, *labels: object, scale: float | None = None, device: torch.device | str = "cpu"
    ) -> Tensor:
        """Draw N(0, s^2 / fan_in), or what ``init`` and ``init_distribution`` of the config say in its place, of the
        shape, type and device of ``like`` from the stream ``labels`` on ``device`` (see :meth:`stream`); s is
        ``scale``, or ``backward_scale`` of the config."""
        scale = self.config.backward_scale if scale is None else scale
        return starting(self.config, like.shape, scale, self.stream(*labels, device=device)).to(like)

    def stream(self, *labels: object, device: torch.device | str = "cpu") -> torch.Generator:
        """The run's random stream for ``labels``, e.g. ``("feedback", "layers.1")``. The CPU's numbers are the same
        whatever the run's device; what is drawn for every step is drawn there, since a GPU would wait for them."""
        return generator(self.config.seed, *labels, device=device)


class Drawn(Mapping[str, Tensor]):
    """What a rule draws, drawn when it is asked for and not kept: one layer's numbers at a time."""

    def __init__(self, draws: Mapping[str, Callable[[], Tensor]]) -> None:
        self._draws = draws

    def __getitem__(self, name: str) -> Tensor:
        return self._draws[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._draws)

    def __len__(self) -> int:
        return len(self._draws)


def wrapped_layers(twin: nn.Module) -> dict[str, WrappedLayer]:
    """Return the layers of ``twin`` that a rule has put there, by name."""
    return {name: module for name, module in twin.named_modules() if isinstance(module, WrappedLayer)}
