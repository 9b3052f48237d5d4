"""Blocks of groups of parameters against the blocks of dense float64 Hessians."""

import pytest
import torch
from curvature_cases import cases, dense_hessian
from torch import nn

from alignscape.errors import InputError
from landscape import Blocks, HessianOperator, parameter_groups, top_eigenpairs

NAMES = ["stem.weight", "layers.0.conv.weight", "layers.0.conv.bias", "layers.1.conv.weight", "head.weight"]


@pytest.fixture(scope="module")
def case():
    return cases()["mlp"]


@pytest.fixture(scope="module")
def truth(case):
    return dense_hessian(case)


@pytest.fixture
def operator(case):
    return HessianOperator(case.model, case.loss, case.batches)


@pytest.fixture
def blocks(operator):
    return Blocks(operator, by="layer")


def places(operator, groups):
    """The positions of each group's entries in a flat vector."""
    found, first = {}, 0
    for name, parameter in operator.parameters.items():
        group = next(group for group, own in groups.items() if name in own)
        found.setdefault(group, []).extend(range(first, first + parameter.numel()))
        first += parameter.numel()
    return found


def hollow(truth, own):
    """The matrix without its diagonal blocks."""
    rest = truth.clone()
    for group in own.values():
        rest[torch.tensor(group)[:, None], torch.tensor(group)] = 0
    return rest


@pytest.mark.parametrize(
    ("by", "wanted"),
    [
        ("layer", ["stem", "layers.0.conv", "layers.1.conv", "head"]),
        ("block", ["stem", "layers.0", "layers.1", "head"]),
        (["layers.*", "head*"], ["rest", "layers.*", "head*"]),
        ("*.weight", ["*.weight", "rest"]),
    ],
)
def test_groups_hold_every_parameter_once(by, wanted):
    groups = parameter_groups(NAMES, by)
    assert list(groups) == wanted
    assert sorted(name for own in groups.values() for name in own) == sorted(NAMES)


def test_blocks_of_networks_of_the_field():
    """Names as torchvision's ResNet-18 and ViT-B/16 and Hugging Face's BERT have them."""
    residual = ["conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer1.0.bn1.bias", "layer1.1.conv1.weight"]
    assert list(parameter_groups(residual, "block")) == ["conv1", "bn1", "layer1.0", "layer1.1"]
    vit = ["class_token", "conv_proj.weight", "encoder.pos_embedding"]
    vit += [f"encoder.layers.encoder_layer_{i}.{part}.weight" for i in (0, 11) for part in ("ln_1", "mlp.0", "mlp.3")]
    layers = "encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_11"
    assert list(parameter_groups(vit, "block")) == ["class_token", "conv_proj", "encoder", *layers]
    bert = [f"bert.encoder.layer.{i}.attention.self.{part}.weight" for i in (0, 1) for part in ("query", "key")]
    assert list(parameter_groups(bert, "block")) == ["bert.encoder.layer.0", "bert.encoder.layer.1"]


def test_a_pattern_without_parameters_is_refused(operator):
    with pytest.raises(InputError, match=r"no parameters match conv\*"):
        Blocks(operator, by=["conv*"])


@pytest.mark.parametrize("budget", [None, 0], ids=["kept", "recomputed"])
@pytest.mark.parametrize("hessian", ["full", "ggn", "difference"])
@pytest.mark.parametrize("name", ["mlp", "conv_batchnorm", "attention", "unused_parameter"])
def test_products_are_those_of_the_dense_blocks(name, hessian, budget):
    case = cases()[name]
    whole = HessianOperator(case.model, case.loss, case.batches, hessian=hessian)
    dense = whole.product(torch.eye(whole.dim, dtype=torch.float64))
    if hessian == "full":
        torch.testing.assert_close(dense, dense_hessian(case), rtol=1e-10, atol=1e-12)
    blocks = Blocks(HessianOperator(case.model, case.loss, case.batches, hessian=hessian, memory_budget=budget))
    own = places(whole, blocks.groups)
    for group, indices in own.items():
        found = blocks[group].product(torch.eye(len(indices), dtype=torch.float64))
        torch.testing.assert_close(found, dense[indices][:, indices], rtol=1e-9, atol=1e-12)
    first, last = next(iter(own)), list(own)[-1]
    cross = blocks.cross(last, first)
    corner = dense[own[last]][:, own[first]]
    found = cross.product(torch.eye(cross.dim, dtype=torch.float64))
    size = len(own[last])
    torch.testing.assert_close(found[:size, size:], corner, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found[size:, :size], corner.T, rtol=1e-9, atol=1e-12)
    assert not found[:size, :size].any()
    between = blocks.between.product(torch.eye(whole.dim, dtype=torch.float64))
    order = [place for group in own.values() for place in group]
    torch.testing.assert_close(between, hollow(dense, own)[order][:, order], rtol=1e-9, atol=1e-12)


def test_the_difference_is_the_hessian_less_its_gauss_newton_part(case):
    full, part, rest = (
        HessianOperator(case.model, case.loss, case.batches, hessian=kind) for kind in ("full", "ggn", "difference")
    )
    vectors = torch.randn(3, full.dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wanted = full.product(vectors) - part.product(vectors)
    torch.testing.assert_close(rest.product(vectors), wanted, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close((full - part) @ vectors.T, wanted.T, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(rest.gradient, full.gradient)


def test_eigenpairs_of_all_blocks_in_the_passes_of_the_slowest(case, operator, blocks, truth):
    found = blocks.eigenpairs(k=2, between=True, tol=1e-6)
    own = places(operator, blocks.groups)
    for group, indices in own.items():
        values = torch.linalg.eigvalsh(truth[indices][:, indices]).flip(0)
        assert found[group].values.tolist() == pytest.approx(values[:2].tolist(), rel=1e-8)
        assert found[group].converged
        assert found[group].vectors.shape == (2, len(indices))
        alone = top_eigenpairs(case.model, case.loss, case.batches, k=2, tol=1e-6, params=blocks.groups[group])
        assert alone.values.tolist() == pytest.approx(values[:2].tolist(), rel=1e-8)
        assert found[group].n_products == alone.n_products
    rest = torch.linalg.eigvalsh(hollow(truth, own)).flip(0)
    assert found["between groups"].values.tolist() == pytest.approx(rest[:2].tolist(), rel=1e-8)
    assert blocks.passes < sum(pairs.n_products for pairs in found.values())
    assert blocks.passes <= max(pairs.n_products for pairs in found.values())


def test_a_group_smaller_than_k_gives_all_that_it_has(case, truth):
    blocks = Blocks(HessianOperator(case.model, case.loss, case.batches), by=["4.bias"])
    found = blocks.eigenpairs(k=5)["4.bias"]
    assert found.values.tolist() == pytest.approx(torch.linalg.eigvalsh(truth[-3:, -3:]).flip(0).tolist(), rel=1e-6)


@pytest.mark.parametrize("deflated", [False, True])
def test_traces_of_blocks_cover_the_truth(operator, blocks, truth, deflated):
    pairs = blocks.eigenpairs(k=2) if deflated else None
    own = places(operator, blocks.groups)
    inside = []
    for seed in range(1, 11):
        found = blocks.traces(pairs, tol=0.2, seed=seed)
        for group, indices in own.items():
            wanted = float(truth[indices][:, indices].trace())
            slack = 1e-9 * abs(wanted)  # of a small block that is deflated whole nothing is left to estimate
            inside.append(found[group].ci_low - slack <= wanted <= found[group].ci_high + slack)
    assert sum(inside) / len(inside) >= 0.85


def test_probes_of_a_group_alone_are_less_noisy_than_those_of_all(operator, blocks, truth):
    """The reason for a product a group: the shared probe's error holds what lies in the rows outside of the block."""
    from landscape import hutchinson_trace

    own = places(operator, blocks.groups)
    shared = hutchinson_trace(operator, tol=1e-9, max_probes=400, layout=operator.parameters)
    alone = blocks.traces(tol=1e-9, max_probes=400)
    for group, indices in own.items():
        block = truth[indices][:, indices]
        if torch.linalg.matrix_norm(truth[indices]) < 1.5 * torch.linalg.matrix_norm(block):
            continue
        names = blocks.groups[group]
        width = sum((shared.layers[name].ci_high - shared.layers[name].value) ** 2 for name in names) ** 0.5
        assert alone[group].ci_high - alone[group].value < width
        break
    else:
        pytest.fail("no block whose rows hold much outside of it")


def test_norms_of_every_block(operator, blocks, truth):
    own = places(operator, blocks.groups)
    found = blocks.norms(probes=60)
    assert len(found) == 6
    total = sum((1 if first == second else 2) * one.value**2 for (first, second), one in found.items())
    assert total**0.5 == pytest.approx(float(torch.linalg.matrix_norm(truth)), rel=0.1)
    inside = 0
    for (first, second), one in found.items():
        wanted = float(torch.linalg.matrix_norm(truth[own[first]][:, own[second]]))
        assert one.value == pytest.approx(wanted, rel=0.25)
        inside += one.ci_low <= wanted <= one.ci_high
    assert inside >= 5


def test_singular_values_of_a_cross_block(operator, blocks, truth):
    from landscape import extreme_eigenpairs

    own = places(operator, blocks.groups)
    singular = torch.linalg.svdvals(truth[own["0"]][:, own["4"]])
    found = extreme_eigenpairs(blocks.cross("0", "4"), 2, tol=1e-8)
    assert found.values.tolist() == pytest.approx(singular[:2].tolist(), rel=1e-7)
    with pytest.raises(InputError, match="no such two groups"):
        blocks.cross("0", "0")


def test_densities_of_blocks(operator, blocks, truth):
    found = blocks.densities(steps=40, probes=2, between=True)
    own = places(operator, blocks.groups)
    for group, indices in own.items():
        values = torch.linalg.eigvalsh(truth[indices][:, indices])
        assert float(found[group].nodes.max()) == pytest.approx(float(values[-1]), rel=1e-6)
        assert float(found[group].nodes.min()) == pytest.approx(float(values[0]), rel=1e-6, abs=1e-9)
        assert found[group].dim == len(indices)
    rest = torch.linalg.eigvalsh(hollow(truth, own))
    assert float(found["between groups"].nodes.min()) == pytest.approx(float(rest[0]), rel=1e-6)


def test_one_group_has_nothing_between(operator):
    found = Blocks(operator, by="*").eigenpairs(k=1, between=True)
    assert list(found) == ["*"]
    assert found["*"].values.tolist() == pytest.approx(
        torch.linalg.eigvalsh(operator.product(torch.eye(operator.dim, dtype=torch.float64)))[-1:].tolist(), rel=1e-6
    )


def test_restricted_products_cost_less():
    """Of a late layer a product needs a small share of the network."""
    model = nn.Sequential(*[layer for _ in range(8) for layer in (nn.Linear(64, 64), nn.Tanh())], nn.Linear(64, 3))
    inputs, targets = torch.randn(50, 64), torch.randint(3, (50,))
    blocks = Blocks(HessianOperator(model, nn.CrossEntropyLoss(), (inputs, targets)))
    from torch.utils.flop_counter import FlopCounterMode

    flops = {}
    for group in (None, *blocks.groups):
        one = blocks.operator if group is None else blocks[group]
        with FlopCounterMode(display=False) as counter:
            one.product(torch.zeros(1, one.dim))
        flops[group] = counter.get_total_flops()
    assert flops["16"] < 0.1 * flops[None]
    assert sum(flops[group] for group in blocks.groups) < 0.8 * len(blocks.groups) * flops[None]
