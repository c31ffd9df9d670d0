"""Hypergradients that follow several inner steps: taken as one call of the core, recorded and resumed step by step."""

import re
from dataclasses import dataclass, replace

import pytest
import torch
from bilevel.identical import assert_identical
from metasynth.experiments.recovery.study_data import load_study_data
from support.tiny_noise import make_cache, session

from metasynth.augment.noise import GaussianNoise, NoiseLevel
from metasynth.bilevel.outer_step import OuterStep
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.solver import BilevelSolver
from metasynth.bilevel.strategies.unrolled import Unrolled
from metasynth.errors import RunError
from metasynth.running.checkpoint import load_checkpoint
from metasynth.running.seeding import derive_seed
from metasynth.running.settings.config import from_dict, to_dict
from metasynth.synthesis.cornucopia import CornucopiaConfig
from metasynth.training import stages
from metasynth.training.loop import Pace
from metasynth.training.segmenter_settings import SegmenterSettings
from metasynth.training.settings import OuterSettings
from metasynth.training.sources import Corrupted, Synthetic
from metasynth.training.stages import segmenter_for, train_bilevel
from metasynth.training.trainers import Window, bilevel_losses

STEPS = 22
INNER = SegmenterSettings(widths=(4, 8), batch_size=2, steps=STEPS, cooldown=0.5)
OUTER = OuterSettings(
    hold=1, settle=2, batch_size=2, warmup=3, every=6, horizon=4, mean_of=2, lr=0.1, clip=0.0, memory=0.0
)
PACE = Pace(checkpoint_every=4, workers=0)
WINDOWS = (range(3, 7), range(9, 13), range(15, 19))  # one from step 21 on would not end


@dataclass(frozen=True)
class Settings:
    segmenter: SegmenterSettings = INNER
    outer: OuterSettings = OUTER
    pace: Pace = PACE


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return make_cache(tmp_path_factory.mktemp("windows") / "c.h5")


def train(run, cache, resume=False, settings=Settings(), stop=None):
    """Learn in a session of a run, which is interrupted before inner step ``stop`` is taken up."""
    add = Window.add

    def stopping(window, index, inner):
        if index == stop:
            raise KeyboardInterrupt
        return add(window, index, inner)

    augmenter = GaussianNoise(0.4)
    with pytest.MonkeyPatch.context() as patch, session(run, resume, settings, cache) as context:
        patch.setattr(Window, "add", stopping)
        data = load_study_data(context, CornucopiaConfig(elastic_nodes=4), 1)
        found = train_bilevel(context, data, "learn", augmenter, real(data))
        return found.segmenter.state_dict(), augmenter.state_dict(), context.folder.read_metrics()


def real(data):
    return Corrupted(data.generator, NoiseLevel(0.1, 0.1))


@pytest.fixture(scope="module")
def whole(cache, tmp_path_factory):
    return train(tmp_path_factory.mktemp("whole"), cache)


def test_a_window_is_one_call_of_the_core_on_the_batches_of_its_steps(tmp_path, cache, whole):
    augmenter, losses, called = GaussianNoise(0.4), [], {}
    with session(tmp_path, False, Settings(), cache) as context:
        study = load_study_data(context, CornucopiaConfig(elastic_nodes=4), 1)
        context = replace(context, config=Settings())
        data = stages._step_data(context, study, Synthetic(study.generator, augmenter.draw), real(study))
        segmenter = segmenter_for(context, study.train.cache)
        solver = BilevelSolver(
            BilevelProblem(*bilevel_losses(INNER)),
            segmenter,
            torch.optim.Adam(segmenter.parameters(), lr=INNER.lr),
            augmenter,
            torch.optim.Adam(augmenter.parameters(), lr=OUTER.lr, betas=OUTER.betas),
            Unrolled(4, remat=True, mean_of=2),
            OuterStep(),
        )
        step = 0
        while step < STEPS:
            window = next((steps for steps in WINDOWS if step in steps), range(step, step + 1))
            solver.optimizer.param_groups[0]["lr"] = INNER.lr * INNER.rate_at(step)
            batches = [data[t].inner for t in window]
            if len(window) == 1:
                losses.append(solver.inner_step(*batches).inner_loss)
            else:
                solver.outer_optimizer.param_groups[0]["lr"] = OUTER.lr * OUTER.rate_at(step)
                last = data[window[-1]]
                report = solver.step(batches, last.outer, last.reference)
                losses += report.inner_losses
                called[window[-1]] = {
                    "outer_loss": report.outer_loss,
                    "reference_loss": report.reference_loss,
                    "hypergradient_norm": report.hypergradient_norm,
                    "outer_step": report.outer_steps,
                    **augmenter.observed(),
                }
            step = window[-1] + 1
    expected = [
        {"stage": "learn", "step": t + 1, "inner_loss": loss, **called.get(t, {})} for t, loss in enumerate(losses)
    ]
    assert whole[2] == expected
    assert sorted(called) == [window[-1] for window in WINDOWS]
    assert_identical(whole[0], segmenter.state_dict())
    assert_identical(whole[1], augmenter.state_dict())
    assert len({0.4, *(values["sigma"] for values in called.values())}) == 4


def test_the_inner_batch_of_a_step_is_the_same_whatever_takes_it(tmp_path, cache, whole, monkeypatch):
    """Until the first outer step all that differs is how the steps are taken, if the people are divided alike."""
    make, short = stages.StepData, Settings(outer=replace(OUTER, horizon=1, mean_of=1, warmup=7))
    monkeypatch.setattr(stages, "StepData", lambda **fields: make(**{**fields, "window_end": OUTER.window_end}))
    _, _, records = train(tmp_path, cache, settings=short)
    losses, others = ([record["inner_loss"] for record in one][: WINDOWS[0][-1] + 1] for one in (records, whole[2]))
    assert losses == pytest.approx(others, rel=1e-5)


@pytest.mark.parametrize(("stop", "kept"), [(6, None), (7, 7), (11, 8), (16, 13)])
def test_a_training_interrupted_within_a_window_is_the_uninterrupted_one(tmp_path, cache, whole, stop, kept):
    """It goes on from its latest checkpoint; what would have come within a window came after it."""
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, cache, stop=stop)
    taken = max((window[0] for window in WINDOWS if stop in window), default=stop)
    written = (tmp_path / "metrics.jsonl").read_bytes().count(b"\n")
    assert written == taken
    latest = tmp_path / "checkpoints" / "learn" / "latest.pt"
    assert (load_checkpoint(latest)["step"] if latest.exists() else None) == kept
    assert_identical(train(tmp_path, cache, resume=True), whole)


def test_the_processes_that_make_the_data_change_nothing(tmp_path, cache, whole):
    paced = Settings(pace=replace(PACE, workers=2))
    assert_identical(train(tmp_path, cache, settings=paced), whole)


def test_a_loss_within_a_window_that_is_not_finite_names_its_step(tmp_path, cache, whole, monkeypatch):
    seed = derive_seed(0, "inner", 11)

    def poisoned(*made):
        def source(batch, draws):
            example = Synthetic(*made)(batch, draws)
            if draws.initial_seed() == seed:
                example.images[0, 0, 0, 0] = float("nan")
            return example

        return source

    monkeypatch.setattr(stages, "Synthetic", poisoned)
    with pytest.raises(RunError) as caught:
        train(tmp_path, cache)
    monkeypatch.undo()
    latest = tmp_path / "checkpoints" / "learn" / "latest.pt"
    line = f"inner loss is nan at step 12; last good checkpoint: {latest} (step 8)"
    assert str(caught.value) == f"{tmp_path}: stage learn stopped: {line}"
    assert_identical(train(tmp_path, cache, resume=True), whole)


@pytest.mark.parametrize("warmup", [0, 1, 5])
@pytest.mark.parametrize(("horizon", "every"), [(1, 1), (1, 3), (2, 2), (4, 4), (3, 5)])
def test_windows_follow_each_other_and_end_with_the_training(warmup, horizon, every):
    outer = OuterSettings(warmup=warmup, every=every, horizon=horizon, average=2)
    for steps in range(1, 25):
        begins = range(warmup, steps - horizon + 1, every)
        waiting = {t for begin in begins for t in range(begin, begin + horizon - 1)}
        assert {t for t in range(steps) if outer.waits(t, steps)} == waiting
        assert [t for t in range(steps) if outer.is_due(t)] == [begin + horizon - 1 for begin in begins]
        assert outer.outer_steps(steps) == len(begins) // 2
        assert outer.first_due == warmup + horizon - 1
        ends = {t: begin + horizon - 1 for begin in begins for t in range(begin, begin + horizon)}
        whole = range(max([*ends, warmup - 1]) + 1)
        assert [outer.window_end(t) for t in whole] == [ends.get(t, t) for t in whole]
    assert [outer.rate_at(t + horizon - 1) for t in begins] == [replace(outer, horizon=1).rate_at(t) for t in begins]


@pytest.mark.parametrize("until", [13, 14, 18, 19, 20, 30])
def test_after_a_step_no_window_is_begun(until):
    outer, all_along = replace(OUTER, until=until), OUTER
    kept = [own for own in WINDOWS if own[-1] < until]
    assert [t for t in range(STEPS) if outer.is_due(t)] == [own[-1] for own in kept]
    assert [t for t in range(STEPS) if outer.waits(t, STEPS)] == [t for own in kept for t in own[:-1]]
    assert outer.outer_steps(STEPS) == len(kept) <= all_along.outer_steps(STEPS)


def test_records_from_before_there_were_horizons_are_of_one_step():
    recorded = to_dict(OUTER)
    del recorded["horizon"], recorded["mean_of"], recorded["until"], recorded["loss"]
    assert from_dict(OuterSettings, recorded) == replace(OUTER, horizon=1, mean_of=1)


def test_the_strategy_of_a_horizon():
    assert OUTER.hypergradient_strategy() == Unrolled(4, remat=True, mean_of=2)


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"horizon": 0}, "horizon must be at least 1, got 0"),
        ({"mean_of": 0}, "mean_of must be at least 1, got 0"),
        ({"mean_of": 2}, "mean_of must be at most horizon = 1, got 2"),
        ({"horizon": 4, "every": 9, "mean_of": 5}, "mean_of must be at most horizon = 4, got 5"),
        ({"warmup": 5, "until": 5}, "until must be 0, or at least warmup + horizon = 5 + 1, got 5"),
        (
            {"horizon": 4, "every": 4, "warmup": 9, "until": 12},
            "until must be 0, or at least warmup + horizon = 9 + 4, got 12",
        ),
        ({"horizon": 4}, "every must be at least horizon = 4, got 3"),
        (
            {"horizon": 3, "strategy": "finite_difference"},
            "horizon = 3 needs strategy = mixed, as several steps are differentiated in one way only, got "
            "finite_difference",
        ),
        (
            {"horizon": 3, "samples": 2},
            "horizon = 3 needs samples = 0, as several steps are differentiated in one way only, got 2",
        ),
        (
            {"horizon": 3, "chunk": 2},
            "horizon = 3 needs chunk = 0, as several steps are differentiated in one way only, got 2",
        ),
    ],
)
def test_settings_that_do_not_go_together(changed, line):
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        OuterSettings(**changed)
