"""What the trainings of a comparison share with the processes that carry them out."""

from types import SimpleNamespace

import pytest
from metasynth.experiments import cross_contrast, label_maps, real_world
from metasynth.experiments.comparison import trial as module
from metasynth.experiments.comparison.trial import Trial

from metasynth.running.ranks.ranks import Ranks


@pytest.mark.parametrize(
    ("study", "preset", "batches"),
    [
        (label_maps, "quick", {"segmenter.batch_size": 8}),
        (real_world, "quick", {"segmenter.batch_size": 8, "outer_synthesis.batch_size": 24}),
        (
            real_world,
            "paper",
            {"segmenter.batch_size": 64, "outer.batch_size": 64, "outer_synthesis.batch_size": 64},
        ),
        (cross_contrast, "quick-3d", {"segmenter.batch_size": 2, "outer_synthesis.batch_size": 4}),
    ],
)
def test_batches_that_processes_share_are_those_of_the_methods(study, preset, batches):
    assert study.EXPERIMENT.batches(study.PRESETS[preset]) == batches


def test_what_is_chosen_by_validation_is_chosen_alike_in_all_processes(monkeypatch):
    monkeypatch.setattr(module, "mean_dice", lambda segments, dataset: 0.7)
    monkeypatch.setattr(Ranks, "_broadcast", lambda self, given: 0.5)
    cohorts = SimpleNamespace(validation=None)
    for count, value in ((1, 0.7), (2, 0.5)):
        assert Trial(SimpleNamespace(ranks=Ranks(count=count)), cohorts, None, "naive", {}).validated(None) == value
