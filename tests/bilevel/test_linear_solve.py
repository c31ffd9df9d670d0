"""Solvers against dense solves in numpy, and what they say when they have not converged."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from metasynth.bilevel.strategies.linear_solve import ConjugateGradient, LinearSolver, Neumann, Solution


def spectrum(n: int, low: float, high: float, seed: int) -> np.ndarray:
    """A symmetric matrix (n, n) with eigenvalues spread from ``low`` to ``high``."""
    basis, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))
    return basis @ np.diag(np.linspace(low, high, n)) @ basis.T


def as_lists(matrix: np.ndarray) -> tuple[object, list[Tensor]]:
    """The product with a matrix (7, 7) on a list of tensors (2, 2) and (3,), and a right-hand side."""
    a = torch.tensor(matrix)

    def matvec(v: list[Tensor]) -> list[Tensor]:
        flat = a @ torch.cat([t.flatten() for t in v])
        return [flat[:4].reshape(2, 2), flat[4:]]

    b = torch.tensor(np.random.default_rng(9).standard_normal(7))
    return matvec, [b[:4].reshape(2, 2), b[4:]]


def flat(v: list[Tensor]) -> np.ndarray:
    return torch.cat([t.flatten() for t in v]).numpy()


@given(st.integers(0, 1000), st.floats(0.05, 2.0), st.floats(2.0, 50.0), st.sampled_from([0.0, 0.3, 4.0]))
def test_solutions_are_the_dense_ones(seed: int, low: float, high: float, damping: float) -> None:
    matrix = spectrum(7, low, high, seed)
    matvec, b = as_lists(matrix)
    solvers: list[LinearSolver] = [
        ConjugateGradient(50, tolerance=1e-11, damping=damping),
        Neumann(50_000, scale=1.0 / (high + damping), damping=damping, tolerance=1e-11),
    ]
    truth = np.linalg.solve(matrix + damping * np.eye(7), flat(b))
    for solver in solvers[: 1 if low < 0.5 else 2]:
        solution = solver.solve(matvec, b)
        assert solution.converged
        assert [t.shape for t in solution.x] == [t.shape for t in b]
        assert np.linalg.norm(flat(solution.x) - truth) <= 1e-11 * np.linalg.norm(flat(b)) / (low + damping) * 1.01


@pytest.mark.parametrize("solver", [ConjugateGradient(3, 1e-9), Neumann(6, 0.1, tolerance=1e-9)], ids=str)
def test_what_is_not_converged_says_so_with_its_true_residual(solver: LinearSolver) -> None:
    matrix = spectrum(7, 0.1, 10.0, 0)
    matvec, b = as_lists(matrix)
    solution = solver.solve(matvec, b)
    assert not solution.converged
    assert solution.iterations == getattr(solver, "max_steps", getattr(solver, "steps", None))
    residual = np.linalg.norm(flat(b) - matrix @ flat(solution.x)) / np.linalg.norm(flat(b))
    assert solution.residual == pytest.approx(residual, rel=1e-9)
    assert residual > 1e-9


def test_conjugate_gradients_end_within_the_dimension() -> None:
    matvec, b = as_lists(spectrum(7, 0.1, 10.0, 1))
    assert ConjugateGradient(50, tolerance=1e-10).solve(matvec, b).iterations <= 7


def test_neumann_is_its_series() -> None:
    matrix = spectrum(7, 0.1, 3.0, 2)
    matvec, b = as_lists(matrix)
    damped = matrix + 0.2 * np.eye(7)
    series = sum(0.3 * np.linalg.matrix_power(np.eye(7) - 0.3 * damped, i) @ flat(b) for i in range(5))
    assert np.allclose(flat(Neumann(5, 0.3, damping=0.2).solve(matvec, b).x), series, rtol=1e-13)


@pytest.mark.parametrize("solver", [ConjugateGradient(50), Neumann(500, 0.1)], ids=str)
def test_an_indefinite_operator_does_not_converge(solver: LinearSolver) -> None:
    matvec, b = as_lists(spectrum(7, -1.0, 2.0, 3))
    solution = solver.solve(matvec, b)
    assert not solution.converged
    assert np.isfinite(flat(solution.x)).all()
    assert solution.iterations < 50


DIAGONAL = np.diag([2.0, -1.0, 3.0])


def on(matrix: np.ndarray, b: list[float], **options: float) -> Solution:
    a = torch.tensor(matrix)
    return ConjugateGradient(**options).solve(lambda v: [a @ v[0]], [torch.tensor(b, dtype=torch.float64)])


def test_a_right_hand_side_of_negative_curvature_is_returned_as_it_is() -> None:
    """The identity for the inverse, and never x = 0; damping is in the residual."""
    solution = on(DIAGONAL, [0.0, 2.0, 0.0], damping=0.5)
    assert solution.x[0].tolist() == [0.0, 2.0, 0.0]
    assert (solution.converged, solution.negative_curvature, solution.iterations) == (False, True, 0)
    assert solution.residual == pytest.approx(abs(1 - (-1 + 0.5)))


def test_it_stops_at_the_iterate_before_negative_curvature() -> None:
    """In a plane with both curvatures the first step is of positive, and the second, conjugate to it, of negative."""
    b = np.array([1.0, 0.5, 0.0])
    size = b @ b / (b @ DIAGONAL @ b)
    solution = on(DIAGONAL, b.tolist())
    assert solution.x[0].numpy() == pytest.approx(size * b, rel=1e-14)
    assert (solution.converged, solution.negative_curvature, solution.iterations) == (False, True, 1)
    residual = np.linalg.norm(b - DIAGONAL @ (size * b)) / np.linalg.norm(b)
    assert solution.residual == pytest.approx(residual, rel=1e-12)


def test_no_curvature_counts_as_negative() -> None:
    solution = on(np.zeros((2, 2)), [3.0, 4.0])
    assert solution.x[0].tolist() == [3.0, 4.0]
    assert (solution.negative_curvature, solution.residual) == (True, 1.0)


def test_positive_curvatures_are_said_to_be() -> None:
    assert not on(np.diag([1.0, 2.0]), [1.0, 1.0]).negative_curvature
    assert not on(np.diag([1.0, 2.0]), [1.0, 1.0], max_steps=1).negative_curvature


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_product_that_is_not_finite_is_not_hidden(value: float) -> None:
    solution = on(np.diag([value, 1.0]), [1.0, 1.0])
    assert not torch.isfinite(solution.x[0]).any()
    assert not np.isfinite(solution.residual)
    assert (solution.converged, solution.negative_curvature) == (False, False)


def test_damping_makes_it_definite() -> None:
    matvec, b = as_lists(spectrum(7, -1.0, 2.0, 3))
    assert ConjugateGradient(50, 1e-10, damping=1.5).solve(matvec, b).converged


def test_a_scale_too_large_is_found_out() -> None:
    matvec, b = as_lists(spectrum(7, 0.1, 10.0, 4))
    solution = Neumann(500, scale=0.21).solve(matvec, b)
    assert not solution.converged
    assert np.isfinite(flat(solution.x)).all()


@pytest.mark.parametrize("solver", [ConjugateGradient(), Neumann()], ids=str)
def test_nothing_to_solve(solver: LinearSolver) -> None:
    matvec, b = as_lists(np.eye(7))
    solution = solver.solve(matvec, [torch.zeros_like(t) for t in b])
    assert (solution.converged, solution.iterations, solution.residual) == (True, 0, 0.0)
    assert not flat(solution.x).any()


def test_single_precision_reports_what_it_reached() -> None:
    matrix = spectrum(7, 1e-4, 10.0, 5)
    a = torch.tensor(matrix, dtype=torch.float32)
    b = torch.tensor(np.random.default_rng(9).standard_normal(7), dtype=torch.float32)
    solution = ConjugateGradient(100, tolerance=1e-9).solve(lambda v: [a @ v[0]], [b])
    assert not solution.converged


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConjugateGradient(0), "max_steps must be an integer of at least 1, got 0"),
        (lambda: ConjugateGradient(tolerance=0.0), "tolerance must be above 0, got 0.0"),
        (lambda: ConjugateGradient(damping=-1.0), "damping must be a finite number of at least 0, got -1.0"),
        (lambda: Neumann(steps=1.5), "steps must be an integer of at least 1, got 1.5"),
        (lambda: Neumann(scale=0.0), "scale must be a finite number above 0, got 0.0"),
    ],
)
def test_options_out_of_range_are_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
