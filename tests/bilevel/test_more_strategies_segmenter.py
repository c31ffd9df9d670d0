"""The further strategies on a convolutional segmenter: central differences, dead units, normalisation, dropout."""

from collections.abc import Callable
from functools import cache

import pytest
import torch
from bilevel.against_mixed import REPLAYING, TARGET, assert_same, logits_loss, mixed_and, network
from bilevel.segmentation import (
    OPTIMISERS,
    PROBLEM,
    WARM_STEPS,
    along_direction,
    batch,
    central_difference,
    computed,
    segmenter,
    trained,
    with_dead_units,
)
from support.strategies import STRATEGIES
from torch import Tensor, nn

from metasynth.augment.noise import GaussianNoise
from metasynth.bilevel.problem import BilevelProblem, Loss
from metasynth.bilevel.strategies.finite_difference import FiniteDifference
from metasynth.bilevel.strategies.mixed import Mixed


@cache
def case(optimiser: str, dead: bool) -> tuple[nn.Module, torch.optim.Optimizer, nn.Module, float]:
    """A trained model and the truth by central differences."""
    model, outer = with_dead_units() if dead else segmenter(), GaussianNoise(0.2).double()
    inner = trained(model, OPTIMISERS[optimiser], outer, WARM_STEPS)
    one = [torch.tensor(1.0, dtype=torch.float64)]
    return model, inner, outer, central_difference(along_direction(model, inner, outer, [batch(0)], TARGET, one))


@pytest.mark.parametrize("dead", [False, True], ids=["alive", "dead"])
@pytest.mark.parametrize("optimiser", ["sgd", "nesterov", "adam", "adamw", "rmsprop", "rmsprop-centred"])
@pytest.mark.parametrize("strategy", [*REPLAYING, "finite_difference-limited"])
def test_learned_noise(strategy: str, optimiser: str, dead: bool) -> None:
    model, inner, outer, truth = case(optimiser, dead)
    chosen = STRATEGIES[strategy]
    result = computed(model, inner, outer, [batch(0)], TARGET, chosen)
    error = abs(result.gradients["raw_sigma"].item() - truth)
    assert error < 1e-6 * abs(truth)
    if strategy != "forward":
        exact = computed(model, inner, outer, [batch(0)], TARGET, Mixed()).gradients["raw_sigma"].item()
        assert abs(result.gradients["raw_sigma"].item() - exact) <= result.diagnostics["error"]
        assert result.diagnostics["error"] < 1e-4 * abs(truth)


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_excess_can_be_left_out(optimiser: str) -> None:
    model, inner, outer, truth = case(optimiser, False)
    dropped = FiniteDifference(limit=3.0, drop_excess=True)
    h = computed(model, inner, outer, [batch(0)], TARGET, dropped).gradients["raw_sigma"].item()
    assert abs(h - truth) > 1e-3 * abs(truth)


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
