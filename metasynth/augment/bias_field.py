"""Intensity non-uniformity (INU): images times a smooth random field, learned or known (Eqs 6 and 7).

Each field alpha_k is linear between random values on a grid of M_k nodes per axis, the outer of which lie on the outer
voxels: first-order B-splines of node spacing (N - 1) / (M_k - 1). Their weighted product is what an image is
multiplied by:

    alpha = prod_k alpha_k^c_k = exp(sum_k c_k log alpha_k),      x <- x * alpha.

One field per image, shared by its channels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from metasynth.augment.augmenter import Augmenter, check_draws
from metasynth.augment.bijections import Bijection, Sigmoid
from metasynth.errors import UsageError

PIECE_VOXELS = 2**22  # fields made at once: more than a training batch has
NODES = (2, 4, 8)
NODE_RANGE = (0.5, 2.0)

NodeValues = tuple[Tensor, ...]
"""Values on the nodes of each field, (B, 1, M_k, ...)."""

_LINEAR = {2: "bilinear", 3: "trilinear"}
_THREE = ("c_low", "c_mid", "c_high")


@final
class BiasField(Augmenter[NodeValues]):
    """x <- x * prod_k alpha_k^c_k with random fields alpha_k and learned exponents c_k (Eqs 6 and 7).

    The exponents set how much of each spatial frequency there is: at 0 a field has no effect. They have no unit and
    lie in (0, 1) by construction: `exponents = bijection.forward(raw_exponents)`, where `raw_exponents` (K,) is the
    parameter that an optimiser moves.

    Parameters
    ----------
    exponents : sequence of float
        The first values of c, one per field (K).
    nodes : sequence of int
        M_k, nodes per axis of each field, from low spatial frequency to high. One node gives a constant.
    node_range : (float, float)
        Ends of the uniform distribution of values on nodes.
    ndim : int
        Number of voxel axes, 2 or 3.
    bijection : Bijection
        The map from `raw_exponents` to c; `Sigmoid` onto (0, 1) unless given.

    Raises
    ------
    UsageError
        (a ValueError) for an argument out of range; `exponents` are, where the bijection does not reach them.
    """

    def __init__(
        self,
        exponents: Sequence[float],
        nodes: Sequence[int] = NODES,
        node_range: tuple[float, float] = NODE_RANGE,
        ndim: int = 2,
        bijection: Bijection | None = None,
    ) -> None:
        super().__init__()
        _check_grid(exponents, nodes, node_range)
        if ndim not in _LINEAR:
            raise UsageError(f"ndim: must be 2 or 3, got {ndim}")
        self.nodes = tuple(nodes)
        self.node_range = node_range
        self.ndim = ndim
        self.bijection = Sigmoid() if bijection is None else bijection
        start = torch.tensor([float(c) for c in exponents], dtype=torch.get_default_dtype())
        self.raw_exponents = nn.Parameter(self.bijection.inverse(start, name="exponents"))

    @property
    def exponents(self) -> Tensor:
        """The exponents (K,), differentiable with respect to `raw_exponents`."""
        return self.bijection.forward(self.raw_exponents)

    def draw(self, images: Tensor, generator: torch.Generator) -> NodeValues:
        """Values on the nodes of each field, K tensors (B, 1, M_k, ...), in the order of `nodes`."""
        self._check_axes(images)
        return draw_nodes(images, self.nodes, self.node_range, generator)

    def forward(self, images: Tensor, draws: NodeValues) -> Tensor:
        """Images (B, C, *S) times their fields, from `images` (B, C, *S) and `draws` of `draw`.

        Raises
        ------
        ValueError
            When `images` has another number of axes, or the shapes of `draws` do not belong to its.
        """
        self._check_axes(images)
        check_draws(draws, tuple((len(images), 1, *[count] * self.ndim) for count in self.nodes))
        return images * receive_field(draws, self.exponents, images.shape[2:])

    def observed(self) -> dict[str, float]:
        """The exponents: c_low, c_mid and c_high of three fields, else c_1, c_2, ..."""
        values = self.exponents.tolist()
        names = _THREE if len(values) == len(_THREE) else [f"c_{k}" for k in range(1, len(values) + 1)]
        return dict(zip(names, values, strict=True))

    def shown(self, images: Tensor, draws: NodeValues) -> dict[str, Tensor]:
        """The 'field' (B, C, *S) that `images` (B, C, *S) are multiplied by with `draws`."""
        return {"field": self(torch.ones_like(images), draws)}

    def _check_axes(self, images: Tensor) -> None:
        if images.ndim != self.ndim + 2:
            raise ValueError(
                f"images: must have shape (B, C, *S) with {self.ndim} voxel axes, got {tuple(images.shape)}"
            )


@final
@dataclass(frozen=True)
class KnownBias:
    """Known intensity non-uniformity: a corruption with exponents c_k >= 0 (Eqs 6 and 7).

    With equal draws and exponents bit for bit what `BiasField` gives. Parameters as there.

    Raises
    ------
    UsageError
        (a ValueError) for a field out of range.
    """

    exponents: tuple[float, ...]
    nodes: tuple[int, ...] = NODES
    node_range: tuple[float, float] = NODE_RANGE

    def __post_init__(self) -> None:
        _check_grid(self.exponents, self.nodes, self.node_range)
        if not all(0 <= c < math.inf for c in self.exponents):
            raise UsageError(f"exponents: must be finite numbers >= 0, got {tuple(self.exponents)}")

    def field(self, draws: NodeValues, shape: Sequence[int]) -> Tensor:
        """What an image is multiplied by, (B, 1, *S), of values on nodes (B, 1, M_k, ...), at voxels of `shape` S."""
        return receive_field(draws, torch.tensor(self.exponents, dtype=torch.float64), shape)

    def corrupt(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Images (B, C, *S) times a field drawn for each.

        Raises
        ------
        ValueError
            When `images` has not 2 or 3 voxel axes.
        """
        if images.ndim - 2 not in _LINEAR:
            raise ValueError(f"images: must have shape (B, C, *S) with 2 or 3 voxel axes, got {tuple(images.shape)}")
        draws = draw_nodes(images, self.nodes, self.node_range, generator)
        size = max(1, PIECE_VOXELS // max(1, images.shape[1:].numel()))
        pieces = zip(*(values.split(size) for values in (images, *draws)), strict=True)
        return torch.cat([part * self.field(tuple(own), part.shape[2:]) for part, *own in pieces])


def draw_nodes(
    images: Tensor, nodes: Sequence[int], node_range: tuple[float, float], generator: torch.Generator
) -> NodeValues:
    """beta_k ~ U(node_range) for each image, K tensors (B, 1, M_k, ...) of the dtype and device of `images` (Eq. 6)."""
    low, high = node_range
    shapes = [(len(images), 1, *[count] * (images.ndim - 2)) for count in nodes]
    drawn = [torch.rand(s, generator=generator, dtype=images.dtype, device=generator.device) for s in shapes]
    return tuple((low + (high - low) * uniform).to(images.device) for uniform in drawn)


def receive_field(draws: NodeValues, exponents: Tensor, shape: Sequence[int]) -> Tensor:
    """The field (B, 1, *S) of values on nodes (B, 1, M_k, ...) and exponents (K,), at voxels of `shape` (Eqs 6 and 7).

    Has the dtype and device of the node values. Along an axis of one voxel the first node counts.
    """
    mode = _LINEAR[len(shape)]
    fields = torch.stack([interpolate(values, tuple(shape), mode=mode, align_corners=True) for values in draws])
    powers = exponents.to(fields).reshape(-1, *[1] * (fields.ndim - 1))
    return (powers * fields.log()).sum(0).exp()


def _check_grid(exponents: Sequence[float], nodes: Sequence[int], node_range: tuple[float, float]) -> None:
    if not nodes or not all(isinstance(count, int) and count >= 1 for count in nodes):
        raise UsageError(f"nodes: must be one or more whole numbers >= 1, got {tuple(nodes)}")
    if len(exponents) != len(nodes):
        raise UsageError(f"exponents: must be {len(nodes)} numbers, one for each of nodes, got {tuple(exponents)}")
    low, high = node_range
    if not 0 < low <= high < math.inf:
        raise UsageError(f"node_range: must be two finite numbers with 0 < low <= high, got {low:g}, {high:g}")
