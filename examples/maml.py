"""Few-shot regression by MAML: learn the weights from which a few gradient steps fit a new sine wave.

A task is y = A sin(x + p) with A in [0.1, 5] and p in [0, pi]; five of its points are given (Finn et al., ICML 2017,
section 5.1). The outer parameters are the start, the inner parameters each task's offsets from it, zero before its
first step. All tasks of a meta-batch adapt at once, each with its own offsets. The program prints the error on new
tasks after 0 to 5 steps, from the random start and from the one that was learned.

    python examples/maml.py [--outer-steps 600]
"""

import argparse
import math

import torch
from torch import Tensor, nn

from metasynth.bilevel import BilevelProblem, BilevelSolver, Unrolled

STEPS, RATE, TASKS, SHOTS = 5, 0.01, 25, 5

Points = tuple[Tensor, Tensor]  # inputs and targets, (T, n, 1) each: n points of T tasks


def draw(tasks: int, queries: int = 10) -> tuple[Points, Points]:
    """New tasks: the points to adapt to, and others of the same waves to judge by."""
    amplitude, phase = 0.1 + 4.9 * torch.rand(tasks, 1, 1), math.pi * torch.rand(tasks, 1, 1)
    support, query = 10 * torch.rand(tasks, SHOTS, 1) - 5, 10 * torch.rand(tasks, queries, 1) - 5
    return (support, amplitude * torch.sin(support + phase)), (query, amplitude * torch.sin(query + phase))


def random_start() -> nn.ParameterList:
    """The outer parameters: weights (inputs, outputs) and biases (1, outputs) of a network 1-40-40-1."""
    layers = [nn.Linear(1, 40), nn.Linear(40, 40), nn.Linear(40, 1)]
    return nn.ParameterList([p for layer in layers for p in (layer.weight.T.detach(), layer.bias.detach()[None])])


class Offsets(nn.Module):
    """The inner parameters: what each of T tasks adds to the start."""

    def __init__(self, start: nn.ParameterList, tasks: int) -> None:
        super().__init__()
        self.offsets = nn.ParameterList([p.detach().new_zeros(tasks, *p.shape) for p in start])

    def forward(self, start: nn.ParameterList, points: Points) -> Tensor:
        """Mean squared error of every task, (T,)."""
        w1, b1, w2, b2, w3, b3 = (p + offset for p, offset in zip(start, self.offsets, strict=True))
        hidden = torch.relu(torch.relu(points[0] @ w1 + b1) @ w2 + b2)
        return (hidden @ w3 + b3 - points[1]).square().mean(dim=(1, 2))


def make_solver(start: nn.ParameterList, tasks: int, outer: torch.optim.Optimizer) -> BilevelSolver:
    """Fresh offsets, moved by gradient descent on the sum over tasks, so that each task's gradient is its own."""
    problem = BilevelProblem(
        inner_loss=lambda model, start, points: model(start, points).sum(),
        outer_loss=lambda model, start, points: model(start, points).mean(),
    )
    model = Offsets(start, tasks)
    return BilevelSolver(problem, model, torch.optim.SGD(model.parameters(), lr=RATE), start, outer, Unrolled(STEPS))


def learn(start: nn.ParameterList, outer_steps: int) -> nn.ParameterList:
    """The start, improved in place by the tasks of one meta-batch a step."""
    solver = make_solver(start, TASKS, torch.optim.Adam(start.parameters(), lr=0.003))
    for _ in range(outer_steps):
        for offset in solver.model.parameters():
            nn.init.zeros_(offset)
        support, query = draw(TASKS)
        solver.step([support] * STEPS, query)
    return start


def curve(start: nn.ParameterList, tasks: int = 300) -> list[float]:
    """Mean error on new tasks after 0, 1, ..., 5 steps."""
    torch.manual_seed(1)
    support, query = draw(tasks, queries=100)
    solver = make_solver(start, tasks, torch.optim.SGD(start.parameters()))  # its outer optimiser never steps
    found = [solver.model(start, query).mean().item()]
    for _ in range(STEPS):
        solver.inner_step(support)
        found.append(solver.model(start, query).mean().item())
    return found


def main(arguments: list[str] | None = None) -> tuple[list[float], list[float]]:
    """Errors after 0 to 5 steps, from the random start and from the learned one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outer-steps", type=int, default=600, help="steps of the start")
    outer_steps = parser.parse_args(arguments).outer_steps
    torch.manual_seed(0)
    start = random_start()
    before = curve(start)
    after = curve(learn(start, outer_steps))
    print("steps on a new task", *(f"{step:7d}" for step in range(STEPS + 1)))
    print("error, random start", *(f"{error:7.2f}" for error in before))
    print("error, learned     ", *(f"{error:7.2f}" for error in after))
    return before, after


if __name__ == "__main__":
    main()
