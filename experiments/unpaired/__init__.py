"""Supplement, section 10: with no labelled scan at all, is a learned generator better than SynthSeg's random one?

There are label maps of some people and scans, without labels, of others. A generator of images from label maps is
learned against a discriminator that tells its images from scans (Figure 5): its images are to look real and, by the
hypergradient through the discriminator's update, scans are to look fake. Then a segmenter is trained on its images. The
naive SynthSeg has the same label maps and no scans; the supervised segmenter has the labels of these scans.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from metasynth.data_prep.cohorts.cohort import SimulatedScans, embedded
from metasynth.experiments.comparison.settings import SIZES
from metasynth.experiments.unpaired.images import learned_images
from metasynth.experiments.unpaired.machine import require_unpaired
from metasynth.experiments.unpaired.methods import METHODS, TITLES
from metasynth.experiments.unpaired.models import DiscriminatorSettings
from metasynth.experiments.unpaired.people import check_people, check_seed, load_unpaired
from metasynth.experiments.unpaired.report import CONTENTS, UnpairedReport
from metasynth.experiments.unpaired.settings import OUTER, UnpairedSettings
from metasynth.experiments.unpaired.study import UnpairedStudy

from metasynth.running.examples import load_examples, save_examples
from metasynth.running.prepared import PreparedData
from metasynth.running.progress import Progress
from metasynth.running.study import Experiment, StudyContext
from metasynth.training.loop import Pace
from metasynth.training.segmenter_settings import SegmenterSettings


@dataclass(frozen=True)
class UnpairedConfig(UnpairedSettings):
    """Settings of the study, beside those of `UnpairedSettings`.

    Attributes
    ----------
    cohort : str
        The embedded, simulated cohort that is used when no cache is given.
    """

    cohort: SimulatedScans = "mprage-young-96"


PRESETS = {
    "quick": UnpairedConfig(
        cohort="mprage-young-64",
        segmenter=SegmenterSettings(widths=(8, 16, 32, 64), steps=1200, cooldown=0.3),
    ),
    "standard": UnpairedConfig(
        methods=tuple(METHODS),
        segmenter=SegmenterSettings(steps=4000, cooldown=0.3),
        discriminator=DiscriminatorSettings(batch_size=16, steps=2000),
        outer=replace(OUTER, batch_size=16, hold=400, settle=150),
        pace=Pace(checkpoint_every=200),
    ),
    "paper": UnpairedConfig(
        methods=tuple(METHODS),
        cohort="mprage-young-192",
        segmenter=SIZES["paper"]["segmenter"],
        discriminator=DiscriminatorSettings(widths=(32, 64, 128), batch_size=64, steps=9000),
        outer=replace(OUTER, batch_size=64, hold=2000, settle=500),
        pace=SIZES["paper"]["pace"],
    ),
}
PUBLISHED = (
    "The paper's own figures, of other data and another scale (supplement, section 10): Dice 0.874 on Buckner39, where "
    "SynthSeg has 0.861."
)
REPORT = UnpairedReport(
    "Learning contrast from scans without labels: an adversary's hypergradient against random contrasts",
    TITLES,
    load_examples,
    PUBLISHED,
)


def prepare(config: UnpairedConfig, data: Path | None, progress: Progress) -> PreparedData:
    """The user's caches, or the embedded cohort (made on first use)."""
    if data is None:
        data = embedded(config.cohort, progress.counter)
    return check_people(config, data, Path(config.labels) if config.labels else None)


def run(context: StudyContext) -> dict[str, Any]:
    """Learn the generators, train a segmenter on each one's images, and test its last checkpoint."""
    study = UnpairedStudy(context, load_unpaired(context))
    study.fit()
    save_examples(context.folder, study.arrays)
    return {"rows": study.rows, "reference": {"published": PUBLISHED, "intensities": study.scans_intensities()}}


EXPERIMENT = Experiment(
    name="unpaired",
    question="With no labelled scan at all, is a learned generator better than SynthSeg? (supplement, section 10)",
    presets=PRESETS,
    prepare=prepare,
    run=run,
    report=REPORT.of_run,
    contents=CONTENTS,
    check_sizes=require_unpaired,
    check=check_seed,
    images=learned_images,
)
