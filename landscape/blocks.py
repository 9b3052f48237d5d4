"""The curvature of groups of parameters and between them: blocks of one matrix, analysed beside each other.

A vector of group g alone gives the columns of g, a product for each group: no single vector serves two groups, since
what one adds to the rows of the other cannot be told from its own. Shared is everything else: the graphs and the pass
over the data, in which every block's next vectors are multiplied together, and of each only the rows and columns that
it needs. The methods are those of whole matrices, unchanged, and so are what they certify.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import torch
from torch import Tensor

from alignscape.errors import InputError
from alignscape.memory import require_memory
from landscape.algebra import OperatorAlgebra
from landscape.density import SpectralDensity, density_method
from landscape.lanczos import Eigenpairs, Ends, eigenpairs_method
from landscape.operator import HessianOperator, Restricted
from landscape.symmetric import Method, Run, tell
from landscape.traces import Estimate, Trace, random_signs, student_interval, trace_method

T = TypeVar("T")
_NUMBERED = re.compile(r"(.*_)?\d+")
REST = "rest"
BETWEEN = "between groups"


def parameter_groups(names: Sequence[str], by: str | Sequence[str] = "layer") -> dict[str, list[str]]:
    """Return groups of parameters: the name of each with those of its parameters, in order.

    Args:
        names: of parameters, such as ``layers.0.weight``.
        by: ``layer``, weights and biases of a module together; ``block``, as far as the first number in the name
            (``layer1.0`` of a residual network, ``encoder.layers.encoder_layer_3`` of a transformer), else its first
            part; or glob patterns, each a group of what no pattern before it matches, and what is left is ``rest``.

    Raises:
        InputError: a pattern that matches nothing.

    Example:
        >>> from landscape import parameter_groups
        >>> names = ["conv1.weight", "layer1.0.conv1.weight", "layer1.0.bn1.weight", "layer1.0.bn1.bias"]
        >>> list(parameter_groups(names, "layer"))
        ['conv1', 'layer1.0.conv1', 'layer1.0.bn1']
        >>> list(parameter_groups(names, "block"))
        ['conv1', 'layer1.0']
        >>> parameter_groups(names, ["*conv*"])
        {'*conv*': ['conv1.weight', 'layer1.0.conv1.weight'], 'rest': ['layer1.0.bn1.weight', 'layer1.0.bn1.bias']}
    """
    patterns = [by] if isinstance(by, str) else list(by)
    if patterns == ["layer"]:
        name_of: Callable[[str], str] = _layer
    elif patterns == ["block"]:
        name_of = _block
    else:
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise InputError(
                    f"no parameters match {pattern}; use 'layer', 'block' or patterns of: {', '.join(names)}"
                )

        def name_of(name: str) -> str:
            return next((pattern for pattern in patterns if fnmatchcase(name, pattern)), REST)

    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name_of(name), []).append(name)
    return groups


def _layer(name: str) -> str:
    return name.rpartition(".")[0] or name


def _block(name: str) -> str:
    parts = name.split(".")[:-1]
    numbered = next((place for place, part in enumerate(parts) if _NUMBERED.fullmatch(part)), 0)
    return ".".join(parts[: numbered + 1]) or name


class Blocks:
    """The diagonal blocks of a curvature matrix, one for each group of parameters, and what lies between them.

    Args:
        operator: the matrix; its graphs serve all blocks.
        by: how parameters are grouped: see :func:`parameter_groups`.

    Attributes:
        groups: the names of the groups with those of their parameters.
        passes: over the data so far.

    Raises:
        InputError: a pattern that matches no parameter.

    Example:
        >>> import torch
        >>> from landscape import Blocks, HessianOperator
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 1, bias=False)).double()
        >>> torch.nn.init.ones_(model[0].weight), torch.nn.init.ones_(model[1].weight)  # doctest: +ELLIPSIS
        (...)
        >>> inputs = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
        >>> blocks = Blocks(HessianOperator(model, torch.nn.MSELoss(), (inputs, torch.zeros(2, 1))), by="layer")
        >>> pairs = blocks.eigenpairs(k=1)
        >>> {name: round(float(found.values[0]), 4) for name, found in pairs.items()}
        {'0': 8.0, '1': 10.0}
        >>> {name: round(found.value, 4) for name, found in blocks.traces(deflate=pairs).items()}
        {'0': 10.0, '1': 10.0}
    """

    def __init__(self, operator: HessianOperator, by: str | Sequence[str] = "layer") -> None:
        self.operator = operator
        names = list(operator.parameters)
        self.groups = parameter_groups(names, by)
        place = {name: index for index, name in enumerate(names)}
        self._places = {group: tuple(place[name] for name in own) for group, own in self.groups.items()}
        self.passes = 0

    def __getitem__(self, group: str) -> "Block":
        """Return the diagonal block of a group, a symmetric matrix like any other."""
        return Block(self, [group])

    def cross(self, first: str, second: str) -> "Block":
        """Return ``[[0, B], [B^T, 0]]`` with B the rows of one group and the columns of another: its positive
        eigenvalues are the singular values of B, its eigenvectors the singular vectors over each other by sqrt(2)."""
        return Block(self, [first, second], hollow=True)

    @property
    def between(self) -> "Block":
        """The whole matrix with zeros in the diagonal blocks: all that a block-diagonal approximation leaves out."""
        return Block(self, list(self.groups), hollow=True)

    def eigenpairs(
        self,
        k: int = 5,
        *,
        ends: Ends = "largest",
        tol: float = 1e-4,
        between: bool = False,
        seed: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, Eigenpairs]:
        """Return the extreme eigenpairs of every group's block: see :func:`landscape.extreme_eigenpairs`.

        Args:
            k: number of eigenpairs; a block with fewer rows has fewer.
            ends: of the spectrum.
            tol: bound on every residual, relative to the largest ``|Ritz value|`` of the block.
            between: also of :attr:`between`, under the name ``between groups``.
            seed: of the random starts.
            progress: called with (blocks done, blocks).

        Raises:
            InputError: as :func:`landscape.extreme_eigenpairs`.
        """
        if k < 1 or not tol > 0:
            raise InputError("k must be at least 1 and tol positive")
        rows = max(2 * k + 30, 40) * (2 if between else 1)
        self._require(rows, f"a search for {k:,} eigenvalues of each group", "ask for fewer (--k)")
        chosen = self._chosen(between)
        searches = {name: eigenpairs_method(one, k, ends=ends, tol=tol, seed=seed) for name, one in chosen.items()}
        return self._together(chosen, searches, progress)

    def traces(
        self,
        deflate: Mapping[str, Eigenpairs] | None = None,
        *,
        tol: float = 0.02,
        max_probes: int = 200,
        seed: int = 1,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, Trace]:
        """Estimate the trace of every group's block: see :func:`landscape.hutchinson_trace`.

        The probes are of one group each. A probe of all groups at once would cost one product for all of them, but its
        variance for a group holds the squares of all entries in the group's *rows*, those of other groups too: a
        small layer beside a large one would drown (``HessianOperator`` with :func:`landscape.hutchinson_trace` and
        ``layout`` does that).

        Args:
            deflate: eigenpairs by group, from :meth:`eigenpairs`, whose bases are taken out of the noise.
            tol: half-width of each interval to reach, relative to its trace.
            max_probes: for each group.
            seed: of the probes; another one than the eigenpairs'.
            progress: called with (blocks done, blocks).
        """
        if max_probes < 2 or not tol > 0:
            raise InputError("the trace needs at least 2 probes and a positive tolerance")
        chosen, methods = self._chosen(between=False), {}
        for name, one in chosen.items():
            pairs = None if deflate is None else deflate[name]
            space = None if pairs is None else pairs.basis if pairs.basis is not None else pairs.vectors
            options: dict[str, Any] = {"tol": tol, "max_probes": max_probes, "layout": {}, "progress": None}
            methods[name] = trace_method(one, space, seed=seed, **options)
        return self._together(chosen, methods, progress)

    def densities(
        self,
        *,
        steps: int = 100,
        probes: int = 3,
        between: bool = False,
        seed: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, SpectralDensity]:
        """Estimate the spectral density of every group's block: see :func:`landscape.slq_density`.

        Args:
            steps: products a probe.
            probes: random directions, of each group.
            between: also of :attr:`between`, under the name ``between groups``.
            seed: of the probes.
            progress: called with (blocks done, blocks).

        Raises:
            InputError: no step or no probe, or more than memory holds.
        """
        if steps < 1 or probes < 1:
            raise InputError("the spectral density needs at least 1 step and 1 probe")
        rows = min(steps, self.operator.dim) * (2 if between else 1)
        self._require(rows, f"a density of {steps:,} steps of each group", "ask for fewer (--steps)")
        chosen = self._chosen(between)
        methods = {
            name: density_method(one, steps=steps, probes=probes, seed=seed, most=2**22) for name, one in chosen.items()
        }
        return self._together(chosen, methods, progress)

    def norms(
        self, *, probes: int = 20, seed: int = 2, progress: Callable[[int, int], None] | None = None
    ) -> dict[tuple[str, str], Estimate]:
        """Estimate the Frobenius norm of every block, ``(g, g)`` and, with g before h, ``(g, h)``.

        ``E |H_hg z|^2 = |H_hg|_F^2`` for random signs z of group g: a product with each group gives the blocks of all
        its columns, and what g and h say of their common block is averaged. The interval is Student's over probes, of
        the squares.

        Args:
            probes: of each group, at least two.
            seed: of the probes.
            progress: called with (probes done, ``probes``).

        Raises:
            InputError: fewer than two probes.
        """
        if probes < 2:
            raise InputError("the norms need at least 2 probes")
        names, everything = list(self.groups), tuple(range(len(self.operator.parameters)))
        generators = {g: torch.Generator(device=self.operator.device).manual_seed(seed) for g in names}
        squares = torch.zeros(probes, len(names), len(names), dtype=torch.float64)
        places = [self._positions(self._places[group]) for group in names]
        for probe in range(probes):
            signs = {group: random_signs(self[group], generators[group]) for group in names}
            asked = [Restricted(signs[group][None], self._places[group], everything) for group in names]
            images = self._multiply(asked)
            for column, image in enumerate(images):
                parts = [image[0, own].square().sum(dtype=torch.float64) for own in places]
                squares[probe, :, column] = torch.stack(parts).cpu()
            if progress is not None:
                progress(probe + 1, probes)
        squares = (squares + squares.mT) / 2
        pairs = [(i, j) for i in range(len(names)) for j in range(i, len(names))]
        return {(names[i], names[j]): _root(student_interval(squares[:, i, j])) for i, j in pairs}

    def _positions(self, places: Sequence[int]) -> Tensor:
        """Return where the entries of these parameters stand in a flat vector."""
        sizes = [p.numel() for p in self.operator.parameters.values()]
        starts = [0, *torch.tensor(sizes).cumsum(0).tolist()]
        return torch.cat([torch.arange(starts[place], starts[place + 1]) for place in places]).to(self.operator.device)

    def _chosen(self, between: bool) -> "dict[str, Block]":
        chosen = {group: self[group] for group in self.groups}
        return {**chosen, BETWEEN: self.between} if between and len(chosen) > 1 else chosen

    def _require(self, rows: int, work: str, advice: str) -> None:
        needed = {"basis": rows * self.operator.dim * self.operator.dtype.itemsize}
        require_memory(needed, work, advice, device=self.operator.device)

    def _multiply(self, asked: Sequence[Restricted]) -> list[Tensor]:
        self.passes += 1
        return self.operator.restricted_products(asked)

    def _together(
        self,
        blocks: "Mapping[str, Block]",
        methods: Mapping[str, Method[T]],
        progress: Callable[[int, int], None] | None,
    ) -> dict[str, T]:
        """Run a method on each block, with the next vectors of all in one pass over the data."""
        before = self.operator.n_products
        runs = {name: Run(method) for name, method in methods.items()}
        while asked := {name: run.rows for name, run in runs.items() if run.rows is not None}:
            requests = {name: blocks[name].requests(rows) for name, rows in asked.items()}
            images = iter(self._multiply([one for own in requests.values() for one in own]))
            for name, rows in asked.items():
                runs[name].answer(blocks[name].joined(rows, [next(images) for _ in requests[name]]))
            if progress is not None:
                done, products = sum(run.rows is None for run in runs.values()), self.operator.n_products - before
                progress(done, len(runs))
                tell(progress, f"{done} of {len(runs)} groups, {products} products", done / len(runs))
        return {name: run.found for name, run in runs.items()}


class Block(OperatorAlgebra):
    """The rows and columns of some groups of a matrix, or, ``hollow``, these with zeros in the diagonal blocks.

    Its vectors are those of its groups one behind the other, each in the order of the parameters. Made by
    :class:`Blocks`.

    Example:
        >>> import torch
        >>> from landscape import Blocks, HessianOperator
        >>> model = torch.nn.Linear(2, 1).double()
        >>> hessian = HessianOperator(model, torch.nn.MSELoss(), (torch.eye(2).double(), torch.zeros(2, 1)))
        >>> blocks = Blocks(hessian, by=["weight", "bias"])
        >>> blocks["weight"] @ torch.ones(2, dtype=torch.float64)
        tensor([1., 1.], dtype=torch.float64)
        >>> blocks.cross("weight", "bias") @ torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
        tensor([1., 1., 0.], dtype=torch.float64)
    """

    def __init__(self, blocks: Blocks, groups: Sequence[str], *, hollow: bool = False) -> None:
        unknown = [group for group in groups if group not in blocks.groups]
        if unknown or (hollow and len(set(groups)) < len(groups)):
            raise InputError(f"there are no such two groups; there are {', '.join(blocks.groups)}")
        self._blocks, self._hollow = blocks, hollow
        self._places = [blocks._places[group] for group in groups]
        parameters = list(blocks.operator.parameters.values())
        self._sizes = [sum(parameters[place].numel() for place in places) for places in self._places]
        self.dim = sum(self._sizes)
        self.dtype, self.device = blocks.operator.dtype, blocks.operator.device
        self.n_products = 0

    def product(self, vectors: Tensor) -> Tensor:
        """Return the block times each row of ``vectors``: (K, P) -> (K, P)."""
        rows = vectors.reshape(-1, self.dim)
        return self.joined(rows, self._blocks._multiply(self.requests(rows))).view(vectors.shape)

    def requests(self, rows: Tensor) -> list[Restricted]:
        """Return what is to be multiplied for ``rows`` (K, P)."""
        if not self._hollow:
            return [Restricted(rows, self._places[0], self._places[0])]
        parts = rows.split(self._sizes, dim=1)
        return [Restricted(part, own, self._others(own)) for part, own in zip(parts, self._places, strict=True)]

    def joined(self, rows: Tensor, images: Sequence[Tensor]) -> Tensor:
        """Return the block times ``rows``, given what came of :meth:`requests`."""
        self.n_products += len(rows)
        if not self._hollow:
            return images[0]
        total = torch.zeros_like(rows, dtype=self.dtype)
        for index, image in enumerate(images):
            first = 0
            for other, part in enumerate(total.split(self._sizes, dim=1)):
                if other != index:
                    part.add_(image[:, first : first + self._sizes[other]])
                    first += self._sizes[other]
        return total

    def _others(self, own: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(place for places in self._places if places != own for place in places)


def _root(square: Estimate) -> Estimate:
    ends = (max(end, 0.0) ** 0.5 for end in (square.value, square.ci_low, square.ci_high))
    value, low, high = ends
    return Estimate(value=value, ci_low=low, ci_high=high)
