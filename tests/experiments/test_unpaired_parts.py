"""The unpaired problem: exact hypergradients through a spectrally normalised discriminator, and where they lead."""

import copy
from dataclasses import replace

import pytest
import torch
from metasynth.experiments.unpaired.methods import VARIANTS
from metasynth.experiments.unpaired.models import AdversarialSettings, DiscriminatorSettings, GeneratorSettings
from metasynth.experiments.unpaired.settings import OUTER, UnpairedSettings
from metasynth.experiments.unpaired.training import Adversarial, adversarial_losses

from metasynth.augment.class_intensity import ClassIntensities
from metasynth.augment.compose import Compose
from metasynth.augment.discriminator import Discriminator
from metasynth.augment.label_generator import LabelGenerator
from metasynth.augment.noise import GaussianNoise
from metasynth.bilevel.hypergradient import hypergradient
from metasynth.bilevel.patched.functional import FunctionalModel
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.step_inputs import StepInputs
from metasynth.bilevel.strategies.mixed import Mixed
from metasynth.bilevel.update.inner_update import InnerUpdate
from metasynth.training.sources import Example
from metasynth.training.streams import StepBatch


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def example(generator, seed, size=3, level=0.8):
    """Scans of two classes, one at ``level``, and other label maps with draws of a generator."""
    draw = seeded(seed)
    dtype = next(generator.parameters()).dtype
    scans, labels = (torch.randint(3, (size, 8, 8), generator=draw) for _ in range(2))
    images = torch.rand(size, 1, 8, 8, generator=draw, dtype=dtype)
    return Example(level * (scans[:, None] > 0).to(dtype), labels, generator.draw(images, draw))


def problem_of(variant, loss):
    generator = GeneratorSettings(network=(2,)).build(variant, 3, 2, 0).double()
    with torch.no_grad():
        for parameter in generator.parameters():  # the network starts at 0, where most of it has no effect
            parameter += 0.1 * torch.randn(parameter.shape, generator=seeded(5), dtype=torch.float64)
    discriminator = Discriminator(widths=(3, 4), generator=seeded(1), gain=2.0).double()
    return generator, discriminator, DiscriminatorSettings(loss=loss, lr=0.05)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("loss", "synthetic", "real"), [("logistic", 1.0, 2.0), ("logistic", 0.0, 1.0), ("hinge", 1.0, 0.5)]
)
def test_the_hypergradient_is_that_of_central_differences(variant, loss, synthetic, real):
    generator, discriminator, inner = problem_of(variant, loss)
    losses = adversarial_losses(inner, AdversarialSettings(synthetic, real))
    batches = example(generator, 1), example(generator, 2)

    def stepped(optimizer_of, moved):
        """The outer loss after a native inner step."""
        model = copy.deepcopy(discriminator)
        optimizer = optimizer_of(model)
        losses[0](model, moved, batches[0]).backward()
        optimizer.step()
        return losses[1](model, moved, batches[1]).item()

    def sgd(model):
        return torch.optim.SGD(model.parameters(), lr=0.5)

    def adam(model):  # a first step of Adam hardly depends on gradients that are large against eps
        return torch.optim.Adam(model.parameters(), lr=inner.lr, betas=inner.betas, eps=0.1)

    for optimizer_of in (sgd, adam):
        found, _ = hypergradient(
            StepInputs(
                BilevelProblem(*losses),
                FunctionalModel(discriminator),
                InnerUpdate(optimizer_of(discriminator)),
                generator,
                [batches[0]],
            ),
            batches[1],
            Mixed(),
        )
        direction = {
            name: torch.randn(p.shape, generator=seeded(7), dtype=torch.float64) * (1e-5)
            for name, p in generator.named_parameters()
        }
        ends = []
        for sign in (1, -1):
            moved = copy.deepcopy(generator)
            with torch.no_grad():
                for name, p in moved.named_parameters():
                    p += sign * direction[name]
            ends.append(stepped(optimizer_of, moved))
        expected = (ends[0] - ends[1]) / 2
        slope = sum((found.gradients[name] * d).sum().item() for name, d in direction.items())
        assert slope == pytest.approx(expected, rel=1e-4)
        assert abs(expected) > 1e-9


def test_without_the_first_term_there_is_no_direct_part():
    generator, discriminator, inner = problem_of("intensities", "logistic")
    for weights, is_direct in ((AdversarialSettings(0.0, 1.0), False), (AdversarialSettings(1.0, 0.0), True)):
        outer = adversarial_losses(inner, weights)[1](discriminator, generator, example(generator, 1))
        direct = torch.autograd.grad(outer, list(generator.parameters()), allow_unused=True)
        assert any(d is not None for d in direct) == is_direct


@pytest.mark.parametrize("synthetic", [0.0, 1.0])
def test_the_hypergradient_finds_the_intensity_of_the_scans(synthetic):
    """Without the first term nothing but the discriminator's update tells the generator of scans."""
    contrast = ClassIntensities(3, mean=0.3, spread=0.05, texture=0.01, blur=0.05)
    for parameter in (contrast.raw_spreads, contrast.raw_textures, contrast.raw_blur):
        parameter.requires_grad_(False)
    noise = GaussianNoise(0.01)
    noise.requires_grad_(False)
    generator = LabelGenerator(contrast, Compose(noise))
    inner = DiscriminatorSettings(widths=(8,), steps=150, lr=5e-3)
    outer = replace(OUTER, warmup=10, hold=60, settle=20)
    trainer = Adversarial(
        Discriminator(widths=(8,), generator=seeded(), gain=5.0),
        generator,
        inner,
        outer,
        AdversarialSettings(synthetic, 1.0),
    )
    for step in range(inner.steps):
        batches = (example(generator, 2 * step + which, size=4, level=0.8) for which in range(2))
        trainer.step(step, StepBatch(*batches, None))
    generator.load_state_dict(trainer.averaged())
    assert generator.contrast.means.tolist() == pytest.approx([0.8, 0.8], abs=0.12)


def test_the_averaged_generator_is_the_mean_of_the_last_part_and_is_kept():
    def trainer():
        generator = GeneratorSettings(network=(2,)).build("intensities_network", 3, 2, 0)
        inner = DiscriminatorSettings(widths=(3,), steps=8)
        outer = replace(OUTER, warmup=1)
        discriminator = inner.build(2, 0)
        return Adversarial(discriminator, generator, inner, outer, AdversarialSettings(tail=0.5))

    def step(one, index):
        batch = StepBatch(example(one.generator, index), example(one.generator, 9 + index), None)
        (record,) = one.step(index, batch)
        return record, {name: value.clone() for name, value in one.generator.state_dict().items()}

    whole = trainer()
    steps = [step(whole, index) for index in range(8)]
    for name, value in whole.averaged().items():
        torch.testing.assert_close(value, torch.stack([state[name] for _, state in steps[4:]]).mean(0))
    first, second = trainer(), trainer()
    for index in range(6):
        step(first, index)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    again = [step(second, index) for index in range(6, 8)]
    assert [record for record, _ in again] == [record for record, _ in steps[6:]]
    assert all(torch.equal(value, whole.averaged()[name]) for name, value in second.averaged().items())
    assert 0 <= steps[-1][0]["accuracy"] <= 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AdversarialSettings(0.0, 0.0), "not both 0, got 0.0 and 0.0"),
        (lambda: AdversarialSettings(tail=0.0), r"tail must be in \(0, 1\], got 0.0"),
        (lambda: DiscriminatorSettings(gain=-1.0), "gain must be positive, got -1.0"),
        (lambda: DiscriminatorSettings(lr=0.0), "lr must be positive"),
        (lambda: DiscriminatorSettings(widths=()), r"widths must list at least one number >= 1, got \(\)"),
        (lambda: DiscriminatorSettings(betas=(0.5, 1.0)), r"betas must be in \[0, 1\)"),
        (lambda: GeneratorSettings(blur=0.0), "blur: must be finite and at least"),
        (lambda: UnpairedSettings(methods=("naiv",)), "unknown method 'naiv': did you mean 'naive'"),
        (lambda: UnpairedSettings(methods=()), "must list at least one method"),
        (lambda: UnpairedSettings(outer=replace(OUTER, reference="random")), "outer.reference must be none"),
        (lambda: UnpairedSettings(outer=replace(OUTER, warmup=600)), "must leave an outer step in discriminator.steps"),
    ],
)
def test_settings_that_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_pass_of_the_outer_loss_moves_no_estimate_of_a_spectral_norm():
    generator, discriminator, inner = problem_of("parametric", "logistic")
    before = {name: value.clone() for name, value in discriminator.named_buffers()}
    adversarial_losses(inner, AdversarialSettings())[1](discriminator, generator, example(generator, 1))
    assert before
    assert all(torch.equal(value, before[name]) for name, value in discriminator.named_buffers())
