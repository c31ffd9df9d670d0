"""Models that checkpoint their activations give what they give without, under every strategy."""

import threading
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from bilevel import segmentation
from bilevel.preflight_cases import check, refuse
from support.strategies import each, taken
from torch import Tensor, nn
from torch.utils import checkpoint as torch_checkpoint
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    checkpoint_sequential,
    create_selective_checkpoint_contexts,
)

from metasynth.bilevel.hypergradient import HypergradientStrategy, hypergradient
from metasynth.bilevel.patched import recomputation
from metasynth.bilevel.patched.functional import FunctionalModel
from metasynth.bilevel.patched.recomputation import REENTRANT
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.solver import BilevelSolver
from metasynth.bilevel.step_inputs import StepInputs
from metasynth.bilevel.strategies.finite_difference import FiniteDifference
from metasynth.bilevel.strategies.forward import Forward
from metasynth.bilevel.strategies.mixed import Mixed
from metasynth.bilevel.update.inner_update import InnerUpdate
from metasynth.segment.monai_networks import monai_network

STRATEGIES = each(without=("finite_difference", "implicit", "in_parts")) | taken(
    "unrolled-3-last-2", "finite_difference-wide", "implicit-damped", "in_parts-of-2"
)

Apply = Callable[[nn.Module, Tensor], Tensor]


class Block(nn.Module):
    def __init__(self, layer: nn.Module, norm: nn.Module | None, dropout: float) -> None:
        super().__init__()
        self.layer, self.norm, self.dropout = layer, norm or nn.Identity(), nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.apply_(x)

    def apply_(self, x: Tensor) -> Tensor:
        return x + self.dropout(torch.tanh(self.norm(self.layer(x))))


class Blocks(nn.Module):
    """A network whose blocks are applied as a test says."""

    def __init__(self, kind: str, apply: Apply, norm: bool, dropout: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = {
            "convolutions": lambda: nn.Conv1d(3, 3, 3, padding=1),
            "linear": lambda: nn.Linear(6, 6),
        }
        normalisation = {"convolutions": lambda: nn.BatchNorm1d(3), "linear": lambda: nn.BatchNorm1d(3)}
        self.how = [apply]
        self.blocks = nn.ModuleList(
            Block(layers[kind](), normalisation[kind]() if norm else None, dropout) for _ in range(3)
        )
        self.head = nn.Linear(6, 2)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = self.how[0](block, x)
        return self.head(x)


kept = partial(checkpoint, use_reentrant=False)
STYLES: dict[str, Apply] = {
    "module": lambda block, x: kept(block, x),
    "method": lambda block, x: kept(block.apply_, x),
    "closure": lambda block, x: kept(lambda y: block(y) * 1.0, x),
    "partial": lambda block, x: kept(partial(block.apply_), x),
    "keyword": lambda block, x: kept(block, x=x),
    "nested": lambda block, x: kept(lambda y: kept(block, y).sin(), x),
    "sequential": lambda block, x: checkpoint_sequential(nn.Sequential(block), 1, x, use_reentrant=False),
    "with a context": lambda block, x: kept(block, x, context_fn=lambda: (nullcontext(), nullcontext())),
    "without early stop": lambda block, x: kept(block, x, early_stop=False),
}
PLAIN: dict[str, Apply] = {name: lambda block, x: block(x) for name in STYLES} | {
    "nested": lambda block, x: block(x).sin()
}


def images(seed: int) -> Tensor:
    return torch.randn(4, 3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def inner_loss(model: nn.Module, outer: dict[str, Tensor], given: Tensor) -> Tensor:
    return (model(given * outer["gain"] + outer["shift"]) - given[..., :2]).square().mean()


def outer_loss(model: nn.Module, outer: dict[str, Tensor], given: Tensor) -> Tensor:
    return (model(given) - given[..., :2].abs()).square().mean()


def evaluated(model: nn.Module, outer: dict[str, Tensor], given: Tensor) -> Tensor:
    model.eval()
    return outer_loss(model, outer, given)


def theta() -> dict[str, Tensor]:
    return {
        name: torch.tensor(value, dtype=torch.float64, requires_grad=True)
        for name, value in (("gain", 0.7), ("shift", 0.2))
    }


def warm(model: nn.Module) -> torch.optim.Optimizer:
    """Adam after some native steps, the same whatever is checkpointed."""
    torch.manual_seed(1)
    optimizer, outer = torch.optim.Adam(model.parameters(), lr=3e-2), theta()
    for seed in range(3):
        optimizer.zero_grad()
        inner_loss(model, outer, images(seed)).backward()
        optimizer.step()
    return optimizer


def found(
    apply: Apply,
    strategy: str,
    kind: str = "convolutions",
    norm: bool = False,
    dropout: float = 0.0,
    loss: Callable[..., Tensor] = outer_loss,
) -> Tensor:
    """The hypergradient of two parameters."""
    model, outer = Blocks(kind, apply, norm, dropout), theta()
    optimizer, chosen = warm(model), STRATEGIES[strategy]
    if norm:  # what native recomputation did to the running statistics
        for block in model.blocks:
            block.norm.reset_running_stats()
    torch.manual_seed(2)
    batches = [images(10 + k) for k in range(chosen.inner_steps)]
    problem = BilevelProblem(inner_loss, loss)
    result, _ = hypergradient(
        StepInputs(problem, FunctionalModel(model), InnerUpdate(optimizer), outer, batches), images(20), chosen
    )
    return torch.stack([g for g in result.gradients.values() if g is not None])


def require_equal(strategy: str, style: str = "module", **options: Any) -> None:
    plain, recomputed = (found(styles[style], strategy, **options) for styles in (PLAIN, STYLES))
    assert plain.abs().min() > 1e-6
    if strategy in ("forward", "finite_difference-wide"):  # which make a second pass, after the outer one
        torch.testing.assert_close(plain, found(PLAIN[style], "mixed", **options), rtol=1e-4, atol=0)
    torch.testing.assert_close(recomputed, plain, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("kind", ["convolutions", "linear"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy(strategy: str, kind: str) -> None:
    require_equal(strategy, kind=kind)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("strategy", ["mixed", "unrolled-3", "forward"])
def test_every_way_to_checkpoint(strategy: str, style: str) -> None:
    require_equal(strategy, style)


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != "in_parts-of-2"])  # batch statistics
@pytest.mark.parametrize("loss", [outer_loss, evaluated])
def test_running_statistics_and_an_outer_loss_in_eval_mode(strategy: str, loss: Callable[..., Tensor]) -> None:
    """The mode that the outer loss sets is not that in which the inner pass is computed again."""
    require_equal(strategy, norm=True, loss=loss)


@pytest.mark.parametrize("strategy", ["mixed", "unrolled-3", "forward", "finite_difference-wide"])
def test_dropout_and_an_outer_loss_in_eval_mode(strategy: str) -> None:
    require_equal(strategy, dropout=0.5, loss=evaluated)


def solver_of(model: nn.Module, strategy: HypergradientStrategy, rate: float = 0.0) -> BilevelSolver:
    outer = theta()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-2)
    outer_optimizer = torch.optim.SGD(list(outer.values()), lr=rate)
    return BilevelSolver(BilevelProblem(inner_loss, outer_loss), model, optimizer, outer, outer_optimizer, strategy)


@pytest.mark.parametrize("strategy", ["mixed", "unrolled-3", "finite_difference-wide"])
def test_a_training_is_that_of_the_model_without(strategy: str) -> None:
    """Weights, running statistics and outer parameters after both kinds of steps, to the last digits."""
    trained = []
    for styles in (PLAIN, STYLES):
        solver = solver_of(Blocks("convolutions", styles["module"], True, 0.0), STRATEGIES[strategy], rate=0.5)
        for seed in range(3):
            solver.inner_step(images(seed))
            solver.step([images(10 * k + seed) for k in range(solver.strategy.inner_steps)], images(50 + seed))
        trained.append([*solver.model.state_dict().values(), *solver.outer.values()])
    assert int(solver.model.state_dict()["blocks.0.norm.num_batches_tracked"]) == 3 * (1 + solver.strategy.inner_steps)
    for plain, recomputed in zip(*trained, strict=True):
        torch.testing.assert_close(recomputed, plain, rtol=1e-9, atol=1e-12)


@pytest.mark.skipif(find_spec("monai") is None, reason="monai is missing")
@pytest.mark.parametrize("strategy", ["mixed", "unrolled-3"])
def test_a_network_of_monai_with_checkpointing(strategy: str) -> None:
    results = []
    for use_checkpoint in (False, True):
        model = monai_network(
            "SwinUNETR",
            3,
            (64, 64),
            generator=segmentation.seeded(0),
            feature_size=12,
            depths=[1, 1, 1, 1],
            num_heads=[1, 1, 2, 2],
            use_checkpoint=use_checkpoint,
        ).double()
        outer, chosen = segmentation.Residual(), STRATEGIES[strategy]
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        batches = [noise(seed) for seed in range(chosen.inner_steps)]
        result, _ = hypergradient(
            StepInputs(segmentation.PROBLEM, FunctionalModel(model), InnerUpdate(optimizer), outer, batches),
            noise(9),
            chosen,
        )
        results.append(torch.cat([g.flatten() for g in result.gradients.values() if g is not None]))
    assert results[0].norm() > 1e-4
    torch.testing.assert_close(results[1], results[0], rtol=1e-9, atol=1e-13)


def noise(seed: int) -> segmentation.Batch:
    generator = segmentation.seeded(seed)
    labels = torch.randint(0, 3, (1, 64, 64), generator=generator)
    images, draws = torch.randn(2, 1, 1, 64, 64, dtype=torch.float64, generator=generator)
    return segmentation.Batch(images, labels, draws)


class Own(torch.autograd.Function):
    """Checkpointing by hand, as reversible networks have it: the backward pass calls the module again."""

    @staticmethod
    def forward(ctx: Any, module: nn.Module, x: Tensor, *_: Tensor) -> Tensor:
        ctx.module = module
        ctx.save_for_backward(x)
        with torch.no_grad():
            return torch.tanh(module(x))

    @staticmethod
    def backward(ctx: Any, given: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            y = torch.tanh(ctx.module(x))
            found = torch.autograd.grad(y, [x, ctx.module.weight, ctx.module.bias], given, create_graph=True)
        return None, *found


class Reversible(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inside, self.head = nn.Linear(6, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(Own.apply(self.inside, x, self.inside.weight, self.inside.bias))


@pytest.mark.parametrize("strategy", [FiniteDifference(), Mixed()])
def test_other_kinds_of_recomputation_are_refused(strategy: HypergradientStrategy) -> None:
    refuse(
        "inner model: its backward pass computes a part again with the parameters that the model has by then",
        model=Reversible(),
        strategy=strategy,
    )


class Older(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inside, self.head = nn.Linear(6, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(checkpoint(self.inside, x, use_reentrant=True)))


def test_the_older_kind_is_refused_by_name() -> None:
    refuse(REENTRANT, model=Older())


def test_the_older_kind_is_refused_in_a_plain_step_too() -> None:
    model = Older().double()
    solver = solver_of(model, Mixed())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=REENTRANT):
        solver.inner_step(images(0))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_without_torchs_names_a_model_that_recomputes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a later release of torch may have others."""
    monkeypatch.setitem(recomputation._OWN, "_checkpoint_without_reentrant_generator", None)
    refuse("inner model: its backward pass computes a part again with the parameters that the model", model=network())


class Recomputed(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inside, self.options = nn.Linear(6, 6), options

    def forward(self, x: Tensor) -> Tensor:
        return kept(lambda y: torch.tanh(self.inside(y)), x, **self.options)


def network(**options: Any) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 6), Recomputed(**options), nn.Linear(6, 2))


@pytest.mark.parametrize("options", [{}, {"debug": True}, {"preserve_rng_state": False}])
@pytest.mark.parametrize("strategy", [Mixed(), FiniteDifference(), Forward()])
def test_a_checkpointed_model_passes_preflight(strategy: HypergradientStrategy, options: dict[str, Any]) -> None:
    check(model=network(**options), strategy=strategy)


def test_selective_checkpointing_is_refused_where_it_cannot_be_differentiated_twice() -> None:
    def policy(context: Any, operation: Any, *_: Any, **__: Any) -> CheckpointPolicy:
        is_kept = operation == torch.ops.aten.addmm.default
        return CheckpointPolicy.MUST_SAVE if is_kept else CheckpointPolicy.PREFER_RECOMPUTE

    model = network(context_fn=partial(create_selective_checkpoint_contexts, policy))
    refuse("selective activation checkpointing allows one backward pass; .* without a policy", model=model)
    check(model=model, strategy=FiniteDifference())


OWN = (torch_checkpoint._checkpoint_without_reentrant_generator, torch_checkpoint.CheckpointFunction)


def torchs() -> tuple[Any, Any]:
    return torch_checkpoint._checkpoint_without_reentrant_generator, torch_checkpoint.CheckpointFunction


def test_torch_has_its_own_names_outside_of_a_pass() -> None:
    def inside(model: nn.Module, outer: Any, given: Tensor) -> Tensor:
        assert torchs() != OWN
        raise KeyError("of the user")

    with pytest.raises(KeyError, match="of the user"):
        BilevelProblem(inside, inside).inner_value(nn.Linear(2, 2), None, None)
    assert torchs() == OWN


def test_other_threads_have_torchs_checkpointing_during_a_pass() -> None:
    layer = nn.Linear(3, 3).double()
    x = torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
    results: list[Tensor] = []

    def elsewhere() -> None:
        results.append(torch.autograd.grad(kept(layer, x).sum(), x)[0])
        y = checkpoint(layer, x, use_reentrant=True)
        y.sum().backward()
        results.append(x.grad)

    def loss(model: nn.Module, outer: Any, given: Tensor) -> Tensor:
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        return model(given).square().mean()

    BilevelProblem(loss, loss).inner_value(layer, None, x.detach())
    expected = layer.weight.sum(0).expand(2, 3)
    assert len(results) == 2
    for result in results:
        torch.testing.assert_close(result, expected)
