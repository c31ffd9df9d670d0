"""What the launchers ask of Slurm, which small scripts stand for, and of this machine."""

import os
import subprocess
import sys

import pytest

from metasynth.errors import PackageError, RunError, UsageError
from metasynth.running.jobs import launcher
from metasynth.running.jobs.job import RunJob
from metasynth.running.jobs.launcher import State
from metasynth.running.jobs.launchers import make_launcher
from metasynth.running.jobs.local import local_states
from metasynth.running.jobs.slurm import slurm_states

pytest.importorskip("submitit")
SBATCH = '#!/bin/sh\ncat "$1" > "$TOLD"\n{ls}\necho Submitted batch job 17\n'


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Put commands of Slurm, by their text, in the place of any that there are; the folder of a grid's jobs."""
    commands = tmp_path / "bin"
    commands.mkdir()
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.setenv("TOLD", str(tmp_path / "told"))

    def put(**texts):
        for name, text in {"srun": "", "sbatch": SBATCH.format(ls=""), "squeue": "", **texts}.items():
            (commands / name).write_text(text if text.startswith("#!") else f"#!/bin/sh\n{text}\n")
            (commands / name).chmod(0o755)
        return tmp_path / "grid" / "jobs"

    return put


def jobs(folder, count):
    return [RunJob(f"seed={n}", ("metasynth",), folder.parent / f"seed={n}.log", {}) for n in range(count)]


def test_runs_are_one_array_that_is_requeued(slurm, tmp_path):
    folder = slurm()
    made = make_launcher("slurm", ["partition=gpu,gpus_per_node=1,timeout_min=240", "setup=module load a"], None, 1)
    assert made.submit(folder, jobs(folder, 3)) == ["17_0", "17_1", "17_2"]
    lines = (tmp_path / "told").read_text().splitlines()
    asked = {line for line in lines if line.startswith("#SBATCH")}
    assert asked >= {
        "#SBATCH --array=0-2%3",
        "#SBATCH --gpus-per-node=1",
        "#SBATCH --job-name=metasynth",
        "#SBATCH --open-mode=append",
        "#SBATCH --partition=gpu",
        "#SBATCH --requeue",
        "#SBATCH --signal=USR2@90",
        "#SBATCH --time=240",
    }
    assert "module load a" in lines
    submitted = sorted(path.name for path in folder.glob("*_submitted.pkl"))
    assert submitted == ["17_0_submitted.pkl", "17_1_submitted.pkl", "17_2_submitted.pkl"]


def test_jobs_says_how_many_of_an_array_run_at_a_time(slurm, tmp_path):
    folder = slurm()
    make_launcher("slurm", ["timeout_min=5"], 2, 1).submit(folder, jobs(folder, 3))
    assert "#SBATCH --array=0-2%2" in (tmp_path / "told").read_text().splitlines()


def test_a_single_run_is_a_job_of_its_own(slurm, tmp_path):
    folder = slurm()
    assert make_launcher("slurm", ["timeout_min=5"], None, 1).submit(folder, jobs(folder, 1)) == ["17"]
    assert "--array" not in (tmp_path / "told").read_text()


def test_jobs_do_not_import_from_the_folder_they_are_started_in(slurm, tmp_path):
    folder = slurm(sbatch='echo "$PYTHONSAFEPATH" > "$TOLD"; echo Submitted batch job 17')
    make_launcher("slurm", ["timeout_min=5"], None, 1).submit(folder, jobs(folder, 1))
    assert (tmp_path / "told").read_text() == "1\n"


def test_what_sbatch_says_is_told(slurm):
    said = "sbatch: error: invalid partition specified: gpu"
    folder = slurm(sbatch=f"echo '{said}' >&2; echo 'sbatch: error: Batch job submission failed' >&2; exit 1")
    with pytest.raises(RunError) as caught:
        make_launcher("slurm", ["timeout_min=5"], None, 1).submit(folder, jobs(folder, 2))
    assert str(caught.value) == f"--launcher slurm: the jobs were refused: {said}"


def test_states_are_those_of_squeue(slurm, tmp_path):
    states = ["PENDING", "RUNNING", "COMPLETING", "COMPLETED", "CANCELLED", "TIMEOUT", "PREEMPTED"]
    lines = "".join(f"echo '17_{index} {state}'\n" for index, state in enumerate(states))
    folder = slurm(squeue=f'echo "$@" > "$TOLD"\n{lines}')
    names = [f"17_{index}" for index in range(8)]
    made = make_launcher("slurm", ["timeout_min=5"], None, 1)
    expected = [State.WAITS, State.RUNS, State.RUNS, State.ENDED, State.CANCELLED, *[State.ENDED] * 3]
    assert made.states(folder, [*names, "9"]) == {**dict(zip(names, expected, strict=True)), "9": State.ENDED}
    assert (tmp_path / "told").read_text() == "--noheader --array --states=all --format=%i %T --jobs=17,9\n"


def test_jobs_that_slurm_has_forgotten_have_ended(slurm):
    slurm(squeue="echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert slurm_states(["17_0"]) == {"17_0": State.ENDED}


def test_a_controller_that_does_not_answer_says_nothing_of_jobs(slurm):
    slurm(squeue="echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    assert slurm_states(["17_0"]) == {}


@pytest.mark.parametrize("missing", ["sbatch", "squeue", "srun"])
def test_a_machine_without_slurm_is_told(slurm, tmp_path, monkeypatch, missing):
    slurm()
    (tmp_path / "bin" / missing).unlink()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(UsageError) as caught:
        make_launcher("slurm", ["timeout_min=5"], None, 1)
    assert str(caught.value) == f"--launcher slurm: there is no {missing} here; start it where jobs are submitted"


def test_how_long_a_job_may_take_has_to_be_said(slurm):
    slurm()
    with pytest.raises(UsageError) as caught:
        make_launcher("slurm", ["partition=gpu"], None, 1)
    told = "--launcher slurm: needs --launcher-set timeout_min=MINUTES, after which a job is requeued"
    assert str(caught.value) == told


def test_without_squeue_nobody_can_say_what_became_of_jobs(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RunError, match="squeue cannot be started: No such file or directory"):
        slurm_states(["17_0"])


@pytest.mark.parametrize("name", ["slurm", "local"])
def test_without_submitit_the_line_says_what_to_install(monkeypatch, name):
    monkeypatch.setattr(launcher, "find_spec", lambda package: None)
    with pytest.raises(PackageError) as caught:
        make_launcher(name, [], None, 1)
    told = f"--launcher {name} needs the package submitit: pip install 'metasynth-toolkit[cluster]'"
    assert str(caught.value) == told


def test_only_processes_of_the_grid_are_its_jobs(tmp_path):
    words = ["-c", "import time; time.sleep(60)", "submitit.local._local"]
    mine, other = (subprocess.Popen([sys.executable, *words, str(tmp_path / name)]) for name in "ab")
    try:
        names = [str(mine.pid), str(other.pid), str(os.getpid())]
        assert list(local_states(tmp_path / "a", names).values()) == [State.RUNS, State.ENDED, State.ENDED]
    finally:
        mine.kill()
        other.kill()
        mine.wait()
        other.wait()
    assert local_states(tmp_path / "a", [str(mine.pid)]) == {str(mine.pid): State.ENDED}


def test_runs_without_a_gpu_of_their_own_see_those_that_the_launching_process_sees(monkeypatch):
    """Submitit shows its local jobs none."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert make_launcher("local", [], None, 1).environment == {"CUDA_VISIBLE_DEVICES": None}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,3")
    assert make_launcher("local", [], None, 1).environment == {"CUDA_VISIBLE_DEVICES": "1,3"}


def test_gpus_are_those_of_this_machine(slurm):
    """What a cluster's jobs have is the cluster's to say."""
    slurm()
    assert make_launcher("local", [], None, 2, ("1", "3")).gpus == ("1", "3")
    assert make_launcher("local", [], None, 2).gpus == ()
    assert make_launcher("slurm", ["timeout_min=5"], None, 2, ("1", "3")).gpus == ()
