"""A grid on a Slurm of one node, which `slurm.sh` starts: `make cluster`."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
from support import tiny_grid
from support.processes import wait_for
from support.tiny_grid import found, lines
from support.tiny_noise import start

from metasynth.running.jobs.record import JobRecord

pytestmark = pytest.mark.cluster
SCRIPT = Path(__file__).with_name("slurm.sh")
RUNS = [f"seed={seed},steps=6" for seed in range(4)]


def slurm(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A Slurm that the commands of this process and its children know."""
    folder = tmp_path / "slurm"
    monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    try:
        subprocess.run([SCRIPT, "start", folder], check=True, stdout=subprocess.DEVNULL, timeout=120)
        yield
    finally:
        subprocess.run([SCRIPT, "stop", folder], check=True)


def parent(process):
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.usefixtures("cluster")
def test_a_grid_of_four_runs_of_which_three_are_disturbed(tmp_path, monkeypatch):
    """One job is told that its time is up, one is requeued by Slurm, one is killed; the launcher is interrupted."""
    hold = tiny_grid.install(monkeypatch, tmp_path)
    hold.touch()
    out = tmp_path / "grid"
    told = ["--launcher", "slurm", "--launcher-set", "timeout_min=60"]
    launched = start(["run", "tiny", "--out", str(out), "--seeds", "4", "--vary", "steps=6", "--device", "cpu", *told])
    wait_for(lambda: all(lines(out / run) == 3 for run in RUNS), 600)
    first = JobRecord.read(out)
    array = first.jobs[RUNS[0]].partition("_")[0]
    assert first == JobRecord("slurm", {run: f"{array}_{index}" for index, run in enumerate(RUNS)})
    slurm("scancel", "--signal=USR2", first.jobs[RUNS[0]])
    slurm("scontrol", "requeue", first.jobs[RUNS[1]])
    os.kill(parent(int((out / RUNS[2] / ".lock").read_text())), signal.SIGKILL)
    wait_for(lambda: JobRecord.read(out).jobs[RUNS[2]] != first.jobs[RUNS[2]], 600)
    os.killpg(launched.pid, signal.SIGINT)
    assert "Interrupted. The jobs go on. Come back with: " in launched.communicate()[1]
    assert launched.returncode == 130
    hold.unlink()
    resumed = start(["run", "tiny", "--resume", "--out", str(out), *told])
    said = resumed.communicate()[1]
    assert resumed.returncode == 0, said
    again = JobRecord.read(out)
    assert [run for run in RUNS if again.jobs[run] != first.jobs[run]] == [RUNS[2]]  # the others kept their jobs
    for run, times in zip(RUNS, (2, 2, 2, 1), strict=True):
        assert (out / f"{run}.log").read_text().count("$ metasynth") == times, run
    assert found(out, 4) == tiny_grid.undisturbed(tmp_path / "undisturbed", 4)


@pytest.mark.usefixtures("cluster")
def test_a_job_whose_time_is_up_goes_on_from_its_checkpoint(tmp_path, monkeypatch):
    """Slurm says so 30 seconds before a minute is over, and submitit requeues the job."""
    hold = tiny_grid.install(monkeypatch, tmp_path)
    hold.touch()
    out = tmp_path / "grid"
    told = ["--launcher", "slurm", "--launcher-set", "timeout_min=1,signal_delay_s=30"]
    launched = start(["run", "tiny", "--out", str(out), "--seeds", "1", "--vary", "steps=6", "--device", "cpu", *told])
    log = out / f"{RUNS[0]}.log"
    wait_for(lambda: log.is_file() and log.read_text().count("$ metasynth") == 2, 600)
    hold.unlink()
    said = launched.communicate()[1]
    assert launched.returncode == 0, said
    assert "this job is timed-out" in next((out / "jobs").glob("*.out")).read_text()
    assert found(out, 1) == tiny_grid.undisturbed(tmp_path / "undisturbed", 1)


@pytest.mark.usefixtures("cluster")
def test_what_slurm_refuses_is_one_line(tmp_path, monkeypatch):
    tiny_grid.install(monkeypatch, tmp_path)
    told = ["--launcher", "slurm", "--launcher-set", "timeout_min=1,partition=gpu"]
    launched = start(["run", "tiny", "--out", "grid", "--seeds", "2", *told])
    said = launched.communicate()[1]
    assert launched.returncode == 1
    line = "the jobs were refused: sbatch: error: invalid partition specified: gpu"
    assert said.splitlines()[-1] == f"Error: --launcher slurm: {line}"
