"""A bilevel problem whose hypergradient is known in closed form, for any number of steps of any optimiser.

Inner parameters φ (5), held as two tensors; outer parameters θ = (shift s (2), stiffness r (3)):

    L_inner = ½ φᵀAφ + κ/3 Σφ³ - φᵀ(Bs + c) + ½ (Cr)ᵀφ²        c is the inner batch
    L_outer = ½ |φ - t|² + φᵀDθ + ρ/2 |θ|²                      t is the outer batch

so that the Hessian and the mixed derivative ∂²L_inner/∂φ∂θ = [-B, diag(φ) C] both depend on φ. The reference
follows φ_k, the moments and their sensitivities to θ forward from step to step, written out by hand in numpy. θ may
set the rates of the update as well (`learned_rates`).
"""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from support.dual import Array, Dual
from support.numpy_updates import NumpyUpdate, clip
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
    "amsgrad": partial(torch.optim.Adam, lr=0.05, betas=(0.7, 0.5), eps=1e-2, amsgrad=True, maximize=True),
    "adagrad": partial(torch.optim.Adagrad, lr=0.1, lr_decay=0.2, eps=0.1, weight_decay=0.1),
    "adadelta": partial(torch.optim.Adadelta, lr=0.5, rho=0.8, eps=1e-1, weight_decay=0.1),
    "adamax": partial(torch.optim.Adamax, lr=0.05, betas=(0.8, 0.7), eps=0.3, weight_decay=0.1),
    "nadam": partial(torch.optim.NAdam, lr=0.05, betas=(0.8, 0.95), eps=1e-1, momentum_decay=0.2, weight_decay=0.1),
    # Long enough to be rectified from the fourth step on: cold and warm starts are on either side.
    "radam": partial(
        torch.optim.RAdam, lr=0.05, betas=(0.8, 0.95), eps=1e-1, weight_decay=0.5, decoupled_weight_decay=True
    ),
    "asgd": partial(torch.optim.ASGD, lr=0.1, lambd=0.3, alpha=0.6, t0=2, weight_decay=0.1),
    # Its first step is sign(g), but where g is below epsilon.
    "adafactor": partial(torch.optim.Adafactor, lr=0.3, eps=(0.5, 0.05), d=1.1, weight_decay=0.1),
}
"""Those that are differentiable in the gradient, on parameters of any shape."""

OF_MATRICES: dict[str, MakeOptimiser] = {
    "adafactor-factored": OPTIMISERS["adafactor"],
    "muon": partial(torch.optim.Muon, lr=0.05, momentum=0.8, weight_decay=0.1),
    "muon-plain": partial(torch.optim.Muon, lr=0.05, momentum=0.8, weight_decay=0.1, nesterov=False),
}
"""Those that do something else with matrices, or take nothing else."""


def learned_rates(outer: Mapping[str, Tensor], group: Mapping[str, Any]) -> dict[str, Tensor]:
    """The group's learning rate times a factor, and its weight decay plus a tenth times another."""
    return {
        **learned_rate(outer, group),
        "weight_decay": (group["weight_decay"] + 0.1) * (0.7 * outer["shift"][1]).exp(),
    }


def learned_rate(outer: Mapping[str, Tensor], group: Mapping[str, Any]) -> dict[str, Tensor]:
    """The first of `learned_rates`, for optimisers that have no weight decay."""
    return {"lr": group["lr"] * (0.5 * outer["shift"][0] - 0.3 * outer["stiffness"][2]).exp()}


def rate_by_hand(theta: Dual, group: Mapping[str, Any]) -> dict[str, Dual]:
    return {"lr": group["lr"] * (0.5 * theta[0] - 0.3 * theta[4]).exp()}


def rates_by_hand(theta: Dual, group: Mapping[str, Any]) -> dict[str, Dual]:
    """`learned_rates` of θ, all in a row."""
    return {**rate_by_hand(theta, group), "weight_decay": (group["weight_decay"] + 0.1) * (0.7 * theta[1]).exp()}


BELOW_ONE = ("alpha", "betas", "rho", "momentum")
POSITIVE = ("lr", "weight_decay", "dampening", "eps", "lr_decay", "lambd", "momentum_decay", "etas")
"""Names of numbers of a group, by their ranges."""

Vector = Any
"""θ in a row, of torch or with its sensitivity: both have the same operations."""


def numbers_of(theta: Vector, group: Mapping[str, Any]) -> dict[str, Any]:
    """Every number of a group that is not zero, depending on one entry of θ."""

    def moved(name: str, own: float, by: Any) -> Any:
        return own ** (0.3 * by).exp() if name in BELOW_ONE else own * (0.3 * by).exp()

    found = {}
    for index, name in enumerate(name for name in (*BELOW_ONE, *POSITIVE) if group.get(name)):
        own, by = group[name], theta[index % 5]
        found[name] = tuple(moved(name, o, by) for o in own) if isinstance(own, tuple) else moved(name, own, by)
    return found


def of_weights(theta: Vector, group: Mapping[str, Any], matrices: bool = False) -> dict[str, Any]:
    """A learning rate for each weight, and a weight decay for each tensor."""
    cut, shapes = (4, ((2, 2), (1, 1))) if matrices else (3, ((3,), (2,)))
    factors = [
        (0.3 * part).exp().reshape(*shape) for part, shape in zip((theta[:cut], theta[cut:]), shapes, strict=True)
    ]
    return {
        "lr": [group["lr"] * factor for factor in factors],
        "weight_decay": [(group["weight_decay"] + 0.1) * (0.5 * theta[index]).exp() for index in (1, 3)],
    }


def preconditioned(theta: Vector, g: Any) -> Any:
    """A direction for a gradient, by a polynomial."""
    return g * (0.5 * theta[0]).exp() + 0.3 * theta[3] * g * g


def all_numbers(outer: Mapping[str, Tensor], group: Mapping[str, Any]) -> dict[str, Any]:
    return numbers_of(torch.cat([outer["shift"], outer["stiffness"]]), group)


def each_weight(outer: Mapping[str, Tensor], group: Mapping[str, Any]) -> dict[str, Any]:
    return of_weights(torch.cat([outer["shift"], outer["stiffness"]]), group)


def each_entry(outer: Mapping[str, Tensor], group: Mapping[str, Any]) -> dict[str, Any]:
    return of_weights(torch.cat([outer["shift"], outer["stiffness"]]), group, True)


def precondition(outer: Mapping[str, Tensor], gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
    theta = torch.cat([outer["shift"], outer["stiffness"]])
    return [None if g is None else preconditioned(theta, g) for g in gradients]


LEARNED: dict[str, dict[str, Any]] = {
    "all numbers": {"hyperparameters": all_numbers},
    "each weight": {"hyperparameters": each_weight},
    "preconditioned": {"clip_norm": 0.8, "preconditioner": precondition},
}
"""What can be learned of an update besides rates of a group."""

BY_HAND: dict[Callable[..., Any], Callable[[Dual, Mapping[str, Any]], dict[str, Any]]] = {
    learned_rate: rate_by_hand,
    learned_rates: rates_by_hand,
    all_numbers: numbers_of,
    each_weight: of_weights,
    each_entry: partial(of_weights, matrices=True),
}
"""Hyperparameters, with their sensitivity to θ."""

AROUND: dict[str, dict[str, Any]] = {
    "plain": {},
    "clipped": {"clip_norm": 0.8},
    "learned": {"hyperparameters": learned_rates},
    "clipped and learned": {"clip_norm": 0.8, "hyperparameters": learned_rates},
}
"""Options of an `InnerUpdate`; the limit is below the gradients that are met."""


def as_number(value: Any) -> Any:
    return tuple(map(as_number, value)) if isinstance(value, tuple) else value.item()


def native_step(update: InnerUpdate, model: nn.Module, loss: Callable[[], Tensor], outer: Any) -> None:
    """What an `InnerUpdate` is to be, by the means of torch alone."""
    update.optimizer.zero_grad()
    loss().backward()
    if update.clip_norm is not None:
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), update.clip_norm)
        assert norm > update.clip_norm, "the limit is not reached: nothing would be tested"
    if update.preconditioner is not None:
        with torch.no_grad():
            directions = update.preconditioner(outer, [p.grad for p in model.parameters()])
            for parameter, direction in zip(model.parameters(), directions, strict=True):
                parameter.grad = direction
    before = [dict(group) for group in update.optimizer.param_groups]
    if update.hyperparameters is not None:
        for group in update.optimizer.param_groups:
            given = update.hyperparameters(outer, group)
            group.update({name: as_number(value) for name, value in given.items()})
    update.optimizer.step()
    update.optimizer.param_groups = before


class Point(nn.Module):
    """φ as a module: two parameters, vectors or matrices, whose concatenation (5,) the forward pass returns."""

    def __init__(self, value: Array, matrices: bool = False) -> None:
        super().__init__()
        shapes = ((2, 2), (1, 1)) if matrices else ((3,), (2,))
        head, tail = np.split(value, [4 if matrices else 3])
        self.head = nn.Parameter(torch.tensor(head.reshape(shapes[0])))
        self.tail = nn.Parameter(torch.tensor(tail.reshape(shapes[1])))

    def forward(self) -> Tensor:
        return torch.cat([self.head.flatten(), self.tail.flatten()])


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
    matrices: bool = False

    def model(self) -> Point:
        return Point(_matrix(4, 5), self.matrices)

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

    def own_steps(
        self, model: nn.Module, update: InnerUpdate, outer: dict[str, Tensor], batches: Iterable[Tensor]
    ) -> None:
        """Plain steps of the update itself, for rates of weights, which torch does not have."""
        parameters = list(model.parameters())
        for batch in batches:
            gradients = torch.autograd.grad(self.problem().inner_loss(model, outer, batch), parameters)
            update.step(parameters, gradients, outer)

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
        phi = Dual.of(model().detach().numpy())
        theta = torch.cat([outer["shift"], outer["stiffness"]]).detach().numpy()
        model, update = copy.deepcopy((model, update))
        update = update if isinstance(update, InnerUpdate) else InnerUpdate(update)
        options = update.optimizer.param_groups[0]
        if update.hyperparameters is not None:
            options = {**options, **BY_HAND[update.hyperparameters](Dual(theta, np.eye(5)), options)}
        advance = NumpyUpdate(update.optimizer)
        for batch in inner_batches:
            g = Dual(*self.gradient(phi.v, phi.d, theta, batch.numpy()))
            if update.clip_norm is not None:
                g = clip(g, update.clip_norm)
            if update.preconditioner is not None:
                g = preconditioned(Dual(theta, np.eye(5)), g)
            phi = advance(phi, g, options)
            if isinstance(update.optimizer, torch.optim.Muon):
                # Rounded to bfloat16, so that only torch says where it steps to.
                (self.own_steps if update.hyperparameters is each_entry else self.native_steps)(
                    model, update, outer, [batch]
                )
                phi = Dual(model().detach().numpy(), phi.d)
        indirect = self.indirect(phi.v, phi.d, theta, outer_batch.numpy())
        return phi.v, indirect, self.direct(phi.v, theta)
