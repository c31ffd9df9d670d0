import hashlib
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from metasynth.errors import DataError, RunError, UsageError
from metasynth.running.checkpoint import capture_random_states, save_checkpoint
from metasynth.running.manifest import make_manifest
from metasynth.running.records import CONFIG, ENVIRONMENT, METRICS, RESULTS, RunFolder

DATA = {"path": "a.h5", "digest": "d", "given": False}
MANIFEST = make_manifest("noise", "quick", 0, {"sigma": [0.1], "outer": {"lr": 0.1}}, DATA)
ELSEWHERE = {**MANIFEST, "data": {"path": "b.h5", "digest": "d", "given": True}}


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def out(tmp_path):
    return tmp_path / "runs" / "one"


def test_settings_and_environment_are_there_before_the_first_step(out):
    with RunFolder.create(out, MANIFEST, {"device": "cpu"}) as folder:
        assert json.loads((out / CONFIG).read_text()) == MANIFEST == folder.manifest
        assert folder.environment["device"] == "cpu"
        assert folder.environment["started"] > 0
        assert folder.settings["config.outer.lr"] == 0.1
        assert not folder.finished


def test_an_empty_folder_may_be_used(out):
    out.mkdir(parents=True)
    RunFolder.create(out, MANIFEST).close()


def test_another_run_is_not_touched(out):
    RunFolder.create(out, MANIFEST).close()
    before = files(out)
    with pytest.raises(UsageError, match="holds another run; continue it with --resume or give another --out"):
        RunFolder.create(out, MANIFEST)
    assert files(out) == before


def test_a_folder_with_other_files_is_not_touched(out):
    out.mkdir(parents=True)
    (out / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match=r"is not empty \(it holds thesis.tex\)"):
        RunFolder.create(out, MANIFEST)
    assert files(out) == {"thesis.tex": b"x"}


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_file_in_the_way(tmp_path, place):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="a file is in the way"):
        RunFolder.create(tmp_path / place, MANIFEST)
    assert files(tmp_path) == {"file": b"x"}


def test_a_folder_that_cannot_be_made(out, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UsageError, match="cannot be made: Permission denied; give another --out"):
        RunFolder.create(out, MANIFEST)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(out):
    out.mkdir(parents=True)
    out.chmod(0o500)
    with pytest.raises(UsageError, match="cannot be written: Permission denied"):
        RunFolder.create(out, MANIFEST)


def test_a_folder_that_cannot_be_opened(out, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UsageError, match="cannot be written: Permission denied; give another --out"):
        RunFolder.create(out, MANIFEST)


def test_a_full_disk_leaves_no_half_run(out, full_disk):
    with full_disk(), pytest.raises(RunError, match=f"{CONFIG}: cannot be written: No space left on device"):
        RunFolder.create(out, MANIFEST)
    assert set(files(out)) == {".lock"}
    RunFolder.create(out, MANIFEST).close()


def test_a_full_disk_keeps_earlier_files(out, full_disk):
    with RunFolder.create(out, MANIFEST) as folder:
        folder.write_json("split.json", {"train": ["a"]})
        before = files(out)
        with full_disk(), pytest.raises(RunError, match=r"split\.json: cannot be written: No space"):
            folder.write_json("split.json", {"train": ["b"]})
        assert files(out) == before


def test_resume_needs_the_same_settings(out):
    RunFolder.create(out, MANIFEST).close()
    before = files(out)
    other = make_manifest("noise", "quick", 3, {"sigma": [0.05], "outer": {}}, {**DATA, "digest": "e"})
    with pytest.raises(UsageError) as caught:
        RunFolder.resume(out, other)
    assert str(caught.value).endswith(
        "cannot resume with other settings: seed: 0 -> 3; config.sigma: [0.1] -> [0.05]; "
        "config.outer.lr: 0.1 -> None; data.digest: 'd' -> 'e'"
    )
    assert files(out) == before


def test_resume_allows_data_that_moved(out):
    RunFolder.create(out, MANIFEST).close()
    with RunFolder.resume(out, ELSEWHERE) as folder:
        assert folder.manifest == MANIFEST


def test_resume_allows_another_version_of_a_module_that_draws_the_data(out):
    def drawn(module, digest):
        return make_manifest("ridge", "quick", 0, {"steps": 5}, {"path": module, "digest": digest, "given": False})

    RunFolder.create(out, drawn("a/ridge.py", "d")).close()
    RunFolder.resume(out, drawn("b/ridge.py", "e")).close()
    other = out.with_name("other")
    RunFolder.create(other, drawn("digits.csv.gz", "d")).close()
    with pytest.raises(UsageError, match=r"data\.digest: 'd' -> 'e'"):
        RunFolder.resume(other, drawn("digits.csv.gz", "e"))


def test_resume_records_where_and_how_long(out):
    with RunFolder.create(out, MANIFEST, {"device": "cpu", "threads": 1}) as folder:
        folder.append({"step": 0})
        assert folder.earlier_wall_s() == 0
    started = folder.environment["started"]
    os.utime(out / METRICS, (started + 60, started + 60))
    with RunFolder.resume(out, MANIFEST, {"device": "cpu", "threads": 2}) as folder:
        assert folder.earlier_wall_s() == pytest.approx(60)
        (resumed,) = folder.environment["resumed"]
        assert resumed["threads"] == 2
        assert "device" not in resumed
        folder.append({"step": 1})
    os.utime(out / METRICS, (resumed["started"] + 5, resumed["started"] + 5))
    with RunFolder.resume(out, MANIFEST, {}) as folder:
        assert folder.earlier_wall_s() == pytest.approx(65)


def test_resume_begins_a_run_that_was_killed_before_it_began(out):
    RunFolder.create(out, MANIFEST).close()
    for name in (CONFIG, ENVIRONMENT, METRICS):
        (out / name).unlink()
    (out / f".{CONFIG}.123.tmp").write_text("{")
    with RunFolder.resume(out, MANIFEST) as folder:
        assert folder.manifest == MANIFEST


def test_resume_completes_a_run_that_was_killed_after_its_first_file(out):
    RunFolder.create(out, MANIFEST).close()
    (out / ENVIRONMENT).unlink()
    with RunFolder.resume(out, MANIFEST, {"device": "cpu"}) as folder:
        assert folder.environment["device"] == "cpu"


def test_a_finished_run_is_open_for_reports_only(out):
    with RunFolder.create(out, MANIFEST) as folder:
        folder.append({"step": 0})
        with pytest.raises(UsageError, match="the run has no results yet; continue it with --resume"):
            folder.results  # noqa: B018 - reading it is the test
        folder.write_json(RESULTS, {"rows": []})
    before = files(out)
    with RunFolder.resume(out, MANIFEST) as folder:
        assert folder.finished
        assert folder.results == {"rows": []}
        with pytest.raises(RunError, match="open for reading only or has finished"):
            folder.append({})
        folder.write_bytes("figures/a.png", b"x")
    assert {name: data for name, data in files(out).items() if name not in ("figures/a.png", ".lock")} == {
        name: data for name, data in before.items() if name != ".lock"
    }


@pytest.mark.parametrize("method", ["open", "resume"])
def test_a_folder_without_a_run(tmp_path, method):
    arguments = () if method == "open" else (MANIFEST,)
    for place in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UsageError, match=r"holds no run \(config.json is missing\)"):
            getattr(RunFolder, method)(place, *arguments)
    assert files(tmp_path) == {}


def test_a_foreign_or_damaged_manifest(tmp_path):
    (tmp_path / CONFIG).write_text('{"lr": 1}')
    with pytest.raises(UsageError, match=r"expected a run of format 'metasynth-run/2', got None"):
        RunFolder.open(tmp_path)
    (tmp_path / CONFIG).write_text('{"lr"')
    with pytest.raises(DataError, match=r"config\.json: is not valid JSON"):
        RunFolder.open(tmp_path)


def test_two_processes_cannot_write_one_run_and_a_killed_one_frees_it(out):
    code = f"""
        import time
        from metasynth.running.records import RunFolder
        folder = RunFolder.create({str(out)!r}, {MANIFEST!r})
        folder.append({{"step": 0}})
        print("writing", flush=True)
        time.sleep(60)
    """
    arguments = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as writer:
        try:
            assert writer.stdout.readline() == "writing\n"
            with pytest.raises(RunError, match=f"process {writer.pid} is writing this run"):
                RunFolder.resume(out, MANIFEST)
            assert RunFolder.open(out).read_metrics() == [{"step": 0}]
        finally:
            writer.kill()
    with RunFolder.resume(out, MANIFEST) as folder:
        assert folder.read_metrics() == [{"step": 0}]


def test_a_resumed_run_is_rid_of_what_killed_processes_left(out):
    RunFolder.create(out, MANIFEST).close()
    done, begun = out / "checkpoints" / "a", out / "checkpoints" / "b"
    left = [out / ".config.json.0a1b2c.tmp", out / "models" / ".a.pt.0a1b2c.tmp", done / ".final.pt.0a1b2c.tmp"]
    mine = [out / "models" / ".notes.tmp", out / "notes.txt"]
    for path in (*left, *mine):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    bound = {"manifest": MANIFEST["digest"], "split": None, "records": hashlib.sha256(b"").hexdigest()}
    for path, step in ((done / "final.pt", 4), (done / "latest.pt", 2), (begun / "latest.pt", 2)):
        state = {"stage": path.parent.name, "step": step, "steps": 4, "seconds": 1.0, "position": 0, "trainer": {}}
        save_checkpoint(path, {**state, "random": capture_random_states(), "bound": bound})
    RunFolder.resume(out, MANIFEST).close()
    assert not any(path.exists() for path in (*left, done / "latest.pt"))
    assert all(path.exists() for path in (*mine, done / "final.pt", begun / "latest.pt"))


@pytest.mark.parametrize(
    "write",
    [
        lambda folder: folder.append({"step": 0}),
        lambda folder: folder.truncate(0),
        lambda folder: folder.sync(),
        lambda folder: folder.write_bytes("a.bin", b"x"),
        lambda folder: folder.write_json(RESULTS, {}),
    ],
)
def test_a_session_is_recorded_with_the_first_that_it_writes(out, write):
    RunFolder.create(out, MANIFEST, {"threads": 1}).close()
    before = files(out)
    with RunFolder.resume(out, MANIFEST, {"threads": 2}) as folder:
        assert folder.environment["resumed"][0]["threads"] == 2
        assert folder.read_metrics() == []
        assert files(out) == before
        write(folder)
        assert RunFolder.open(out).environment["resumed"][0]["threads"] == 2


@pytest.mark.parametrize("write", ["sync", "write_bytes", "write_json"])
@pytest.mark.parametrize("how", ["deleted", "moved", "replaced"])
def test_a_folder_that_is_gone_is_noticed_and_not_made_again(out, write, how):
    arguments = {"sync": (), "write_bytes": ("a.bin", b"x"), "write_json": ("a.json", {})}[write]
    with RunFolder.create(out, MANIFEST) as folder:
        folder.append({"step": 0})
        if how == "deleted":
            shutil.rmtree(out)
        else:
            out.rename(out.with_name("moved"))
        if how == "replaced":
            out.mkdir()
        with pytest.raises(RunError, match=r"was deleted, moved or replaced while the run was writing it$") as caught:
            getattr(folder, write)(*arguments)
        assert str(caught.value).startswith(f"{out}")
    assert files(out) == {}


@pytest.mark.parametrize("seconds", [-2e9, 2e9])
def test_a_clock_that_is_set_meanwhile_adds_no_ages(out, seconds):
    with RunFolder.create(out, MANIFEST) as folder:
        folder.append({"step": 0})
        seen = folder.environment["started"] + seconds
    os.utime(out / METRICS, (seen, seen))
    with RunFolder.resume(out, MANIFEST) as folder:
        assert folder.earlier_wall_s() == 0
