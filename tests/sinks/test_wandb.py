"""What the files of W&B hold of what was written for it."""

import json
import struct

import pytest
from sinks.conftest import append, points

from metasynth.sinks.table import chosen
from metasynth.sinks.wandb import _logged

HEAD = b":W&B\xe1\xbe\x00"


def chunk(kind, data):
    return struct.pack("<IHB", 0, len(data), kind) + data


def test_records_of_a_log_go_over_blocks_and_a_cut_one_is_left_out():
    long = bytes(range(256)) * 200
    first = 32768 - 7 - 7 - 12 - 7  # what is left of the first block
    held = HEAD + chunk(1, b"a" * 5) + chunk(2, long[:first]) + chunk(4, long[first:][:20000])
    held += chunk(1, b"b")
    assert list(_logged(held)) == [b"aaaaa", long[: first + 20000], b"b"]
    assert list(_logged(held[:-1])) == [b"aaaaa", long[: first + 20000]]
    assert list(_logged(held + bytes(100))) == [b"aaaaa", long[: first + 20000], b"b"]
    assert list(_logged(b"")) == []


@pytest.mark.slow
def test_sessions_of_a_run_read_back_as_one(run, pictures):
    pytest.importorskip("wandb", reason="the package wandb is not installed")
    sinks, images = chosen("wandb"), pictures("red")
    with run.session(*sinks) as (lines, _):
        append(lines, *range(1, 10))
    with run.session(*sinks) as (lines, fed):
        append(lines, *range(10, 15))
        run.finish(fed, images)
    with run.session(*sinks) as (_, fed):
        run.finish(fed, images)
    assert run.said == []
    folder = run.path / "logs" / "wandb" / "wandb"
    files = sorted(folder.glob("offline-run-*/*.wandb"))
    rows = [row for file in files for row in history(file)]
    *records, report = rows
    assert [row["_step"] for row in rows] == list(range(1, 16))
    losses = [(row["s=0.1/learn/step"], row["s=0.1/learn/loss"]) for row in records]
    assert losses == points(list(range(1, 15)))
    assert {key for row in records for key in row if not key.startswith("_")} == {
        "s=0.1/learn/step",
        "s=0.1/learn/loss",
    }
    picture = next(file.parent for file in files if report in history(file)) / "files" / report["report/sigma/path"]
    assert picture.read_bytes() == images["sigma"].read_bytes()
    assert len({file.name for file in files}) == 1  # of one run


def history(file):
    """The rows, by W&B's own messages."""
    from wandb.proto.wandb_internal_pb2 import Record

    messages = [Record.FromString(data) for data in _logged(file.read_bytes())]
    rows = [one.history.item for one in messages if one.WhichOneof("record_type") == "history"]
    return [{item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in row} for row in rows]
