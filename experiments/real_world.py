"""Paper section 4.2.1: with a few labelled real images, is Learn2Synth better than SynthSeg and its mixtures with them?

All methods know the label maps; a few labelled real images are known besides. They train the segmenter of a
supervised U-Net, of mixed and of finetuned SynthSeg, but only the augmenter of Learn2Synth. SynthSeg itself (naive)
does without. All are tested on the same other subjects (Table 5, Figure 3).
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from metasynth.data_prep.cohorts.cohort import SimulatedScans, embedded
from metasynth.experiments.comparison.caches import check_comparison
from metasynth.experiments.comparison.images import learned_images
from metasynth.experiments.comparison.machine import require_comparison
from metasynth.experiments.comparison.methods import TITLES
from metasynth.experiments.comparison.settings import SIZES, ComparisonConfig
from metasynth.experiments.comparison.study import compare, stage_name
from metasynth.experiments.real_images.cohorts import check_division, load_real_images
from metasynth.experiments.real_images.report import ComparisonReport
from metasynth.experiments.real_images.tables import CONTENTS

from metasynth.report.published import COSTS, REAL_WORLD
from metasynth.running.examples import load_examples
from metasynth.running.prepared import PreparedData
from metasynth.running.progress import Progress
from metasynth.running.study import Experiment, StudyContext
from metasynth.training.network_check import require_cache
from metasynth.training.segmenter_settings import SegmenterSettings


@dataclass(frozen=True)
class RealWorldConfig(ComparisonConfig):
    """Settings of the study, beside those of `ComparisonConfig`.

    Attributes
    ----------
    cohort : str
        The embedded, simulated cohort that is used when no cache is given: of young or of older people.
    """

    cohort: SimulatedScans = "mprage-young-96"


PAPER = RealWorldConfig(cohort="mprage-young-192", **SIZES["paper"])
# The paper's Table 8 has nnU-Net as backbone: its own network and its loss, without deep supervision.
NNUNET = SegmenterSettings(widths=(32, 64, 128, 256, 512, 512), lr=1e-3, batch_size=64, steps=9000, network="nnunet")
QUICK = ("supervised", "naive", "estimated", "synthesis_estimated")
PRESETS = {
    "quick": RealWorldConfig(cohort="mprage-young-64", methods=QUICK, **SIZES["quick"]),
    "standard": RealWorldConfig(**SIZES["standard"]),
    "paper": PAPER,
    "nnunet": replace(PAPER, **{"segmenter": NNUNET, "methods": ("naive", "parametric_fixed")}),
    "quick-3d": RealWorldConfig(methods=QUICK, **SIZES["quick-3d"]),
}

REPORT = ComparisonReport(
    "Learning from a few labelled real images: their use in training against their use for the augmentation",
    TITLES,
    stage_name,
    load_examples,
    (REAL_WORLD, COSTS),
)


def prepare(config: RealWorldConfig, data: Path | None, progress: Progress) -> PreparedData:
    """The user's caches, or the embedded cohort (made on first use)."""
    if data is None:
        require_cache(config.segmenter, "nifti --images SCANS --labels LABELS")
        data = embedded(config.cohort, progress.counter)
    labels = Path(config.labels) if config.labels else None
    return check_comparison(config, data, labels, config.test_paths)


def run(context: StudyContext) -> dict[str, Any]:
    """Train every method, and test its best and last checkpoint."""
    return {"rows": compare(context, load_real_images(context)), "reference": REAL_WORLD}


EXPERIMENT = Experiment(
    name="real_world",
    question="With a few labelled real images, is Learn2Synth better than SynthSeg and its mixtures? (paper 4.2.1)",
    presets=PRESETS,
    prepare=prepare,
    run=run,
    report=REPORT.of_run,
    check_sizes=require_comparison,
    grid_report=REPORT.of_grid,
    contents=CONTENTS,
    check=check_division,
    images=learned_images,
    batches=lambda config: config.batches,
)
