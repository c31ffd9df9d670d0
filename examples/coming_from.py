"""Coming from higher, TorchOpt or Betty: one bilevel problem in each, and their hypergradients compared.

Ridge regression with a decay exp(theta_i) for every weight; wanted is dL/dtheta of the loss L on held-out rows. At the
inner optimum unrolling and implicit differentiation agree. What is not installed is left out: TorchOpt comes with the
extra `peers`; betty-ml 0.1.1, the last for Python 3.11, needs a pip older than 24.1.

    python examples/coming_from.py [--steps 200]
"""

import argparse

import higher
import torch
from torch import Tensor, nn

from metasynth.bilevel import BilevelProblem, BilevelSolver, Implicit, Unrolled

Rows = tuple[Tensor, Tensor]  # inputs (n, 4) and targets (n, 1)


def outer_loss(model: nn.Module, theta: Tensor, rows: Rows) -> Tensor:
    """Mean squared error."""
    return (model(rows[0]) - rows[1]).square().mean()


def inner_loss(model: nn.Module, theta: Tensor, rows: Rows) -> Tensor:
    """The same, and the decay."""
    return outer_loss(model, theta, rows) + (theta.exp() * model.weight.square()).sum()


def by_metasynth(model: nn.Module, theta: Tensor, train: Rows, held: Rows, steps: int, way: type = Unrolled) -> Tensor:
    """A step trains the model and moves theta, each by its own torch optimiser; nothing has to be copied back."""
    inner, outer = torch.optim.SGD(model.parameters(), lr=0.1), torch.optim.SGD([theta], lr=1.0)
    problem, before = BilevelProblem(inner_loss, outer_loss), theta.detach().clone()
    BilevelSolver(problem, model, inner, theta, outer, way(steps=steps)).step([train] * steps, held)
    return before - theta.detach()  # at a rate of 1 theta moves by minus the hypergradient


def by_higher(model: nn.Module, theta: Tensor, train: Rows, held: Rows, steps: int) -> Tensor:
    """A patched copy is trained; to go on from there, its weights and moments are yours to copy back."""
    with higher.innerloop_ctx(model, torch.optim.SGD(model.parameters(), lr=0.1)) as (patched, optimizer):
        for _ in range(steps):
            optimizer.step(inner_loss(patched, theta, train))
        return torch.autograd.grad(outer_loss(patched, theta, held), theta)[0]


def by_torchopt(model: nn.Module, theta: Tensor, train: Rows, held: Rows, steps: int) -> Tensor:
    """The model's parameters become results of the steps; to go on, `torchopt.stop_gradient` cuts them off."""
    import torchopt

    optimizer = torchopt.MetaSGD(model, lr=0.1)
    for _ in range(steps):
        optimizer.step(inner_loss(model, theta, train))
    return torch.autograd.grad(outer_loss(model, theta, held), theta)[0]


def by_betty(model: nn.Module, theta: Tensor, train: Rows, held: Rows, steps: int) -> Tensor:
    """Each level is a class, run by an engine; the type says how, here a Neumann series of as many terms as steps."""
    from betty.configs import Config, EngineConfig
    from betty.engine import Engine
    from betty.problems import ImplicitProblem

    class Inner(ImplicitProblem):
        def training_step(self, rows: Rows) -> Tensor:
            return inner_loss(self.module, self.outer.module[0], rows)

    class Outer(ImplicitProblem):
        def training_step(self, rows: Rows) -> Tensor:
            return outer_loss(self.inner.module, self.module[0], rows)

    decays = nn.ParameterList([theta.detach().clone()])
    how = Config(type="neumann", neumann_iterations=steps, neumann_alpha=0.1, unroll_steps=steps)
    inner = Inner("inner", how, model, torch.optim.SGD(model.parameters(), lr=0.1), train_data_loader=[train])
    outer = Outer("outer", Config(), decays, torch.optim.SGD(decays.parameters(), lr=1.0), train_data_loader=[held])
    Engine([outer, inner], EngineConfig(train_iters=steps), {"l2u": {inner: [outer]}, "u2l": {outer: [inner]}}).run()
    return theta.detach() - decays[0].detach()


def main(arguments: list[str] | None = None) -> tuple[tuple[Rows, Rows], dict[str, Tensor]]:
    """Training and held-out rows, and the hypergradient (4,) by each package that is installed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200, help="inner steps")
    steps = parser.parse_args(arguments).steps
    torch.manual_seed(0)
    train, held = ((x[:, :4], x.sum(dim=1, keepdim=True)) for x in torch.randn(2, 40, 5, dtype=torch.float64))
    ways = {"metasynth": by_metasynth, "metasynth, Implicit": lambda *given: by_metasynth(*given, way=Implicit)}
    ways |= {"higher": by_higher, "TorchOpt": by_torchopt, "Betty": by_betty}
    found = {}
    for name, way in ways.items():
        model, theta = nn.Linear(4, 1, bias=False).double(), torch.full((4,), -2.0).double().requires_grad_()
        try:
            found[name] = way(model, theta, train, held, steps)
            print(f"{name:20}", *(f"{value:+.6f}" for value in found[name].tolist()))
        except ModuleNotFoundError as missing:
            print(f"{name:20} left out: {missing}")
    return (train, held), found


if __name__ == "__main__":
    main()
