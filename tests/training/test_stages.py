"""The two trainings of a study with the real segmenter, generator and solver."""

from dataclasses import dataclass, replace

import pytest
import torch
from metasynth.experiments.recovery.study_data import load_study_data
from support.tiny_noise import make_cache, session

from metasynth.augment.augmenter import Augmenter
from metasynth.augment.noise import GaussianNoise, NoiseLevel
from metasynth.bilevel import solver
from metasynth.errors import RunError
from metasynth.running.checkpoint import load_checkpoint
from metasynth.running.seeding import derive_seed
from metasynth.synthesis.cornucopia import CornucopiaConfig
from metasynth.training import stages
from metasynth.training.loop import Pace
from metasynth.training.segmenter_settings import SegmenterSettings
from metasynth.training.settings import OuterSettings
from metasynth.training.sources import Corrupted, Synthetic
from metasynth.training.stages import train_bilevel, train_plain
from metasynth.training.trainers import Bilevel

SYNTHESIS = CornucopiaConfig(elastic_nodes=4)
STEPS = 12
INNER = SegmenterSettings(widths=(4, 8), batch_size=2, steps=STEPS)
OUTER = OuterSettings(hold=1, settle=2, batch_size=2, warmup=4, every=2, lr=0.1)
PACE = Pace(checkpoint_every=3, workers=0)


@dataclass(frozen=True)
class Settings:
    segmenter: SegmenterSettings = INNER
    outer: OuterSettings = OUTER
    pace: Pace = PACE


@dataclass(frozen=True)
class Poisoned:
    """A source whose first voxel is ``value`` in the examples drawn for one purpose at one step."""

    source: object
    seed: int
    value: float

    def __call__(self, batch, generator):
        example = self.source(batch, generator)
        if generator.initial_seed() == self.seed:
            example.images[0, 0, 0, 0] = self.value
        return example


class Steep(Augmenter):
    """Gaussian noise whose derivative is not finite where an image holds a very large value."""

    def __init__(self, start):
        super().__init__()
        self.noise = GaussianNoise(start)

    def draw(self, images, generator):
        return self.noise.draw(images, generator)

    def observed(self):
        return self.noise.observed()

    def forward(self, images, draws):
        noisy = self.noise(images, draws)
        return noisy + torch.sqrt(0 * self.noise.sigma) if images.max() > 1e3 else noisy


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return make_cache(tmp_path_factory.mktemp("stages") / "c.h5")


def train(run, cache, resume=False, poison=None, start=0.4, settings=Settings(), kind=Steep):
    """Learn in a session of a run, with sources poisoned for (purpose, step from 0, value) if wanted."""
    augmenter = kind(start)
    with pytest.MonkeyPatch.context() as patch, session(run, resume, settings, cache) as context:
        data = load_study_data(context, SYNTHESIS, 1)
        real = Corrupted(data.generator, NoiseLevel(0.1, 0.1))
        if poison is not None:
            purpose, step, value = poison
            seed = derive_seed(0, purpose, step)
            real = Poisoned(real, seed, value)
            patch.setattr(stages, "Synthetic", lambda *parts: Poisoned(Synthetic(*parts), seed, value))
        found = train_bilevel(context, data, "learn", augmenter, real)
        return found, context.folder.read_metrics()


@pytest.fixture(scope="module")
def whole(cache, tmp_path_factory):
    """An uninterrupted run."""
    return train(tmp_path_factory.mktemp("whole"), cache)


def same_weights(a, b):
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def test_learning_records_every_step_and_moves_sigma(whole):
    found, records = whole
    assert [record["step"] for record in records] == list(range(1, STEPS + 1))
    assert {record["stage"] for record in records} == {"learn"}
    outer = {"outer_loss", "reference_loss", "hypergradient_norm", "outer_step", "sigma"}
    due = [record for record in records if "outer_loss" in record]
    assert [record["step"] for record in due] == [5, 7, 9, 11]
    assert [record["outer_step"] for record in due] == [1, 2, 3, 4]
    for record in records:
        assert set(record) == {"stage", "step", "inner_loss"} | (outer if record in due else set())
    sigmas = [record["sigma"] for record in due]
    assert len({0.4, *sigmas}) == 5
    assert found.mean == {"sigma": sigmas[-1]}  # a tenth of four steps is the last one
    assert found.sd == {"sigma": 0.0}
    assert found.seconds > 0


def test_averaged_hypergradients_make_fewer_outer_steps(tmp_path, cache):
    settings = Settings(outer=replace(OUTER, average=2, reference="none"))
    _, records = train(tmp_path, cache, settings=settings)
    due = [record for record in records if "outer_loss" in record]
    assert [record.get("outer_step") for record in due] == [None, 1, None, 2]
    assert not any("reference_loss" in record for record in records)


def test_the_outer_rate_follows_its_schedule(tmp_path, cache, monkeypatch):
    rates = []
    step = torch.optim.Adam.step

    def spy(optimizer, *arguments):
        if optimizer.param_groups[0]["betas"] == OUTER.betas:
            rates.append(optimizer.param_groups[0]["lr"])
        return step(optimizer, *arguments)

    monkeypatch.setattr(torch.optim.Adam, "step", spy)
    train(tmp_path, cache)
    assert rates == [OUTER.lr * OUTER.rate_at(step) for step in (4, 6, 8, 10)]
    assert rates[0] > rates[-1]


def test_the_same_run_twice_gives_the_same_bits(tmp_path, cache, whole):
    again, records = train(tmp_path, cache)
    assert records == whole[1]
    assert same_weights(again.segmenter, whole[0].segmenter)


def test_a_finished_training_is_only_loaded(tmp_path, cache, whole):
    first, _ = train(tmp_path, cache)
    loaded, records = train(tmp_path, cache, resume=True, poison=("inner", 0, float("nan")))
    assert records == whole[1]
    assert same_weights(loaded.segmenter, whole[0].segmenter)
    assert (loaded.mean, loaded.sd, loaded.seconds) == (first.mean, first.sd, first.seconds)


@pytest.mark.parametrize(
    ("poison", "term"),
    [
        (("inner", 7, float("nan")), "inner loss is nan at step 8"),
        (("inner", 8, float("inf")), "inner loss is nan at step 9"),
        (("outer", 8, float("nan")), "outer loss is nan at step 9"),
        (("reference", 8, float("nan")), "reference loss is nan at step 9"),
        (("inner", 8, 1e4), "hypergradient of noise.raw_sigma is nan at step 9"),
    ],
)
def test_what_is_not_finite_stops_the_stage_and_it_resumes(tmp_path, cache, whole, poison, term):
    with pytest.raises(RunError) as caught:
        train(tmp_path, cache, poison=poison)
    latest = tmp_path / "checkpoints" / "learn" / "latest.pt"
    assert str(caught.value) == f"{tmp_path}: stage learn stopped: {term}; last good checkpoint: {latest} (step 6)"
    assert load_checkpoint(latest)["step"] == 6
    resumed, records = train(tmp_path, cache, resume=True)
    assert records == whole[1]
    assert same_weights(resumed.segmenter, whole[0].segmenter)
    assert resumed.mean == whole[0].mean


def test_plain_training_starts_from_the_same_weights_and_sees_the_same_images(cache, tmp_path):
    with session(tmp_path / "plain", config=Settings(), data=cache) as context:
        data = load_study_data(context, SYNTHESIS, 1)
        source = Corrupted(data.generator, NoiseLevel(0.1, 0.1))
        one, seconds = train_plain(context, data, "naive", source)
        other, _ = train_plain(context, data, "optimised", source)
        records = context.folder.read_metrics()
    assert same_weights(one, other)
    assert seconds > 0
    assert [(record["stage"], record["step"]) for record in records] == [
        (stage, step) for stage in ("naive", "optimised") for step in range(1, STEPS + 1)
    ]
    losses = [record["inner_loss"] for record in records]
    assert losses[:STEPS] == losses[STEPS:]
    # Sigma starts at the truth and is never moved: then learning is plain training, up to a step's arithmetic.
    frozen = Settings(outer=replace(OUTER, lr=1e-12))
    found, learned = train(tmp_path / "learned", cache, start=0.1, settings=frozen)
    assert [record["inner_loss"] for record in learned] == pytest.approx(losses[:STEPS], rel=1e-4)
    for x, y in zip(found.segmenter.parameters(), one.parameters(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-3, atol=1e-4)


def test_plain_training_stops_at_a_loss_that_is_not_finite(cache, tmp_path):
    with session(tmp_path / "run", config=Settings(), data=cache) as context:
        data = load_study_data(context, SYNTHESIS, 1)
        source = Corrupted(data.generator, NoiseLevel(0.1, 0.1))
        poisoned = Poisoned(source, derive_seed(0, "inner", 4), float("nan"))
        with pytest.raises(RunError, match=r"stage naive stopped: loss is nan at step 5; last good .*\(step 3\)$"):
            train_plain(context, data, "naive", poisoned)


class Unconnected(Steep):
    """Noise that no hypergradient reaches."""

    def forward(self, images, draws):
        return self.noise(images, draws).detach()


def test_what_cannot_be_differentiated_stops_before_the_first_step(tmp_path, cache):
    """Not after the warm-up, and without a traceback; nothing was recorded."""
    with pytest.raises(RunError) as caught:
        train(tmp_path / "run", cache, kind=Unconnected)
    message = str(caught.value)
    assert message.startswith(
        f"{tmp_path / 'run'}: stage learn stopped: outer parameter noise.raw_sigma cannot be learned"
    )
    assert "the graph ends at detach (test_stages.py, line " in message
    assert message.endswith("; outer_loss does not use it; no checkpoint of this stage yet")
    assert "\n" not in message
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == b""
    assert list((tmp_path / "run" / "checkpoints").glob("*/*.pt")) == []


def test_the_check_changes_no_bit(tmp_path, cache, whole, monkeypatch):
    """Of losses, weights or random streams: with it or without the run is the same."""
    monkeypatch.setattr(Bilevel, "check", lambda trainer, data: None)
    found, records = train(tmp_path, cache)
    assert records == whole[1]
    assert same_weights(found.segmenter, whole[0].segmenter)


def test_the_check_is_made_once_in_a_session(tmp_path, cache, monkeypatch):
    """On the data of the first step that is due; not for a stage that has finished."""
    calls = []
    monkeypatch.setattr(solver, "preflight", lambda *parts: calls.append(parts[4].images))
    train(tmp_path, cache)
    train(tmp_path, cache, resume=True)
    assert len(calls) == 1
    with session(tmp_path / "data", config=Settings(), data=cache) as context:
        data = load_study_data(context, SYNTHESIS, 1)
        source = Synthetic(data.generator, Steep(0.4).draw)
        fed = stages._step_data(context, data, source, Corrupted(data.generator, NoiseLevel(0.1, 0.1)))
        assert torch.equal(calls[0], fed[OUTER.warmup].inner.images)


def test_a_value_that_the_core_refuses_later_is_one_line_too(tmp_path, cache, monkeypatch):
    """With the stage and the last good checkpoint, from which it can go on."""
    step = Bilevel.step

    def refused(trainer, index, batch):
        if index == 7:
            raise ValueError("the inner Adam holds\nno such thing")
        return step(trainer, index, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Bilevel, "step", refused)
        with pytest.raises(RunError) as caught:
            train(tmp_path, cache)
    latest = tmp_path / "checkpoints" / "learn" / "latest.pt"
    last = f"last good checkpoint: {latest} (step 6)"
    assert str(caught.value) == f"{tmp_path}: stage learn stopped: the inner Adam holds; {last}"
