"""Layers and losses that passes made twice, or on dual numbers, could get wrong: held against `Mixed`."""

from collections.abc import Callable

import pytest
import torch
from bilevel.against_mixed import REPLAYING, assert_same, logits_loss, mixed_and, network
from bilevel.segmentation import PROBLEM, segmenter
from torch import Tensor, nn

from metasynth.bilevel.problem import BilevelProblem, Loss

LOSSES: dict[str, Loss] = {
    "cross-entropy": logits_loss(nn.functional.cross_entropy),
    "weighted": logits_loss(
        lambda x, y: nn.functional.cross_entropy(
            x, y, weight=torch.tensor([0.2, 0.3, 0.5], dtype=x.dtype), ignore_index=1, reduction="sum"
        )
    ),
    "softmax": logits_loss(lambda x, y: -x.softmax(1).gather(1, y[:, None]).mean()),
    "log-softmax": logits_loss(lambda x, y: -torch.log_softmax(x, dim=1).gather(1, y[:, None]).mean()),
    "logsumexp": logits_loss(lambda x, y: (x.logsumexp(1) - x.gather(1, y[:, None])[:, 0]).mean()),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("strategy", REPLAYING)
def test_losses_that_go_by_softmax(strategy: str, loss: str) -> None:
    problem = BilevelProblem(LOSSES[loss], PROBLEM.outer_loss)
    assert_same(*mixed_and(REPLAYING[strategy], problem, segmenter()))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "batch-norm": lambda: network(nn.BatchNorm2d(4), nn.ReLU()),
    "batch-norm-no-affine": lambda: network(nn.BatchNorm2d(4, affine=False), nn.ReLU(inplace=True)),
    "batch-norm-evaluating": lambda: network(nn.BatchNorm2d(4), nn.ReLU()).eval(),
    "instance-norm": lambda: network(nn.InstanceNorm2d(4, affine=True), nn.LeakyReLU(0.1)),
    "instance-norm-tracking": lambda: network(nn.InstanceNorm2d(4, track_running_stats=True), nn.ReLU6()),
    "group-norm": lambda: network(nn.GroupNorm(2, 4), nn.ELU()),
    "silu": lambda: network(nn.SiLU(), nn.Conv2d(4, 4, 1), nn.Softmax2d(), nn.BatchNorm2d(4)),
    "layer-norm": lambda: network(nn.LayerNorm([4, 6, 6]), nn.GELU()),
    "dropout": lambda: network(nn.ReLU(), nn.Dropout2d(0.5)),
    "dropout-in-place": lambda: network(nn.LeakyReLU(0.2, inplace=True), nn.Dropout(0.5)),
    "pooled": lambda: network(nn.MaxPool2d(2), nn.Upsample(scale_factor=2)),
    "pooled-overlapping": lambda: network(nn.MaxPool2d(3, stride=1, padding=1), nn.Tanh()),
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("strategy", REPLAYING)
def test_layers(strategy: str, model: str) -> None:
    """Also those whose forward-mode rule in torch, differentiated, is wrong without a word: the normalisations."""
    assert_same(*mixed_and(REPLAYING[strategy], PROBLEM, MODELS[model]()))


def test_torch_is_still_wrong_about_instance_norm() -> None:
    """Why `elementary` exists: when this fails, torch has been mended and the replacement can go."""
    x = torch.randn(2, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    scale = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    direction = torch.ones_like(x).cumsum(-1)

    def loss(shift: Tensor) -> Tensor:
        return nn.functional.instance_norm(x * (1 + scale * x) + shift).pow(3).sum()

    shift = torch.zeros_like(x, requires_grad=True)
    (g,) = torch.autograd.grad(loss(shift), shift, create_graph=True)
    (right,) = torch.autograd.grad(g, scale, grad_outputs=direction)
    forward_ad = torch.autograd.forward_ad
    with forward_ad.dual_level():
        slope = forward_ad.unpack_dual(loss(forward_ad.make_dual(shift.detach(), direction))).tangent
        (wrong,) = torch.autograd.grad(slope, scale)
    assert abs(wrong - right) > 1e-3 * abs(right)
