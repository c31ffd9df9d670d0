"""The discriminator: spectral norms, patches, initial values and what it refuses."""

import pytest
import torch

from metasynth.augment.discriminator import Discriminator
from metasynth.errors import UsageError


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("ndim", [2, 3])
def test_every_layer_comes_to_a_spectral_norm_of_1(ndim):
    network = Discriminator(ndim, (4, 6), seeded())
    images = torch.rand(2, 1, *[8] * ndim, generator=seeded())
    for _ in range(30):
        scores = network(images)
    assert scores.shape == (2, 1, *[4] * ndim)
    for layer in network.layers:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=2e-3)


def test_evaluation_moves_no_buffer_and_training_does():
    network = Discriminator(widths=(4,), generator=seeded())
    before = {name: value.clone() for name, value in network.named_buffers()}
    network.eval()(torch.rand(1, 1, 8, 8))
    assert before
    assert all(torch.equal(value, before[name]) for name, value in network.named_buffers())
    network.train()(torch.rand(1, 1, 8, 8))
    assert any(not torch.equal(value, before[name]) for name, value in network.named_buffers())


def test_a_score_depends_on_its_patch_alone():
    network = Discriminator(widths=(4, 4), generator=seeded()).eval()
    images = torch.rand(1, 1, 32, 32, generator=seeded(), requires_grad=True)
    network(images)[0, 0, 8, 8].backward()
    rows = images.grad[0, 0].abs().sum(1).nonzero()
    assert rows.min() >= 10
    assert rows.max() <= 23


def test_initial_values_are_those_of_the_generator_and_leave_the_global_stream():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    a, b, other = (Discriminator(generator=seeded(s)).state_dict() for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert any(not torch.equal(a[name], other[name]) for name in a)


def test_the_gain_multiplies_scores():
    images = torch.rand(1, 1, 8, 8, generator=seeded())
    once, thrice = (Discriminator(generator=seeded(), gain=gain)(images) for gain in (1.0, 3.0))
    torch.testing.assert_close(3 * once, thrice)


def test_refused():
    with pytest.raises(UsageError, match="ndim: must be 2 or 3, got 1"):
        Discriminator(1)
    with pytest.raises(UsageError, match="widths: must be one or more numbers >= 1, got \\(4, 0\\)"):
        Discriminator(widths=(4, 0))
    with pytest.raises(UsageError, match="gain: must be positive and finite, got 0"):
        Discriminator(gain=0.0)
    with pytest.raises(ValueError, match=r"each a multiple of 4, got \(1, 1, 8, 6\)"):
        Discriminator()(torch.rand(1, 1, 8, 6))
