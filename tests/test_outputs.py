"""Models with several outputs, and BERT: the Gauss-Newton matrix and the Hessian against explicit derivatives."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from alignscape.errors import InputError
from landscape import HessianOperator

N = 7


class Pair(NamedTuple):
    logits: Tensor
    value: Tensor


@dataclass
class Record:
    """As the outputs of Hugging Face's models are."""

    logits: Tensor
    value: Tensor
    hidden: tuple[Tensor, ...] | None = None


FORMS: dict[str, Callable[[Tensor, Tensor, Tensor], Any]] = {
    "tuple": lambda logits, value, hidden: (logits, value, hidden),
    "nested": lambda logits, value, hidden: [{"logits": logits}, (value, [hidden])],
    "mapping": lambda logits, value, hidden: {"logits": logits, "value": value, "hidden": hidden, "none": None},
    "named tuple": lambda logits, value, hidden: Pair(logits, value),
    "record": lambda logits, value, hidden: Record(logits, value, (hidden,)),
}
READ: dict[str, Callable[[Any], tuple[Tensor, Tensor]]] = {
    "tuple": lambda out: (out[0], out[1]),
    "nested": lambda out: (out[0]["logits"], out[1][0]),
    "mapping": lambda out: (out["logits"], out["value"]),
    "named tuple": lambda out: (out.logits, out.value),
    "record": lambda out: (out.logits, out.value),
}


class TwoHeads(nn.Module):
    """Logits and a value from one body, which comes out too and which no loss reads."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.body, self.logits, self.value = nn.Linear(4, 5), nn.Linear(5, 3), nn.Linear(5, 1)
        self.form = form

    def forward(self, x: Tensor) -> Any:
        hidden = torch.tanh(self.body(x))
        return FORMS[self.form](self.logits(hidden), self.value(hidden), hidden)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def explicit(model: nn.Module, outputs: Callable[[nn.Module, dict[str, Tensor]], Tensor], loss: Any) -> Tensor:
    """``J^T H_L J`` of ``outputs``, one tensor (M,), with the loss of it."""
    names = {name: p.detach() for name, p in model.named_parameters()}

    def flat_outputs(flat: Tensor) -> Tensor:
        parts = zip(names.items(), flat.split([p.numel() for p in names.values()]), strict=True)
        return outputs(model, {name: part.view_as(p) for (name, p), part in parts})

    at = torch.cat([p.flatten() for p in names.values()])
    jacobian = torch.autograd.functional.jacobian(flat_outputs, at)
    return jacobian.T @ torch.autograd.functional.hessian(loss, flat_outputs(at)) @ jacobian


@pytest.mark.parametrize("budget", [None, 0], ids=["kept", "recomputed"])
@pytest.mark.parametrize("form", FORMS)
def test_gauss_newton_of_several_outputs(form, budget):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TwoHeads(form).double()
    inputs, labels, goals = random(N, 4), torch.arange(N) % 3, random(N, 1, seed=1)

    def loss(out: Any, labels: Tensor, goals: Tensor) -> Tensor:
        logits, value = READ[form](out)
        return F.cross_entropy(logits, labels) + (logits[:, :1] * (value - goals) ** 2).mean()

    def outputs(model: nn.Module, weights: dict[str, Tensor]) -> Tensor:
        return torch.cat(READ[form](functional_call(model, weights, (inputs,))), dim=1).flatten()

    def of_outputs(flat: Tensor) -> Tensor:
        both = flat.view(N, 4)
        return loss(FORMS[form](both[:, :3], both[:, 3:], both), labels, goals)

    batches = [(inputs[:4], labels[:4], goals[:4]), (inputs[4:], labels[4:], goals[4:])]
    operator = HessianOperator(model, loss, batches, hessian="ggn", memory_budget=budget)
    truth = explicit(model, outputs, of_outputs)
    torch.testing.assert_close(operator.product(torch.eye(operator.dim).double()), truth, rtol=1e-9, atol=1e-12)
    full = HessianOperator(model, loss, batches)
    torch.testing.assert_close(operator.gradient, full.gradient)


def test_a_loss_that_the_model_computes_has_no_gauss_newton_matrix():
    class Knowing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
            logits = self.layer(x)
            return {"loss": F.cross_entropy(logits, labels), "logits": logits}

    batch = {"x": random(N, 4).float(), "labels": torch.arange(N) % 3}
    HessianOperator(Knowing(), lambda out, batch: out["loss"], [batch])
    with pytest.raises(InputError, match="the model returns its loss"):
        HessianOperator(Knowing(), lambda out, batch: out["loss"], [batch], hessian="ggn")


class Bert(nn.Module):
    """BERT as Devlin et al. 2019 have it: three embeddings, layers that normalise behind, a pooler, a head."""

    def __init__(self, words: int = 11, width: int = 4, layers: int = 2) -> None:
        super().__init__()
        self.words, self.places, self.kinds = nn.Embedding(words, width), nn.Embedding(8, width), nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width)
        layer = {"dim_feedforward": 6, "dropout": 0.1, "activation": "gelu", "batch_first": True}
        self.layers = nn.ModuleList([nn.TransformerEncoderLayer(width, 2, **layer) for _ in range(layers)])
        self.pooler, self.head = nn.Linear(width, width), nn.Linear(width, 3)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor, labels: Tensor | None = None
    ) -> Record:
        places = torch.arange(input_ids.shape[1])
        hidden = self.norm(self.words(input_ids) + self.places(places) + self.kinds(token_type_ids))
        for layer in self.layers:
            hidden = layer(hidden, src_key_padding_mask=attention_mask == 0)
        logits = self.head(torch.tanh(self.pooler(hidden[:, 0])))
        return Record(logits=logits, value=hidden[:, 0], hidden=(hidden,))


def hugging_face() -> nn.Module:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.BertConfig(
        vocab_size=11, hidden_size=4, num_hidden_layers=2, num_attention_heads=2, intermediate_size=6, num_labels=3
    )
    return transformers.BertForSequenceClassification(config)


@pytest.mark.parametrize("make", [Bert, hugging_face])
def test_bert_with_padding_as_its_loaders_give_it(make):
    """Loaders that yield mappings, outputs that are a record, masks, and fused attention that has no derivative."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make().double()
        with torch.no_grad():
            for p in model.parameters():  # as they begin, its layers have next to no curvature
                p.add_(0.3 * torch.randn_like(p))
    generator = torch.Generator().manual_seed(1)
    batch = {
        "input_ids": torch.randint(1, 11, (N, 5), generator=generator),
        "attention_mask": (torch.arange(5) < torch.tensor([5, 3, 4, 5, 2, 5, 3])[:, None]).long(),
        "token_type_ids": torch.tensor([0, 0, 1, 1, 1]).expand(N, 5),
        "labels": torch.arange(N) % 3,
    }
    batches = [{name: part[first:last] for name, part in batch.items()} for first, last in ((0, 4), (4, N))]

    def loss(out: Any, batch: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(out.logits, batch["labels"])

    def logits(model: nn.Module, weights: dict[str, Tensor]) -> Tensor:
        return functional_call(model, weights, (), batch).logits.flatten()

    names = {name: p.detach() for name, p in model.named_parameters()}

    def value(flat: Tensor) -> Tensor:
        parts = zip(names.items(), flat.split([p.numel() for p in names.values()]), strict=True)
        return F.cross_entropy(
            logits(model, {n: part.view_as(p) for (n, p), part in parts}).view(N, 3), batch["labels"]
        )

    operators = {kind: HessianOperator(model, loss, batches, hessian=kind) for kind in ("full", "ggn")}
    vectors = random(2, operators["full"].dim, seed=3)
    model.eval()
    at = torch.cat([p.flatten() for p in names.values()])
    with sdpa_kernel(SDPBackend.MATH):
        truth = torch.stack([torch.autograd.functional.hvp(value, at, row)[1] for row in vectors])
        ggn = explicit(model, logits, lambda flat: F.cross_entropy(flat.view(N, 3), batch["labels"]))
    torch.testing.assert_close(operators["full"].product(vectors), truth, rtol=1e-8, atol=1e-11)
    torch.testing.assert_close(operators["ggn"].product(vectors), vectors @ ggn, rtol=1e-8, atol=1e-11)
