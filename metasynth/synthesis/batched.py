"""Cornucopia's family of images for whole batches, in 2D and 3D, on any device."""

from typing import final

import torch
from torch import Tensor

from metasynth.errors import UsageError
from metasynth.synthesis import intensity
from metasynth.synthesis.config import PAPER, CornucopiaConfig
from metasynth.synthesis.contrast import EstimatedContrast, RandomContrast
from metasynth.synthesis.generator import SeededGenerator
from metasynth.synthesis.parts.steps import Steps
from metasynth.synthesis.priors.structure_priors import StructurePriors


@final
class BatchedGenerator(SeededGenerator):
    """The steps and distributions of `CornucopiaGenerator`, several times faster.

    In order, each left out where its options are 0 or False:

    1. affine and elastic deformation of the labels, nearest neighbour; beyond the edge its labels go on;
    2. a Gaussian per class: mean U(0, 1), standard deviation U(0, `class_sd`), its noise smoothed by U(0, `gmm_fwhm`);
       background is 0;
    3. times a bias field, a spline of 2 to `bias` points along an axis, between 1 - b and 1 + b, b from U(0, 0.5);
    4. between the image's minimum and maximum, to the power of exp(N(0, `gamma`^2));
    5. smoothing by U(0, `motion_fwhm`) voxels;
    6. voxels U(1, `resolution`) times as large, along all axes or one, sampled back;
    7. root of squares with chi noise of 2 to 8 channels and standard deviation U(0, 1 / `snr`), times a field between
       0.5 and 1.5; in the larger voxels where there are any;
    8. the 1 % and 99 % quantiles of the non-zero voxels to 0 and 1, not clamped, as in `CornucopiaGenerator`; images of
       whole heads, whose background is air, as scans of heads are scaled (`head_ends`), cut to [0, 1].

    With priors, means, textures (after smoothing) and scale are those of scans, see `EstimatedContrast`.

    A label map with no foreground, before or after its deformation, gives an image of zeros.

    It differs from cornucopia in the random streams, hence in the image a seed gives, and in what is far below the
    spread between seeds: smooth noise lacks frequencies that hold 4e-4 of its variance per axis; the quantiles are
    those of every n-th voxel, 10,000 at most, not of 10,000 random ones; displacements by splines of order 2 and more
    are linear between voxels; shears in 3D agree to first order.

    Works on the device of the labels; the same seed gives other images on another kind of device. An image and its
    labels are bit for bit the same in any batch, on the CPU; on other devices up to rounding.

    Parameters
    ----------
    n_classes : int
        K, the number of classes, background included.
    config : CornucopiaConfig
        The steps and their strengths.
    class_sd : float
        Largest standard deviation of a class's noise before smoothing; in cornucopia's transform it is always 0.05.
    priors : StructurePriors or None
        Of all K; `class_sd` has no meaning then.
    head : bool
        Whether the label maps are of whole heads.

    Raises
    ------
    UsageError
        (a ValueError) when `n_classes` is less than 2, `class_sd` is not a finite number of at least 0, priors are of
        another number of labels, or there are none and `config` names some.
    """

    def __init__(
        self,
        n_classes: int,
        config: CornucopiaConfig = PAPER,
        class_sd: float = 0.05,
        priors: StructurePriors | None = None,
        head: bool = False,
    ) -> None:
        super().__init__(n_classes)
        if priors is not None and len(priors.labels) != n_classes:
            raise UsageError(f"priors: must be those of {n_classes} labels, got {len(priors.labels)}")
        if priors is None and config.priors:
            raise UsageError(f"priors: must be what the file of config.priors holds, {config.priors!r}, got None")
        self.config, self.class_sd, self.priors, self.head = config, class_sd, priors, head
        contrast = RandomContrast(class_sd, head) if priors is None else EstimatedContrast(priors)
        self.steps = Steps(n_classes, config, contrast)

    @torch.no_grad()
    def synthesise(self, labels: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """Images whose randomness is drawn (see `SeededGenerator`)."""
        self.check(labels)
        labels = labels.detach().to(torch.int64, copy=True)
        if labels.numel() == 0:
            return torch.zeros(len(labels), 1, *labels.shape[1:], device=labels.device), labels
        draws, generators = self.steps.drawn(labels, seeds)
        draws["means"] = self.steps.contrast.means(draws["means"])
        labels = self.steps.deformed(labels, draws)
        return self.steps.imaged(labels, draws, seeds, generators), labels

    @torch.no_grad()
    def deform(self, labels: Tensor, seeds: Tensor) -> Tensor:
        """The deformed label maps alone (see `SeededGenerator`): step 1, and no image."""
        self.check(labels)
        labels = labels.detach().to(torch.int64, copy=True)
        return self.steps.deformed(labels, self.steps.drawn(labels, seeds)[0]) if labels.numel() else labels

    @torch.no_grad()
    def matched(self, images: Tensor, labels: Tensor, seeds: Tensor) -> Tensor:
        """New images of the same label maps in the contrast of images there are already, such as real ones.

        Between the darkest and the brightest class, each lies where the median of its voxels does in the given image;
        all else is drawn: also how far those two are apart before the image is scaled, by which textures and all that
        comes later are scaled too. Labels are not deformed. Parameters are as of `augment`; what comes back are images
        (B, 1, *S) float32.

        Raises
        ------
        DataError
            (a ValueError) when `labels` are not what `synthesise` takes, or `images` have another shape.
        RunError
            When an image has a voxel that is not finite.
        """
        self.check_pair(images, labels)
        labels = labels.detach().to(torch.int64)
        if labels.numel() == 0:
            return torch.zeros_like(images)
        steps, contrast = self.steps, self.steps.contrast
        draws, generators = steps.drawn(labels, seeds)
        means, powers = contrast.means(draws["means"]), steps.powers(draws)
        draws["means"] = intensity.placed_as(means, images[:, 0], labels, powers, contrast.is_absolute)
        return steps.imaged(labels, draws, seeds, generators)

    @torch.no_grad()
    def augment(self, images: Tensor, labels: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """Images there are already, such as real ones, through steps 1 and 3 to 7; those without strength do nothing.

        An image and its labels are deformed alike, the image interpolated linearly, the labels to the nearest.

        Parameters
        ----------
        images : Tensor (B, 1, *S) float32
            Intensities about [0, 1].
        labels : Tensor (B, *S), an integer dtype
            What they show, class indices 0..K-1.
        seeds : Tensor (B,) int64
            From `draw_seeds`.

        Returns
        -------
        images : Tensor (B, 1, *S) float32
            Not scaled again.
        labels : Tensor (B, *S) int64

        Raises
        ------
        DataError
            (a ValueError) when `labels` are not what `synthesise` takes, or `images` have another shape.
        """
        self.check_pair(images, labels)
        labels, out = labels.detach().to(torch.int64, copy=True), images[:, 0].to(torch.float32, copy=True)
        if labels.numel() == 0:
            return out[:, None], labels
        draws, generators = self.steps.drawn(labels, seeds)
        out, labels = self.steps.moved(out, labels, draws)
        return self.steps.scanned(out, draws, generators)[:, None], labels
