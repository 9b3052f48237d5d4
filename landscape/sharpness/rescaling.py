"""Which layers of a network can be scaled against each other without a change of the function that it computes.

If everything between two layers is positively homogeneous (ReLU, leaky ReLU, pooling), multiplying weight and bias of
the first by c and the weight of the second by 1/c changes nothing (Dinh et al. 2017, section 4). Which layers these are
is found by trying it, in float64, not by their names.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from alignscape.trees import map_tensors, tensors_in
from landscape.data import Batches, Data, Transform
from landscape.modes import analysis_mode
from landscape.parameters import unwrapped

_SAMPLES, _MANY_SAMPLES = 8, 256  # for each trial, and to check what they found together
_FACTORS = 0.4, 3.0  # what is tried; a change of the function by one of them is a change
_SAME, _DIFFERENT = 1e-9, 1e-4  # relative change of the outputs: rounding, and more than that
_WINDOW = 3  # layers behind a layer, in the order of execution, that may read what it writes


@dataclass(frozen=True, kw_only=True)
class Rescalings:
    """The rescalings of layers, found by :func:`rescalings`, that leave a network's function as it is.

    With numbers s (K,) parameter t is multiplied by ``exp(exponents[t] @ s)``: for s_k by e^s_k where the k-th pair's
    first layer is concerned, by e^-s_k the weight of its second.

    Attributes:
        pairs: names of the layers that scale against each other.
        exponents: (K,) of each parameter that some pair concerns, by name.
        refused: why further layers do not, in words; those of a network that has no pair say why it has none.

    Example:
        >>> import torch
        >>> from landscape import rescalings
        >>> layers = torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2)
        >>> found = rescalings(torch.nn.Sequential(*layers), (torch.randn(5, 4), torch.zeros(5)))
        >>> found.pairs, {name: one.tolist() for name, one in found.exponents.items()}
        ([('0', '2')], {'0.weight': [1.0], '0.bias': [1.0], '2.weight': [-1.0]})
    """

    pairs: list[tuple[str, str]]
    exponents: Mapping[str, Tensor]
    refused: list[str] = field(default_factory=list)

    def logarithms(self, s: Tensor, like: Mapping[str, Tensor]) -> Tensor:
        """Return the logarithm of what each of the parameters ``like`` is multiplied by, float64 (T,)."""
        zero = torch.zeros(len(self.pairs), dtype=torch.float64)
        return torch.stack([self.exponents.get(name, zero) @ s for name in like])

    def rescaled(self, parameters: Mapping[str, Tensor], s: Tensor) -> dict[str, Tensor]:
        """Return the parameters of the network rescaled by ``s`` (K,)."""
        factors = self.logarithms(s, parameters).exp().tolist()
        return {name: p.detach() * factor for (name, p), factor in zip(parameters.items(), factors, strict=True)}


def rescalings(model: nn.Module, data: Data, *, transform: Transform | None = None) -> Rescalings:
    """Return the rescalings of pairs of layers that leave the function of ``model`` as it is.

    Each layer with weights is tried with the next three in the order of execution, on a few samples in float64; the
    first that goes with it is its partner. Layers whose outputs meet others (a residual stream) need more than two
    that scale together, and are not found.

    Args:
        model: any ``nn.Module``; it is not changed.
        data: as for :class:`landscape.HessianOperator`; a few samples are used.
        transform: of the inputs.

    Raises:
        InputError: no sample.

    Example:
        >>> import torch
        >>> from landscape import rescalings
        >>> layers = torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2)
        >>> found = rescalings(torch.nn.Sequential(*layers), (torch.ones(5, 4), torch.zeros(5)))
        >>> found.pairs, "1, a Tanh, is not positively homogeneous" in found.refused[0]
        ([], True)
    """
    trial = _Trial(unwrapped(model), data, transform)
    layers, pairs, refused = trial.layers(), [], []
    for place, first in enumerate(layers[:-1]):
        if trial.change({first: 1}) < _DIFFERENT:
            refused.append(f"{first} can be scaled by any number alone: its own curvature says nothing")
            continue
        candidates = [one for one in layers[place + 1 : place + 1 + _WINDOW] if one != first]
        changes = {second: trial.change({first: 1}, {second: -1}) for second in candidates}
        fits = [second for second, change in changes.items() if change < _SAME]
        if fits:
            pairs.append((first, fits[0]))
        elif changes:
            refused.append(
                f"{first} does not scale against {candidates[0]}: the outputs change by "
                f"{100 * changes[candidates[0]]:.2g} %{trial.culprit(first, candidates[0])}"
            )
    return Rescalings(pairs=pairs, exponents=trial.exponents(pairs), refused=refused)


def function_change(model: nn.Module, data: Data, found: Rescalings, s: Tensor, transform: Transform | None) -> float:
    """Return by how much, relative to the largest output, the function of a network rescaled by ``s`` differs, on more
    samples than the trials: a clipped activation is homogeneous on those that it does not clip."""
    trial = _Trial(unwrapped(model), data, transform, samples=_MANY_SAMPLES)
    return trial.difference(found.rescaled(trial.parameters, s))


class _Trial:
    """A few samples through a network with other weights, in float64."""

    def __init__(self, model: nn.Module, data: Data, transform: Transform | None, *, samples: int = _SAMPLES) -> None:
        self.model = model
        self.parameters = {name: p.detach().double() for name, p in model.named_parameters()}
        self.buffers = {
            name: b.detach().double() if b.is_floating_point() else b.detach() for name, b in model.named_buffers()
        }
        device = next(iter(self.parameters.values())).device
        dtype = next(model.parameters()).dtype
        batches = Batches(data, batch_size=samples, transform=transform, device=device, dtype=dtype)
        self.batch = next(iter(batches)).map(lambda t: t.double() if t.is_floating_point() else t)
        self.order: list[str] = []  # of execution
        self.not_homogeneous: dict[str, int] = {}  # modules without weights, and how many layers came before
        self.outputs = self._outputs(self.parameters, watched=True)
        self.size = max((float(t.abs().max()) for t in self.outputs if t.numel()), default=0.0)

    def layers(self) -> list[str]:
        """Return the modules that have a weight of their own, in the order of execution."""
        return list(dict.fromkeys(self.order))

    def change(self, *factors: Mapping[str, int]) -> float:
        """Return the largest relative change of the outputs where the first layer's parameters are multiplied by c,
        and the second's weight by 1/c."""
        first, second = ({**part} for part in (*factors, {})[:2])
        changes = []
        for factor in _FACTORS:
            scaled = dict(self.parameters)
            for layer in first:
                for name in self._own(layer):
                    scaled[name] = scaled[name] * factor
            for layer in second:
                scaled[f"{layer}.weight".lstrip(".")] = scaled[f"{layer}.weight".lstrip(".")] / factor
            changes.append(self.difference(scaled))
        return max(changes)

    def difference(self, parameters: Mapping[str, Tensor]) -> float:
        """Return the largest difference of the outputs at these parameters, relative to the largest output."""
        outputs = self._outputs(parameters)
        gaps = [float((a - b).abs().max()) for a, b in zip(outputs, self.outputs, strict=True) if a.numel()]
        gap = max(gaps, default=0.0)
        return gap / self.size if self.size > 0 and gap == gap else float("inf") if gap != gap else gap

    def exponents(self, pairs: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
        """Return the exponents of each parameter that a pair concerns."""
        found = {name: torch.zeros(len(pairs), dtype=torch.float64) for name in self.parameters}
        for place, (first, second) in enumerate(pairs):
            for name in self._own(first):
                found[name][place] += 1
            found[f"{second}.weight"][place] -= 1
        return {name: one for name, one in found.items() if one.any()}

    def culprit(self, first: str, second: str) -> str:
        """Return, in words, the modules between two layers that are not positively homogeneous, as far as they are
        modules."""
        start, end = (self.order.index(layer) for layer in (first, second))
        between = [name for name, count in self.not_homogeneous.items() if start < count <= end]
        return f" ({', '.join(between)} is not positively homogeneous)" if between else ""

    def _own(self, layer: str) -> Iterator[str]:
        for name in ("weight", "bias"):
            if (full := f"{layer}.{name}") in self.parameters:
                yield full

    def _outputs(self, parameters: Mapping[str, Tensor], *, watched: bool = False) -> list[Tensor]:
        handles = (
            [module.register_forward_hook(self._watch(name)) for name, module in self._leaves()] if watched else []
        )
        try:
            with analysis_mode(self.model), torch.no_grad():
                found = self.batch.outputs(self.model, {**self.buffers, **parameters})
        finally:
            for handle in handles:
                handle.remove()
        return [t.double() for t in tensors_in(found) if t.is_floating_point()]

    def _leaves(self) -> Iterator[tuple[str, nn.Module]]:
        return ((name, module) for name, module in self.model.named_modules() if name and not [*module.children()])

    def _watch(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
            if f"{name}.weight" in self.parameters:
                self.order.append(name)
            elif not any(True for _ in module.parameters()) and not self._homogeneous(module, inputs, output):
                self.not_homogeneous[f"{name}, a {type(module).__name__},"] = len(self.order)

        return hook

    def _homogeneous(self, module: nn.Module, inputs: tuple[object, ...], output: object) -> bool:
        if not isinstance(output, Tensor) or not output.is_floating_point():
            return True
        try:
            doubled = module.forward(*map_tensors(lambda t: 2 * t if t.is_floating_point() else t, inputs))
        except (RuntimeError, ValueError, TypeError):
            return True
        return bool(torch.allclose(doubled, 2 * output, rtol=1e-9, atol=1e-12))
