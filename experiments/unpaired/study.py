"""Segmenters without a labelled scan (supplement, section 10): generators learned from scans alone, against SynthSeg.

A generator is learned first, then a segmenter is trained on its images: with the same weights, label maps and steps as
the naive one, so that what tells them apart is the images alone. No label of a scan is looked at but in tests and by
the supervised segmenter; checkpoints are the last.
"""

from typing import Any, final

from metasynth.experiments.real_images.evaluation import Checkpoint, score
from metasynth.experiments.real_images.examples import Examples
from metasynth.experiments.real_images.method_result import LAST, MethodResult
from metasynth.experiments.real_images.streams import ComparisonData, RealAugmented, cropped_or_padded
from metasynth.experiments.unpaired.images import generator_stage
from metasynth.experiments.unpaired.methods import Method, in_order
from metasynth.experiments.unpaired.people import UnpairedImages
from metasynth.experiments.unpaired.settings import UnpairedSettings
from metasynth.experiments.unpaired.streams import Generated, UnpairedData
from metasynth.experiments.unpaired.training import Adversarial
from numpy.typing import NDArray
from torch import Tensor, nn

from metasynth.augment.corruption import Corruptions
from metasynth.augment.label_generator import LabelGenerator
from metasynth.data.dataset import SliceDataset
from metasynth.running.seeding import generator_for
from metasynth.running.study import StudyContext
from metasynth.training.courses import Course
from metasynth.training.evaluation import middle_plane
from metasynth.training.loop import Stage, run_stage
from metasynth.training.selection import weights_of
from metasynth.training.sources import Corrupted, Source
from metasynth.training.stages import keep_segmenter, segmenter_for
from metasynth.training.trainers import Supervised

SHOWN = 2
_SAMPLE = 64

Row = dict[str, Any]


@final
class UnpairedStudy:
    """Trains the methods of a run and tests them.

    Attributes
    ----------
    rows : list of dict
        ``method``; ``subjects``, of how many the scans were used; ``checkpoint``, 'last'; ``steps``; ``wall_s`` of the
        segmenter's training and ``total_s`` with the generator's; ``dice`` by test condition, see
        `metasynth.experiments.real_images.evaluation.score`; of learned generators ``learned``, means over the last
        tenth of the outer steps, and ``intensities``, see `class_intensities`.
    arrays : dict
        Images for the report: those of `metasynth.experiments.real_images.examples.Examples`, and 'scan/I',
        'start/METHOD/I' and 'generated/METHOD/I' (H, W), the last two of the same label map and draws.
    """

    def __init__(self, context: StudyContext, people: UnpairedImages) -> None:
        self._context, self._people = context, people
        self._settings: UnpairedSettings = context.config
        self._examples = Examples(context, people.cohorts)
        self.rows: list[Row] = []
        for index, image in enumerate(images_of(people.scans)[_spread(len(people.scans))]):
            self._keep(f"scan/{index}", image[0])

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """See the class."""
        return self._examples.arrays

    def fit(self) -> None:
        """All methods that the settings name."""
        baseline: Source = Corrupted(self._people.cohorts.baseline, Corruptions(()))
        for method in in_order(self._settings.methods):
            if method.augmenter:
                learned, seconds, found = self._learn(method.name)
                self._fit(method, Generated(self._people.cohorts.generator, learned), seconds, found)
            else:
                self._fit(method, baseline, 0.0, {})

    def scans_intensities(self) -> dict[str, list[float | None]]:
        """`class_intensities` of the test scans, by their labels: what no method is told."""
        test = next(iter(self._people.cohorts.tests.values()))
        labels = test.read(range(len(test))).labels
        return class_intensities(images_of(test), labels, test.cache.class_names)

    def _learn(self, method: str) -> tuple[LabelGenerator, float, Row]:
        """A learned generator, averaged and on the CPU, the seconds it took, and what is found of it."""
        context, people, settings = self._context, self._people, self._settings
        cache = people.cohorts.cache
        ndim, seed, inner, outer = len(cache.shape), context.seed, settings.discriminator, settings.outer
        generator = settings.generator.build(method, people.maps.cache.n_generation, ndim, seed)
        self._show(f"start/{method}", generator)
        trainer = Adversarial(
            inner.build(ndim, seed).to(context.device),
            generator.to(context.device),
            inner,
            outer,
            settings.adversarial,
        )
        data = UnpairedData(
            people.maps,
            people.scans,
            people.undeformed,
            generator.draw,
            seed,
            inner.batch_size,
            outer.batch_size,
            outer.is_due,
        )
        name = generator_stage(method)
        course = Course(("accuracy", *generator.observed()))
        stage = Stage(name, inner.steps, data, _note, trainer.check, course)
        seconds = run_stage(stage, trainer, settings.pace, context)
        generator.load_state_dict(trainer.averaged())
        generator.cpu().eval()
        self._show(f"generated/{method}", generator)
        images, labels = self._sample(generator, min(_SAMPLE, len(people.maps)))
        found = {"learned": course.tails()[0], "intensities": class_intensities(images, labels, cache.class_names)}
        return generator, seconds, found

    def _fit(self, method: Method, synthetic: Source, before: float, found: Row) -> None:
        """Train a segmenter and test it; ``before``: the seconds its generator took."""
        context, people, settings = self._context, self._people, self._settings.segmenter
        cache = people.cohorts.cache
        segmenter = segmenter_for(context, cache)
        direct = RealAugmented(people.cohorts.scanner)
        fraction, size = float(method.labelled), settings.batch_size
        data = ComparisonData(
            people.maps, people.scans, synthetic, direct, fraction, seed=context.seed, batch_size=size
        )
        stage = Stage(f"{method.name}/segmenter", settings.steps, data)
        seconds = run_stage(stage, Supervised(segmenter, settings), self._settings.pace, context)
        keep_segmenter(context, cache, method.name, segmenter)
        segments = Checkpoint(segmenter, weights_of(segmenter), context.device)
        self._examples.add(
            method.name, 0, MethodResult({LAST: segments}, {}, settings.steps, seconds, before + seconds)
        )
        row = {
            "method": method.name,
            "subjects": len(people.scans.subjects) if method.labelled or found else 0,
            "checkpoint": LAST,
            "steps": settings.steps,
            "wall_s": round(seconds, 3),
            "total_s": round(before + seconds, 3),
            **found,
            "dice": {name: score(segments, test) for name, test in people.cohorts.tests.items()},
        }
        self.rows.append(row)

    def _sample(self, learned: nn.Module, count: int) -> tuple[Tensor, Tensor]:
        """Images of ``count`` label maps, as they are, with these; the same maps and draws at every call."""
        maps = self._people.maps
        batch = cropped_or_padded(maps.read(_spread(len(maps), count)), self._people.cohorts.cache.shape)
        source = Generated(self._people.undeformed, learned)
        made = source(batch, generator_for(self._context.seed, "generated"))
        return made.images, made.labels

    def _show(self, name: str, learned: LabelGenerator) -> None:
        for index, image in enumerate(self._sample(learned, SHOWN)[0]):
            self._keep(f"{name}/{index}", image[0])

    def _keep(self, name: str, image: Tensor) -> None:
        self.arrays[name] = middle_plane(image).numpy()


def class_intensities(images: Tensor, labels: Tensor, names: tuple[str, ...]) -> dict[str, list[float | None]]:
    """Mean and standard deviation over the voxels of each class but background, None for a class that is absent.

    Of images (N, 1, *S) with labels (N, *S).
    """
    voxels = {name: images[:, 0][labels == k] for k, name in enumerate(names) if k}
    return {name: [float(x.mean()), float(x.std())] if len(x) > 1 else [None, None] for name, x in voxels.items()}


def images_of(dataset: SliceDataset) -> Tensor:
    """All images (N, 1, *S) of a cache that was checked to have some."""
    images = dataset.read(range(len(dataset))).images
    if images is None:
        raise TypeError("dataset: expected one with images")
    return images


def _spread(n: int, count: int = SHOWN) -> list[int]:
    """Positions of ``count`` items out of n, evenly spread; the middles of as many parts."""
    return [(2 * index + 1) * n // (2 * count) for index in range(count)]


def _note(record: Row) -> str:
    told = f", {record['accuracy']:.0%} told apart" if "accuracy" in record else ""
    return f"loss {record['inner_loss']:.3f}{told}"
