"""What the real noise study cannot be asked for: one line, an exit code, and nothing overwritten."""

import ctypes
import fcntl
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from support.tiny_noise import arguments, make_cache, start

from metasynth.cli.main import main
from metasynth.running.integrity.json_files import with_digest


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def cache(tmp_path):
    return make_cache(tmp_path / "c.h5", images=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A small run and its cache; to be copied."""
    folder = tmp_path_factory.mktemp("finished")
    cache = make_cache(folder / "c.h5")
    small = {"segmenter.steps": "6", "baselines": "false"}
    done = CliRunner().invoke(main, arguments(folder / "run", cache, **small), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return folder


def content(folder: Path) -> dict[str, bytes]:
    """Every file by its name; .lock aside, which holds the number of the process that looked last."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def refused(command, code: int) -> str:
    """The one line that a command fails with."""
    result = CliRunner().invoke(main, list(map(str, command)), catch_exceptions=False)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if not line.startswith("Run folder: ")]
    assert len(lines) == 1
    assert lines[0].startswith("Error: ")
    return lines[0].removeprefix("Error: ")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["run", "nosie"], r"unknown experiment 'nosie': did you mean 'noise'?"),
        (
            ["run", "noise", "--preset", "standart"],
            "has no preset 'standart': did you mean 'standard'? (presets: quick",
        ),
        (["run", "noise", "--preset", "huge"], "has no preset 'huge': choose from paper, quick, quick-3d, standard"),
        (["run", "noise", "--set", "sgima=0.1"], "unknown setting 'sgima': did you mean 'sigma'?"),
        (["run", "noise", "--set", "segmenter.stesp=9"], "'segmenter.stesp': did you mean 'segmenter.steps'?"),
        (["run", "noise", "--set", "warmup=9"], "unknown setting 'warmup': did you mean 'outer.warmup'?"),
        (
            ["run", "noise", "--set", "outer=1"],
            "setting 'outer' is a group: set one of outer.lr, outer.network_lr, outer.betas",
        ),
        (["run", "noise", "--set", "sigma"], "--set sigma: expected KEY=VALUE"),
        (["run", "noise", "--set", "sigma=loud"], "sigma: got 'loud': sigma: must be a number such as 0.05 or a range"),
        (["run", "noise", "--set", "start=-1"], "--set start: start must be a positive number, got -1.0"),
        (["run", "noise", "--set", "segmenter.steps=1.5"], "segmenter.steps: expected a whole number, got '1.5'"),
        (
            ["run", "noise", "--set", "segmenter.loss=mse"],
            "expected one of dice_cross_entropy, dice, squared_dice, logit_mse, got 'mse'",
        ),
        (["run", "noise", "--set", "outer.betas=0.9"], "outer.betas: expected 2 comma-separated values"),
        (["run", "noise", "--set", "outer.warmup=99999"], "outer.warmup must be below segmenter.steps"),
        (["run", "noise", "--set", "pace.workers=-1"], "--set pace.workers: workers must be at least 0, got -1"),
        (["run", "noise", "--set", "cohort=template-128"], "cohort: expected one of template-64, template-96"),
        (["run", "noise", "--seed", "-1"], "Invalid value for '--seed'"),
    ],
)
def test_wrong_requests(tmp_path, command, message):
    assert message in refused([*command, "--out", "run"], 2)
    assert content(tmp_path) == {}
    assert not (tmp_path / "run").exists()


def foreign(path):
    with h5py.File(path, "w") as file:
        file["image"] = np.zeros((3, 8, 8))


def truncated(path):
    path.write_bytes(path.read_bytes()[:-1000])


def edit(change):
    def wrong(path):
        with h5py.File(path, "r+") as file:
            change(file)

    return wrong


def set_item(name, at, value):
    return edit(lambda file: file[name].__setitem__(at, value))


CACHES = {
    "absent": (lambda path: path.unlink(), "cannot be opened: No such file or directory"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "cannot be opened: Is a directory"),
    "text": (lambda path: path.write_text("subject,sigma\n"), "is not an HDF5 file; expected a metasynth-cache file"),
    "foreign": (foreign, "is not a metasynth-cache file (no attribute 'format')"),
    "version": (
        edit(lambda file: file.attrs.__setitem__("version", 5)),
        "format versions 1 to 4 are supported, got 5",
    ),
    "truncated": (truncated, "is truncated or damaged"),
    "no labels": (edit(lambda file: file.pop("labels")), "dataset 'labels' is missing"),
    "no subjects": (edit(lambda file: file.pop("subjects")), "dataset 'subjects' is missing"),
    "label": (set_item("labels", (7, 1, 1), 3), "label 3 in slice 7 is beyond the 3 classes of class_names (0 to 2)"),
    "nan": (set_item("images", (4, 0, 0), np.nan), "images hold NaN or infinite values, first in slice 4"),
    "few": (lambda path: make_cache(path, subjects=2), "needs at least 3 subjects"),
    "three": (lambda path: make_cache(path, subjects=3), "expected at least 2 training subjects"),
    "odd": (
        lambda path: make_cache(path, shape=(16, 15)),
        "images of 16 x 15 cannot be halved 1 times; expected sizes divisible by 2 for a network of 2 levels",
    ),
}


@pytest.mark.parametrize("case", CACHES)
def test_wrong_caches(tmp_path, cache, case):
    spoil, message = CACHES[case]
    spoil(cache)
    before = content(tmp_path)
    line = refused(arguments("run", "c.h5"), 1)
    assert line.startswith("c.h5: ")
    assert message in line
    assert content(tmp_path) == before
    assert not (tmp_path / "run").exists()


def test_a_cache_that_changed_since_the_run_began(tmp_path, finished):
    shutil.copytree(finished, tmp_path / "copy")
    (tmp_path / "copy" / "run" / "results.json").unlink()  # as if it had not finished
    other = make_cache(tmp_path / "other.h5", per_subject=3)
    before = content(tmp_path)
    line = refused(["run", "noise", "--resume", "--out", "copy/run", "--data", other], 2)
    assert line.startswith("copy/run: cannot resume with other settings: data.digest: ")
    line = refused(["run", "noise", "--resume", "--out", "copy/run", "--seed", "8", "--device", "cpu"], 2)
    assert line == "copy/run: cannot resume with other settings: seed: 0 -> 8"
    assert content(tmp_path) == before


def test_a_folder_that_holds_another_run(tmp_path, cache, finished):
    shutil.copytree(finished / "run", tmp_path / "run")
    before = content(tmp_path)
    line = refused(arguments("run", cache, seed=5), 2)
    assert line == "run: holds another run; continue it with --resume or give another --out"
    manifest = json.loads((tmp_path / "run" / "config.json").read_text())
    (tmp_path / "run" / "config.json").write_text(json.dumps(with_digest({**manifest, "experiment": "inu"})))
    line = refused(["run", "noise", "--resume", "--out", "run"], 2)
    assert line == "run: holds a run of 'inu', not of 'noise'"
    assert {**content(tmp_path), "run/config.json": before["run/config.json"]} == before


def test_a_folder_that_holds_something_else(tmp_path, cache):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "main.tex").write_text("x")
    before = content(tmp_path)
    assert refused(arguments("thesis", cache), 2) == ("thesis: is not empty (it holds main.tex); give another --out")
    assert refused([*arguments("thesis", cache), "--resume"], 2).startswith("thesis: holds no run (config.json")
    assert content(tmp_path) == before


@pytest.mark.parametrize("out", ["file", "file/below/it"])
def test_a_file_in_the_way(tmp_path, cache, out):
    (tmp_path / "file").write_text("x")
    before = content(tmp_path)
    assert refused(arguments(out, cache), 2) == f"{out}: cannot hold a run: a file is in the way; give another --out"
    assert content(tmp_path) == before


def test_a_folder_that_nobody_may_make(cache):
    line = refused(arguments("/proc/sys/run", cache), 2)
    assert line.startswith("/proc/sys/run: cannot be made: ")
    assert line.endswith("; give another --out")


def obey_permissions():
    """Have root, too, be bound by the permissions of files once another program is executed."""
    drop_from_bounding_set, override_permissions = 24, 1
    ctypes.CDLL(None).prctl(drop_from_bounding_set, override_permissions, 0, 0, 0)


def test_a_folder_that_cannot_be_written(tmp_path, cache):
    (tmp_path / "locked").mkdir(mode=0o500)
    process = start(arguments(tmp_path / "locked", cache), preexec_fn=obey_permissions)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert errors.splitlines()[1:] == [
        f"Error: {tmp_path / 'locked'}: cannot be written: Permission denied; give another --out"
    ]
    assert content(tmp_path / "locked") == {}


def test_reports_of_what_is_no_finished_run(tmp_path, finished):
    assert refused(["report", "absent"], 2) == "absent: holds no run (config.json is missing)"
    shutil.copytree(finished / "run", tmp_path / "run")
    (tmp_path / "run" / "examples.npz").write_bytes(b"PK\x03\x04 and no more")
    assert refused(["report", "run"], 1).startswith("run/examples.npz: cannot be read: ")
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write("{\n")
    assert refused(["report", "run"], 1).startswith("run/metrics.jsonl: line 7 is not valid JSON")
    (tmp_path / "run" / "results.json").unlink()
    assert refused(["report", "run"], 2) == "run: the run has no results yet; continue it with --resume"


def test_a_run_that_is_being_written(tmp_path, finished):
    shutil.copytree(finished, tmp_path / "copy")
    (tmp_path / "copy" / "run" / "results.json").unlink()
    with (tmp_path / "copy" / "run" / ".lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = content(tmp_path)
        line = refused(["run", "noise", "--resume", "--out", "copy/run"], 1)
        assert "is writing this run" in line
        assert content(tmp_path) == before
