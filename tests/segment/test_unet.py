import copy
import pickle

import higher
import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

from metasynth.segment.losses import soft_dice_loss
from metasynth.segment.unet import Norm, UNet


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("norm", [None, "batch", "instance"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_logits_have_the_size_of_the_images(ndim: int, norm: Norm | None) -> None:
    size = (16, 24, 8)[:ndim]
    model = UNet(5, ndim=ndim, in_channels=2, widths=(3, 4, 5, 6), norm=norm, generator=seeded(0))
    assert model(torch.rand(2, 2, *size)).shape == (2, 5, *size)


def test_the_papers_layers() -> None:
    model = UNet(5)
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert [c.kernel_size for c in convs] == [(3, 3)] * 14 + [(1, 1)]
    assert [c.out_channels for c in convs] == [16, 16, 32, 32, 64, 64, 128, 128, 64, 64, 32, 32, 16, 16, 5]
    ups = [m for m in model.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert [(u.in_channels, u.out_channels, u.stride) for u in ups] == [
        (128, 64, (2, 2)),
        (64, 32, (2, 2)),
        (32, 16, (2, 2)),
    ]
    assert sum(p.numel() for p in model.parameters()) == 481_813


def test_every_parameter_and_skip_is_used() -> None:
    model = UNet(3, widths=(4, 4, 4), generator=seeded(0)).double()
    logits = model(torch.rand(2, 1, 8, 8, dtype=torch.float64, generator=seeded(1)))
    gradients = torch.autograd.grad(logits.square().sum(), list(model.parameters()))
    assert all(g.abs().max() > 0 for g in gradients)


def test_fine_detail_passes_through_the_first_skip() -> None:
    model = UNet(2, widths=(4, 4), generator=seeded(0))
    with torch.no_grad():
        for up in model.up:
            up.weight.zero_()
    images = torch.rand(1, 1, 4, 4, generator=seeded(1))
    assert model(images).std() > 0


@pytest.mark.parametrize("levels", [1, 2, 4])
def test_number_of_levels(levels: int) -> None:
    model = UNet(2, widths=(2,) * levels)
    assert model(torch.rand(1, 1, 8, 8)).shape == (1, 2, 8, 8)


def test_initial_features_neither_vanish_nor_explode() -> None:
    model = UNet(5, widths=(32, 32, 32, 32), generator=seeded(0))
    logits = model(torch.randn(2, 1, 64, 64, generator=seeded(1)))
    assert 0.2 < logits.std().item() < 5.0


def test_initial_weights_have_the_variance_of_he() -> None:
    model = UNet(5, generator=seeded(0))
    conv, up = model.encoder[3].convs[1], model.up[0]
    assert conv.weight.var().item() == pytest.approx(2 / (128 * 9), rel=0.02)
    assert up.weight.var().item() == pytest.approx(1 / 128, rel=0.05)
    assert all(not bias.any() for name, bias in model.named_parameters() if name.endswith("bias"))


def test_weights_follow_the_generator_and_leave_the_global_stream_alone() -> None:
    before = torch.get_rng_state()
    one, same, other = (
        UNet(3, generator=seeded(0)),
        UNet(3, generator=seeded(0)),
        UNet(3, generator=seeded(1)),
    )
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.head.weight, other.head.weight)


def test_without_a_generator_weights_follow_the_global_seed() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        one, other = UNet(3), UNet(3)
        torch.manual_seed(5)
        assert torch.equal(one.head.weight, UNet(3).head.weight)
    assert not torch.equal(one.head.weight, other.head.weight)


@pytest.mark.parametrize("norm", [None, "batch", "instance"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_twice_differentiable_in_images_and_weights(ndim: int, norm: Norm | None) -> None:
    model = UNet(2, ndim=ndim, widths=(2, 2), norm=norm, generator=seeded(0)).double()
    images = torch.rand(2, 1, *[4] * ndim, dtype=torch.float64, generator=seeded(1), requires_grad=True)
    weight = model.encoder[0].convs[0].weight.detach().clone().requires_grad_()

    def logits(images: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        # A slice of the output, to keep the numerical Jacobian small.
        given = {"encoder.0.convs.0.weight": weight}
        return torch.func.functional_call(model, given, (images,))[:, 0].flatten()[:4]

    assert gradcheck(logits, (images, weight))
    assert gradgradcheck(logits, (images, weight))


def test_unrolls_through_higher_as_by_hand() -> None:
    model = UNet(2, widths=(3, 4), generator=seeded(0)).double()
    images = torch.rand(2, 1, 4, 4, dtype=torch.float64, generator=seeded(1))
    labels = torch.randint(0, 2, (2, 4, 4), generator=seeded(2))
    draws = torch.randn(images.shape, dtype=torch.float64, generator=seeded(3))
    rate = 0.1

    sigma = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.SGD(model.parameters(), lr=rate)
    with higher.innerloop_ctx(model, optimiser, copy_initial_weights=True) as (fast, fast_optimiser):
        fast_optimiser.step(soft_dice_loss(fast(images + sigma * draws), labels))
        unrolled = torch.autograd.grad(soft_dice_loss(fast(images), labels), sigma)[0]

    names, weights = zip(*model.named_parameters(), strict=True)
    gradients = torch.autograd.grad(soft_dice_loss(model(images + sigma * draws), labels), weights, create_graph=True)
    stepped = {n: w - rate * g for n, w, g in zip(names, weights, gradients, strict=True)}
    loss = soft_dice_loss(torch.func.functional_call(model, stepped, (images,)), labels)
    by_hand = torch.autograd.grad(loss, sigma)[0]
    assert unrolled.item() != 0
    assert unrolled.item() == pytest.approx(by_hand.item(), rel=1e-12)


def test_can_be_copied_and_pickled() -> None:
    model = UNet(2, widths=(2, 2), generator=seeded(0))
    images = torch.rand(1, 1, 4, 4)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(images), model(images))


def test_size_that_cannot_be_halved_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"multiple of 8 \(this U-Net halves 3 times\), got \(64, 60\)$"):
        UNet(2)(torch.zeros(1, 1, 64, 60))


@pytest.mark.parametrize("shape", [(1, 2, 8, 8), (1, 8, 8), (1, 1, 8, 8, 8)])
def test_images_of_another_shape_are_rejected(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^images: must have shape \(B, 1, \*S\) with 2 voxel axes, got"):
        UNet(2)(torch.zeros(shape))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("n_classes", {"n_classes": 1}),
        ("ndim", {"n_classes": 2, "ndim": 1}),
        ("in_channels", {"n_classes": 2, "in_channels": 0}),
        ("widths", {"n_classes": 2, "widths": ()}),
        ("widths", {"n_classes": 2, "widths": (4, 0)}),
        ("norm", {"n_classes": 2, "norm": "layer"}),
    ],
)
def test_arguments_out_of_range_are_rejected_by_name(name: str, arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"^{name}: must be .*, got"):
        UNet(**arguments)


def test_instance_normalisation_is_per_image_and_channel() -> None:
    model = UNet(3, widths=(4,), norm="instance", generator=seeded(0)).double()
    level = model.encoder[0]
    seen = []
    level.norms[0].register_forward_hook(lambda _, inputs, output: seen.append((*inputs, output)))
    images = torch.randn(2, 1, 6, 6, generator=seeded(1), dtype=torch.float64)
    together = model(images)
    before, after = seen[0]
    assert torch.allclose(after, torch.nn.functional.instance_norm(before), atol=1e-12)
    assert torch.allclose(together[:1], model(images[:1]), atol=1e-12)
