"""Networks of other packages, and one of nobody's, under every strategy: against `Mixed`, and `Mixed` against central
differences of native training."""

import copy
import math
import re
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from bilevel.segmentation import (
    OPTIMISERS,
    Batch,
    KinkError,
    Outcome,
    Residual,
    central_difference,
    seeded,
)
from support.own_segmenter import DilatedAttention
from support.problems import native_step
from torch import Tensor, nn

from metasynth.bilevel.hypergradient import Hypergradient, HypergradientStrategy, hypergradient
from metasynth.bilevel.patched.functional import FunctionalModel
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.solver import BilevelSolver
from metasynth.bilevel.step_inputs import StepInputs
from metasynth.bilevel.strategies.finite_difference import FiniteDifference
from metasynth.bilevel.strategies.forward import Forward
from metasynth.bilevel.strategies.implicit import Implicit
from metasynth.bilevel.strategies.linear_solve import ConjugateGradient, Neumann
from metasynth.bilevel.strategies.mixed import Mixed
from metasynth.bilevel.strategies.parts import InParts
from metasynth.bilevel.strategies.unrolled import Unrolled
from metasynth.bilevel.update.inner_update import InnerUpdate
from metasynth.segment.backbones import nnunet
from metasynth.segment.losses import cross_entropy_loss, soft_dice_loss
from metasynth.segment.monai_networks import monai_network

SHAPE, CLASSES = (16, 16), 3
WARM_STEPS = 8


def small_nnunet(residual: bool) -> nn.Module:
    return nnunet(CLASSES, SHAPE, (1.0, 1.0), residual, base_features=4, max_features=8, generator=seeded(0))


def small_monai() -> nn.Module:
    act = ["leakyrelu", {"negative_slope": 0.1}]
    return monai_network("UNet", CLASSES, SHAPE, generator=seeded(0), channels=[4, 8], strides=[2], act=act)


def outside() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return DilatedAttention(CLASSES)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "nnunet": lambda: small_nnunet(residual=False),
    "nnunet-residual": lambda: small_nnunet(residual=True),
    "monai": small_monai,
    "outside": outside,
}
PACKAGES = {
    "nnunet": "dynamic_network_architectures",
    "nnunet-residual": "dynamic_network_architectures",
    "monai": "monai",
    "outside": "torch",
}
each_network = pytest.mark.parametrize(
    "network",
    [
        pytest.param(name, marks=pytest.mark.skipif(find_spec(package) is None, reason=f"{package} is missing"))
        for name, package in PACKAGES.items()
    ],
)


def batch(seed: int) -> Batch:
    """Two images of three classes, in blobs, of their own mean intensity."""
    generator = seeded(seed)
    coarse = torch.rand(2, 1, 4, 4, dtype=torch.float64, generator=generator)
    labels = (nn.functional.interpolate(coarse, SHAPE, mode="bicubic")[:, 0] * 3).long().clamp(0, 2)
    means = torch.rand(3, dtype=torch.float64, generator=generator)
    texture, draws = torch.randn(2, 2, 1, *SHAPE, dtype=torch.float64, generator=generator)
    return Batch(means[labels].unsqueeze(1) + 0.1 * texture, labels, draws)


TARGET = batch(99)


def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    """A mean over samples, as parts of a batch need."""
    return soft_dice_loss(logits, labels, batch=False) + cross_entropy_loss(logits, labels)


def inner_loss(model: nn.Module, outer: nn.Module, given: Batch) -> Tensor:
    return loss_of(model(outer(given.images, given.draws)), given.labels)


def outer_loss(model: nn.Module, outer: nn.Module, given: Batch) -> Tensor:
    return loss_of(model(given.images), given.labels)


PROBLEM = BilevelProblem(inner_loss, outer_loss)


def step(model: nn.Module, optimiser: torch.optim.Optimizer, outer: nn.Module, given: Batch) -> None:
    native_step(InnerUpdate(optimiser), model, lambda: inner_loss(model, outer, given), outer)


@cache
def warm(network: str, optimiser: str) -> tuple[nn.Module, torch.optim.Optimizer, Residual]:
    model, outer = NETWORKS[network]().double(), Residual()
    inner = OPTIMISERS[optimiser](model.parameters())
    for index in range(WARM_STEPS):
        step(model, inner, outer, batch(500 + index))
    inner.zero_grad()
    return model, inner, outer


def computed(
    network: str, optimiser: str, strategy: HypergradientStrategy, given: list[Batch], lr: float | None = None
) -> Hypergradient:
    model, inner, outer = copy.deepcopy(warm(network, optimiser))
    if lr is not None:
        inner.param_groups[0]["lr"] = lr
    return hypergradient(
        StepInputs(PROBLEM, FunctionalModel(model), InnerUpdate(inner), outer, given), TARGET, strategy
    )[0]


def flat(result: Hypergradient) -> Tensor:
    return torch.cat([g.flatten() for g in result.gradients.values()])


@each_network
def test_every_parameter_is_trained(network: str) -> None:
    model, *_ = warm(network, "sgd")
    given = batch(0)
    gradients = torch.autograd.grad(loss_of(model(given.images), given.labels), list(model.parameters()))
    assert all(g is not None for g in gradients)


@each_network
@pytest.mark.parametrize(("optimiser", "steps"), [("momentum", 1), ("momentum", 2), ("adam", 1)])
def test_exact_strategies_are_native_training(network: str, optimiser: str, steps: int) -> None:
    model, inner, outer = warm(network, optimiser)
    # Short, so that few units change side on the way.
    direction = [0.1 * torch.randn(p.shape, dtype=p.dtype, generator=seeded(7)) for p in outer.parameters()]

    def after(by: float, given: list[Batch]) -> Outcome:
        its_model, its_inner, its_outer = copy.deepcopy((model, inner, outer))
        with torch.no_grad():
            for parameter, d in zip(its_outer.parameters(), direction, strict=True):
                parameter.add_(d, alpha=by)
        sides: list[Tensor] = []
        for module in its_model.modules():
            if isinstance(module, nn.LeakyReLU):
                module.register_forward_pre_hook(lambda _module, x: sides.append(x[0] > 0))
        for one in given:
            step(its_model, its_inner, its_outer, one)
        with torch.no_grad():
            return Outcome(outer_loss(its_model, its_outer, TARGET).item(), tuple(sides))

    for first in range(0, 1000, 100):
        given = [batch(first + k) for k in range(steps)]
        try:
            truth = central_difference(lambda by, given=given: after(by, given))  # type: ignore[misc]
            break
        except KinkError:
            continue
    else:
        raise AssertionError("kinks everywhere")
    gradients = computed(network, optimiser, Mixed() if steps == 1 else Unrolled(steps), given).gradients
    found = sum((g * d).sum().item() for g, d in zip(gradients.values(), direction, strict=True))
    assert abs(found - truth) < 1e-6 * abs(truth)


@each_network
@pytest.mark.parametrize(
    "strategy",
    [Unrolled(1), Forward(), InParts(Mixed(), chunk=1), InParts(Forward(), chunk=1)],
    ids=["unrolled", "forward", "parts of mixed", "parts of forward"],
)
def test_the_exact_strategies_agree(network: str, strategy: HypergradientStrategy) -> None:
    mixed, other = (flat(computed(network, "adam", s, [batch(0)])) for s in (Mixed(), strategy))
    assert mixed.norm() > 1e-6
    assert (other - mixed).norm() < 1e-9 * mixed.norm()


@each_network
@pytest.mark.parametrize("optimiser", ["momentum", "adam"])
def test_finite_differences_are_as_near_as_they_report(network: str, optimiser: str) -> None:
    mixed = flat(computed(network, optimiser, Mixed(), [batch(0)]))
    result = computed(network, optimiser, FiniteDifference(estimate_error=True), [batch(0)])
    assert (flat(result) - mixed).norm() <= result.diagnostics["error"]
    assert result.diagnostics["error"] < 1e-3 * mixed.norm()


@each_network
def test_implicit_differentiation_has_the_limit_of_one_small_step(network: str) -> None:
    """With damping d far above the curvature, x = v / d: one step of rate 1 / d from where it stands."""
    damping, rate = 1e7, 1e-7
    mixed = computed(network, "sgd", Mixed(), [batch(0)], lr=rate)
    implicit = computed(network, "sgd", Implicit(ConjugateGradient(damping=damping)), [batch(0)], lr=rate)
    assert implicit.diagnostics["converged"] == 1.0
    assert (flat(implicit) - flat(mixed)).norm() < 1e-3 * flat(mixed).norm()


@each_network
def test_solvers_of_implicit_differentiation_agree(network: str) -> None:
    """The damping makes the Hessian, taken away from an optimum, positive definite."""
    damping = 20.0
    solvers = ConjugateGradient(300, 1e-8, damping), Neumann(3000, 0.04, tolerance=1e-8, damping=damping)
    one, other = (computed(network, "sgd", Implicit(solver), [batch(0)], lr=1e-3) for solver in solvers)
    assert one.diagnostics["converged"] == other.diagnostics["converged"] == 1.0
    assert one.diagnostics["iterations"] > 3  # the Hessian counts
    assert (flat(one) - flat(other)).norm() < 1e-6 * flat(one).norm()


@each_network
@pytest.mark.parametrize("strategy", [Mixed(), Forward(), FiniteDifference()], ids=["mixed", "forward", "differences"])
def test_a_solver_trains_both(network: str, strategy: HypergradientStrategy) -> None:
    """In single precision, after the solver's own checks."""
    model, outer = NETWORKS[network](), Residual().float()
    inner, optimiser = (torch.optim.Adam(m.parameters(), lr=1e-2) for m in (model, outer))
    solver = BilevelSolver(PROBLEM, model, inner, outer, optimiser, strategy)
    before = [p.detach().clone() for p in (*model.parameters(), *outer.parameters())]
    losses = []
    given, target = (single(batch(seed)) for seed in (0, 99))
    for _ in range(6):
        losses.append(solver.step([given], target).inner_loss)
    moved = [not torch.equal(a, b) for a, b in zip(before, (*model.parameters(), *outer.parameters()), strict=True)]
    assert all(moved)
    assert all(math.isfinite(loss) for loss in losses)
    assert losses[-1] < losses[0]


def single(given: Batch) -> Any:
    return Batch(given.images.float(), given.labels, given.draws.float())


def test_the_example_of_the_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).resolve().parents[2] / "docs" / "guides" / "own-network.md"
    found = re.search(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    exec(compile(found[1], str(page), "exec"), {"__name__": "example"})
    assert torch.load("dilated.pt", weights_only=True)
