"""How long the horizon of a hypergradient has to be, on a small problem whose best values are known.

A segmenter learns from synthetic images of the embedded template's label maps. θ is how much the contrast differs from
image to image (spread), how strong the texture within a class is (texture) and how strong the noise is (sigma), each as
a logarithm. The "real" images, of other people, have what θ cannot change: another mean intensity of each class, a
coarser texture and a wider blur. So there is no θ at which the two domains agree, as there is none for scans, and the
best θ makes images more varied than the real ones are.

    python benchmarks/horizon.py truth      [--seeds 2]    the real loss after training at fixed values
    python benchmarks/horizon.py signal     [--draws 6]    mean and spread of h for horizons and means of iterates
    python benchmarks/horizon.py learn      [--seeds 2]    where learning goes, from two starts

``--activation relu`` has the package's own U-Net; the default replaces ReLU by SiLU and max-pooling by the mean, for
which the derivative of a training is that of its finite differences (of ReLUs it lacks what changes sides).
``--norm none`` is a U-Net without normalisation, as the paper's.
"""

import argparse
import copy
import statistics
from collections.abc import Callable, Sequence
from itertools import product

import torch
from common.horizon_problem import COOLDOWN, HIGH, LOW, NAMES, WARMUP, Problem
from torch import Tensor

from metasynth.bilevel import BilevelSolver, Unrolled
from metasynth.running.device import keep_freed_memory


def truth(make: Callable[[int], Problem], options: argparse.Namespace) -> None:
    """Loss and Dice of test images after training at fixed values, one of which changes at a time."""
    rows = [LOW, HIGH, *((s, 0.07, 0.05) for s in (0.025, 0.05, 0.1, 0.2))]
    rows += [*((0.1, t, 0.05) for t in (0.035, 0.14)), *((0.1, 0.07, g) for g in (0.025, 0.1))]
    print("spread | texture | sigma | loss of test images | Dice")
    for row in rows:
        theta = torch.tensor(row).log()
        found = [_scored(make(seed), theta, options.steps) for seed in range(options.seeds)]
        losses, dice = zip(*found, strict=True)
        texts = (" ".join(f"{value:.3f}" for value in values) for values in (losses, dice))
        print(*(f"{value:g}" for value in row), *texts, sep=" | ", flush=True)


def _scored(problem: Problem, theta: Tensor, steps: int) -> tuple[float, float]:
    return problem.scores(problem.trained(theta, steps, COOLDOWN)[0])


def signal(make: Callable[[int], Problem], options: argparse.Namespace) -> None:
    """Mean ± standard error (mean / spread) of h over windows of a training at a fixed θ."""
    variants = [(k, n) for k in (1, 5, 20, 80) for n in (1, k // 2) if n]
    for name, start in (("low", LOW), ("high", HIGH)):
        problem, theta = make(0), torch.tensor(start).log().requires_grad_()
        fixed = theta.detach().clone()
        model, optimizer = problem.trained(fixed, WARMUP, 0.0)
        print(f"from {name}: horizon, mean of | {' | '.join(NAMES)}")
        for k, n in dict.fromkeys(variants):
            its_model, its_optimizer = copy.deepcopy((model, optimizer))
            solver = BilevelSolver(
                problem.problem,
                its_model,
                its_optimizer,
                theta,
                torch.optim.SGD([theta], lr=1.0),  # whose step is -h
                Unrolled(k, remat=True, mean_of=n),
            )
            draws = []
            for draw in range(options.draws):
                for step in range(max(0, 40 - k)):  # so that draws of a short horizon are of different segmenters too
                    solver.inner_step(problem.batch(WARMUP + 200 * draw + step, 1))
                window = [problem.batch(WARMUP + 200 * draw + 40 + step, 1) for step in range(k)]
                solver.step(window, problem.real)
                draws.append((fixed - theta.detach()).tolist())
                theta.data.copy_(fixed)
            told = [_told(values) for values in zip(*draws, strict=True)]
            print(f"{k}, {n}", *told, sep=" | ", flush=True)


def _told(values: Sequence[float]) -> str:
    mean, spread = statistics.mean(values), statistics.stdev(values)
    return f"{mean:+.4f} ± {spread / len(values) ** 0.5:.4f} ({mean / spread:+.1f})"


def learn(make: Callable[[int], Problem], options: argparse.Namespace) -> None:
    """θ after each window, and loss and Dice of test images at the mean of the iterates."""
    for seed, (name, start) in product(range(options.seeds), (("low", LOW), ("high", HIGH))):
        problem = make(seed)
        theta = torch.tensor(start).log().requires_grad_()
        model, optimizer = problem.trained(theta.detach(), WARMUP, 0.0)
        strategy = Unrolled(options.horizon, remat=True, mean_of=options.mean_of)
        outer = torch.optim.Adam([theta], lr=options.rate, betas=(0.6, 0.9))
        solver = BilevelSolver(problem.problem, model, optimizer, theta, outer, strategy)
        print(f"seed {seed}, from {name}", flush=True)
        for index in range(options.windows):
            first = WARMUP + options.every * index
            for step in range(options.every - options.horizon):
                solver.inner_step(problem.batch(first + step))
            report = solver.step(
                [problem.batch(first + options.every - k) for k in range(options.horizon, 0, -1)], problem.real
            )
            values = ", ".join(f"{name} {value:.3f}" for name, value in zip(NAMES, theta.exp().tolist(), strict=True))
            loss, dice = problem.scores(model)
            print(
                f"{first + options.every}: outer loss {report.outer_loss:.3f}; {values}; test {loss:.3f} {dice:.3f}",
                flush=True,
            )


PARTS = {"truth": truth, "signal": signal, "learn": learn}


def main() -> None:
    """Print the rows of a part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--activation", choices=("silu", "relu"), default="silu")
    parser.add_argument("--norm", choices=("instance", "none"), default="instance")
    parser.add_argument("--seeds", type=int, default=2, help="of truth and learn: 0, 1, ...")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--draws", type=int, default=6)
    parser.add_argument("--horizon", type=int, default=80)
    parser.add_argument("--mean-of", type=int, default=40)
    parser.add_argument("--every", type=int, default=80)
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("--rate", type=float, default=0.2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    keep_freed_memory()
    norm = None if options.norm == "none" else options.norm
    PARTS[options.part](lambda seed: Problem(options.activation, norm, seed), options)


if __name__ == "__main__":
    main()
