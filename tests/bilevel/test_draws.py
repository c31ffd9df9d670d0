"""`draw`: what is drawn, when it is drawn anew, and what is noted of it."""

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Gamma, Normal

from metasynth.bilevel.draws import Draws, draw

PROBABILITY = torch.tensor(0.3, dtype=torch.float64)


def pass_from(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Two draws with other random numbers before, between and after."""
    torch.manual_seed(seed)
    torch.rand(3)
    first = draw(Normal(torch.zeros(4), 1.0))
    between = torch.rand(2)
    second = draw(Categorical(logits=torch.zeros(5)))
    return first, torch.cat([between, torch.rand(2)]), second


def test_a_draw_is_a_sample_without_a_graph() -> None:
    mean = torch.tensor(2.0, requires_grad=True)
    found = torch.stack([draw(Normal(mean, 0.5)) for _ in range(400)])
    assert not found.requires_grad
    assert found.mean().item() == pytest.approx(2.0, abs=0.1)
    assert found.std().item() == pytest.approx(0.5, abs=0.06)


def test_draws_repeat_with_the_global_random_state() -> None:
    for a, b in zip(pass_from(3), pass_from(3), strict=True):
        assert torch.equal(a, b)


def test_a_trial_draws_anew_and_leaves_all_else_as_it_was() -> None:
    first, others, second = pass_from(3)
    seen = [first]
    for key in (1, 2, 3):
        with Draws(key).made():
            anew, its_others, _ = pass_from(3)
            again = pass_from(3)[0]
        assert torch.equal(its_others, others)
        assert torch.equal(anew, again)
        assert not any(torch.equal(anew, one) for one in seen)
        seen.append(anew)
    assert torch.equal(pass_from(3)[2], second)


def test_draws_of_trials_have_the_distribution() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = []
        for key in range(500):
            with Draws(key).made():
                found.append(torch.stack([draw(Bernoulli(PROBABILITY)), draw(Gamma(torch.tensor(2.0), 1.0)).double()]))
    values = torch.stack(found)
    assert values[:, 0].mean().item() == pytest.approx(0.3, abs=3 * (0.21 / 500) ** 0.5)
    assert values[:, 1].mean().item() == pytest.approx(2.0, abs=3 * (2 / 500) ** 0.5)
    assert torch.corrcoef(values.T)[0, 1].abs() < 3 / 500**0.5


def test_log_probabilities_are_added_up_where_they_are_noted() -> None:
    logits = torch.tensor([0.2, -0.1, 0.4], dtype=torch.float64, requires_grad=True)
    draws = Draws()
    with draws.noted():
        taken = [draw(Categorical(logits=logits.expand(2, 3))) for _ in range(3)]
    with draws.made():
        draw(Categorical(logits=logits))  # as in a backward pass that computes again
    expected = sum(logits.log_softmax(0)[one].sum() for one in taken)
    assert draws.log_probability is not None
    assert torch.allclose(draws.log_probability, expected)
    (slope,) = torch.autograd.grad(draws.log_probability, [logits])
    counts = torch.bincount(torch.cat(taken), minlength=3)
    assert torch.allclose(slope, counts - 6 * logits.detach().softmax(0))


def test_nothing_is_noted_of_what_is_not_drawn() -> None:
    draws = Draws(4)
    with draws.noted():
        Normal(0.0, 1.0).sample()
    assert draws.log_probability is None


def test_what_is_no_distribution_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^distribution must be a torch.distributions.Distribution, got Tensor$"):
        draw(PROBABILITY)
