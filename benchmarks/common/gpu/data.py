"""Whether a step waits for its data: made on the device itself, or ahead of time by processes beside it."""

import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import torch
from common.bilevel_steps import Size
from common.gpu.results import Deadline, Results
from common.gpu.settings import PRECISIONS, Settings
from common.gpu.steps import free, synchronise
from common.made_cache import CLASSES, make_cache
from torch import Tensor

from metasynth.augment import GaussianNoise
from metasynth.augment.noise import NoiseLevel
from metasynth.data import Cache, SliceDataset
from metasynth.running.seeding import generator_for
from metasynth.running.study import load_experiment
from metasynth.synthesis import BatchedGenerator, ImageGenerator
from metasynth.training.segmenter_settings import SegmenterSettings
from metasynth.training.settings import OuterSettings
from metasynth.training.sources import Corrupted, Synthetic
from metasynth.training.stages import bilevel_solver
from metasynth.training.streams import AHEAD, StepBatch, StepData, stream
from metasynth.training.trainers import Bilevel

WARM_UP = 2
"""Steps that are not counted: one with a hypergradient, and a plain one."""
START, TRUTH = 0.4, NoiseLevel(0.1, 0.1)
"""The noise that is learned, where it begins and what it is to become."""


@dataclass(frozen=True)
class OnDevice(ImageGenerator):
    """Another generator, on the device: label maps go there, images stay there."""

    generator: ImageGenerator
    device: str

    def __call__(self, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """See `ImageGenerator`."""
        return self.generator(labels.to(self.device), generator)


def levels_of(size: Size) -> tuple[SegmenterSettings, OuterSettings]:
    """Those of the noise study's ``paper`` preset with images of this size: a hypergradient at every second step."""
    paper = load_experiment("noise").presets["paper"]
    inner = replace(paper.segmenter, widths=size.widths, batch_size=size.batch)
    return inner, replace(paper.outer, batch_size=size.batch, warmup=0, every=2)


def trainer_of(size: Size) -> Bilevel:
    """What takes its steps."""
    inner, outer = levels_of(size)
    augmenter = GaussianNoise(START).to(size.device)
    segmenter = inner.build(CLASSES, size.ndim, generator_for(0, "segmenter")).to(size.device)
    return Bilevel(bilevel_solver(segmenter, augmenter, inner, outer), inner, outer, augmenter.observed)


def data_of(dataset: SliceDataset, size: Size, generator: ImageGenerator) -> StepData:
    """What its steps are fed."""
    inner, outer = levels_of(size)
    return StepData(
        dataset=dataset,
        inner=Synthetic(generator),
        outer=Corrupted(generator, TRUTH),
        seed=0,
        batch_size=inner.batch_size,
        outer_batch_size=outer.batch_size,
        is_due=outer.is_due,
    )


def waits(
    batches: Iterator[StepBatch], size: Size, skipped: int, counted: int, deadline: Deadline
) -> dict[str, float | int]:
    """Seconds a step, and those of it until its data are on the device; of the steps after those that are skipped."""
    trainer, waited, whole = trainer_of(size), 0.0, 0.0
    for index in range(skipped + counted):
        deadline.require()
        start = time.perf_counter()
        batch = next(batches).to(size.device)
        synchronise(size.device)
        there = time.perf_counter()
        trainer.step(index, batch)
        synchronise(size.device)
        if index >= skipped:
            waited += there - start
            whole += time.perf_counter() - start
    return {"seconds": whole / counted, "wait_s": waited / counted, "share": waited / whole, "steps": counted}


def _made_there(data: StepData) -> Generator[StepBatch, None, None]:
    yield from (data[step] for step in count())


def measure(settings: Settings, deadline: Deadline, results: Results) -> None:
    """The generator on the device, then each number of workers, whose batches made ahead are used up first."""
    with tempfile.TemporaryDirectory() as folder, PRECISIONS["TF32"].used():
        for place, name in enumerate(settings.images):
            size = settings.with_precision(name, "TF32")
            path, items = Path(folder) / f"{name}.h5", settings.items[size.ndim - 2]
            share = Deadline(deadline.left / (len(settings.images) - place))
            make_cache(path, (size.size,) * size.ndim, items)
            with Cache(path) as cache:
                _measure(name, size, SliceDataset(cache, cache.subjects), settings, share, results)


def _measure(
    name: str, size: Size, dataset: SliceDataset, settings: Settings, deadline: Deadline, results: Results
) -> None:
    made = BatchedGenerator(CLASSES)
    on_device, by_workers = (data_of(dataset, size, one) for one in (OnDevice(made, size.device), made))
    sources = [(f"made on {size.device}", WARM_UP, _made_there(on_device))]
    for workers in settings.workers:
        ahead = max(WARM_UP, AHEAD * workers)
        sources.append((f"workers: {workers}", ahead, stream(by_workers, 0, ahead + settings.measured, workers)))
    for place, (source, skipped, batches) in enumerate(sources):
        own = Deadline(deadline.left / (len(sources) - place))
        with results.attempt("data", f"{name}, {source}"), closing(batches):
            free(size.device)
            found = waits(batches, size, skipped, settings.measured, own)
            results.add("data", {"images": name, "source": source, **found})
