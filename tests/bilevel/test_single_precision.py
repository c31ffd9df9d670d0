"""Float32 on a U-Net trained with Adam: what the strategies give against the exact value in float64."""

import copy
from functools import cache

import pytest
import torch
from bilevel.segmentation import PROBLEM, Batch, seeded
from torch import nn

from metasynth.augment.noise import GaussianNoise
from metasynth.bilevel.hypergradient import Hypergradient, HypergradientStrategy, hypergradient
from metasynth.bilevel.patched.functional import FunctionalModel
from metasynth.bilevel.step_inputs import StepInputs
from metasynth.bilevel.strategies.finite_difference import FiniteDifference
from metasynth.bilevel.strategies.forward import Forward
from metasynth.bilevel.strategies.mixed import Mixed
from metasynth.bilevel.update.inner_update import InnerUpdate
from metasynth.segment.unet import UNet

Trained = tuple[nn.Module, torch.optim.Optimizer, nn.Module]


def blobs(seed: int, noise: float = 0.0) -> Batch:
    """Four classes of nearly constant intensity in 4 images of 24x24, in float32."""
    generator = seeded(seed)
    coarse = torch.randn(4, 1, 4, 4, generator=generator)
    smooth = nn.functional.interpolate(coarse, (24, 24), mode="bicubic")[:, 0]
    labels = (smooth > -0.5).long() + (smooth > 0.3) + (smooth > 1)
    means = torch.tensor([0.0, 0.35, 0.65, 1.0]) + 0.05 * torch.randn(4, 4, generator=generator)
    images = torch.stack([mean[label] for mean, label in zip(means, labels, strict=True)]).unsqueeze(1)
    images = images + noise * torch.randn(images.shape, generator=generator)
    return Batch(images, labels, torch.randn(images.shape, generator=generator))


@cache
def trained() -> tuple[Trained, Trained]:
    """After 200 steps of Adam, in float32; and the same in float64."""
    model, outer = UNet(4, widths=(8, 16), generator=seeded(0)), GaussianNoise(0.2)
    inner = torch.optim.Adam(model.parameters(), lr=5e-3)
    for index in range(200):
        inner.zero_grad()
        PROBLEM.inner_loss(model, outer, blobs(1000 + index)).backward()
        inner.step()
    inner.zero_grad()
    double = copy.deepcopy(model).double()
    its_inner = torch.optim.Adam(double.parameters(), lr=5e-3)
    its_inner.load_state_dict(inner.state_dict())  # which casts the moments
    return (model, inner, outer), (double, its_inner, copy.deepcopy(outer).double())


def widened(given: Batch) -> Batch:
    return Batch(given.images.double(), given.labels, given.draws.double())


def computed(at: Trained, given: Batch, target: Batch, strategy: HypergradientStrategy) -> Hypergradient:
    model, inner, outer = at
    return hypergradient(
        StepInputs(PROBLEM, FunctionalModel(model), InnerUpdate(inner), outer, [given]), target, strategy
    )[0]


def errors(strategy: HypergradientStrategy) -> list[tuple[float, float]]:
    """Relative error and reported error, for six batches."""
    single, double = trained()
    found = []
    for k in range(6):
        given, target = blobs(k), blobs(100 + k, noise=0.1)
        truth = computed(double, widened(given), widened(target), Mixed()).gradients["raw_sigma"].item()
        result = computed(single, given, target, strategy)
        assert result.gradients["raw_sigma"].dtype == torch.float32
        error = abs(result.gradients["raw_sigma"].item() - truth) / abs(truth)
        found.append((error, result.diagnostics.get("error", 0.0) / abs(truth)))
    return found


@pytest.mark.parametrize("strategy", [Mixed(), Forward()], ids=["mixed", "forward"])
def test_exact_strategies(strategy: HypergradientStrategy) -> None:
    assert max(error for error, _ in errors(strategy)) < 1e-3


@pytest.mark.parametrize("limit", [None, 30.0])
def test_finite_differences_are_within_one_percent_and_their_report(limit: float | None) -> None:
    for error, reported in errors(FiniteDifference(estimate_error=True, limit=limit)):
        assert error < 0.01
        assert error <= reported


def test_no_larger_step_is_taken_where_truncation_would_spoil_it() -> None:
    """On this net it does, however much less rounding is asked for."""
    single, _ = trained()
    for k in range(6):
        given, target = blobs(k), blobs(100 + k, noise=0.1)
        fixed = computed(single, given, target, FiniteDifference(tolerance=None))
        assert computed(single, given, target, FiniteDifference(tolerance=1e-6)).diagnostics == fixed.diagnostics


@pytest.mark.parametrize("relative_step", [1e-6, 1e-5, 1e-4])
def test_without_the_kinks_held_no_step_does(relative_step: float) -> None:
    """Units change side between the two passes; what the naive form suffers from, in float64 as well."""
    found = errors(FiniteDifference(relative_step, hold_kinks=False))
    assert max(error for error, _ in found) > 0.01
