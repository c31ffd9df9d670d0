"""What MLflow's store holds of what was written for it."""

import sqlite3
from importlib.util import find_spec

import pytest
from sinks.conftest import append, points

from metasynth.sinks.mlflow import MOST_METRICS, _batches
from metasynth.sinks.sink import Record
from metasynth.sinks.table import chosen

INSTALLED = pytest.mark.skipif(find_spec("mlflow") is None, reason="the package mlflow is not installed")


def select(store, query):
    """Rows of a store; other programs can read it without MLflow, which takes seconds to be imported."""
    connection = sqlite3.connect(store)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


@INSTALLED
@pytest.mark.slow
def test_sessions_of_a_run_read_back_as_one(run, pictures, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    sinks, images = chosen("mlflow"), pictures("red")
    with run.session(*sinks) as (lines, _):
        append(lines, *range(1, 10))
    folder = run.path / "logs" / "mlflow"
    store = folder / "mlflow.db"
    assert select(store, "select status, name from runs") == [("KILLED", "run")]
    with sqlite3.connect(store) as connection:  # as if the process had been killed before it set the tag
        connection.execute("update tags set value = '4' where key = 'metasynth.records'")
    connection.close()
    with run.session(*sinks, end=run.metrics.stat().st_size) as (lines, fed):
        append(lines, *range(10, 15))
        run.finish(fed, images)
    assert run.said == []
    metrics = select(store, "select key, step, value from metrics order by step")
    assert metrics == [("s-0.1/learn/loss", *point) for point in points(list(range(1, 15)))]
    assert select(store, "select status, name from runs") == [("FINISHED", "run")]
    assert select(store, "select value from tags where key = 'metasynth.records'") == [("14",)]
    parameters = dict(select(store, "select key, value from params"))
    assert parameters == {"experiment": "noise", "preset": "quick", "config.outer.lr": "0.1"}
    assert ("metasynth noise",) in select(store, "select name from experiments")
    (picture,) = folder.rglob("figures/*.png")
    assert (picture.name, picture.read_bytes()) == ("sigma.png", images["sigma"].read_bytes())


def test_batches_hold_whole_records_and_no_more_than_mlflow_takes():
    records = [Record(n, "a=1", n, {f"k{i}": 1.0 for i in range(300)}) for n in range(1, 6)]
    batches = list(_batches(records))
    assert [(last, len(batch)) for last, batch in batches] == [(3, 900), (5, 600)]
    assert all(len(batch) <= MOST_METRICS for _, batch in batches)
    assert batches[0][1][300] == ("a-1/k0", 1.0, 2)
    assert list(_batches([Record(7, "", 7, {})])) == [(7, [])]
