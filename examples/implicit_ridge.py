"""Implicit differentiation: the weight decay of a ridge regression, beside its closed form.

The inner problem is phi*(lambda) = argmin |X phi - y|^2 / n + lambda |phi|^2, the outer loss the mean squared error on
held-out rows. The inner model is trained to its optimum. There the implicit function theorem gives the hypergradient
from one linear system with the Hessian, whichever way the training went and however long it was (Bengio,
Gradient-Based Optimization of Hyperparameters, Neural Computation 2000).

    python examples/implicit_ridge.py [--outer-steps 25]

A ridge regression has a closed form, and so has its hypergradient. The program compares both at every step, and the
lambda that is learned with the best one.
"""

import argparse

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from metasynth.bilevel import BilevelProblem, BilevelSolver, ConjugateGradient, Implicit

FEATURES, NOISE, INNER_STEPS = 20, 2.0, 50

Rows = tuple[Tensor, Tensor]
"""Inputs (n, 20) and targets (n, 1), in double precision."""


def draw(n: int, truth: Tensor) -> Rows:
    """So many rows of a noisy linear relation."""
    x = torch.randn(n, FEATURES, dtype=torch.float64)
    return x, x @ truth + NOISE * torch.randn(n, 1, dtype=torch.float64)


def fit_loss(model: nn.Module, log_decay: Tensor, rows: Rows) -> Tensor:
    """Outer loss: mean squared error."""
    return (model(rows[0]) - rows[1]).square().mean()


def ridge_loss(model: nn.Module, log_decay: Tensor, rows: Rows) -> Tensor:
    """Inner loss: mean squared error plus lambda times the squared weights."""
    return fit_loss(model, log_decay, rows) + log_decay.exp() * model.weight.square().sum()


def closed_form(log_decay: float, train: Rows, held_out: Rows) -> tuple[float, float]:
    """Held-out loss of the exact ridge solution, and its derivative with respect to log lambda.

    phi* = A^-1 b with A = X^T X / n + lambda I, so d phi* / d log lambda = -lambda A^-1 phi*.
    """
    (x, y), (x_held, y_held), decay = train, held_out, torch.tensor(log_decay, dtype=torch.float64).exp()
    matrix = x.T @ x / len(x) + decay * torch.eye(FEATURES, dtype=torch.float64)
    weight = torch.linalg.solve(matrix, x.T @ y / len(x))
    residual = x_held @ weight - y_held
    change = -decay * torch.linalg.solve(matrix, weight)
    return residual.square().mean().item(), (2 * residual * (x_held @ change)).mean().item()


def learn_decay(train: Rows, held_out: Rows, outer_steps: int) -> tuple[float, float]:
    """Learned log lambda, and the largest error of a hypergradient against the closed form."""
    model = nn.Linear(FEATURES, 1, bias=False, dtype=torch.float64)
    log_decay = torch.tensor(-4.0, dtype=torch.float64, requires_grad=True)
    inner = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.7)
    outer = torch.optim.SGD([log_decay], lr=1.0)  # so that a step moves log lambda by minus the hypergradient
    strategy = Implicit(ConjugateGradient(max_steps=FEATURES, tolerance=1e-10), steps=INNER_STEPS)
    solver = BilevelSolver(BilevelProblem(ridge_loss, fit_loss), model, inner, log_decay, outer, strategy)
    for _ in range(4 * INNER_STEPS):
        solver.inner_step(train)  # to the optimum, from where it only has to be followed
    errors = []
    for step in range(outer_steps):
        before = log_decay.item()
        report = solver.step([train] * INNER_STEPS, held_out)
        found, (_, exact) = before - log_decay.item(), closed_form(before, train, held_out)
        errors.append(abs(found - exact))
        if step % 5 == 0:
            numbers = f"hypergradient {found:+.8f}, closed form {exact:+.8f}"
            print(f"lambda {torch.tensor(before).exp():.4f}: {numbers}, loss {report.outer_loss:.4f}")
    return log_decay.item(), max(errors)


def main(arguments: list[str] | None = None) -> tuple[float, float, float]:
    """Learned and best log lambda, and the largest error of a hypergradient."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outer-steps", type=int, default=25, help="steps of log lambda")
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    truth = torch.randn(FEATURES, 1, dtype=torch.float64)
    train, held_out = draw(60, truth), draw(200, truth)
    learned, worst = learn_decay(train, held_out, options.outer_steps)
    best = minimize_scalar(lambda log: closed_form(log, train, held_out)[0], bounds=(-8, 3), method="bounded").x
    print(f"lambda: learned {torch.tensor(learned).exp():.4f}, best {torch.tensor(best).exp():.4f}")
    return learned, float(best), worst


if __name__ == "__main__":
    main()
