"""How many cores are counted: those of the process, not those of the machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from metasynth.cli import grid, prep_job
from metasynth.cli.main import main
from metasynth.errors import DataError
from metasynth.sizes import cores


@pytest.mark.parametrize("count", sorted({1, len(os.sched_getaffinity(0))}))
def test_the_cores_of_the_process_are_counted(count):
    allowed = sorted(os.sched_getaffinity(0))[:count]
    code = f"import os; os.sched_setaffinity(0, {allowed}); from metasynth.sizes import cores as n; "
    done = subprocess.run([sys.executable, "-c", code + "print(n())"], capture_output=True, text=True, check=True)
    assert done.stdout == f"{count}\n"


def test_systems_without_affinity_tell_the_cores_of_the_machine(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    assert cores() == 12


def test_nobody_else_counts_the_cores_of_the_machine():
    root = Path(__file__).parents[1]
    sources = [path for room in ("metasynth", "experiments", "data_prep") for path in (root / room).rglob("*.py")]
    assert len(sources) > 200
    assert [path.name for path in sources if "cpu_count" in path.read_text(encoding="utf-8")] == ["sizes.py"]


def test_as_many_runs_of_a_grid_go_side_by_side_as_half_of_them(tmp_path, monkeypatch):
    from metasynth.running import grid_run

    seen = []
    monkeypatch.setattr(grid, "cores", lambda: 6)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(grid_run, "carry_out", lambda folder, jobs, progress, gpus: seen.append((jobs, gpus)) or {})
    CliRunner().invoke(main, ["run", "ridge", "--seeds", "9", "--device", "cpu", "--out", str(tmp_path / "g")])
    assert seen == [(3, ())]


def test_subjects_are_prepared_on_half_of_them(tmp_path, monkeypatch):
    from metasynth.data_prep import collect

    seen = []

    def noted(sources, job, progress):
        seen.append(job.processes)
        raise DataError("seen")

    monkeypatch.setattr(prep_job, "cores", lambda: 6)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(collect, "make_cache", noted)
    (tmp_path / "s.nii.gz").write_bytes(b"")
    result = CliRunner().invoke(main, ["prep", "labels", str(tmp_path / "s.nii.gz"), "--out", str(tmp_path / "c.h5")])
    assert result.stderr == "Error: seen\n"
    assert seen == [3]
