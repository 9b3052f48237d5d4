"""Memory accesses of one update, counted from layer shapes: what a learning rule must read and write.

The model: every operand of every step of the update is read from memory once, every result is written once, and
nothing stays on the chip between two steps. For a layer with weights W, inputs x, outputs y and a batch of N samples:

| phase | reads | writes |
|---|---|---|
| forward | W, b, x | y |
| error (not to the input) | the backward matrix, delta (outputs), x (for its mask phi') | delta (inputs) |
| update | x, delta, W, b | W, b |
| transport (BP only) | W | its copy on the backward path |

*Transport* is the cost of weight symmetry where the two directions have memories of their own, as in neuromorphic
hardware: after an update the backward path must learn the new weights. Where both directions share one memory, as on
a GPU, it does not arise, and BP, FA and IFA cost the same. A one-time alignment before training is no cost of an
update. The optimiser's moments are the same for every rule and left out.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from alignscape.errors import InputError

RULES = ("bp", "ifa", "fa", "dfa", "pfa")
PHASES = ("forward", "error", "update", "transport")


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A weight layer; ``inputs`` and ``outputs`` are values per sample (channels x height x width of a convolution)."""

    inputs: int
    outputs: int
    weights: int
    biases: int


def linear_layers(widths: Sequence[int]) -> list[Layer]:
    """Return the layers of an MLP with these widths, inputs first, classes last."""
    return [Layer(inputs=n, outputs=m, weights=n * m, biases=m) for n, m in itertools.pairwise(widths)]


def memory_accesses(
    layers: Sequence[Layer], rule: str, batch_size: int, *, shared_memory: bool = False, expansion: int = 10
) -> pd.DataFrame:
    """Count the values read and written by one update on a batch.

    Args:
        layers: in order; the first one sends no error down.
        rule: ``bp``, ``fa``, ``ifa``, ``dfa`` or ``pfa``.
        batch_size: N samples.
        shared_memory: forward and backward path read the same memory, so that no weights are transported.
        expansion: k of the (k outputs)-wide middle of ``pfa``; linear layers only.

    Returns:
        Columns ``rule, layer, phase, operand, reads, writes``, a row for each operand of each step.

    Raises:
        InputError: an unknown rule.
    """
    if rule not in RULES:
        raise InputError(f"memory accesses of rule {rule!r} are not known; known: {', '.join(RULES)}")
    rows = []
    for number, layer in enumerate(layers):
        steps = itertools.chain(
            _forward(layer, batch_size),
            _error(layers, number, rule, batch_size, expansion) if number else (),
            _update(layer, rule, batch_size, expansion, first=number == 0),
            [("transport", "weights", layer.weights, layer.weights)]
            if rule == "bp" and number and not shared_memory
            else (),
        )
        rows += [(rule, number, *step) for step in steps]
    return pd.DataFrame(rows, columns=["rule", "layer", "phase", "operand", "reads", "writes"])


Step = tuple[str, str, int, int]  # phase, operand, reads, writes


def _forward(layer: Layer, n: int) -> Iterator[Step]:
    yield "forward", "weights", layer.weights + layer.biases, 0
    yield "forward", "activations", n * layer.inputs, n * layer.outputs


def _error(layers: Sequence[Layer], number: int, rule: str, n: int, k: int) -> Iterator[Step]:
    """What brings the error to the inputs of layer ``number``: the outputs of the one below."""
    layer = layers[number]
    sent = n * layer.outputs
    if rule == "dfa":  # straight from the output, through a matrix of its own
        classes = layers[-1].outputs
        sent = n * classes
        yield "error", "feedback", classes * layer.inputs, 0
    elif rule == "pfa":
        middle = k * layer.outputs
        yield "error", "feedback", layer.outputs * middle + middle * layer.inputs, 0
        yield "error", "errors", n * middle, n * middle  # between the two matrices
    else:
        yield "error", "weights" if rule == "bp" else "feedback", layer.weights, 0
    yield "error", "activations", n * layer.inputs, 0
    yield "error", "errors", sent, n * layer.inputs


def _update(layer: Layer, rule: str, n: int, k: int, *, first: bool) -> Iterator[Step]:
    size = layer.weights + layer.biases
    yield "update", "weights", size, size
    yield "update", "activations", n * layer.inputs, 0
    yield "update", "errors", n * layer.outputs, 0
    if rule == "pfa" and not first:  # R learns too, from the middle's error and the inputs
        middle = k * layer.outputs
        yield "update", "feedback", middle * layer.inputs, middle * layer.inputs
        yield "update", "activations", n * layer.inputs, 0
        yield "update", "errors", n * middle, 0
