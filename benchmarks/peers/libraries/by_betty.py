"""Betty: a class for each level, run by an engine."""

from collections.abc import Callable
from typing import Any

import torch
from betty.configs import Config, EngineConfig
from betty.engine import Engine
from betty.problems import ImplicitProblem, IterativeProblem
from torch import Tensor

from benchmarks.peers.problem import Problem


def unrolled(given: Problem) -> Callable[[], object]:
    """K differentiable steps of an `IterativeProblem`; what they start from is cut off from the steps before."""

    class Inner(IterativeProblem):
        def on_inner_loop_start(self) -> None:
            self.params = tuple(p.detach().requires_grad_() for p in self.params)
            for state in self.optimizer.state:
                state.update({name: v.detach() for name, v in state.items() if torch.is_tensor(v)})

        def forward(self, *inputs: Any) -> Tensor:
            return self.fmodule(self.params, self.buffers, *inputs)

        def training_step(self, batch: Any) -> Tensor:
            return given.inner_loss(self, self.outer.module, batch)

    return engine_of(given, Inner, Config(unroll_steps=given.steps, retain_graph=True), Config(first_order=False))


def from_a_start(given: Problem) -> Callable[[], object]:
    """The same, with the inner model begun anew."""

    class Inner(IterativeProblem):
        def on_inner_loop_start(self) -> None:
            self.params = tuple(torch.zeros_like(p).requires_grad_() for p in self.params)
            for state in self.optimizer.state:
                state.update({name: v.detach() for name, v in state.items() if torch.is_tensor(v)})

        def forward(self, *inputs: Any) -> Tensor:
            return self.fmodule(self.params, self.buffers, *inputs)

        def training_step(self, batch: Any) -> Tensor:
            return given.inner_loss(self, self.outer.module, batch)

    return engine_of(given, Inner, Config(unroll_steps=given.steps, retain_graph=True), Config(first_order=False))


def at_the_minimum(given: Problem) -> Callable[[], object]:
    """K plain steps, and a Neumann series of as many terms."""

    class Inner(ImplicitProblem):
        def training_step(self, batch: Any) -> Tensor:
            return given.inner_loss(self.module, self.outer.module, batch)

    way = Config("neumann", unroll_steps=given.steps, neumann_iterations=given.steps, neumann_alpha=given.rate)
    return engine_of(given, Inner, way, Config())


def engine_of(given: Problem, inner_type: type, inner_config: Config, outer_config: Config) -> Callable[[], object]:
    """Both levels and their engine, which runs K steps at a call."""

    class Outer(ImplicitProblem):
        def training_step(self, batch: Any) -> Tensor:
            inner = self.inner if isinstance(self.inner, IterativeProblem) else self.inner.module
            return given.outer_loss(inner, self.module, batch)

    inner = inner_type("inner", inner_config, given.model, given.optimizer, train_data_loader=given.train)
    outer = Outer("outer", outer_config, given.outer, given.outer_optimizer, train_data_loader=given.held_out)
    reached = {"l2u": {inner: [outer]}, "u2l": {outer: [inner]}}
    return Engine([outer, inner], EngineConfig(train_iters=given.steps), reached).run


SOLVERS = {
    "ridge": at_the_minimum,
    "cleaning": unrolled,
    "sinusoid": from_a_start,
    "digits": unrolled,
    "noise": unrolled,
}
UNABLE: dict[str, str] = {}
