"""Settings that studies on real images share."""

from dataclasses import dataclass, replace
from typing import Protocol

from metasynth.running.settings.bounds import require_at_least
from metasynth.synthesis.config import PAPER, CornucopiaConfig
from metasynth.training.segmenter_settings import SegmenterSettings

BASELINE = replace(PAPER, bias=7, snr=10.0)
"""The generator with the bias field and noise that cornucopia's `SynthFromLabelTransform` has by default: what the
supplement's section 8 applies to all baselines, and Learn2Synth learns instead."""


@dataclass(frozen=True)
class SubjectSettings:
    """Who of the subjects with real images is for what.

    Attributes
    ----------
    train : tuple of int
        How many real subjects there are to learn from, in any order; the sized methods are trained with each number,
        smaller sets being part of larger ones. 0: all that are neither for validation nor for tests.
    validation : int
        How many real subjects checkpoints are chosen by: the same ones for every number above. 0: a fifth.
    test : int
        How many real subjects are reported on, likewise.
    rotation : int
        Which group of ``test`` subjects is tested, from 0 on: rotations of one seed test other subjects each.
    """

    train: tuple[int, ...] = (5,)
    validation: int = 0
    test: int = 0
    rotation: int = 0

    def __post_init__(self) -> None:
        if not self.train or min(self.train) < 0:
            raise ValueError(f"train must list at least one number >= 0, got {self.train}")
        require_at_least(0, validation=self.validation, test=self.test, rotation=self.rotation)

    def counts(self, n: int) -> tuple[int, int]:
        """Subjects of validation and test out of n."""
        fifth = max(1, int(0.2 * n + 0.5))
        return self.validation or fifth, self.test or fifth


class RealImageSettings(Protocol):
    """The part of a study's configuration by which its caches and subjects are gathered."""

    @property
    def domain(self) -> str:
        """What the images of the run's cache are called."""

    @property
    def fit_labels(self) -> bool:
        """Whether label maps of another cache are cut and padded to the shape of the images."""

    @property
    def subjects(self) -> SubjectSettings:
        """Who is for what."""

    @property
    def segmenter(self) -> SegmenterSettings:
        """The inner problem."""

    @property
    def synthesis(self) -> CornucopiaConfig:
        """The generator whose images are augmented by what is learned."""

    @property
    def baseline(self) -> CornucopiaConfig:
        """The baselines' generator."""
