import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from metasynth.augment.bijections import Bijection, Exp, Sigmoid, Softplus

ALL = [Softplus(), Exp(), Sigmoid(), Sigmoid(-2.0, 5.0)]


def positive(smallest: float, largest: float) -> st.SearchStrategy[float]:
    """Log-uniform, so that every order of magnitude is tried."""
    return st.floats(math.log(smallest), math.log(largest)).map(math.exp)


@pytest.mark.parametrize("bijection", [Softplus(), Exp()], ids=repr)
@given(value=positive(1e-300, 1e300))
def test_positive_value_survives_the_round_trip_in_float64(bijection: Bijection, value: float) -> None:
    there = bijection.inverse(torch.tensor(value, dtype=torch.float64))
    assert bijection.forward(there).item() == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("bijection", [Softplus(), Exp()], ids=repr)
@given(value=positive(1e-36, 1e36))
def test_positive_value_survives_the_round_trip_in_float32(bijection: Bijection, value: float) -> None:
    there = bijection.inverse(torch.tensor(value, dtype=torch.float32))
    assert bijection.forward(there).item() == pytest.approx(value, rel=2e-5)


@given(low=st.floats(-100, 100), span=st.floats(1e-3, 100), fraction=st.floats(1e-6, 1 - 1e-6))
def test_sigmoid_value_survives_the_round_trip(low: float, span: float, fraction: float) -> None:
    bijection = Sigmoid(low, low + span)
    value = low + fraction * span
    there = bijection.inverse(torch.tensor(value, dtype=torch.float64))
    assert bijection.forward(there).item() == pytest.approx(value, abs=1e-9 * span)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bijection", ALL, ids=repr)
def test_raw_value_survives_the_round_trip(bijection: Bijection, dtype: torch.dtype) -> None:
    raw = torch.linspace(-6, 6, 25, dtype=dtype)
    torch.testing.assert_close(bijection.inverse(bijection.forward(raw)), raw, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bijection", ALL, ids=repr)
def test_forward_increases(bijection: Bijection) -> None:
    assert torch.all(torch.diff(bijection.forward(torch.linspace(-8, 8, 100))) > 0)


@pytest.mark.parametrize("bijection", ALL, ids=repr)
def test_forward_is_twice_differentiable(bijection: Bijection) -> None:
    raw = torch.tensor([-30.0, -1.0, 0.0, 0.5, 6.0], dtype=torch.float64, requires_grad=True)
    assert gradcheck(bijection.forward, raw)
    assert gradgradcheck(bijection.forward, raw)


def test_forward_is_finite_where_a_naive_formula_overflows() -> None:
    raw = torch.tensor([-1000.0, 1000.0])
    assert Softplus().forward(raw).tolist() == [0.0, 1000.0]
    assert Sigmoid(1.0, 3.0).forward(raw).tolist() == [1.0, 3.0]


def test_known_values() -> None:
    zero = torch.zeros((), dtype=torch.float64)
    assert Softplus().forward(zero).item() == pytest.approx(math.log(2))
    assert Exp().forward(zero).item() == 1.0
    assert Sigmoid(2.0, 4.0).forward(zero).item() == 3.0


@pytest.mark.parametrize("value", [0.0, -0.1, math.inf, math.nan])
@pytest.mark.parametrize("bijection", [Softplus(), Exp(), Sigmoid(0.0, 1.0)], ids=repr)
def test_inverse_rejects_what_it_does_not_reach(bijection: Bijection, value: float) -> None:
    with pytest.raises(ValueError, match=rf"^sigma: must be .*, got {value:g}$"):
        bijection.inverse(torch.tensor([0.5, value]), name="sigma")


def test_sigmoid_rejects_its_own_bounds() -> None:
    for bound in (2.0, 3.0):
        with pytest.raises(ValueError, match="greater than 2 and less than 3"):
            Sigmoid(2.0, 3.0).inverse(torch.tensor(bound))


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0), (0.0, math.inf), (math.nan, 1.0)])
def test_sigmoid_rejects_an_empty_or_infinite_range(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="low < high"):
        Sigmoid(low, high)
