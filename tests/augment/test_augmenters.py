"""What every augmenter has to do, in two and three dimensions."""

import copy
import pickle
from typing import Any

import pytest
import torch
from augment.augmenters import AUGMENTERS, given_to, seeded
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call
from torch.utils._pytree import tree_leaves, tree_map

from metasynth.augment.augmenter import Augmenter
from metasynth.bilevel.batches import batch_size, take_samples

pytestmark = [pytest.mark.parametrize("ndim", [2, 3]), pytest.mark.parametrize("name", AUGMENTERS)]


def images_of(ndim: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.rand(3, 1, *(4, 6, 2)[:ndim], dtype=dtype, generator=seeded(seed))


def equal(one: Any, other: Any) -> bool:
    pairs = zip(tree_leaves(one), tree_leaves(other), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def applied(augmenter: Augmenter[Any], images: Tensor, draws: Any) -> Tensor:
    made: Tensor = augmenter(given_to(augmenter, images), draws)
    return made


def move(augmenter: Augmenter[Any]) -> None:
    with torch.no_grad():
        for parameter in augmenter.parameters():
            parameter.add_(0.3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_images_keep_shape_and_type(name: str, ndim: int, dtype: torch.dtype) -> None:
    augmenter, images = AUGMENTERS[name](ndim).to(dtype), images_of(ndim, dtype)
    draws = augmenter.draw(images, seeded(1))
    augmented = applied(augmenter, images, draws)
    assert augmented.shape == images.shape
    assert {x.dtype for x in (augmented, *tree_leaves(draws))} == {dtype}
    assert not torch.equal(augmented, images)


def test_draws_follow_the_generator_alone(name: str, ndim: int) -> None:
    augmenter, images = AUGMENTERS[name](ndim), images_of(ndim)
    before = torch.get_rng_state()
    draws = augmenter.draw(images, seeded(1))
    assert not equal(draws, augmenter.draw(images, seeded(2)))
    move(augmenter)
    assert equal(draws, augmenter.draw(images_of(ndim, seed=5), seeded(1)))
    assert torch.equal(before, torch.get_rng_state())


def test_draws_have_no_graph_and_the_batch_as_first_axis(name: str, ndim: int) -> None:
    images = images_of(ndim)
    draws = AUGMENTERS[name](ndim).draw(images, seeded(1))
    assert batch_size(draws) == len(images)
    assert not any(x.requires_grad for x in tree_leaves(draws))


def test_equal_draws_give_equal_images(name: str, ndim: int) -> None:
    augmenter, images = AUGMENTERS[name](ndim), images_of(ndim)
    draws = augmenter.draw(images, seeded(1))
    kept, before = copy.deepcopy((images, draws)), torch.get_rng_state()
    assert torch.equal(applied(augmenter, images, draws), applied(augmenter, images, draws))
    assert equal((images, draws), kept), "worked in place"
    assert torch.equal(before, torch.get_rng_state())


def test_on_a_device_images_and_gradients_are_those_of_the_cpu(name: str, ndim: int, device: str) -> None:
    """From the same draws, which a generator of the CPU gives to both."""

    def computed(where: str) -> list[Tensor]:
        augmenter, images = AUGMENTERS[name](ndim).double().to(where), images_of(ndim, torch.float64).to(where)
        made = applied(augmenter, images, augmenter.draw(images, seeded(1)))
        found = [made, *torch.autograd.grad(made.square().sum(), list(augmenter.parameters()))]
        assert {x.device.type for x in found} == {where}
        return [x.detach().cpu() for x in found]

    for own, expected in zip(computed(device), computed("cpu"), strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-9, atol=1e-11)


def test_every_image_has_draws_of_its_own(name: str, ndim: int) -> None:
    augmenter = AUGMENTERS[name](ndim)
    images = images_of(ndim)[:1].repeat(3, *[1] * (ndim + 1))
    augmented = applied(augmenter, images, augmenter.draw(images, seeded(1)))
    assert not any(torch.equal(augmented[a], augmented[b]) for a, b in ((0, 1), (0, 2), (1, 2)))


def test_samples_do_not_mix(name: str, ndim: int) -> None:
    augmenter, images, order = AUGMENTERS[name](ndim).double(), images_of(ndim, torch.float64), torch.tensor([2, 0, 1])
    draws = augmenter.draw(images, seeded(1))
    permuted = applied(augmenter, images[order], take_samples(draws, order))
    torch.testing.assert_close(permuted, applied(augmenter, images, draws)[order], rtol=1e-13, atol=1e-13)


def test_twice_differentiable_in_the_parameters(name: str, ndim: int) -> None:
    augmenter, images = AUGMENTERS[name](ndim).double(), images_of(ndim, torch.float64)
    draws = augmenter.draw(images, seeded(1))
    names, values = zip(*augmenter.named_parameters(), strict=True)
    raw = tuple(value.detach().clone().requires_grad_() for value in values)

    def augmented(*given: Tensor) -> Tensor:
        return functional_call(augmenter, dict(zip(names, given, strict=True)), (given_to(augmenter, images), draws))

    many = sum(value.numel() for value in values) > 10
    assert gradcheck(augmented, raw, fast_mode=many)
    assert gradgradcheck(augmented, raw, fast_mode=many)
    found = torch.autograd.grad(augmented(*raw).square().sum(), raw)
    assert all(gradient.any() for gradient in found), "a parameter without effect"


def test_differentiable_in_the_images(name: str, ndim: int) -> None:
    augmenter, images = AUGMENTERS[name](ndim).double(), images_of(ndim, torch.float64)
    draws = augmenter.draw(images, seeded(1))
    if augmenter.takes == "structures":
        assert not given_to(augmenter, images).is_floating_point()
    else:
        assert gradcheck(lambda x: augmenter(x, draws), images.requires_grad_(), fast_mode=True)


def test_can_be_copied_and_pickled(name: str, ndim: int) -> None:
    augmenter, images = AUGMENTERS[name](ndim), images_of(ndim)
    for twin in (copy.deepcopy(augmenter), pickle.loads(pickle.dumps(augmenter))):
        draws = twin.draw(images, seeded(1))
        assert equal(draws, augmenter.draw(images, seeded(1)))
        assert torch.equal(applied(twin, images, draws), applied(augmenter, images, draws))


def test_state_dict_holds_all_that_is_learned(name: str, ndim: int) -> None:
    learned, other, images = AUGMENTERS[name](ndim), AUGMENTERS[name](ndim), images_of(ndim)
    move(learned)
    draws = learned.draw(images, seeded(1))
    assert not torch.equal(applied(other, images, draws), applied(learned, images, draws))
    other.load_state_dict(learned.state_dict())
    assert torch.equal(applied(other, images, draws), applied(learned, images, draws))
    assert other.observed() == learned.observed()


def test_observed_are_numbers_that_follow_the_parameters(name: str, ndim: int) -> None:
    augmenter = AUGMENTERS[name](ndim)
    before = augmenter.observed()
    move(augmenter)
    after = augmenter.observed()
    assert list(before) == list(after)
    assert all(type(value) is float and after[key] > value for key, value in before.items())
    assert bool(before) == (name != "network")


def test_draws_move_to_the_device_of_the_images(name: str, ndim: int) -> None:
    """The meta device holds shapes only; a CPU generator serves it like any other."""
    augmenter, images = AUGMENTERS[name](ndim).to("meta"), images_of(ndim).to("meta")
    draws = augmenter.draw(images, seeded(1))
    assert {x.device.type for x in tree_leaves(draws)} == {"meta"}
    assert applied(augmenter, images, draws).shape == images.shape


def test_draws_of_another_form_are_refused_in_one_line(name: str, ndim: int) -> None:
    augmenter, images = AUGMENTERS[name](ndim), images_of(ndim)
    draws = augmenter.draw(images, seeded(1))
    for wrong in (torch.zeros(5), (), (draws, draws), tree_map(lambda x: x[:2], draws), None):
        with pytest.raises(ValueError, match=r"^draws: must .*, got .*$"):
            applied(augmenter, images, wrong)
