"""What recovery studies share: the material they work on, the value they report, the images they show.

A recovery study (paper section 4.1) corrupts synthetic images in a known way, calls them real, and asks whether the
augmenter learns the corruption.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from metasynth.augment.corruption import Corruption
from metasynth.data.cache import Cache
from metasynth.data.dataset import SliceDataset
from metasynth.data.splits import Split, make_split
from metasynth.errors import DataError, ShapeError
from metasynth.files import first_line, read_zip, seal
from metasynth.schema import NUMBER, entries, expect, listing
from metasynth.synthesis.batched import BatchedGenerator
from metasynth.synthesis.config import CornucopiaConfig
from metasynth.synthesis.cornucopia import CornucopiaGenerator
from metasynth.synthesis.generator import SeededGenerator
from metasynth.training.evaluation import TestSet, make_test_set
from metasynth.training.integrity import SPLIT
from metasynth.training.prepared import PreparedData
from metasynth.training.records import METRICS, RunFolder
from metasynth.training.segmenter_settings import SegmenterSettings
from metasynth.training.study import StudyContext

EXAMPLES = "examples.npz"
TAIL = 0.1


def check_cache(path: Path, segmenter: SegmenterSettings) -> PreparedData:
    """Open a cache, check every value in it, and that the segmenter can take images like its label maps.

    Raises
    ------
    DataError
        If the file is no valid cache, images of its shape cannot go through, or the subjects are too few.
    UsageError
        If the segmenter's network cannot be made.
    """
    with Cache(path) as cache:
        try:
            segmenter.check_images(cache.n_classes, cache.shape, cache.info.spacing_mm)
        except ShapeError as error:
            raise DataError(f"{path}: {error}") from error
        try:
            split = make_split(cache.subjects, 0)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
        if len(split.train) < 2:
            raise DataError(
                f"{path}: expected at least 2 training subjects (synthetic and real examples come from different "
                f"ones), got {len(split.train)} of {len(cache.subjects)} subjects"
            )
        return PreparedData(Path(path), cache.info.digest)


@dataclass(frozen=True)
class Material:
    """A cache divided into subjects to learn from and to test on, with a generator of images.

    Attributes
    ----------
    train : SliceDataset
    test : TestSet
    generator : SeededGenerator
    n_classes, ndim : int
    """

    train: SliceDataset
    test: TestSet
    generator: SeededGenerator
    n_classes: int
    ndim: int


GeneratorName = Literal["batched", "cornucopia"]
"""Which generator makes the images: ours for whole batches, or cornucopia itself, of which it is the same family."""

_GENERATORS: dict[str, type[BatchedGenerator] | type[CornucopiaGenerator]] = {
    "batched": BatchedGenerator,
    "cornucopia": CornucopiaGenerator,
}


def gather(
    context: StudyContext,
    synthesis: CornucopiaConfig,
    test_repeats: int,
    generator_name: GeneratorName = "batched",
    corruption: Corruption | None = None,
) -> Material:
    """Open the run's cache, divide its subjects (60/20/20, kept in split.json) and make the test images.

    ``corruption`` is what all test images have whatever their noise.
    """
    cache = Cache(context.data, check_values=False)  # checked before the folder was made
    split = _kept_split(context, cache)
    # Slices of anisotropic voxels would need a blur per axis; the finest keeps all structure.
    generator = _GENERATORS[generator_name](cache.n_classes, synthesis.at_spacing(min(cache.info.spacing_mm)))
    held_out = SliceDataset(cache, split.test)
    return Material(
        train=SliceDataset(cache, split.train),
        test=make_test_set(held_out, generator, context.seed, test_repeats, corruption),
        generator=generator,
        n_classes=cache.n_classes,
        ndim=len(cache.shape),
    )


def _kept_split(context: StudyContext, cache: Cache) -> Split:
    kept = kept_split(context)
    if kept is not None:
        return kept
    split = make_split(cache.subjects, context.seed)
    context.folder.keep_split(split.to_dict())
    return split


def kept_split(context: StudyContext) -> Split | None:
    """The division that a resumed run has kept, if it has; DataError if it is none."""
    path = context.folder.path / SPLIT
    if not (context.resume and path.is_file()):
        return None
    try:
        return Split.from_dict(context.folder.read_json(SPLIT))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def trajectory_of(records: Sequence[Mapping[str, Any]], stage: str, name: str) -> tuple[list[int], list[float]]:
    """Outer steps and the values of outer parameter ``name`` after them, from the records of a stage."""
    of_stage = [r for r in records if r["stage"] == stage and "outer_step" in r]
    return [r["outer_step"] for r in of_stage], [r[name] for r in of_stage]


def course_of(
    folder: RunFolder, records: Sequence[Mapping[str, Any]], stage: str, name: str
) -> tuple[list[int], list[float]]:
    """The same for a report, which the records of a run must have.

    Raises
    ------
    DataError
        If there is none, or one lacks the value.
    """
    of_stage = [r for r in records if r.get("stage") == stage and "outer_step" in r]
    where = folder.path / METRICS
    if not of_stage:
        raise DataError(f"{where}: expected outer steps of stage {stage!r}, found none in its {len(records)} records")
    expect(of_stage, listing(entries({"outer_step": NUMBER, name: NUMBER})), f"{where}: outer steps of {stage!r}")
    return trajectory_of(of_stage, stage, name)


def tail_of(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation over the last tenth of the outer steps: the value that is reported."""
    last = np.asarray(values[-max(1, round(TAIL * len(values))) :])
    return float(last.mean()), float(last.std())


def save_examples(folder: RunFolder, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Keep the images that the report shows."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    folder.write_bytes(EXAMPLES, seal(buffer))


class _Examples(dict[str, NDArray[Any]]):
    """Arrays by name; one that is not there is a DataError that names the file."""

    def __init__(self, path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
        super().__init__(arrays)
        self._path = path

    def __missing__(self, name: str) -> NDArray[Any]:
        raise DataError(f"{self._path}: expected an array {name!r}, it has {', '.join(sorted(self)) or 'none'}")


def load_examples(folder: RunFolder) -> dict[str, NDArray[Any]]:
    """The arrays of `save_examples`; DataError if the file is missing or damaged, or lacks one that is asked for."""
    path = folder.path / EXAMPLES
    try:
        with np.load(read_zip(path), allow_pickle=False) as archive:
            return _Examples(path, {name: archive[name] for name in archive.files})
    except Exception as error:  # of damaged bytes any may come
        raise DataError(f"{path}: cannot be read: {first_line(error)}") from error
