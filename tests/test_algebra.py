"""Sums, multiples, shifts and products of operators against dense float64 matrices."""

import numpy as np
import pytest
import torch
from curvature_cases import cases, dense_hessian
from scipy.sparse.linalg import cg, eigsh

from landscape import Blocks, HessianOperator, extreme_eigenpairs, hutchinson_trace


@pytest.fixture(scope="module")
def case():
    return cases()["mlp"]


@pytest.fixture(scope="module")
def truth(case):
    return dense_hessian(case)


@pytest.fixture
def operator(case):
    return HessianOperator(case.model, case.loss, case.batches)


def test_stacks_of_matrices_multiply_as_in_torch(operator, truth):
    generator = torch.Generator().manual_seed(0)
    for shape in [(3, operator.dim, 2), (2, 3, operator.dim, 1), (operator.dim, 0), (0, operator.dim, 2)]:
        other = torch.randn(shape, generator=generator, dtype=torch.float64)
        torch.testing.assert_close(operator @ other, truth @ other, rtol=1e-10, atol=1e-12)
    with pytest.raises(ValueError, match="does not multiply"):
        operator @ torch.zeros(operator.dim, 3, 2)


def test_sums_multiples_and_shifts(case, operator, truth):
    part = HessianOperator(case.model, case.loss, case.batches, hessian="ggn")
    identity = torch.eye(operator.dim, dtype=torch.float64)
    ggn = part @ identity
    for made, wanted in [
        (operator - part, truth - ggn),
        (operator + 2 * part, truth + 2 * ggn),
        (-operator, -truth),
        (0.5 * operator.shifted(3), (truth + 3 * identity) / 2),
        (operator * 2 - operator, truth),
    ]:
        torch.testing.assert_close(made @ identity, wanted, rtol=1e-9, atol=1e-12)
    with pytest.raises(TypeError):
        operator + 1.0
    with pytest.raises(ValueError, match="do not add up"):
        operator - Blocks(operator)["0"]


def test_methods_take_what_is_made(operator, truth):
    shifted = operator.shifted(1.5)
    values = torch.linalg.eigvalsh(truth)
    found = extreme_eigenpairs(shifted, 2, tol=1e-8)
    assert found.values.tolist() == pytest.approx((values[-2:].flip(0) + 1.5).tolist())
    assert found.n_products == shifted.n_products == operator.n_products
    trace = hutchinson_trace(shifted, max_probes=40)
    wanted = float(truth.trace()) + 1.5 * operator.dim
    assert abs(trace.value - wanted) < 2.5 * (trace.ci_high - trace.value)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_scipy_takes_what_is_made_in_the_models_precision(case, truth, dtype):
    blocks = Blocks(HessianOperator(case.model.to(dtype), case.loss, case.batches))
    case.model.double()
    size = blocks["4"].dim
    matrix = blocks["4"].shifted(1.0).to_scipy()
    assert matrix.dtype == (np.float64 if dtype == torch.float64 else np.float32)
    block = truth[-size:, -size:] + torch.eye(size, dtype=torch.float64)
    found = eigsh(matrix, 2, return_eigenvectors=False, v0=np.ones(size))
    np.testing.assert_allclose(np.sort(found), torch.linalg.eigvalsh(block)[-2:].numpy(), rtol=1e-4)
    solved, failed = cg(matrix, np.ones(size), rtol=1e-5)
    assert not failed
    np.testing.assert_allclose(solved, torch.linalg.solve(block, torch.ones(size).double()).numpy(), rtol=1e-3)
