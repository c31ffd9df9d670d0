"""A bilevel problem whose hypergradient is known in closed form, for any number of steps of any optimiser.

Inner parameters φ (5), held as two tensors; outer parameters θ = (shift s (2), stiffness r (3)):

    L_inner = ½ φᵀAφ + κ/3 Σφ³ - φᵀ(Bs + c) + ½ (Cr)ᵀφ²        c is the inner batch
    L_outer = ½ |φ - t|² + φᵀDθ + ρ/2 |θ|²                      t is the outer batch

so that the Hessian and the mixed derivative ∂²L_inner/∂φ∂θ = [-B, diag(φ) C] both depend on φ. The reference
follows φ_k, the moments and their sensitivities to θ forward from step to step, written out by hand in numpy. θ may
set the rates of the update as well (`learned_rates`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from support.numpy_updates import Array, Rates, clip, numpy_update
from torch import Tensor, nn

from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.update.inner_update import InnerUpdate

MakeOptimiser = Callable[[Iterable[Tensor]], torch.optim.Optimizer]


OPTIMISERS: dict[str, MakeOptimiser] = {
    "sgd": partial(torch.optim.SGD, lr=0.1),
    "momentum": partial(torch.optim.SGD, lr=0.1, momentum=0.8, dampening=0.3),
    "nesterov": partial(torch.optim.SGD, lr=0.1, momentum=0.8, nesterov=True, weight_decay=0.05),
    # The first step of Adam is lr * sign(g) but for epsilon: one of 1e-8 leaves no hypergradient to compare.
    "adam": partial(torch.optim.Adam, lr=0.05, betas=(0.8, 0.95), eps=1e-2),
    "adam-decay": partial(torch.optim.Adam, lr=0.05, betas=(0.8, 0.95), eps=1e-2, weight_decay=0.1),
    "adamw": partial(torch.optim.AdamW, lr=0.05, betas=(0.8, 0.95), eps=1e-2, weight_decay=0.5),
    "rmsprop": partial(torch.optim.RMSprop, lr=0.05, alpha=0.9, eps=1e-2, weight_decay=0.1),
    "rmsprop-centred": partial(
        torch.optim.RMSprop, lr=0.05, alpha=0.8, eps=1e-1, momentum=0.7, centered=True, weight_decay=0.1
    ),
}


def learned_rates(outer: Mapping[str, Tensor], group: Mapping[str, Any]) -> dict[str, Tensor]:
    """The group's learning rate times a factor, and its weight decay plus a tenth times another."""
    return {
        "lr": group["lr"] * (0.5 * outer["shift"][0] - 0.3 * outer["stiffness"][2]).exp(),
        "weight_decay": (group["weight_decay"] + 0.1) * (0.7 * outer["shift"][1]).exp(),
    }


def rates_by_hand(theta: Array, group: Mapping[str, Any]) -> Rates:
    """`learned_rates` with their derivatives."""
    lr = group["lr"] * np.exp(0.5 * theta[0] - 0.3 * theta[4])
    decay = (group["weight_decay"] + 0.1) * np.exp(0.7 * theta[1])
    return Rates(lr, decay, lr * np.array([0.5, 0, 0, 0, -0.3]), decay * np.array([0, 0.7, 0, 0, 0]))


AROUND: dict[str, dict[str, Any]] = {
    "plain": {},
    "clipped": {"clip_norm": 0.8},
    "learned": {"hyperparameters": learned_rates},
    "clipped and learned": {"clip_norm": 0.8, "hyperparameters": learned_rates},
}
"""Options of an `InnerUpdate`; the limit is below the gradients that are met."""


def native_step(update: InnerUpdate, model: nn.Module, loss: Callable[[], Tensor], outer: Any) -> None:
    """What an `InnerUpdate` is to be, by the means of torch alone."""
    update.optimizer.zero_grad()
    loss().backward()
    if update.clip_norm is not None:
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), update.clip_norm)
        assert norm > update.clip_norm, "the limit is not reached: nothing would be tested"
    before = [dict(group) for group in update.optimizer.param_groups]
    if update.hyperparameters is not None:
        for group in update.optimizer.param_groups:
            given = update.hyperparameters(outer, group)
            group.update({name: value.item() for name, value in given.items()})
    update.optimizer.step()
    update.optimizer.param_groups = before


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

    def native_steps(
        self, model: nn.Module, update: InnerUpdate, outer: dict[str, Tensor], batches: Iterable[Tensor]
    ) -> None:
        for batch in batches:
            native_step(update, model, lambda given=batch: self.problem().inner_loss(model, outer, given), outer)

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
        update: InnerUpdate | torch.optim.Optimizer,
        outer: dict[str, Tensor],
        inner_batches: Sequence[Tensor],
        outer_batch: Tensor,
    ) -> tuple[Array, Array, Array]:
        """φ_K, and the indirect and direct parts of the hypergradient, from the present state."""
        phi = model().detach().numpy()
        theta = torch.cat([outer["shift"], outer["stiffness"]]).detach().numpy()
        update = update if isinstance(update, InnerUpdate) else InnerUpdate(update)
        group = update.optimizer.param_groups[0]
        rates = Rates(group["lr"], group["weight_decay"], np.zeros(5), np.zeros(5))
        if update.hyperparameters is not None:
            rates = rates_by_hand(theta, group)
        advance, jacobian = numpy_update(update.optimizer), np.zeros((5, 5))
        for batch in inner_batches:
            g, dg = self.gradient(phi, jacobian, theta, batch.numpy())
            if update.clip_norm is not None:
                g, dg = clip(g, dg, update.clip_norm)
            phi, jacobian = advance(phi, jacobian, g, dg, rates)
        indirect = self.indirect(phi, jacobian, theta, outer_batch.numpy())
        return phi, indirect, self.direct(phi, theta)
