"""Small float64 nets with data, their dense Hessians as the truth, and matrices with a known spectrum."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

Batches = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model, a loss and uneven batches."""

    model: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]
    batches: Batches

    @property
    def pair(self) -> tuple[Tensor, Tensor]:
        inputs, targets = zip(*self.batches, strict=True)
        return torch.cat(inputs), torch.cat(targets)


class MatrixOperator:
    """A dense symmetric matrix in the operator's clothes."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix
        self.dim = len(matrix)
        self.dtype, self.device = matrix.dtype, matrix.device
        self.n_products = 0

    def product(self, vectors: Tensor) -> Tensor:
        self.n_products += vectors.numel() // self.dim
        return vectors @ self.matrix


def with_spectrum(values: Tensor, seed: int = 0, dtype: torch.dtype = torch.float64) -> MatrixOperator:
    """Return Q diag(values) Q^T for a random rotation Q."""
    generator = torch.Generator().manual_seed(seed)
    rotation, _ = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator, dtype=torch.float64))
    return MatrixOperator(((rotation * values.double()) @ rotation.T).to(dtype))


class WithUnusedParameter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.ones(3))
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class WithLinearParameter(nn.Module):
    """``shift`` moves the output along; under a loss that is linear in it the gradient is a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(3))
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([torch.tanh(self.layer(x)), self.shift.expand(len(x), 3)], dim=1)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query_key_value = nn.Linear(4, 12)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x.unflatten(1, (3, 4)))
        query, key, value = self.query_key_value(tokens).chunk(3, dim=-1)
        mixed = nn.functional.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None])
        return self.head((tokens + mixed[:, 0]).mean(dim=1))


def _linear_in_shift(outputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs[:, :3], targets) + outputs[:, 3:].sum(dim=1).mean()


def _classification(shape: tuple[int, ...], sizes: tuple[int, ...], seed: int) -> Batches:
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(size, *shape, generator=generator, dtype=torch.float64),
            torch.randint(3, (size,), generator=generator),
        )
        for size in sizes
    ]


def _used_batchnorm(model: nn.Sequential, batches: Batches) -> nn.Sequential:
    for inputs, _ in batches:
        model(inputs)  # in train mode: gives the running statistics values of their own
    return model


def cases() -> dict[str, Case]:
    """Return the named cases; batches of 7, 4 and 1 samples, so that a mean over batches is far off."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = (7, 4, 1)
        flat, images = _classification((4,), sizes, 1), _classification((1, 6, 6), sizes, 2)
        wide = _classification((12,), sizes, 3)
        regression = [(x, torch.sin(x[:, :2])) for x, _ in flat]
        mlp = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
        relu = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 2)).double()
        conv = nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, 3)
        ).double()
        layer_norm = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 3)).double()
        cross_entropy = nn.CrossEntropyLoss()
        return {
            "mlp": Case(model=mlp, loss=cross_entropy, batches=flat),
            "relu_dropout_mse": Case(model=relu, loss=nn.MSELoss(), batches=regression),
            "conv_batchnorm": Case(model=_used_batchnorm(conv, images), loss=cross_entropy, batches=images),
            "layer_norm": Case(model=layer_norm, loss=cross_entropy, batches=flat),
            "attention": Case(model=Attention().double(), loss=cross_entropy, batches=wide),
            "unused_parameter": Case(model=WithUnusedParameter().double(), loss=cross_entropy, batches=flat),
            "linear_parameter": Case(model=WithLinearParameter().double(), loss=_linear_in_shift, batches=flat),
        }


def dense_hessian(case: Case, names: list[str] | None = None) -> Tensor:
    """Return the Hessian of the mean loss over all samples at once, by plain forward-over-reverse-free autograd."""
    model = case.model
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    names = names or [name for name, _ in model.named_parameters()]
    start = {name: dict(model.named_parameters())[name].detach() for name in names}
    inputs, targets = case.pair

    def value(flat: Tensor) -> Tensor:
        parts = flat.split([start[name].numel() for name in names])
        weights = {name: part.view_as(start[name]) for name, part in zip(names, parts, strict=True)}
        return case.loss(functional_call(model, weights, (inputs,)), targets)

    with sdpa_kernel(SDPBackend.MATH):
        matrix = torch.autograd.functional.hessian(value, torch.cat([start[name].flatten() for name in names]))
    for module, training in modes:
        module.training = training
    return matrix
