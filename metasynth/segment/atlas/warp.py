"""Where the voxels of an image lie in an atlas: a linear map and a deformation by cubic B-splines.

    T(x) = exp(M) (x - o) + o' + t + u(x)

with x in mm, o and o' fixed centres, M any matrix (affine) or a skew one (rigid), and u a sum of cubic B-splines on
control points over the image. exp(M) never mirrors.
"""

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor


@final
@dataclass(frozen=True, eq=False)
class Warp:
    """The parameters of T.

    Attributes
    ----------
    generator : Tensor (d, d)
        M.
    shift : Tensor (d,)
        t, mm.
    control : Tensor (d, *C)
        Coefficients of the splines of u, mm.
    """

    generator: Tensor
    shift: Tensor
    control: Tensor

    def matrix(self) -> Tensor:
        """exp(M), (d, d)."""
        return torch.linalg.matrix_exp(self.generator)


@final
@dataclass(frozen=True, eq=False)
class Frame:
    """The voxels of an image that are fitted, and the control points over it.

    Attributes
    ----------
    mask : Tensor (*S) bool
        Voxels that are fitted, P of them.
    points : Tensor (P, d)
        Where they lie, mm from the middle of the image.
    splines : tuple of Tensor (n_a, c_a)
        Weight of each control point at each voxel, along each axis.
    control_mm : tuple of float
        Distance of control points along each axis.
    voxels_per_control : float
        Voxels in a cell of the control points.
    centre, atlas_centre : Tensor (d,)
        o and o', mm from the middle of image and atlas.
    """

    mask: Tensor
    points: Tensor
    splines: tuple[Tensor, ...]
    control_mm: tuple[float, ...]
    voxels_per_control: float
    centre: Tensor
    atlas_centre: Tensor

    @classmethod
    def of(
        cls, mask: Tensor, spacing: tuple[float, ...], control_mm: float, centre: Tensor | None, atlas_centre: Tensor
    ) -> "Frame":
        """The frame of an image.

        Parameters
        ----------
        mask : Tensor (*S) bool
            Voxels that are fitted.
        spacing : tuple of float
            Voxel size in mm.
        control_mm : float
            About the distance of control points; of each axis it is made a whole fraction of its length.
        centre : Tensor (d,) or None
            What is brought to `atlas_centre` at first; None takes the middle of the mask's voxels.
        atlas_centre : Tensor (d,)
            mm from the middle of the atlas.
        """
        index = mask.nonzero().to(atlas_centre)
        size = atlas_centre.new_tensor(spacing)
        points = size * (index - (index.new_tensor(mask.shape) - 1) / 2)
        cells = [max(1, round((n - 1) * s / control_mm)) for n, s in zip(mask.shape, spacing, strict=True)]
        steps = tuple(max((n - 1) * s, s) / m for n, s, m in zip(mask.shape, spacing, cells, strict=True))
        return cls(
            mask=mask,
            points=points,
            splines=tuple(spline_weights(n, m, atlas_centre) for n, m in zip(mask.shape, cells, strict=True)),
            control_mm=steps,
            voxels_per_control=math.prod(steps) / math.prod(spacing),
            centre=points.mean(0) if centre is None else centre,
            atlas_centre=atlas_centre,
        )

    def still(self) -> Warp:
        """The warp that only brings centre to centre."""
        ndim = len(self.splines)
        zeros = self.points.new_zeros
        return Warp(zeros(ndim, ndim), zeros(ndim), zeros(ndim, *[spline.shape[1] for spline in self.splines]))

    @property
    def radius(self) -> Tensor:
        """Typical distance of the voxels from the centre, mm, ()."""
        return (self.points - self.centre).square().sum(1).mean().sqrt().clamp(min=1.0)

    def linear(self, warp: Warp) -> Tensor:
        """T(x) - u(x) at the voxels of the mask, (P, d) mm from the middle of the atlas."""
        return (self.points - self.centre) @ warp.matrix().T + self.atlas_centre + warp.shift

    def displacement(self, control: Tensor) -> Tensor:
        """The deformation u at all voxels, (d, *S) mm, of coefficients (d, *C)."""
        field = control
        for spline in self.splines:
            field = torch.tensordot(field, spline, dims=([1], [1]))  # the new axis comes last, so all have their turn
        return field

    def __call__(self, warp: Warp) -> Tensor:
        """T(x) at the voxels of the mask, (P, d) mm from the middle of the atlas."""
        return self.deformed(self.linear(warp), warp)

    def deformed(self, linear: Tensor, warp: Warp) -> Tensor:
        """T(x), (P, d), of its linear part (P, d)."""
        return linear + self.displacement(warp.control)[:, self.mask].T

    def energy(self, control: Tensor) -> Tensor:
        """Sums (2,) over voxels of half the squared gradient of u (membrane) and second derivatives (bending)."""
        membrane = bending = control.new_zeros(())
        for axis, step in enumerate(self.control_mm, start=1):
            slope = control.diff(dim=axis) / step
            membrane = membrane + slope.square().sum()
            for other, its_step in enumerate(self.control_mm, start=1):
                if slope.shape[other] > 1:
                    bending = bending + (slope.diff(dim=other) / its_step).square().sum()
        return 0.5 * self.voxels_per_control * torch.stack([membrane, bending])


def spline_weights(n: int, cells: int, like: Tensor) -> Tensor:
    """Cubic B-splines at n voxels, (n, cells + 3): one control point a cell and one more beyond each end."""
    at = torch.arange(n).to(like) * (cells / max(n - 1, 1))
    distance = (at[:, None] - (torch.arange(cells + 3).to(like) - 1)).abs()
    near = 2 / 3 - distance.square() + distance.pow(3) / 2
    far = (2 - distance).clamp(min=0).pow(3) / 6
    return torch.where(distance < 1, near, far)
