"""Fitting an atlas to an image: the warp that makes the intensities likeliest under a mixture held fixed.

Maximised is  sum_x log sum_k rho_k(T(x)) p(y(x) | k) - stiffness E(u),  the likelihood itself and not EM's bound, by
L-BFGS, in the linear map or in the control points.
"""

from dataclasses import replace

import torch
from torch import Tensor
from torch.optim import LBFGS

from metasynth.segment.atlas.prior import Atlas
from metasynth.segment.atlas.settings import Kind, Stiffness
from metasynth.segment.atlas.warp import Frame, Warp


def register(
    atlas: Atlas,
    frame: Frame,
    likelihoods: Tensor,
    proportions: Tensor,
    warp: Warp,
    kind: Kind,
    stiffness: Stiffness,
    iterations: int,
) -> Warp:
    """A warp under which the image is at least as likely as under the given one.

    Parameters
    ----------
    atlas : Atlas
        The prior.
    frame : Frame
        The image's voxels, P of them.
    likelihoods : Tensor (K, P)
        p(y | k) at each voxel, up to a factor for each voxel.
    proportions : Tensor (K,)
        gamma of the mixture.
    warp : Warp
        Where to start.
    kind : "rigid", "affine" or "deformable"
        What is changed: M kept skew and t, M and t, or u.
    stiffness : Stiffness
        The cost of u.
    iterations : int
        Most steps of L-BFGS.
    """
    weighted = proportions[:, None] * likelihoods
    linear = frame.linear(warp)
    parameters = _parameters(warp, kind, frame).clone().requires_grad_()
    # Its gradient tolerance would be one per voxel, hence never reached or always; the change of the cost decides.
    optimiser = LBFGS(
        [parameters], max_iter=iterations, tolerance_grad=0.0, tolerance_change=1e-7, line_search_fn="strong_wolfe"
    )

    def cost() -> Tensor:
        moved = _with(warp, parameters, kind, frame)
        prior = atlas.at(frame.deformed(linear, moved) if kind == "deformable" else frame(moved))
        gain = ((weighted * prior).sum(0).log() - (proportions @ prior).log()).sum()
        return (stiffness.of(frame.energy(moved.control)) - gain) / len(frame.points)

    def closure() -> float:
        optimiser.zero_grad()
        value = cost()
        value.backward()
        return value.item()

    before = float(optimiser.step(closure))
    with torch.no_grad():
        better = float(cost()) <= before  # a line search may give up on higher ground
    return _with(warp, parameters.detach(), kind, frame) if better else warp


def _parameters(warp: Warp, kind: Kind, frame: Frame) -> Tensor:
    """What is optimised, (n,), in mm: elements of M by what they move at the typical distance from the centre."""
    if kind == "deformable":
        return warp.control.reshape(-1)
    elements = warp.generator[_upper(warp)] if kind == "rigid" else warp.generator.reshape(-1)
    return torch.cat([elements * frame.radius, warp.shift])


def _with(warp: Warp, parameters: Tensor, kind: Kind, frame: Frame) -> Warp:
    """The warp with these parameters, see `_parameters`."""
    if kind == "deformable":
        return replace(warp, control=parameters.reshape(warp.control.shape))
    ndim = len(warp.shift)
    elements, shift = parameters[:-ndim] / frame.radius, parameters[-ndim:]
    if kind == "affine":
        return replace(warp, generator=elements.reshape(ndim, ndim), shift=shift)
    upper = torch.zeros_like(warp.generator).index_put(_upper(warp), elements)
    return replace(warp, generator=upper - upper.T, shift=shift)


def _upper(warp: Warp) -> tuple[Tensor, Tensor]:
    """Indices of the elements above the diagonal of M."""
    ndim = len(warp.shift)
    rows, columns = torch.triu_indices(ndim, ndim, 1, device=warp.shift.device)
    return rows, columns
