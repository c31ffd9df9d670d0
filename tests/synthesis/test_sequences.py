import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metasynth.errors import UsageError
from metasynth.synthesis.sequences import Flash, Mprage
from metasynth.synthesis.tissue import tissue_table

ONE = torch.ones((), dtype=torch.float64)
T1S = st.floats(200.0, 5000.0)
B1S = st.floats(0.5, 1.5)


def as_tensors(*numbers):
    return tuple(torch.tensor(number, dtype=torch.float64) for number in numbers)


def relaxed(mz, t1, time):
    """Mz after some time of relaxation towards 1."""
    return 1 - (1 - mz) * math.exp(-time / t1)


def flash_by_recursion(sequence, t1, t2_star, pd, b1):
    """Pulse after pulse from equilibrium, for many T1."""
    flip, mz = math.radians(sequence.flip_deg) * b1, 1.0
    for _ in range(int(30 * t1 / sequence.tr_ms) + 50):
        before = mz
        mz = relaxed(before * math.cos(flip), t1, sequence.tr_ms)
    return pd * before * math.sin(flip) * math.exp(-sequence.te_ms / t2_star)


def mprage_by_recursion(sequence, t1, t2_star, pd, b1):
    """Period after period from equilibrium: inversion, delay, pulse after pulse, pause."""
    flip, mz = math.radians(sequence.flip_deg) * b1, 1.0
    middle = sequence.pulses // 2
    first = sequence.ti_ms - middle * sequence.tau_ms
    for _ in range(int(30 * t1 / sequence.tr_ms) + 50):
        mz = relaxed(-sequence.inversion_efficiency * mz, t1, first)
        for pulse in range(sequence.pulses):
            if pulse == middle:
                signal = abs(mz) * math.sin(flip)
            mz = relaxed(mz * math.cos(flip), t1, sequence.tau_ms)
        mz = relaxed(mz, t1, sequence.tr_ms - first - sequence.pulses * sequence.tau_ms)
    return pd * signal * math.exp(-sequence.te_ms / t2_star)


@settings(max_examples=30)
@given(flip=st.floats(1.0, 120.0), tr=st.floats(5.0, 200.0), t1=T1S, b1=B1S)
def test_flash_is_the_steady_state_of_its_pulses(flip, tr, t1, b1):
    sequence = Flash(flip, tr_ms=tr, te_ms=3.0)
    closed = sequence.signal(*as_tensors(t1, 50.0, 0.8, b1))
    assert float(closed) == pytest.approx(flash_by_recursion(sequence, t1, 50.0, 0.8, b1), rel=1e-6)


@settings(max_examples=30)
@given(
    flip=st.floats(3.0, 20.0),
    pulses=st.integers(1, 200),
    tau=st.floats(5.0, 10.0),
    delay=st.floats(0.0, 800.0),
    pause=st.floats(0.0, 1500.0),
    efficiency=st.floats(0.7, 1.0),
    t1=T1S,
    b1=B1S,
)
def test_mprage_is_the_periodic_state_of_its_pulses(flip, pulses, tau, delay, pause, efficiency, t1, b1):
    ti = delay + (pulses // 2) * tau
    period = ti + (pulses - pulses // 2) * tau + pause + 1.0
    sequence = Mprage(flip, period, ti, tau, pulses, te_ms=3.0, inversion_efficiency=efficiency)
    closed = sequence.signal(*as_tensors(t1, 50.0, 0.8, b1))
    assert float(closed) == pytest.approx(mprage_by_recursion(sequence, t1, 50.0, 0.8, b1), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("sequence", [Flash(3.0), Flash(30.0), Mprage()])
@pytest.mark.parametrize("t1", [400.0, 838.0, 1607.0, 4200.0])
def test_the_protocols_used_agree_with_their_pulses(sequence, t1):
    recursion = flash_by_recursion if isinstance(sequence, Flash) else mprage_by_recursion
    closed = float(sequence.signal(*as_tensors(t1, 60.0, 0.75, 1.1)))
    assert closed == pytest.approx(recursion(sequence, t1, 60.0, 0.75, 1.1), rel=1e-6)


# Signal over that of white matter at 3 T: cortex, deep grey (mean of caudate and putamen), fluid.
CONTRASTS = [
    (Flash(3.0), (1.11, 1.06, 1.34)),
    (Flash(5.0), (1.04, 1.01, 1.05)),
    (Flash(20.0), (0.70, 0.76, 0.42)),
    (Flash(30.0), (0.65, 0.71, 0.37)),
    (Mprage(), (0.53, 0.63, 0.19)),
]


@pytest.mark.parametrize(("sequence", "expected"), CONTRASTS)
def test_contrasts_are_the_expected_ones_within_5_percent(sequence, expected):
    names = ("white matter", "cortical grey", "caudate", "putamen", "cerebrospinal fluid")
    table = tissue_table(names, 3.0)
    white, cortex, caudate, putamen, fluid = sequence.signal(table.t1_ms, table.t2_star_ms, table.pd, ONE).tolist()
    found = (cortex / white, (caudate + putamen) / 2 / white, fluid / white)
    assert found == pytest.approx(expected, rel=0.05)


def test_flash_is_brightest_at_the_ernst_angle():
    t1, tr = 1000.0, 20.0
    ernst = math.degrees(math.acos(math.exp(-tr / t1)))
    below, at, above = (
        float(Flash(ernst * factor, tr_ms=tr).signal(*as_tensors(t1, 60.0, 1.0, 1.0))) for factor in (0.9, 1.0, 1.1)
    )
    assert at > max(below, above)


def test_a_transmit_field_is_another_flip_angle():
    parameters = as_tensors(1200.0, 60.0, 0.8)
    for sequence in (Flash(20.0), Mprage()):
        turned = dataclasses.replace(sequence, flip_deg=0.8 * sequence.flip_deg)
        b1 = torch.tensor(0.8, dtype=torch.float64)
        torch.testing.assert_close(sequence.signal(*parameters, b1), turned.signal(*parameters, ONE))


def test_single_precision_is_good_for_small_angles():
    exact = Flash(1.0).signal(*as_tensors(4200.0, 2000.0, 1.0, 1.0))
    single = Flash(1.0).signal(*(part.float() for part in as_tensors(4200.0, 2000.0, 1.0, 1.0)))
    assert float(single) == pytest.approx(float(exact), rel=2e-6)


@pytest.mark.parametrize("sequence", [Flash(20.0), Mprage()])
def test_signals_can_be_differentiated_twice(sequence):
    inputs = [part.requires_grad_() for part in as_tensors(1200.0, 60.0, 0.8, 1.1)]
    assert torch.autograd.gradcheck(sequence.signal, inputs)
    assert torch.autograd.gradgradcheck(sequence.signal, inputs)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Flash(0.0), "flip_deg: expected above 0 to 180, got 0"),
        (lambda: Flash(181.0), "flip_deg: expected above 0 to 180, got 181"),
        (lambda: Flash(math.nan), "flip_deg: expected above 0 to 180, got nan"),
        (lambda: Flash(5.0, tr_ms=0.0), "tr_ms: expected a number above 0, got 0"),
        (lambda: Flash(5.0, te_ms=20.0), r"te_ms: expected 0 or more and less than tr_ms \(20\), got 20"),
        (lambda: Mprage(tau_ms=0.0), "tau_ms: expected a number above 0, got 0"),
        (lambda: Mprage(pulses=0), "pulses: expected at least 1, got 0"),
        (lambda: Mprage(te_ms=8.0), r"te_ms: expected 0 or more and below tau_ms \(8\), got 8"),
        (lambda: Mprage(inversion_efficiency=1.1), "inversion_efficiency: expected above 0 to 1, got 1.1"),
        (lambda: Mprage(ti_ms=600.0), "ti_ms: expected at least 640, the pulses before the middle one, got 600"),
        (lambda: Mprage(tr_ms=1500.0), "tr_ms: expected at least 1540, the end of the train, got 1500"),
    ],
)
def test_what_cannot_be_played_is_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make()
