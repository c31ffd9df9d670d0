"""Curves of intensities: those that have a name, a user's own, and texts that are none."""

import pytest
from metasynth.data_prep.remapping.curves import CURVES, Curve, parse_curve

from metasynth.errors import UsageError


def test_the_named_ones():
    assert {name: curve.points for name, curve in CURVES.items()} == {
        "inverted": ((0, 1), (1, 0)),
        "bent": ((0, 0), (0.2, 0.2), (0.5, 1), (1, 0.4)),
    }
    assert parse_curve("bent") is CURVES["bent"]
    assert CURVES["bent"].said == "bent (0:0,0.2:0.2,0.5:1,1:0.4)"


def test_points_of_a_user():
    curve = parse_curve("0:0,0.3:.9, 1:2e-1")
    assert curve == Curve("", ((0.0, 0.0), (0.3, 0.9), (1.0, 0.2)))
    assert curve.said == "0:0,0.3:0.9,1:0.2"
    exact = parse_curve("0:0.123456789,1:1e-9")
    assert parse_curve(exact.said) == exact


FORM = "expected inverted, bent or points X:Y,X:Y,..., got"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", f"--curve '': {FORM} ''"),
        ("invertd", f"--curve 'invertd': {FORM} 'invertd'"),
        ("0:0,1", f"--curve '0:0,1': {FORM} '1'"),
        ("0:0,,1:1", f"--curve '0:0,,1:1': {FORM} ''"),
        ("0:0,1:1:1", f"--curve '0:0,1:1:1': {FORM} '1:1:1'"),
        ("0:0,0.5:1.1,1:0", "--curve '0:0,0.5:1.1,1:0': x and y must be numbers in [0, 1], got 1.1 in '0.5:1.1'"),
        ("0:-.1,1:0", "--curve '0:-.1,1:0': x and y must be numbers in [0, 1], got -0.1 in '0:-.1'"),
        ("0:nan,1:0", "--curve '0:nan,1:0': x and y must be numbers in [0, 1], got nan in '0:nan'"),
        ("0:0,inf:1", "--curve '0:0,inf:1': x and y must be numbers in [0, 1], got inf in 'inf:1'"),
        (
            "0:0,0.5:1,0.5:0,1:0",
            "--curve '0:0,0.5:1,0.5:0,1:0': x must increase from point to point, got 0.5 after 0.5",
        ),
        ("1:0,0:1", "--curve '1:0,0:1': x must increase from point to point, got 0 after 1"),
        ("0.1:0,1:1", "--curve '0.1:0,1:1': x must go from 0 to 1 in at least 2 points, got 0.1, 1"),
        ("0:0,0.9:1", "--curve '0:0,0.9:1': x must go from 0 to 1 in at least 2 points, got 0, 0.9"),
        ("0:1", "--curve '0:1': x must go from 0 to 1 in at least 2 points, got 0"),
    ],
)
def test_what_is_no_curve_is_one_line(text, line):
    with pytest.raises(UsageError) as caught:
        parse_curve(text)
    assert str(caught.value) == line
