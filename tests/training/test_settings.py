import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metasynth.augment.compose import nonparametric
from metasynth.augment.noise import GaussianNoise
from metasynth.augment.residual import residual_unet
from metasynth.bilevel.outer_step import PERSISTENT, OuterStep
from metasynth.bilevel.strategies.finite_difference import FiniteDifference
from metasynth.bilevel.strategies.forward import Forward
from metasynth.bilevel.strategies.mixed import Mixed
from metasynth.bilevel.strategies.parts import InParts
from metasynth.running.settings.config import from_dict, to_dict
from metasynth.segment.losses import logit_mse_loss, soft_dice_loss
from metasynth.training.segmenter_settings import SegmenterSettings
from metasynth.training.settings import OuterSettings


def test_a_hypergradient_is_due_after_the_warmup_at_every_nth_step():
    outer = OuterSettings(warmup=5, every=3)
    assert [step for step in range(15) if outer.is_due(step)] == [5, 8, 11, 14]
    assert [step for step in range(4) if OuterSettings(warmup=0, every=1).is_due(step)] == [0, 1, 2, 3]


def test_the_defaults_are_what_is_said_of_them():
    """Those of the core, but for how often."""
    defaults = OuterSettings()
    assert replace(defaults.step_options(), every=PERSISTENT.every) == PERSISTENT
    assert (defaults.every, PERSISTENT.every) == (3, 2)


@given(warmup=st.integers(0, 30), every=st.integers(1, 7), average=st.integers(1, 5), steps=st.integers(1, 60))
def test_outer_steps_are_whole_averages(warmup, every, average, steps):
    due = len(range(warmup, steps, every))
    assert OuterSettings(warmup=warmup, every=every, average=average).outer_steps(steps) == due // average


def test_the_rate_of_the_segmenter_falls_to_nothing_at_the_end():
    settings = SegmenterSettings(steps=100, cooldown=0.2)
    assert {settings.rate_at(step) for step in range(81)} == {1.0}
    assert [settings.rate_at(step) for step in (85, 90, 99)] == pytest.approx([0.75, 0.5, 0.05])
    assert {SegmenterSettings(steps=100).rate_at(step) for step in range(100)} == {1.0}


def test_the_rate_is_held_and_then_falls_as_one_over_t():
    outer = OuterSettings(warmup=100, every=2, hold=50, settle=25)
    assert [outer.rate_at(step) for step in (0, 100, 150, 200)] == [1.0] * 4  # 50 outer steps of 2 inner ones
    assert outer.rate_at(250) == pytest.approx(1 / 2)
    assert outer.rate_at(350) == pytest.approx(1 / 4)
    assert OuterSettings(warmup=100, every=2, average=5, hold=10, settle=5).rate_at(250) == pytest.approx(1 / 2)
    assert {OuterSettings(settle=0).rate_at(step) for step in range(0, 9000, 1000)} == {1.0}


@given(
    hold=st.integers(0, 60),
    settle=st.integers(1, 60),
    warmup=st.integers(0, 50),
    every=st.integers(1, 4),
    steps=st.integers(51, 300),
)
def test_the_rate_never_rises_and_its_sum_has_no_bound(hold, settle, warmup, every, steps):
    outer = OuterSettings(warmup=warmup, every=every, hold=hold, settle=settle)
    rates = [outer.rate_at(step) for step in range(warmup, steps, every)]
    assert rates[0] == 1.0
    assert all(a >= b for a, b in pairwise(rates))
    # Robbins and Monro's conditions hold: it falls as 1 / t, neither faster nor slower.
    assert all(rate * (settle + max(0, t - hold)) == pytest.approx(settle) for t, rate in enumerate(rates))


def test_the_outer_step_and_optimiser_take_the_settings():
    outer = OuterSettings(lr=0.2, betas=(0.5, 0.75), average=3, clip=2.0, memory=0.25)
    assert outer.step_options() == OuterStep(average=3, clip=2.0, memory=0.25, warmup=outer.warmup, every=outer.every)
    assert OuterSettings(clip=0.0).step_options().clip is None
    (group,) = outer.optimizer(GaussianNoise(0.1)).param_groups
    assert (group["lr"], group["betas"]) == (0.2, (0.5, 0.75))


def test_the_weights_of_an_augmenting_network_have_a_rate_of_their_own():
    augmenter = nonparametric(residual_unet(widths=(2, 4)), 0.1)
    numbers, weights = OuterSettings(lr=0.2, network_lr=0.01).optimizer(augmenter).param_groups
    assert (numbers["lr"], weights["lr"]) == (0.2, 0.01)
    assert [p.ndim for p in numbers["params"]] == [0]
    assert len(weights["params"]) == len(list(augmenter.parameters())) - 1


def test_the_segmenter_is_the_paper_network_from_its_own_generator():
    settings = SegmenterSettings(widths=(2, 4, 8), norm="none")
    state = torch.get_rng_state()
    one, same, other = (settings.build(3, 2, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert one(torch.zeros(2, 1, 8, 8)).shape == (2, 3, 8, 8)
    assert settings.build(3, 3, torch.Generator())(torch.zeros(1, 1, 4, 4, 4)).shape == (1, 3, 4, 4, 4)
    weights = [list(net.parameters()) for net in (one, same, other)]
    assert all(torch.equal(a, b) for a, b in zip(weights[0], weights[1], strict=True))
    assert not torch.equal(weights[0][0], weights[2][0])
    assert not any("norm" in type(module).__name__.lower() for module in one.modules())
    with_norm = SegmenterSettings(widths=(2, 4)).build(3, 2, torch.Generator())
    assert any(isinstance(module, torch.nn.GroupNorm) for module in with_norm.modules())
    assert isinstance(settings.optimizer(one), torch.optim.Adam)
    assert settings.optimizer(one).param_groups[0]["lr"] == settings.lr


def test_the_losses_by_name():
    logits = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(3, (2, 4, 4), generator=torch.Generator().manual_seed(1))
    losses = {
        name: SegmenterSettings(loss=name).loss_of(logits, labels) for name in ("dice", "squared_dice", "logit_mse")
    }
    assert losses["dice"] == soft_dice_loss(logits, labels)
    assert losses["squared_dice"] == soft_dice_loss(logits, labels, squared=True)
    assert losses["logit_mse"] == logit_mse_loss(logits, labels)
    assert len({loss.item() for loss in losses.values()}) == 3


@pytest.mark.parametrize(
    ("settings", "values", "message"),
    [
        (SegmenterSettings, {"batch_size": 0}, "batch_size must be at least 1, got 0"),
        (SegmenterSettings, {"steps": 0}, "steps must be at least 1, got 0"),
        (SegmenterSettings, {"widths": ()}, "levels must be at least 1, got 0"),
        (SegmenterSettings, {"widths": (8, 0)}, "widths must be at least 1, got 0"),
        (SegmenterSettings, {"lr": 0.0}, "lr must be positive, got 0.0"),
        (SegmenterSettings, {"lr": math.nan}, "lr must be positive, got nan"),
        (OuterSettings, {"lr": -1.0}, "lr must be positive, got -1.0"),
        (OuterSettings, {"batch_size": 0}, "batch_size must be at least 1, got 0"),
        (OuterSettings, {"every": 0}, "every must be at least 1, got 0"),
        (OuterSettings, {"warmup": -1}, "warmup must be at least 0, got -1"),
        (OuterSettings, {"betas": (0.9, 1.0)}, r"betas must be in \[0, 1\), got \(0.9, 1.0\)"),
        (OuterSettings, {"settle": -1}, "settle must be at least 0, got -1"),
        (SegmenterSettings, {"cooldown": 1.5}, r"cooldown must be in \[0, 1\], got 1.5"),
        (OuterSettings, {"hold": -1}, "hold must be at least 0, got -1"),
        (OuterSettings, {"memory": 1.0}, r"memory must be in \[0, 1\), got 1.0"),
        (OuterSettings, {"clip": 0.5}, "clip must be above 1"),
        (OuterSettings, {"average": 0}, "average must be an integer of at least 1, got 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, values, message):
    with pytest.raises(ValueError, match=message):
        settings(**values)


@pytest.mark.parametrize("settings", [SegmenterSettings(widths=(4, 8), norm="batch"), OuterSettings(clip=0.0)])
def test_settings_come_back_from_json(settings):
    assert from_dict(type(settings), to_dict(settings)) == settings


def test_the_strategy_is_taken_in_parts_where_asked_for():
    assert OuterSettings().hypergradient_strategy() == Mixed()
    assert OuterSettings(strategy="finite_difference").hypergradient_strategy() == FiniteDifference()
    parts = OuterSettings(strategy="forward", samples=3, chunk=2).hypergradient_strategy()
    assert parts == InParts(Forward(), samples=3, chunk=2)
    assert OuterSettings(samples=3).hypergradient_strategy() == InParts(Mixed(), samples=3)


def test_segmenters_are_channels_last_unless_told_otherwise():
    generator = torch.Generator().manual_seed(0)
    for ndim, form in ((2, torch.channels_last), (3, torch.channels_last_3d)):
        models = [
            SegmenterSettings(widths=(4, 8), channels_last=last).build(3, ndim, generator.manual_seed(0))
            for last in (True, False)
        ]
        weights = [model.encoder[1].convs[0].weight for model in models]
        assert weights[0].is_contiguous(memory_format=form)
        assert weights[1].is_contiguous()
        assert torch.equal(*weights)


def test_dice_over_images_is_a_mean_over_samples():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, 8, 8, generator=generator)
    labels = torch.randint(3, (4, 8, 8), generator=generator)
    for over, equal in (("image", True), ("batch", False)):
        settings = SegmenterSettings(dice_over=over)
        each = torch.stack([settings.loss_of(logits[k : k + 1], labels[k : k + 1]) for k in range(4)])
        assert torch.isclose(settings.loss_of(logits, labels), each.mean(), rtol=1e-6) == equal


def test_autocast_has_a_type():
    assert SegmenterSettings().autocast_dtype is None
    assert SegmenterSettings(autocast="bfloat16").autocast_dtype is torch.bfloat16
