"""Paper section 4.2.2: trained with real images of one contrast, does a segmenter hold on others?

Real images are MPRAGE; tests are on MPRAGE and on FLASH of four flip angles, which no method has seen. Methods that
learn from real images do so from 1, 5 and all training subjects, and are tested on the same subjects (Tables 6, 7 and
9, Figure 4). Label maps for synthesis are of other people.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from metasynth.data_prep.cohorts.cohort import embedded
from metasynth.experiments.comparison.caches import check_comparison
from metasynth.experiments.comparison.images import learned_images
from metasynth.experiments.comparison.machine import require_comparison
from metasynth.experiments.comparison.methods import TITLES
from metasynth.experiments.comparison.settings import SIZES, ComparisonConfig
from metasynth.experiments.comparison.study import compare, stage_name
from metasynth.experiments.real_images.cohorts import check_division, load_real_images
from metasynth.experiments.real_images.report import ComparisonReport
from metasynth.experiments.real_images.settings import SubjectSettings
from metasynth.experiments.real_images.tables import CONTENTS

from metasynth.errors import UsageError
from metasynth.report.published import CROSS_CONTRAST, SAME_TEST_SIZE
from metasynth.running.examples import load_examples
from metasynth.running.prepared import PreparedData
from metasynth.running.progress import Progress
from metasynth.running.study import Experiment, StudyContext
from metasynth.training.network_check import require_cache

FLASH = ("flash-3", "flash-5", "flash-20", "flash-30")


@dataclass(frozen=True)
class CrossContrastConfig(ComparisonConfig):
    """Settings of the study, beside those of `ComparisonConfig`.

    Attributes
    ----------
    size : {'64', '96', '192'}
        Voxels along a side of the embedded, simulated cohorts that are used when no cache is given: MPRAGE and FLASH of
        young people, and label maps of others.
    """

    methods: tuple[str, ...] = ("naive", "estimated", "supervised", "mixed", "finetuned", "synthesis_estimated")
    domain: str = "MPRAGE"
    subjects: SubjectSettings = field(default_factory=lambda: SubjectSettings(train=(1, 5, 0)))
    size: Literal["64", "96", "192"] = "96"


def _sized(size: str) -> dict[str, Any]:
    """Half of the images keep random contrasts: what is learned of one contrast is not to cost the others."""
    return {**SIZES[size], "learned": replace(SIZES[size]["learned"], random_share=0.5)}


QUICK = ("naive", "supervised", "finetuned", "synthesis_estimated")
PRESETS = {
    "quick": CrossContrastConfig(size="64", methods=QUICK, **_sized("quick")),
    "standard": CrossContrastConfig(**_sized("standard")),
    "paper": CrossContrastConfig(size="192", **SIZES["paper"]),
    "quick-3d": CrossContrastConfig(methods=QUICK, subjects=SubjectSettings(train=(5,)), **_sized("quick-3d")),
}

REPORT = ComparisonReport(
    "Segmenting contrasts that no method has seen",
    TITLES,
    stage_name,
    load_examples,
    (CROSS_CONTRAST, SAME_TEST_SIZE),
)


def prepare(config: CrossContrastConfig, data: Path | None, progress: Progress) -> PreparedData:
    """The user's caches, or the embedded cohorts (made on first use)."""
    labels, tests = Path(config.labels) if config.labels else None, config.test_paths
    if data is None:
        require_cache(config.segmenter, "nifti --images SCANS --labels LABELS")
        data = embedded(f"mprage-young-{config.size}", progress.counter)
        labels = labels or embedded(f"template-{config.size}", progress.counter)
        tests = tests or {name: embedded(f"{name}-{config.size}", progress.counter) for name in FLASH}
    if not tests:
        raise UsageError("tests: needs caches of other contrasts beside --data, --set tests=NAME=CACHE,NAME=CACHE")
    return check_comparison(config, data, labels, tests)


def run(context: StudyContext) -> dict[str, Any]:
    """Train every method with every number of real subjects, and test its best and last checkpoint on all contrasts."""
    return {"rows": compare(context, load_real_images(context)), "reference": CROSS_CONTRAST}


EXPERIMENT = Experiment(
    name="cross_contrast",
    question="Trained with real images of one contrast, does a segmenter hold on others? (paper 4.2.2)",
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
