"""Hessian-vector products against dense float64 Hessians, and the traps that other tools fall into."""

import copy
import gc

import numpy as np
import pytest
import torch
from curvature_cases import Case, cases, dense_hessian
from scipy.sparse.linalg import aslinearoperator, cg, eigsh
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from alignscape.errors import InputError
from landscape import HessianOperator
from landscape.graphs import graph_bytes

NAMES = list(cases())


@pytest.fixture
def mlp() -> Case:
    return cases()["mlp"]


def identity(operator: HessianOperator) -> Tensor:
    return torch.eye(operator.dim, dtype=operator.dtype)


@pytest.mark.parametrize("budget", [None, 0, 3_000], ids=["kept", "recomputed", "part kept"])
@pytest.mark.parametrize("name", NAMES)
def test_products_equal_the_dense_hessian(name, budget):
    case = cases()[name]
    operator = HessianOperator(case.model, case.loss, case.batches, memory_budget=budget)
    torch.testing.assert_close(operator.product(identity(operator)), dense_hessian(case), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("count", [None, 1, 3, "as many as rows"])
def test_matrix_multiplication_takes_columns(mlp, count):
    """A square matrix that is not symmetric tells its columns from its rows."""
    operator, truth = HessianOperator(mlp.model, mlp.loss, mlp.batches), dense_hessian(mlp)
    shape = {None: (operator.dim,), "as many as rows": operator.shape}.get(count, (operator.dim, count))
    vectors = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = operator @ vectors
    assert found.shape == vectors.shape
    torch.testing.assert_close(found, truth @ vectors, rtol=1e-10, atol=1e-12)


def test_matrix_multiplication_refuses_what_does_not_fit(mlp):
    operator = HessianOperator(mlp.model, mlp.loss, mlp.batches)
    for shape in [(operator.dim + 1,), (3, operator.dim), (operator.dim, 1, 1), ()]:
        with pytest.raises(ValueError, match="does not multiply"):
            operator @ torch.zeros(shape)
    with pytest.raises(TypeError):
        operator @ 2.0


def test_scipy_finds_the_eigenvalues_of_the_dense_hessian(mlp):
    operator, truth = HessianOperator(mlp.model, mlp.loss, mlp.batches), dense_hessian(mlp)
    matrix = operator.to_scipy()
    assert (matrix.shape, matrix.dtype) == (operator.shape, np.float64)
    found = eigsh(
        matrix, 4, which="BE", return_eigenvectors=False, v0=np.random.default_rng(0).standard_normal(operator.dim)
    )
    values = torch.linalg.eigvalsh(truth).numpy()
    np.testing.assert_allclose(np.sort(found), values[[0, 1, -2, -1]], rtol=1e-8)
    columns = np.random.default_rng(0).standard_normal((operator.dim, 3))
    for product in (matrix @ columns, matrix.T @ columns, np.stack([matrix @ c for c in columns.T], axis=1)):
        np.testing.assert_allclose(product, truth.numpy() @ columns, rtol=1e-9, atol=1e-12)


def test_scipy_solves_a_damped_newton_step(mlp):
    """A linear system, (H + 1) x = gradient, from products alone."""
    operator, truth = HessianOperator(mlp.model, mlp.loss, mlp.batches), dense_hessian(mlp)
    damped = operator.to_scipy() + aslinearoperator(np.eye(operator.dim))
    step, failed = cg(damped, operator.gradient.numpy(), rtol=1e-10)
    assert not failed
    wanted = torch.linalg.solve(truth + torch.eye(operator.dim, dtype=torch.float64), operator.gradient)
    np.testing.assert_allclose(step, wanted.numpy(), rtol=1e-7, atol=1e-10)


def test_scipy_gets_float32_from_a_float32_model(mlp):
    operator = HessianOperator(mlp.model.float(), mlp.loss, mlp.batches)
    product = operator.to_scipy() @ np.ones(operator.dim)
    assert product.dtype == np.float32
    np.testing.assert_array_equal(product, (operator @ torch.ones(operator.dim)).numpy())


@pytest.mark.parametrize("name", NAMES)
def test_gauss_newton_equals_its_definition(name):
    case = cases()[name]
    if name == "linear_parameter":
        pytest.skip("its loss is not convex in the outputs; covered by the others")
    operator = HessianOperator(case.model, case.loss, case.batches, hessian="ggn")
    case.model.eval()
    names = list(dict(case.model.named_parameters()))
    inputs, targets = case.pair

    def outputs(*weights: Tensor) -> Tensor:
        return torch.func.functional_call(case.model, dict(zip(names, weights, strict=True)), (inputs,))

    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        weights = tuple(p.detach() for p in case.model.parameters())
        jacobian = torch.cat(
            [j.flatten(2) for j in torch.autograd.functional.jacobian(outputs, weights)], dim=2
        ).flatten(0, 1)
        at = outputs(*weights).detach()
    curvature = torch.autograd.functional.hessian(lambda z: case.loss(z.view_as(at), targets), at.flatten())
    torch.testing.assert_close(
        operator.product(identity(operator)), jacobian.T @ curvature @ jacobian, rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("budget", [None, 0], ids=["kept", "recomputed"])
def test_bytes_are_normalised_batch_by_batch(mlp, budget):
    images = torch.randint(0, 256, mlp.pair[0].shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    seen = []

    def normalise(inputs: Tensor) -> Tensor:
        seen.append((inputs.dtype, len(inputs)))
        return inputs.double() / 255 - 0.5

    options = {"batch_size": 7, "memory_budget": budget}
    whole = HessianOperator(mlp.model, mlp.loss, (normalise(images), mlp.pair[1]), **options)
    seen.clear()
    bytewise = HessianOperator(mlp.model, mlp.loss, (images, mlp.pair[1]), transform=normalise, **options)
    assert torch.equal(bytewise.product(identity(whole)), whole.product(identity(whole)))
    assert max(count for _, count in seen) == 7
    assert {dtype for dtype, _ in seen} == {torch.uint8}


def test_averaging_batches_would_be_wrong_by_far(mlp):
    """The trap: the mean over batches of 7, 4 and 1 samples is another matrix."""
    faulty = torch.stack(
        [dense_hessian(Case(model=mlp.model, loss=mlp.loss, batches=[batch])) for batch in mlp.batches]
    ).mean(dim=0)
    truth = dense_hessian(mlp)
    assert (faulty - truth).norm() > 0.1 * truth.norm()
    operator = HessianOperator(mlp.model, mlp.loss, mlp.batches)
    torch.testing.assert_close(operator.product(identity(operator)), truth, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("told", ["by the loss", "by the caller"])
def test_sum_losses_give_the_hessian_of_the_mean(mlp, told):
    if told == "by the loss":
        operator = HessianOperator(mlp.model, nn.CrossEntropyLoss(reduction="sum"), mlp.batches)
    else:
        operator = HessianOperator(
            mlp.model, lambda z, y: nn.functional.cross_entropy(z, y, reduction="sum"), mlp.batches, reduction="sum"
        )
    torch.testing.assert_close(operator.product(identity(operator)), dense_hessian(mlp), rtol=1e-10, atol=1e-12)
    inputs, targets = mlp.pair
    assert operator.loss == pytest.approx(mlp.loss(mlp.model(inputs), targets).item(), rel=1e-12)


@pytest.mark.parametrize("batch_size", [1, 5, 12, None])
def test_batch_size_does_not_matter(mlp, batch_size):
    vector = torch.randn(83, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    operator = HessianOperator(mlp.model, mlp.loss, mlp.pair, batch_size=batch_size)
    torch.testing.assert_close(operator.product(vector), dense_hessian(mlp) @ vector, rtol=1e-10, atol=1e-12)


def test_loss_and_gradient(mlp):
    operator = HessianOperator(mlp.model, mlp.loss, mlp.batches)
    inputs, targets = mlp.pair
    loss = mlp.loss(mlp.model(inputs), targets)
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(mlp.model.parameters()))])
    torch.testing.assert_close(operator.gradient, expected, rtol=1e-12, atol=1e-14)
    ggn = HessianOperator(mlp.model, mlp.loss, mlp.batches, hessian="ggn")
    torch.testing.assert_close(ggn.gradient, expected, rtol=1e-12, atol=1e-14)
    assert operator.n_samples == 12


def test_parameter_filter_takes_rows_and_columns(mlp):
    operator = HessianOperator(mlp.model, mlp.loss, mlp.batches, params=["2.*"])
    assert list(operator.parameters) == ["2.weight", "2.bias"]
    torch.testing.assert_close(
        operator.product(identity(operator)), dense_hessian(mlp)[30:65, 30:65], rtol=1e-10, atol=1e-12
    )


def test_a_parameter_that_the_loss_does_not_use_has_zero_curvature():
    case = cases()["unused_parameter"]
    operator = HessianOperator(case.model, case.loss, case.batches, params=["unused"])
    assert operator.product(torch.ones(3, dtype=torch.float64)).tolist() == [0, 0, 0]


def test_symmetry_in_float32(mlp):
    model = copy.deepcopy(mlp.model).float()
    operator = HessianOperator(model, mlp.loss, mlp.batches)
    left, right = torch.randn(2, operator.dim, generator=torch.Generator().manual_seed(1))
    assert float(left @ operator.product(right)) == pytest.approx(float(right @ operator.product(left)), rel=1e-5)


def test_second_analysis_gives_the_same_and_leaves_the_model_alone():
    """The traps: a second analysis that returns twice the first (``.grad`` added up), a model left in eval mode,
    running statistics that moved."""
    case = cases()["conv_batchnorm"]
    model = case.model.train()
    model[1].eval()  # a frozen BatchNorm inside a network in training
    before = copy.deepcopy(model.state_dict())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    first = HessianOperator(model, case.loss, case.batches)
    vector = torch.ones(first.dim, dtype=torch.float64)
    result = first.product(vector)
    torch.testing.assert_close(first.product(vector), result, rtol=0, atol=0)
    second = HessianOperator(model, case.loss, case.batches)
    torch.testing.assert_close(second.product(vector), result, rtol=0, atol=0)
    assert [module.training for module in model] == [True, False, True, True, True, True]
    assert all((p.grad == 1).all() for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_mode_is_restored_after_an_error(mlp):
    mlp.model.train()
    with pytest.raises(InputError, match="one number"):
        HessianOperator(mlp.model, lambda z, y: z, mlp.batches)
    assert all(module.training for module in mlp.model.modules())


def test_changing_the_model_later_does_not_change_the_operator(mlp):
    operator = HessianOperator(mlp.model, mlp.loss, mlp.batches, memory_budget=0)
    truth = dense_hessian(mlp)
    with torch.no_grad():
        for parameter in mlp.model.parameters():
            parameter.mul_(3)
    torch.testing.assert_close(operator.product(identity(operator)), truth, rtol=1e-10, atol=1e-12)


def test_part_of_the_graphs_is_kept_within_the_budget(mlp):
    operator = HessianOperator(mlp.model, mlp.loss, mlp.batches, memory_budget=3_000)
    assert 0 < len(operator._kept) < 3
    assert sum(graph.nbytes() for graph, _ in operator._kept.values()) <= 3_000


def test_graph_bytes_counts_every_storage_once():
    x = torch.randn(100, dtype=torch.float64, requires_grad=True)
    y = x.exp()
    assert graph_bytes([(y * y).grad_fn]) == 800  # both saved factors and exp's saved result are one storage
    assert graph_bytes([(x * x).grad_fn]) == 0  # the parameter itself is not the graph's
    assert graph_bytes([(x[:10] * torch.ones(1000, dtype=torch.float64)[:10]).grad_fn]) == 80


def test_kept_graphs_hold_no_gradients():
    """A gradient is as large as the network: kept with every batch, it would outgrow the samples."""
    model = nn.Linear(500, 10).double()
    data = torch.randn(6, 500, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), torch.arange(6)
    before = {id(t) for t in gc.get_objects() if type(t) is Tensor}
    operator = HessianOperator(model, nn.CrossEntropyLoss(), data, batch_size=1)
    assert len(operator._kept) == 6
    held = [t for t in gc.get_objects() if type(t) is Tensor and id(t) not in before and t.shape == (10, 500)]
    assert len(held) == 1  # the operator's own copy of the weights


def test_recurrent_and_transformer_layers():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.1, batch_first=True)
        model = nn.Sequential(nn.Unflatten(1, (3, 4)), layer, nn.Flatten(), nn.Linear(12, 3)).double()
    batches = cases()["attention"].batches
    case = Case(model=model, loss=nn.CrossEntropyLoss(), batches=batches)
    operator = HessianOperator(model, case.loss, batches)
    vector = torch.randn(operator.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(operator.product(vector), dense_hessian(case) @ vector, rtol=1e-9, atol=1e-11)


class TestBadInput:
    def test_nan_weights_are_named(self, mlp):
        with torch.no_grad():
            mlp.model[2].weight[0, 0] = float("nan")
        with pytest.raises(InputError, match=r"2\.weight holds NaN"):
            HessianOperator(mlp.model, mlp.loss, mlp.batches)

    def test_loss_that_is_not_finite(self, mlp):
        inputs, targets = mlp.pair
        with pytest.raises(InputError, match="not finite"):
            HessianOperator(mlp.model, mlp.loss, (inputs * float("inf"), targets))

    def test_loss_without_gradient(self, mlp):
        with pytest.raises(InputError, match="no gradient to the parameters"):
            HessianOperator(mlp.model, lambda outputs, targets: mlp.loss(outputs.detach(), targets), mlp.batches)

    def test_empty_filter(self, mlp):
        with pytest.raises(InputError, match=r"matching conv\*"):
            HessianOperator(mlp.model, mlp.loss, mlp.batches, params=["conv*"])

    def test_generator(self, mlp):
        with pytest.raises(InputError, match="generator into a list"):
            HessianOperator(mlp.model, mlp.loss, (batch for batch in mlp.batches))

    def test_empty(self, mlp):
        with pytest.raises(InputError, match="no sample"):
            HessianOperator(mlp.model, mlp.loss, [])
        with pytest.raises(InputError, match="no sample"):
            HessianOperator(mlp.model, mlp.loss, (torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)))

    def test_lengths_differ(self, mlp):
        with pytest.raises(InputError, match="3 inputs but 2 targets"):
            HessianOperator(mlp.model, mlp.loss, (torch.zeros(3, 4), torch.zeros(2, dtype=torch.int64)))

    def test_shuffling_loader_is_caught(self, mlp):
        loader = DataLoader(
            TensorDataset(*mlp.pair), batch_size=5, shuffle=True, generator=torch.Generator().manual_seed(0)
        )
        operator = HessianOperator(mlp.model, mlp.loss, loader, memory_budget=0)
        with pytest.raises(InputError, match="shuffle=False"):
            operator.product(torch.ones(operator.dim, dtype=torch.float64))

    def test_loss_per_sample(self, mlp):
        with pytest.raises(InputError, match="reduction='none'"):
            HessianOperator(mlp.model, nn.CrossEntropyLoss(reduction="none"), mlp.batches)

    def test_unknown_curvature(self, mlp):
        with pytest.raises(InputError, match="'full' or 'ggn'"):
            HessianOperator(mlp.model, mlp.loss, mlp.batches, hessian="fisher")
