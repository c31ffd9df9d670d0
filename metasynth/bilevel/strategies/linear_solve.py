"""Iterative solvers of A x = b for a symmetric operator on lists of tensors, each with a status."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Vector = list[Tensor]
"""One tensor per parameter; a vector of the space of all of them."""

MatVec = Callable[[Vector], Vector]
"""v -> A v with A symmetric."""


@dataclass(frozen=True)
class Solution:
    """What a solver returns.

    Attributes
    ----------
    x : list of tensor
        Shaped as b.
    converged : bool
        Whether |b - (A + damping I) x| <= tolerance |b|.
    iterations : int
        Products with A that were made for x; one more may have been made to check it.
    residual : float
        |b - (A + damping I) x| / |b|; 0 for b = 0.
    negative_curvature : bool
        Whether a direction d with dᵀ(A + damping I)d <= 0 ended it, so that there is no minimum to solve for.
    """

    x: Vector
    converged: bool
    iterations: int
    residual: float
    negative_curvature: bool = False


class LinearSolver(ABC):
    """Solves (A + damping I) x = b."""

    @abstractmethod
    def solve(self, matvec: MatVec, b: Sequence[Tensor]) -> Solution:
        """A solution, converged or not, for ``matvec`` the product with A alone."""


@dataclass(frozen=True)
class ConjugateGradient(LinearSolver):
    """Conjugate gradients (Hestenes and Stiefel 1952), from x = 0.

    For A + damping I positive definite: the error falls by (√κ - 1)/(√κ + 1) a product, κ the condition number. Before
    it reports convergence the residual is recomputed from x, as the recursive one drifts by rounding.

    A direction of curvature <= 0 ends it, not converged, as in truncated Newton methods (Nocedal and Wright 2006,
    algorithm 7.1): x is the iterate before that direction, and b itself if b is the first such, which takes the inverse
    for the identity. A product that is not finite gives an x that is not.

    Parameters
    ----------
    max_steps : int
        At least 1.
    tolerance : float
        Relative to |b|, > 0.
    damping : float
        >= 0. Trades bias for conditioning: components of b along curvatures well below it are suppressed.
    """

    max_steps: int = 20
    tolerance: float = 1e-3
    damping: float = 0.0

    def __post_init__(self) -> None:
        _check_steps("max_steps", self.max_steps)
        _check_tolerance_and_damping(self.tolerance, self.damping)

    def solve(self, matvec: MatVec, b: Sequence[Tensor]) -> Solution:
        """See `LinearSolver.solve`."""
        size = math.sqrt(_dot(b, b))
        x = [torch.zeros_like(t) for t in b]
        if size == 0:
            return Solution(x, True, 0, 0.0)
        operator = _damped(matvec, self.damping)
        residual = list(b)
        direction = list(b)
        square = size**2
        steps = 0
        while steps < self.max_steps:
            product = operator(direction)
            curvature = _dot(direction, product)
            if not math.isfinite(curvature):
                return Solution([torch.full_like(t, math.nan) for t in b], False, steps, math.nan)
            if curvature <= 0:
                return _before_negative_curvature(x, residual, b, product, steps)
            steps += 1
            step = square / curvature
            x = _axpy(step, direction, x)
            residual = _axpy(-step, product, residual)
            following = _dot(residual, residual)
            if math.sqrt(following) <= self.tolerance * size:
                residual = _axpy(-1.0, operator(x), b)
                following = _dot(residual, residual)
                if math.sqrt(following) <= self.tolerance * size:
                    return Solution(x, True, steps, math.sqrt(following) / size)
                direction = list(residual)
            else:
                direction = _axpy(following / square, direction, residual)
            square = following
        return Solution(x, False, steps, math.sqrt(square) / size)


@dataclass(frozen=True)
class Neumann(LinearSolver):
    """Truncated Neumann series x = scale Σ_{i < steps} (I - scale (A + damping I))^i b (Lorraine et al. 2020).

    Converges for 0 < scale < 2 / λ_max when all curvatures are positive; the residual after k terms is
    (I - scale A)^k b, so it costs nothing. A residual that has grown beyond that of x = 0 shows divergence, where it
    stops, not converged.

    Parameters
    ----------
    steps : int
        At most so many terms, each one product; at least 1.
    scale : float
        > 0.
    damping : float
        >= 0.
    tolerance : float
        > 0; the series ends early when the residual relative to |b| is at most this.
    """

    steps: int = 20
    scale: float = 0.1
    damping: float = 0.0
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        _check_steps("steps", self.steps)
        if not (self.scale > 0 and math.isfinite(self.scale)):
            raise ValueError(f"scale must be a finite number above 0, got {self.scale!r}")
        _check_tolerance_and_damping(self.tolerance, self.damping)

    def solve(self, matvec: MatVec, b: Sequence[Tensor]) -> Solution:
        """See `LinearSolver.solve`."""
        size = math.sqrt(_dot(b, b))
        x = [torch.zeros_like(t) for t in b]
        if size == 0:
            return Solution(x, True, 0, 0.0)
        operator = _damped(matvec, self.damping)
        term = list(b)
        relative = 1.0
        for step in range(1, self.steps + 1):
            x = _axpy(self.scale, term, x)
            term = _axpy(-self.scale, operator(term), term)
            relative = math.sqrt(_dot(term, term)) / size
            if relative <= self.tolerance:
                return Solution(x, True, step, relative)
            if not relative <= 1 + 1e-3:
                return Solution(x, False, step, relative)
        return Solution(x, False, self.steps, relative)


def _before_negative_curvature(
    x: Vector, residual: Vector, b: Sequence[Tensor], product: Vector, steps: int
) -> Solution:
    """The iterate x after so many steps with its residual; before any of them b, whose product is known."""
    if steps == 0:
        x, residual = [t.clone() for t in b], _axpy(-1.0, product, b)
    return Solution(x, False, steps, math.sqrt(_dot(residual, residual) / _dot(b, b)), negative_curvature=True)


def _dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    return torch.stack([(x * y).sum() for x, y in zip(a, b, strict=True)]).sum().item() if a else 0.0


def _axpy(factor: float, a: Sequence[Tensor], b: Sequence[Tensor]) -> Vector:
    return [y.add(x, alpha=factor) for x, y in zip(a, b, strict=True)]


def _damped(matvec: MatVec, damping: float) -> MatVec:
    return matvec if damping == 0 else lambda v: _axpy(damping, v, matvec(v))


def _check_steps(name: str, steps: int) -> None:
    if not isinstance(steps, int) or steps < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {steps!r}")


def _check_tolerance_and_damping(tolerance: float, damping: float) -> None:
    if not tolerance > 0:
        raise ValueError(f"tolerance must be above 0, got {tolerance!r}")
    if not (damping >= 0 and math.isfinite(damping)):
        raise ValueError(f"damping must be a finite number of at least 0, got {damping!r}")
