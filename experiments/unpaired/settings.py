"""Settings of learning a generator from scans without labels (supplement, section 10)."""

from dataclasses import dataclass, field

from metasynth.experiments.real_images.settings import BASELINE, SubjectSettings
from metasynth.experiments.unpaired.methods import METHODS, learned_among, method_of
from metasynth.experiments.unpaired.models import AdversarialSettings, DiscriminatorSettings, GeneratorSettings

from metasynth.augment.table import built_in
from metasynth.bilevel.strategies.table import in_studies
from metasynth.errors import UsageError
from metasynth.running.settings.values import CHOICES
from metasynth.synthesis.config import PAPER, CornucopiaConfig
from metasynth.training.loop import Pace
from metasynth.training.segmenter_settings import SegmenterSettings
from metasynth.training.settings import OuterSettings

OUTER = OuterSettings(
    lr=0.03,
    network_lr=1e-3,
    betas=(0.5, 0.95),
    batch_size=8,
    warmup=150,
    every=2,
    reference="none",
    memory=0.0,
    hold=130,
    settle=60,
)
"""Of the generator: no step before the discriminator knows scans from random contrasts, then one for every second of
its steps, or what is small in an image goes astray (docs/measurements/unpaired.md)."""


@dataclass(frozen=True)
class PeopleSettings:
    """Whose scans and label maps are learned from; nobody's are both.

    Attributes
    ----------
    scans : int
        Training subjects whose scans are used, without their labels; the label maps of the others are. 0: half of them,
        or all where label maps come from a cache of their own.
    test : int
        How many subjects are reported on; 0: a fifth. Those that other studies choose checkpoints by are not used at
        all, so that tests are on the same people as there.
    rotation : int
        Which group of ``test`` subjects is tested, from 0 on; see
        `metasynth.experiments.real_images.settings.SubjectSettings`.
    """

    scans: int = 0
    test: int = 0
    rotation: int = 0

    def __post_init__(self) -> None:
        if self.scans < 0:
            raise ValueError(f"scans must be at least 0, got {self.scans}")
        self.division()

    def division(self) -> SubjectSettings:
        """Who is for training and for tests."""
        return SubjectSettings(train=(0,), test=self.test, rotation=self.rotation)


@dataclass(frozen=True)
class UnpairedSettings:
    """Settings of a comparison of generators that are learned from scans without labels.

    Attributes
    ----------
    methods : tuple of str
        Which methods to train; see `metasynth.experiments.unpaired.methods.METHODS`. Every segmenter takes
        ``segmenter.steps`` steps from the same weights, on the same deformed label maps; a learned generator takes
        ``discriminator.steps`` before.
    labels : str
        Cache whose label maps images are synthesised from; empty: those of training subjects whose scans are not used.
    fit_labels : bool
        Cut and pad the maps of ``labels`` about their centre to the shape of the images.
    people, segmenter, discriminator, outer, adversarial, generator, pace :
        See the classes. ``outer.reference`` has no meaning here and must be none.
    synthesis, baseline : CornucopiaConfig
        As in `metasynth.experiments.comparison.settings.ComparisonConfig`. While a generator is learned, nothing is
        deformed.
    """

    methods: tuple[str, ...] = field(
        default=("naive", "intensities", "supervised"), metadata={CHOICES: (*METHODS, *built_in("unpaired"))}
    )
    labels: str = ""
    fit_labels: bool = False
    people: PeopleSettings = field(default_factory=PeopleSettings)
    segmenter: SegmenterSettings = field(default_factory=SegmenterSettings)
    discriminator: DiscriminatorSettings = field(default_factory=DiscriminatorSettings)
    outer: OuterSettings = OUTER
    adversarial: AdversarialSettings = field(default_factory=AdversarialSettings)
    generator: GeneratorSettings = field(default_factory=GeneratorSettings)
    synthesis: CornucopiaConfig = PAPER
    baseline: CornucopiaConfig = BASELINE
    pace: Pace = field(default_factory=Pace)

    def __post_init__(self) -> None:
        for name in self.methods:
            method_of(name)
        if not self.methods or len(set(self.methods)) != len(self.methods):
            raise UsageError(f"methods: must list at least one method, each once, got {list(self.methods)}")
        if self.segmenter.patch_size:
            raise ValueError(
                "segmenter.patch_size must be empty (a discriminator is shown whole images), got "
                f"{self.segmenter.patch_size}"
            )
        if self.outer.reference != "none":
            raise ValueError(
                f"outer.reference must be none (a discriminator's two losses are not of one kind), "
                f"got {self.outer.reference}"
            )
        if not learned_among(self.methods):
            return
        if self.outer.hypergradient_strategy().mode == "forward mode":
            others = [name for name, strategy in in_studies().items() if strategy.mode != "forward mode"]
            raise ValueError(
                f"outer.strategy must be {' or '.join(others)} (the discriminator's spectral norms have no "
                f"forward-mode derivative), got {self.outer.strategy}"
            )
        if self.outer.loss != "segmenter":
            raise ValueError(
                "outer.loss must be segmenter (real images have no labels here, and there is one loss, the "
                f"discriminator's), got {self.outer.loss}"
            )
        if self.outer.horizon > 1:
            raise ValueError(
                "outer.horizon must be 1 (the discriminator's spectral norms take their singular vectors for "
                f"constants, so several steps cannot be differentiated), got {self.outer.horizon}"
            )
        if not self.outer.outer_steps(self.discriminator.steps):
            raise ValueError(
                f"outer.warmup, every and average must leave an outer step in discriminator.steps = "
                f"{self.discriminator.steps}, got {self.outer.warmup}, {self.outer.every} and {self.outer.average}"
            )

    @property
    def domain(self) -> str:
        """What the images of the run's cache are called."""
        return "test"

    @property
    def subjects(self) -> SubjectSettings:
        """Who of the subjects is for training and for tests."""
        return self.people.division()
