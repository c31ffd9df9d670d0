"""What recovery studies share: the material they work on, the value they report, the images they show.

A recovery study (paper section 4.1) corrupts synthetic images in a known way, calls them real, and asks whether the
augmenter learns the corruption.
"""

import io
from collections.abc import Mapping
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
from metasynth.synthesis.batched import BatchedGenerator
from metasynth.synthesis.config import CornucopiaConfig
from metasynth.synthesis.cornucopia import CornucopiaGenerator
from metasynth.training.evaluation import make_test_set
from metasynth.training.kept_split import kept_split
from metasynth.training.prepared import PreparedData
from metasynth.training.records import RunFolder
from metasynth.training.segmenter_settings import SegmenterSettings
from metasynth.training.stages import Material
from metasynth.training.study import StudyContext

EXAMPLES = "examples.npz"


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
