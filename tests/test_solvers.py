"""MINRES and CG against dense solutions, and what they say of systems that they cannot solve."""

import warnings

import pytest
import torch
from curvature_cases import cases, dense_hessian, with_spectrum
from torch import nn

from alignscape.errors import InputError
from landscape import HessianOperator, solve

INDEFINITE = torch.linspace(-3, 40, 120)


def right_hand_sides(count: int, dim: int) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("tol", [1e-3, 1e-8])
@pytest.mark.parametrize(
    ("method", "values"), [("minres", INDEFINITE), ("minres", -INDEFINITE), ("cg", INDEFINITE + 4)]
)
def test_solutions_are_those_of_the_dense_matrix(method, values, tol):
    operator, right = with_spectrum(values), right_hand_sides(3, len(values))
    found = solve(operator, right, method=method, tol=tol)
    truth = torch.linalg.solve(operator.matrix, right.T).T
    left = (right - found.x @ operator.matrix).norm(dim=1) / right.norm(dim=1)
    torch.testing.assert_close(found.residual, left, rtol=1e-3, atol=1e-14)
    assert found.converged
    assert (found.residual <= tol).all()
    if tol < 1e-6:
        torch.testing.assert_close(found.x, truth, rtol=1e-5, atol=1e-6)
    assert found.n_products == operator.n_products
    assert found.iterations < found.n_products


def test_minres_takes_no_more_steps_than_scipys():
    import numpy as np
    from scipy.sparse.linalg import minres

    operator, right = with_spectrum(INDEFINITE), right_hand_sides(1, 120)[0]
    found = solve(operator, right, tol=1e-5)
    steps = []
    matrix = operator.matrix.numpy()

    def near(x):
        steps.append(np.linalg.norm(matrix @ x - right.numpy()) / np.linalg.norm(right.numpy()))

    minres(matrix, right.numpy(), rtol=1e-12, maxiter=400, callback=near)
    needed = next(number for number, residual in enumerate(steps, 1) if residual <= 1e-5)
    assert found.iterations <= needed + 2


@pytest.mark.parametrize("method", ["minres", "cg"])
def test_in_float32_the_residual_told_is_the_true_one(method):
    operator = with_spectrum(torch.logspace(-2, 1, 150), dtype=torch.float32)
    right = right_hand_sides(1, 150)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = solve(operator, right, method=method, tol=1e-6)
    left = float((right - found.x.double() @ operator.matrix.double()).norm() / right.norm())
    assert float(found.residual) == pytest.approx(left, rel=0.5, abs=2e-7)
    assert found.x.dtype == torch.float32
    assert found.residual < 1e-4


def test_a_singular_matrix_and_a_right_hand_side_in_its_range():
    operator = with_spectrum(torch.tensor([0.0, 0.0, 0.0, 1.0, 2.0, 3.0]))
    found = solve(operator, operator.product(right_hand_sides(1, 6))[0], tol=1e-10)
    assert found.converged
    zero = solve(operator, torch.zeros(6))
    assert zero.converged
    assert not zero.x.any()


def test_what_has_no_solution_is_told():
    operator = with_spectrum(torch.tensor([0.0, 0.0, 0.0, 1.0, 2.0, 3.0]))
    with pytest.warns(UserWarning, match="was solved to a relative residual of"):
        found = solve(operator, right_hand_sides(1, 6)[0], tol=1e-6)
    assert not found.converged
    kernel = torch.linalg.eigh(operator.matrix).eigenvectors[:, :3]
    right = right_hand_sides(1, 6)[0]
    assert float(found.residual) == pytest.approx(float((kernel.T @ right).norm() / right.norm()), rel=1e-3)


def test_few_products_are_few():
    operator = with_spectrum(INDEFINITE)
    with pytest.warns(UserWarning, match="allow more products"):
        found = solve(operator, right_hand_sides(1, 120)[0], max_products=10)
    assert found.n_products <= 10
    assert found.residual < 1


def test_cg_says_where_a_matrix_is_not_positive():
    with pytest.raises(InputError, match="not positive definite"):
        solve(with_spectrum(INDEFINITE), right_hand_sides(1, 120)[0], method="cg")


def test_bad_input():
    operator = with_spectrum(INDEFINITE)
    for options in ({"method": "gmres"}, {"tol": 0}, {"max_products": 1}):
        with pytest.raises(InputError):
            solve(operator, torch.ones(120), **options)
    with pytest.raises(InputError, match=r"it must be \(120,\)"):
        solve(operator, torch.ones(7))


def test_a_damped_newton_step_and_influences_of_a_network():
    """The influence of a sample on the loss of another (Koh and Liang 2017, eq. 2), against the dense matrix."""
    case = cases()["mlp"]
    operator = HessianOperator(case.model, case.loss, case.batches)
    damped = dense_hessian(case) + torch.eye(operator.dim, dtype=torch.float64)
    step = operator.shifted(1.0).solve(operator.gradient, tol=1e-9)
    torch.testing.assert_close(step.x, torch.linalg.solve(damped, operator.gradient), rtol=1e-6, atol=1e-9)
    inputs, targets = case.pair
    rows = [
        HessianOperator(case.model, nn.CrossEntropyLoss(), (inputs[i : i + 1], targets[i : i + 1])).gradient
        for i in range(3)
    ]
    gradients = torch.stack(rows)
    influences = -gradients @ operator.shifted(1.0).solve(gradients, tol=1e-9).x.T
    torch.testing.assert_close(influences, -gradients @ torch.linalg.solve(damped, gradients.T), rtol=1e-6, atol=1e-9)
