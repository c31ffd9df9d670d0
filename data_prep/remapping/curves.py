"""Curves of intensities: piecewise linear from [0, 1] to [0, 1]; light to import, as help lists their names."""

from dataclasses import dataclass
from itertools import pairwise

from metasynth.errors import UsageError
from metasynth.text import shown

Point = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """A curve through points (x, y), straight between them.

    Attributes
    ----------
    name : str
        What it is called; empty for a user's own.
    points : tuple of (float, float)
        At least two, all numbers in [0, 1]; x increases from 0 to 1.
    """

    name: str
    points: tuple[Point, ...]

    @property
    def said(self) -> str:
        """Name, if it has one, and points with all their digits: 'inverted (0:1,1:0)'."""
        points = ",".join(":".join(repr(number).removesuffix(".0") for number in point) for point in self.points)
        return f"{self.name} ({points})" if self.name else points


CURVES = {
    curve.name: curve
    for curve in (
        Curve("inverted", ((0.0, 1.0), (1.0, 0.0))),
        # Of a T1: grey matter brighter than white, fluid dark, as in FLAIR.
        Curve("bent", ((0.0, 0.0), (0.2, 0.2), (0.5, 1.0), (1.0, 0.4))),
    )
}


def parse_curve(text: str) -> Curve:
    """A curve by its name, or by its points X:Y,X:Y.

    Raises
    ------
    UsageError
        It is no such text, or a point is not allowed; the line names the point.
    """
    return CURVES[text] if text in CURVES else Curve("", _points(text))


def _points(text: str) -> tuple[Point, ...]:
    where = f"--curve {shown(text)}"
    points = tuple(_point(part, where) for part in text.split(","))
    for (before, _), (x, _) in pairwise(points):
        if x <= before:
            raise UsageError(f"{where}: x must increase from point to point, got {x:g} after {before:g}")
    if len(points) < 2 or (points[0][0], points[-1][0]) != (0.0, 1.0):
        raise UsageError(
            f"{where}: x must go from 0 to 1 in at least 2 points, got {', '.join(f'{x:g}' for x, _ in points)}"
        )
    return points


def _point(part: str, where: str) -> Point:
    x, _, y = part.partition(":")
    try:
        point = float(x), float(y)
    except ValueError:
        raise UsageError(f"{where}: expected {', '.join(CURVES)} or points X:Y,X:Y,..., got {shown(part)}") from None
    wrong = next((number for number in point if not 0 <= number <= 1), None)
    if wrong is not None:
        raise UsageError(f"{where}: x and y must be numbers in [0, 1], got {wrong:g} in {shown(part)}")
    return point
