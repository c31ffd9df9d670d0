import json
from pathlib import Path

import pytest
from support.tiny_study import Tiny

from metasynth.errors import DataError, RunError, UsageError
from metasynth.running.grid import Grid, GridRun, parse_vary, require_runs, value_of
from metasynth.running.grid_folder import GridFolder
from metasynth.running.manifest import make_manifest
from metasynth.running.records import RunFolder
from metasynth.running.settings.config import to_dict

GRID = Grid("tiny", "quick", (0, 1), {"steps": ("2", "3"), "outer.lr": ("0.1", "1e-3")}, ("kind=uniform",), digest="d")
SMALL = Grid("tiny", "quick", (0, 1), {"steps": ("2", "3")}, digest="d")


def finish(path, seed, steps, rows=None, **environment):
    """A run that has finished in ``path``."""
    config = to_dict(Tiny(steps=steps))
    manifest = make_manifest("tiny", "quick", seed, config, {"path": "c.h5", "digest": "d", "given": False})
    with RunFolder.create(path, manifest, {"device": "cpu", "commit": None, **environment}) as run:
        found = {"experiment": "tiny", "preset": "quick", "seed": seed, "device": "cpu", "wall_s": 1.5}
        rows = [{"total": 10.0 * seed + steps}] if rows is None else rows
        run.write_json("results.json", {**found, "rows": rows, "reference": {}})


def test_runs_are_the_product_and_every_seed_sees_all_settings_first():
    names = [run.name for run in GRID.runs]
    assert len(names) == 8
    assert names[:4] == [
        "seed=0,steps=2,outer.lr=0.1",
        "seed=0,steps=2,outer.lr=1e-3",
        "seed=0,steps=3,outer.lr=0.1",
        "seed=0,steps=3,outer.lr=1e-3",
    ]
    assert all(name.startswith("seed=1") for name in names[4:])
    assert [run.name for run in Grid("tiny", "quick", (3,)).runs] == ["seed=3"]


def test_names_are_safe_for_files_and_values_typed():
    run = GridRun(2, {"sigma": "0.025:0.2", "widths": "4,8", "path": "/a b", "n": "-3", "on": "true", "x": "NaN"})
    assert run.name == "seed=2,sigma=0.025-0.2,widths=4-8,path=-a-b,n=-3,on=true,x=NaN"
    assert run.values == {
        "sigma": "0.025:0.2",
        "widths": "4,8",
        "path": "/a b",
        "n": -3,
        "on": "true",
        "x": "NaN",
    }
    assert (value_of("0.5"), value_of("1e-3"), value_of("")) == (0.5, 0.001, "")


def test_vary_is_parsed():
    assert parse_vary(["a.b=1, 2", "widths=4,8;8,16"]) == {"a.b": ("1", "2"), "widths": ("4,8", "8,16")}
    assert parse_vary([]) == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["sigma"], "--vary sigma: expected KEY=V1,V2,..., for example --vary start=0.02,0.4"),
        (["sigma="], "--vary sigma=: expected KEY=V1,V2,..."),
        (["sigma=1,,2"], "--vary sigma=1,,2: expected KEY=V1,V2,..."),
        (["=1"], "--vary =1: expected KEY=V1,V2,..."),
        (["a=1", "a=2"], "--vary a=2: a is varied already; give all of its values at once"),
    ],
)
def test_vary_that_is_none_is_refused(options, message):
    with pytest.raises(UsageError) as error:
        parse_vary(options)
    assert str(error.value).startswith(message)


def test_every_combination_becomes_settings():
    configs = GRID.configurations(Tiny())
    assert [(config.steps, config.outer.lr) for config in configs] == [(2, 0.1), (2, 1e-3), (3, 0.1), (3, 1e-3)]
    assert {config.kind for config in configs} == {"uniform"}


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        ({"stesp": ("1",)}, "unknown setting 'stesp': did you mean 'steps'?"),
        ({"steps": ("1", "x")}, "steps: expected a whole number, got 'x'"),
        ({"outer.lr": ("1", "-1")}, "lr must be positive, got -1.0"),
        ({"outer.lr": ("0.1", "0.10")}, "--vary: outer.lr=0.1 and outer.lr=0.10 are the same settings"),
        ({"steps": ("1 1", "1/1")}, "--vary: 2 runs would have the name seed=0,steps=1-1"),
        ({"steps": ("1" * 300,)}, "--vary: expected names of runs of at most 200 characters, got 313: seed=0,steps=11"),
        ({"kind": ("normal",)}, "--vary kind: is given with --set too"),
    ],
)
def test_what_cannot_be_run_is_refused(vary, message):
    with pytest.raises(UsageError) as error:
        Grid("tiny", "quick", (0,), vary, ("kind=uniform",)).configurations(Tiny())
    assert message in str(error.value)


def test_a_grid_reads_back(tmp_path):
    grid = Grid("tiny", "quick", (2, 3), {"steps": ("2",)}, ("kind=normal",), Path("/a/c.h5"), "cpu", 2, "d")
    GridFolder.create(tmp_path / "g", grid).close()
    folder = GridFolder.open(tmp_path / "g")
    assert folder.grid == grid
    assert folder.settings["vary.steps"] == ["2"]
    assert json.loads((tmp_path / "g" / "grid.json").read_text())["data"] == {"path": "/a/c.h5", "digest": "d"}


def test_a_folder_has_one_writer_and_one_grid(tmp_path):
    first = GridFolder.create(tmp_path / "g", GRID)
    with pytest.raises(RunError, match="is writing this run"):
        GridFolder.resume(tmp_path / "g", GRID)
    first.close()
    with pytest.raises(UsageError, match="holds another grid; continue it with --resume"):
        GridFolder.create(tmp_path / "g", GRID)
    GridFolder.resume(tmp_path / "g", GRID).close()


def test_a_folder_that_was_claimed_only_is_begun(tmp_path):
    (tmp_path / "g").mkdir()
    (tmp_path / "g" / ".lock").touch()
    GridFolder.resume(tmp_path / "g", GRID).close()
    assert GridFolder.open(tmp_path / "g").grid == GRID


def test_another_grid_is_not_resumed(tmp_path):
    GridFolder.create(tmp_path / "g", GRID).close()
    other = Grid("tiny", "quick", (0, 1, 2), {"steps": ("2", "4")}, digest="e")
    with pytest.raises(UsageError) as error:
        GridFolder.resume(tmp_path / "g", other)
    assert str(error.value) == (
        f"{tmp_path / 'g'}: cannot resume with other settings: seeds: [0, 1] -> [0, 1, 2]; "
        "vary.steps: ['2', '3'] -> ['2', '4']; vary.outer.lr: ['0.1', '1e-3'] -> None; set.kind: 'uniform' -> None; "
        "data.digest: 'd' -> 'e'"
    )


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        (None, UsageError, "holds no grid (grid.json is missing)"),
        ("{", DataError, "is not valid JSON"),
        ("[]", UsageError, "expected a grid of format 'metasynth-grid/1', got None"),
        ('{"format": "metasynth-grid/1"}', DataError, "is damaged: KeyError: 'data'"),
    ],
)
def test_a_folder_without_a_grid(tmp_path, content, kind, message):
    if content is not None:
        (tmp_path / "grid.json").write_text(content)
    with pytest.raises(kind) as error:
        GridFolder.open(tmp_path)
    assert message in str(error.value)


def test_rows_of_all_finished_runs_are_collected(tmp_path):
    folder = GridFolder.create(tmp_path, SMALL)
    with pytest.raises(UsageError, match="no run of the grid has finished"):
        folder.collect()
    finish(tmp_path / "seed=0,steps=2", 0, 2)
    finish(tmp_path / "seed=1,steps=3", 1, 3, rows=[{"steps": 30, "total": 1.0}, {"steps": 31, "total": 2.0}])
    folder.collect()
    results = folder.results
    assert results["rows"] == [
        {"seed": 0, "steps": 2, "total": 2.0},
        {"seed": 1, "steps": 30, "total": 1.0},  # the row's own value stands
        {"seed": 1, "steps": 31, "total": 2.0},
    ]
    assert results["missing"] == ["seed=0,steps=3", "seed=1,steps=2"]
    assert (results["vary"], results["seeds"], results["wall_s"]) == ({"steps": [2, 3]}, [0, 1], 3.0)


def test_the_surroundings_of_a_grid_are_those_of_its_runs(tmp_path):
    folder = GridFolder.create(tmp_path, SMALL)
    finish(tmp_path / "seed=0,steps=2", 0, 2, torch="2.5", command="a")
    finish(tmp_path / "seed=0,steps=3", 0, 3, torch="2.6", command="b")
    environment = folder.environment
    started = [run.environment["started"] for _, run in folder.finished]
    assert environment == {
        "device": "cpu",
        "commit": None,
        "torch": "2.5, 2.6",
        "started": min(started),
        "resumed": [],
    }


def test_runs_that_were_begun_with_other_settings_are_refused(tmp_path):
    folder = GridFolder.create(tmp_path, SMALL)
    finish(tmp_path / "seed=0,steps=2", 0, 2)
    folder.check_runs(SMALL.configurations(Tiny()))
    finish(tmp_path / "seed=1,steps=2", 1, 5)
    with pytest.raises(UsageError) as error:
        folder.check_runs(SMALL.configurations(Tiny()))
    assert str(error.value) == f"{tmp_path / 'seed=1,steps=2'}: was begun with other settings: config.steps: 5 -> 2"


def test_a_run_is_done_once_it_has_its_page(tmp_path):
    folder = GridFolder.create(tmp_path, SMALL)
    run = SMALL.runs[0]
    assert not folder.begun(run)
    finish(tmp_path / run.name, 0, 2)
    assert (folder.begun(run), folder.done(run)) == (True, False)
    (tmp_path / run.name / "report.html").touch()
    assert folder.done(run)


def test_an_edited_grid_is_refused_and_one_from_before_digests_read(tmp_path):
    GridFolder.create(tmp_path, SMALL).close()
    path = tmp_path / "grid.json"
    value = json.loads(path.read_text())
    path.write_text(json.dumps({**value, "seeds": [0]}))
    with pytest.raises(DataError) as caught:
        GridFolder.open(tmp_path)
    assert str(caught.value) == (
        f"{path}: was changed since the run wrote it (it does not have the digest of its content)"
    )
    del value["digest"]
    path.write_text(json.dumps(value))
    assert GridFolder.open(tmp_path).grid == SMALL


def test_results_that_a_run_did_not_write_are_not_collected(tmp_path):
    folder = GridFolder.create(tmp_path, SMALL)
    for run in SMALL.runs:
        finish(tmp_path / run.name, run.seed, run.values["steps"])
    folder.collect()
    folder.close()
    path = tmp_path / SMALL.runs[2].name / "results.json"
    path.write_text(path.read_text().replace("12.0", "13.0"))
    with pytest.raises(DataError) as caught:
        folder.collect()
    assert str(caught.value) == (f"{path}: was changed since the run wrote it (its SHA-256 is not that of SHA256SUMS)")


def test_a_resumed_grid_is_rid_of_what_a_killed_one_left_but_not_what_runs_are_writing(tmp_path):
    GridFolder.create(tmp_path, SMALL).close()
    run = tmp_path / SMALL.runs[0].name
    run.mkdir()
    for folder in (tmp_path, run):
        (folder / ".results.json.0a1b2c.tmp").write_text("x")
    GridFolder.resume(tmp_path, SMALL).close()
    assert not (tmp_path / ".results.json.0a1b2c.tmp").exists()
    assert (run / ".results.json.0a1b2c.tmp").exists()


def test_the_name_of_a_run_is_one_plain_name():
    run = GridRun(0, {"../../x": "../y", "a\0b": "c d"})
    assert run.name == "seed=0,..-..-x=..-y,a-b=c-d"


@pytest.mark.parametrize(
    ("first", "seeds", "vary", "message"),
    [
        (0, 10**9, {}, "--seeds, --vary: expected at most 100000 runs of one grid, got 1000000000"),
        (0, 2, dict.fromkeys("abcdefghijklmnopq", ("1", "2")), "--seeds, --vary: expected at most 100000 runs of"),
        (2**63 - 1, 2, {}, f"--seeds 2: expected seeds of at most {2**63 - 1}, got {2**63 - 1} as the first"),
    ],
)
def test_grids_without_measure_are_refused(first, seeds, vary, message):
    require_runs(0, 10**5, {})
    require_runs(2**63 - 2, 2, {"a": ("1", "2")})
    with pytest.raises(UsageError) as error:
        require_runs(first, seeds, vary)
    assert str(error.value).startswith(message)
