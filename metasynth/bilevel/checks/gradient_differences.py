"""A second derivative compared with differences of gradients, where a user's own code takes part in the backward pass.

Torch differentiates a `torch.autograd.Function` by whatever its backward computes, and gives a tensor's hook every
gradient that passes. If the backward leaves a dependence out (a detached tensor, numpy), or the hook changes what it is
given, second derivatives are wrong in silence.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from metasynth.bilevel.checks.connection import Case
from metasynth.bilevel.checks.flawed_operations import Mode
from metasynth.bilevel.checks.graph_ends import functions_of_users
from metasynth.bilevel.derivatives import Gradients, difference_of, gradient_of, norm_of
from metasynth.bilevel.patched.kinks import Kinks

ROUNDING_UNITS = 32
"""How many units of rounding a gradient is taken to be off, as in `FiniteDifference`."""

TOLERANCE = 1e-3
"""The relative disagreement that is let pass beyond rounding and truncation."""


def require_right_second_derivative(
    case: Case, loss: Tensor, hooks: Sequence[str], mode: Mode, needs_hessian: bool
) -> None:
    """Compare one second derivative with a central difference, if the inner loss has a Function or hook of its user's.

    With a random direction d in θ (in φ too with ``needs_hessian``), and w that of the change of g along it,

        wᵀ (∂g/∂θ) d = wᵀ [g(θ + ε d) - g(θ - ε d)] / 2ε,

    where the left side is found as strategies of this mode find it: by differentiating g, or from differences of
    ∂L/∂θ along w. Random draws and the sides of kinks are the same in all passes.

    Parameters
    ----------
    case : Case
        What is checked; left as it was.
    loss : tensor
        The inner loss, with its graph, which may have been used up.
    hooks : sequence of str
        Where the loss puts hooks on tensors, as `HookWatch` found.
    mode : Mode
        How the strategy takes second derivatives.
    needs_hessian : bool
        Whether g is differentiated in φ too.

    Raises
    ------
    ValueError
        If the two differ by more than rounding and truncation explain. The line names the Functions and the hooks.
    """
    functions = functions_of_users(loss)
    if not functions and not hooks:
        return
    found, expected, allowed = _Comparison(case, mode, needs_hessian).made()
    if not abs(found - expected) <= allowed:
        raise _refused(functions, hooks, found, expected, mode)


class _Comparison:
    """One second derivative of a case, in two ways."""

    def __init__(self, case: Case, mode: Mode, needs_hessian: bool) -> None:
        self._case, self._kinks = case, Kinks()
        with self._kinks.recorded():
            self._case.inner_loss()
        self._by_differences = mode != "double backward"
        self._start = [p.detach() for p in case.parameters]
        self._learned = [t for t in case.learned.values() if t.requires_grad]
        self._kept = [t.detach().clone() for t in self._learned]
        generator = torch.Generator().manual_seed(0)
        self._along = _directions(self._kept, generator)
        zeros = [torch.zeros_like(p) for p in self._start]
        self._inner = _directions(self._start, generator) if needs_hessian else zeros
        dtypes = [t.dtype for t in (*self._start, *self._kept)]
        autocast = case.inputs.problem.autocast
        dtypes += [] if autocast is None else [autocast]
        self._unit = max(torch.finfo(dtype).eps for dtype in dtypes)

    def made(self) -> tuple[float, float, float]:
        """The derivative as the strategy finds it, the difference, and by how much these may be apart."""
        step = self._unit ** (1 / 3)
        wider, across = self._difference(2 * step), self._difference(step)
        # Along the change of g itself no terms cancel, so that rounding weighs least.
        length = norm_of(across.change) / (norm_of(self._start) or 1.0)
        if length == 0:
            return 0.0, 0.0, 0.0
        self._across = [
            torch.zeros_like(p) if c is None else c / length for p, c in zip(self._start, across.change, strict=True)
        ]
        expected = across.along(self._across)
        allowed = across.rounding * norm_of(self._across) + abs(wider.along(self._across) - expected)
        if self._by_differences:
            mixed = self._mixed(step)
            found = mixed.along(self._along)
            allowed += mixed.rounding * norm_of(self._along)
        else:
            found = self._differentiated()
        return found, expected, allowed + TOLERANCE * max(abs(found), abs(expected))

    def _differentiated(self) -> float:
        """By reverse mode over reverse mode."""
        gradients = self._gradients(self._start, 0.0, create_graph=True)[0]
        leaves = [*self._leaves, *self._learned]
        slope = _inner(self._across, gradients)
        return _inner([*self._inner, *self._along], gradient_of(slope, leaves)).item()

    def _difference(self, step: float) -> "_Quotient":
        """Of g, along d."""
        moved = [[p + s * d for p, d in zip(self._start, self._inner, strict=True)] for s in (step, -step)]
        above, below = (self._gradients(p, s)[0] for p, s in zip(moved, (step, -step), strict=True))
        return _Quotient.of(above, below, step, self._unit)

    def _mixed(self, step: float) -> "_Quotient":
        """Of ∂L/∂θ, along w."""
        moved = [[p + s * w for p, w in zip(self._start, self._across, strict=True)] for s in (step, -step)]
        above, below = (self._gradients(p, 0.0)[1] for p in moved)
        return _Quotient.of(above, below, step, self._unit)

    def _gradients(self, at: list[Tensor], shift: float, create_graph: bool = False) -> tuple[Gradients, Gradients]:
        """∂L/∂φ at ``at`` and ∂L/∂θ, at θ + shift d."""
        given = self._case.parameters
        self._leaves = [p.detach().requires_grad_(q.requires_grad) for p, q in zip(at, given, strict=True)]
        for tensor, value, direction in zip(self._learned, self._kept, self._along, strict=True):
            tensor.data.copy_(value + shift * direction)
        try:
            with self._kinks.held():
                loss = self._case.inner_loss(self._leaves)
            both = gradient_of(loss, [*self._leaves, *self._learned], create_graph=create_graph)
        finally:
            for tensor, value in zip(self._learned, self._kept, strict=True):
                tensor.data.copy_(value)
        return both[: len(at)], both[len(at) :]


@dataclass(frozen=True)
class _Quotient:
    """A central difference of gradients, and a bound of its rounding error."""

    change: Gradients
    rounding: float

    @staticmethod
    def of(above: Gradients, below: Gradients, step: float, unit: float) -> "_Quotient":
        apart = [difference_of(a, b) for a, b in zip(above, below, strict=True)]
        change: Gradients = [None if a is None else a / (2 * step) for a in apart]
        return _Quotient(change, ROUNDING_UNITS * unit * norm_of(above) / (2 * step))

    def along(self, weights: list[Tensor]) -> float:
        return _inner(weights, self.change).item()


class HookWatch(TorchFunctionMode):
    """Notes where hooks are put on tensors: a graph does not tell which it has."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is Tensor.register_hook:
            frame = sys._getframe(1)
            while frame.f_back is not None and str(frame.f_globals.get("__name__")).startswith("torch."):
                frame = frame.f_back
            self.places.append(f"{Path(frame.f_code.co_filename).name}, line {frame.f_lineno}")
        return func(*args, **(kwargs or {}))


def _directions(tensors: list[Tensor], generator: torch.Generator) -> list[Tensor]:
    """Normal, in proportion to the tensors."""
    return [
        max(0.1, t.abs().mean().item() if t.numel() else 0.0) * torch.randn(t.shape, generator=generator).to(t)
        for t in tensors
    ]


def _inner(weights: list[Tensor], values: Gradients) -> Tensor:
    products = [(w * v).sum().double() for w, v in zip(weights, values, strict=True) if v is not None]
    return torch.stack(products).sum() if products else torch.zeros(())


def _refused(functions: list[str], hooks: Sequence[str], found: float, expected: float, mode: Mode) -> ValueError:
    causes = [f"the torch.autograd.Function {name}" for name in functions]
    causes += [f"a hook of a tensor ({place})" for place in dict.fromkeys(hooks)]
    ways = ["let a backward compute with torch from what save_for_backward kept"] if functions else []
    ways += ["remove a hook that changes gradients"] if hooks else []
    ways += ["choose FiniteDifference"] if functions and not hooks and mode != "differences" else []
    return ValueError(
        f"inner_loss has a wrong second derivative, {found:.4g} where differences of gradients give {expected:.4g}, "
        f"because of {' or '.join(causes)}; {', or '.join(ways)}"
    )
