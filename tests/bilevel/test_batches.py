"""The solver asks for as many inner batches as its strategy takes steps, before it does anything else."""

import pytest
import torch
from bilevel.segmentation import PROBLEM, batch
from torch import nn

from metasynth.augment.noise import GaussianNoise
from metasynth.bilevel.solver import BilevelSolver
from metasynth.bilevel.strategies.unrolled import Unrolled


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_wrong_number_of_inner_batches_is_refused(count: int) -> None:
    model, outer = nn.Conv2d(1, 3, 1).double(), GaussianNoise(0.2).double()
    optimizer, outer_optimizer = (
        torch.optim.SGD(model.parameters(), lr=0.1),
        torch.optim.SGD(outer.parameters(), lr=0.1),
    )
    solver = BilevelSolver(PROBLEM, model, optimizer, outer, outer_optimizer, Unrolled(2))
    before = model.weight.detach().clone()
    with pytest.raises(ValueError, match=rf"inner_batches must hold 2 batches for Unrolled\(.*\), got {count}"):
        solver.step([batch(k) for k in range(count)], batch(7))
    assert torch.equal(model.weight, before)
    assert solver.inner_steps == 0
