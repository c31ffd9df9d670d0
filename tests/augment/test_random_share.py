"""A share of images that stays random: how many, which, and that nothing of theirs is learned."""

import pytest
import torch
from augment.augmenters import seeded, shared, synthesis
from torch.utils._pytree import tree_map

from metasynth.augment.compose import Compose
from metasynth.augment.entry import Start
from metasynth.augment.learned_synthesis import LearnedSynthesis, Priors
from metasynth.augment.noise import GaussianNoise
from metasynth.augment.random_share import RandomShare
from metasynth.augment.table import entry_of
from metasynth.errors import UsageError


def counts(share, batch, draws):
    made = RandomShare(GaussianNoise(0.1), GaussianNoise(0.4), share)
    images = torch.empty(batch, 1, 2, 2)
    return torch.stack([made.draw(images, seeded(s)).random for s in range(draws)])


@pytest.mark.parametrize(("share", "batch", "count"), [(0.25, 8, 2), (0.5, 4, 2), (0.0, 4, 0), (0.75, 8, 6)])
def test_exactly_that_share_of_every_batch_is_random(share, batch, count):
    found = counts(share, batch, 40)
    assert (found.sum(1) == count).all()
    assert (found.mean(0) - share).abs().max() < 0.3  # each place alike


def test_a_share_between_whole_numbers_is_exact_in_the_mean():
    sums = counts(0.3, 4, 2000).sum(1)  # 1.2 images
    assert set(sums.tolist()) == {1.0, 2.0}
    assert sums.mean().item() == pytest.approx(1.2, abs=0.03)


def test_random_images_are_those_of_the_random_synthesis_and_have_no_derivative():
    made, structures = shared(2), torch.randint(0, 4, (6, 12, 10), generator=seeded(0))
    draws = made.draw(torch.empty(6, 1, 12, 10), seeded(1))
    random = draws.random > 0
    assert random.sum() == 2
    own, other = synthesis(2), synthesis(2, Priors.random(4))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.3
        for parameter in own.parameters():
            parameter += 0.3
    images = made(structures, draws)
    assert torch.equal(images[random], other(structures, draws.own)[random])
    assert torch.equal(images[~random], own(structures, draws.own)[~random])
    loss = images[random].square().sum()
    assert not any(g.any() for g in torch.autograd.grad(loss, list(made.parameters()), retain_graph=True))


def test_a_report_is_shown_what_is_learned_whichever_images_are_random():
    made, own = shared(2), synthesis(2)
    structures = torch.randint(0, 4, (3, 12, 10), generator=seeded(0))
    draws = made.draw(torch.empty(3, 1, 12, 10), seeded(1))
    shown, expected = made.shown(structures, draws), own.shown(structures, draws.own)
    assert list(shown) == ["synthetic", "field", "noise", "augmented"]
    assert all(torch.equal(shown[name], image) for name, image in expected.items())
    assert torch.equal(shown["augmented"], own(structures, draws.own))
    assert not torch.equal(shown["augmented"], made(structures, draws))


def test_what_is_learned_is_that_of_the_learned_alone():
    made = shared(2)
    assert made.observed() == synthesis(2).observed()
    grouped = [id(p) for group in made.parameter_groups().values() for p in group]
    assert grouped == [id(p) for p in made.parameters()] == [id(p) for p in made.learned.parameters()]
    kept = [name for name in made.state_dict() if name.startswith("random.")]
    assert "random.noise.raw_sigma" in kept
    assert "random.raw_spread" in kept


def test_images_are_shared_as_well_as_structures():
    made = RandomShare(GaussianNoise(0.1), GaussianNoise(0.4), 0.5)
    images = torch.zeros(4, 1, 3, 3)
    draws = made.draw(images, seeded(0))
    sigma = torch.where(draws.random > 0, 0.4, 0.1).reshape(4, 1, 1, 1)
    torch.testing.assert_close(made(images, draws), sigma * draws.own)


def test_the_table_makes_it_where_a_share_is_asked_for():
    start = Start(2, seeded(0), structures=4, random_share=0.25)
    made = entry_of("synthesis_random").made(start)
    assert (type(made), made.share, made.takes) == (RandomShare, 0.25, "structures")
    assert type(entry_of("synthesis_random").made(Start(2, seeded(0)))) is LearnedSynthesis


@pytest.mark.parametrize("share", [1.0, -0.1, float("nan")])
def test_a_share_out_of_range(share):
    with pytest.raises(UsageError) as refused:
        RandomShare(GaussianNoise(0.1), GaussianNoise(0.4), share)
    assert str(refused.value) == f"random_share: must be at least 0 and less than 1, got {share}"


def test_two_that_take_different_things():
    with pytest.raises(UsageError) as refused:
        RandomShare(GaussianNoise(0.1), synthesis(2), 0.5)
    assert str(refused.value) == "learned and random: must take the same, got images and structures"
    with pytest.raises(UsageError) as refused:
        Compose(GaussianNoise(0.1), synthesis(2))
    assert str(refused.value) == "parts: after the first must take images, got LearnedSynthesis, of structures"
    assert Compose(synthesis(2), GaussianNoise(0.1)).takes == "structures"


def test_draws_of_another_batch():
    made = shared(2)
    draws = made.draw(torch.empty(3, 1, 4, 4), seeded(0))
    with pytest.raises(ValueError, match=r"^draws: must have shapes \(3,\), got \(2,\)$"):
        made(torch.zeros(3, 4, 4, dtype=torch.int64), tree_map(lambda x: x[:2], draws))
