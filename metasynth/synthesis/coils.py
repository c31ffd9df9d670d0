"""The fields of the coils: what the flip angle is multiplied by, and what the image is; smooth, drawn per person.

Both are polynomials of the second order in r / 90 mm, r the place in the scanner, with coefficients for
(1, x, y, z, x^2 + y^2 + z^2). They are drawn once for a person in the scanner and hold for every slice and sequence.
"""

import torch
from torch import Tensor

RADIUS_MM = 90.0  # about half a head

# Transmit field at 3 T: the standing wave makes the middle of the head some 10 to 20 % brighter than asked for and its
# rim as much darker; calibration of the scanner is good to a few per cent.
_TRANSMIT_LEVEL_SD = 0.03
_TRANSMIT_FALL = (0.2, 0.4)
_TRANSMIT_SLOPE_SD = 0.02
# Receive field, after the scanner's own normalisation: array coils are brighter at the rim.
_RECEIVE_RISE = (0.0, 0.25)
_RECEIVE_SLOPE_SD = 0.08


def draw_transmit(generator: torch.Generator) -> Tensor:
    """Coefficients (5,) float64 of a transmit field: 1 on average, more in the middle of the head."""
    level = 1 + _TRANSMIT_LEVEL_SD * _normal(1, generator)
    slopes = _TRANSMIT_SLOPE_SD * _normal(3, generator)
    fall = _uniform(_TRANSMIT_FALL, generator)
    return torch.cat([level + fall / 2, slopes, -fall])


def draw_receive(generator: torch.Generator) -> Tensor:
    """Coefficients (5,) float64 of the logarithm of a receive field."""
    rise = _uniform(_RECEIVE_RISE, generator)
    slopes = _RECEIVE_SLOPE_SD * _normal(3, generator)
    return torch.cat([-rise / 2, slopes, rise])


def transmit_field(coefficients: Tensor, points_mm: Tensor) -> Tensor:
    """B1, the flip angle reached over the one asked for, (*S), at points (*S, 3) in mm; at least .1."""
    return _polynomial(coefficients, points_mm).clamp(min=0.1)


def receive_field(coefficients: Tensor, points_mm: Tensor) -> Tensor:
    """Sensitivity (*S), above 0, at points (*S, 3) in mm."""
    return _polynomial(coefficients, points_mm).exp()


def _polynomial(coefficients: Tensor, points_mm: Tensor) -> Tensor:
    at = points_mm / RADIUS_MM
    linear = (at * coefficients[1:4]).sum(-1)
    return coefficients[0] + linear + coefficients[4] * (at**2).sum(-1)


def _normal(count: int, generator: torch.Generator) -> Tensor:
    return torch.randn(count, dtype=torch.float64, generator=generator, device=generator.device)


def _uniform(bounds: tuple[float, float], generator: torch.Generator) -> Tensor:
    drawn = torch.rand(1, dtype=torch.float64, generator=generator, device=generator.device)
    return bounds[0] + (bounds[1] - bounds[0]) * drawn
