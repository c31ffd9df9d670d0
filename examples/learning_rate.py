"""Learn a learning rate: which rate makes a short training best?

A linear model gets ten steps of gradient descent, from zero, on half of scikit-learn's diabetes data. The other half
judges it. The loss there is differentiated through all ten steps with respect to the rate (Maclaurin et al.,
Gradient-based Hyperparameter Optimization through Reversible Learning, ICML 2015), so the rate itself can descend.

    python examples/learning_rate.py [--outer-steps 40]

The last line compares the learned rate with a search that trains once for every rate it tries and needs no
hypergradient.
"""

import argparse
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from sklearn.datasets import load_diabetes
from torch import Tensor, nn

from metasynth.bilevel import BilevelProblem, BilevelSolver, InnerUpdate, Unrolled

INNER_STEPS = 10

Rows = tuple[Tensor, Tensor]
"""Standardised inputs (n, 10) and targets (n, 1)."""


def read_rows() -> tuple[Rows, Rows]:
    """Every other row to train on, the rest to judge by."""
    table = load_diabetes()
    inputs, targets = table.data, table.target[:, None]
    x, y = (torch.from_numpy((values - values.mean(0)) / values.std(0)) for values in (inputs, targets))
    return (x[::2], y[::2]), (x[1::2], y[1::2])


def squared_error(model: nn.Module, outer: Any, rows: Rows) -> Tensor:
    """Both losses. They need not mention the rate: it enters through the update."""
    return (model(rows[0]) - rows[1]).square().mean()


def rate(outer: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor]:
    """What the inner optimiser takes for its learning rate: a positive function of the outer parameter."""
    return {"lr": outer.exp()}


def learn_rate(train: Rows, held_out: Rows, start: float, outer_steps: int) -> float:
    """Descend in the logarithm of the rate."""
    model = nn.Linear(10, 1, bias=False, dtype=torch.float64)
    log_rate = torch.tensor(start, dtype=torch.float64).log().requires_grad_()
    solver = BilevelSolver(
        BilevelProblem(inner_loss=squared_error, outer_loss=squared_error),
        model,
        InnerUpdate(torch.optim.SGD(model.parameters(), lr=start), hyperparameters=rate),
        log_rate,
        torch.optim.Adam([log_rate], lr=0.3, betas=(0.5, 0.8)),
        strategy=Unrolled(INNER_STEPS),
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(solver.outer_optimizer, outer_steps)
    for step in range(outer_steps):
        nn.init.zeros_(model.weight)  # every training begins anew
        report = solver.step([train] * INNER_STEPS, held_out)
        schedule.step()
        if (step + 1) % 10 == 0:
            print(f"outer step {step + 1:3d}   rate {log_rate.exp().item():.4f}   loss {report.outer_loss:.5f}")
    return log_rate.exp().item()


def search_rate(train: Rows, held_out: Rows) -> float:
    """The same rate without hypergradients: a bounded search, one training in NumPy for each rate tried."""
    (x, y), (x_held, y_held) = ([part.numpy() for part in rows] for rows in (train, held_out))

    def loss(log_rate: float) -> float:
        weight = np.zeros((10, 1))
        for _ in range(INNER_STEPS):
            weight = weight - np.exp(log_rate) * 2 / len(x) * x.T @ (x @ weight - y)
        return float(np.square(x_held @ weight - y_held).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(1e-3), np.log(0.24)), method="bounded").x))


def main(arguments: list[str] | None = None) -> tuple[float, float]:
    """Learned rate, and the one that the search finds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outer-steps", type=int, default=40, help="steps of the rate")
    options = parser.parse_args(arguments)
    train, held_out = read_rows()
    learned, searched = learn_rate(train, held_out, 0.01, options.outer_steps), search_rate(train, held_out)
    print(f"learned rate {learned:.4f}, by search {searched:.4f}")
    return learned, searched


if __name__ == "__main__":
    main()
