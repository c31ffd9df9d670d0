import doctest
import math
from functools import partial

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from metasynth.segment import losses
from metasynth.segment.losses import cross_entropy_loss, logit_mse_loss, one_hot, soft_dice_loss, softmax

OPTIONS = [
    {},
    {"include_background": False},
    {"batch": False},
    {"squared": True},
    {"batch": False, "squared": True, "include_background": False, "smooth": 1.0},
]


def example(seed: int = 0, shape: tuple[int, ...] = (2, 3, 4, 3)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, dtype=torch.float64, generator=generator)
    labels = torch.randint(0, shape[1], (shape[0], *shape[2:]), generator=generator)
    return logits, labels


def soft_dice_by_loops(
    logits: torch.Tensor,
    labels: torch.Tensor,
    include_background: bool,
    batch: bool,
    squared: bool,
    smooth: float,
) -> float:
    """The definition, voxel by voxel."""
    groups = [range(len(logits))] if batch else [[b] for b in range(len(logits))]
    terms = []
    for group in groups:
        for k in range(0 if include_background else 1, logits.shape[1]):
            overlap = size = 0.0
            for b in group:
                for scores, label in zip(logits[b].flatten(1).T.tolist(), labels[b].flatten().tolist(), strict=True):
                    p = math.exp(scores[k]) / sum(math.exp(score) for score in scores)
                    y = float(label == k)
                    overlap += p * y
                    size += (p * p if squared else p) + y
            terms.append((2 * overlap + smooth) / (size + smooth))
    return 1 - sum(terms) / len(terms)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("shape", [(2, 3, 4, 3), (2, 2, 2, 3, 2)])
def test_soft_dice_is_its_definition(shape: tuple[int, ...], options: dict) -> None:
    logits, labels = example(shape=shape)
    full = {"include_background": True, "batch": True, "squared": False, "smooth": 1e-5} | options
    expected = soft_dice_by_loops(logits, labels, **full)
    assert soft_dice_loss(logits, labels, **options).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("options", OPTIONS)
def test_soft_dice_is_twice_differentiable(options: dict) -> None:
    logits, labels = example(shape=(2, 3, 2, 2))
    logits.requires_grad_()
    assert gradcheck(lambda x: soft_dice_loss(x, labels, **options), logits)
    assert gradgradcheck(lambda x: soft_dice_loss(x, labels, **options), logits)


def test_logit_mse_is_twice_differentiable() -> None:
    logits, labels = example(shape=(1, 2, 2, 2))
    logits.requires_grad_()
    assert gradcheck(lambda x: logit_mse_loss(x, labels), logits)
    assert gradgradcheck(lambda x: logit_mse_loss(x, labels), logits)


# torch compiles its forward-mode rules with its own deprecated compiler on first use.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("loss", [soft_dice_loss, logit_mse_loss, cross_entropy_loss])
def test_reverse_over_forward_gives_the_hessian_product(loss) -> None:
    logits, labels = example()
    direction = torch.randn(logits.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(9))

    logits.requires_grad_()
    gradient = torch.autograd.grad(loss(logits, labels), logits, create_graph=True)[0]
    expected = torch.autograd.grad((gradient * direction).sum(), logits)[0]
    with forward_ad.dual_level():
        value = loss(forward_ad.make_dual(logits, direction), labels)
        slope = forward_ad.unpack_dual(value).tangent
        product = torch.autograd.grad(slope, logits)[0]
    torch.testing.assert_close(product, expected, rtol=1e-12, atol=1e-14)


@given(seed=st.integers(0, 2**31), batch=st.booleans(), squared=st.booleans(), background=st.booleans())
def test_soft_dice_lies_between_0_and_1(seed: int, batch: bool, squared: bool, background: bool) -> None:
    logits, labels = example(seed)
    loss = soft_dice_loss(10 * logits, labels, batch=batch, squared=squared, include_background=background).item()
    assert 0.0 <= loss <= 1.0


@given(seed=st.integers(0, 2**31), shift=st.floats(-1e4, 1e4))
def test_soft_dice_ignores_a_shift_of_all_logits(seed: int, shift: float) -> None:
    logits, labels = example(seed)
    assert soft_dice_loss(logits + shift, labels).item() == pytest.approx(soft_dice_loss(logits, labels).item())


def test_soft_dice_is_0_for_the_truth_and_nearly_1_for_its_opposite() -> None:
    labels = torch.randint(0, 2, (2, 8, 8), generator=torch.Generator().manual_seed(0))
    logits = 200.0 * one_hot(labels, torch.zeros(2, 2, 8, 8))
    assert soft_dice_loss(logits, labels).item() == pytest.approx(0.0, abs=1e-6)
    assert soft_dice_loss(-logits, labels).item() == pytest.approx(1.0, abs=1e-6)


def test_absent_class_neither_breaks_nor_drives_the_batch_loss() -> None:
    logits, labels = example(shape=(2, 4, 8, 8))
    labels = labels.clamp(max=2)
    logits.requires_grad_()
    loss = soft_dice_loss(logits, labels)
    gradient = torch.autograd.grad(loss, logits)[0]
    present = soft_dice_by_loops(logits.detach(), labels, True, True, False, 1e-5)
    assert loss.item() == pytest.approx(present)
    assert torch.isfinite(gradient).all()


def test_class_absent_from_one_image_only_is_scored_over_the_batch() -> None:
    labels = torch.tensor([[[0, 1]], [[0, 0]]])
    logits = 200.0 * one_hot(labels, torch.zeros(2, 2, 1, 2))
    logits[1, 1] = logits[1, 0] - 4.0  # a trace of class 1 where there is none
    assert soft_dice_loss(logits, labels, batch=True).item() < 0.05
    assert soft_dice_loss(logits, labels, batch=False).item() > 0.2


@pytest.mark.parametrize("scale", [1e3, 1e4])
def test_large_logits_stay_finite_in_float32(scale: float) -> None:
    logits, labels = example()
    logits = (scale * logits).float().requires_grad_()
    loss = soft_dice_loss(logits, labels)
    assert torch.isfinite(loss)
    assert torch.isfinite(torch.autograd.grad(loss, logits)[0]).all()


def test_softmax_is_torchs() -> None:
    logits, _ = example()
    torch.testing.assert_close(softmax(logits), torch.softmax(logits, dim=1), rtol=1e-14, atol=0)


def test_one_hot_marks_each_class_and_ignores_labels_beyond() -> None:
    marks = one_hot(torch.tensor([[[0, 2, 3, -1]]]), torch.zeros(1, 3, 1, 4))
    assert marks[0, :, 0].T.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_cross_entropy_is_torchs(scale: float) -> None:
    logits = scale * torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.randint(4, (3, 5, 6), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(cross_entropy_loss(logits, labels), torch.nn.functional.cross_entropy(logits, labels))


def test_cross_entropy_leaves_out_labels_beyond() -> None:
    logits, labels = torch.zeros(1, 2, 1, 2), torch.tensor([[[1, 7]]])
    assert cross_entropy_loss(logits, labels).item() == pytest.approx(math.log(2) / 2)


def test_cross_entropy_is_twice_differentiable() -> None:
    logits = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.randint(3, (2, 2, 2), generator=torch.Generator().manual_seed(1))
    assert gradcheck(lambda x: cross_entropy_loss(x, labels), logits.requires_grad_())
    assert gradgradcheck(lambda x: cross_entropy_loss(x, labels), logits)


def test_logit_mse_by_hand() -> None:
    logits = torch.tensor([[[[1.0]], [[2.0]]]])
    assert logit_mse_loss(logits, torch.tensor([[[1]]])).item() == (6.0**2 + 3.0**2) / 2
    assert logit_mse_loss(logits, torch.tensor([[[1]]]), target=2.0).item() == (3.0**2 + 0.0**2) / 2


@pytest.mark.parametrize("loss", [soft_dice_loss, logit_mse_loss, cross_entropy_loss])
@pytest.mark.parametrize("shape", [(2, 4, 4, 1), (2, 1, 4, 3), (1, 4, 3)])
def test_labels_of_another_shape_are_rejected(loss, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^labels: must have the shape \(B, \*S\) .*\(2, 3, 4, 3\), got"):
        loss(torch.zeros(2, 3, 4, 3), torch.zeros(shape, dtype=torch.int64))


def test_float_labels_are_rejected() -> None:
    with pytest.raises(ValueError, match=r"^labels: must be of an integer dtype, got torch.float32$"):
        soft_dice_loss(torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2))


LOSSES = {
    **{f"dice {options}": partial(soft_dice_loss, **options) for options in OPTIONS},
    "logits": logit_mse_loss,
    "cross-entropy": cross_entropy_loss,
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("shape", [(2, 3, 8, 6), (2, 3, 4, 4, 6)])
def test_a_loss_and_its_derivatives_are_on_a_device_what_they_are_on_the_cpu(
    name: str, shape: tuple[int, ...], device: str
) -> None:
    """The value, the gradient, and the product of the Hessian with a direction."""

    def computed(where: str) -> list[torch.Tensor]:
        logits, labels = (x.to(where) for x in example(shape=shape))
        direction, _ = example(1, shape)
        loss = LOSSES[name](logits.requires_grad_(), labels)
        (gradient,) = torch.autograd.grad(loss, logits, create_graph=True)
        (product,) = torch.autograd.grad((gradient * direction.to(where)).sum(), logits)
        assert {x.device.type for x in (loss, gradient, product)} == {where}
        return [x.detach().cpu() for x in (loss, gradient, product)]

    for own, expected in zip(computed(device), computed("cpu"), strict=True):
        assert expected.norm() > 0
        torch.testing.assert_close(own, expected, rtol=1e-11, atol=1e-14)


def test_examples_in_the_documentation() -> None:
    result = doctest.testmod(losses)
    assert result.attempted > 0
    assert result.failed == 0
