"""What `metasynth report` says of a run whose files are damaged or of another run: one line, and nothing is written."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from metasynth.experiments import noise, real_world, unpaired
from support.many_runs import dice, make_grid
from support.tiny_noise import arguments, make_cache
from test_bad_input import content

from metasynth.cli.main import main
from metasynth.errors import DataError
from metasynth.running.integrity.json_files import with_digest
from metasynth.schema import expect


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A small run; to be copied."""
    folder = tmp_path_factory.mktemp("finished")
    small = {"segmenter.steps": "7", "baselines": "false"}
    done = CliRunner().invoke(main, arguments(folder / "run", make_cache(folder / "c.h5"), **small))
    assert done.exit_code == 0, done.output
    return folder / "run"


@pytest.fixture
def run(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(finished, "run"))


def write(path, whole):
    """Write a JSON file; the manifest with the digest of what it holds then."""
    path.write_text(json.dumps(with_digest(whole) if path.name == "config.json" else whole))


def at(keys, value):
    """Put a value at dotted keys of a JSON file."""

    def change(path):
        whole = json.loads(path.read_text())
        *most, last = [int(key) if key.isdigit() else key for key in keys.split(".")]
        place = whole
        for key in most:
            place = place[key]
        place[last] = value
        write(path, whole)

    return change


def without(keys):
    """Remove the entry at dotted keys."""

    def change(path):
        whole = json.loads(path.read_text())
        *most, last = [int(key) if key.isdigit() else key for key in keys.split(".")]
        place = whole
        for key in most:
            place = place[key]
        del place[last]
        write(path, whole)

    return change


def text(value):
    return lambda path: path.write_text(value)


def halved(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def every_record(edit):
    """Change every record of metrics.jsonl."""

    def change(path):
        records = [edit(json.loads(line)) for line in path.read_text().splitlines()]
        path.write_text("".join(f"{json.dumps(record)}\n" for record in records))

    return change


def arrays(edit):
    """Change the arrays of examples.npz."""

    def change(path):
        with np.load(io.BytesIO(path.read_bytes())) as archive:
            found = {name: archive[name] for name in archive.files}
        edit(found)
        np.savez_compressed(path, **found)

    return change


CASES = [
    ("results.json", text(""), "is not valid JSON: Expecting value: line 1 column 1 (char 0)"),
    ("results.json", halved, "is not valid JSON: "),
    ("results.json", text("[]"), "its content: expected an object, got an empty list"),
    ("results.json", text("3"), "its content: expected an object, got 3"),
    ("results.json", without("rows"), "its content: expected an entry 'rows', got ['device', 'experiment', 'preset'"),
    ("results.json", at("rows", []), "rows: expected a list of at least 1, got an empty list"),
    ("results.json", at("rows", {}), "rows: expected a list, got an empty object"),
    ("results.json", at("rows.0", None), "rows.0: expected an object, got null"),
    ("results.json", at("rows.0.model", "X"), "rows.0.model: expected one of N, L, O, got 'X'"),
    ("results.json", at("rows.0.model", "N"), "rows: expected rows with at least one of model L, got [{'model': 'N'"),
    ("results.json", without("rows.0.sigma_learned"), "rows.0: expected an entry 'sigma_learned', got ['augmenter', "),
    ("results.json", at("rows.0.sigma_learned", "0.1"), "rows.0.sigma_learned: expected a finite number, got '0.1'"),
    (
        "results.json",
        at("rows.0.sigma_learned", float("nan")),
        "rows.0.sigma_learned: expected text, a finite number, true, false or null, got nan",
    ),
    ("results.json", at("rows.0.sigma_true", [0.1]), "rows.0.sigma_true: expected a finite number, got [0.1]"),
    (
        "results.json",
        at("rows.0.dice", {}),
        "rows.0.dice: expected an object with at least 1 entry, got an empty object",
    ),
    ("results.json", at("wall_s", None), "wall_s: expected a finite number, got null"),
    ("results.json", at("wall_s", 10**400), "wall_s: expected a finite number, got 1000000000"),
    ("results.json", at("seed", 3), "seed: expected 0, as in config.json, got 3"),
    ("results.json", at("experiment", "inu"), "experiment: expected 'noise', as in config.json, got 'inu'"),
    ("environment.json", lambda path: path.unlink(), "cannot be read: No such file or directory"),
    ("environment.json", text("{}"), "its content: expected an entry 'started', got an empty object"),
    ("environment.json", at("started", "noon"), "started: expected seconds since 1970, got 'noon'"),
    ("environment.json", at("started", 1e20), "started: expected seconds since 1970, got 1e+20"),
    ("environment.json", at("resumed", 3), "resumed: expected a list, got 3"),
    ("environment.json", at("torch", [2]), "torch: expected a finite number, got [2]"),
    ("environment.json", at("resumed", [{}]), "resumed.0: expected an entry 'started', got an empty object"),
    ("metrics.jsonl", text(""), "its content: expected a list of at least 1, got an empty list"),
    ("metrics.jsonl", text("3\n"), "line 1: expected a JSON object, got int"),
    ("metrics.jsonl", every_record(lambda r: {**r, "stage": 3}), "0.stage: expected text, got 3"),
    (
        "metrics.jsonl",
        every_record(lambda r: {**r, "stage": "another"}),
        "expected outer steps of stage 'sigma=0.1/learn', found none in its 7 records",
    ),
    (
        "metrics.jsonl",
        every_record(lambda r: {k: v for k, v in r.items() if k != "sigma"}),
        "outer steps of 'sigma=0.1/learn': 0: expected an entry 'sigma', got ['",
    ),
    (
        "metrics.jsonl",
        every_record(lambda r: {**r, "sigma": float("nan")}),
        "0.sigma: expected text, a finite number, true, false or null, got nan",
    ),
    (
        "metrics.jsonl",
        every_record(lambda r: {**r, "sigma": "0.1"}),
        "outer steps of 'sigma=0.1/learn': 0.sigma: expected a finite number, got '0.1'",
    ),
    ("examples.npz", lambda path: path.unlink(), "cannot be read: "),
    ("examples.npz", text(""), "cannot be read: "),
    ("examples.npz", halved, "cannot be read: "),
    ("examples.npz", arrays(lambda found: found.clear()), "expected an array '0.1/noise_free', it has none"),
    ("config.json", text(""), "is not valid JSON: "),
    ("config.json", text("[]"), "expected a run of format 'metasynth-run/2', got None"),
    ("config.json", without("experiment"), "its content: expected an entry 'experiment', got ['config', "),
    ("config.json", at("experiment", ["noise"]), "experiment: expected text, got ['noise']"),
    ("config.json", at("seed", "0"), "seed: expected a whole number from 0 on, got '0'"),
    ("config.json", at("seed", True), "seed: expected a whole number from 0 on, got True"),
    ("config.json", at("config", []), "config: expected an object, got an empty list"),
    ("config.json", without("config.start"), "config: expected an entry 'start', got ['augmenter', 'baselines', "),
    ("config.json", at("config.segmenter", 3), "config.segmenter: expected an object, got 3"),
    ("config.json", at("config.segmenter.steps", "many"), "config.segmenter.steps: expected a whole number from 0 on"),
    ("config.json", without("data"), "its content: expected an entry 'data', got ['config', "),
]


@pytest.mark.parametrize(("name", "damage", "message"), CASES)
def test_damage_is_one_line_and_nothing_is_written(run, name, damage, message):
    damage(run / name)
    before = content(run)
    result = CliRunner().invoke(main, ["report", "run"])
    assert result.exit_code == (2 if "of format" in message else 1), result.output
    assert result.stderr.startswith(f"Error: run/{name}: {message}")
    assert result.stderr.count("\n") == 1
    assert content(run) == before


def test_another_experiment_s_folder(run):
    at("experiment", "ridge")(run / "config.json")
    result = CliRunner().invoke(main, ["report", "run"])
    assert result.stderr == "Error: run/results.json: experiment: expected 'ridge', as in config.json, got 'noise'\n"


def test_parts_that_contradict_each_other_are_one_line(run):
    arrays(lambda found: found.update({name: found[name][0] for name in found}))(run / "examples.npz")
    before = content(run)
    result = CliRunner().invoke(main, ["report", "run"])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: run: no report can be made of it, its files do not fit together (")
    assert result.stderr.count("\n") == 1
    assert content(run) == before


def test_the_runs_of_a_grid_are_checked_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    row = {"model": "L", "sigma_true": 0.1, "sigma_learned": 0.1, "sigma_sd": "none", "dice": {"a": dice(s=0.5)}}
    records = [{"stage": "sigma=0.1/learn", "outer_step": 1, "sigma": 0.1}]
    make_grid(tmp_path / "grid", lambda seed, values: [row], records_of=lambda seed, values: records)
    manifest = tmp_path / "grid" / "seed=0" / "config.json"
    at("config", {"start": 0.4, "augmenter": "fixed", "segmenter": {"steps": 3}})(manifest)
    result = CliRunner().invoke(main, ["report", "grid"])
    assert result.exit_code == 1
    assert result.stderr == (
        "grid: 2 of 2 runs have finished, 0 were begun, 0 were not\n"
        "Error: grid/seed=0/results.json: rows.0.sigma_sd: expected a finite number, got 'none'\n"
    )


SCORED = {"mean": 0.5, "sd": None, "per_class": {"a": 0.5}, "per_subject": {"s": None}}
ROW = {
    "method": "naive",
    "subjects": 0,
    "checkpoint": "best",
    "steps": 3,
    "wall_s": 1.0,
    "total_s": 2.0,
    "validation": None,
    "peak_mib": None,
    "dice": {"real": SCORED},
}


@pytest.mark.parametrize(
    ("experiment", "name", "good", "bad", "message"),
    [
        (
            real_world,
            "results.json",
            {"rows": [ROW]},
            {"rows": [{**ROW, "subjects": "5"}]},
            "rows.0.subjects: expected",
        ),
        (
            real_world,
            "results.json",
            {"rows": [ROW]},
            {"rows": [{**ROW, "dice": {"a": 3}}]},
            "rows.0.dice.a: expected an",
        ),
        (
            real_world,
            "results.json",
            {"rows": [ROW]},
            {"rows": [{**ROW, "learned": 3}]},
            "rows.0.learned: expected an o",
        ),
        (
            real_world,
            "split.json",
            {"maps": ["a"], "train": ["b"], "val": []},
            {"maps": ["a"], "train": "b", "val": []},
            "train: expected a list, got 'b'",
        ),
        (
            unpaired,
            "split.json",
            {"maps": ["a"], "scans": ["b"], "test": []},
            {"maps": ["a"], "scans": ["b"]},
            "its content: expected an entry 'test'",
        ),
        (
            unpaired,
            "results.json",
            {"rows": [{**ROW, "learned": {"a": 1.0}}], "reference": {"intensities": {"a": [0.1, None]}}},
            {"rows": [ROW], "reference": {"intensities": {"a": [0.1]}}},
            "reference.intensities.a: expected a list of 2, got [0.1]",
        ),
        (noise, "metrics.jsonl", [{"stage": "a"}], [], "its content: expected a list of at least 1, got an empty list"),
    ],
)
def test_what_other_studies_read(experiment, name, good, bad, message):
    schema = experiment.EXPERIMENT.contents[name]
    expect(good, schema, name)
    with pytest.raises(DataError) as caught:
        expect(bad, schema, name)
    assert str(caught.value).startswith(f"{name}: {message}")
