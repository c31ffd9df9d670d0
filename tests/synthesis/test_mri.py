import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metasynth.errors import DataError, UsageError
from metasynth.synthesis.coils import draw_receive, draw_transmit, receive_field, transmit_field
from metasynth.synthesis.mri import mixed_signal, rician, scaled, simulate
from metasynth.synthesis.sequences import Flash, Mprage
from metasynth.synthesis.tissue import TISSUES, TissueSpread, draw_person, tissue_table

NAMES = ("cerebrospinal fluid", "white matter", "cortical grey")
TABLE = tissue_table(NAMES, 3.0)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def some_fractions(*shape, seed=0):
    weights = torch.rand(shape, dtype=torch.float64, generator=seeded(seed))
    return weights / weights.sum(1, keepdim=True)


@settings(max_examples=10)
@given(seed=st.integers(0, 1000))
def test_a_voxel_is_the_mean_of_its_tissues_weighted_by_volume(seed):
    fractions = some_fractions(2, 3, 4, 5, seed=seed)
    b1 = 0.8 + 0.4 * torch.rand(2, 4, 5, dtype=torch.float64, generator=seeded(seed))
    for sequence in (Flash(20.0), Mprage()):
        pure = torch.stack(
            [sequence.signal(TABLE.t1_ms[t], TABLE.t2_star_ms[t], TABLE.pd[t], b1) for t in range(3)], dim=1
        )
        torch.testing.assert_close(mixed_signal(fractions, TABLE, sequence, b1), (fractions * pure).sum(1))


def test_a_half_empty_voxel_gives_half_the_signal():
    fractions = some_fractions(1, 3, 2, 2)
    b1 = torch.ones(1, 2, 2, dtype=torch.float64)
    whole, half = (mixed_signal(share * fractions, TABLE, Flash(20.0), b1) for share in (1.0, 0.5))
    torch.testing.assert_close(half, whole / 2)


def test_images_follow_the_transmit_and_the_receive_field():
    fractions = some_fractions(1, 3, 6, 6)
    ones = torch.ones(1, 6, 6, dtype=torch.float64)
    images = {
        (b1, gain): simulate(fractions, TABLE, Flash(3.0), b1 * ones, gain * ones, 0.0, seeded())
        for b1, gain in ((1.0, 1.0), (1.0, 2.0), (1.1, 1.0))
    }
    torch.testing.assert_close(images[1.0, 2.0], 2 * images[1.0, 1.0])
    assert images[1.0, 1.0].shape == (1, 1, 6, 6)
    # Far below the Ernst angle the signal grows with the angle, though less than in proportion.
    ratio = images[1.1, 1.0] / images[1.0, 1.0]
    assert 1.05 < ratio.min() <= ratio.max() < 1.1


def test_the_generator_decides_the_noise_and_nothing_else_is_drawn():
    signal = torch.ones(1, 8, 8, dtype=torch.float64)
    before = torch.get_rng_state()
    torch.testing.assert_close(rician(signal, 0.1, seeded(1)), rician(signal, 0.1, seeded(1)))
    assert not torch.equal(rician(signal, 0.1, seeded(1)), rician(signal, 0.1, seeded(2)))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("signal", [0.0, 0.05, 1.0])
def test_noise_has_the_moments_of_the_rice_distribution(signal):
    sd, count = 0.05, 400_000
    image = rician(torch.full((count,), signal, dtype=torch.float64), sd, seeded())
    # E[M^2] = S^2 + 2 sd^2, whose estimate has the standard deviation sqrt((4 sd^2 S^2 + 4 sd^4) / N).
    error = ((4 * sd**2 * signal**2 + 4 * sd**4) / count) ** 0.5
    assert float((image**2).mean()) == pytest.approx(signal**2 + 2 * sd**2, abs=4 * error)
    assert float(image.min()) >= 0
    if signal == 0.0:  # Rayleigh
        assert float(image.mean()) == pytest.approx(sd * (torch.pi / 2) ** 0.5, rel=0.005)
    if signal == 1.0:  # nearly normal
        assert float(image.std()) == pytest.approx(sd, rel=0.01)


def test_scaling_takes_the_quantiles_to_0_and_1():
    image = torch.arange(1001, dtype=torch.float64).reshape(1, 7, 143) + 5
    found = scaled(image).flatten()
    assert float(found[10]) == 0.0
    assert float(found[990]) == 1.0
    assert float(found[500]) == pytest.approx(0.5)
    assert float(found.min()) == 0.0
    assert float(found.max()) == 1.0


def test_images_can_be_differentiated_with_respect_to_tissues_and_fields():
    fractions = some_fractions(1, 3, 2, 2).requires_grad_()
    b1 = torch.ones(1, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f, b: mixed_signal(0.9 * f, TABLE, Mprage(), b), (fractions, b1))


def test_people_differ_by_the_spread_and_share_the_mean():
    people = [draw_person(TABLE, TissueSpread(), seeded(seed)) for seed in range(400)]
    for name, sd in (("t1_ms", 0.04), ("t2_star_ms", 0.06)):
        logs = torch.stack([getattr(person, name) for person in people]).log() - getattr(TABLE, name).log()
        assert float(logs.std()) == pytest.approx(sd, rel=0.1)
        assert logs.mean(0).abs().max() < 4 * sd / 20
    assert max(float(person.pd.max()) for person in people) <= 1.0


@pytest.mark.parametrize("field", TISSUES)
def test_the_tables_keep_the_order_of_nature(field):
    t1 = {name: tissue.t1_ms for name, tissue in TISSUES[field].items()}
    order = ("white matter", "pallidum", "thalamus", "putamen", "caudate", "cortical grey", "cerebrospinal fluid")
    assert [t1[name] for name in order] == sorted(t1[name] for name in order)
    assert min(TISSUES[field].values(), key=lambda tissue: tissue.t2_star_ms) == TISSUES[field]["pallidum"]
    assert all(0.6 < tissue.pd <= 1 for tissue in TISSUES[field].values())


def test_relaxation_is_slower_along_and_faster_across_at_the_higher_field():
    for name in TISSUES[3.0]:
        if name != "cerebrospinal fluid":
            assert TISSUES[3.0][name].t1_ms > TISSUES[1.5][name].t1_ms
            assert TISSUES[3.0][name].t2_star_ms < TISSUES[1.5][name].t2_star_ms


def test_coil_fields_are_smooth_positive_and_of_the_stated_size():
    axis = torch.linspace(-75, 75, 16, dtype=torch.float64)
    points = torch.stack(torch.meshgrid(axis, axis[4:12], axis, indexing="ij"), dim=-1)
    middle, rim = [], []
    for seed in range(50):
        generator = seeded(seed)
        b1, receive = transmit_field(draw_transmit(generator), points), receive_field(draw_receive(generator), points)
        for field, most in ((b1, 0.09), (receive, 0.15)):
            assert field.min() > 0
            assert field[1:].sub(field[:-1]).abs().max() < most  # per 10 mm
        middle.append(float(b1[8, 4, 8]))
        rim.append(float(b1[0, 4, 8] + b1[-1, 4, 8]) / 2)
    assert 1.1 < sum(middle) / 50 < 1.2
    assert 0.85 < sum(rim) / 50 < 1.0


ONES = torch.ones(1, 2, 2, dtype=torch.float64)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: mixed_signal(some_fractions(1, 2, 2, 2), TABLE, Flash(5.0), ONES),
            DataError,
            r"fractions: expected shape \(B, 3, \*S\), got \(1, 2, 2, 2\)",
        ),
        (
            lambda: mixed_signal(some_fractions(1, 3, 2, 2), TABLE, Flash(5.0), ONES[0]),
            DataError,
            r"b1: expected shape \(B, \*S\) as fractions \(1, 3, 2, 2\), got \(2, 2\)",
        ),
        (
            lambda: mixed_signal(2 * some_fractions(1, 3, 2, 2), TABLE, Flash(5.0), ONES),
            DataError,
            "fractions: expected at least 0 and in sum at most 1, got least .* and sum 2",
        ),
        (
            lambda: mixed_signal(some_fractions(1, 3, 2, 2) * torch.nan, TABLE, Flash(5.0), ONES),
            DataError,
            "fractions: expected .* and sum nan",
        ),
        (lambda: rician(ONES, -0.1, seeded()), UsageError, "sd: expected 0 or more, got -0.1"),
        (lambda: scaled(ONES), DataError, "images: the quantiles 0.01 and 0.99 are both 1; nothing to scale"),
        (lambda: tissue_table(NAMES, 7.0), UsageError, "field_tesla: expected one of 1.5, 3.0, got 7.0"),
        (lambda: tissue_table(("bone",), 3.0), UsageError, "names: expected tissues out of .*, got 'bone'"),
    ],
)
def test_what_cannot_be_simulated_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
