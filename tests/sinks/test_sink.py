"""What a sink is handed, and the table that it is in."""

from types import SimpleNamespace

import pytest

from metasynth.errors import PackageError, UsageError
from metasynth.plugins import EntryTable
from metasynth.sinks import Record, SinkEntry, SinkRun, names, register, sink, table


@pytest.mark.parametrize(
    ("line", "series", "step", "values"),
    [
        (b'{"stage":"a=0.1/learn","step":7,"loss":0.5,"on":true}', "a=0.1/learn", 7, {"loss": 0.5, "on": 1.0}),
        (b'{"stage":"s","step":7,"dice":{"grey":0.5,"ci":[1,2]},"x":null}', "s", 7,
         {"dice/grey": 0.5, "dice/ci/0": 1.0, "dice/ci/1": 2.0}),
        (b'{"strategy":"mixed","start":0.1,"outer_step":7}', "mixed", 3, {"start": 0.1, "outer_step": 7.0}),
        (b'{"step":7}', "", 3, {"step": 7.0}),
    ],
)  # fmt: skip
def test_a_record_is_a_point_of_a_series(line, series, step, values):
    assert Record.of_line(3, line) == Record(3, series, step, values)


def test_a_run_keeps_its_identity(tmp_path):
    one, again = (SinkRun("a", tmp_path, {}).identity() for _ in range(2))
    assert one == again
    assert len(one) == 16
    (tmp_path / "id").unlink()
    assert SinkRun("a", tmp_path, {}).identity() != one


EXPECTED = "expected none or one of tensorboard, mlflow, wandb"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("tensorbord", "--log tensorbord: unknown sink 'tensorbord': " + EXPECTED),
        ("mlflow,none", "--log mlflow,none: unknown sink 'none': " + EXPECTED),
        ("mlflow,mlflow", "--log mlflow,mlflow: mlflow is given twice"),
        ("mlflow,", "--log 'mlflow,': expected names such as tensorboard,mlflow, or none"),
        ("", "--log '': expected names such as tensorboard,mlflow, or none"),
    ],
)  # fmt: skip
def test_what_names_no_sinks(monkeypatch, text, line):
    monkeypatch.setattr(table, "TABLE", EntryTable("sink", SinkEntry, "nobody's", table.ENTRIES))
    with pytest.raises(UsageError) as refused:
        table.chosen(text)
    assert str(refused.value) == line


def test_names_are_of_sinks(monkeypatch):
    monkeypatch.setattr(sink, "find_spec", lambda name: SimpleNamespace(origin=f"{name}/__init__.py"))
    assert [entry.name for entry in table.chosen("wandb, tensorboard")] == ["wandb", "tensorboard"]
    assert table.chosen("none") == ()


@pytest.mark.parametrize("found", [None, SimpleNamespace(origin=None)])  # the other: a folder
@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb"])
def test_a_package_that_is_missing(monkeypatch, name, found):
    monkeypatch.setattr(sink, "find_spec", lambda name: found)
    with pytest.raises(PackageError) as refused:
        table.chosen(name)
    told = f"--log {name}: needs the package {name}: pip install 'metasynth-toolkit[{name}]'"
    assert (str(refused.value), refused.value.exit_code) == (told, 2)


def test_a_program_adds_a_sink(monkeypatch):
    monkeypatch.setattr(table.TABLE, "_registered", {})
    mine = SinkEntry("mine", lambda run: None)
    register(mine)
    assert names()[3] == "mine"
    assert table.chosen("mine") == (mine,)
    with pytest.raises(UsageError, match=r"^sink 'mine': the name is taken$"):
        register(mine)
