"""Learned synthesis: images from structures, by strengths that are learned about priors of their intensities."""

from collections.abc import Sequence
from typing import NamedTuple, final

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from metasynth.augment.augmenter import Augmenter, Takes, check_draws
from metasynth.augment.bias_field import NODES, BiasField, NodeValues
from metasynth.augment.bijections import Exp, Positive
from metasynth.augment.class_intensity import smooth_texture, texture_nodes
from metasynth.augment.intensities import UNIFORM, Priors, blurred, rescaled
from metasynth.augment.noise import GaussianNoise, standard_normal
from metasynth.errors import UsageError

GRAIN = 3
VARYING = 0.9
_REACH = 3
_SHIFT = 0.1  # of a mean, where a multiplier's logarithm moves by 1
_EDGE = 1e-3  # the base of a power stays above it, so that all derivatives are finite


class SynthesisDraws(NamedTuple):
    """The randomness of one application.

    Of zero mean and unit variance ``levels`` (B, G - 1) uniform and ``powers`` (B,) normal; of zero mean ``texture``
    (B, 1, *S) smooth and ``noise`` (B, 1, *S), normal times a factor of each image; ``nodes`` of the fields, raised to
    such factors; ``widths`` (B,) those of the blur.
    """

    levels: Tensor
    texture: Tensor
    powers: Tensor
    nodes: NodeValues
    noise: Tensor
    widths: Tensor


@final
class LearnedSynthesis(Augmenter[SynthesisDraws]):
    """Images of structures, about priors m_k, s_k and t_k of the intensity of structure k:

        flat = blur(c + a_o (m_k - c) + a_s s_k z_k + a_t t_k n),    z_k uniform, n a smooth texture,
        x <- scale(scale(flat)^exp(g z) field(c_low, c_mid, c_high)) + sigma eps.

    z_k is one draw per image and structure, z one per image, of unit variance both; c is the mean of the m_k. `scale`
    is what is done to scans (`metasynth.augment.intensities.rescaled`), so that the scale and offset of an image are
    learned by no parameter. Where the structures are background, the image is 0: scans cut to the brain have neither
    partial volume nor noise outside of it.

    Scans differ in how rough, noisy, blurred and uneven they are, and a segmenter that has only seen one strength of
    each holds on no other. So textures, noise, the blur's width and the logarithms of fields are multiplied by factors
    from U(1 - v, 1 + v), one of each kind for every image: what is learned are their means.

    Learned are one multiplier of all spreads, a_s, one of all textures, a_t, and one of the differences between means,
    a_o, each 1 at first and about the priors; the width of the blur (voxels), which makes partial volumes; the standard
    deviation g of the logarithm of the power; the exponents of the fields (`BiasField`); and sigma (`GaussianNoise`),
    in units of the scaled intensity. As images are scaled, a_s, a_t and a_o raised alike change nothing. Where all
    priors have one mean there is no a_o. With ``by_structure`` every structure has its own mean, and multipliers of its
    own on top of a_s and a_t: m_k + 0.1 shift_k, s_k exp(.) and t_k exp(.), in steps that suit one learning rate.

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
        for name, values in _of_foreground(priors).items():
            self.register_buffer(name, values)
        one = torch.ones(())
        self.raw_spread = nn.Parameter(self.bijection.inverse(one))
        self.raw_texture = nn.Parameter(self.bijection.inverse(one))
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

    mean: Tensor
    spread: Tensor
    texture: Tensor

    def draw(self, images: Tensor, generator: torch.Generator) -> SynthesisDraws:
        """See `SynthesisDraws`; for structures of the shape of ``images`` (B, 1, *S)."""
        b, shape = len(images), images.shape[2:]
        levels = UNIFORM * _centred(images.new_empty(b, len(self.mean)), generator)
        texture = smooth_texture(texture_nodes(images, GRAIN, generator), shape, GRAIN)
        powers = standard_normal(images.new_empty(b), generator)
        nodes, noise = self.field.draw(images, generator), self.noise.draw(images, generator)
        factors = 1 + 2 * self.varying * _centred(images.new_empty(4, b), generator)
        rough, uneven, noisy, widths = factors
        return SynthesisDraws(
            levels,
            _each(rough, texture) * texture,
            powers,
            tuple(values ** _each(uneven, values) for values in nodes),
            _each(noisy, noise) * noise,
            widths,
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
        """The multipliers spread, texture and offset, blur, sigma, the exponents c_low, c_mid and c_high, and gamma."""
        multipliers = {"spread": self.raw_spread, "texture": self.raw_texture, "offset": self.raw_offset}
        return {
            **{name: self.bijection.forward(raw).item() for name, raw in multipliers.items() if raw is not None},
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
        levels, texture, powers, nodes, noise, widths = self._checked(structures, draws)
        inside, at = structures[:, None] > 0, structures.flatten(1)
        mean, spread, textures = self._intensities()
        flat = _of_structure(mean + spread * levels, at) + _of_structure(
            textures.expand_as(levels), at
        ) * texture.flatten(1)
        image = blurred(flat.reshape(texture.shape), inside, self.blur() * widths, _REACH)
        base = _EDGE + (1 - _EDGE) * rescaled(image, inside)
        exponent = _each(torch.exp(self.gamma() * powers), base)
        clean = torch.where(inside, base**exponent, 0)
        field = self.field(torch.ones_like(clean), nodes)
        seen = rescaled(clean * field, inside)
        return clean, field, seen, torch.where(inside, self.noise(seen, noise), 0)

    def _checked(self, structures: Tensor, draws: SynthesisDraws) -> SynthesisDraws:
        b, ndim, image = len(structures), self.field.ndim, (len(structures), 1, *structures.shape[1:])
        if structures.ndim != ndim + 1:
            raise ValueError(
                f"structures: must have shape (B, *S) with {ndim} voxel axes, got {tuple(structures.shape)}"
            )
        nodes = tuple((b, 1, *[count] * ndim) for count in self.field.nodes)
        check_draws(draws, ((b, len(self.mean)), image, (b,), nodes, image, (b,)))
        return SynthesisDraws(*draws)


def _of_foreground(priors: Priors) -> dict[str, Tensor]:
    """Priors by name without those of the background, (G - 1,) each; UsageError where they are none."""
    counts = [len(values) for values in priors]
    if min(counts) < 2 or len(set(counts)) > 1:
        raise UsageError(f"priors: must be of the same structures, at least 2, got {', '.join(map(str, counts))}")
    found = {name: torch.tensor([float(v) for v in own[1:]]) for name, own in priors._asdict().items()}
    for name, values in found.items():
        bound = "" if name == "mean" else " of at least 0"
        wrong = ~torch.isfinite(values) if name == "mean" else ~(values.isfinite() & (values >= 0))
        for k in wrong.nonzero().flatten().tolist()[:1]:
            raise UsageError(f"priors: {name} must be finite numbers{bound}, got {values[k]:g} of structure {k + 1}")
    return found


def _centred(like: Tensor, generator: torch.Generator) -> Tensor:
    """U(-1/2, 1/2) in the shape, dtype and device of a tensor."""
    uniform = torch.rand(like.shape, generator=generator, dtype=like.dtype, device=generator.device)
    return (uniform - 0.5).to(like.device)


def _each(values: Tensor, images: Tensor) -> Tensor:
    """One value (B,) an image, to be set beside images (B, ...)."""
    return values.reshape(-1, *[1] * (images.ndim - 1))


def _of_structure(table: Tensor, structures: Tensor) -> Tensor:
    """Entries of a table (B, G - 1) at structures (B, N); 0 for background."""
    return pad(table, (1, 0)).gather(1, structures)
