"""A long training holds no more memory at its end than at its beginning, and a step leaves nothing behind."""

import gc
import os
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.strategies import EACH, taken
from torch import Tensor, nn

from metasynth.bilevel.hypergradient import HypergradientStrategy
from metasynth.bilevel.outer_step import OuterStep
from metasynth.bilevel.patched.buffers import BufferPolicy
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.solver import BilevelSolver
from metasynth.bilevel.strategies.parts import InParts

STATM = Path("/proc/self/statm")

STRATEGIES = EACH | taken("implicit-damped", "in_parts-of-samples", "in_parts-by-differences")

# What needs more than its own process: none of the pytest run's memory is to be in the count.
PROGRAM = """
import sys
from bilevel.test_memory import train
train(sys.argv[1])
"""


def loss(model: nn.Module, outer: Tensor, given: tuple[Tensor, Tensor]) -> Tensor:
    return (model(given[0] + outer * given[1]) - given[0]).square().mean()


def outer_loss(model: nn.Module, outer: Tensor, given: tuple[Tensor, Tensor]) -> Tensor:
    return (model(given[0]) - given[0]).square().mean()


def convolutional() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1))


def solver_of(
    strategy: HypergradientStrategy, model: nn.Module, problem: BilevelProblem, buffers: BufferPolicy = "commit"
) -> BilevelSolver:
    sigma = torch.tensor(0.1, requires_grad=True)
    return BilevelSolver(
        problem,
        model,
        torch.optim.Adam(model.parameters(), lr=1e-3),
        sigma,
        torch.optim.SGD([sigma], lr=1e-3),
        strategy,
        OuterStep(average=2, clip=3.0, memory=0.5),
        buffers=buffers,
    )


def train(name: str) -> None:
    """1,000 outer steps; prints resident bytes and the number of live tensors after 50, 100 and at the end."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    gc.disable()  # what a cycle holds must not be hidden by the collector
    strategy = STRATEGIES[name]
    # Batch statistics would couple the samples that InParts takes apart.
    policy: BufferPolicy = "freeze" if isinstance(strategy, InParts) else "commit"
    solver = solver_of(strategy, convolutional(), BilevelProblem(loss, outer_loss), policy)
    batches = [(torch.randn(4, 1, 8, 8), torch.randn(4, 1, 8, 8)) for _ in range(5)]
    for step in range(1, 1001):
        inner = [batches[(step + k) % 5] for k in range(strategy.inner_steps)]
        solver.step(inner, batches[(step + 3) % 5], batches[(step + 4) % 5])
        if step in (50, 100, 1000):  # the first time for what looking itself takes up
            tensors = sum(issubclass(type(x), Tensor) for x in gc.get_objects())
            print(int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"), tensors)


@pytest.mark.skipif(not STATM.exists(), reason="resident memory is read from /proc/self/statm")
@pytest.mark.parametrize(
    "strategy",
    [pytest.param(s, marks=() if s == "mixed" else pytest.mark.slow) for s in STRATEGIES],
)
def test_resident_memory_is_flat(strategy: str) -> None:
    """Within 1 % between steps 100 and 1,000, and not one tensor more, without the garbage collector's help."""
    paths = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    # One arena: with several, glibc leaves holes that come and go by the run.
    environment = {**os.environ, "PYTHONPATH": paths, "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, strategy], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    _, (early, early_tensors), (late, late_tensors) = (map(int, line.split()) for line in done.stdout.splitlines())
    assert late_tensors == early_tensors
    assert late <= 1.01 * early


class Recurrent(nn.Module):
    """Images (B, 1, 4, 4) by their rows."""

    def __init__(self) -> None:
        super().__init__()
        self.cells, self.head = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.cells(images[:, 0])[0])[:, None]


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("make", [convolutional, Recurrent])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_step_leaves_nothing_behind(strategy: str, make: Callable[[], nn.Module]) -> None:
    """Neither parameters that were bound for a pass nor anything of its graph outlive the call."""
    chosen = STRATEGIES[strategy]
    seen: list[weakref.ref[Any]] = []

    def noted(objective: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def value(model: nn.Module, outer: Tensor, given: tuple[Tensor, Tensor]) -> Tensor:
            def watched(images: Tensor) -> Tensor:
                logits = model(images)
                seen.append(weakref.ref(logits))
                return logits

            seen.extend(weakref.ref(p) for p in model.parameters() if not isinstance(p, nn.Parameter))
            return objective(watched, outer, given)

        return value

    policy: BufferPolicy = "freeze" if isinstance(chosen, InParts) else "commit"
    # In single precision torch takes a recurrent kernel that Forward cannot pass.
    solver = solver_of(chosen, make().double(), BilevelProblem(noted(loss), noted(outer_loss)), policy)
    batches = [tuple(torch.randn(2, 4, 1, 4, 4, dtype=torch.float64)) for _ in range(3)]
    for _ in range(2):
        solver.step([batches[0]] * chosen.inner_steps, batches[1], batches[2])
        assert len(seen) > 3
        assert [ref() for ref in seen if ref() is not None] == []
        seen.clear()
    solver.inner_step(batches[0])
    assert [ref() for ref in seen if ref() is not None] == []
