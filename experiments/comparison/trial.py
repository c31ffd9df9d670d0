"""One method of a comparison being fitted: what it is given, how a training is carried out, and what it gives."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from metasynth.experiments.comparison.settings import ComparisonConfig
from metasynth.experiments.real_images.cohorts import RealImages
from metasynth.experiments.real_images.estimated_priors import keep_estimate, keep_learned
from metasynth.experiments.real_images.evaluation import Checkpoint, Segment, mean_dice
from metasynth.experiments.real_images.method_result import BEST, LAST, MethodResult
from metasynth.experiments.real_images.own_maps import OwnMaps, numbers_in
from metasynth.experiments.real_images.streams import ComparisonData, RealAugmented
from torch import nn

from metasynth.augment.corruption import Corruptions
from metasynth.augment.intensities import Priors
from metasynth.data.dataset import SliceDataset
from metasynth.running.study import StudyContext
from metasynth.synthesis.batched import BatchedGenerator
from metasynth.synthesis.clusters import ClusteredGenerator
from metasynth.synthesis.priors.structure_priors import StructurePriors
from metasynth.training.augmenter_file import priors_name
from metasynth.training.evaluation import segment
from metasynth.training.loop import Stage, run_stage
from metasynth.training.segmenter_settings import SegmenterSettings
from metasynth.training.selection import PeakMemory, Selecting, weights_of
from metasynth.training.sources import Corrupted, Real, Source, in_patches
from metasynth.training.stages import keep_segmenter, plain_trainer, segmenter_for
from metasynth.training.trainers import Supervised, Trainer


@dataclass(frozen=True)
class Trial:
    """One method to be fitted.

    Attributes
    ----------
    context, cohorts :
        The run and its subjects.
    real : SliceDataset
        The real subjects to learn from.
    name : str
        Of the method's stage, such as 'n=5/mixed'.
    done : mapping
        Method -> what it gave, of those fitted before with the same real subjects or with none.
    """

    context: StudyContext
    cohorts: RealImages
    real: SliceDataset
    name: str
    done: Mapping[str, MethodResult]

    @property
    def config(self) -> ComparisonConfig:
        """The run's settings."""
        config: ComparisonConfig = self.context.config
        return config

    @property
    def baseline(self) -> Source:
        """Images of the baselines' generator, as they are."""
        return Corrupted(self.cohorts.baseline, Corruptions(()))

    @property
    def clustered(self) -> ClusteredGenerator:
        """The baselines' generator with large classes in clusters."""
        own, cohorts = self.config.clustered, self.cohorts
        baseline = cohorts.whole(self.config.baseline, cohorts.priors.get("baseline"))
        priors = baseline.priors and baseline.priors.repeated(own.clusters)
        n_inner = 1 + (baseline.n_classes - 1) * own.clusters
        inner = BatchedGenerator(n_inner, baseline.config, priors=priors, head=baseline.head)
        background, *classes = cohorts.maps.cache.target.tolist()
        target = [background, *(k for k in classes for _ in range(own.clusters))]
        parts = in_patches(inner, self.config.segmenter.patches, target)
        return ClusteredGenerator(parts, own.clusters, own.share, own.nodes)

    def estimate(self) -> tuple[str, StructurePriors]:
        """Priors of the label maps for synthesis from the real subjects to learn from, and their file in the run."""
        several, maps = len(self.cohorts.sizes) > 1, self.cohorts.maps.cache
        name = f"priors-{len(self.real.subjects)}.json" if several else "priors.json"
        priors = keep_estimate(self.context.folder, name, self.real)
        return name, priors.of_labels(maps.generation_names, maps.generation_classes)

    def keep_learned(self, learned: Priors | None) -> dict[str, str]:
        """Write what an augmenter learned of intensities, if it does, and give what a row says of it."""
        if learned is None:
            return {}
        name = priors_name(self.name)
        keep_learned(self.context.folder, name, learned, self.real, self.cohorts.maps.cache)
        return {"learned_priors": name}

    def data(self, synthetic: Source, fraction: float = 0.0, **options: Any) -> ComparisonData:
        """Synthetic images and a fraction of real ones."""
        config, maps = self.config, self.cohorts.maps
        share = config.own_labels
        return ComparisonData(
            maps=maps,
            real=self.real,
            synthetic=synthetic,
            direct=RealAugmented(self.cohorts.scanner),
            fraction=fraction,
            own=OwnMaps(share, numbers_in(maps.cache, self.real.cache)) if share else None,
            shown=Real(config.segmenter.patches),
            seed=self.context.seed,
            batch_size=config.segmenter.batch_size,
            **{"window_end": config.outer.window_end, **options},
        )

    def new_segmenter(self) -> nn.Module:
        """The run's segmenter before any training."""
        return segmenter_for(self.context, self.cohorts.cache)

    def plain(self, segmenter: nn.Module, settings: SegmenterSettings) -> Supervised:
        """What trains a segmenter on finished images."""
        return plain_trainer(self.context, segmenter, settings)

    def validated(self, segments: Segment) -> float:
        """Mean Dice of the validation subjects, the same in all processes of the run: methods are chosen by it."""
        return self.context.ranks.agreed(mean_dice(segments, self.cohorts.validation))

    def train(
        self,
        data: ComparisonData,
        segmenter: nn.Module,
        trainer: Trainer,
        settings: SegmenterSettings,
        **options: Any,
    ) -> MethodResult:
        """Carry out the method's stage, with looks at the validation subjects; its segmenters are kept as models.

        ``options`` are those of `metasynth.training.loop.Stage`.
        """
        device, config, window = self.context.device, self.config, self.config.segmenter.window

        def validate() -> float:
            return self.validated(lambda images: segment(segmenter, images, device, window))

        selecting = Selecting(
            trainer, segmenter, validate, config.select_every, settings.steps, memory=PeakMemory(device)
        )
        stage = Stage(self.name, settings.steps, data, **options)
        seconds = run_stage(stage, selecting, config.pace, self.context)
        weights = {BEST: selecting.best, LAST: weights_of(segmenter)}
        checkpoints = {name: Checkpoint(segmenter, own, device, window) for name, own in weights.items()}
        for name, checkpoint in checkpoints.items():
            self.keep(name, checkpoint)
        values = {BEST: selecting.best_value, LAST: selecting.last_value}
        return MethodResult(checkpoints, values, settings.steps, seconds, seconds, selecting.peak_mib)

    def keep(self, name: str, checkpoint: Checkpoint) -> None:
        """Write a checkpoint among the run's models."""
        checkpoint.network.load_state_dict(checkpoint.weights)
        keep_segmenter(self.context, self.cohorts.cache, f"{self.name}/{name}", checkpoint.network)
