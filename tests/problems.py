"""A bilevel problem whose hypergradient is known in closed form, for any number of steps of any optimiser.

Inner parameters φ (5), held as two tensors; outer parameters θ = (shift s (2), stiffness r (3)):

    L_inner = ½ φᵀAφ + κ/3 Σφ³ - φᵀ(Bs + c) + ½ (Cr)ᵀφ²        c is the inner batch
    L_outer = ½ |φ - t|² + φᵀDθ + ρ/2 |θ|²                      t is the outer batch

so that the Hessian and the mixed derivative ∂²L_inner/∂φ∂θ = [-B, diag(φ) C] both depend on φ. The reference
follows φ_k, the moments and their sensitivities to θ forward from step to step, written out by hand in numpy.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from metasynth.bilevel.forward import Forward
from metasynth.bilevel.hypergradient import HypergradientStrategy
from metasynth.bilevel.mixed import Mixed
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.unrolled import Unrolled

Array = NDArray[np.float64]
MakeOptimiser = Callable[[Iterable[Tensor]], torch.optim.Optimizer]

STRATEGIES: dict[str, HypergradientStrategy] = {
    "mixed": Mixed(),
    "unrolled-1": Unrolled(1),
    "unrolled-2": Unrolled(2),
    "unrolled-5": Unrolled(5),
    "unrolled-3-of-3": Unrolled(3, last=3),
    "forward": Forward(),
}

OPTIMISERS: dict[str, MakeOptimiser] = {
    "sgd": partial(torch.optim.SGD, lr=0.1),
    "momentum": partial(torch.optim.SGD, lr=0.1, momentum=0.8, dampening=0.3),
    "nesterov": partial(torch.optim.SGD, lr=0.1, momentum=0.8, nesterov=True, weight_decay=0.05),
    # The first step of Adam is lr * sign(g) but for epsilon: one of 1e-8 leaves no hypergradient to compare.
    "adam": partial(torch.optim.Adam, lr=0.05, betas=(0.8, 0.95), eps=1e-2),
    "adam-decay": partial(torch.optim.Adam, lr=0.05, betas=(0.8, 0.95), eps=1e-2, weight_decay=0.1),
    "adamw": partial(torch.optim.AdamW, lr=0.05, betas=(0.8, 0.95), eps=1e-2, weight_decay=0.5),
}


class Point(nn.Module):
    """φ as a module: two parameters, whose concatenation (5,) the forward pass returns."""

    def __init__(self, value: Array) -> None:
        super().__init__()
        self.head = nn.Parameter(torch.tensor(value[:3]))
        self.tail = nn.Parameter(torch.tensor(value[3:]))

    def forward(self) -> Tensor:
        return torch.cat([self.head, self.tail])


def _matrix(seed: int, *shape: int, scale: float = 1.0) -> Array:
    return scale * np.random.default_rng(seed).standard_normal(shape)


def _positive_definite(seed: int, n: int) -> Array:
    root = _matrix(seed, n, n, scale=0.5)
    return root @ root.T + 0.5 * np.eye(n)


@dataclass(frozen=True)
class ClosedForm:
    """The coefficients, the two losses for autograd, and their derivatives by hand."""

    a: Array = field(default_factory=lambda: _positive_definite(0, 5))
    b: Array = field(default_factory=lambda: _matrix(1, 5, 2))
    c: Array = field(default_factory=lambda: _matrix(2, 5, 3, scale=0.3))
    d: Array = field(default_factory=lambda: _matrix(3, 5, 5, scale=0.2))
    kappa: float = 0.2
    rho: float = 0.7

    def model(self) -> Point:
        return Point(_matrix(4, 5))

    def outer(self) -> dict[str, Tensor]:
        theta = torch.tensor(_matrix(5, 5, scale=0.5))
        return {"shift": theta[:2].clone().requires_grad_(), "stiffness": theta[2:].clone().requires_grad_()}

    def inner_batch(self, index: int) -> Tensor:
        return torch.tensor(_matrix(100 + index, 5))

    def outer_batch(self, index: int = 0) -> Tensor:
        return torch.tensor(_matrix(1000 + index, 5))

    def problem(self) -> BilevelProblem:
        a, b, c, d = (torch.tensor(m) for m in (self.a, self.b, self.c, self.d))

        def inner_loss(model: nn.Module, outer: dict[str, Tensor], batch: Tensor) -> Tensor:
            phi = model()
            energy = 0.5 * phi @ a @ phi + self.kappa / 3 * phi.pow(3).sum()
            return energy - phi @ (b @ outer["shift"] + batch) + 0.5 * (c @ outer["stiffness"]) @ phi.square()

        def outer_loss(model: nn.Module, outer: dict[str, Tensor], batch: Tensor) -> Tensor:
            phi, theta = model(), torch.cat([outer["shift"], outer["stiffness"]])
            return 0.5 * (phi - batch).square().sum() + phi @ d @ theta + 0.5 * self.rho * theta @ theta

        return BilevelProblem(inner_loss, outer_loss)

    def gradient(self, phi: Array, jacobian: Array, theta: Array, batch: Array) -> tuple[Array, Array]:
        """g (5,) and dg/dθ (5, 5) at φ, whose own sensitivity to θ is ``jacobian`` (5, 5)."""
        stiffness = self.c @ theta[2:]
        g = self.a @ phi + self.kappa * phi**2 - self.b @ theta[:2] - batch + stiffness * phi
        hessian = self.a + np.diag(2 * self.kappa * phi + stiffness)
        mixed = np.concatenate([-self.b, phi[:, None] * self.c], axis=1)
        return g, hessian @ jacobian + mixed

    def indirect(self, phi: Array, jacobian: Array, theta: Array, batch: Array) -> Array:
        """(dφ/dθ)ᵀ ∂L_outer/∂φ (5,)."""
        return jacobian.T @ (phi - batch + self.d @ theta)

    def direct(self, phi: Array, theta: Array) -> Array:
        """∂L_outer/∂θ (5,) at fixed φ."""
        return self.d.T @ phi + self.rho * theta

    def reference(
        self,
        model: Point,
        optimiser: torch.optim.Optimizer,
        outer: dict[str, Tensor],
        inner_batches: Sequence[Tensor],
        outer_batch: Tensor,
    ) -> tuple[Array, Array, Array]:
        """φ_K, and the indirect and direct parts of the hypergradient, from the present state."""
        phi = model().detach().numpy()
        theta = torch.cat([outer["shift"], outer["stiffness"]]).detach().numpy()
        update = _Adam(optimiser) if "betas" in optimiser.param_groups[0] else _Sgd(optimiser)
        jacobian = np.zeros((5, 5))
        for batch in inner_batches:
            g, dg = self.gradient(phi, jacobian, theta, batch.numpy())
            phi, jacobian = update(phi, jacobian, g, dg)
        indirect = self.indirect(phi, jacobian, theta, outer_batch.numpy())
        return phi, indirect, self.direct(phi, theta)


def _moment(optimiser: torch.optim.Optimizer, name: str) -> Array | None:
    """A moment of the optimiser over both parameters, (5,), or None before its first step."""
    held = [optimiser.state[p].get(name) for p in optimiser.param_groups[0]["params"]]
    return None if held[0] is None else torch.cat(held).numpy().copy()


class _Sgd:
    """SGD with, for every quantity, its sensitivity to θ."""

    def __init__(self, optimiser: torch.optim.Optimizer) -> None:
        self.options = optimiser.param_groups[0]
        self.m = _moment(optimiser, "momentum_buffer")
        self.dm = np.zeros((5, 5))

    def __call__(self, phi: Array, jacobian: Array, g: Array, dg: Array) -> tuple[Array, Array]:
        lr, mu, decay = (self.options[k] for k in ("lr", "momentum", "weight_decay"))
        g, dg = g + decay * phi, dg + decay * jacobian
        if mu:
            damped = 1 - self.options["dampening"]
            self.m, self.dm = (g, dg) if self.m is None else (mu * self.m + damped * g, mu * self.dm + damped * dg)
            if self.options["nesterov"]:
                g, dg = g + mu * self.m, dg + mu * self.dm
            else:
                g, dg = self.m, self.dm
        return phi - lr * g, jacobian - lr * dg


class _Adam:
    """Adam (L2 in the gradient) or AdamW (decoupled), with sensitivities to θ."""

    def __init__(self, optimiser: torch.optim.Optimizer) -> None:
        self.options = optimiser.param_groups[0]
        self.decoupled = isinstance(optimiser, torch.optim.AdamW)
        m, v = _moment(optimiser, "exp_avg"), _moment(optimiser, "exp_avg_sq")
        self.m = np.zeros(5) if m is None else m
        self.v = np.zeros(5) if v is None else v
        self.dm, self.dv = np.zeros((5, 5)), np.zeros((5, 5))
        self.steps = 0 if m is None else int(optimiser.state[self.options["params"][0]]["step"])

    def __call__(self, phi: Array, jacobian: Array, g: Array, dg: Array) -> tuple[Array, Array]:
        (beta1, beta2), lr = self.options["betas"], self.options["lr"]
        decay, eps = self.options["weight_decay"], self.options["eps"]
        if self.decoupled:
            phi, jacobian = (1 - lr * decay) * phi, (1 - lr * decay) * jacobian
        else:
            g, dg = g + decay * phi, dg + decay * jacobian
        self.steps += 1
        self.m = beta1 * self.m + (1 - beta1) * g
        self.dm = beta1 * self.dm + (1 - beta1) * dg
        self.v = beta2 * self.v + (1 - beta2) * g**2
        self.dv = beta2 * self.dv + (1 - beta2) * 2 * g[:, None] * dg
        unbias1, unbias2 = 1 - beta1**self.steps, 1 - beta2**self.steps
        m, dm = self.m / unbias1, self.dm / unbias1
        root = np.sqrt(self.v / unbias2)
        droot = self.dv / unbias2 / (2 * root[:, None])
        below = root[:, None] + eps
        return phi - lr * m / (root + eps), jacobian - lr * (dm / below - m[:, None] * droot / below**2)
