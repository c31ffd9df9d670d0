"""A sound problem for the checks before a training, and how they are called."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metasynth.bilevel.checks.preflight import preflight
from metasynth.bilevel.hypergradient import HypergradientStrategy
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.update.inner_update import InnerUpdate

IMAGES = torch.linspace(-1, 1, 24).reshape(4, 6)


def inner_loss(model: nn.Module, outer: Any, given: Tensor) -> Tensor:
    return (model(given * outer["gain"]) + outer["shift"]).square().mean()


def outer_loss(model: nn.Module, outer: Any, given: Tensor) -> Tensor:
    return (model(given) - 1).square().mean()


PROBLEM = BilevelProblem(inner_loss, outer_loss)


def outer_parameters() -> dict[str, Tensor]:
    return {"gain": torch.tensor(0.7, requires_grad=True), "shift": torch.tensor(0.2, requires_grad=True)}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 2))


def check(
    problem: BilevelProblem = PROBLEM,
    model: nn.Module | None = None,
    optimizer: torch.optim.Optimizer | InnerUpdate | None = None,
    outer: Any = None,
    strategy: HypergradientStrategy | None = None,
    batch: Tensor = IMAGES,
) -> None:
    model = network() if model is None else model
    optimizer = torch.optim.Adam(model.parameters()) if optimizer is None else optimizer
    preflight(problem, model, optimizer, outer_parameters() if outer is None else outer, batch, batch, strategy)


def refuse(message: str, **what: Any) -> str:
    with pytest.raises(ValueError, match=message) as caught:
        check(**what)
    assert "\n" not in str(caught.value)
    return str(caught.value)
