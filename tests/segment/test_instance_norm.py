"""Instance normalisation in either layout."""

import pytest
import torch
from torch import nn

from metasynth.segment.instance_norm import InstanceNorm

LAYOUTS = {
    "2d": ((3, 4, 6, 5), torch.contiguous_format),
    "2d, channels last": ((3, 4, 6, 5), torch.channels_last),
    "3d, channels last": ((2, 4, 3, 5, 4), torch.channels_last_3d),
}


@pytest.mark.parametrize(("shape", "layout"), LAYOUTS.values(), ids=LAYOUTS)
def test_it_is_torchs_up_to_the_second_derivative_and_keeps_the_layout(shape, layout):
    generator = torch.Generator().manual_seed(0)
    x, *others = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(3))
    x = x.to(memory_format=layout).requires_grad_()
    norm = InstanceNorm(4).double()
    own = (nn.InstanceNorm2d if x.ndim == 4 else nn.InstanceNorm3d)(4, affine=True).double()
    with torch.no_grad():
        for theirs, ours in zip(own.parameters(), norm.parameters(), strict=True):
            theirs.copy_(ours.uniform_(0.5, 2, generator=generator))
    assert norm(x).is_contiguous(memory_format=layout)
    found = []
    for module in (norm, own):
        y = module(x)
        inputs = (x, *module.parameters())
        first = torch.autograd.grad(y, inputs, others[0], create_graph=True)
        found.append([y, *first, *torch.autograd.grad(first[0], inputs[:2], others[1])])
    for mine, its in zip(*found, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-10, atol=1e-12)
