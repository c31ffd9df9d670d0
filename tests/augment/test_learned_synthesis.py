"""Images of structures about priors: what each strength does, and what is not learned."""

import math

import pytest
import torch
from augment.augmenters import PRIORS, seeded, synthesis
from hypothesis import given, settings
from hypothesis import strategies as st

from metasynth.augment.augmenter import check_groups
from metasynth.augment.entry import Start
from metasynth.augment.label_generator import LabelGenerator
from metasynth.augment.learned_synthesis import LearnedSynthesis, Priors
from metasynth.augment.table import entry_of
from metasynth.errors import UsageError
from metasynth.training.reach import constrained_in

NAMES = ["spread", "texture", "offset", "grain", "blur", "sigma", "c_1", "c_2", "gamma"]


def blocks(n=2):
    """Structures 1 to 3 in bands of 6, in a frame of background."""
    labels = torch.zeros(n, 24, 20, dtype=torch.int64)
    for k in range(3):
        labels[:, 3 + 6 * k : 9 + 6 * k, 2:-2] = k + 1
    return labels


def drawn(made, structures, seed=0):
    return made.draw(torch.empty(len(structures), 1, *structures.shape[1:]), seeded(seed))


@torch.no_grad()
def changed(made, **values):
    for name, value in values.items():
        parameter = dict(made.named_parameters())[name]
        parameter.copy_(torch.as_tensor(value))
    return made


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["uniform", "blocks", "empty", "single"]), st.floats(-3, 3))
def test_images_are_finite_in_range_before_noise_and_background_is_0(seed, kind, move):
    made = synthesis(2)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += move
    structures = {
        "uniform": torch.randint(0, 4, (2, 12, 10), generator=seeded(seed)),
        "blocks": blocks(),
        "empty": torch.zeros(2, 6, 6, dtype=torch.int64),
        "single": torch.nn.functional.pad(torch.ones(2, 1, 1, dtype=torch.int64), (3, 3, 3, 3)),
    }[kind]
    draws = drawn(made, structures, seed)
    shown, image = made.shown(structures, draws), made(structures, draws)
    clean = image - shown["noise"]
    inside = structures[:, None] > 0
    assert image.isfinite().all()
    for each in (shown["synthetic"], clean):
        assert ((each >= 0) & (each <= 1 + 1e-6)).all()
    for each in (image, clean, shown["synthetic"]):
        assert not each[~inside].any()
    assert all(g.isfinite().all() for g in torch.autograd.grad(image.square().sum(), list(made.parameters())))


def test_equal_draws_give_equal_images_wherever_they_have_been():
    made, structures = synthesis(2), blocks()
    draws = drawn(made, structures)
    plain = tuple(draws)  # as through the pipe of a worker
    assert torch.equal(made(structures, draws), made(structures, plain))
    assert torch.equal(made(structures, drawn(made, structures)), made(structures, draws))


def flat(made):
    """Without field, power, blur and noise."""
    return changed(
        made,
        **{"gamma.raw_value": -30.0, "field.raw_exponents": [-30.0] * 2, "blur.raw_value": -8.0},
        **{"noise.raw_sigma": -30.0},
    )


def test_contrast_is_that_of_the_priors_where_nothing_is_spread():
    priors = PRIORS._replace(spread=(0.0,) * 4, texture=(0.0,) * 4)
    made, structures = flat(synthesis(2, priors)), blocks()
    image = made(structures, drawn(made, structures)).detach()
    means = torch.tensor([image[0, 0][structures[0] == k].mean() for k in (1, 2, 3)])
    torch.testing.assert_close(means, torch.tensor([1.0, 0.0, 0.5]), atol=0.01, rtol=0)


def test_random_contrasts_are_uniform_and_independent():
    made = LearnedSynthesis(Priors.random(4))
    assert made.raw_offset is None
    levels = 0.5 + drawn(made, torch.zeros(2000, 4, 4)).levels / math.sqrt(12)
    assert levels.min() >= 0
    assert levels.max() <= 1
    quantiles = levels.quantile(torch.tensor([0.25, 0.5, 0.75]), dim=0)
    torch.testing.assert_close(quantiles, torch.tensor([[0.25], [0.5], [0.75]]).expand(3, 3), atol=0.03, rtol=0)
    assert (torch.corrcoef(levels.T) - torch.eye(3)).abs().max() < 0.07


def test_spread_texture_and_offset_raised_alike_change_nothing():
    made, structures = synthesis(2).double(), blocks()
    draws = made.draw(torch.empty(2, 1, 24, 20, dtype=torch.float64), seeded(0))
    before = made(structures, draws)
    weights = torch.randn(before.shape, dtype=torch.float64, generator=seeded(5))
    three = [made.raw_spread, made.raw_texture, made.raw_offset]
    gradients = torch.autograd.grad((weights * before).sum(), three)
    assert abs(sum(gradients)) < 1e-12
    assert max(map(abs, gradients)) > 1e-3
    changed(made, raw_spread=1.0, raw_texture=1.0, raw_offset=1.0)
    torch.testing.assert_close(made(structures, draws), before, rtol=0, atol=1e-12)


def test_strengths_differ_between_images_about_the_same_means():
    like = torch.empty(4000, 1, 8, 8)
    structures = torch.ones(4000, 8, 8, dtype=torch.int64)
    alike, differing = (LearnedSynthesis(PRIORS, varying=v).draw(like, seeded(0)) for v in (0.0, 0.9))
    assert torch.equal(alike.widths, torch.ones(4000, 2))
    ratios = {
        "textures": differing.textures / alike.textures,
        "noise": differing.noise / alike.noise,
        "nodes": differing.nodes[0].log() / alike.nodes[0].log(),
        "width along the first axis": differing.widths[:, 0],
        "and along the second": differing.widths[:, 1],
    }
    for ratio in ratios.values():
        each = ratio.flatten(1) if ratio.ndim > 1 else ratio[:, None]
        assert (each - each[:, :1]).abs().amax() < 1e-2
        assert each.min() == pytest.approx(0.1, abs=0.01)
        assert each.max() == pytest.approx(1.9, abs=0.01)
        assert each[:, 0].mean() == pytest.approx(1, abs=4 * 0.9 / math.sqrt(3 * 4000))
    factors = torch.stack([ratio.reshape(4000, -1)[:, 0] for ratio in ratios.values()])
    assert (torch.corrcoef(factors) - torch.eye(5)).abs().max() < 0.06
    assert torch.equal(differing.levels, alike.levels)
    assert torch.equal(differing.mixture, alike.mixture)
    assert LearnedSynthesis(PRIORS)(structures, differing).isfinite().all()


def test_every_image_has_a_blur_of_its_own_along_each_axis():
    made, structures = flat(synthesis(2, PRIORS._replace(spread=(0.0,) * 4, texture=(0.0,) * 4))), blocks()
    changed(made, **{"blur.raw_value": 1.0})
    draws = drawn(made, structures)._replace(widths=torch.tensor([[0.1, 1.5], [1.5, 0.1]]), powers=torch.zeros(2))
    sharp, soft = made(structures, draws).detach()
    values = lambda image: len(image[0][structures[0] > 0].mul(50).round().unique())  # noqa: E731
    assert values(sharp) <= 4 < values(soft)  # structures lie in bands across the first axis


def test_textures_are_those_of_the_priors_whatever_the_grain_and_the_blur():
    """Of one structure alone, and before anything is scaled: level + blur(t) n is m + t n."""
    made = synthesis(2)
    like = torch.empty(3000, 1, 9, 9)
    plain = LearnedSynthesis(PRIORS, varying=0.0).draw(like, seeded(0))
    for grain in (0.2, 1.0, 5.0):
        weights = changed(made, raw_grain=math.log(grain))._mixed(plain.mixture)
        torch.testing.assert_close(weights.square().sum(1), torch.ones(3000, 3))
        textures = torch.einsum("bjk,bjxy->bkxy", weights.detach(), plain.textures)
        sd = textures.std(0)
        assert sd.mean() == pytest.approx(1, abs=0.01)
        assert (sd - 1).abs().max() < 0.08
        assert textures.mean(0).abs().max() < 0.08
        assert torch.corrcoef(textures[:, :, 4, 4].T).sub(torch.eye(3)).abs().max() < 0.06
    structures = torch.ones(2, 9, 9, dtype=torch.int64)
    even = flat(synthesis(2, PRIORS._replace(spread=(0.0,) * 4)))
    draws = drawn(even, structures)
    sharp = even(structures, draws)
    torch.testing.assert_close(changed(even, **{"blur.raw_value": 2.0})(structures, draws), sharp, atol=1e-5, rtol=0)


def test_coarser_textures_have_nearer_neighbours():
    """The correlation of neighbours, of noise that is linear between nodes 1, 2 and 4 voxels apart, by its mixture."""
    plain = LearnedSynthesis(PRIORS, varying=0.0).draw(torch.empty(6000, 1, 9, 9), seeded(0))
    along = lambda n: (n[..., 1:, :] * n[..., :-1, :]).mean().item()  # noqa: E731
    alone = [along(n) for n in plain.textures.split(1, 1)]
    assert alone[0] == pytest.approx(0, abs=0.01)
    assert alone[1] == pytest.approx(math.sqrt(0.5), abs=0.01)
    assert alone[2] > alone[1]
    found = []
    for grain in (1e-4, 1.0, 1e4):
        weights = changed(synthesis(2), raw_grain=math.log(grain))._mixed(plain.mixture).detach()
        found.append(along((weights[:, :, :1, None] * plain.textures).sum(1)))
    assert found == pytest.approx([alone[0], sum(alone) / 3, alone[2]], abs=0.02)


def test_observed_are_multipliers_of_1_and_the_given_starts():
    made = synthesis(2)
    assert list(made.observed()) == NAMES
    expected = dict(zip(NAMES, (1, 1, 1, 1, 0.5, 0.1, 0.3, 0.6, 0.3), strict=True))
    assert made.observed() == pytest.approx(expected, rel=1e-5)
    three = LearnedSynthesis(PRIORS)
    assert [name for name in three.observed() if name.startswith("c_")] == ["c_low", "c_mid", "c_high"]
    assert list(made.parameter_groups()) == ["values"]
    check_groups(made, "synthesis")


def test_every_strength_is_kept_within_reach_of_further_steps():
    names = {"spread", "texture", "offset", "grain", "blur.value", "gamma.value", "field.exponents", "noise.sigma"}
    assert set(constrained_in(synthesis(2))) == names | {"spreads", "textures"}
    assert set(constrained_in(LearnedSynthesis(PRIORS, by_structure=False))) == names


def test_what_the_multipliers_have_made_of_the_priors():
    made = changed(synthesis(2), raw_spread=math.log(2), raw_texture=math.log(0.5), raw_offset=math.log(0.5))
    found = made.priors()
    assert found.mean == pytest.approx((0, 0.75, 0.45, 0.6), abs=1e-6)
    assert found.spread == pytest.approx((0, 0.2, 0.4, 0.1), abs=1e-6)
    assert found.texture == pytest.approx((0, 0.025, 0.01, 0.05), abs=1e-6)
    again, structures = synthesis(2, found), blocks()
    draws = drawn(made, structures)
    torch.testing.assert_close(again(structures, draws), made(structures, draws), rtol=0, atol=1e-5)


def test_a_structure_has_a_mean_a_spread_and_a_texture_of_its_own():
    made = synthesis(2)
    for name in ("shifts", "raw_spreads", "raw_textures"):
        changed(made, **{name: [0.0, math.log(2), 0.0]})
    found = made.priors()
    assert found.mean == pytest.approx((0, 0.9, 0.3 + 0.1 * math.log(2), 0.6), abs=1e-6)
    assert found.spread == pytest.approx((0, 0.1, 0.4, 0.05), abs=1e-6)
    assert found.texture == pytest.approx((0, 0.05, 0.04, 0.1), abs=1e-6)
    again, structures = synthesis(2, found), blocks()
    draws = drawn(made, structures)
    torch.testing.assert_close(again(structures, draws), made(structures, draws), rtol=0, atol=1e-5)


def test_contrasts_can_be_learned_of_structures_that_start_alike():
    made, structures = LearnedSynthesis(Priors.random(4), exponents=(0.3, 0.6), nodes=(2, 3)), blocks()
    made(structures, drawn(made, structures)).square().sum().backward()
    assert made.raw_offset is None
    assert made.shifts.grad.abs().min() > 0
    assert not [
        p for n, p in LearnedSynthesis(PRIORS, by_structure=False).named_parameters() if p.ndim and "raw_exp" not in n
    ]


def test_the_report_is_shown_how_the_image_comes_about():
    made, structures = synthesis(2), blocks()
    draws = drawn(made, structures)
    shown, image = made.shown(structures, draws), made(structures, draws)
    assert list(shown) == ["synthetic", "field", "noise"]
    product = (shown["synthetic"] * shown["field"])[0, 0][structures[0] > 0]
    low, high = product.quantile(0.01), product.quantile(0.99)
    expected = ((product - low) / (high - low)).clamp(0, 1) + shown["noise"][0, 0][structures[0] > 0]
    torch.testing.assert_close(image[0, 0][structures[0] > 0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"priors": Priors((0, 1), (0,), (0, 1))}, "priors: must be of the same structures, at least 2, got 2, 1, 2"),
        ({"priors": Priors((0,), (0,), (0,))}, "priors: must be of the same structures, at least 2, got 1, 1, 1"),
        (
            {"priors": Priors((0, 1, 1), (0, 1, -2), (0, 1, 1))},
            "priors: spread must be finite numbers of at least 0, got -2 of structure 2",
        ),
        (
            {"priors": Priors((0, math.nan, 1), (0, 1, 1), (0, 1, 1))},
            "priors: mean must be finite numbers, got nan of structure 1",
        ),
        ({"blur": 0.0}, "blur: must be finite and at least 1.18e-38 (the map onto the positive numbers never reaches "
         "0), got 0"),
        ({"gamma": -1.0}, "gamma: must be finite and at least 1.18e-38 (the map onto the positive numbers never "
         "reaches 0), got -1"),
        ({"ndim": 4}, "ndim: must be 2 or 3, got 4"),
        ({"varying": 1.0}, "varying: must be at least 0 and less than 1, got 1.0"),
        ({"varying": -0.1}, "varying: must be at least 0 and less than 1, got -0.1"),
    ],
)  # fmt: skip
def test_arguments_out_of_range(change, line):
    with pytest.raises(UsageError) as refused:
        LearnedSynthesis(**({"priors": PRIORS} | change))
    assert str(refused.value) == line


def test_structures_of_another_dimension():
    made = synthesis(3)
    draws = made.draw(torch.empty(2, 1, 4, 4, 4), seeded(0))
    with pytest.raises(
        ValueError, match=r"^structures: must have shape \(B, \*S\) with 3 voxel axes, got \(2, 24, 20\)$"
    ):
        made(blocks(), draws)


def test_what_takes_images_and_what_takes_structures_are_kept_apart():
    with pytest.raises(UsageError) as refused:
        LabelGenerator(None, synthesis(2))
    assert str(refused.value) == (
        "augmenter: must take images, as the contrast is made before, got LearnedSynthesis, of structures"
    )


def test_lines_of_the_table():
    start = Start(2, seeded(0), structures=5, priors=PRIORS)
    made = entry_of("synthesis_random").made(start), entry_of("synthesis_estimated").made(start)
    assert [len(one.mean) for one in made] == [4, 3]
    assert made[1].priors().mean == pytest.approx(PRIORS.mean)
    assert [entry_of(f"synthesis_{name}").priors for name in ("random", "estimated")] == [False, True]
    with pytest.raises(UsageError) as refused:
        entry_of("synthesis_estimated").made(Start(2, seeded(0)))
    assert str(refused.value) == "augmenter 'synthesis_estimated': must be given estimated priors, got none"
