"""`benchmarks/gpu.py`, of which every part is carried out on the CPU, at sizes that take seconds."""

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from metasynth.training.loop import Stage
from metasynth.training.settings import OuterSettings
from metasynth.training.sources import Example
from metasynth.training.streams import StepBatch, Steps

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch):
    """The script and its modules."""
    monkeypatch.syspath_prepend(str(FOLDER))
    names = ("results", "settings", "steps", "data", "stages", "paper", "noise")
    return SimpleNamespace(
        main=importlib.import_module("gpu").main, **{n: importlib.import_module(f"common.gpu.{n}") for n in names}
    )


def called(gpu, monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["gpu.py", *map(str, words)])
    return gpu.main()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--minutes", "0"), "--minutes: expected a number above 0, got 0"),
        (("--minutes", "-1"), "--minutes: expected a number above 0, got -1"),
        (("--minutes", "nan"), "--minutes: expected a number above 0, got nan"),
        (("--minutes", "soon"), "--minutes: expected a number above 0, got soon"),
        (("--parts", "steps,all"), "--parts: expected some of steps,data,paper,noise, got 'all'"),
        (("--json", "nowhere/gpu.json"), "--json: expected a file in a folder that there is, got nowhere/gpu.json"),
        ((), "--device cuda: torch sees no CUDA device here; choose cpu or auto"),
    ],
)
def test_bad_input_is_one_line(gpu, monkeypatch, capsys, tmp_path, words, told):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert called(gpu, monkeypatch, *words) == 2
    assert capsys.readouterr() == ("", f"Error: {told}\n")
    assert list(tmp_path.iterdir()) == []


def test_the_time_is_split_over_the_parts_that_are_asked_for(gpu, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(gpu.results.time, "monotonic", lambda: now[0])
    budget = gpu.results.Budget(540, gpu.results.PARTS)
    deadlines = []
    for part in gpu.results.PARTS:
        deadlines.append(budget.of(part).left)
        now[0] += 60  # each leaves some of it
    assert deadlines == pytest.approx([540 * 0.4, 480 * 0.15 / 0.6, 420 * 0.25 / 0.45, 360])
    assert gpu.results.Budget(540, ["paper"]).of("paper").left == 540
    late = gpu.results.Deadline(5)
    late.require(4.9, "a step")
    with pytest.raises(gpu.results.OutOfTime, match=r"^out of time; a step takes 6 s, 5 s are left$"):
        late.require(6, "a step")
    now[0] += 6
    with pytest.raises(gpu.results.OutOfTime, match=r"^out of time$"):
        late.require()


def test_the_file_holds_all_at_every_moment(gpu, tmp_path, capsys):
    path = tmp_path / "gpu.json"
    results = gpu.results.Results(path, {"minutes": 9})
    assert json.loads(path.read_text()) == {"minutes": 9, "parts": {}, "unrun": [], "finished": False}
    results.add("steps", {"name": "Mixed", "seconds": 0.12345, "ratio": None, "steps": {"a": 1}})
    row = {"name": "Mixed", "seconds": 0.12345, "ratio": None, "steps": {"a": 1}}
    assert json.loads(path.read_text())["parts"] == {"steps": [row]}
    results.unrun("steps", "Forward", "out of time")
    unrun = [{"part": "steps", "name": "Forward", "reason": "out of time"}]
    assert json.loads(path.read_text())["unrun"] == unrun
    results.finish()
    assert json.loads(path.read_text()) == {
        "minutes": 9,
        "parts": {"steps": [row]},
        "unrun": unrun,
        "finished": True,
    }
    assert capsys.readouterr().out == "Mixed seconds=0.1235 ratio=None\nunrun: steps: Forward: out of time\n"


def test_a_row_that_does_not_fit_is_named_and_the_next_comes(gpu, tmp_path, monkeypatch):
    """Into memory, into the time; a strategy that refuses is told by its own words."""
    settings = gpu.settings.settings_of("small", "cpu")
    troubles = {
        "Mixed": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 TiB. GPU 0 has"),
        "economical": gpu.results.OutOfTime("out of time; a call takes 7 s, 2 s are left"),
        "higher used directly": ValueError("what it says\nand more"),
    }
    rows = [row for row in gpu.steps.chosen(2) if row[0] != gpu.steps.TORCHOPT]
    monkeypatch.setattr(gpu.steps, "chosen", lambda batch: rows)
    names = {id(method): name for name, method in rows}

    def measured(method, size, deadline, share, repeats):
        if trouble := troubles.get(names[id(method)]):
            raise trouble
        plain = names[id(method)].startswith("plain")
        return {"seconds": 0.5 if plain else 2.0, "first_s": 3.0, "calls": 1, "peak_mib": 10.0}

    monkeypatch.setattr(gpu.steps, "measured", measured)
    results = gpu.results.Results(tmp_path / "gpu.json", {})
    gpu.steps.measure(settings, gpu.results.Deadline(60), results)
    found = json.loads((tmp_path / "gpu.json").read_text())
    reasons = {one["name"]: one["reason"] for one in found["unrun"]}
    for images in settings.images:
        for precision in ("float32", "TF32", "bf16"):
            where = f"{images}, {precision}"
            assert reasons[f"{where}, Mixed"] == "out of memory: 2.50 TiB more were asked for"
            assert reasons[f"{where}, economical"] == "out of time; a call takes 7 s, 2 s are left"
            assert reasons[f"{where}, higher used directly"] == "ValueError: what it says"
            ratios = {
                row["name"]: row["ratio"]
                for row in found["parts"]["steps"]
                if (row["images"], row["precision"]) == (images, precision)
            }
            last = ", channels-last"
            others = {f"{name}{last}": 4.0 for name in ("Mixed", "FiniteDifference", "economical")}
            plain = {f"plain training step{layout}": 1.0 for layout in ("", last)}
            assert ratios == {**plain, "FiniteDifference": 4.0, **others}


class Data(Steps):
    """Steps of one number each."""

    def __getitem__(self, step: int) -> StepBatch:
        images = torch.arange(float(self.batch_size)).reshape(-1, 1, 1, 1)
        outer = Example(images + 100, images[:, 0].long(), None) if self.is_due and self.is_due(step) else None
        return StepBatch(Example(images, images[:, 0].long(), None), outer, None)


class Noting:
    """A trainer that notes what it is given."""

    def __init__(self) -> None:
        self.given: list[tuple[int, Tensor, bool]] = []

    def step(self, index, batch):
        self.given.append((index, batch.inner.images.flatten(), batch.outer is not None))
        return [{"outer_step": 1}] if batch.outer is not None else []


def stage_of(outer, steps=9000, batch=16):
    data = Data(seed=0, batch_size=batch, is_due=outer.is_due, window_end=outer.window_end)
    return Stage("n=5/learn", steps, data)


@pytest.mark.parametrize(
    ("outer", "kinds"),
    [
        (OuterSettings(warmup=500, every=2), (4750, 4250, 1, 500)),
        (OuterSettings(warmup=500, every=240, horizon=60, until=6300), (9000 - 60 * 24, 24, 60, 559)),
    ],
)
def test_steps_of_a_whole_stage_are_counted_by_kind(gpu, outer, kinds):
    assert gpu.stages.Kinds.of(stage_of(outer)) == gpu.stages.Kinds(*kinds)
    plain = Data(seed=0, batch_size=2)
    assert gpu.stages.Kinds.of(Stage("naive", 9000, plain)) == gpu.stages.Kinds(9000, 0, 0, None)


def test_the_whole_of_a_stage_is_what_its_steps_and_its_data_take(gpu):
    row = {"plain_s": 0.1, "window_s": 8.0, "plain_data_s": 2.0, "due_data_s": 6.0}
    timed = gpu.stages.Timed(row, None, [])
    steps, data = timed.seconds(gpu.stages.Kinds(7560, 24, 60, 559), workers=8)
    assert steps == pytest.approx(7560 * 0.1 + 24 * 8)
    assert data == pytest.approx(((7560 + 24 * 59) * 2 + 24 * 6) / 8)


def test_a_stage_is_timed_by_whole_batches_of_which_an_eighth_is_made(gpu):
    outer = OuterSettings(warmup=3, every=4, horizon=2, until=9)
    stage, trainer = stage_of(outer, steps=20), Noting()
    timed = gpu.stages.time_stage(stage, gpu.stages.Kinds.of(stage), trainer, "cpu", gpu.results.Deadline(60))
    assert [(index, due) for index, _, due in trainer.given] == [(0, False), (0, False), (3, False), (4, True)]
    assert all(images.tolist() == [0.0, 1.0] * 8 for _, images, _ in trainer.given)
    assert timed.records == [{"outer_step": 1}]
    assert set(timed.row) == {"plain_s", "window_s", "plain_data_s", "due_data_s", "peak_mib"}
    assert all(value > 0 for value in timed.row.values())


@pytest.mark.parametrize("tf32", [False, True])
def test_a_precision_is_put_back(gpu, tf32):
    flags = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [flag.allow_tf32 for flag in flags]
    with gpu.settings.Precision(tf32).used():
        assert [flag.allow_tf32 for flag in flags] == [tf32, tf32]
    assert [flag.allow_tf32 for flag in flags] == before


def test_an_interruption_says_where_the_results_are(gpu, monkeypatch, tmp_path, capsys):
    def interrupted(settings, deadline, results):
        results.add("data", {"images": "some"})
        raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules["gpu"].MEASURES, "data", interrupted)
    path = tmp_path / "gpu.json"
    words = ("--device", "cpu", "--size", "small", "--parts", "data", "--json", path)
    assert called(gpu, monkeypatch, *words) == 130
    assert capsys.readouterr().err.splitlines()[-1] == f"Interrupted. What was measured is in {path}"
    assert json.loads(path.read_text())["parts"] == {"data": [{"images": "some"}]}


def test_the_wait_for_data_is_measured(gpu, monkeypatch, tmp_path):
    path = tmp_path / "gpu.json"
    words = ("--device", "cpu", "--size", "small", "--parts", "data", "--minutes", "5", "--json", path)
    assert called(gpu, monkeypatch, *words) == 0
    found = json.loads(path.read_text())
    assert (found["finished"], found["unrun"]) == (True, [])
    rows = found["parts"]["data"]
    sources = ("made on cpu", "workers: 1")
    images = ("16x16, batch 2", "16x16x16, batch 2")
    assert [(row["images"], row["source"]) for row in rows] == [(i, s) for i in images for s in sources]
    for row in rows:
        assert row["steps"] == 2
        assert 0 < row["wait_s"] < row["seconds"]
        assert row["share"] == pytest.approx(row["wait_s"] / row["seconds"])


@pytest.mark.slow
def test_every_part_is_carried_out(gpu, monkeypatch, tmp_path):
    path = tmp_path / "gpu.json"
    words = ("--device", "cpu", "--size", "small", "--minutes", "30", "--json", path)
    assert called(gpu, monkeypatch, *words) == 0
    found = json.loads(path.read_text())
    assert found["finished"]
    assert [one["name"] for one in found["unrun"]] in ([], ["TorchOpt MetaAdam"])
    rows = found["parts"]["steps"]
    assert (
        len({(row["images"], row["precision"], row["name"]) for row in rows})
        == len(rows)
        == 6 * (len(list(gpu.steps.chosen(2))))
    )
    assert all(row["seconds"] > 0 for row in rows)
    whole = {row["study"]: row for row in found["parts"]["paper"] if "hours" in row}
    assert set(whole) == {"cross_contrast", "inu", "noise", "real_world", "unpaired"}
    assert whole["noise"]["stages"] == 15
    assert all(row["hours"] >= max(row["steps_h"], row["data_h"]) > 0 for row in whole.values())
    (noise,) = found["parts"]["noise"]
    assert (noise["finished"], noise["share_of_steps"]) == (True, 1.0)
    assert [row["sigma_true"] for row in noise["learned"]] == [0.1]
