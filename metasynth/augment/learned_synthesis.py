"""Learned synthesis: images from structures, by strengths that are learned about priors of their intensities."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from metasynth.augment.augmenter import Augmenter, Takes, check_draws
from metasynth.augment.bias_field import NODES, BiasField, NodeValues
from metasynth.augment.bijections import Exp, Positive
from metasynth.augment.class_intensity import smooth_texture, texture_nodes
from metasynth.augment.intensities import UNIFORM, Priors, blurred, foreground_of, of_structure, rescaled
from metasynth.augment.noise import GaussianNoise, standard_normal
from metasynth.errors import DataError, UsageError

GRAINS = (1, 2, 4)
"""Voxels from node to node of the textures that are mixed; 1 is white."""
VARYING = 0.9
_REACH = 3
_SHIFT = 0.1  # of a mean, where a multiplier's logarithm moves by 1
_EDGE = 1e-3  # the base of a power stays above it, so that all derivatives are finite


class SynthesisDraws(NamedTuple):
    """The randomness of one application.

    Of zero mean and unit variance ``levels`` (B, G - 1) uniform, ``mixture`` (B, J, G - 1) and ``powers`` (B,) normal;
    of zero mean ``textures`` (B, J, *S), of one of `GRAINS` each, and ``noise`` (B, 1, *S), normal times a factor of
    each image; ``nodes`` of the fields, raised to such factors; ``widths`` (B, D) those of the blur along each axis.
    """

    levels: Tensor
    textures: Tensor
    mixture: Tensor
    powers: Tensor
    nodes: NodeValues
    noise: Tensor
    widths: Tensor


@final
class LearnedSynthesis(Augmenter[SynthesisDraws]):
    """Images of structures, about priors m_k, s_k and t_k of the intensity of structure k:

        flat = blur(c + a_o (m_k - c) + a_s s_k z_k) + blur(a_t t_k) n_k,    z_k uniform, n_k a texture,
        x <- scale(scale(flat)^exp(g z) field(c_low, c_mid, c_high)) + sigma eps.

    z_k is one draw per image and structure, z one per image, of unit variance both; c is the mean of the m_k. `scale`
    is what is done to scans (`metasynth.augment.intensities.rescaled`), so that the scale and offset of an image are
    learned by no parameter. Where the structures are background, the image is 0: scans cut to the brain have neither
    partial volume nor noise outside of it.

    The textures t_k of priors are those of scans, blurred as these are, so that the blur mixes structures and leaves
    textures within them what they are. A texture has no one grain either:

        n_k = sum_j w_jk n_j / sqrt(sum_j w_jk^2),    w_jk = h^j q_jk,

    where n_j is noise of unit variance that is linear between nodes `GRAINS` voxels apart, shared by the structures of
    an image, and q_jk ~ N(0, 1) is one draw per image, grain and structure. So n_k has unit variance at every voxel,
    some are fine and some are coarse, and those of two structures are uncorrelated, as q_jk has either sign. What is
    learned is h: above 1 textures are coarser.

    Scans differ in how rough, noisy, blurred and uneven they are, and a segmenter that has only seen one strength of
    each holds on no other. So textures, noise, the blur's width along each axis and the logarithms of fields are
    multiplied by factors from U(1 - v, 1 + v), one of each kind for every image: what is learned are their means. An
    image that is more blurred along one axis than along another is one of larger voxels there, or thicker slices.

    Learned are one multiplier of all spreads, a_s, one of all textures, a_t, and one of the differences between means,
    a_o, each 1 at first and about the priors; h, 1 at first; the width of the blur (voxels), which makes partial
    volumes; the standard deviation g of the logarithm of the power; the exponents of the fields (`BiasField`); and
    sigma (`GaussianNoise`), in units of the scaled intensity. As images are scaled, a_s, a_t and a_o raised alike
    change nothing. Where all priors have one mean there is no a_o. With ``by_structure`` every structure has its own
    mean, and multipliers of its own on top of a_s and a_t: m_k + 0.1 shift_k, s_k exp(.) and t_k exp(.), in steps that
    suit one learning rate.

    Parameters
    ----------
    priors : Priors
    ndim : int
        Number of voxel axes, 2 or 3.
    sigma, blur, gamma : float
        The first values of sigma, the blur's width, which reaches three voxels either way, and g.
    exponents, nodes : sequence
        As of `BiasField`.
    varying : float
        v, in [0, 1). 0: all images have the same strengths.
    by_structure : bool
        Whether a mean, a spread and a texture are learned of each structure too.

    Raises
    ------
    UsageError
        (a ValueError) for an argument out of range.
    """

    takes: Takes = "structures"

    def __init__(
        self,
        priors: Priors,
        ndim: int = 2,
        sigma: float = 0.1,
        blur: float = 0.4,
        gamma: float = 0.2,
        exponents: Sequence[float] = (0.3, 0.3, 0.3),
        nodes: Sequence[int] = NODES,
        varying: float = VARYING,
        by_structure: bool = True,
    ) -> None:
        super().__init__()
        if not 0 <= varying < 1:
            raise UsageError(f"varying: must be at least 0 and less than 1, got {varying}")
        self.varying = varying
        self.bijection = Exp()
        for name, values in foreground_of(priors).items():
            self.register_buffer(name, values)
        one = torch.ones(())
        self.raw_spread = nn.Parameter(self.bijection.inverse(one))
        self.raw_texture = nn.Parameter(self.bijection.inverse(one))
        self.raw_grain = nn.Parameter(self.bijection.inverse(one))
        apart = bool((self.mean != self.mean[0]).any())
        self.raw_offset = nn.Parameter(self.bijection.inverse(one)) if apart else None
        each = torch.ones_like(self.mean)
        self.shifts = nn.Parameter(0 * each) if by_structure else None
        self.raw_spreads = nn.Parameter(self.bijection.inverse(each)) if by_structure else None
        self.raw_textures = nn.Parameter(self.bijection.inverse(each)) if by_structure else None
        self.blur = Positive(blur, "blur")
        self.gamma = Positive(gamma, "gamma")
        self.field = BiasField(exponents, nodes, ndim=ndim)
        self.noise = GaussianNoise(sigma)
        self.register_load_state_dict_pre_hook(_require_grain)

    mean: Tensor
    spread: Tensor
    texture: Tensor

    def draw(self, images: Tensor, generator: torch.Generator) -> SynthesisDraws:
        """See `SynthesisDraws`; for structures of the shape of ``images`` (B, 1, *S)."""
        b, shape = len(images), images.shape[2:]
        levels = UNIFORM * _centred(images.new_empty(b, len(self.mean)), generator)
        textures = torch.cat([smooth_texture(texture_nodes(images, j, generator), shape, j) for j in GRAINS], 1)
        mixture = standard_normal(images.new_empty(b, len(GRAINS), len(self.mean)), generator)
        powers = standard_normal(images.new_empty(b), generator)
        nodes, noise = self.field.draw(images, generator), self.noise.draw(images, generator)
        factors = 1 + 2 * self.varying * _centred(images.new_empty(3 + len(shape), b), generator)
        rough, uneven, noisy, *widths = factors
        return SynthesisDraws(
            levels,
            _each(rough, textures) * textures,
            mixture,
            powers,
            tuple(values ** _each(uneven, values) for values in nodes),
            _each(noisy, noise) * noise,
            torch.stack(widths, 1),
        )

    def forward(self, structures: Tensor, draws: SynthesisDraws) -> Tensor:
        """Images (B, 1, *S) of structures (B, *S) int64 in 0..G-1, from ``draws`` of `draw`; 0 is background.

        Raises
        ------
        ValueError
            When the shapes of ``draws`` do not belong to those of ``structures``.
        """
        *_, noisy = self._steps(structures, draws)
        return noisy

    def observed(self) -> dict[str, float]:
        """The multipliers spread, texture and offset, grain (h), blur, sigma, the exponents of fields, and gamma."""
        raws = {name: getattr(self, f"raw_{name}") for name in ("spread", "texture", "offset", "grain")}
        return {
            **{name: self.bijection.forward(raw).item() for name, raw in raws.items() if raw is not None},
            "blur": self.blur().item(),
            **self.noise.observed(),
            **self.field.observed(),
            "gamma": self.gamma().item(),
        }

    def shown(self, structures: Tensor, draws: SynthesisDraws) -> dict[str, Tensor]:
        """The 'synthetic' image before its field, the 'field', and the 'noise'."""
        clean, field, seen, noisy = self._steps(structures, draws)
        return {"synthetic": clean, "field": field, "noise": noisy - seen}

    def priors(self) -> Priors:
        """The priors that the multipliers have made of those it started from, as ``priors`` of another one."""
        levels, spread, texture = (values.detach() for values in self._intensities())
        return Priors(*(pad(values, (1, 0)).tolist() for values in (levels, spread, texture)))

    def _intensities(self) -> tuple[Tensor, Tensor, Tensor]:
        """Means, spreads and textures of the structures, (G - 1,) each."""
        mean, spread, texture, scale = self.mean, self.spread, self.texture, self.bijection.forward
        if self.shifts is not None and self.raw_spreads is not None and self.raw_textures is not None:
            mean = mean + _SHIFT * self.shifts
            spread, texture = scale(self.raw_spreads) * spread, scale(self.raw_textures) * texture
        if self.raw_offset is not None:
            mean = mean.mean() + scale(self.raw_offset) * (mean - mean.mean())
        return mean, scale(self.raw_spread) * spread, scale(self.raw_texture) * texture

    def _steps(self, structures: Tensor, draws: SynthesisDraws) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The clean image, its field, both scaled as scans are, and with noise, (B, 1, *S) each."""
        levels, textures, mixture, powers, nodes, noise, widths = self._checked(structures, draws)
        inside = structures[:, None] > 0
        mean, spread, roughness = self._intensities()
        tables = torch.stack([mean + spread * levels, roughness.expand_as(levels)], 1)
        level, rough = blurred(of_structure(tables, structures), inside, self.blur() * widths, _REACH).split(1, 1)
        texture = (of_structure(self._mixed(mixture), structures) * textures).sum(1, keepdim=True)
        base = _EDGE + (1 - _EDGE) * rescaled(level + rough * texture, inside)
        exponent = _each(torch.exp(self.gamma() * powers), base)
        clean = torch.where(inside, base**exponent, 0)
        field = self.field(torch.ones_like(clean), nodes)
        seen = rescaled(clean * field, inside)
        return clean, field, seen, torch.where(inside, self.noise(seen, noise), 0)

    def _mixed(self, mixture: Tensor) -> Tensor:
        """How much of each grain there is in a structure's texture, (B, J, G - 1), of a square sum of 1."""
        steps = torch.arange(len(GRAINS), dtype=mixture.dtype, device=mixture.device)
        weights = (self.bijection.forward(self.raw_grain) ** (steps - steps.mean()))[:, None] * mixture
        return weights / weights.square().sum(1, keepdim=True).sqrt()

    def _checked(self, structures: Tensor, draws: SynthesisDraws) -> SynthesisDraws:
        b, ndim, image = len(structures), self.field.ndim, (len(structures), 1, *structures.shape[1:])
        if structures.ndim != ndim + 1:
            raise ValueError(
                f"structures: must have shape (B, *S) with {ndim} voxel axes, got {tuple(structures.shape)}"
            )
        nodes = tuple((b, 1, *[count] * ndim) for count in self.field.nodes)
        grains, known = len(GRAINS), len(self.mean)
        textures = (b, grains, *structures.shape[1:])
        check_draws(draws, ((b, known), textures, (b, grains, known), (b,), nodes, image, (b, ndim)))
        return SynthesisDraws(*draws)


def _require_grain(module: nn.Module, state: Mapping[str, Any], prefix: str, *_: Any) -> None:
    """DataError for a state from before textures were mixed of grains, which no strength of today's stands for."""
    if f"{prefix}raw_grain" not in state and f"{prefix}raw_texture" in state:
        raise DataError("a synthesis from before textures had grains, which made other images: learn it again")


def _centred(like: Tensor, generator: torch.Generator) -> Tensor:
    """U(-1/2, 1/2) in the shape, dtype and device of a tensor."""
    uniform = torch.rand(like.shape, generator=generator, dtype=like.dtype, device=generator.device)
    return (uniform - 0.5).to(like.device)


def _each(values: Tensor, images: Tensor) -> Tensor:
    """One value (B,) an image, to be set beside images (B, ...)."""
    return values.reshape(-1, *[1] * (images.ndim - 1))
