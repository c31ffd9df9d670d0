"""What TensorBoard reads of what was written for it."""

import os

import numpy as np
import pytest

pytest.importorskip("tensorboard", reason="the package tensorboard is not installed: pip install tensorboard")

from sinks.conftest import SETTINGS, append, points
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from metasynth.errors import DataError
from metasynth.sinks import Record, SinkRun
from metasynth.sinks.table import chosen
from metasynth.sinks.tensorboard import RECORDS, REPORT, TensorBoardSink


def read(folder):
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    found.Reload()
    return found


def scalars(folder, tag="loss"):
    return [(event.step, event.value) for event in read(folder).Scalars(tag)]


def record(number, series="a/learn", step=None, **values):
    return Record(number, series, step or number, values)


@pytest.fixture
def opened(tmp_path):
    return lambda: TensorBoardSink(SinkRun("run", tmp_path, SETTINGS))


def test_a_run_reads_back(run, pictures):
    images = pictures("red")
    with run.session(*chosen("tensorboard")) as (lines, fed):
        append(lines, *range(1, 20))
        run.finish(fed, images)
    folder = run.path / "logs" / "tensorboard"
    single = [(step, float(np.float32(loss))) for step, loss in points(list(range(1, 20)))]
    assert scalars(folder / "s=0.1" / "learn") == single
    (image,) = read(folder).Images("sigma")
    assert image.encoded_image_string == images["sigma"].read_bytes()
    assert (image.width, image.height) == (20, 10)
    assert run.said == []


def test_series_and_numbers_have_places_of_their_own(opened, tmp_path):
    opened().write([record(1, loss=0.5, dice=0.25), record(2, "b", 1, loss=2.0), record(3, "", 3, start=4.0)])
    assert scalars(tmp_path / "a" / "learn", "dice") == [(1, 0.25)]
    assert (scalars(tmp_path / "b"), scalars(tmp_path, "start")) == ([(1, 2.0)], [(3, 4.0)])


def test_it_knows_what_it_has(opened):
    assert opened().held == 0
    opened().write([record(1, loss=1.0), record(2), record(3, "b", loss=1.0)])  # one without a number
    assert opened().held == 3
    opened().write([record(4, "b", loss=1.0)])
    assert opened().held == 4


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_what_a_kill_cut_off_is_written_again(opened, tmp_path, cut):
    opened().write([record(1, loss=1.0), record(2, loss=2.0)])
    file = tmp_path / "a" / "learn" / RECORDS
    os.truncate(file, file.stat().st_size - cut)
    again = opened()
    assert again.held == 1
    again.write([record(2, loss=2.0), record(3, loss=3.0)])
    assert scalars(file.parent) == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_a_file_of_which_nothing_is_whole_is_begun_again(opened, tmp_path):
    opened().write([record(1, loss=1.0)])
    file = tmp_path / "a" / "learn" / RECORDS
    os.truncate(file, 3)
    again = opened()
    assert again.held == 0
    again.write([record(1, loss=1.0)])
    assert scalars(file.parent) == [(1, 1.0)]


def test_the_last_report_stands(opened, tmp_path, pictures):
    for color in ("red", "blue"):
        images = pictures(color)
        opened().show(images)
    assert [event.encoded_image_string for event in read(tmp_path).Images("sigma")] == [images["sigma"].read_bytes()]
    assert [path.name for path in tmp_path.glob("*tfevents*")] == [REPORT]
    assert opened().held == 0


def test_a_stage_does_not_lead_out_of_the_folder(opened):
    with pytest.raises(DataError, match=r"the name '../../x/events.out.tfevents.records' must not lead out"):
        opened().write([record(1, "../../x", loss=1.0)])
