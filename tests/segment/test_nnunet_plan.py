"""nnU-Net's rules: plans it is known to make, and what holds for all shapes and spacings."""

from itertools import permutations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from metasynth.errors import ShapeError, UsageError
from metasynth.segment.nnunet_plan import NnunetPlan, plan_nnunet


@st.composite
def images(draw: st.DrawFn) -> tuple[list[int], list[float]]:
    ndim = draw(st.integers(2, 3))
    shape = draw(st.lists(st.integers(4, 200), min_size=ndim, max_size=ndim))
    spacing = draw(st.lists(st.sampled_from([0.4, 0.7, 1.0, 1.3, 2.1, 3.0, 5.0]), min_size=ndim, max_size=ndim))
    return shape, spacing


def plan_or_none(shape: list[int], spacing: list[float]) -> NnunetPlan | None:
    try:
        return plan_nnunet(shape, spacing)
    except ShapeError:
        return None


def test_a_slice_of_like_spacing_is_halved_five_times() -> None:
    plan = plan_nnunet((192, 192), (1.0, 1.0))
    assert plan.features == (32, 64, 128, 256, 512, 512)
    assert plan.strides == ((1, 1), *[(2, 2)] * 5)
    assert set(plan.kernel_sizes) == {(3, 3)}
    assert plan.divisors == (32, 32)


def test_volumes_of_the_medical_segmentation_decathlon() -> None:
    """Isensee et al. 2021: brain tumours (128 voxels of 1 mm along each axis), prostate (thick slices)."""
    brain = plan_nnunet((128, 128, 128), (1.0, 1.0, 1.0))
    assert brain.features == (32, 64, 128, 256, 320, 320)
    assert brain.strides == ((1, 1, 1), *[(2, 2, 2)] * 5)
    prostate = plan_nnunet((20, 320, 256), (3.6, 0.62, 0.62))
    assert prostate.divisors == (4, 64, 64)
    assert prostate.strides[1:] == (*[(1, 2, 2)] * 2, *[(2, 2, 2)] * 2, *[(1, 2, 2)] * 2)
    assert prostate.kernel_sizes == (*[(1, 3, 3)] * 2, *[(3, 3, 3)] * 5)


def test_an_axis_alone_is_halved_only_while_it_is_long() -> None:
    assert plan_nnunet((12, 4), (1.0, 1.0)).divisors == (2, 1)
    assert plan_or_none([8, 4], [1.0, 1.0]) is None
    assert plan_nnunet((8, 8), (1.0, 1.9)).divisors == (2, 2)
    assert plan_or_none([8, 8], [1.0, 2.0]) is None  # the second axis waits, the first is alone


@given(images())
def test_the_order_of_axes_and_the_unit_do_not_matter(of: tuple[list[int], list[float]]) -> None:
    shape, spacing = of
    plan = plan_or_none(shape, spacing)
    assert plan == plan_or_none(shape, [8 * s for s in spacing])
    for order in permutations(range(len(shape))):
        turned = plan_or_none([shape[k] for k in order], [spacing[k] for k in order])
        assert (turned is None) == (plan is None)
        if plan is not None and turned is not None:
            assert turned.divisors == tuple(plan.divisors[k] for k in order)
            assert turned.kernel_sizes == tuple(tuple(kernel[k] for k in order) for kernel in plan.kernel_sizes)


@given(images())
def test_what_holds_for_every_plan(of: tuple[list[int], list[float]]) -> None:
    shape, spacing = of
    plan = plan_or_none(shape, spacing)
    assume(plan is not None)
    assert plan is not None
    for axis, (n, divisor) in enumerate(zip(shape, plan.divisors, strict=True)):
        assert divisor == 1 or -(-n // divisor) >= 4
        kernels = [kernel[axis] for kernel in plan.kernel_sizes]
        assert kernels == sorted(kernels)
        assert kernels[-1] == 3
    assert all(2 in stride for stride in plan.strides[1:])
    assert list(plan.features) == [min(plan.features[-1], 32 * 2**k) for k in range(len(plan.features))]
    nearest = [-(-n // d) * d for n, d in zip(shape, plan.divisors, strict=True)]
    plan.check(nearest)
    if nearest != shape:
        with pytest.raises(ShapeError, match=f"such as {' x '.join(map(str, nearest))}$"):
            plan.check(shape)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            ((7, 7), (1.0, 1.0)),
            ShapeError,
            "^images of 7 x 7 are too small for nnU-Net, .* expected 8 voxels",
        ),
        (((16,), (1.0,)), UsageError, r"^shape and spacing_mm: must have 2 or 3 axes, the same of both, got \(16,\)"),
        (((16, 16), (1.0,)), UsageError, "^shape and spacing_mm: must have 2 or 3 axes"),
        (((16, 0), (1.0, 1.0)), UsageError, "^shape and spacing_mm: must be above 0"),
        (((16, 16), (1.0, -1.0)), UsageError, "^shape and spacing_mm: must be above 0"),
        (((16, 16), (1.0, 1.0), False, 0), UsageError, "^base_features and max_features: must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_planned(arguments: tuple, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        plan_nnunet(*arguments)


def test_stages_that_do_not_fit_together() -> None:
    good = plan_nnunet((16, 16), (1.0, 1.0))
    bad = [
        (good.features[1:], good.strides, good.kernel_sizes),
        (good.features, good.strides, ((3, 3, 3), *good.kernel_sizes[1:])),
        (good.features[:1], good.strides[:1], good.kernel_sizes[:1]),
        ((0, *good.features[1:]), good.strides, good.kernel_sizes),
    ]
    for stages in bad:
        with pytest.raises(UsageError, match=r"^features, strides and kernel_sizes: must be "):
            NnunetPlan(*stages)
