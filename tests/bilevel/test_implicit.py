"""Implicit differentiation against ridge regression, whose optimum and its derivative are known."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from metasynth.bilevel.hypergradient import Hypergradient, InnerStep, hypergradient
from metasynth.bilevel.patched.functional import FunctionalModel
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.step_inputs import StepInputs
from metasynth.bilevel.strategies.implicit import Implicit
from metasynth.bilevel.strategies.linear_solve import ConjugateGradient, LinearSolver, Neumann
from metasynth.bilevel.update.inner_update import InnerUpdate

N, D = 20, 6
RANDOM = np.random.default_rng(0)
X, Y = RANDOM.standard_normal((N, D)), RANDOM.standard_normal(N)
TARGET = RANDOM.standard_normal(D)
RIDGE = 0.3
HESSIAN = X.T @ X / N + RIDGE * np.eye(D)
OPTIMUM = np.linalg.solve(HESSIAN, X.T @ Y / N)
COTANGENT = OPTIMUM - TARGET
"""∂L_outer/∂φ at the optimum, for L_outer = |φ - target|² / 2 + θ²."""
DERIVATIVE = -np.linalg.solve(HESSIAN, OPTIMUM)
"""dφ*/dθ of φ* = (XᵀX/N + θ I)⁻¹ Xᵀy/N."""
TRUTH = float(COTANGENT @ DERIVATIVE)
DIRECT = 2 * RIDGE


class Linear(nn.Module):
    """φ in two parameters, and a third that is frozen and one that is unused."""

    def __init__(self, start: np.ndarray) -> None:
        super().__init__()
        self.frozen = nn.Parameter(torch.ones(2, dtype=torch.float64), requires_grad=False)
        self.head = nn.Parameter(torch.tensor(start[:2]))
        self.tail = nn.Parameter(torch.tensor(start[2:]))
        self.unused = nn.Parameter(torch.ones(1, dtype=torch.float64))

    def forward(self) -> Tensor:
        return torch.cat([self.head * self.frozen, self.tail])


def inner_loss(model: nn.Module, outer: Tensor, given: tuple[Tensor, Tensor]) -> Tensor:
    phi = model()
    return 0.5 * (given[0] @ phi - given[1]).square().mean() + 0.5 * outer * phi.square().sum()


PROBLEM = BilevelProblem(
    inner_loss, lambda model, outer, target: 0.5 * (model() - target).square().sum() + outer.square()
)


def computed(
    solver: LinearSolver, start: np.ndarray, steps: int = 1, rate: float = 0.1
) -> tuple[Hypergradient, InnerStep]:
    model = Linear(start)
    outer = torch.tensor(RIDGE, dtype=torch.float64, requires_grad=True)
    inner = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=rate)
    batch = (torch.tensor(X), torch.tensor(Y))
    strategy = Implicit(solver, steps)
    return hypergradient(
        StepInputs(PROBLEM, FunctionalModel(model), InnerUpdate(inner), outer, [batch] * steps),
        torch.tensor(TARGET),
        strategy,
    )


@pytest.mark.parametrize(
    "solver", [ConjugateGradient(50, 1e-13), Neumann(5000, 1 / np.linalg.norm(HESSIAN, 2), tolerance=1e-13)], ids=str
)
def test_at_the_optimum_it_is_the_known_derivative(solver: LinearSolver) -> None:
    result, step = computed(solver, OPTIMUM)
    assert result.gradients["outer"].item() - DIRECT == pytest.approx(TRUTH, rel=1e-9)
    assert result.diagnostics["converged"] == 1.0
    assert result.diagnostics["inner_gradient"] < 1e-14
    assert result.diagnostics == step.diagnostics


def test_from_afar_the_steps_lead_there() -> None:
    result, step = computed(ConjugateGradient(50, 1e-13), np.zeros(D), steps=400, rate=0.5)
    assert len(result.inner_losses) == 400
    assert result.gradients["outer"].item() - DIRECT == pytest.approx(TRUTH, rel=1e-9)
    assert np.allclose(torch.cat(step.parameters[1:3]).numpy(), OPTIMUM)


def test_damping_is_that_of_the_dense_solve() -> None:
    result, _ = computed(ConjugateGradient(50, 1e-13, damping=0.7), OPTIMUM)
    damped = -OPTIMUM @ np.linalg.solve(HESSIAN + 0.7 * np.eye(D), COTANGENT)
    assert result.gradients["outer"].item() - DIRECT == pytest.approx(damped, rel=1e-9)


def test_a_solve_that_did_not_converge_is_visible() -> None:
    result, _ = computed(ConjugateGradient(2, 1e-12), OPTIMUM)
    assert result.diagnostics["converged"] == 0.0
    assert result.diagnostics["iterations"] == 2.0
    assert result.diagnostics["residual"] > 1e-12


CURVATURES, PULL = np.array([2.0, -1.0]), np.array([0.7, -0.4])


def at_a_saddle(v: list[float], **options: float) -> tuple[float, dict[str, float]]:
    """The hypergradient of θ for L_inner = φᵀ diag(2, -1) φ / 2 - θ cᵀφ and L_outer = vᵀφ, so that h = cᵀx."""
    model = nn.Linear(2, 1, bias=False, dtype=torch.float64)
    c, h, outer = torch.tensor(PULL), torch.tensor(CURVATURES), torch.tensor(0.3, dtype=torch.float64).requires_grad_()
    problem = BilevelProblem(
        lambda model, outer, batch: 0.5 * (h * model.weight[0].square()).sum() - outer * (c * model.weight[0]).sum(),
        lambda model, outer, batch: (batch * model.weight[0]).sum(),
    )
    inputs = StepInputs(
        problem, FunctionalModel(model), InnerUpdate(torch.optim.SGD(model.parameters(), lr=0.1)), outer, [c]
    )
    target = torch.tensor(v, dtype=torch.float64)
    result, _ = hypergradient(inputs, target, Implicit(ConjugateGradient(**options)))
    return result.gradients["outer"].item(), result.diagnostics


def test_of_negative_curvature_from_the_start_the_inverse_is_taken_for_the_identity() -> None:
    found, diagnostics = at_a_saddle([0.2, 1.0])
    assert found == pytest.approx(PULL @ [0.2, 1.0], rel=1e-14)
    assert (diagnostics["converged"], diagnostics["negative_curvature"], diagnostics["iterations"]) == (0.0, 1.0, 0.0)


def test_of_negative_curvature_later_the_iterate_before_it_is_taken() -> None:
    v = np.array([1.0, 0.5])
    x = v * (v @ v) / (v @ (CURVATURES * v))
    found, diagnostics = at_a_saddle(v.tolist())
    assert found == pytest.approx(PULL @ x, rel=1e-14)
    assert (diagnostics["converged"], diagnostics["negative_curvature"], diagnostics["iterations"]) == (0.0, 1.0, 1.0)


def test_damping_above_the_negative_curvature_gives_the_damped_inverse() -> None:
    found, diagnostics = at_a_saddle([0.2, 1.0], damping=1.5, tolerance=1e-12)
    assert found == pytest.approx(PULL @ (np.array([0.2, 1.0]) / (CURVATURES + 1.5)), rel=1e-12)
    assert (diagnostics["converged"], diagnostics["negative_curvature"]) == (1.0, 0.0)


def test_steps_are_those_of_the_optimiser() -> None:
    result, step = computed(ConjugateGradient(), np.zeros(D), steps=3)
    model = Linear(np.zeros(D))
    inner = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    losses = []
    for _ in range(3):
        inner.zero_grad()
        loss = inner_loss(model, torch.tensor(RIDGE, dtype=torch.float64), (torch.tensor(X), torch.tensor(Y)))
        loss.backward()
        inner.step()
        losses.append(loss.item())
    assert [t.item() for t in result.inner_losses] == pytest.approx(losses, rel=1e-12)
    for own, taken in zip(model.parameters(), step.parameters, strict=True):
        assert torch.allclose(own, taken, rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Implicit(steps=0), "steps must be an integer of at least 1, got 0"),
        (lambda: Implicit(solver="cg"), "solver must be a LinearSolver such as ConjugateGradient.*, got str"),
    ],
)
def test_options_out_of_range_are_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
