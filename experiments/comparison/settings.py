"""The settings of a comparison of methods on real images; each method has its own.

More than 250 lines, as each setting is described where it is, and the sizes of all presets stand together.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from metasynth.experiments.comparison.augmenter_settings import AugmenterSettings
from metasynth.experiments.comparison.methods import DEFAULT, METHODS, check_methods, variants_among
from metasynth.experiments.real_images.settings import BASELINE, SubjectSettings

from metasynth.running.settings.bounds import require_at_least
from metasynth.running.settings.values import CHOICES
from metasynth.synthesis.config import PAPER, CornucopiaConfig
from metasynth.training.loop import Pace
from metasynth.training.reach import require_rate
from metasynth.training.segmenter_settings import SegmenterSettings
from metasynth.training.settings import LONG, OuterSettings, check_together, require_window


@dataclass(frozen=True)
class TestCache:
    """A further cache of test images, NAME=PATH on the command line."""

    __test__ = False  # pytest takes the name for a test
    NOTATION: ClassVar[str] = "NAME=PATH"

    name: str
    path: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """From 'flash-3=flash3.h5'; ValueError if it is something else."""
        name, _, path = text.partition("=")
        if not (name and path):
            raise ValueError("must be NAME=PATH")
        return cls(name, path)

    @classmethod
    def from_json(cls, value: object) -> Self:
        """What `to_json` gave; ValueError if it is something else."""
        return cls.parse(str(value))

    def to_json(self) -> str:
        """What `parse` reads."""
        return f"{self.name}={self.path}"


@dataclass(frozen=True)
class MixedSettings:
    """Mixed SynthSeg.

    Attributes
    ----------
    fraction : float
        How much of the training images are real ones, augmented; in (0, 1).
    """

    fraction: float = 0.25

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise ValueError(f"fraction must be between 0 and 1, got {self.fraction}")


@dataclass(frozen=True)
class FinetuneSettings:
    """Finetuned SynthSeg.

    Attributes
    ----------
    steps : int
        More steps, on augmented real images alone.
    lr : float
        Learning rate of Adam in them.
    """

    steps: int = 300
    lr: float = 5e-4

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.lr > 0:
            raise ValueError(f"steps must be at least 1 and lr positive, got {self.steps} and {self.lr}")
        require_rate(lr=self.lr)


@dataclass(frozen=True)
class ClusterSettings:
    """Clustered classes: see `metasynth.synthesis.clusters.ClusteredGenerator`.

    Attributes
    ----------
    clusters : int
        Clusters that a large class is divided into, at least 2.
    share : float
        Part of the foreground, in [0, 1], from which on a class is large.
    nodes : int
        Control points along an axis of the fields that divide it, at least 2.
    """

    clusters: int = 3
    share: float = 0.15
    nodes: int = 8

    def __post_init__(self) -> None:
        if self.clusters < 2 or not 0 <= self.share <= 1 or self.nodes < 2:
            got = f"{self.clusters}, {self.share} and {self.nodes}"
            raise ValueError(f"clusters and nodes must be at least 2 and share in [0, 1], got {got}")


@dataclass(frozen=True)
class ComparisonConfig:
    """Settings that the studies on real images share.

    Attributes
    ----------
    methods : tuple of str
        Which methods to train; see `metasynth.experiments.comparison.methods.METHODS`.
    domain : str
        What the images of the run's cache are called.
    tests : tuple of TestCache
        Caches of further images to test on, NAME=PATH; who is for training or validation is left out of them.
    labels : str
        Cache whose label maps images are synthesised from; empty: the maps of all training subjects. Its images are
        not looked at, and subjects of validation and tests are left out of it by name.
    fit_labels : bool
        Cut and pad the maps of ``labels`` about their centre to the shape of the images; without it shapes must agree.
    own_labels : float
        Share of the synthetic images, in [0, 1), that are made from label maps of the real subjects to learn from, in
        place of those of ``labels``; never of somebody whom the outer batch of the step, or of its window, shows.
        Methods that see no real image take the maps of the fewest subjects.
    outer, outer_synthesis : OuterSettings
        The outer problem of Learn2Synth's variants: of those that augment images, and of those that make images of
        structures.
    subjects, segmenter, learned, mixed, finetune, clustered, pace :
        See the classes. All methods take ``segmenter.steps`` inner steps, but that finetuning takes ``finetune.steps``
        on top of those of the naive segmenter, as in the paper, and that interpolation takes none.
    interpolations : tuple of float
        Weights of the finetuned segmenter to try, each in [0, 1]; one is chosen on the validation subjects.
    synthesis : CornucopiaConfig
        The steps of the generator whose images are augmented by what is learned, for voxels of 1 mm.
    baseline : CornucopiaConfig
        Those of the baselines' generator; real images in a segmenter's training go through the same deformation, bias
        field, smoothing and noise. Estimated contrasts are raised to no power either.
    select_every : int
        Inner steps between looks at the validation subjects, by which the best checkpoint is kept; the last is too.
    """

    # Once there was one outer problem of all variants.
    ADDED: ClassVar[Mapping[str, Any]] = {
        "own_labels": 0.0,
        "outer_synthesis": lambda recorded: recorded["outer"],
    }

    methods: tuple[str, ...] = field(default=DEFAULT, metadata={CHOICES: tuple(METHODS)})
    domain: str = "test"
    tests: tuple[TestCache, ...] = ()
    labels: str = ""
    fit_labels: bool = False
    own_labels: float = 0.0
    subjects: SubjectSettings = field(default_factory=SubjectSettings)
    segmenter: SegmenterSettings = field(default_factory=SegmenterSettings)
    outer: OuterSettings = field(default_factory=OuterSettings)
    outer_synthesis: OuterSettings = LONG
    learned: AugmenterSettings = field(default_factory=AugmenterSettings)
    mixed: MixedSettings = field(default_factory=MixedSettings)
    finetune: FinetuneSettings = field(default_factory=FinetuneSettings)
    interpolations: tuple[float, ...] = (0.25, 0.5, 0.75)
    clustered: ClusterSettings = field(default_factory=ClusterSettings)
    synthesis: CornucopiaConfig = PAPER
    baseline: CornucopiaConfig = BASELINE
    select_every: int = 100
    pace: Pace = field(default_factory=Pace)

    def __post_init__(self) -> None:
        check_methods(self.methods, bool(self.learned.frozen))
        names = [self.domain, *(test.name for test in self.tests)]
        if not self.domain or len(set(names)) != len(names):
            raise ValueError(f"domain and the names of tests must be different, got {names}")
        if not self.interpolations or not all(0 <= weight <= 1 for weight in self.interpolations):
            raise ValueError(f"interpolations must list at least one weight in [0, 1], got {self.interpolations}")
        require_at_least(1, select_every=self.select_every)
        if not 0 <= self.own_labels < 1:
            raise ValueError(f"own_labels must be at least 0 and less than 1, got {self.own_labels}")
        variants = variants_among(self.methods)
        if not variants:
            return
        for name in variants:
            self.learned.check(name)
        for name, outer in self.outer_problems.items():
            check_together(self.segmenter, outer, name)
            require_window(outer, self.segmenter.steps, "segmenter.steps", name)
            if not outer.outer_steps(self.segmenter.steps):
                raise ValueError(
                    f"{name}.warmup, every and average must leave an outer step in segmenter.steps = "
                    f"{self.segmenter.steps}, got {outer.warmup}, {outer.every} and {outer.average}"
                )

    def outer_of(self, variant: str) -> OuterSettings:
        """The outer problem of a variant of Learn2Synth."""
        problem: OuterSettings = getattr(self, self._problem(variant))
        return problem

    @property
    def outer_problems(self) -> dict[str, OuterSettings]:
        """Those that the methods have, by the group of settings."""
        names = dict.fromkeys(map(self._problem, variants_among(self.methods)))
        return {name: getattr(self, name) for name in names}

    @property
    def batches(self) -> dict[str, int]:
        """The batches that the processes of a run share, by the names of their sizes."""
        outer = {f"{name}.batch_size": problem.batch_size for name, problem in self.outer_problems.items()}
        return {"segmenter.batch_size": self.segmenter.batch_size, **outer}

    def _problem(self, variant: str) -> str:
        return "outer_synthesis" if self.learned.takes(variant) == "structures" else "outer"

    @property
    def test_paths(self) -> dict[str, Path]:
        """The caches of ``tests`` by name."""
        return {test.name: Path(test.path) for test in self.tests}


_FAST = SegmenterSettings(norm="instance", lr=5e-3, cooldown=0.3)
_STARTS = AugmenterSettings(start=0.06, start_c=0.4)
_LONGER = replace(LONG, warmup=400, every=240, until=2800)
_OF_PATCHES = replace(LONG, batch_size=4)
SIZES: dict[str, dict[str, Any]] = {
    "quick": {
        "segmenter": replace(_FAST, widths=(16, 32, 64, 128), steps=1200),
        "outer": LONG,
        "outer_synthesis": LONG,
        "learned": _STARTS,
        "select_every": 300,
    },
    "standard": {
        "segmenter": replace(_FAST, steps=4000),
        "learned": _STARTS,
        "outer": _LONGER,
        "outer_synthesis": _LONGER,
        "finetune": FinetuneSettings(steps=1000),
        "select_every": 400,
        "pace": Pace(checkpoint_every=200),
    },
    # Patches of volumes of 3 mm; as many voxels a step as some fifty slices.
    "quick-3d": {
        "segmenter": replace(_FAST, widths=(8, 16, 32, 64), batch_size=2, steps=1200, patch_size=(48,)),
        "outer": _OF_PATCHES,
        "outer_synthesis": _OF_PATCHES,
        "learned": _STARTS,
        "select_every": 300,
    },
    # The paper's network, loss and sizes.
    "paper": {
        "segmenter": SegmenterSettings(norm="none", loss="squared_dice", lr=1e-3, batch_size=64, steps=9000),
        "outer": OuterSettings(batch_size=64, warmup=500, every=2),
        "outer_synthesis": replace(LONG, batch_size=64, warmup=500, every=240, until=6300),
        "finetune": FinetuneSettings(steps=2000, lr=1e-4),
        "select_every": 300,
        "pace": Pace(checkpoint_every=500, workers=8),
    },
}
"""Preset -> the settings that both studies have there."""
