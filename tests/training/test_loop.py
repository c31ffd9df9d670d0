"""A stage: begun, stopped, resumed, finished; with a trainer that takes no time."""

import json
import shutil
from dataclasses import dataclass

import pytest
import torch
from support.tiny_noise import make_cache, session

from metasynth.bilevel.solver import NonFiniteError
from metasynth.data.cache import Cache
from metasynth.data.dataset import SliceDataset
from metasynth.errors import DataError, RunError
from metasynth.running.checkpoint import load_checkpoint, save_checkpoint
from metasynth.training.courses import Course
from metasynth.training.loop import Pace, Stage, run_stage
from metasynth.training.sources import Example
from metasynth.training.streams import StepData

PACE = Pace(checkpoint_every=3, workers=0)


@dataclass(frozen=True)
class Bright:
    """Images that are one random number."""

    def __call__(self, batch, generator):
        images = torch.rand(1, generator=generator).expand(len(batch.labels), 1, *batch.labels.shape[1:])
        return Example(images, batch.labels, None)


class Sum:
    """Adds up its images and a draw from torch's global stream; can be stopped before a step."""

    def __init__(self, stop=None, error=None):
        self.total, self.stop, self.error, self.taken = torch.zeros(()), stop, error, []

    def step(self, index, batch):
        if index == self.stop:
            raise self.error or KeyboardInterrupt
        self.taken.append(index)
        self.total = self.total + batch.inner.images.mean() + torch.rand(())
        return [{"inner_loss": self.total.item()}]

    def state_dict(self):
        return {"total": self.total}

    def load_state_dict(self, state):
        self.total = state["total"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    with Cache(make_cache(tmp_path_factory.mktemp("loop") / "c.h5")) as cache:
        yield StepData(SliceDataset(cache, cache.subjects), Bright(), None, seed=0, batch_size=2)


def metrics(run):
    return (run / "metrics.jsonl").read_bytes()


def one_stage(run, data, steps=10, name="a/b", pace=PACE, resume=False, trainer=None):
    trainer = trainer or Sum()
    with session(run, resume) as context:
        return run_stage(Stage(name, steps, data), trainer, pace, context), trainer


def test_a_stage_from_its_first_step_to_its_last(tmp_path, data):
    seconds, trainer = one_stage(tmp_path, data)
    assert trainer.taken == list(range(10))
    records = [json.loads(line) for line in metrics(tmp_path).splitlines()]
    assert [(record["stage"], record["step"]) for record in records] == [("a/b", step) for step in range(1, 11)]
    assert records[-1]["inner_loss"] == trainer.total.item()
    assert [path.name for path in (tmp_path / "checkpoints" / "a-b").iterdir()] == ["final.pt"]
    final = load_checkpoint(tmp_path / "checkpoints" / "a-b" / "final.pt")
    assert (final["stage"], final["step"]) == ("a/b", 10)
    assert final["position"] == len(metrics(tmp_path))
    assert seconds == final["seconds"] > 0


@pytest.mark.parametrize("stop", range(10))
def test_a_resumed_stage_is_the_uninterrupted_one(tmp_path, data, stop):
    _, whole = one_stage(tmp_path / "whole", data)
    with pytest.raises(KeyboardInterrupt):
        one_stage(tmp_path / "run", data, trainer=Sum(stop))
    assert len(metrics(tmp_path / "run").splitlines()) == stop
    _, resumed = one_stage(tmp_path / "run", data, resume=True)
    assert resumed.taken == list(range(3 * (stop // 3), 10))  # from the latest checkpoint
    assert torch.equal(resumed.total, whole.total)
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")
    assert not (tmp_path / "run" / "checkpoints" / "a-b" / "latest.pt").exists()


class InTwos(Sum):
    """Takes steps two at a time."""

    def __init__(self, stop=None):
        super().__init__(stop)
        self.kept = []

    def step(self, index, batch):
        if index == self.stop:
            raise KeyboardInterrupt
        self.kept.append((index, batch))
        if len(self.kept) < 2:
            return []
        kept, self.kept = self.kept, []
        return [record for one in kept for record in super(InTwos, self).step(*one)]


@pytest.mark.parametrize("stop", range(10))
def test_steps_that_are_taken_as_one_are_recorded_one_by_one_and_never_divided(tmp_path, data, stop):
    _, plain = one_stage(tmp_path / "plain", data)
    with pytest.raises(KeyboardInterrupt):
        one_stage(tmp_path / "run", data, trainer=InTwos(stop))
    assert len(metrics(tmp_path / "run").splitlines()) == stop - stop % 2
    latest = tmp_path / "run" / "checkpoints" / "a-b" / "latest.pt"
    saved = load_checkpoint(latest)["step"] if latest.exists() else 0
    assert saved == max(step for step in (0, 4, 6) if step <= stop)  # due at 3, 6 and 9, of which the last is the end
    _, resumed = one_stage(tmp_path / "run", data, resume=True, trainer=InTwos())
    assert resumed.taken == list(range(saved, 10))
    assert torch.equal(resumed.total, plain.total)
    assert metrics(tmp_path / "run") == metrics(tmp_path / "plain")


def test_a_stage_that_is_stopped_again_and_again(tmp_path, data):
    _, whole = one_stage(tmp_path / "whole", data)
    for stop, resume in ((4, False), (4, True), (5, True), (9, True)):
        with pytest.raises(KeyboardInterrupt):
            one_stage(tmp_path / "run", data, resume=resume, trainer=Sum(stop))
    _, resumed = one_stage(tmp_path / "run", data, resume=True)
    assert resumed.taken == [9]
    assert torch.equal(resumed.total, whole.total)
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")


def test_records_after_the_checkpoint_are_cut_off(tmp_path, data):
    one_stage(tmp_path / "whole", data)
    with pytest.raises(KeyboardInterrupt):
        one_stage(tmp_path / "run", data, trainer=Sum(8))
    with (tmp_path / "run" / "metrics.jsonl").open("ab") as file:
        file.write(b'{"stage":"a/b","st')  # as a kill may leave it
    one_stage(tmp_path / "run", data, resume=True)
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")


def test_a_finished_stage_is_loaded_and_not_trained(tmp_path, data):
    seconds, first = one_stage(tmp_path, data)
    before = metrics(tmp_path)
    again, trainer = one_stage(tmp_path, data, resume=True)
    assert trainer.taken == []
    assert torch.equal(trainer.total, first.total)
    assert again == seconds
    assert metrics(tmp_path) == before


def test_a_later_stage_goes_on_after_the_finished_ones(tmp_path, data):
    def every(run, stop=None, resume=False):
        trainers = Sum(), Sum(), Sum(stop)
        with session(run, resume) as context:
            for name, trainer in zip("abc", trainers, strict=True):
                run_stage(Stage(name, 5, data), trainer, PACE, context)
        return trainers

    whole = every(tmp_path / "whole")
    for stop in (1, 4):  # before the last stage's first checkpoint, and after it
        run = tmp_path / f"stopped at {stop}"
        with pytest.raises(KeyboardInterrupt):
            every(run, stop)
        resumed = every(run, resume=True)
        assert [trainer.taken for trainer in resumed[:2]] == [[], []]
        assert [trainer.total for trainer in resumed] == [trainer.total for trainer in whole]
        assert metrics(run) == metrics(tmp_path / "whole")


def test_seconds_add_up_over_sessions(tmp_path, data):
    with pytest.raises(KeyboardInterrupt):
        one_stage(tmp_path, data, trainer=Sum(7))
    latest = tmp_path / "checkpoints" / "a-b" / "latest.pt"
    state = load_checkpoint(latest)
    save_checkpoint(latest, {**state, "seconds": 100.0})
    seconds, _ = one_stage(tmp_path, data, resume=True)
    assert 100 < seconds < 130


def test_a_step_that_cannot_be_taken_names_stage_step_term_and_checkpoint(tmp_path, data):
    broken = Sum(7, NonFiniteError(8, "hypergradient of raw_sigma", float("inf")))
    with pytest.raises(RunError) as caught:
        one_stage(tmp_path, data, trainer=broken)
    latest = tmp_path / "checkpoints" / "a-b" / "latest.pt"
    assert str(caught.value) == (
        f"{tmp_path}: stage a/b stopped: hypergradient of raw_sigma is inf at step 8; "
        f"last good checkpoint: {latest} (step 6)"
    )
    assert load_checkpoint(latest)["step"] == 6
    _, resumed = one_stage(tmp_path, data, resume=True)
    assert resumed.taken == [6, 7, 8, 9]


def test_without_a_checkpoint_it_says_so(tmp_path, data):
    with pytest.raises(RunError, match=r"loss is nan at step 2; no checkpoint of this stage yet$"):
        one_stage(tmp_path, data, trainer=Sum(1, NonFiniteError(2, "loss", float("nan"))))


def test_the_checkpoint_of_an_earlier_session_is_named(tmp_path, data):
    with pytest.raises(KeyboardInterrupt):
        one_stage(tmp_path, data, trainer=Sum(4))
    with pytest.raises(RunError, match=r"latest\.pt \(step 3\)$"):
        one_stage(tmp_path, data, resume=True, trainer=Sum(3, NonFiniteError(4, "loss", float("nan"))))


class Learning(Sum):
    """Every second step is an outer one, after which the total is observed."""

    def step(self, index, batch):
        (record,) = super().step(index, batch)
        return [record | ({"outer_step": index // 2 + 1, "total": record["inner_loss"]} if index % 2 else {})]


def learned(run, data, resume=False, stop=None, name="a"):
    course = Course(["total"])
    with session(run, resume) as context:
        run_stage(Stage(name, 40, data, course=course), Learning(stop), PACE, context)
    return course.tails()


@pytest.mark.parametrize("stop", [0, 2, 3, 5, 30, 39])
def test_the_course_of_a_resumed_stage_is_the_uninterrupted_one(tmp_path, data, stop):
    whole = learned(tmp_path / "whole", data)
    records = [json.loads(line) for line in metrics(tmp_path / "whole").splitlines()]
    last = [record["total"] for record in records if "outer_step" in record][-2:]
    assert whole[0] == {"total": sum(last) / 2}
    with pytest.raises(KeyboardInterrupt):
        learned(tmp_path / "run", data, stop=stop)
    assert learned(tmp_path / "run", data, resume=True) == whole
    assert learned(tmp_path / "run", data, resume=True) == whole  # it is finished now


@pytest.mark.parametrize("index", [1, 9])
def test_records_that_another_program_changes_are_noticed_at_the_end_of_the_stage(tmp_path, data, index):
    class Disturbed(Sum):
        def step(self, at, batch):
            if at == index:
                path = tmp_path / "run" / "metrics.jsonl"
                path.write_bytes(path.read_bytes().replace(b'"step":1,', b'"step":7,'))
            return super().step(at, batch)

    with pytest.raises(DataError) as caught:
        one_stage(tmp_path / "run", data, trainer=Disturbed())
    assert str(caught.value) == (
        f"{tmp_path / 'run' / 'metrics.jsonl'}: was changed by another program while the run was writing it"
    )


def test_progress_shows_what_the_stage_notes(tmp_path, data):
    with session(tmp_path) as context:
        stage = Stage("a", 4, data, note=lambda record: f"step {record['inner_loss'] > 0}")
        run_stage(stage, Sum(), PACE, context)
        assert context.progress._stream.getvalue().startswith("a: 4/4, step True, ")


@pytest.mark.parametrize("stop", [0, 4])
def test_a_folder_that_is_deleted_is_noticed_at_the_next_checkpoint(tmp_path, data, stop):
    class Deletes(Sum):
        def step(self, index, batch):
            if index == stop:
                shutil.rmtree(tmp_path / "run")
            return super().step(index, batch)

    trainer = Deletes()
    with pytest.raises(RunError) as caught:
        one_stage(tmp_path / "run", data, trainer=trainer)
    assert str(caught.value) == (
        f"{tmp_path / 'run' / 'metrics.jsonl'}: was deleted, moved or replaced while the run was writing it"
    )
    assert trainer.taken[-1] + 1 == 3 * (stop // 3 + 1)
    assert list(tmp_path.iterdir()) == []


def test_a_stage_of_another_length_is_not_taken_up(tmp_path, data):
    one_stage(tmp_path, data)
    final = tmp_path / "checkpoints" / "a-b" / "final.pt"
    with pytest.raises(RunError) as caught:
        one_stage(tmp_path, data, steps=12, resume=True)
    assert str(caught.value) == f"{final}: expected all 12 steps of stage a/b, got 10"
    with pytest.raises(RunError) as caught:
        one_stage(tmp_path, data, name="a-b", resume=True)
    assert str(caught.value) == f"{final}: expected a checkpoint of stage a-b, got one of stage a/b"


@pytest.mark.parametrize(("name", "value", "least"), [("checkpoint_every", 0, 1), ("workers", -1, 0)])
def test_a_pace_out_of_range_is_refused(name, value, least):
    with pytest.raises(ValueError, match=f"{name} must be at least {least}, got {value}"):
        Pace(**{name: value})
