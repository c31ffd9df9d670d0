"""A long training holds no more memory at its end than at its beginning."""

import subprocess
import sys
from pathlib import Path

import pytest

STATM = Path("/proc/self/statm")

PROGRAM = """
import gc, resource, sys
from pathlib import Path
import torch
from torch import nn
from metasynth.bilevel.finite_difference import FiniteDifference
from metasynth.bilevel.forward import Forward
from metasynth.bilevel.mixed import Mixed
from metasynth.bilevel.implicit import Implicit
from metasynth.bilevel.linear_solve import ConjugateGradient
from metasynth.bilevel.outer_step import OuterStep
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.solver import BilevelSolver
from metasynth.bilevel.unrolled import Unrolled

torch.set_num_threads(1)
torch.manual_seed(0)
gc.disable()  # what a cycle holds must not be hidden by the collector
model = nn.Sequential(
    nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 1, 3, padding=1)
)
sigma = torch.tensor(0.1, requires_grad=True)
problem = BilevelProblem(
    lambda m, o, b: (m(b[0] + o * b[1]) - b[0]).square().mean(), lambda m, o, b: (m(b[0]) - b[0]).square().mean()
)
strategy = {
    "mixed": Mixed(),
    "unrolled-2": Unrolled(2),
    "truncated": Unrolled(3, last=1),
    "forward": Forward(),
    "finite-difference": FiniteDifference(),
    "implicit": Implicit(ConjugateGradient(3, damping=1.0)),
}[sys.argv[1]]
solver = BilevelSolver(
    problem,
    model,
    torch.optim.Adam(model.parameters(), lr=1e-3),
    sigma,
    torch.optim.SGD([sigma], lr=1e-3),
    strategy,
    OuterStep(average=2, clip=3.0, memory=0.5),
)
batches = [(torch.randn(4, 1, 16, 16), torch.randn(4, 1, 16, 16)) for _ in range(5)]


def resident_and_tensors():
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return resident, sum(isinstance(x, torch.Tensor) for x in gc.get_objects())


for step in range(1, 1001):
    inner = [batches[(step + k) % 5] for k in range(strategy.inner_steps)]
    solver.step(inner, batches[(step + 3) % 5], batches[(step + 4) % 5])
    if step in (100, 1000):
        print(*resident_and_tensors())
"""


@pytest.mark.skipif(not STATM.exists(), reason="resident memory is read from /proc/self/statm")
@pytest.mark.parametrize(
    "strategy",
    [
        "mixed",
        "unrolled-2",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("truncated", "forward", "finite-difference", "implicit")
        ),
    ],
)
def test_resident_memory_is_flat(strategy: str) -> None:
    """Within 2 % between steps 100 and 1,000, and not one tensor more, without the garbage collector's help."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, strategy], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (early, early_tensors), (late, late_tensors) = (map(int, line.split()) for line in done.stdout.splitlines())
    assert late_tensors == early_tensors
    assert late <= 1.02 * early
